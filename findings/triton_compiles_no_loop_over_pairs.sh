#!/usr/bin/env bash
# triton 3.7.1, torch 2.13.0, on the CPU (TRITON_INTERPRET=1; the other half compiles for sm_90, which needs no GPU).
# A loop over a tuple that is written down in the kernel, `for value, factor in ((x, 1.0), (x, 2.0))`, runs in Triton's
# interpreter and cannot be compiled: the compiler ends with an AttributeError about 'Tuple' and 'func'. A kernel that
# was tested by the interpreter alone can be one that no GPU will ever run.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 triton==3.7.1
cat >"$place/pairs.py" <<'PY'
import os

import torch
import triton
import triton.language as tl


@triton.jit
def weighted(source, target, count: tl.constexpr):
    places = tl.arange(0, count)
    x = tl.load(source + places)
    total = tl.zeros_like(x)
    for value, factor in ((x, 1.0), (x, 2.0)):
        total += value * factor
    tl.store(target + places, total)


if os.environ.get("TRITON_INTERPRET") == "1":
    found = torch.zeros(4)
    weighted[(1,)](torch.tensor([1.0, -1.0, 2.0, -2.0]), found, 4)
    print("interpreted:", found.tolist())
    assert found.tolist() == [3.0, -3.0, 6.0, -6.0]
else:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(weighted, {"source": "*fp32", "target": "*fp32"}, {"count": 4})
    try:
        triton.compile(source, target=GPUTarget("cuda", 90, 32))
    except Exception as error:
        said = str(error).strip().splitlines()[-1]
        print("compiled:", type(error).__name__, said)
        assert "'Tuple' object has no attribute 'func'" in said
    else:
        raise SystemExit("compiled: it works now")
PY
TRITON_INTERPRET=1 "$place/venv/bin/python" "$place/pairs.py"
"$place/venv/bin/python" "$place/pairs.py"
