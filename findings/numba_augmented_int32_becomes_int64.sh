#!/usr/bin/env bash
# numba 0.68.1, numpy 2.4.6.
# A variable that starts as an int32 and is updated with |= by int32 values becomes an int64 in compiled code (numpy
# keeps int32), without a word. In our loop over float32 rows such a flag made the compiler give up vector
# instructions, and the loop took twice as long; numpy.int32(...) around each update keeps the type.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import numba
import numpy as np


def augmented(x):
    seen = np.int32(0)
    for i in range(x.size):
        seen |= np.int32(1) if x[i] > 2 else np.int32(0)
    return seen


def wrapped(x):
    seen = np.int32(0)
    for i in range(x.size):
        seen = np.int32(seen | (np.int32(1) if x[i] > 2 else np.int32(0)))
    return seen


x = np.ones(16, np.float32)
found = {}
for function in (augmented, wrapped):
    compiled = numba.njit(function)
    compiled(x)
    found[function.__name__] = str(compiled.nopython_signatures[0].return_type)
print(found, "numpy:", type(augmented(x)).__name__)
assert found == {"augmented": "int64", "wrapped": "int32"}
assert isinstance(augmented(x), np.int32)
PY
