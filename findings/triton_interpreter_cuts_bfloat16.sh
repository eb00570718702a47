#!/usr/bin/env bash
# triton 3.7.1, torch 2.13.0, on the CPU (TRITON_INTERPRET=1).
# Triton's interpreter turns float32 into bfloat16 by cutting off the lower bits, where torch, and the instruction that
# a GPU has for it, round to nearest even. A kernel that stores float32 values into a bfloat16 tensor passes or fails
# its comparison with torch in half of the entries, depending on where it runs.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 triton==3.7.1
cat >"$place/cut.py" <<'PY'
import torch
import triton
import triton.language as tl


@triton.jit
def copy(source, target, count: tl.constexpr):
    places = tl.arange(0, count)
    tl.store(target + places, tl.load(source + places))


torch.manual_seed(0)
x = torch.rand(1024) + 1
stored = torch.empty(1024, dtype=torch.bfloat16)
copy[(1,)](x, stored, 1024)
cut = (x.view(torch.int32) & -65536).view(torch.float32).bfloat16()
rounded = x.bfloat16()
print("equal to cutting:", (stored == cut).sum().item(), "equal to rounding:", (stored == rounded).sum().item(), "of 1024")
assert torch.equal(stored, cut)
assert 400 < (stored == rounded).sum().item() < 624
PY
TRITON_INTERPRET=1 "$place/venv/bin/python" "$place/cut.py"
