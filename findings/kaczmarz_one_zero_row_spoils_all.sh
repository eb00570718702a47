#!/usr/bin/env bash
# kaczmarz-algorithms 0.8.1 with scipy 1.16.3.
# Rows are divided by their norms first. A row of zeros, an equation 0 = 0 that any x solves (as from one-hot features
# that a batch does not contain), becomes NaN; the step on it makes all unknowns NaN, whichever way rows are chosen.
# There is a RuntimeWarning about a division, no error, and the iteration goes on to its end.
# Seen: [nan nan] with the zero row, [1. 2.] without.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check kaczmarz-algorithms==0.8.1 scipy==1.16.3 numpy==2.3.5
"$place/venv/bin/python" -W ignore::RuntimeWarning - <<'PY'
import kaczmarz
import numpy as np

A = np.array([[1.0, 0.0], [0.0, 1.0]])
b = A @ [1.0, 2.0]
with_zero = np.vstack([A, np.zeros(2)]), np.append(b, 0.0)
for solver in (kaczmarz.Cyclic, kaczmarz.MaxDistance):
    without, spoilt = solver.solve(A, b, maxiter=10, tol=None), solver.solve(*with_zero, maxiter=10, tol=None)
    print(solver.__name__, "without the zero row:", without, "- with it:", spoilt)
    assert np.allclose(without, [1.0, 2.0])
    assert np.isnan(spoilt).all()
PY
