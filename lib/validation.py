"""Checks at the door: every message names the argument, what it was and what is allowed.

A wrong kind of thing is a `TypeError`, a wrong value a `ValueError`. Each check returns the value in the form that
the caller goes on with: numpy's scalars as Python's numbers, whatever holds real numbers as a float64 array.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "finite_array",
    "finite_number",
    "finite_tensor",
    "floating_tensor",
    "instance_of",
    "integer_at_least",
    "job_count",
    "known_device",
    "known_seed",
    "number_between",
    "numpy_generator",
    "one_of",
    "pair",
    "positive_array",
    "positive_integer",
    "positive_number",
    "regression_data",
    "torch_generator",
    "true_or_false",
]

T = TypeVar("T")


def _short(value: object) -> str:
    """A value for a message: one line, not too long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a foreign object whose repr fails must not hide what was wrong
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def finite_array(
    name: str, value: ArrayLike, *, ndim: int | None = None, shape: tuple[int, ...] | None = None
) -> NDArray[np.float64]:
    """Return `value` as a finite float64 array, with `ndim` axes or of a `shape` where that is asked for.

    It is anything that numpy can turn into real numbers, or a torch tensor on any device, with or without a gradient.

    Examples:
        >>> finite_array("y", [1, float("nan")])
        Traceback (most recent call last):
        ...
        ValueError: y must be finite; 1 of its 2 entries is NaN or infinite
    """
    array = _real_array(name, value)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes; its shape is {array.shape}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; its shape is {array.shape}")
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        verb = "is" if bad == 1 else "are"
        raise ValueError(f"{name} must be finite; {bad} of its {array.size} entries {verb} NaN or infinite")
    return array


def _real_array(name: str, value: ArrayLike) -> NDArray[np.float64]:
    detach = getattr(value, "detach", None)
    if detach is not None:  # numpy takes no tensor that requires a gradient, is on a GPU, or is of bfloat16
        tensor: torch.Tensor = detach()
        if tensor.is_complex():
            raise TypeError(f"{name} must hold real numbers; it has dtype {tensor.dtype}")
        return tensor.double().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a regular array of numbers, with rows of one length") from error
    except TypeError as error:
        raise TypeError(f"{name} must hold real numbers; it is {_short(value)}") from error
    if array.dtype.kind not in "biuf":
        found = f"it has dtype {array.dtype}" if array.dtype != object else f"it is {_short(value)}"
        raise TypeError(f"{name} must hold real numbers; {found}")
    return array.astype(np.float64, copy=False)


def finite_tensor(
    name: str, value: torch.Tensor, *, ndim: int | None = None, shape: tuple[int, ...] | None = None
) -> torch.Tensor:
    """Return `value` itself if it is a finite floating-point tensor of the shape that is asked for.

    Examples:
        >>> import torch
        >>> finite_tensor("x", torch.ones(2, 2), ndim=4)
        Traceback (most recent call last):
        ...
        ValueError: x must have 4 axes; its shape is (2, 2)
    """
    import torch

    floating_tensor(name, value)
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes; its shape is {tuple(value.shape)}")
    if shape is not None and tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}; its shape is {tuple(value.shape)}")
    bad = value.numel() - int(torch.isfinite(value.detach()).sum())
    if bad:
        verb = "is" if bad == 1 else "are"
        raise ValueError(f"{name} must be finite; {bad} of its {value.numel()} entries {verb} NaN or infinite")
    return value


def floating_tensor(name: str, value: torch.Tensor) -> torch.Tensor:
    """Return `value` if it is a floating-point tensor, finite or not."""
    import torch

    if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
        found = value.dtype if isinstance(value, torch.Tensor) else _short(value)
        raise TypeError(f"{name} must be a floating-point tensor; it is {found}")
    return value


def known_device(device: str | torch.device) -> str:
    """Return the name of a device that torch can use here.

    Examples:
        >>> known_device("gpu")
        Traceback (most recent call last):
        ...
        ValueError: device must be cpu, or cuda where there is a GPU; it is 'gpu'
    """
    import torch

    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a name such as cpu or cuda; it is {_short(device)}")
    try:
        asked = torch.device(device)
    except RuntimeError:
        asked = None
    known = asked is not None and (
        asked.type == "cpu"
        or (asked.type == "cuda" and torch.cuda.is_available() and (asked.index or 0) < torch.cuda.device_count())
    )
    if not known:
        raise ValueError(f"device must be cpu, or cuda where there is a GPU; it is {str(device)!r}")
    return str(device)


def positive_array(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Return `value` as a finite float64 array whose entries are all above zero.

    Examples:
        >>> positive_array("alpha", 0.0)
        Traceback (most recent call last):
        ...
        ValueError: alpha must be positive; its smallest entry is 0.0
    """
    array = finite_array(name, value)
    if array.size and array.min() <= 0:
        raise ValueError(f"{name} must be positive; its smallest entry is {array.min()}")
    return array


def _scalar(value: Any) -> Any:
    """What an array or tensor without axes holds, in Python's own type."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _number(name: str, value: object) -> float:
    if not isinstance(value, numbers.Real):
        value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; it is {_short(value)}")
    return float(value)


def finite_number(name: str, value: float) -> float:
    """Return `value` as a float if it is a number, and finite.

    Examples:
        >>> finite_number("t", np.float32(0.5))
        0.5
    """
    number = _number(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite; it is {value}")
    return number


def positive_number(name: str, value: float) -> float:
    """Return `value` as a float if it is finite and above zero.

    Examples:
        >>> positive_number("lr", float("nan"))
        Traceback (most recent call last):
        ...
        ValueError: lr must be positive and finite; it is nan
    """
    number = _number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be positive and finite; it is {value}")
    return number


def number_between(name: str, value: float, low: float, high: float = math.inf) -> float:
    """Return `value` as a float if it is finite and lies in [low, high].

    Examples:
        >>> number_between("momentum", 1.5, 0, 1)
        Traceback (most recent call last):
        ...
        ValueError: momentum must lie between 0 and 1; it is 1.5
    """
    number = _number(name, value)
    if not (math.isfinite(number) and low <= number <= high):
        allowed = f"finite and at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must {'be' if high == math.inf else 'lie'} {allowed}; it is {value}")
    return number


def _integer(name: str, value: object) -> int:
    # only then: torch.compile traces sizes through here, and knows no attributes of them
    if not isinstance(value, numbers.Integral):
        value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer; it is {_short(value)}")
    return int(value)


def integer_at_least(name: str, value: int, low: int) -> int:
    """Return `value` as an int if it is an integer, Python's or numpy's, of at least `low`.

    Examples:
        >>> integer_at_least("warmup", np.int64(0), 0)
        0
    """
    integer = _integer(name, value)
    if integer < low:
        raise ValueError(f"{name} must be at least {low}; it is {integer}")
    return integer


def positive_integer(name: str, value: int) -> int:
    """Return `value` if it is an integer of at least 1."""
    return integer_at_least(name, value, 1)


def known_seed(name: str, value: int) -> int:
    """Return `value` if numpy and torch can both start from it: an integer from 0 to 2^63 - 1."""
    seed = integer_at_least(name, value, 0)
    if seed >= 2**63:
        raise ValueError(f"{name} must be below 2^63; it is {seed}")
    return seed


def job_count(jobs: int | None) -> int | None:
    """Return a number of processes: at least 1, -1 for one a core, None for what surrounds the call.

    Examples:
        >>> job_count(0)
        Traceback (most recent call last):
        ...
        ValueError: jobs must be at least 1, or -1 for one a core; it is 0
    """
    if jobs is None:
        return None
    count = integer_at_least("jobs", jobs, -(2**31))
    if count != -1 and count < 1:
        raise ValueError(f"jobs must be at least 1, or -1 for one a core; it is {count}")
    return count


def one_of(name: str, value: T, options: Collection[T]) -> T:
    """Return `value` if it is one of a few words.

    Examples:
        >>> one_of("split", None, ("train", "test"))
        Traceback (most recent call last):
        ...
        ValueError: split must be one of train, test; it is None
    """
    # compared one by one: an array or a list among the values has no hash, or no single truth
    if not any(type(option) is type(value) and option == value for option in options):
        raise ValueError(f"{name} must be one of {', '.join(map(str, options))}; it is {_short(value)}")
    return value


def pair(name: str, value: Sequence[T]) -> tuple[T, T]:
    """Return `value` as a tuple if it holds two things, such as the sides of a map.

    Examples:
        >>> pair("shape", [3, 4])
        (3, 4)
    """
    if isinstance(value, str) or not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        raise TypeError(f"{name} must be a pair; it is {_short(value)}")
    if len(value) != 2:
        raise ValueError(f"{name} must be a pair; it is {_short(value)}")
    return value[0], value[1]


def true_or_false(name: str, value: bool) -> bool:
    """Return `value` if it is True or False, Python's or numpy's."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; it is {_short(value)}")
    return bool(value)


def instance_of(name: str, value: object, kind: type[T], what: str = "") -> T:
    """Return `value` if it is a `kind`; `what` says in words what is asked for.

    Examples:
        >>> instance_of("count", None, int, "a whole number")
        Traceback (most recent call last):
        ...
        TypeError: count must be a whole number; it is None
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what or f'a {kind.__name__}'}; it is {_short(value)}")
    return value


def numpy_generator(name: str, value: np.random.Generator) -> np.random.Generator:
    """Return `value` if it is a numpy Generator."""
    made = "a numpy Generator, as numpy.random.default_rng(seed) makes it"
    return instance_of(name, value, np.random.Generator, made)


def torch_generator(name: str, value: torch.Generator | None) -> torch.Generator | None:
    """Return `value` if it is a torch Generator, or None, which stands for torch's global one."""
    import torch

    return None if value is None else instance_of(name, value, torch.Generator, "a torch.Generator or None")


def regression_data(X: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return examples `X` (N, d) and targets `y` (N,) as finite float64 arrays that fit together.

    Examples:
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
