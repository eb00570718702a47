"""Three identities of scalar networks, derived by sympy (all derived here)."""

from __future__ import annotations

from typing import Any

import sympy as sp

from lib.validation import integer_at_least

__all__ = ["balance_step", "frozen_multiplier", "hessian_at_minimum"]


def balance_step() -> tuple[Any, Any]:
    """What one step of gradient descent does to the balance of any two weights of any number of weights.

    Returns:
        new, old_times_factor: The balance `w_i^2 - w_j^2` after the step, and
            `(w_i^2 - w_j^2)(1 - eta^2 (p - y)^2 p^2 / (w_i w_j)^2)`; the same thing. Both weights, the product `p`,
            the target `y` and `eta` are symbols: the other weights enter through `p` alone.

    Examples:
        >>> new, old_times_factor = balance_step()
        >>> sp.simplify(new - old_times_factor)
        0
    """
    w_i, w_j, product, target, eta = sp.symbols("w_i w_j p y eta", real=True, nonzero=True)
    pull = eta * (product - target) * product
    new = (w_i - pull / w_i) ** 2 - (w_j - pull / w_j) ** 2
    return new, (w_i**2 - w_j**2) * (1 - pull**2 / (w_i * w_j) ** 2)


def hessian_at_minimum(depth: int = 3) -> tuple[Any, Any]:
    """The Hessian of the loss where the product is the target, and the vector whose outer square it is.

    Returns:
        hessian, v: A matrix (depth, depth) and `v_i = y / w_i`, so that the only eigenvalue that is not zero is
            `sum v_i^2`.

    Examples:
        >>> hessian, v = hessian_at_minimum(2)
        >>> sp.simplify(hessian - v * v.T)
        Matrix([
        [0, 0],
        [0, 0]])
    """
    w = sp.symbols(f"w_1:{integer_at_least('depth', depth, 2) + 1}", positive=True)
    target = sp.Symbol("y", positive=True)
    hessian = sp.hessian((sp.prod(w) - target) ** 2 / 2, w).subs(target, sp.prod(w))
    return hessian, sp.Matrix([sp.prod(w) / weight for weight in w])


def frozen_multiplier(depth: int = 3) -> tuple[Any, Any]:
    """Slope of the map `product -> next product` with frozen balances, at its fixed point, and `1 - eta phi`.

    Weights are `sqrt(c + b_i)` with constant `b_i`: the product is a function of the one number `c`.

    Examples:
        >>> slope, expected = frozen_multiplier(2)
        >>> sp.simplify(slope - expected)
        0
    """
    c, target, eta = sp.symbols("c y eta", positive=True)
    b = sp.symbols(f"b_1:{integer_at_least('depth', depth, 2) + 1}", nonnegative=True)
    w = [sp.sqrt(c + each) for each in b]
    product = sp.prod(w)
    after = sp.prod([weight - eta * (product - target) * product / weight for weight in w])
    slope = (after.diff(c) / product.diff(c)).subs(target, product)
    sharpness = product**2 * sum(1 / (c + each) for each in b)
    return slope, 1 - eta * sharpness
