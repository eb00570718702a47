"""The inner loops of `flow_solution`, compiled: no transcendental function, every array of a block in the cache.

Networks lie along the last axis, so that a loop over them becomes vector instructions. Blocks are small
because a block iterates until its last network is done.
"""

from __future__ import annotations

import numpy as np

from lib.compiling import compiled

__all__ = ["above_smallest", "solve"]

_BLOCK = 256
_LAST_STEP = 1e-5  # the steps are cubic: the one after this would be 1e-15
_MAX_ITERATIONS = 60


@compiled(error_model="numpy", forceinline=True)
def _multiply(b, c, p, p1, p2):
    """Append the factor `c + b` to a product, to its derivative in c, and to half its second derivative."""
    for m in range(c.size):
        x = b[m] + c[m]
        p2[m] = p2[m] * x + p1[m]
        p1[m] = p1[m] * x + p[m]
        p[m] = p[m] * x


@compiled(error_model="numpy", forceinline=True)
def _advance(c, p, p1, p2):
    """One step for every network of a block, in place; the largest step in log c."""
    steps = np.empty(c.size)
    for m in range(c.size):
        # Divisions cost most here: the three that Newton's step needs share one, the rest another.
        above, scaled = p[m] + 1, c[m] * p1[m]
        shared = 1 / (above * scaled * p[m])
        # log p by the first two terms of its area-tangent series: fifth order near the root, and never
        # further away from it than Newton's step would go
        u = (p[m] - 1) * (shared * scaled * p[m])
        excess = 2 * u + u * u * u * (2 / 3)
        slope = scaled * (shared * above * scaled)
        per_slope = shared * above * p[m] * p[m]
        step = excess * per_slope
        # Halley's correction, only where Newton has come near
        bend = max(1 - 0.5 * step * (1 - slope + 2 * c[m] * c[m] * p2[m] * (shared * above * p[m])), 0.5)
        bend = bend if abs(step) < 1.0 else 1.0
        # exp(-step / bend) by its rational approximation of order (2, 2), positive for every step
        even, odd = bend * bend + step * step / 12, step * bend / 2
        new = c[m] * (even - odd) / (even + odd)
        c[m] = new if new < 1.0 else 1.0
        steps[m] = abs(step)
    largest = 0.0
    for m in range(c.size):
        largest = max(largest, steps[m])
    return largest


@compiled(error_model="numpy", forceinline=True)
def _start(p, p1, p2):
    """The empty product."""
    for m in range(p.size):
        p[m], p1[m], p2[m] = 1.0, 0.0, 0.0


@compiled(error_model="numpy", forceinline=True)
def _lower(b, lowest):
    """Keep the smaller of two numbers for every network."""
    for m in range(lowest.size):
        lowest[m] = min(b[m], lowest[m])


@compiled(error_model="numpy")
def solve(b, c, inverse_sum, missed):
    """For each network the c with `prod(c + b) = 1`, the sum of `1 / (c + b)`, and whether it was not found.

    `b` is (D, M) with a zero in every column, the rest is (M,) and written to (an empty `inverse_sum`: not wanted). A
    network is missed where products leave the range of float64.
    Returns the number of columns whose smallest entry is not zero: those are no balances.
    """
    depth, count = b.shape
    products = np.empty((4, _BLOCK))
    strange = 0
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        here = c[start:stop]
        p, p1, p2 = products[0, : stop - start], products[1, : stop - start], products[2, : stop - start]
        lowest = products[3, : stop - start]
        lowest[:] = np.inf
        for i in range(depth):
            _lower(b[i, start:stop], lowest)
        for m in range(stop - start):
            strange += lowest[m] != 0.0
        # The polynomial without its higher powers of c has a larger root: a start above, exact for D = 2.
        here[:] = 0.0
        _start(p, p1, p2)
        for i in range(depth):
            _multiply(b[i, start:stop], here, p, p1, p2)
        for m in range(stop - start):
            guess = 2 / (p1[m] + np.sqrt(p1[m] * p1[m] + 4 * p2[m]))
            here[m] = guess if guess < 1.0 else 1.0
        for _ in range(_MAX_ITERATIONS):
            _start(p, p1, p2)
            for i in range(depth):
                _multiply(b[i, start:stop], here, p, p1, p2)
            if _advance(here, p, p1, p2) < _LAST_STEP:
                break
        _start(p, p1, p2)
        for i in range(depth):
            _multiply(b[i, start:stop], here, p, p1, p2)
        if inverse_sum.size:
            for m in range(stop - start):
                inverse_sum[start + m] = p1[m] / p[m]
        for m in range(stop - start):
            missed[start + m] = not abs(p[m] - 1) < 1e-10
    return strange


@compiled(error_model="numpy")
def above_smallest(w, sign, b, smallest, flips):
    """Balances (D, M) of weights (M, D), the place of the smallest weight, and whether it changes its sign.

    Returns the number of networks that never leave a saddle because two weights are zero, and of those that end
    on one because the two smallest weights tie while the product has the wrong sign.
    """
    count, depth = w.shape
    stuck = tied = 0
    for m in range(count):
        least = second = np.inf
        place = zeros = 0
        right = sign
        # no branches: signs and sizes of random weights cannot be predicted
        for i in range(depth):
            size = abs(w[m, i])
            right *= 1.0 - 2.0 * (w[m, i] < 0)
            zeros += size == 0
            second = min(second, max(least, size))
            place = i if size < least else place
            least = min(least, size)
        smallest[m], flips[m] = place, right < 0
        stuck += zeros > 1
        tied += least == second and right < 0 and zeros == 0
        for i in range(depth):
            size = abs(w[m, i])
            b[i, m] = (size - least) * (size + least)
    return stuck, tied
