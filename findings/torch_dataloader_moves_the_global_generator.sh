#!/usr/bin/env bash
# torch 2.13.0.
# Beginning to iterate over a DataLoader draws a number from torch's global generator, even when nothing is shuffled and
# nothing is loaded in another process: an evaluation in the middle of a training changes every random number that
# follows. With generator= the draw comes from that generator instead.
# Seen: the next global random number differs after one pass without a generator, and is the same after one with it.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import torch
from torch.utils.data import DataLoader, TensorDataset

data = TensorDataset(torch.arange(8))


def next_number(**options):
    torch.manual_seed(0)
    for _ in DataLoader(data, batch_size=4, shuffle=False, num_workers=0, **options):
        pass
    return torch.rand(()).item()


torch.manual_seed(0)
untouched = torch.rand(()).item()
plain, given = next_number(), next_number(generator=torch.Generator())
print(f"next random number: {untouched:.4f} untouched, {plain:.4f} after a pass, {given:.4f} after one with generator=")
assert plain != untouched
assert given == untouched
PY
