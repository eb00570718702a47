r"""Scalar networks: a product of `D` weights that fits one number.

`L(w) = (prod(w) - y)^2 / 2`, the model of "Gradient Descent Monotonically Decreases the Sharpness of Gradient
Flow Solutions in Scalar Networks and Beyond" (Kreisler, Shpigel Nacson, Soudry, Carmon, ICML 2023, arXiv
2305.13064). All functions take weights of shape `(..., D)`, so that thousands of networks are one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lib.validation import finite_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["balances", "gd_step", "gradient", "hessian", "loss", "products_of_others", "scalar_weights", "sharpness"]


_LARGEST = 1e150


def scalar_weights(w: ArrayLike, target: float) -> NDArray[np.float64]:
    """Return weights (..., D) as a float64 array, or say why they are not those of a scalar network."""
    weights = finite_array("w", w)
    if weights.ndim == 0 or weights.shape[-1] < 2:
        raise ValueError(f"w must hold at least two weights in its last axis; its shape is {weights.shape}")
    if weights.size and np.abs(weights).max() >= _LARGEST:
        raise ValueError(f"w must be below {_LARGEST:g} in size: its squares would overflow")
    if finite_array("target", target, shape=()) == 0:
        raise ValueError(f"target must be finite and not zero; it is {target}")
    return weights


def products_of_others(w: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each weight the product of all the others, (..., D); exact where a weight is zero too."""
    before = np.ones_like(w)
    np.cumprod(w[..., :-1], axis=-1, out=before[..., 1:])
    after = np.ones_like(w)
    after[..., :-1] = np.cumprod(w[..., :0:-1], axis=-1)[..., ::-1]
    return before * after


def loss(w: ArrayLike, target: float = 1.0) -> NDArray[np.float64]:
    """Half the squared distance of the product from the target; (..., D) to (...).

    Examples:
        >>> print(loss([2.0, 1.0]))
        0.5
    """
    weights = scalar_weights(w, target)
    return np.asarray((weights.prod(axis=-1) - target) ** 2 / 2)


def gradient(w: ArrayLike, target: float = 1.0) -> NDArray[np.float64]:
    """Gradient of the loss, (..., D).

    Examples:
        >>> gradient([2.0, 1.0])
        array([1., 2.])
    """
    return slopes(scalar_weights(w, target), target)


def slopes(w: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    """The gradient (..., D), for loops that have looked at their weights."""
    return np.asarray((w.prod(axis=-1, keepdims=True) - target) * products_of_others(w))


def hessian(w: ArrayLike, target: float = 1.0) -> NDArray[np.float64]:
    """Hessian of the loss, (..., D, D).

    Examples:
        >>> hessian([2.0, 1.0])
        array([[1., 3.],
               [3., 4.]])
    """
    weights = scalar_weights(w, target)
    count = weights.shape[-1]
    slopes = products_of_others(weights)
    residual = weights.prod(axis=-1) - target
    result = slopes[..., :, None] * slopes[..., None, :]
    for i in range(count):
        others = np.delete(weights, i, axis=-1)
        pairs = products_of_others(others) if count > 2 else np.ones_like(others)
        result[..., i, np.delete(np.arange(count), i)] += residual[..., None] * pairs
    return np.asarray(result)


def sharpness(w: ArrayLike, target: float = 1.0) -> NDArray[np.float64]:
    """Largest eigenvalue of the Hessian, (...).

    Examples:
        At a minimum it is the squared target times the sum of the inverse squared weights:

        >>> print(f"{sharpness([2.0, 0.5]):.2f}")
        4.25
    """
    return np.asarray(np.linalg.eigvalsh(hessian(w, target))[..., -1])


def balances(w: ArrayLike) -> NDArray[np.float64]:
    """Squares of the weights above their smallest, (..., D): what gradient flow conserves.

    Examples:
        >>> balances([2.0, -1.0, 3.0])
        array([3., 0., 8.])
    """
    squares = scalar_weights(w, 1.0) ** 2
    return np.asarray(squares - squares.min(axis=-1, keepdims=True))


def gd_step(w: ArrayLike, eta: ArrayLike, target: float = 1.0) -> NDArray[np.float64]:
    """Weights after one step of gradient descent, (..., D); `eta` is a number or (...).

    Examples:
        >>> gd_step([2.0, 1.0], eta=0.1)
        array([1.9, 0.8])
    """
    weights = scalar_weights(w, target)
    step = finite_array("eta", eta)
    return np.asarray(weights - step[..., None] * slopes(weights, target))
