"""Checks at the door: every message names the argument, what it was and what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["finite_array", "known_device", "positive_array", "positive_integer", "positive_number", "regression_data"]


def finite_array(
    name: str, value: ArrayLike, *, ndim: int | None = None, shape: tuple[int, ...] | None = None
) -> NDArray[np.float64]:
    """Return `value` as a float64 array, or say why it is not one.

    Parameters
    ----------
    name
        The argument's name, for the message.
    value
        Anything numpy can turn into real numbers.
    ndim, shape
        The number of axes, or the exact shape, that is asked for.

    Raises
    ------
    TypeError
        If `value` does not hold real numbers.
    ValueError
        If an entry is NaN or infinite, or the shape is another one.

    Examples
    --------
    >>> finite_array("y", [1, 2], ndim=1)
    array([1., 2.])
    >>> finite_array("y", [1, float("nan")])
    Traceback (most recent call last):
    ...
    ValueError: y must be finite; 1 of its 2 entries is NaN or infinite
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers; it has dtype {array.dtype}")
    array = array.astype(np.float64, copy=False)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes; its shape is {array.shape}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; its shape is {array.shape}")
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        verb = "is" if bad == 1 else "are"
        raise ValueError(f"{name} must be finite; {bad} of its {array.size} entries {verb} NaN or infinite")
    return array


def known_device(device: str) -> str:
    """Return the name of a device that torch can use here.

    Raises
    ------
    ValueError
        If torch does not know the name, or the machine has no such device.

    Examples
    --------
    >>> known_device("cpu")
    'cpu'
    >>> known_device("gpu")
    Traceback (most recent call last):
    ...
    ValueError: device must be cpu, or cuda where there is a GPU; it is 'gpu'
    """
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if not (kind == "cpu" or (kind == "cuda" and torch.cuda.is_available())):
        raise ValueError(f"device must be cpu, or cuda where there is a GPU; it is {device!r}")
    return device


def positive_array(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Return `value` as a finite float64 array whose entries are all above zero.

    Examples
    --------
    >>> positive_array("alpha", 0.0)
    Traceback (most recent call last):
    ...
    ValueError: alpha must be positive; its smallest entry is 0.0
    """
    array = finite_array(name, value)
    if array.size and array.min() <= 0:
        raise ValueError(f"{name} must be positive; its smallest entry is {array.min()}")
    return array


def positive_number(name: str, value: float) -> float:
    """Return `value` as a float if it is finite and above zero.

    Examples
    --------
    >>> positive_number("lr", float("nan"))
    Traceback (most recent call last):
    ...
    ValueError: lr must be positive and finite; it is nan
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number; it is {value!r}")
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite; it is {value}")
    return float(value)


def positive_integer(name: str, value: int) -> int:
    """Return `value` if it is an integer of at least 1.

    Examples
    --------
    >>> positive_integer("max_steps", 0)
    Traceback (most recent call last):
    ...
    ValueError: max_steps must be at least 1; it is 0
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer; it is {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1; it is {value}")
    return int(value)


def regression_data(X: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return examples `X` (N, d) and targets `y` (N,) as finite float64 arrays that fit together.

    Examples
    --------
    >>> X, y = regression_data([[1, 2]], [3])
    >>> X.shape, y.shape
    ((1, 2), (1,))
    """
    X = finite_array("X", X, ndim=2)
    y = finite_array("y", y, ndim=1)
    if X.shape[0] != y.shape[0]:
        raise ValueError(f"X and y must have as many rows; X has {X.shape[0]}, y has {y.shape[0]}")
    if X.size == 0:
        raise ValueError(f"X must not be empty; its shape is {X.shape}")
    return X, y
