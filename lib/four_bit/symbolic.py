"""Rounding up or down by chance, in sympy (Section 3.1, Eqs. 4-6 of arXiv 2112.10769; the rest derived here)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy as sp

__all__ = [
    "RoundingMoments",
    "exponent_rounding_disagreement",
    "mean_squared_errors",
    "relative_variance",
    "rounding_moments",
]


@dataclass(frozen=True)
class RoundingMoments:
    """What rounding `x` to `high` with some chance, and to `low` otherwise, does on average, in these four symbols."""

    x: Any
    low: Any
    high: Any
    chance: Any
    bias: Any
    variance: Any
    mean_squared_error: Any

    @property
    def position(self) -> Any:
        """Where `x` lies in its bin, 0 to 1: the chance that stochastic rounding takes."""
        return (self.x - self.low) / (self.high - self.low)


def rounding_moments() -> RoundingMoments:
    """Bias, variance and mean squared error of one rounded number, for any chance of rounding up.

    Examples:
        Only one chance has no bias:

        >>> m = rounding_moments()
        >>> sp.solve(m.bias, m.chance) == [sp.simplify(m.position)]
        True
    """
    x, low, high, chance = sp.symbols("x l u p", real=True)
    mean = (1 - chance) * low + chance * high
    variance, error = ((1 - chance) * (low - centre) ** 2 + chance * (high - centre) ** 2 for centre in (mean, x))
    return RoundingMoments(x, low, high, chance, bias=mean - x, variance=variance, mean_squared_error=error)


def mean_squared_errors() -> tuple[Any, Any]:
    """Mean squared error of stochastic rounding, and of rounding to nearest, over a bin of width `d`.

    Examples:
        >>> mean_squared_errors()
        (d**2/6, d**2/12)
    """
    x = sp.Symbol("x", real=True)
    d = sp.Symbol("d", positive=True)
    stochastic = sp.integrate(x * (d - x), (x, 0, d)) / d
    nearest = (sp.integrate(x**2, (x, 0, d / 2)) + sp.integrate((d - x) ** 2, (x, d / 2, d))) / d
    return sp.simplify(stochastic), sp.simplify(nearest)


def relative_variance() -> tuple[Any, Any]:
    """The symbol `t` and the variance over the square of `t` times a power of two, `1 <= t <= 2`.

    The power of two is a symbol that cancels: a magnitude of any size has the same relative error.

    Examples:
        >>> t, ratio = relative_variance()
        >>> [(place, ratio.subs(t, place)) for place in sp.solve(ratio.diff(t), t)]
        [(4/3, 1/8)]
    """
    t, power = sp.symbols("t P", positive=True)
    m = rounding_moments()
    variance = m.variance.subs(m.chance, m.position).subs({m.x: t * power, m.low: power, m.high: 2 * power})
    return t, sp.factor(variance / (t * power) ** 2)


def exponent_rounding_disagreement() -> Any:
    """Fraction of all numbers, even in their logarithm, that go to another power of two by exponent than by value.

    Rounding the exponent puts the boundary at the geometric midpoint of two powers, rounding the value at the
    arithmetic one.

    Examples:
        >>> print(f"{float(exponent_rounding_disagreement()):.4f}")
        0.0850
    """
    low, high = sp.Integer(1), sp.Integer(2)
    return sp.log((low + high) / 2, 2) - sp.log(sp.sqrt(low * high), 2)
