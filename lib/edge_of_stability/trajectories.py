r"""Gradient descent on scalar networks, step by step, and its caricature with frozen balances.

One step of gradient descent multiplies the balance of two weights by
:math:`1-\eta^2(\pi-y)^2\pi^2/(w_i^2w_j^2)` (derived here): balances shrink, and with them the sharpness of the
gradient flow solution. Freezing the balances leaves a map of one variable, the product, whose fixed point
has the multiplier :math:`1-\eta\varphi`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lib.edge_of_stability.flow_solution import gfs_sharpness, solve_balances
from lib.edge_of_stability.scalar_network import gd_step, loss, scalar_weights, sharpness, slopes
from lib.validation import finite_array, positive_array, positive_integer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["MONOTONE_LIMIT", "Trajectory", "gd_path", "gpgd_step", "is_admissible", "run_gd"]

#: Below this value of `eta * phi` one step from positive weights to positive weights cannot raise phi (derived here).
MONOTONE_LIMIT = 2 * math.sqrt(2)

# Weights that have grown by this factor, or to this size from below one, are lost.
_TOO_LARGE = 1e6


@dataclass(frozen=True)
class Trajectory:
    """A run of gradient descent, or many.

    Attributes:
        steps: Numbers of the recorded steps (T,), the start included.
        w: Weights (T, ..., D).
        loss, sharpness, gfs_sharpness: (T, ...); after a divergence those of the frozen weights. NaN where the flow
            solution does not exist.
        diverged: (...): whether a lane left all bounds; it is frozen at the last weights before.
    """

    steps: NDArray[np.int64]
    w: Array
    loss: Array
    sharpness: Array
    gfs_sharpness: Array
    diverged: NDArray[np.bool_]


def run_gd(w0: ArrayLike, eta: ArrayLike, n_steps: int, target: float = 1.0, record_every: int = 1) -> Trajectory:
    """Run gradient descent and look at it from three sides: loss, sharpness, sharpness of the flow solution.

    Args:
        w0: Initial weights (..., D).
        eta: Step size, a number or (...).
        record_every: Steps between two records; the start is always kept.

    Examples:
        At `eta * phi = 2.4` the loss jumps about and phi only falls, until it is below `2 / eta`:

        >>> w0 = np.array([1.5, 0.633])
        >>> eta = 2.4 / gfs_sharpness(w0)
        >>> run = run_gd(w0, eta, 2000)
        >>> bool((np.diff(run.loss) > 0).sum() > 5), bool((np.diff(run.gfs_sharpness) <= 1e-12).all())
        (True, True)
        >>> bool(1.8 < eta * run.gfs_sharpness[-1] < 2)
        True
    """
    start = scalar_weights(finite_array("w0", w0), target)
    step = np.broadcast_to(positive_array("eta", eta), start.shape[:-1])
    positive_integer("n_steps", n_steps)
    positive_integer("record_every", record_every)
    steps = np.arange(0, n_steps + 1, record_every)
    if start.ndim == 1:
        weights, lost = gd_path(start, float(step), n_steps, target, record_every)
        diverged = np.array(lost)
    else:
        weights, diverged = _run_batch(start, step, n_steps, target, record_every)
    sharp, phi = sharpness(weights, target), gfs_or_nan(weights, target)
    return Trajectory(steps, weights, loss(weights, target), sharp, phi, diverged)


def gd_path(w0: ArrayLike, eta: float, n_steps: int, target: float = 1.0, record_every: int = 1) -> tuple[Array, bool]:
    """The weights alone of one run of gradient descent, from weights (D,).

    In plain floats: on a handful of weights numpy's calls would cost fifty times the arithmetic.

    Returns:
        w, diverged: Weights (T, D), and whether they left all bounds; they are frozen at the last weights before.

    Examples:
        >>> w, diverged = gd_path([1.0, 0.5], 0.1, 200)
        >>> w.shape, diverged, bool(abs(w[-1].prod() - 1) < 1e-8)
        ((201, 2), False, True)
    """
    start = scalar_weights(finite_array("w0", w0), target)
    if start.ndim != 1:
        raise ValueError(f"w0 must have one axis; its shape is {start.shape}")
    w = [float(value) for value in start]
    depth, rate = len(w), float(finite_array("eta", positive_array("eta", eta), shape=()))
    positive_integer("n_steps", n_steps)
    positive_integer("record_every", record_every)
    records = [tuple(w)]
    diverged = False
    limit = _TOO_LARGE * max(1.0, *map(abs, w))
    for step in range(1, n_steps + 1):
        if not diverged:
            product = math.prod(w)
            pull = rate * (product - target)
            if product != 0.0:
                scaled = pull * product
                new = [value - scaled / value for value in w]
            else:
                new = [w[i] - pull * math.prod(w[:i] + w[i + 1 :]) for i in range(depth)]
            if all(-limit < value < limit for value in new):
                w = new
            else:
                diverged = True
        if step % record_every == 0:
            records.append(tuple(w))
    return np.array(records), diverged


def _run_batch(
    start: Array, eta: Array, n_steps: int, target: float, record_every: int
) -> tuple[Array, NDArray[np.bool_]]:
    w = start.copy()
    limit = _TOO_LARGE * np.maximum(1.0, np.abs(start).max(axis=-1, keepdims=True))
    diverged = np.zeros(start.shape[:-1], dtype=bool)
    records = np.empty((n_steps // record_every + 1, *start.shape))
    records[0] = w
    for step in range(1, n_steps + 1):
        new = w - eta[..., None] * slopes(w, target)
        diverged |= ~(np.abs(new) < limit).all(axis=-1)
        w = np.where(diverged[..., None], w, new)
        if step % record_every == 0:
            records[step // record_every] = w
    return records, diverged


def gfs_or_nan(w: Array, target: float = 1.0) -> Array:
    """Sharpness of the flow solution (...) of weights (..., D) where there is one, NaN elsewhere."""
    sizes = np.sort(np.abs(w), axis=-1)
    wrong_sign = np.sign(w).prod(axis=-1) * np.sign(target) <= 0
    exists = (sizes[..., 1] > 0) & ~(wrong_sign & (sizes[..., 0] == sizes[..., 1]))
    result = np.full(w.shape[:-1], np.nan)
    result[exists] = gfs_sharpness(w[exists], target)
    return result


def gpgd_step(w: ArrayLike, eta: ArrayLike, target: float = 1.0) -> Array:
    """A step that takes the product of gradient descent but keeps the balances (GFS-preserving descent), (..., D).

    Raises:
        ValueError: If the new product has another sign than the old one: no weights of these signs have it.

    Examples:
        >>> w = gpgd_step([2.0, 0.4], eta=0.1)
        >>> bool(np.isclose(w[0] ** 2 - w[1] ** 2, 3.84)), bool(np.isclose(w.prod(), gd_step([2.0, 0.4], 0.1).prod()))
        (True, True)
    """
    weights = scalar_weights(w, target)
    moved = gd_step(weights, positive_array("eta", eta), target).prod(axis=-1)
    if np.any(moved * weights.prod(axis=-1) <= 0):
        raise ValueError("eta must be small enough for the product to keep its sign in one step")
    flat = weights.reshape(-1, weights.shape[-1])
    squares = np.ascontiguousarray(flat.T) ** 2
    squares -= squares.min(axis=0)
    c = solve_balances(squares, 2 * np.log(np.abs(moved)).ravel())
    return np.asarray((np.sign(flat.T) * np.sqrt(c + squares)).T.reshape(weights.shape))


def is_admissible(w: ArrayLike, eta: ArrayLike, target: float = 1.0) -> NDArray[np.bool_]:
    r"""Whether the one-step theorem applies: no sign changes and :math:`\eta\varphi\le2\sqrt2`; (...).

    The product has the target's sign, every weight keeps its sign in the next step, and the sharpness of the flow
    solution is at most `2 sqrt(2) / eta`. Then the step does not raise that sharpness (derived here; the constants
    of the paper's own theorem are not quoted).

    Examples:
        >>> is_admissible([[1.0, 1.0], [4.0, 0.25]], eta=0.9)
        array([ True, False])
    """
    weights = scalar_weights(w, target)
    step = positive_array("eta", eta)
    right_side = np.sign(weights).prod(axis=-1) * np.sign(target) > 0
    stays = (gd_step(weights, step, target) * weights > 0).all(axis=-1)
    phi = gfs_or_nan(weights, target)
    return np.asarray(right_side & stays & (step * np.nan_to_num(phi, nan=np.inf) <= MONOTONE_LIMIT))
