#!/usr/bin/env bash
# torch 2.13.0.
# The first optimizer that a process makes, plain SGD included, imports the machinery of torch.compile (torch._dynamo),
# although nothing is compiled: 800 to 900 modules, one to four seconds. A short training, a command, or the first test
# of a suite pays for it at a place where nobody looks: not at the import, but in SGD(...).
# Seen: torch._dynamo not loaded after import torch, a forward and a backward pass; loaded after SGD([p], lr=0.1), with
# several hundred further modules.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import sys

import torch

p = torch.nn.Parameter(torch.ones(2))
(p**2).sum().backward()
before, loaded_before = len(sys.modules), "torch._dynamo" in sys.modules
torch.optim.SGD([p], lr=0.1)
further, loaded_after = len(sys.modules) - before, "torch._dynamo" in sys.modules
print("torch._dynamo before:", loaded_before, "- after SGD(...):", loaded_after, "- further modules:", further)
assert not loaded_before
assert loaded_after
assert further > 300
PY
