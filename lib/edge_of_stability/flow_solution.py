r"""Where gradient flow on a scalar network ends, without integrating anything (derived here).

Gradient flow conserves the balances `b_i = w_i^2 - min_j w_j^2`, so its end is `w*_i = ± sqrt(c + b_i)` with one
unknown number `c > 0`, the root of

.. math:: \sum_i \log(c+b_i) = 2\log|y| .

In `z = log c` the left-hand side is convex and increasing with a slope between 1 and D. Newton's method
from the upper bound `2 log|y| / D` falls monotonically onto the root; once it is near, Halley's cubic steps
finish. A million networks are one call: the work is done in blocks that stay in the processor's cache, with one
logarithm a network and iteration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lib.edge_of_stability.scalar_network import scalar_weights

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["gfs_sharpness", "gradient_flow_solution", "solve_balances"]

_BLOCK = 4096
_LAST_STEP = 1e-5  # Halley is cubic: the step after this one would be 1e-15
_MAX_ITERATIONS = 100


def solve_balances(b: NDArray[np.float64], log_product: NDArray[np.float64] | float) -> NDArray[np.float64]:
    r"""The `c` with :math:`\sum_i \log(c + b_i)` equal to `log_product`, for balances of shape (D, M).

    Parameters
    ----------
    b
        Balances, non-negative with a zero in every column.
    log_product
        Logarithm of the squared product to reach, a number or (M,).

    Returns
    -------
    ndarray of shape (M,)

    Raises
    ------
    ValueError
        If the iteration did not reach the root, which is only possible for input that is not balances.

    Examples
    --------
    >>> c = solve_balances(np.array([[0.0], [3.75]]), 0.0)
    >>> print(c.round(12))
    [0.25]
    """
    depth, count = b.shape
    goal = np.broadcast_to(np.asarray(log_product, dtype=np.float64), (count,))
    c = np.empty(count)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        c[start:stop] = _solve_block(b[:, start:stop], goal[start:stop], depth)
    return c


def _log_of_product(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of logarithms down the columns: one logarithm of the product, and many only where it over- or underflows."""
    product = terms[0].copy()
    for term in terms[1:]:
        product *= term
    value: NDArray[np.float64] = np.log(product)
    bad = ~np.isfinite(value)
    if bad.any():
        value[bad] = np.log(terms[:, bad]).sum(axis=0)
    return value


def _solve_block(b: NDArray[np.float64], goal: NDArray[np.float64], depth: int) -> NDArray[np.float64]:
    top = goal / depth
    z = top.copy()
    with np.errstate(over="ignore", divide="ignore"):
        for _ in range(_MAX_ITERATIONS):
            c = np.exp(z)
            terms = c + b
            excess = _log_of_product(terms) - goal
            np.divide(c, terms, out=terms)
            slope = terms.sum(axis=0)
            step = excess / slope
            # Halley's correction, only where Newton has come near
            near = np.abs(step) < 1.0
            curvature = slope - np.einsum("dm,dm->m", terms, terms)
            bend = np.maximum(1.0 - step * curvature / (2.0 * slope), 0.5)
            step = np.where(near, step / bend, step)
            z = np.minimum(z - step, top)
            if np.abs(step).max(initial=0.0) < _LAST_STEP:
                break
        c = np.exp(z)
        residual = np.abs(np.log(c + b).sum(axis=0) - goal)
    if not residual.max(initial=0.0) < 1e-10 * max(1.0, float(np.abs(goal).max(initial=0.0))):
        raise ValueError(f"the balances have no solution to rounding; the largest misfit is {residual.max():.1e}")
    return c


def _checked(w: ArrayLike, target: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Weights, and where the smallest one must change its sign on the way; says which weights have no solution."""
    weights = scalar_weights(w, target)
    sizes = np.abs(weights)
    zeros = (weights == 0).sum(axis=-1)
    if np.any(zeros >= 2):
        raise ValueError("w must not hold two or more zeros: gradient flow never leaves that saddle")
    crosses = (np.sign(weights).prod(axis=-1) * np.sign(target) < 0) | (zeros == 1)
    two_smallest = np.partition(sizes, 1, axis=-1)[..., :2]
    tied = crosses & (two_smallest[..., 0] == two_smallest[..., 1])
    if np.any(tied):
        raise ValueError(
            "w must not have two smallest weights of equal size when its product has the wrong sign: "
            "gradient flow then ends on a saddle"
        )
    return weights, crosses


def gradient_flow_solution(w: ArrayLike, target: float = 1.0) -> NDArray[np.float64]:
    """The minimum that gradient flow from `w` ends at.

    Where the product has the wrong sign, the smallest weight passes through zero and changes its own.

    Parameters
    ----------
    w
        Weights (..., D), D at least 2.
    target
        The number to fit, not zero.

    Returns
    -------
    ndarray of shape (..., D)

    Raises
    ------
    ValueError
        If D is 1, the target is zero, something is not finite, two or more weights are zero, or the two smallest
        weights tie while the product has the wrong sign.

    Examples
    --------
    >>> solution = gradient_flow_solution([2.0, 0.1])
    >>> print(solution.round(4), solution.prod().round(12))
    [2.0559 0.4864] 1.0
    """
    weights, crosses = _checked(w, target)
    flat = weights.reshape(-1, weights.shape[-1])
    squares = np.ascontiguousarray(flat.T) ** 2
    b = squares - squares.min(axis=0)
    c = solve_balances(b, 2 * np.log(abs(target)))
    signs = np.where(flat < 0, -1.0, 1.0)
    flip = np.flatnonzero(crosses.ravel())
    smallest = np.abs(flat[flip]).argmin(axis=1)
    product_sign = signs[flip].prod(axis=1) * np.sign(target)
    signs[flip, smallest] *= np.where(product_sign < 0, -1.0, 1.0)
    return np.asarray((signs.T * np.sqrt(c + b)).T.reshape(weights.shape))


def gfs_sharpness(w: ArrayLike, target: float = 1.0) -> NDArray[np.float64]:
    r"""Sharpness of the gradient flow solution, :math:`\varphi(w) = y^2\sum_i 1/(c+b_i)`.

    The paper's quantity: gradient flow never changes it, gradient descent only lowers it.

    Parameters
    ----------
    w, target
        As for `gradient_flow_solution`.

    Returns
    -------
    ndarray of shape (...)

    Examples
    --------
    >>> print(gfs_sharpness([1.0, 1.0]), gfs_sharpness([2.0, 0.1]).round(4))
    2.0 4.4632
    """
    weights, _ = _checked(w, target)
    flat = weights.reshape(-1, weights.shape[-1])
    squares = np.ascontiguousarray(flat.T) ** 2
    squares -= squares.min(axis=0)
    c = solve_balances(squares, 2 * np.log(abs(target)))
    return np.asarray((target**2 / (c + squares)).sum(axis=0).reshape(weights.shape[:-1]))
