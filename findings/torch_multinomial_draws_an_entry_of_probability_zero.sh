#!/usr/bin/env bash
# torch 2.13.0.
# torch.multinomial without replacement, asked for two entries of a row in which only one has a weight above zero,
# raises nothing: it gives that entry and one of probability zero, the same one every time. Approximate sparsifiers of
# gradients draw two of four in this way, and after a ReLU many rows hold one non-zero. numpy's Generator.choice
# refuses the same request.
# Seen: 1,000 draws from (0, 0, 3, 0): the second index was always one of weight zero, and always the same.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import numpy as np
import torch

torch.manual_seed(0)
weights = torch.tensor([0.0, 0.0, 3.0, 0.0])
drawn = torch.multinomial(weights.repeat(1000, 1), 2, replacement=False)
seconds = set(drawn[:, 1].tolist())
print("first index:", set(drawn[:, 0].tolist()), "second index:", seconds)
assert set(drawn[:, 0].tolist()) == {2}
assert len(seconds) == 1
assert weights[seconds.pop()] == 0
try:
    np.random.default_rng(0).choice(4, 2, replace=False, p=(weights / weights.sum()).numpy())
except ValueError as error:
    print("numpy:", error)
else:
    raise AssertionError("numpy drew")
PY
