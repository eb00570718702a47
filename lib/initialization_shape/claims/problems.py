"""The random problems on which the claims are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lib.initialization_shape.regression import sparse_regression
from lib.initialization_shape.several_neurons import random_neurons

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lib.initialization_shape.regression import SparseRegression

    Vector = NDArray[np.float64]


def relative_distance(one: Vector, other: Vector) -> float:
    """Relative distance of a predictor from the predicted one."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def diagonal_problems(count: int) -> Iterator[tuple[Vector, Vector, dict[str, Vector]]]:
    """Random regression problems with random biased initializations."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        d = int(rng.integers(10, 40))
        n = int(rng.integers(2, d // 3 + 1))
        X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
        size = 10 ** rng.uniform(-2, 0)
        yield X, y, {name: size * rng.standard_normal(d) for name in ("u_p", "v_p", "u_m", "v_m")}


def neuron_problems(count: int) -> Iterator[tuple[Vector, Vector, float, Vector]]:
    """Random regression problems with random neurons whose output layer is the larger one."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        d = int(rng.integers(5, 40))
        n = int(rng.integers(2, d // 2 + 1))
        X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
        a, u = random_neurons(1, d, 10 ** rng.uniform(-3, 0.5), rng.uniform(0, 0.95), rng=rng)
        yield X, y, float(a[0]), u[0]


def section_7_problem() -> SparseRegression:
    return sparse_regression(rng=np.random.RandomState(1993))
