"""Two tasks alternately, with sympy: the formula from projections, and the angle at which it is largest."""

from typing import Any

import sympy as sp

from lib.validation import positive_integer

__all__ = ["two_task_formula", "worst_angle"]

K, SQUARE = sp.symbols("k c", positive=True)


def two_task_formula(rounds: int) -> tuple[Any, Any]:
    """Worst forgetting of two tasks in the plane after so many rounds: from the projections, and the closed form.

    With theta the angle between the null directions.

    Examples:
        >>> product, formula = two_task_formula(2)
        >>> sp.simplify(product - formula)
        0
    """
    theta = sp.symbols("theta", real=True)
    k = 2 * positive_integer("rounds", rounds)
    directions = [sp.Matrix([1, 0]), sp.Matrix([sp.cos(theta), sp.sin(theta)])]
    projections = [direction * direction.T for direction in directions]
    product = sp.eye(2)
    for step in range(k):
        product = projections[step % 2] * product
    seen = sum((sp.eye(2) - projections[step % 2] for step in range(k)), sp.zeros(2)) / k
    # of rank one, so the trace is the largest eigenvalue
    return sp.trace(product.T * seen * product), sp.cos(theta) ** (2 * (k - 1)) * sp.sin(theta) ** 2 / 2


def worst_angle() -> tuple[Any, Any]:
    """The squared cosine at which two tasks alternately forget most after k, and the limit of `2 e k` times how much.

    Examples:
        >>> worst_angle()
        ((k - 1)/k, 1)
    """
    value = (1 - SQUARE) * SQUARE ** (K - 1) / 2
    slope = sp.simplify(sp.diff(value, SQUARE) / SQUARE ** (K - 2) * 2)
    (worst,) = sp.solve(slope, SQUARE)
    largest = sp.exp((K - 1) * sp.log(1 - 1 / K)) / K / 2
    return sp.simplify(worst), sp.limit(2 * sp.E * K * largest, K, sp.oo)
