#!/usr/bin/env bash
# triton 3.7.1, torch 2.13.0, on the CPU (TRITON_INTERPRET=1; the other half compiles for sm_90, which needs no GPU).
# `not` before a vector of booleans compiles to a negation of each lane. Triton's interpreter leaves it to Python, which
# takes the truth of the whole block: one answer for all lanes, without an error. A kernel that uses it passes its
# compilation and fails, or passes for the wrong reason, in tests by the interpreter. `~mask` and `mask ^ True` work.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 triton==3.7.1
cat >"$place/negated.py" <<'PY'
import os

import torch
import triton
import triton.language as tl


@triton.jit
def clipped(source, target, count: tl.constexpr):
    places = tl.arange(0, count)
    x = tl.load(source + places)
    tl.store(target + places, tl.where(not (x < 0), x, 0.0))


if os.environ.get("TRITON_INTERPRET") == "1":
    found = torch.full((4,), 9.0)
    clipped[(1,)](torch.tensor([1.0, -1.0, 2.0, -2.0]), found, 4)
    print("interpreted:", found.tolist(), "instead of [1, 0, 2, 0]")
    assert found.tolist() == [0.0, 0.0, 0.0, 0.0]
else:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(clipped, {"source": "*fp32", "target": "*fp32"}, {"count": 4})
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ttir"]
    print("compiled: a decision for each of", code.count("tensor<4xi1>") and 4, "lanes")
    assert "tensor<4xi1>" in code
PY
TRITON_INTERPRET=1 "$place/venv/bin/python" "$place/negated.py"
"$place/venv/bin/python" "$place/negated.py"
