"""The interpolator that a potential prefers: `min Q(w)  subject to  X w = y`.

For separable potentials a damped Newton method on the N-dimensional dual, which never forms a d x d
matrix: an iteration costs one symmetric product of `N^2 d` multiplications and one Cholesky factorisation of
size N. For the neuron's potential the minimiser is known in closed form.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

from lib.initialization_shape.neuron import NeuronPotential, neuron_limit
from lib.validation import finite_array, positive_integer, positive_number, regression_data

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lib.initialization_shape.diagonal import SeparablePotential

    Array = NDArray[np.float64]

__all__ = ["Interpolator", "minimize_potential"]

# Rows whose Gram matrix is this badly conditioned are looked at with a singular value decomposition.
_SUSPECT_RECIPROCAL_CONDITION = 1e-10
_ARMIJO = 1e-4
# Relative optimality gap that a correction of the predictor may leave.
_LARGEST_GAP = 1e-8
# What the iteration asks of a potential.
_METHODS = ("grad", "grad_conjugate", "conjugate", "hess_conjugate_diag", "longest_step")


@dataclass(frozen=True)
class Interpolator:
    """The minimiser of a potential among all weights that fit the data.

    Attributes:
        w: The interpolator (d,).
        dual: Multipliers (N,) of the constraints, `grad Q(w) = X^T dual`.
        residual: `|X w - y| / |y|`, relative misfit.
        kkt: `|grad Q(w) - X^T dual| / |grad Q(w)|`, relative optimality gap.
        n_iter: Newton iterations; 0 where the closed form was used.
        converged: Whether `residual` reached the tolerance.
    """

    w: Array
    dual: Array
    residual: float
    kkt: float
    n_iter: int
    converged: bool


def minimize_potential(
    potential: SeparablePotential | NeuronPotential,
    X: ArrayLike,
    y: ArrayLike,
    *,
    tol: float = 1e-12,
    max_iter: int = 500,
    dual0: ArrayLike | None = None,
) -> Interpolator:
    """Minimise a potential over the interpolators of `X w = y`: where gradient flow ends (Theorems 4.1 and 6.1).

    A `RuntimeWarning` says that the iteration stopped before `tol`, or that rows of `X` were redundant.

    Args:
        potential: A `DiagonalPotential`, `DeepDiagonalPotential` (or anything with their conjugate) or
            `NeuronPotential`.
        X, y: Examples (N, d) as rows and targets (N,). For `N > d` they contradict each other almost always.
        tol: Relative misfit at which the iteration stops.
        dual0: Start of the dual (N,), such as the dual of a neighbouring problem. Zero by default.

    Examples:
        >>> from lib.initialization_shape import DiagonalPotential
        >>> X, y = [[1.0, 2.0, 3.0]], [6.0]
        >>> sparse = minimize_potential(DiagonalPotential(k=1e-8), X, y)
        >>> dense = minimize_potential(DiagonalPotential(k=1e+8), X, y)
        >>> print(sparse.w.round(2), dense.w.round(2))
        [0. 0. 2.] [0.43 0.86 1.29]
    """
    X, y = regression_data(X, y)
    positive_integer("max_iter", max_iter)
    positive_number("tol", tol)
    if isinstance(potential, NeuronPotential):
        return _closed_form(potential, X, y)
    if not all(callable(getattr(potential, name, None)) for name in _METHODS):
        raise TypeError(f"potential must have the methods {', '.join(_METHODS)}; it is {potential!r}")
    start = np.zeros(len(y)) if dual0 is None else finite_array("dual0", dual0, shape=y.shape)
    basis = _independent_rows(X, y)
    rows, targets = (X, y) if basis is None else (basis.T @ X, basis.T @ y)
    reduced = start if basis is None else basis.T @ start
    reduced, n_iter = _dual_newton(potential, rows, targets, reduced, tol=tol, max_iter=max_iter)
    w = _refine(potential, rows, targets, reduced, tol)
    return _report(potential, X, y, w, reduced if basis is None else basis @ reduced, n_iter=n_iter, tol=tol)


def _refine(potential: SeparablePotential, X: Array, y: Array, dual: Array, tol: float) -> Array:
    """The predictor of a dual, with the digits that the exponentials lose restored by corrections of `w` itself.

    They move `w` along the curvature of the conjugate, so the optimality of the gradient is kept to first order.
    """
    z = dual @ X
    plain = w = potential.grad_conjugate(z)
    curvature = potential.hess_conjugate_diag(z)
    misfit = y - X @ w
    for _ in range(2):
        if not tol < np.linalg.norm(misfit) / _size(X, y, w) < 1e-5:
            break  # nothing to do, or not a rounding error
        move = curvature * (_solve_positive((X * curvature) @ X.T, misfit) @ X)
        better = y - X @ (w + move)
        if not np.linalg.norm(better) < np.linalg.norm(misfit):
            break
        w, misfit = w + move, better
    gap = float(np.linalg.norm(potential.grad(w) - z))
    return w if w is plain or gap <= _LARGEST_GAP * float(np.linalg.norm(z)) else plain


def _report(
    potential: SeparablePotential | NeuronPotential,
    X: Array,
    y: Array,
    w: Array,
    dual: Array,
    *,
    n_iter: int,
    tol: float,
) -> Interpolator:
    residual = float(np.linalg.norm(X @ w - y)) / _size(X, y, w)
    gradient = potential.grad(w)
    gap = float(np.linalg.norm(gradient - dual @ X))
    kkt = gap / max(float(np.linalg.norm(gradient)), np.finfo(float).tiny) if gap else 0.0
    converged = residual <= tol
    if not converged:
        warnings.warn(
            f"the minimiser was not reached: after {n_iter} iterations the relative misfit is {residual:.1e} "
            f"(tol = {tol:.1e}) and the optimality gap {kkt:.1e}",
            RuntimeWarning,
            stacklevel=3,
        )
    return Interpolator(w=w, dual=dual, residual=residual, kkt=kkt, n_iter=n_iter, converged=converged)


def _size(X: Array, y: Array, w: Array) -> float:
    """What a misfit is relative to: the targets, or where they are all zero, the products that must cancel."""
    return float(np.linalg.norm(y)) or float(np.linalg.norm(np.abs(X) @ np.abs(w))) or 1.0


def _independent_rows(X: Array, y: Array) -> Array | None:
    """An orthonormal basis (N, r) of the constraints where rows are redundant; None where all are independent."""
    row_sizes = np.linalg.norm(X, axis=1)
    if X.shape[0] <= X.shape[1] and row_sizes.min() > 0:
        scaled = X / row_sizes[:, None]
        gram = scaled @ scaled.T
        factor, failed = lapack.dpotrf(gram, lower=1)
        reciprocal = 0.0 if failed else lapack.dpocon(factor, np.abs(gram).sum(axis=0).max(), uplo="L")[0]
        if reciprocal > _SUSPECT_RECIPROCAL_CONDITION:
            return None
    left, singular, _ = np.linalg.svd(X, full_matrices=False)
    rank = int((singular > singular[0] * max(X.shape) * np.finfo(float).eps).sum()) if singular[0] > 0 else 0
    basis = left[:, :rank]
    misfit = float(np.linalg.norm(y - basis @ (basis.T @ y)))
    if misfit > 1e-8 * float(np.linalg.norm(y)):
        raise ValueError(
            f"X and y must be consistent: X has {X.shape[0]} rows but rank {rank}, and no w fits these targets"
        )
    if rank == X.shape[0]:
        return None
    warnings.warn(
        f"X has {X.shape[0]} rows but rank {rank}: the redundant constraints, which agree with the others, were merged",
        RuntimeWarning,
        stacklevel=3,
    )
    return basis


def _dual_newton(
    potential: SeparablePotential, X: Array, y: Array, dual: Array, *, tol: float, max_iter: int
) -> tuple[Array, int]:
    """Damped Newton on `Q*(X^T dual) - <y, dual>`; returns the dual and the number of iterations."""
    z = dual @ X
    w = potential.grad_conjugate(z)
    misfit = X @ w - y
    value = float(potential.conjugate(z)) - float(y @ dual)
    goal = tol / 4 * math.sqrt(y @ y)
    for iteration in range(max_iter):
        size = math.sqrt(misfit @ misfit)
        if size <= (goal or tol / 4 * _size(X, y, w)):
            return dual, iteration
        root = X * np.sqrt(potential.hess_conjugate_diag(z))
        # numpy computes a matrix times its own transpose with half the work
        step = -_solve_positive(root @ root.T, misfit)
        dz = step @ X
        length = potential.longest_step(z, dz)
        slope = float(step @ misfit)
        shortest = 1e-12 * length
        while length > shortest:
            new_dual, new_z = dual + length * step, z + length * dz
            new_w = potential.grad_conjugate(new_z)
            new_misfit = X @ new_w - y
            new_value = float(potential.conjugate(new_z)) - float(y @ new_dual)
            decreases = new_value <= value + _ARMIJO * length * slope
            # Near the end the value no longer resolves the progress; the misfit still does.
            if decreases or (length == 1.0 and math.sqrt(new_misfit @ new_misfit) < size):
                break
            length /= 2
        else:
            return dual, iteration
        dual, z, w, misfit, value = new_dual, new_z, new_w, new_misfit, new_value
    return dual, max_iter


def _solve_positive(matrix: Array, right: Array) -> Array:
    """Solve a positive definite system; where rounding made it singular, with the least ridge that fixes it.

    That happens where k is tiny and few weights are alive. A ridge only bends the search direction, which stays
    one of descent: what the iteration converges to is judged by the misfit.
    """
    factor, failed = lapack.dpotrf(matrix, lower=1)
    if failed:
        scale = float(np.abs(np.diag(matrix)).max()) * np.eye(len(matrix))
        for ridge in 10.0 ** np.arange(-15, 1):
            factor, failed = lapack.dpotrf(matrix + ridge * scale, lower=1)
            if not failed:
                break
        else:
            raise ValueError("the potential's curvature must be finite and positive")
    return np.asarray(lapack.dpotrs(factor, right, lower=1)[0])


def _closed_form(potential: NeuronPotential, X: Array, y: Array) -> Interpolator:
    finite_array("X", X, shape=(len(y), potential.u0.size))
    _independent_rows(X, y)
    # The sign convention of the potential: the output weight ends positive.
    a0 = np.sqrt(max(float(potential.u0 @ potential.u0) + potential.delta, 0.0))
    w, _, _ = neuron_limit(X, y, a0, potential.u0, final_sign=1)
    dual, *_ = np.linalg.lstsq(X.T, potential.grad(w), rcond=None)
    return _report(potential, X, y, w, np.asarray(dual), n_iter=0, tol=1e-10)
