#!/usr/bin/env bash
# numba 0.68.1.
# A function compiled with cache=True freezes the module constants that it reads. Where the constant is imported from
# another file, numba's cache does not notice that this other file was changed (its key is the function's own file):
# the next process goes on with the old value, silently. A constant of the function's own file is noticed.
# Seen: the imported constant was changed from 1 to 2 and 1 came back; the own one was changed and 2 came back.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 numpy==2.4.6
cd "$place"
export NUMBA_CACHE_DIR="$place/cache" PYTHONDONTWRITEBYTECODE=1
echo "LEVEL = 1" >constants.py
cat >imported.py <<'PY'
from constants import LEVEL
from numba import njit


@njit(cache=True)
def level():
    return LEVEL
PY
cat >own.py <<'PY'
from numba import njit

LEVEL = 1


@njit(cache=True)
def level():
    return LEVEL
PY
say() { "$place/venv/bin/python" -c "import imported, own; print(imported.level(), own.level())"; }
before=$(say)
sleep 1
echo "LEVEL = 2" >constants.py
sed -i 's/^LEVEL = 1/LEVEL = 2/' own.py
after=$(say)
echo "imported and own constant, before: $before; after both were changed to 2: $after"
[ "$before" = "1 1" ]
[ "$after" = "1 2" ]
