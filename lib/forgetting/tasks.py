r"""Linear regression tasks that one weight vector solves, and the subspaces that their rows span.

The setting of "How catastrophic can catastrophic forgetting be in linear regression?" (Evron, Moroshko, Ward, Srebro,
Soudry, COLT 2022, arXiv 2205.09588): task m asks for `X_m w = y_m`, and some `w*` answers all tasks.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from lib.validation import finite_array, integer_at_least, number_between, true_or_false

Array = NDArray[np.float64]

__all__ = ["TaskCollection", "null_basis", "orthonormal_bases", "row_space"]

# A triangular factor whose diagonal falls no further than this is of full rank for every tolerance below it.
_CLEARLY_FULL = 1e-6
# Jointly solvable: the residual of the common solution, relative to the targets.
_SOLVED = 1e-8


def row_space(X: ArrayLike, rtol: float | None = None) -> Array:
    """Orthonormal basis (d, r) of the space that the rows of `X` (n, d) span.

    Directions count whose singular value is above `rtol` times the largest; by default `max(n, d)` times the machine's
    precision, as for numpy's `matrix_rank`. A sparse matrix of scipy's will do too.

    Examples:
        >>> row_space([[3.0, 4.0], [6.0, 8.0]]).round(2) + 0.0
        array([[0.6],
               [0.8]])
    """
    return space_of(checked_rows("X", X), rtol)


def space_of(rows: Any, rtol: float | None) -> Array:
    """`row_space` of a matrix that was looked at."""
    dense = _dense(rows)
    if (largest := np.abs(dense).max(initial=0.0)) == 0:
        return np.zeros((dense.shape[1], 0))
    tolerance = _rtol(rtol, dense.shape)
    count = len(dense)
    if 1 < count <= dense.shape[1] and tolerance < _CLEARLY_FULL:
        # several times faster than singular values, and enough where the rows are far from dependent
        basis, triangle, _ = scipy.linalg.qr(dense.T, mode="economic", pivoting=True, check_finite=False)
        diagonal = np.abs(np.diag(triangle))
        if diagonal[-1] > _CLEARLY_FULL * np.sqrt(count) * diagonal[0]:
            return np.ascontiguousarray(basis)
    _, values, rows_of_v = scipy.linalg.svd(dense / largest, full_matrices=False, check_finite=False)
    basis = rows_of_v[values > tolerance * values[0]].T
    # the largest entry of each column positive, so that the same rows give the same basis everywhere
    signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    return np.ascontiguousarray(basis * signs)


def _rtol(rtol: float | None, shape: tuple[int, ...]) -> float:
    if rtol is None:
        return max(shape) * float(np.finfo(np.float64).eps)
    return number_between("rtol", rtol, 0, 1)


def null_basis(basis: Array) -> Array:
    """Orthonormal basis (d, d - r) of what is orthogonal to the columns of an orthonormal basis (d, r)."""
    d, r = basis.shape
    if r == 0:
        return np.eye(d)
    full, _ = scipy.linalg.qr(basis, check_finite=False)
    return np.ascontiguousarray(full[:, r:])


def orthonormal_bases(name: str, bases: Sequence[ArrayLike]) -> list[Array]:
    """The bases, each (d, r_m) with orthonormal columns and all of one d, or an error."""
    if not isinstance(bases, (list, tuple)) or not len(bases):
        raise ValueError(f"{name} must be a list of at least one basis")
    checked = [orthonormal_basis(f"{name}[{m}]", basis) for m, basis in enumerate(bases)]
    for m, basis in enumerate(checked):
        if len(basis) != len(checked[0]):
            rows = f"{name}[{m}] has {len(basis)} rows, the first has {len(checked[0])}"
            raise ValueError(f"{name} must share one d; {rows}")
    return checked


def projectors(bases: Sequence[ArrayLike]) -> tuple[Array, Array]:
    """Projections (T, d, d) onto the row spaces, and onto the null spaces."""
    rows = np.stack([basis @ basis.T for basis in orthonormal_bases("bases", bases)])
    return rows, np.eye(rows.shape[-1]) - rows


def orthonormal_basis(name: str, basis: ArrayLike) -> Array:
    """The basis (d, r) with orthonormal columns, or an error."""
    columns = finite_array(name, basis, ndim=2)
    gram = columns.T @ columns
    if columns.shape[1] > len(columns) or np.abs(gram - np.eye(len(gram))).max(initial=0.0) > 1e-8:
        raise ValueError(f"{name} must have orthonormal columns, as row_space gives them")
    return columns


def _dense(rows: Any) -> Array:
    return np.asarray(rows.toarray() if scipy.sparse.issparse(rows) else rows)


def checked_rows(name: str, X: Any) -> Any:
    """A matrix (n, d) of finite numbers, dense or as scipy's CSR."""
    if scipy.sparse.issparse(X):
        rows = scipy.sparse.csr_array(X, dtype=np.float64)
        rows.sum_duplicates()
        finite_array(name, rows.data)
    else:
        rows = finite_array(name, X, ndim=2)
    if 0 in rows.shape:
        raise ValueError(f"{name} must hold at least one row and one column; its shape is {rows.shape}")
    return rows


class TaskCollection:
    """Tasks `X_m w = y_m` with a common solution.

    Args:
        X: A matrix (n_m, d) a task, dense or scipy.sparse.
        y: Targets (n_m,) a task.
        w_star: A solution (d,) of all tasks, in place of `y`.
        normalize: Divide `X_m` and `y_m` by the spectral norm of `X_m`; the paper's bounds are for norms of at most 1.
        rtol: Of `row_space`.

    Attributes:
        T, d: Numbers of tasks and of weights.
        sizes: Numbers (T,) of examples.
        stacked, targets: All examples in one matrix, sparse where all tasks are, and their targets.
        w_star: A solution of all tasks; from `y` the one of least norm.

    Examples:
        >>> tasks = TaskCollection([[[1.0, 0.0]], [[1.0, 1.0]]], w_star=[1.0, 0.0], normalize=True)
        >>> tasks.T, tasks.d, tasks.ranks
        (2, 2, array([1, 1]))
        >>> tasks.projector(0)
        array([[0., 0.],
               [0., 1.]])
    """

    def __init__(
        self,
        X: Sequence[Any],
        y: Sequence[ArrayLike] | None = None,
        *,
        w_star: ArrayLike | None = None,
        normalize: bool = False,
        rtol: float | None = None,
    ) -> None:
        if not isinstance(X, (list, tuple, np.ndarray)) or not len(X):
            raise ValueError("X must be a list of at least one matrix, one a task")
        matrices = [checked_rows(f"X[{m}]", each) for m, each in enumerate(X)]
        d = int(matrices[0].shape[1])
        for m, each in enumerate(matrices):
            if each.shape[1] != d:
                raise ValueError(f"X must share one number of columns; X[{m}] has {each.shape[1]}, X[0] has {d}")
        counts = [int(each.shape[0]) for each in matrices]
        targets = None
        if y is not None:
            if not isinstance(y, (list, tuple, np.ndarray)) or len(y) != len(matrices):
                raise ValueError(f"y must be a list of the targets of {len(matrices)} tasks")
            targets = np.concatenate([finite_array(f"y[{m}]", y[m], shape=(size,)) for m, size in enumerate(counts)])
        norms = None
        if true_or_false("normalize", normalize):
            norms = np.repeat([np.linalg.norm(_dense(each), 2) for each in matrices], counts)
        sparse = all(scipy.sparse.issparse(each) for each in matrices)
        rows = scipy.sparse.vstack(matrices, "csr") if sparse else np.concatenate([_dense(each) for each in matrices])
        self.sizes, self._rtol = np.array(counts), rtol
        self._complete(rows, norms, targets, w_star)

    @classmethod
    def of_rows(
        cls,
        A: ArrayLike,
        b: ArrayLike | None = None,
        *,
        w_star: ArrayLike | None = None,
        normalize: bool = False,
        rtol: float | None = None,
    ) -> Self:
        """Tasks of one example each, the rows of a matrix (T, d), dense or sparse; `b` (T,) are the targets.

        Examples:
            >>> TaskCollection.of_rows([[1.0, 0.0], [1.0, 1.0]], [1.0, 3.0]).w_star.round(6)
            array([1., 2.])
        """
        rows = checked_rows("A", A)
        sizes = np.ones(rows.shape[0], dtype=np.int64)
        targets = None if b is None else finite_array("b", b, shape=sizes.shape)
        norms = np.sqrt((rows * rows).sum(axis=1)) if true_or_false("normalize", normalize) else None
        made = cls.__new__(cls)
        made.sizes, made._rtol = sizes, rtol
        made._complete(rows, norms, targets, w_star)
        return made

    def _complete(self, rows: Any, norms: Array | None, targets: Array | None, w_star: ArrayLike | None) -> None:
        """From all examples (N, d), what to divide them by (N,), and their targets (N,) or a solution."""
        self.T, self.d = len(self.sizes), int(rows.shape[1])
        self._cond = _rtol(self._rtol, rows.shape)
        if norms is not None:
            norms = np.where(norms > 0, norms, 1.0)
            sparse = scipy.sparse.issparse(rows)
            rows = scipy.sparse.diags_array(1 / norms) @ rows if sparse else rows / norms[:, None]
            targets = None if targets is None else targets / norms
        self.stacked = rows
        if targets is None and w_star is not None:
            self.w_star = finite_array("w_star", w_star, shape=(self.d,)).copy()
            self.targets = np.asarray(rows @ self.w_star)
        elif targets is not None and w_star is None:
            self.targets = targets
            self.w_star = self.offline
        else:
            raise ValueError("exactly one of the targets and w_star must be given")

    @cached_property
    def X(self) -> list[Any]:
        """Matrices (n_m, d), one a task."""
        return [self.stacked[end - size : end] for end, size in zip(self.sizes.cumsum(), self.sizes, strict=True)]

    @cached_property
    def y(self) -> list[Array]:
        """Targets (n_m,), by task."""
        return np.split(self.targets, self.sizes.cumsum()[:-1])

    @cached_property
    def offline(self) -> Array:
        """The solution (d,) of all tasks with the least norm: what learning all tasks at once gives."""
        stacked = _dense(self.stacked)
        solution: Array = scipy.linalg.lstsq(stacked, self.targets, cond=self._cond, check_finite=False)[0]
        residual = float(np.linalg.norm(stacked @ solution - self.targets))
        if residual > _SOLVED * max(1.0, float(np.linalg.norm(self.targets))):
            raise ValueError(
                f"y must have a common solution: the best weights leave a residual of {residual:.3g}. With more "
                "examples than features there is none; take more features, or fewer examples"
            )
        return solution

    @cached_property
    def bases(self) -> list[Array]:
        """Orthonormal bases (d, r_m) of the tasks' row spaces."""
        return [space_of(rows, self._rtol) for rows in self.X]

    @cached_property
    def null_bases(self) -> list[Array]:
        """Orthonormal bases (d, d - r_m) of the directions in which a task's answers do not change."""
        return [null_basis(basis) for basis in self.bases]

    @property
    def ranks(self) -> NDArray[np.int64]:
        """Ranks (T,)."""
        return np.array([basis.shape[1] for basis in self.bases])

    def projector(self, m: int) -> Array:
        """The projection (d, d) onto the null space of task m: `I - X_m^+ X_m`."""
        if integer_at_least("m", m, 0) >= self.T:
            raise IndexError(f"m must lie between 0 and {self.T - 1}; it is {m}")
        basis = self.bases[m]
        return np.asarray(np.eye(self.d) - basis @ basis.T)
