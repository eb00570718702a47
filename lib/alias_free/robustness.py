"""What translation does to layers and networks: equivariance of features, accuracy in the worst case, consistency.

Sets of shifts and measures are those of Michaeli et al. (CVPR 2023, arXiv 2303.08085). Shifts by multiples of half a
pixel can hide what a network on a grid of twice the size does wrong: test with irrational or random ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.alias_free.resampling import checked_shift, checked_size, finite_pictures, shifted
from lib.training import evaluating
from lib.validation import finite_number, finite_tensor, instance_of, one_of, positive_integer, positive_number

__all__ = [
    "Kind",
    "ShiftCounts",
    "ShiftRobustness",
    "crop_translate",
    "equivariance_error",
    "shift_counts",
    "shift_robustness",
    "translate",
]

Kind = Literal["circular", "zero", "bilinear"]

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def equivariance_error(
    module: Callable[[Tensor], Tensor], x: Tensor, shift: tuple[float, float], stride: float = 1
) -> float:
    """How far a layer is from commuting with a shift: `max |f(T_s x) - T_(s / stride) f(x)| / max |f(x)|`.

    Args:
        x: Pictures (B, C, H, W).
        shift: Rows and columns [pixels].
        stride: By how much coarser the result is; 1 / 2 for one that is twice as fine.

    Examples:
        >>> from lib.alias_free import fourier_shift
        >>> x = fourier_shift(torch.rand(1, 2, 9, 9, dtype=torch.float64), (0, 0), nyquist="zero")
        >>> step = 0.3, 1.2
        >>> equivariance_error(lambda y: 3 * y, x, step) < 1e-12 < equivariance_error(torch.relu, x - 0.5, step)
        True
    """
    if not callable(module):
        raise TypeError(f"module must be a layer or a function of pictures; it is {module!r}")
    positive_number("stride", stride)
    down, right = checked_shift(shift)
    _check_pictures(x)
    if not x.numel():
        raise ValueError(f"x must not be empty; its shape is {tuple(x.shape)}")
    with torch.no_grad():
        # copies here and below: a layer may overwrite what it is given
        plain = module(x.clone())
        if plain.ndim < 3 or not np.allclose(x.shape[-2:], stride * np.array(plain.shape[-2:])):
            sizes = f"{tuple(x.shape)} became {tuple(plain.shape)}"
            raise ValueError(f"module must give pictures coarser by {stride}: {sizes}")
        return shift_error(module(shifted(x, (down, right))), plain, (down / stride, right / stride))


def shift_error(moved: Tensor, plain: Tensor, shift: tuple[float, float] | None) -> float:
    """`max |moved - T_shift plain| / max |plain|`; None where the results are no pictures, and have to agree.

    What is not finite gives NaN: a result that diverged is found, not refused.
    """
    wrong = (moved - (plain if shift is None else shifted(plain, shift))).abs().max()
    # 0 where both are zero
    return float(wrong / plain.abs().max().clamp_min(torch.finfo(plain.dtype).tiny))


def _check_shift(shift: tuple[float, float], kind: Kind = "circular") -> None:
    one_of("kind", kind, get_args(Kind))
    shift = checked_shift(shift)
    if kind == "zero" and not _whole(shift):
        raise ValueError(f"shift must be whole for kind 'zero'; it is {shift}")


def _check_pictures(x: Tensor) -> None:
    """Refuse what is no pictures (..., H, W) of finite numbers."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor; it is {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim < 2 or not x.shape[-2] or not x.shape[-1]:
        raise ValueError(f"x must have the shape (..., H, W) and hold pixels; it has {tuple(x.shape)}")
    finite_pictures("x", x)


def _whole(shift: tuple[float, float]) -> bool:
    return all(float(part).is_integer() for part in shift)


def translate(x: Tensor, shift: tuple[float, float], kind: Kind = "circular", fill: float = 0.0) -> Tensor:
    """Move pictures.

    Args:
        x: Pictures (..., H, W), floating point.
        shift: Rows and columns [pixels], positive towards larger indices.
        kind: `"circular"`: on the torus, by any real number. `"zero"`: by whole pixels; what comes in is `fill`.
            `"bilinear"`: by any real number, between the four nearest pixels; outside lies `fill`.

    Examples:
        >>> translate(torch.tensor([[1.0, 2.0, 3.0]]), (0, 1), "zero")
        tensor([[0., 1., 2.]])
        >>> translate(torch.tensor([[1.0, 2.0, 3.0]]), (0, 0.5), "bilinear")
        tensor([[0.5000, 1.5000, 2.5000]])
    """
    _check_shift(shift, kind)
    _check_pictures(x)
    finite_number("fill", fill)
    if kind == "circular":
        return x.roll((int(shift[0]), int(shift[1])), (-2, -1)) if _whole(shift) else shifted(x, shift)
    down, right = (math.floor(part) for part in shift)
    moved = torch.zeros_like(x)
    for i, j in product((down, down + 1), (right, right + 1)):
        # nearest neighbours count as far as they are near
        weight = (1 - abs(shift[0] - i)) * (1 - abs(shift[1] - j))
        if weight:
            moved = moved + weight * _filled(x, i, j, fill)
    return moved


def _filled(x: Tensor, down: int, right: int, fill: float) -> Tensor:
    """Moved by whole pixels."""
    height, width = x.shape[-2:]
    pads = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
    wide = functional.pad(x, pads, value=fill)
    top, left = max(-down, 0), max(-right, 0)
    return wide[..., top : top + height, left : left + width]


def crop_translate(x: Tensor, shift: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """A crop (..., size) from the middle of larger pictures (..., H, W), whose content moves by `shift` whole pixels.

    Real content comes in at the sides.

    Examples:
        >>> crop_translate(torch.arange(5.0).reshape(1, 5), (0, 1), (1, 3))
        tensor([[0., 1., 2.]])
    """
    _check_pictures(x)
    height, width = checked_size(size)
    down, right = checked_shift(shift)
    if not _whole((down, right)):
        raise ValueError(f"shift must be whole; it is {(down, right)}")
    top, left = (x.shape[-2] - height) // 2 - int(down), (x.shape[-1] - width) // 2 - int(right)
    if not (0 <= top <= x.shape[-2] - height and 0 <= left <= x.shape[-1] - width):
        raise ValueError(f"a crop of {size} moved by {shift} must lie within {tuple(x.shape[-2:])}")
    return x[..., top : top + height, left : left + width].clone()


class ShiftRobustness(NamedTuple):
    """What shifts do to a classifier.

    Attributes:
        clean_accuracy: Fraction that is right without a shift; an answer that is NaN is wrong.
        adversarial_accuracy: Fraction that is right without a shift and with each of them.
        consistency: Fraction that has the same class as without a shift, the mean over shifts.
        max_relative_change: Largest change of an output over the largest output, over all shifts.
    """

    clean_accuracy: float
    adversarial_accuracy: float
    consistency: float
    max_relative_change: float


class ShiftCounts(NamedTuple):
    """What shifts do to a classifier, as numbers that add up over parts of the data.

    Attributes:
        pictures, right, always_right: How many there are, are right without a shift, and with each of them too.
        compared, same: Pairs of a picture and a shift, and in how many the class is the same as without a shift.
        change, largest: Largest change of an output, and largest output.
    """

    pictures: int
    right: int
    always_right: int
    compared: int
    same: int
    change: float
    largest: float

    def joined(self, other: ShiftCounts) -> ShiftCounts:
        """The counts of both parts."""
        counts = (a + b for a, b in zip(self[:5], other[:5], strict=True))
        return ShiftCounts(*counts, *np.maximum(self[5:], other[5:]).tolist())

    def robustness(self) -> ShiftRobustness:
        """The fractions that they amount to."""
        accuracies = self.right / self.pictures, self.always_right / self.pictures
        change = self.change / max(self.largest, torch.finfo(torch.float32).tiny)
        return ShiftRobustness(*accuracies, self.same / self.compared, change)


def shift_robustness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    shifts: Sequence[tuple[float, float]],
    *,
    kind: Kind = "circular",
    fill: float = 0.0,
    batch_size: int = 256,
) -> ShiftRobustness:
    """Classify pictures (N, C, H, W) of classes (N,) at many places: each moved by `translate` with each shift.

    Each layer of the classifier is left in the mode in which it came.

    Examples:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> net[1].weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
        >>> x = torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 2, 2)
        >>> shift_robustness(net, x, torch.tensor([0]), [(0, 1)])[:3]
        (1.0, 0.0, 0.0)
    """
    return shift_counts(model, x, y, shifts, kind=kind, fill=fill, batch_size=batch_size).robustness()


def shift_counts(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    shifts: Sequence[tuple[float, float]],
    *,
    kind: Kind = "circular",
    fill: float = 0.0,
    batch_size: int = 256,
) -> ShiftCounts:
    """The same as `shift_robustness`, before counts are divided: for data that come in parts.

    Examples:
        >>> net, x, y = nn.Flatten(), torch.eye(2).reshape(2, 1, 1, 2), torch.tensor([0, 0])
        >>> shift_counts(net, x, y, [(0, 1)])
        ShiftCounts(pictures=2, right=1, always_right=0, compared=2, same=0, change=1.0, largest=1.0)
    """
    check_classification(model, x, y)
    shifts = check_attack(shifts, kind, fill)
    batch_size = positive_integer("batch_size", batch_size)
    with evaluating(model), torch.no_grad():
        clean = _outputs(model, x, batch_size)
        if clean.ndim != 2 or len(clean) != len(x):
            raise ValueError(f"model must give (N, classes) for {len(x)} pictures; it gave {tuple(clean.shape)}")
        if not 0 <= int(y.min()) <= int(y.max()) < clean.shape[1]:
            raise ValueError(f"y must be 0 to {clean.shape[1] - 1}; it reaches from {int(y.min())} to {int(y.max())}")
        classes = _classes(clean, -1)
        right = classes == y
        always, same, changes = right.clone(), 0, []
        for shift in shifts:
            moved = _outputs(model, x, batch_size, partial(translate, shift=shift, kind=kind, fill=fill))
            found = _classes(moved, -2)
            always &= found == y
            same += int((found == classes).sum())
            changes.append(float((moved - clean).abs().max()))
    change = float(np.max(changes))  # NaN if one is: what diverged is not robust
    counts = len(x), int(right.sum()), int(always.sum()), len(x) * len(shifts), same
    return ShiftCounts(*counts, change, float(clean.abs().max()))


def _classes(outputs: Tensor, none: int) -> Tensor:
    """The class of each picture; `none`, which is no class, where an output is NaN: `argmax` would name one."""
    return torch.where(outputs.isnan().any(1), none, outputs.argmax(1))


def check_attack(shifts: Sequence[tuple[float, float]], kind: Kind, fill: float = 0.0) -> list[tuple[float, float]]:
    """The shifts, if there are some, and the kind can carry out all of them."""
    try:
        held = list(shifts)
    except TypeError:
        raise TypeError(f"shifts must be pairs of rows and columns; it is {shifts!r}") from None
    if not held:
        raise ValueError("shifts must not be empty")
    for shift in held:
        _check_shift(shift, kind)
    finite_number("fill", fill)
    return held


def check_classification(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuse what is no classifier, no pictures, or not one class for each."""
    instance_of("model", model, nn.Module, "a module")
    instance_of("x", x, Tensor, "a tensor")
    instance_of("y", y, Tensor, "a tensor")
    if not x.is_floating_point() or y.dtype not in _INTEGERS:
        raise TypeError(f"x must be floating point and y hold integers; they are {x.dtype} and {y.dtype}")
    if not x.numel() or x.ndim < 3 or y.shape != x.shape[:1]:
        raise ValueError(f"y must hold one class for each picture; shapes are {tuple(x.shape)} and {tuple(y.shape)}")
    finite_tensor("x", x)


def _outputs(
    model: nn.Module, x: Tensor, batch_size: int, move: Callable[[Tensor], Tensor] = lambda part: part
) -> Tensor:
    # a shift by nothing may give the picture itself, and a layer may overwrite what it is given
    return torch.cat([model(move(part).clone()) for part in torch.split(x, batch_size)])
