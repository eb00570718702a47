"""The most that given tasks can make one another forget, exact: a largest eigenvalue.

With unit spectra and `A` the product of the projections, forgetting after k tasks is `w*^T A^T M A w*`, where `M` is
the mean of the projections onto the row spaces visited. `A` starts and ends in null spaces, which are small where tasks
leave little undetermined: all products are of that size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.forgetting.sequences import known_ordering
from lib.forgetting.tasks import Array, TaskCollection, null_basis, orthonormal_bases

__all__ = ["worst_case_forgetting"]


def worst_case_forgetting(bases: Sequence[ArrayLike] | TaskCollection, ordering: ArrayLike) -> tuple[float, Array]:
    """Largest forgetting over all solutions `w*` of norm 1 and tasks of these row spaces, and where it is reached.

    The tasks' singular values are 1, which forgets most among norms of at most 1.

    `bases` are orthonormal bases (d, r_m) of the row spaces, or a `TaskCollection`, which keeps its null spaces. Where
    `ordering` (k,) repeats itself, k costs its logarithm.

    Examples:
        >>> value, w = worst_case_forgetting([[[1.0], [0.0]], [[np.sqrt(0.5)], [np.sqrt(0.5)]]], [0, 1])
        >>> round(value, 6), w.round(3) + 0.0
        (0.125, array([0., 1.]))
    """
    if isinstance(bases, TaskCollection):
        nulls = bases.null_bases
    else:
        nulls = [null_basis(basis) for basis in orthonormal_bases("bases", bases)]
    order = known_ordering("ordering", ordering, len(nulls))
    first, last = nulls[order[0]], nulls[order[-1]]
    if not first.shape[1] or not last.shape[1]:
        return 0.0, np.eye(len(first))[0]
    moved = _product(nulls, order)
    counts = np.bincount(order, minlength=len(nulls))
    # the mean of `I - P_m` within the last null space: what of it the tasks see
    seen = np.eye(last.shape[1])
    for m in np.flatnonzero(counts):
        turn = last.T @ nulls[m]
        seen -= counts[m] / order.size * (turn @ turn.T)
    values, vectors = np.linalg.eigh(moved.T @ seen @ moved)
    worst = first @ vectors[:, -1]
    return max(float(values[-1]), 0.0), worst * np.sign(worst[np.abs(worst).argmax()])


def _product(nulls: list[Array], order: NDArray[np.int64]) -> Array:
    """The product of all projections, from the first null space to the last, in their bases."""
    turns: dict[tuple[int, int], Array] = {}

    def along(part: NDArray[np.int64]) -> Array:
        product = np.eye(nulls[part[0]].shape[1])
        for here, there in zip(part[:-1].tolist(), part[1:].tolist(), strict=True):
            if (here, there) not in turns:
                turns[here, there] = nulls[there].T @ nulls[here]
            product = turns[here, there] @ product
        return product

    period = _period(order)
    laps = (order.size - 1) // period
    if laps < 2:
        return along(order)
    once = along(order[: period + 1])  # from a task back to itself
    return np.asarray(along(order[laps * period :]) @ np.linalg.matrix_power(once, laps))


def _period(order: NDArray[np.int64]) -> int:
    """The number of steps after which an ordering repeats itself to its end; its length, if it does not."""
    for period in np.flatnonzero(order == order[0])[1:].tolist():
        if np.array_equal(order[period:], order[:-period]):
            return int(period)
    return int(order.size)
