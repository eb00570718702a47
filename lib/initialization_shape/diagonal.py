r"""Potentials of diagonal linear networks: what gradient flow minimises, in closed form.

The two-layer network `f(x) = <w, x>` with `w = u_p v_p - u_m v_m` (Section 4, Theorem 4.1 of
"On the Implicit Bias of Initialization Shape", Azulay et al., ICML 2021, arXiv 2102.09769), and the
deeper network `w = u_p^D - u_m^D` of Woodworth et al. 2020 as an extension.

Each potential `Q` is a sum over coordinates, and comes with its Legendre conjugate
`z -> max_w <z, w> - Q(w)`, which is what the solver of `lib.initialization_shape.interpolation`
works with: `w = grad_conjugate(z)` inverts `z = grad(w)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from lib.initialization_shape.scale_shape import potential_scale
from lib.validation import finite_array, integer_at_least, positive_array, positive_integer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["DeepDiagonalPotential", "DiagonalPotential", "SeparablePotential"]

# sinh overflows at 710; a dual this large means that k is beyond what float64 can hold.
_LARGEST_SINH_ARGUMENT = 690.0
_LARGEST_DUAL = 354.0


class SeparablePotential(Protocol):
    """A strictly convex potential of `w` (..., d) that is a sum over coordinates, seen through its conjugate."""

    def __call__(self, w: ArrayLike) -> NDArray[np.float64]:
        """Value at `w` (..., d)."""

    def grad(self, w: ArrayLike) -> NDArray[np.float64]:
        """Gradient at `w` (..., d)."""

    def grad_conjugate(self, z: ArrayLike) -> NDArray[np.float64]:
        """The `w` (..., d) whose gradient is `z`."""

    def conjugate(self, z: ArrayLike) -> NDArray[np.float64]:
        """Legendre conjugate at `z` (..., d), up to a constant."""

    def hess_conjugate_diag(self, z: ArrayLike) -> NDArray[np.float64]:
        """Diagonal of the conjugate's Hessian at `z` (..., d)."""

    def longest_step(self, z: NDArray[np.float64], dz: NDArray[np.float64]) -> float:
        """How far from `z` along `dz`, at most 1, a Newton step may go."""


class DiagonalPotential:
    r"""The potential of a two-layer diagonal linear network (Theorem 4.1).

    .. math:: Q(w) = \sum_i \Big[ q_{k_i}(w_i) - \tfrac12 \operatorname{arcsinh}(2 w_{0,i}/k_i)\, w_i \Big],
       \qquad q_k(x) = \tfrac k4\Big[1-\sqrt{1+\tfrac{4x^2}{k^2}}+\tfrac{2x}{k}\operatorname{arcsinh}\tfrac{2x}{k}\Big]

    Gradient flow from the predictor `w0` ends at the interpolator that minimises `Q`.

    Args:
        k: Scale of the potential, positive; a number, or one for each coordinate (d,). Small `k` behaves like `|w|`,
            large `k` like `w^2`. The paper's `k` is the square of this one.
        w0: Initial predictor; a number or (d,). Zero for an unbiased initialization.

    Examples:
        >>> potential = DiagonalPotential(k=0.1)
        >>> w = np.array([1.0, -2.0])
        >>> print(f"{potential(w):.4f}")
        4.7760
        >>> bool(np.allclose(potential.grad_conjugate(potential.grad(w)), w))
        True
    """

    def __init__(self, k: ArrayLike, w0: ArrayLike = 0.0) -> None:
        # copies: what the caller does to these arrays later must not change the potential
        self.k = positive_array("k", k).copy()
        self.w0 = finite_array("w0", w0).copy()
        self._initial_slope = np.arcsinh(2 * self.w0 / self.k) / 2

    def __repr__(self) -> str:
        def brief(value: NDArray[np.float64]) -> str:
            return f"{value:g}" if value.ndim == 0 else f"array of shape {value.shape}"

        return f"DiagonalPotential(k={brief(self.k)}, w0={brief(self.w0)})"

    @classmethod
    def from_weights(cls, u_p: ArrayLike, v_p: ArrayLike, u_m: ArrayLike, v_m: ArrayLike) -> Self:
        r"""The potential that gradient flow from these weights follows, biased or not.

        .. math:: k=\sqrt{AB},\quad w_0 = \tfrac{A-B}{4},\quad
           A=(u_+ + v_+)^2+(u_- - v_-)^2,\quad B=(u_+ - v_+)^2+(u_- + v_-)^2

        Weights are the first and second layer of the positive and of the negative branch, each (d,) or broadcastable.

        Examples:
            >>> DiagonalPotential.from_weights(0.1, 0.3, 0.1, 0.3)
            DiagonalPotential(k=0.2, w0=0)
        """
        up, vp = finite_array("u_p", u_p), finite_array("v_p", v_p)
        um, vm = finite_array("u_m", u_m), finite_array("v_m", v_m)
        growing = np.hypot(up + vp, um - vm)
        shrinking = np.hypot(up - vp, um + vm)
        k = growing * shrinking
        if np.any(k == 0):
            raise ValueError(
                "these weights start at a saddle (k = 0 in some coordinate), and gradient flow never leaves it"
            )
        return cls(k, up * vp - um * vm)

    @classmethod
    def from_scale_shape(cls, alpha: ArrayLike, shape: ArrayLike, d: int) -> Self:
        """The potential of an unbiased initialization of `d` coordinates with this scale and shape.

        Examples:
            >>> DiagonalPotential.from_scale_shape(alpha=0.03, shape=0.5, d=3).k.round(3)
            array([0.2, 0.2, 0.2])
        """
        return cls(np.broadcast_to(potential_scale(alpha, shape), (positive_integer("d", d),)))

    def __call__(self, w: ArrayLike) -> NDArray[np.float64]:
        """Value of the potential; `w` is (..., d), the result (...)."""
        w = finite_array("w", w)
        r = 2 * w / self.k
        # 1 - sqrt(1 + r^2), without the cancellation at small r
        arc = -r * (r / (1 + np.hypot(1, r)))
        value = self.k / 4 * (arc + r * np.arcsinh(r)) - self._initial_slope * w
        return np.asarray(value.sum(axis=-1))

    def grad(self, w: ArrayLike) -> NDArray[np.float64]:
        """Gradient at `w` (..., d): half an arcsinh in each coordinate, zero at `w0`."""
        return np.asarray(np.arcsinh(2 * finite_array("w", w) / self.k) / 2 - self._initial_slope)

    def hess_diag(self, w: ArrayLike) -> NDArray[np.float64]:
        """Diagonal of the Hessian at `w` (..., d): `1 / sqrt(k^2 + 4 w^2)`."""
        return np.asarray(1 / np.hypot(self.k, 2 * finite_array("w", w)))

    def _shifted(self, z: ArrayLike) -> NDArray[np.float64]:
        """The dual, counted from where the predictor is zero, where sinh does not overflow."""
        s = np.asarray(finite_array("z", z) + self._initial_slope)
        if s.size and np.abs(s).max() > _LARGEST_DUAL:
            raise ValueError(f"z must be below {_LARGEST_DUAL:g} in size; its largest is {np.abs(s).max():g}")
        return s

    def grad_conjugate(self, z: ArrayLike) -> NDArray[np.float64]:
        """The `w` (..., d) whose gradient is `z` (..., d)."""
        return np.asarray(self.k / 2 * np.sinh(2 * self._shifted(z)))

    def conjugate(self, z: ArrayLike) -> NDArray[np.float64]:
        """Legendre conjugate at `z` (..., d), up to the constant that makes it zero where `w = 0`."""
        # cosh(2s) - 1 = 2 sinh(s)^2, so that nothing cancels at small s
        s = self._shifted(z)
        return np.asarray((self.k / 2 * np.sinh(s) ** 2).sum(axis=-1))

    def hess_conjugate_diag(self, z: ArrayLike) -> NDArray[np.float64]:
        """Diagonal of the conjugate's Hessian at `z` (..., d)."""
        return np.asarray(self.k * np.cosh(2 * self._shifted(z)))

    def longest_step(self, z: NDArray[np.float64], dz: NDArray[np.float64]) -> float:
        """How far along `dz` the exponentials may be trusted: one factor of `e^4` a step."""
        largest = float(np.abs(finite_array("dz", dz)).max(initial=0.0))
        s = np.abs(finite_array("z", z) + self._initial_slope).max(initial=0.0)
        room = max(_LARGEST_SINH_ARGUMENT / 2 - float(s), 0.0)
        return min(1.0, 2.0 / largest, room / largest) if largest > 0 else 1.0


class DeepDiagonalPotential:
    r"""The potential of `w = u_p^D - u_m^D`, all weights starting at `alpha` (an extension; Woodworth et al. 2020).

    With the dual variable `z` and `c = alpha^(D-2) D (D-2)`:

    .. math:: w(z) = \alpha^D\big[(1-cz)^{-p}-(1+cz)^{-p}\big],\qquad p=\tfrac{D}{D-2},\qquad |z|<1/c

    The value comes from the Legendre identity `Q(w) = <z, w> - Q*(z)`, whose conjugate is elementary.

    Args:
        depth: Number of layers `D`, at least 3 (two layers are `DiagonalPotential`).
        alpha: Initial value of every weight, positive.

    Examples:
        >>> potential = DeepDiagonalPotential(depth=3, alpha=0.5)
        >>> w = np.array([0.7, -0.2])
        >>> bool(np.allclose(potential.grad_conjugate(potential.grad(w)), w))
        True
    """

    def __init__(self, depth: int, alpha: float) -> None:
        self.depth = integer_at_least("depth", depth, 3)
        self.alpha = float(finite_array("alpha", positive_array("alpha", alpha), shape=()))
        self._power = self.depth / (self.depth - 2)
        self._rate = self.alpha ** (self.depth - 2) * self.depth * (self.depth - 2)

    def __repr__(self) -> str:
        return f"DeepDiagonalPotential(depth={self.depth}, alpha={self.alpha:g})"

    def _inside(self, z: ArrayLike) -> NDArray[np.float64]:
        """The dual times `c`, which must not leave [-1, 1]."""
        s = self._rate * finite_array("z", z)
        if s.size and np.abs(s).max() > 1:
            raise ValueError(f"z must lie within 1/c = {1 / self._rate:g} in size; its largest is {np.abs(z).max():g}")
        return s

    def __call__(self, w: ArrayLike) -> NDArray[np.float64]:
        """Value of the potential; `w` is (..., d), the result (...)."""
        w = finite_array("w", w)
        z = self.grad(w)
        return np.asarray((z * w).sum(axis=-1) - self.conjugate(z))

    def grad(self, w: ArrayLike) -> NDArray[np.float64]:
        """Gradient at `w` (..., d), the root of a monotone function of one variable in each coordinate."""
        from scipy.optimize.elementwise import find_root

        w = finite_array("w", w)
        size = np.abs(w)
        # In terms of m = 1 - c z, which keeps its digits where z comes close to its limit 1/c.
        lowest = (1 + size / self.alpha**self.depth) ** (-1 / self._power) / 2
        target = size / self.alpha**self.depth

        def excess(m: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(m**-self._power - (2 - m) ** -self._power - goal)

        m = find_root(excess, (lowest, np.ones_like(size)), args=(target,)).x
        return np.asarray(np.sign(w) * (1 - m) / self._rate)

    def hess_diag(self, w: ArrayLike) -> NDArray[np.float64]:
        """Diagonal of the Hessian at `w` (..., d)."""
        return np.asarray(1 / self.hess_conjugate_diag(self.grad(w)))

    def grad_conjugate(self, z: ArrayLike) -> NDArray[np.float64]:
        """The `w` (..., d) whose gradient is `z` (..., d), `|z| < 1/c`."""
        s = self._inside(z)
        return np.asarray(self.alpha**self.depth * ((1 - s) ** -self._power - (1 + s) ** -self._power))

    def conjugate(self, z: ArrayLike) -> NDArray[np.float64]:
        """Legendre conjugate at `z` (..., d), zero at `z = 0`."""
        s = self._inside(z)
        power = self._power - 1
        bracket = (1 - s) ** -power + (1 + s) ** -power - 2
        return np.asarray((self.alpha**self.depth / (self._rate * power) * bracket).sum(axis=-1))

    def hess_conjugate_diag(self, z: ArrayLike) -> NDArray[np.float64]:
        """Diagonal of the conjugate's Hessian at `z` (..., d)."""
        s = self._inside(z)
        power = self._power + 1
        factor = self.alpha**self.depth * self._rate * self._power
        return np.asarray(factor * ((1 - s) ** -power + (1 + s) ** -power))

    def longest_step(self, z: NDArray[np.float64], dz: NDArray[np.float64]) -> float:
        """At most 90 % of the way to the edge of the domain `|z| < 1/c`."""
        z, dz = finite_array("z", z), finite_array("dz", dz)
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(dz == 0, np.inf, (np.sign(dz) / self._rate - z) / dz)
        return min(1.0, 0.9 * float(room.min(initial=np.inf)))
