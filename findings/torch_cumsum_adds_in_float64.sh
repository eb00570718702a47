#!/usr/bin/env bash
# torch 2.13.0 (CPU), numpy 2.4.6.
# torch.cumsum of float32 numbers adds in float64 and rounds every partial sum to float32 once; numpy.cumsum adds in
# float32. Most partial sums differ in their last digit, so a mask that compares them with a threshold is not the same
# mask in the two libraries, nor the one of a loop in float32 in a kernel. Within torch the last partial sum of a long
# row also differs from a float32 loop over the same row.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import numpy as np
import torch

x = torch.rand(1000, generator=torch.Generator().manual_seed(0))
by_torch, by_numpy = torch.cumsum(x, 0), np.cumsum(x.numpy())
in_double = torch.cumsum(x.double(), 0).float()
loop, total = [], np.float32(0)
for value in x.numpy():
    total = np.float32(total + value)
    loop.append(total)
differ = int((by_torch.numpy() != by_numpy).sum())
print(f"partial sums that differ between torch and numpy: {differ} of 1000")
print("torch is float64, rounded once:", bool(torch.equal(by_torch, in_double)))
print("numpy is a loop in float32:", bool(np.array_equal(by_numpy, np.array(loop))))
assert differ > 500
assert torch.equal(by_torch, in_double)
assert np.array_equal(by_numpy, np.array(loop))
PY
