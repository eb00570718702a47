#!/usr/bin/env bash
# torch 2.13.0.
# OneCycleLR with pct_start=0.1 cannot be made for a training of exactly ten steps: its rise then has a length of zero,
# and the constructor, which takes its first step, raises ZeroDivisionError. Nine or eleven steps work.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import torch


def outcome(steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    try:
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps, pct_start=0.1)
    except ZeroDivisionError:
        return "ZeroDivisionError"
    return f"starts at {schedule.get_last_lr()[0]:.3f}"


found = {steps: outcome(steps) for steps in (9, 10, 11)}
print(found)
assert found[10] == "ZeroDivisionError"
assert "ZeroDivisionError" not in (found[9], found[11])
PY
