r"""The derivations of the chapter in sympy: diagonal potential, Hessian-map test, time warp, neuron potential.

Every function returns expressions, so that a reader can differentiate, substitute and plot them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import sympy as sp

from lib.validation import instance_of

__all__ = [
    "DiagonalFlow",
    "NoWarpError",
    "diagonal_flow",
    "diagonal_potential",
    "find_radial_warp",
    "hessian_defect",
    "neuron_metric",
    "neuron_potential",
    "neuron_potential_in_layers",
    "radial_defect",
]


def _expression(name: str, value: object) -> sp.Expr:
    """A sympy expression or a number; a text, which sympy would evaluate, is none."""
    if isinstance(value, (sp.Expr, int, float)) and sp.sympify(value) is not sp.nan:
        return sp.sympify(value)
    raise TypeError(f"{name} must be a sympy expression; it is {value!r}")


def _radial_metric(h1: sp.Expr, h2: sp.Expr, t: sp.Symbol, radius: sp.Expr | None) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    instance_of("t", t, sp.Symbol, "a sympy symbol")
    return _expression("h1", h1), _expression("h2", h2), t if radius is None else _expression("radius", radius)


class NoWarpError(ValueError):
    """No positive scalar turns this metric into a Hessian, or none that has a closed form."""


@dataclass(frozen=True)
class DiagonalFlow:
    """Gradient flow of one coordinate of a two-layer diagonal network, solved exactly.

    `G` is the time integral of the loss gradient in this coordinate, `A` and `B` the squared sums and
    differences of the initial weights, `predictor` is `w(G)` and `G_of_w` its inverse.
    """

    G: sp.Symbol
    A: sp.Symbol
    B: sp.Symbol
    w: sp.Symbol
    predictor: sp.Expr
    G_of_w: sp.Expr


def diagonal_flow() -> DiagonalFlow:
    """Solve the flow of `u_p, v_p, u_m, v_m` and invert the predictor.

    The sums and differences of the two layers obey `d(u+v)/dG = -(u+v)` and `d(u-v)/dG = u-v`.

    Examples:
        >>> flow = diagonal_flow()
        >>> sp.simplify((flow.predictor.subs(flow.G, flow.G_of_w) - flow.w).rewrite(sp.log))
        0
    """
    G = sp.Symbol("G", real=True)
    A, B = sp.symbols("A B", positive=True)
    w = sp.Symbol("w", real=True)
    f, g = sp.Function("f"), sp.Function("g")
    decaying = sp.dsolve(sp.Eq(f(G).diff(G), -f(G)), f(G), ics={f(0): 1}).rhs
    growing = sp.dsolve(sp.Eq(g(G).diff(G), g(G)), g(G), ics={g(0): 1}).rhs
    predictor = (A * decaying**2 - B * growing**2) / 4
    k = sp.sqrt(A * B)
    inverse = -(sp.asinh(2 * w / k) - sp.log(A / B) / 2) / 2
    return DiagonalFlow(G, A, B, w, predictor, inverse)


def diagonal_potential() -> tuple[sp.Symbol, sp.Symbol, sp.Expr]:
    """Integrate the inverse of the flow into the potential `q_k(x)` of Theorem 4.1, zero at `x = 0`.

    Examples:
        >>> x, k, q = diagonal_potential()
        >>> sp.simplify(q.diff(x, 2) - 1 / sp.sqrt(k**2 + 4 * x**2))
        0
    """
    x = sp.Symbol("x", real=True)
    k = sp.Symbol("k", positive=True)
    slope = sp.asinh(2 * x / k) / 2
    antiderivative = sp.integrate(slope, x)
    return x, k, sp.simplify(antiderivative - antiderivative.subs(x, 0))


def neuron_metric() -> tuple[tuple[sp.Symbol, sp.Symbol], sp.Symbol, sp.Matrix, sp.Expr]:
    r"""The metric of a fully connected neuron in two dimensions (Section 6).

    .. math:: H = a^{-2}\Big[I-\frac{ww^\top}{a^4+\lVert w\rVert^2}\Big],
       \qquad a^2=\tfrac\delta2+\sqrt{\lVert w\rVert^2+\tfrac{\delta^2}{4}}

    Returns:
        (w1, w2), delta, H, a: Coordinates, imbalance (both positive symbols), the 2 x 2 metric, and the output weight
            `a(w)`.

    Examples:
        >>> (w1, w2), delta, H, a = neuron_metric()
        >>> point = {w1: sp.Rational(3, 5), w2: sp.Rational(4, 7), delta: sp.Rational(1, 3)}
        >>> [sp.N(entry.subs(point), 6) for entry in hessian_defect(H, (w1, w2))]
        [-0.330195, -0.346705]
    """
    w1, w2 = sp.symbols("w1 w2", real=True)
    delta = sp.Symbol("delta", positive=True)
    norm2 = w1**2 + w2**2
    a2 = delta / 2 + sp.sqrt(norm2 + delta**2 / 4)
    w = sp.Matrix([w1, w2])
    H = (sp.eye(2) - w * w.T / (a2**2 + norm2)) / a2
    return (w1, w2), delta, H, sp.sqrt(a2)


def hessian_defect(M: sp.Matrix, symbols: Sequence[sp.Symbol]) -> list[sp.Expr]:
    r"""How far a symmetric matrix field is from being the Hessian of anything (the Hessian-map test).

    A smooth symmetric `M(w)` is a Hessian if and only if
    :math:`\partial_k M_{ij} = \partial_j M_{ik}` for all i, j, k.

    Args:
        M: Symmetric matrix of expressions.
        symbols: The coordinates that it depends on, one for each row.

    Returns:
        list of expressions: The differences for every i and every pair j < k.

    Examples:
        >>> x, y = sp.symbols("x y")
        >>> hessian_defect(sp.hessian(x**3 * y, (x, y)), (x, y))
        [0, 0]
        >>> hessian_defect(sp.Matrix([[y, 0], [0, 1]]), (x, y))
        [1, 0]
    """
    instance_of("M", M, sp.MatrixBase, "a sympy matrix")
    if not (isinstance(symbols, (list, tuple)) and all(isinstance(symbol, sp.Symbol) for symbol in symbols)):
        raise TypeError(f"symbols must be a list of sympy symbols; it is {symbols!r}")
    size = len(symbols)
    if M.shape != (size, size):
        raise ValueError(f"M must be {size} x {size} for {size} coordinates; it is {M.shape[0]} x {M.shape[1]}")
    if not M.is_symmetric():
        raise ValueError("M must be symmetric")
    # the diagonal entry, where one takes part, comes first
    pairs = [(i, *((k, j) if k == i else (j, k))) for i in range(size) for j, k in combinations(range(size), 2)]
    return [sp.diff(M[i, j], symbols[k]) - sp.diff(M[i, k], symbols[j]) for i, j, k in pairs]


def radial_defect(h1: sp.Expr, h2: sp.Expr, t: sp.Symbol, *, radius: sp.Expr | None = None) -> sp.Expr:
    """The Hessian-map test for a radial metric `h1(x) I + h2(x) w w^T`: `h1'(x) - x h2`, zero for a Hessian.

    `t` is the variable that `h1` and `h2` are written in; `radius` is `x` as a function of it (by default `t`).

    Examples:
        >>> x = sp.Symbol("x", positive=True)
        >>> radial_defect(x, 1 / x, x)
        0
    """
    h1, h2, x = _radial_metric(h1, h2, t, radius)
    return sp.simplify(sp.diff(h1, t) / sp.diff(x, t) - x * h2)


def find_radial_warp(h1: sp.Expr, h2: sp.Expr, t: sp.Symbol, *, radius: sp.Expr | None = None) -> sp.Expr:
    r"""The positive scalar `g` that makes `g (h1 I + h2 w w^T)` a Hessian, up to a constant factor.

    The test `(g h_1)'(x) = x g h_2` is a linear equation for `log g`:

    .. math:: \frac{g'}{g} = \frac{x h_2 - h_1'}{h_1}

    Arguments are those of `radial_defect`, `t` positive and `radius` increasing.

    Raises:
        NoWarpError: If the metric is degenerate (`h1 = 0`, or its radial part vanishes), or the equation has no closed
            form.

    Examples:
        The neuron of Theorem 6.1, with `t` the norm of its input weights: the warp is its output weight.

        >>> t, delta = sp.symbols("t delta", positive=True)
        >>> a = sp.sqrt(t**2 + delta)
        >>> find_radial_warp(1 / a**2, -1 / (a**2 * (a**4 + (a * t)**2)), t, radius=a * t)
        sqrt(delta + t**2)
    """
    h1, h2, x = _radial_metric(h1, h2, t, radius)
    if sp.simplify(h1) == 0 or sp.simplify(h1 + x**2 * h2) == 0:
        raise NoWarpError(
            "the metric is degenerate: a multiple of it is degenerate too, and no Hessian that gives a flow"
        )
    rate = sp.simplify((x * h2 * sp.diff(x, t) - sp.diff(h1, t)) / h1)
    log_warp = sp.integrate(rate, t)
    if log_warp.has(sp.Integral):
        raise NoWarpError(f"the warp exists but has no closed form: it is exp of the integral of {rate}")
    warp = sp.simplify(sp.exp(log_warp))
    constant, dependent = sp.powsimp(warp).as_independent(t, as_Add=False)
    return dependent if constant.is_positive else warp


def neuron_potential_in_layers() -> tuple[sp.Symbol, sp.Symbol, sp.Expr, sp.Expr]:
    """The neuron's radial potential in terms of its layers: `q = a (3 t^2 - a^2) / 2` at `x = a t`; `t, delta, x, q`.

    `t` is the norm of the input weights and `a = sqrt(t^2 + delta)` the output weight.

    Examples:
        The slope of the potential is three halves of the input weights' norm:

        >>> t, delta, x, q = neuron_potential_in_layers()
        >>> sp.simplify(q.diff(t) / x.diff(t))
        3*t/2
    """
    t, delta = sp.symbols("t delta", positive=True)
    a = sp.sqrt(t**2 + delta)
    return t, delta, a * t, a * (3 * t**2 - a**2) / 2


def neuron_potential() -> tuple[sp.Symbol, sp.Symbol, sp.Expr]:
    """The neuron's radial potential `q_delta(x)` as a function of the predictor's norm (Theorem 6.1).

    Simplifying derivatives of this form is slow; substitute `x = t sqrt(t^2 + delta)` first, or use
    `neuron_potential_in_layers`.

    Examples:
        >>> x, delta, q = neuron_potential()
        >>> sp.simplify(q.subs(delta, 0))
        x**(3/2)
    """
    x = sp.Symbol("x", positive=True)
    delta = sp.Symbol("delta", real=True)
    root = sp.sqrt(x**2 + delta**2 / 4)
    q = (x**2 - delta / 2 * (delta / 2 + root)) * sp.sqrt(root - delta / 2) / x
    return x, delta, q
