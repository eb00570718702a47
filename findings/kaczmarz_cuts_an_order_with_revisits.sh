#!/usr/bin/env bash
# kaczmarz-algorithms 0.8.1 with scipy 1.16.3.
# Cyclic takes an order of the rows. It wraps around after as many entries as there are rows, not after those of the
# order: an order that visits a row twice in a round is cut off without a word, and what stands behind is never used.
# One that leaves a row out ends in an IndexError, only after it has been used up.
# Seen: with three rows and the order 0, 1, 2, 1, 2, 1 the rows used are 0, 1, 2, 0, 1, 2.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check kaczmarz-algorithms==0.8.1 scipy==1.16.3 numpy==2.3.5
"$place/venv/bin/python" - <<'PY'
import kaczmarz
import numpy as np

A = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
b = A @ [1.0, 2.0]
wanted = [0, 1, 2, 1, 2, 1]
iterates = kaczmarz.Cyclic.iterates(A, b, order=wanted, maxiter=6, tol=None)
used = [int(iterates.ik) for _ in iterates][1:]
print("order asked:", wanted, "- rows used:", used)
assert used == [0, 1, 2, 0, 1, 2]
short = kaczmarz.Cyclic.iterates(A, b, order=[0, 1], maxiter=6, tol=None)
steps = 0
try:
    for _ in short:
        steps += 1
except IndexError as error:
    print("order of two of the rows:", error, "after", steps - 1, "steps")
else:
    raise AssertionError("an order of two of three rows works now")
PY
