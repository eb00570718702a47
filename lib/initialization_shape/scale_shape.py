"""Scale and shape of a two-layer initialization, and the single number that they act through.

The scale of a pair of weights is the size of their product, the shape says how unevenly the two
layers share it (Section 7 of arXiv 2102.09769). A diagonal network feels both only through
`potential_scale`, a fully connected neuron through `neuron_delta`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lib.validation import finite_array, positive_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["neuron_delta", "potential_scale", "scale_shape_to_weights", "weights_to_scale_shape"]


def _scale_and_shape(alpha: ArrayLike, shape: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scale = positive_array("alpha", alpha)
    s = finite_array("shape", shape)
    if s.size and np.abs(s).max() >= 1:
        raise ValueError(f"shape must lie strictly between -1 and 1; its largest size is {np.abs(s).max()}")
    return scale, s


def scale_shape_to_weights(alpha: ArrayLike, shape: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Weights of the two layers with a given product and imbalance (Section 7).

    .. math:: u = \sqrt{\alpha\,(1-s)/(1+s)}, \qquad v = \sqrt{\alpha\,(1+s)/(1-s)}

    Args:
        alpha: Scale, the product `u v`; any shape, all entries positive.
        shape: Imbalance `s = (v - u) / (v + u)`, strictly between -1 and 1; broadcasts against `alpha`.

    Returns:
        u, v: Weights of the first and of the second layer, broadcast shape.

    Examples:
        >>> u, v = scale_shape_to_weights(0.03, 0.5)
        >>> print(f"{u:.2f} {v:.2f}")
        0.10 0.30
    """
    scale, s = _scale_and_shape(alpha, shape)
    imbalance = np.sqrt((1 + s) / (1 - s))
    root = np.sqrt(scale)
    return np.asarray(root / imbalance), np.asarray(root * imbalance)


def weights_to_scale_shape(u: ArrayLike, v: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale `|u v|` and shape `(|v|-|u|)/(|u|+|v|)` of given weights: the inverse of `scale_shape_to_weights`.

    For a fully connected neuron pass the norm of the input weights as `u` and the output weight as `v`.

    Examples:
        >>> alpha, shape = weights_to_scale_shape(0.1, -0.3)
        >>> print(f"{alpha:.2f} {shape:.2f}")
        0.03 0.50
    """
    first, second = np.abs(finite_array("u", u)), np.abs(finite_array("v", v))
    total = np.asarray(first + second)
    if total.size and total.min() == 0:
        raise ValueError("u and v must not both be zero: a pair of zero weights has no shape")
    return np.asarray(first * second), np.asarray((second - first) / total)


def potential_scale(alpha: ArrayLike, shape: ArrayLike) -> NDArray[np.float64]:
    r"""The one number `k` through which scale and shape act in a diagonal network (Theorem 4.1).

    .. math:: k = 2(u^2+v^2) = 4\alpha\,\frac{1+s^2}{1-s^2}

    Small `k` is the rich (sparse) regime, large `k` the kernel regime. The paper calls the *square*
    of this number `k`.

    Examples:
        >>> print(potential_scale(0.25, [0.0, 0.5, -0.5]).round(4))
        [1.     1.6667 1.6667]
    """
    scale, s = _scale_and_shape(alpha, shape)
    return np.asarray(4 * scale * (1 + s**2) / (1 - s**2))


def neuron_delta(alpha: ArrayLike, shape: ArrayLike) -> NDArray[np.float64]:
    r"""The conserved imbalance of a fully connected neuron (Theorem 6.1).

    .. math:: \delta = a^2 - \lVert u\rVert^2 = \frac{4\alpha s}{1-s^2}

    Examples:
        >>> print(neuron_delta(0.25, [0.0, 0.5, -0.5]).round(4))
        [ 0.      0.6667 -0.6667]
    """
    scale, s = _scale_and_shape(alpha, shape)
    return np.asarray(4 * scale * s / (1 - s**2))
