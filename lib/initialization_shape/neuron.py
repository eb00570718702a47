r"""A single fully connected neuron: the warped potential and the closed-form limit of training.

`f(x) = a <u, x>` with predictor `w = a u` (Section 6, Theorem 6.1 of arXiv 2102.09769), and its leaky-ReLU
cousin `f(x) = a phi(<u, x>)`. Gradient flow keeps `delta = a^2 - |u|^2`. It is not a mirror flow for any
potential, but becomes one when time runs at the rate `|a|`; the limit minimises the potential below.

Two facts carry everything: `u - u0` stays in the row space of the data, and the gradient of the potential
is `(3/2) sign(a) (u - u0)`. Together they also give the limit itself, `neuron_limit`, without any iteration.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Self

import numpy as np

from lib.validation import finite_array, finite_number, regression_data, true_or_false

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["NeuronPotential", "conserved_delta", "layer_norms", "neuron_limit"]


def conserved_delta(a: float, u: ArrayLike) -> float:
    """The imbalance `a^2 - |u|^2` that training conserves; exactly zero for layers that are equal up to rounding.

    Examples:
        >>> conserved_delta(0.5, [0.3, 0.4]), conserved_delta(2.0, [1.0])
        (0.0, 3.0)
    """
    a = float(finite_array("a", a, shape=()))
    u = finite_array("u", u, ndim=1)
    inner = float(u @ u)
    delta = a**2 - inner
    # the sign of delta decides whether the theorem applies: rounding must not
    return delta if abs(delta) > 4 * len(u) * np.finfo(float).eps * (a**2 + inner) else 0.0


def layer_norms(x: ArrayLike, delta: float) -> tuple[Array, Array]:
    r"""Norm `t` of the input weights and size `a` of the output weight of a neuron whose predictor has norm `x`.

    .. math:: a^2 - t^2 = \delta, \qquad a\,t = x

    Examples:
        >>> t, a = layer_norms(2.0, delta=3.0)
        >>> print(f"{t:.1f} {a:.1f}")
        1.0 2.0
    """
    x = finite_array("x", x)
    if x.size and x.min() < 0:
        raise ValueError(f"x must be non-negative, a norm; its smallest entry is {x.min()}")
    delta = float(finite_array("delta", delta, shape=()))
    # The larger layer is a sum of positive terms; the smaller one follows from the product, where
    # subtracting delta/2 would cancel.
    larger = np.sqrt(np.hypot(x, delta / 2) + abs(delta) / 2)
    smaller = np.divide(x, larger, out=np.zeros_like(larger), where=larger > 0)
    return (smaller, larger) if delta >= 0 else (larger, smaller)


class NeuronPotential:
    r"""The potential of a fully connected neuron, after the time warp (Theorem 6.1).

    .. math:: Q(w) = q_\delta(\lVert w\rVert) + \langle z, w\rangle,\qquad q_\delta = \tfrac12\,a\,(3t^2-a^2),
       \qquad z = -\tfrac32\,t_0\,\frac{w_0}{\lVert w_0\rVert}

    where `t` and `a` are the norms of the layers at `|w| = a t`. Between `|w|^{3/2}` (`delta = 0`) and
    `|w|^2` (large `delta`).

    Args:
        delta: The conserved imbalance `a^2 - |u|^2`, of either sign.
        w0: Initial predictor (d,), not zero: the potential remembers its direction.
        flipped: For `delta < 0` the output weight may change its sign on the way; then the linear term has the other
            sign too. Never true for `delta >= 0`.

    Examples:
        >>> potential = NeuronPotential(delta=0.0, w0=[1e-8, 0.0])
        >>> print(f"{potential([0.0, 4.0]):.3f}")
        8.000
    """

    def __init__(self, delta: float, w0: ArrayLike, *, flipped: bool = False) -> None:
        self.delta = float(finite_array("delta", delta, shape=()))
        self.w0 = finite_array("w0", w0, ndim=1).copy()
        norm = float(np.linalg.norm(self.w0))
        if norm == 0:
            raise ValueError("w0 must not be zero: the potential remembers its direction")
        if true_or_false("flipped", flipped) and self.delta >= 0:
            raise ValueError(f"flipped must be False for delta >= 0; delta is {self.delta}")
        self.flipped = bool(flipped)
        t0, _ = layer_norms(norm, self.delta)
        sign = -1.0 if self.flipped else 1.0
        #: Input weights at the start, with the sign that the output weight ends with.
        self.u0 = sign * t0 * self.w0 / norm
        self._linear = -1.5 * self.u0

    def __repr__(self) -> str:
        flipped = ", flipped=True" if self.flipped else ""
        return f"NeuronPotential(delta={self.delta:g}, w0=array of shape {self.w0.shape}{flipped})"

    @classmethod
    def from_weights(cls, a: float, u: ArrayLike, final_sign: int | None = None) -> Self:
        """The potential that gradient flow from output weight `a` and input weights `u` (d,) follows.

        Args:
            final_sign: Sign of the output weight at the end, +1 or -1; None says that it keeps the sign it started
                with, which is certain for `delta >= 0` and taken with a warning otherwise.

        Examples:
            >>> NeuronPotential.from_weights(a=-0.5, u=[0.3, 0.4]).delta
            0.0
        """
        a = float(finite_array("a", a, shape=()))
        u = finite_array("u", u, ndim=1)
        delta = conserved_delta(a, u)
        return cls(delta, a * u, flipped=sign_flips(a, delta, final_sign))

    def __call__(self, w: ArrayLike) -> Array:
        """Value of the potential; `w` is (..., d), the result (...). Finite at zero too."""
        w = finite_array("w", w)
        return np.asarray(self.radial(np.linalg.norm(w, axis=-1)) + w @ self._linear)

    def radial(self, x: ArrayLike) -> Array:
        """The radial part `q_delta(x)` at norms `x >= 0` of any shape."""
        t, a = layer_norms(x, self.delta)
        return np.asarray(a * (3 * t**2 - a**2) / 2)

    def radial_rise(self, x: ArrayLike) -> Array:
        """`q_delta(x) - q_delta(0)`, without the cancellation that this difference has at large `delta`."""
        t, a = layer_norms(x, self.delta)
        if self.delta < 0:
            return np.asarray(a * (3 * t**2 - a**2) / 2)
        half_gap = np.divide(self.delta / 2, a + np.sqrt(self.delta), out=np.zeros_like(a), where=a > 0)
        return np.asarray(t**2 * (a - half_gap))

    def grad(self, w: ArrayLike) -> Array:
        """Gradient at `w` (..., d); at `w = 0` for `delta < 0`, where there is a kink, the shortest subgradient."""
        w = finite_array("w", w)
        x = np.linalg.norm(w, axis=-1, keepdims=True)
        t, _ = layer_norms(x, self.delta)
        direction = np.divide(w, x, out=np.zeros_like(w), where=x > 0)
        return np.asarray(1.5 * t * direction + self._linear)

    def grad_conjugate(self, z: ArrayLike) -> Array:
        """The `w` (..., d) whose gradient is `z` (..., d); zero where `z` is a subgradient at zero."""
        u = (finite_array("z", z) - self._linear) / 1.5
        a = np.sqrt(np.maximum((u**2).sum(axis=-1, keepdims=True) + self.delta, 0.0))
        return np.asarray(a * u)


def sign_flips(a0: float, delta: float, final_sign: int | None) -> bool:
    """Whether the output weight ends with the other sign, from what the caller says about its end."""
    if final_sign is None:
        if delta < 0:
            warnings.warn(
                f"delta is {delta:g} < 0: the output weight may change its sign; final_sign says where it ends "
                "(taken: the initial sign)",
                RuntimeWarning,
                stacklevel=3,
            )
        return False
    if finite_number("final_sign", final_sign) not in (-1, 1):
        raise ValueError(f"final_sign must be +1, -1 or None; it is {final_sign!r}")
    flips = a0 * final_sign < 0
    if flips and delta >= 0:
        raise ValueError(f"final_sign must be the sign of a0 for delta >= 0 (delta is {delta:g}): a cannot reach zero")
    return flips


def check_slope(slope: float) -> None:
    """Refuse a leaky-ReLU's slope outside (0, 1]."""
    if not 0 < finite_number("slope", slope) <= 1:
        raise ValueError(f"slope must lie in (0, 1]; it is {slope}")


def neuron_limit(
    X: ArrayLike, y: ArrayLike, a0: float, u0: ArrayLike, *, slope: float = 1.0, final_sign: int | None = None
) -> tuple[Array, float, Array]:
    r"""Where gradient flow on a linear or leaky-ReLU neuron ends, in closed form (derived here).

    With the least-norm solution `w_LS`, the projection `P` onto what the data does not see, and
    `c = |P u0|^2 + delta`:

    .. math:: a_\infty^2 = \tfrac12\Big(c+\sqrt{c^2+4\lVert w_{LS}\rVert^2}\Big),\qquad
       u_\infty = Pu_0 + \frac{w_{LS}}{a_\infty}, \qquad w_\infty = w_{LS} + a_\infty P u_0

    A leaky slope only rescales targets: `a phi(<u, x>) = y` asks for `<a u, x> = y` where the neuron is
    active and `y / slope` where it is not, and the sign of `y / a` says which.

    Args:
        X, y: Examples (N, d) and targets (N,), with an exact fit.
        a0, u0: Initial output weight and input weights (d,).
        slope: Slope of the activation for negative inputs, in (0, 1]; 1 is the linear neuron.
        final_sign: Sign of the output weight at the end, see `NeuronPotential.from_weights`.

    Returns:
        w, a, u: Predictor (d,), output weight and input weights (d,) at the end.

    Examples:
        >>> w, a, u = neuron_limit([[1.0, 1.0]], [2.0], a0=0.1, u0=[0.1, 0.0])
        >>> print(w.round(4))
        [1.0595 0.9405]
    """
    X, y = regression_data(X, y)
    a0 = float(finite_array("a0", a0, shape=()))
    u0 = finite_array("u0", u0, shape=(X.shape[1],))
    check_slope(slope)
    if a0 == 0 and final_sign is None:
        raise ValueError("a0 must not be zero unless final_sign says which way it goes")
    delta = conserved_delta(a0, u0)
    sign_flips(a0, delta, final_sign)
    sign = float(final_sign if final_sign is not None else np.sign(a0))
    w_least, hidden = _least_norm_and_hidden(X, np.where(y * sign > 0, y, y / slope), u0)
    c = float(hidden @ hidden) + delta
    root = np.hypot(c, 2 * float(np.linalg.norm(w_least)))
    # The positive root of A^2 - c A - |w_LS|^2, by the form that does not cancel for either sign of c.
    a_squared = (c + root) / 2 if c >= 0 else 2 * float(w_least @ w_least) / (root - c)
    if a_squared == 0:
        raise ValueError("the output weight goes to zero: the direction of the input weights is not determined")
    a = sign * float(np.sqrt(a_squared))
    return w_least + a * hidden, a, hidden + w_least / a


def _least_norm_and_hidden(X: Array, targets: Array, u0: Array) -> tuple[Array, Array]:
    """The least-norm solution (d,), and the part of the input weights that the data do not see."""
    # Examples of very different size are equally binding: without this lstsq would drop the small ones.
    sizes = np.linalg.norm(X, axis=1)
    sizes = np.where(sizes > 0, sizes, 1.0)
    X, targets = X / sizes[:, None], targets / sizes
    w_least, _, _, _ = np.linalg.lstsq(X, targets, rcond=None)
    if np.linalg.norm(X @ w_least - targets) > 1e-8 * float(np.linalg.norm(targets)):
        raise ValueError("y must be reachable: no weights fit these targets exactly")
    seen, *_ = np.linalg.lstsq(X, X @ u0, rcond=None)
    return np.asarray(w_least), np.asarray(u0 - seen)
