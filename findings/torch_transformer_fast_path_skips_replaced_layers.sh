#!/usr/bin/env bash
# torch 2.13.0.
# In evaluation without gradients, TransformerEncoderLayer calls one fused function with the weights of its linear
# layers. A subclass of Linear put in their place (a quantised or pruned layer, an adapter) is never called then, and
# nothing says so: the same model gives the replaced layers' answer with gradients and the original's without.
# Seen: with gradients the output moves, without it is equal to the original network's; the layer's forward ran 0 times.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import copy

import torch
from torch import nn

ran = []


class Halved(nn.Linear):
    def forward(self, x):
        ran.append(1)
        return super().forward(x) / 2


torch.manual_seed(0)
plain = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True).eval()
replaced = copy.deepcopy(plain)
replaced.linear1.__class__ = Halved
replaced.linear2.__class__ = Halved
x = torch.randn(2, 5, 32)
with torch.no_grad():
    without = float((replaced(x) - plain(x)).abs().max())
calls_without = len(ran)
moved = float((replaced(x) - plain(x)).detach().abs().max())
print(f"without gradients: moved by {without:.1e}, forward ran {calls_without} times; with: moved by {moved:.2f}, {len(ran)} times")
assert without < 1e-5
assert calls_without == 0
assert moved > 0.01
assert len(ran) == 2
PY
