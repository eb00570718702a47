"""The regression problems of the chapter: sparse teachers on Gaussian inputs, and on real images of digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lib.datasets import digits
from lib.validation import finite_array, number_between, numpy_generator, positive_integer, regression_data

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = [
    "SparseRegression",
    "digits_regression",
    "least_l1_interpolator",
    "least_l2_interpolator",
    "sparse_regression",
]


@dataclass(frozen=True)
class SparseRegression:
    """Fewer examples than weights, and a teacher with few non-zero weights.

    Attributes:
        X, y: Training inputs (N, d) and targets (N,), with label noise.
        X_test: Test inputs (M, d); their targets are the teacher's, without noise.
        teacher: True weights (d,).
    """

    X: Array
    y: Array
    X_test: Array
    teacher: Array

    def test_error(self, w: ArrayLike) -> float:
        """Mean squared error of the predictor `w` (d,) on the noiseless test targets."""
        w = finite_array("w", w, shape=self.teacher.shape)
        return float(np.mean((self.X_test @ (w - self.teacher)) ** 2))


def _check_sizes(d: int, n: int, sparsity: int, noise: float) -> None:
    for name, value in (("d", d), ("n", n), ("sparsity", sparsity)):
        positive_integer(name, value)
    if sparsity > d:
        raise ValueError(f"sparsity must be at most d = {d}; it is {sparsity}")
    number_between("noise", noise, 0)


def sparse_regression(
    d: int = 1000,
    n: int = 100,
    *,
    sparsity: int = 5,
    noise: float = 0.1,
    n_test: int = 2000,
    rng: np.random.Generator | np.random.RandomState,
) -> SparseRegression:
    """Gaussian inputs and a sparse teacher with entries `1 / sqrt(sparsity)` (Sections 7 and 9).

    Draws, in this order: training inputs, test inputs, the teacher's support, the label noise.

    Args:
        noise: Standard deviation of the label noise (the paper's variance of 0.01 is 0.1 here).
        rng: Source of randomness. A legacy `RandomState` is accepted because the paper's own data come from one.

    Examples:
        >>> problem = sparse_regression(20, 5, sparsity=2, rng=np.random.default_rng(0))
        >>> problem.X.shape, int((problem.teacher != 0).sum()), problem.test_error(problem.teacher)
        ((5, 20), 2, 0.0)
    """
    _check_sizes(d, n, sparsity, noise)
    positive_integer("n_test", n_test)
    if not isinstance(rng, np.random.RandomState):
        numpy_generator("rng", rng)
    X, X_test = rng.standard_normal((n, d)), rng.standard_normal((n_test, d))
    return _with_teacher(X, X_test, sparsity, noise, rng)


def _with_teacher(
    X: Array, X_test: Array, sparsity: int, noise: float, rng: np.random.Generator | np.random.RandomState
) -> SparseRegression:
    n, d = X.shape
    teacher = np.zeros(d)
    teacher[rng.choice(d, sparsity, replace=False)] = sparsity**-0.5
    return SparseRegression(X, X @ teacher + noise * rng.standard_normal(n), X_test, teacher)


def digits_regression(
    n: int = 30, *, sparsity: int = 3, noise: float = 0.1, rng: np.random.Generator
) -> SparseRegression:
    """Pixels of scikit-learn's handwritten digits as inputs, and a sparse teacher.

    Pixels that hardly vary are dropped and the others standardised; the teacher reads `sparsity` of them. Of the 1 797
    images `n` are for training, the others for testing.

    Examples:
        >>> problem = digits_regression(rng=np.random.default_rng(0))
        >>> problem.X.shape, problem.X_test.shape
        ((30, 52), (1767, 52))
    """
    numpy_generator("rng", rng)
    images, _ = digits()
    pixels = images.reshape(len(images), -1)
    pixels = pixels[:, pixels.std(axis=0) > 0.5]
    pixels = (pixels - pixels.mean(axis=0)) / pixels.std(axis=0)
    d = pixels.shape[1]
    _check_sizes(d, n, sparsity, noise)
    if n >= d:
        raise ValueError(f"n must be below the number of pixels, {d}; it is {n}")
    order = rng.permutation(len(pixels))
    return _with_teacher(pixels[order[:n]], pixels[order[n:]], sparsity, noise, rng)


def least_l2_interpolator(X: ArrayLike, y: ArrayLike) -> Array:
    """The interpolator (d,) of least Euclidean norm: where the kernel regime ends.

    Examples:
        >>> least_l2_interpolator([[3.0, 4.0]], [25.0]).round(6)
        array([3., 4.])
    """
    X, y = regression_data(X, y)
    return np.asarray(np.linalg.lstsq(X, y, rcond=None)[0])


def least_l1_interpolator(X: ArrayLike, y: ArrayLike) -> Array:
    """An interpolator (d,) of least absolute sum, by linear programming (HiGHS): the end of the rich regime.

    Examples:
        >>> least_l1_interpolator([[3.0, 4.0]], [25.0])
        array([0.  , 6.25])
    """
    from scipy.optimize import linprog

    X, y = regression_data(X, y)
    d = X.shape[1]
    solution = linprog(np.ones(2 * d), A_eq=np.hstack([X, -X]), b_eq=y, method="highs")
    if not solution.success:
        raise ValueError(f"no interpolator was found: {solution.message}")
    return np.asarray(solution.x[:d] - solution.x[d:])
