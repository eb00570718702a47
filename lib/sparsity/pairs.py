"""Which pair of a 2:4 block is kept: the closed form with which the field presents the mask."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from lib.validation import finite_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["PAIRS", "mvue24_pair_probabilities"]

#: The order of the six pairs.
PAIRS = tuple(combinations(range(4), 2))


def _of_sorted(a: NDArray[np.float64]) -> dict[tuple[int, int], float]:
    """The probabilities of pairs of magnitudes in rising order; other choices have the same marginals."""
    total, rest = a.sum(), a[:3].sum()
    if a[3] >= rest:  # the largest is kept for sure
        with_largest = a[:3] / rest if rest > 0 else np.array([0.0, 0.0, 1.0])
        return {(i, 3): with_largest[i] for i in range(3)}
    last = (a[2] + a[3] - a[0] - a[1]) / total
    if 2 * a[0] + a[2] > a[3]:
        lower, upper = 2 * a[:2] + a[2] - a[3], 2 * a[:2] - a[2] + a[3]
        halves = np.concatenate([lower, upper]) / (2 * total)
        return dict(zip(((0, 2), (1, 2), (0, 3), (1, 3)), halves, strict=True)) | {(2, 3): last}
    middle = (a[0] + a[1] + a[2] - a[3]) / total
    return {(0, 3): 2 * a[0] / total, (1, 2): middle, (1, 3): (a[1] + a[3] - a[0] - a[2]) / total, (2, 3): last}


def mvue24_pair_probabilities(a: ArrayLike) -> NDArray[np.float64]:
    """The probabilities with which the pairs 12, 13, 14, 23, 24, 34 of a block of four are kept, (6,) float64.

    One choice of several with the same marginals: the two smallest entries are never kept together. `nm_mvue` makes
    another one, which `nm_joint_probabilities` gives. Only where two entries are zero can a pair hold one.

    Source: for the mask Chmiel et al. (arXiv 2203.10991); the three cases were derived here.

    Examples:
        >>> mvue24_pair_probabilities([1.0, 2.0, 3.0, 3.5]).round(3)
        array([0.   , 0.079, 0.132, 0.184, 0.237, 0.368])
        >>> mvue24_pair_probabilities([10.0, 1.0, 2.0, 3.0]).round(3)
        array([0.167, 0.333, 0.5  , 0.   , 0.   , 0.   ])
    """
    sizes = np.abs(finite_array("a", a, shape=(4,)))
    order = np.argsort(sizes, kind="stable")
    # by the largest, so that no sum overflows
    found = _of_sorted(sizes[order] / max(sizes.max(), np.finfo(np.float64).tiny))
    own = {tuple(sorted((int(order[i]), int(order[j])))): chance for (i, j), chance in found.items()}
    return np.array([max(own.get(pair, 0.0), 0.0) for pair in PAIRS])
