r"""Three facts behind the polynomial activation, by algebra (Michaeli et al., CVPR 2023, arXiv 2303.08085).

It widens a band as many times as its degree says; no grid smaller than `dealias_size` holds that; and the quadratic
nearest to GELU has the slope 1/2, because GELU is the sum of `x / 2` and an even function (both derived here).
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from lib.validation import integer_at_least, positive_integer, true_or_false

__all__ = ["alias_beyond_band", "even_part_of_gelu", "grid_sizes", "slope_of_fitted_gelu", "tone_spectrum"]


def tone_spectrum(degree: int) -> dict[int, Any]:
    """What a polynomial makes of one tone: `sum_j c_j x^j` of `x = b + a e^(iKt) + conj(a) e^(-iKt)`.

    Returns:
        The amplitude of each frequency that occurs, in ascending order, in units of `K`: expressions in the symbols
        `a`, `abar` (the conjugate of `a`), `b`, and `c0`, `c1`, ...

    Examples:
        >>> tone_spectrum(1)
        {-1: abar*c1, 0: b*c1 + c0, 1: a*c1}
    """
    positive_integer("degree", degree)
    a, conjugate, b = sp.symbols("a abar b")
    # e^(iKt) as a symbol: its powers are the multiples of K
    turn = sp.Symbol("E")
    x = b + a * turn + conjugate / turn
    value = sum(c * x**j for j, c in enumerate(sp.symbols(f"c:{degree + 1}")))
    powers = sp.Poly(sp.expand(value * turn**degree), turn)
    return {power - degree: amplitude for (power,), amplitude in sorted(powers.terms(), key=lambda term: term[0])}


def grid_sizes(*, even: bool) -> tuple[Any, Any]:
    """Samples of a side, `2 m` or `2 m + 1`, and points of the smallest grid that is exact for a polynomial.

    The second is an expression in the symbols `m` and `d`, the degree, 2 or more.

    Examples:
        >>> grid_sizes(even=True)
        (2*m, m*(d + 1))
    """
    true_or_false("even", even)
    m, d = sp.symbols("m d")
    return (2 * m, (d + 1) * m) if even else (2 * m + 1, (d + 1) * m + 1)


def alias_beyond_band(*, even: bool, missing: int = 0) -> Any:
    """How far beyond the kept band the highest frequency of a polynomial appears on a grid.

    On a grid of `M` points, `missing` fewer than the smallest exact one has, the frequency `d B`, `B` the highest of
    the input, appears at `d B - M`, which is negative; the kept band ends at `-K`. The result is `M - d B - K`: at 1
    the alias is the first frequency beyond the band, at 0 it is the band's edge.

    Examples:
        >>> [alias_beyond_band(even=even, missing=missing) for even in (False, True) for missing in (0, 1)]
        [1, 0, 1, 0]
    """
    missing = integer_at_least("missing", missing, 0)
    m, d = sp.symbols("m d")
    _, points = grid_sizes(even=even)
    # K = (N - 1) // 2 and B = N // 2
    kept, highest = m - 1 if even else m, m
    return sp.expand(points - missing - d * highest - kept)


def even_part_of_gelu() -> Any:
    """`GELU(x) - x / 2`, in the real symbol `x`: an even function.

    Examples:
        >>> even_part_of_gelu()
        x*erf(sqrt(2)*x/2)/2
    """
    x = sp.Symbol("x", real=True)
    return sp.expand(_gelu(x) - x / 2)


def _gelu(x: Any) -> Any:
    return x * (1 + sp.erf(x / sp.sqrt(2))) / 2


def slope_of_fitted_gelu() -> Any:
    """The linear coefficient of the least-squares quadratic through GELU at the places `-q, -p, p, q`.

    Around zero odd and even powers are fitted separately, and the odd part of GELU is `x / 2`. More pairs
    of places change nothing.

    Examples:
        >>> slope_of_fitted_gelu()
        1/2
    """
    p, q = sp.symbols("p q", positive=True)
    places = (-q, -p, p, q)
    powers = sp.Matrix([[1, x, x**2] for x in places])
    values = sp.Matrix([_gelu(x) for x in places])
    return sp.simplify((powers.T * powers).LUsolve(powers.T * values)[1])
