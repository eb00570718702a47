#!/usr/bin/env bash
# torch 2.13.0.
# A tensor of one entry counts as contiguous whatever its stride is, and contiguous() returns it as it is. Its bytes can
# then not be looked at: view(torch.uint8) asks for a stride of one and raises RuntimeError. With two entries,
# contiguous() makes a copy and the view works, so a digest of tensors fails for a batch of one only.
# Seen: x[::2] of two int64 entries: is_contiguous True, stride 2, RuntimeError; of four entries: eight bytes an entry.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import torch


def outcome(entries):
    every_second = torch.arange(entries)[::2].contiguous()
    try:
        size = len(every_second.view(torch.uint8))
    except RuntimeError:
        size = "RuntimeError"
    return every_second.is_contiguous(), every_second.stride(), size


one, two = outcome(2), outcome(4)
print("one entry:", one, "- two entries:", two)
assert one == (True, (2,), "RuntimeError")
assert two == (True, (1,), 16)
PY
