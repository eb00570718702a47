#!/usr/bin/env bash
# torch 2.13.0, numpy 2.4.6.
# A checkpoint is a zip archive whose parts carry checksums, but torch.load does not look at those of tensors: after
# one bit of a tensor's bytes has changed on a disk or in a copy, the file loads without a word and holds another
# number. numpy notices the same change in an .npz file, and Python's zipfile names the part.
# Seen: 1.0 was written, another number was read; numpy raised BadZipFile.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PY'
import zipfile
from pathlib import Path

import numpy as np
import torch

ones = np.ones(64, np.float32)
torch.save({"weight": torch.from_numpy(ones)}, "checkpoint.pt")
np.savez("checkpoint.npz", weight=ones)
for name in ("checkpoint.pt", "checkpoint.npz"):
    content = bytearray(Path(name).read_bytes())
    content[content.index(ones.tobytes()) + 2] ^= 1
    Path(name).write_bytes(content)
read = torch.load("checkpoint.pt", weights_only=True)["weight"][0].item()
print("torch reads", read, "- zipfile names", zipfile.ZipFile("checkpoint.pt").testzip())
assert read != 1.0
assert "data/0" in zipfile.ZipFile("checkpoint.pt").testzip()
try:
    np.load("checkpoint.npz")["weight"]
except zipfile.BadZipFile as error:
    print("numpy:", error)
else:
    raise AssertionError("numpy read it")
PY
