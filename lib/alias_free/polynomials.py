"""Polynomials as activation functions: which grid holds their spectrum, and which quadratic is nearest to GELU.

A polynomial of degree `d` widens the band of its input `d` times. On a grid that is fine enough it can be applied point
by point without an alias (Michaeli et al., CVPR 2023, arXiv 2303.08085; the smallest such grid is derived here).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy.special import erf

from lib.validation import finite_array, positive_integer, positive_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

__all__ = ["GELU_QUADRATIC", "dealias_size", "evaluate_polynomial", "fit_activation", "gelu"]

Values = TypeVar("Values", "Tensor", "NDArray[np.floating]")

#: The quadratic nearest to GELU between -sqrt(2) and sqrt(2), constant first: where the layers start. It is what
#: `fit_activation()` gives, written out because the last digits of a fit differ from machine to machine.
GELU_QUADRATIC = (0.0169394634313126, 0.5, 0.3078363963999393)


def gelu(x: ArrayLike) -> NDArray[np.float64]:
    """Exact GELU, `x Phi(x)`, in float64."""
    values = np.asarray(x, dtype=np.float64)
    result: NDArray[np.float64] = values * 0.5 * (1 + erf(values / math.sqrt(2)))
    return result


def fit_activation(
    fn: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    degree: int = 2,
    half_width: float = math.sqrt(2),
    n_points: int = 200,
) -> NDArray[np.float64]:
    """Least-squares polynomial through a function on evenly spaced points.

    Args:
        fn: The function of an array; None: exact GELU.
        half_width: The points lie from minus to plus this, ends included.

    Returns:
        Coefficients (degree + 1,), the constant first.

    Examples:
        >>> np.round(fit_activation(), 6)
        array([0.016939, 0.5     , 0.307836])
    """
    if fn is not None and not callable(fn):
        raise TypeError(f"fn must be a function of an array, or None; it is {fn!r}")
    degree = positive_integer("degree", degree)
    if positive_integer("n_points", n_points) <= degree:
        raise ValueError(f"n_points must be above the degree {degree}; it is {n_points}")
    x = np.linspace(-1, 1, n_points) * positive_number("half_width", half_width)
    y = np.asarray((gelu if fn is None else fn)(x), dtype=np.float64)
    if y.shape != x.shape or not np.isfinite(y).all():
        raise ValueError("fn must give one finite value for each point")
    # in Legendre polynomials the problem is well conditioned for every degree
    fitted = np.polynomial.Legendre.fit(x, y, degree, domain=[x[0], x[-1]])
    coefficients = np.asarray(fitted.convert(kind=np.polynomial.Polynomial, domain=[-1, 1]).coef, dtype=np.float64)
    # a highest coefficient of exactly zero is left out by numpy
    return np.pad(coefficients, (0, degree + 1 - len(coefficients)))


def evaluate_polynomial(x: Values, coefficients: Sequence[Any]) -> Values:
    """A polynomial of every entry, by Horner's scheme: one product and one sum for each degree.

    Args:
        x: A floating-point tensor or array; the result has its dtype if coefficients are numbers.
        coefficients: The constant first, two at least; each a number, or a tensor or array that broadcasts with `x`.
            Gradients flow to them and to `x`.

    Examples:
        >>> evaluate_polynomial(np.array([0.0, 1.0, 2.0]), (1.0, 0.0, 3.0))
        array([ 1.,  4., 13.])
    """
    if not isinstance(coefficients, (Sequence, np.ndarray)) or isinstance(coefficients, str):
        raise TypeError(f"coefficients must be a sequence of numbers or tensors; it is {coefficients!r}")
    if len(coefficients) < 2:
        raise ValueError(f"coefficients must hold two numbers at least; it holds {len(coefficients)}")
    finite_array("x", x)
    for part in coefficients:
        finite_array("coefficients", part)
    return horner(x, coefficients)


def horner(x: Values, coefficients: Sequence[Any]) -> Values:
    """`evaluate_polynomial` without the look at each entry, for layers."""
    # numpy's own float64 would widen arrays of float32
    parts: list[Any] = [float(part) if isinstance(part, float) else part for part in coefficients]
    total: Values = x * parts.pop() + parts.pop()
    while parts:
        total = total * x + parts.pop()
    return total


def dealias_size(n: int, degree: int = 2) -> int:
    """The smallest grid on which a polynomial of `n` samples can be applied point by point, without error in its band.

    The frequencies of the result reach `degree * B`, `B` the highest of the input. On a grid of `M` points the
    frequency `degree * B` appears at `degree * B - M`, and that must lie below the band `-K ... K` that is kept:
    `M >= degree * B + K + 1`. For a quadratic this is one and a half times the grid, the "3/2 rule" of spectral codes
    for fluids (derived here; it is sharp). A polynomial of degree 1 widens nothing.

    Examples:
        >>> [dealias_size(n) for n in (7, 14, 28, 56)]
        [10, 21, 42, 84]
    """
    positive_integer("n", n)
    positive_integer("degree", degree)
    band = n // 2  # for an even side its half counts as well
    return n if degree == 1 else degree * band + (n - 1) // 2 + 1
