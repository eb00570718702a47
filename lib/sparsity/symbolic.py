"""The masks of small blocks in sympy: what holds for every block, and not only for those that were tried."""

from __future__ import annotations

import sympy as sp

__all__ = ["SORTED", "cases", "marginals", "water_filling"]

#: Magnitudes of a 2:4 block in rising order.
SORTED = sp.symbols("a1:5", positive=True)
_A1, _A2, _A3, _A4 = SORTED
_TOTAL, _REST = sum(SORTED), _A1 + _A2 + _A3


def cases() -> dict[str, dict[tuple[int, int], sp.Expr]]:
    """The pair probabilities of a 2:4 block, by the three cases that its largest entry makes; entries count from 1.

    Examples:
        >>> sorted(cases())
        ['dominant', 'large', 'small']
    """
    last = (_A3 + _A4 - _A1 - _A2) / _TOTAL
    return {
        "small": {
            (1, 3): (2 * _A1 + _A3 - _A4) / (2 * _TOTAL),
            (1, 4): (2 * _A1 - _A3 + _A4) / (2 * _TOTAL),
            (2, 3): (2 * _A2 + _A3 - _A4) / (2 * _TOTAL),
            (2, 4): (2 * _A2 - _A3 + _A4) / (2 * _TOTAL),
            (3, 4): last,
        },
        "large": {
            (1, 4): 2 * _A1 / _TOTAL,
            (2, 3): (_REST - _A4) / _TOTAL,
            (2, 4): (_A2 + _A4 - _A1 - _A3) / _TOTAL,
            (3, 4): last,
        },
        "dominant": {(i, 4): SORTED[i - 1] / _REST for i in (1, 2, 3)},
    }


def marginals(pairs: dict[tuple[int, int], sp.Expr]) -> list[sp.Expr]:
    """The probability with which each of the four entries is kept.

    Examples:
        >>> marginals(cases()["dominant"])[3]
        1
    """
    return [sp.simplify(sum(chance for pair, chance in pairs.items() if i in pair)) for i in (1, 2, 3, 4)]


def water_filling(n: int, m: int) -> list[sp.Expr]:
    r"""Where Lagrange's condition puts the probabilities of M magnitudes while none of them is kept for sure.

    The derivative of :math:`\sum a_i^2 / P_i + \mu (\sum P_i - N)` with respect to each P_i is zero.

    Examples:
        >>> water_filling(1, 2)
        [a1/(a1 + a2), a2/(a1 + a2)]
    """
    sizes, multiplier = sp.symbols(f"a1:{m + 1}", positive=True), sp.Symbol("mu", positive=True)
    chance = sp.Symbol("P", positive=True)
    # each P_i follows from mu alone, and mu from their sum
    solved = [sp.solve(sp.diff(a**2 / chance + multiplier * chance, chance), chance)[0] for a in sizes]
    value = sp.solve(sum(solved) - n, multiplier)[0]
    return [sp.simplify(each.subs(multiplier, value)) for each in solved]
