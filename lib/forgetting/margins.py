r"""A network of four weights on which repetition never helps.

`f(x) = sum_i (u_i^2 - v_i^2) x_i`, and two tasks of one example each that ask for `f(x) >= 1`. Weights that answer both
exist; learning the two alternately, each to the nearest weights that answer it, never finds them (Theorem 5 of
Schliserman, Buzaglo, Evron, Soudry, COLT 2026, PMLR 336:5743).
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from lib.forgetting.tasks import Array
from lib.validation import finite_array, number_between, positive_integer

__all__ = ["four_weight_outputs", "four_weight_path", "four_weight_tasks", "nearest_with_margin"]


def four_weight_tasks(gap: float = 0.005) -> Array:
    """The two inputs (2, 2): opposite in their second entry, up to `gap`, and alike in the first.

    Examples:
        >>> four_weight_tasks(0.01).round(4)
        array([[ 0.1211,  0.99  ],
               [ 0.1011, -1.01  ]])
    """
    e = number_between("gap", gap, 0, 0.1)
    return np.array([[1 / 9 + e, 1 - e], [1 / 9 - e, -1 - e]])


def four_weight_outputs(weights: ArrayLike, x: ArrayLike) -> Array:
    """Outputs of networks `(u, v)`, weights (..., 2 n), on an input (n,) or one each (..., n).

    Examples:
        >>> print(four_weight_outputs([2.0, 0.0, 0.0, 1.0], [1.0, 1.0]))
        3.0
    """
    inputs, both = finite_array("x", x), finite_array("weights", weights)
    if not inputs.ndim or not inputs.size or not both.ndim or both.shape[-1] != 2 * inputs.shape[-1]:
        raise ValueError(
            f"weights must hold two numbers for each of x in the last axis; the shapes are {both.shape}, {inputs.shape}"
        )
    u, v = np.split(both, 2, axis=-1)
    return np.asarray(((u**2 - v**2) * inputs).sum(axis=-1))


def nearest_with_margin(weights: ArrayLike, x: ArrayLike) -> Array:
    """The nearest weights (2 n,) with an output of at least 1 on `x` (n,).

    Where several are nearest, as from zero, the one with positive weights.

    Examples:
        >>> nearest_with_margin([0.0, 0.0, 0.0, 0.0], [0.5, 0.1]).round(4)
        array([1.4142, 0.    , 0.    , 0.    ])
    """
    inputs = finite_array("x", x, ndim=1)
    if not inputs.any():
        raise ValueError("x must not be empty or zero: no weights have a margin there")
    start = finite_array("weights", weights, shape=(2 * inputs.size,))
    curvature = np.concatenate([inputs, -inputs])
    if curvature @ start**2 >= 1:
        return start.copy()
    # stationary: weight_i = start_i / (1 - multiplier * curvature_i), for a multiplier below one over the largest one
    largest = curvature.max()

    def moved(share: float) -> Array:
        return np.asarray(start / (1 - share * curvature / largest))

    def missing(share: float) -> float:
        return float(curvature @ moved(share) ** 2 - 1)

    end = 1 - 1e-12
    if missing(end) > 0:
        return moved(brentq(missing, 0.0, end, xtol=1e-15))
    # along the steepest directions the start is zero: there any move is as good as another, as far as it needs to go
    nearest = np.where(curvature == largest, 0.0, moved(end))
    nearest[curvature.argmax()] = np.sqrt((1 - curvature @ nearest**2) / largest)
    return nearest


def four_weight_path(k: int, gap: float = 0.005) -> Array:
    """Weights (k + 1, 4), `u` before `v`, from zeros: the two tasks alternately, each answered by the nearest weights.

    Examples:
        >>> path = four_weight_path(100)
        >>> np.maximum(0, 1 - four_weight_outputs(path[-1], four_weight_tasks()[0])).round(2)
        np.float64(1.99)
    """
    tasks = four_weight_tasks(gap)
    path = np.zeros((positive_integer("k", k) + 1, 4))
    for step in range(k):
        path[step + 1] = nearest_with_margin(path[step], tasks[step % 2])
    return path
