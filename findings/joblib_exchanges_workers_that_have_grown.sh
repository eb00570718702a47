#!/usr/bin/env bash
# joblib 1.6.0 (loky), on Linux; psutil 7.2.2, without which nobody looks at memory.
# A worker process that holds some 300 MB more than after its first task is taken for a leak: it is let go after the task at
# hand and another process takes its place, with a UserWarning that "a worker stopped" and may point to a leak. Nothing
# is lost, but whatever the worker had cached (compiled functions, data) is gone, also where the growth was wanted.
# Seen: eight tasks; each process keeps 400 MB from its second on: all results right, more than two processes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check joblib==1.6.0 psutil==7.2.2
cat > "$place/tasks.py" <<'PY'
import os
import time

KEPT = []


def work(number):
    KEPT.append(b"x" * 400_000_000 if len(KEPT) == 1 else b"")
    time.sleep(1.5)
    return number * number, os.getpid()
PY
cat > "$place/main.py" <<'PY'
import warnings

from joblib import Parallel, delayed
from tasks import work

if __name__ == "__main__":
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = Parallel(n_jobs=2)(delayed(work)(number) for number in range(8))
    processes = {process for _, process in found}
    told = [str(each.message) for each in caught if "worker stopped" in str(each.message)]
    print("processes for two jobs:", len(processes), "- told:", told[:1])
    assert [value for value, _ in found] == [number * number for number in range(8)]
    assert len(processes) > 2
    assert told
PY
(cd "$place" && "$place/venv/bin/python" main.py)
