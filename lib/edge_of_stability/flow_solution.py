r"""Where gradient flow on a scalar network ends, without integrating anything (derived here).

Gradient flow conserves the balances `b_i = w_i^2 - min_j w_j^2`, so its end is `w*_i = ± sqrt(c + b_i)` with one
unknown number `c > 0`, the root of

.. math:: \sum_i \log(c+b_i) = 2\log|y| .

It is solved for `y = 1`; otherwise `c` and `b` are scaled. In `z = log c` the left-hand side is convex and increasing
with a slope between 1 and D. Newton's method from above falls monotonically onto the root; once it is near, Halley's
cubic steps finish. A million networks are one call of a compiled loop that needs no logarithm at all. Where products
leave the range of floating-point numbers, the same steps are done on sums of logarithms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lib.edge_of_stability.compiled import above_smallest, solve
from lib.edge_of_stability.scalar_network import scalar_weights
from lib.validation import finite_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["gfs_sharpness", "gradient_flow_solution", "solve_balances"]

_LAST_STEP = 1e-5  # Halley is cubic: the step after this one would be 1e-15
_MAX_ITERATIONS = 100
_PART = 8192


def solve_balances(b: ArrayLike, log_product: ArrayLike) -> Array:
    r"""The `c` with :math:`\sum_i \log(c + b_i)` equal to `log_product`, for balances of shape (D, M).

    Args:
        b: Balances, non-negative with a zero in every column.
        log_product: Logarithm of the squared product to reach, a number or (M,).

    Examples:
        >>> c = solve_balances(np.array([[0.0], [3.75]]), 0.0)
        >>> print(c.round(12))
        [0.25]
    """
    columns = finite_array("b", b)
    if columns.ndim != 2 or not len(columns):
        raise ValueError(f"b must have 2 axes, the first of them not empty; its shape is {columns.shape}")
    goal = finite_array("log_product", log_product)
    if goal.shape not in ((), columns.shape[1:]):
        raise ValueError(f"log_product must be a number or have shape {columns.shape[1:]}; its shape is {goal.shape}")
    if not goal.any():
        return _solve(columns, np.empty(0))
    scale = np.exp(goal / len(columns))
    return np.asarray(scale * _solve(columns / scale, np.empty(0)))


def _solve(b: Array, inverse_sum: Array) -> Array:
    """The c with a product of 1; writes the sum of `1 / (c + b)` down the columns into `inverse_sum`, if not empty."""
    b = np.ascontiguousarray(b)
    c, missed = np.empty(b.shape[1]), np.empty(b.shape[1], dtype=np.bool_)
    if solve(b, c, inverse_sum, missed) or not np.isfinite(b[:, missed]).all():
        raise ValueError("b must be finite and non-negative, with a zero in every column")
    if missed.any():
        c[missed] = _by_logarithms(b[:, missed])
        if inverse_sum.size:
            inverse_sum[missed] = (1 / (c[missed] + b[:, missed])).sum(axis=0)
    return c


def _by_logarithms(b: Array) -> Array:
    """The same root for any size of numbers, with D logarithms an iteration."""
    z = np.zeros(b.shape[1])
    for _ in range(_MAX_ITERATIONS):
        c = np.exp(z)
        terms = c + b
        excess = np.log(terms).sum(axis=0)
        shares = c / terms
        slope = shares.sum(axis=0)
        step = excess / slope
        # Halley's correction, only where Newton has come near
        bend = np.maximum(1.0 - step * (slope - (shares**2).sum(axis=0)) / (2.0 * slope), 0.5)
        step = np.where(np.abs(step) < 1.0, step / bend, step)
        z = np.minimum(z - step, 0.0)
        if np.abs(step).max(initial=0.0) < _LAST_STEP:
            break
    c = np.exp(z)
    misfit = float(np.abs(np.log(c + b).sum(axis=0)).max(initial=0.0))
    if not misfit < 1e-10:
        raise ValueError(f"the balances have no solution to rounding; the largest misfit is {misfit:.1e}")
    return c


@dataclass(frozen=True)
class _Ends:
    """Where gradient flow from some networks ends; networks along the last axis."""

    b: Array
    c: Array
    inverse_sum: Array
    smallest: NDArray[np.int64]
    flips: NDArray[np.bool_]


def _ends(weights: Array, target: float) -> Iterator[tuple[slice, _Ends]]:
    """Solve for networks (M, D), a part that fits the cache at a time, or say which have no solution."""
    sign, scale = float(np.sign(target)), abs(target) ** (2 / weights.shape[1])
    for start in range(0, len(weights), _PART):
        part = slice(start, min(start + _PART, len(weights)))
        count = part.stop - start
        b = np.empty((weights.shape[1], count))
        smallest, flips = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.bool_)
        stuck, tied = above_smallest(weights[part], sign, b, smallest, flips)
        if stuck:
            raise ValueError("w must not hold two or more zeros: gradient flow never leaves that saddle")
        if tied:
            raise ValueError(
                "w must not have two smallest weights of equal size when its product has the wrong sign: "
                "gradient flow then ends on a saddle"
            )
        inverse_sum = np.empty(count)
        c = _solve(b if scale == 1 else b / scale, inverse_sum)
        yield part, _Ends(b, scale * c, inverse_sum / scale, smallest, flips)


def gradient_flow_solution(w: ArrayLike, target: float = 1.0) -> Array:
    """The minimum that gradient flow from `w` ends at.

    Where the product has the wrong sign, the smallest weight passes through zero and changes its own.

    Args:
        w: Weights (..., D), D at least 2, not two of them zero; with a product of the wrong sign the two smallest must
            not be of equal size. From such starts gradient flow ends on a saddle.
        target: The number to fit, not zero.

    Examples:
        >>> solution = gradient_flow_solution([2.0, 0.1])
        >>> print(solution.round(4), solution.prod().round(12))
        [2.0559 0.4864] 1.0
    """
    weights = scalar_weights(w, target)
    flat = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]))
    solution = np.where(flat < 0, -1.0, 1.0)
    for part, ends in _ends(flat, target):
        flipped = np.flatnonzero(ends.flips)
        solution[part][flipped, ends.smallest[flipped]] *= -1.0
        solution[part] *= np.sqrt(ends.c + ends.b).T
    return solution.reshape(weights.shape)


def gfs_sharpness(w: ArrayLike, target: float = 1.0) -> Array:
    r"""Sharpness of the gradient flow solution, :math:`\varphi(w) = y^2\sum_i 1/(c+b_i)`.

    The paper's quantity, (...) for weights (..., D): gradient flow never changes it, gradient descent only lowers it.

    Examples:
        >>> print(gfs_sharpness([1.0, 1.0]), gfs_sharpness([2.0, 0.1]).round(4))
        2.0 4.4632
    """
    weights = scalar_weights(w, target)
    flat = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]))
    sharpness = np.empty(len(flat))
    for part, ends in _ends(flat, target):
        sharpness[part] = target * (target * ends.inverse_sum)
    return sharpness.reshape(weights.shape[:-1])
