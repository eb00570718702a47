r"""Logarithmic unbiased quantisation (LUQ): gradients as a sign and a power of two, right on average.

The levels are 0 and :math:`\pm\alpha 2^{k-1}` for `k = 1 … K`, with :math:`\alpha = \max|x| / 2^{K-1}`, so that
nothing is clipped (Section 4, Eqs. 10-16 of Chmiel et al., ICLR 2023, arXiv 2112.10769).

All of it is one integer addition (derived here): the mantissa of the float32 :math:`y = |x|/\alpha \ge 1` is its
position between two powers of two, so adding a uniform random mantissa to its bits carries into the exponent with just
the probability of stochastic rounding. Below 1, `y + 1` has the mantissa `y`: stochastic underflow. With the constant
half, or nothing, in place of the random number it is rounding to nearest, or down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from lib.counter import checked_sizes, counter_mantissas, random_seed
from lib.experiment import Preset
from lib.four_bit.packing import integer_tensor
from lib.validation import (
    finite_array,
    finite_number,
    finite_tensor,
    floating_tensor,
    instance_of,
    positive_integer,
    torch_generator,
)

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx

__all__ = [
    "LOG_FORMATS",
    "Rounding",
    "counter_mantissas",
    "luq",
    "luq_decode",
    "luq_encode",
    "luq_mean",
    "luq_variance",
    "random_mantissas",
    "round_nearest_power",
]

#: Number K of magnitudes above zero, by name. `fp4` is a true [1, 3, 0] float: sign, three bits of exponent, the
#: code 0 for zero. `reference` is what the authors' published code computes (17 values, more than 4 bits), `printed`
#: what Eq. 11 says literally. `fp3` and `fp2` are [1, 2, 0] and [1, 1, 0].
LOG_FORMATS = {"fp4": 7, "reference": 8, "printed": 5, "fp3": 3, "fp2": 1}

_MANTISSA_BITS = 23
_MANTISSAS = 1 << _MANTISSA_BITS
_HALF = _MANTISSAS >> 1
# Below this, alpha would lose bits to gradual underflow: numbers are scaled by a power of two first.
_TINY, _LIFT = 2.0**-60, 2.0**64


def _format(name: str, fmt: str | int) -> str | int:
    if isinstance(fmt, str) and fmt in LOG_FORMATS:
        return fmt
    if isinstance(fmt, (int, np.integer)) and not isinstance(fmt, bool) and 1 <= fmt <= 8:
        return int(fmt)
    raise ValueError(f"{name} must be one of {', '.join(LOG_FORMATS)}, or K from 1 to 8; it is {fmt!r}")


def log_levels(fmt: str | int) -> int:
    """Number K of magnitudes above zero of a format, which may also be given by that number, 1 to 8."""
    known = _format("fmt", fmt)
    return LOG_FORMATS[known] if isinstance(known, str) else known


def sign_shift(fmt: str | int) -> int:
    """The place of the sign bit in a code: 3, so that a code is a nibble, but 4 for the format of 17 values."""
    return 3 if log_levels(fmt) <= 7 else 4


@dataclass(frozen=True)
class Rounding(Preset):
    """How numbers become signed powers of two: LUQ by default, an ablation of it otherwise.

    Attributes:
        fmt: A name in `LOG_FORMATS`, or the number of magnitudes above zero, 1 to 8.
        rounding: Between two levels: `"stochastic"`, `"nearest"` (arithmetic midpoint, ties up) or `"down"`.
        underflow: Below the smallest level: `"stochastic"`, `"nearest"` or `"flush"` to zero.
        pow2_alpha: Whether the smallest level is rounded up to a power of two, so that all scaling is exponent
            arithmetic.

    Examples:
        >>> naive = Rounding("fp3", rounding="nearest", underflow="flush")
        >>> luq(torch.tensor([8.0, 5.0, 0.9]), naive)
        tensor([8., 4., 0.])
    """

    fmt: Annotated[str | int, _format] = "fp4"
    rounding: Literal["stochastic", "nearest", "down"] = "stochastic"
    underflow: Literal["stochastic", "nearest", "flush"] = "stochastic"
    pow2_alpha: bool = False

    @property
    def levels(self) -> int:
        """Number K of magnitudes above zero."""
        return log_levels(self.fmt)

    @property
    def random(self) -> bool:
        """Whether anything is rounded by chance."""
        return "stochastic" in (self.rounding, self.underflow)


LUQ = Rounding()


def checked_rounding(rounding: Rounding) -> Rounding:
    return instance_of("rounding", rounding, Rounding, "a Rounding, such as Rounding(fmt='fp3')")


def real_tensor(name: str, x: Tensor, *, check: bool = True) -> Tensor:
    """Return `x` as a contiguous, detached float32 tensor; with `check`, only if that is finite."""
    values = floating_tensor(name, x).detach().to(torch.float32).contiguous()
    return finite_tensor(name, values) if check else values


def largest_magnitude(x: Tensor) -> Tensor:
    """The largest absolute value as a 0-d tensor; 0 for an empty one. One pass over memory."""
    if not x.numel():
        return torch.zeros((), dtype=x.dtype, device=x.device)
    low, high = torch.aminmax(x)
    return torch.maximum(low.abs(), high.abs())


def random_mantissas(shape: tuple[int, ...] | torch.Size, *, generator: torch.Generator | None = None) -> Tensor:
    """Uniform random integers in [0, 2^23), int32, on the generator's device.

    Examples:
        >>> random_mantissas((3,)).dtype
        torch.int32
    """
    torch_generator("generator", generator)
    device = None if generator is None else generator.device
    return torch.randint(_MANTISSAS, checked_sizes(shape), dtype=torch.int32, generator=generator, device=device)


def checked_mantissas(
    rand: Tensor | None, x: Tensor, generator: torch.Generator | None, *, check: bool = True
) -> Tensor:
    """The caller's random integers for `x`, or new ones from the generator."""
    torch_generator("generator", generator)
    if rand is None:
        if generator is None and x.device.type != "cpu":
            return torch.randint(_MANTISSAS, x.shape, dtype=torch.int32, device=x.device)
        if generator is not None and generator.device != x.device:
            # one number crosses over, from which the others follow where they are needed
            return counter_mantissas(x.shape, random_seed(generator), device=x.device)
        return random_mantissas(x.shape, generator=generator)
    instance_of("rand", rand, Tensor, "an int32 tensor or None")
    if rand.dtype != torch.int32 or rand.shape != x.shape:
        found = f"{rand.dtype}, {tuple(rand.shape)}"
        raise ValueError(f"rand must be an int32 tensor of shape {tuple(x.shape)}; it is {found}")
    if check and rand.numel() and not 0 <= int(rand.min()) <= int(rand.max()) < _MANTISSAS:
        raise ValueError(f"rand must lie in [0, 2^23); it runs from {int(rand.min())} to {int(rand.max())}")
    return rand


def scale_of(max_abs: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
    """Alpha times a lift, and the lift: a power of two that keeps alpha out of gradual underflow."""
    lift = torch.where(max_abs < _TINY, _LIFT, 1.0)
    alpha = max_abs * lift / 2.0 ** (rounding.levels - 1)
    if rounding.pow2_alpha:  # up to the next power of two: adding all ones carries unless the mantissa is zero
        bits = alpha.view(torch.int32) + (_MANTISSAS - 1)
        alpha = ((bits >> _MANTISSA_BITS) << _MANTISSA_BITS).view(torch.float32)
    return alpha, lift


def checked_max_abs(values: Tensor, max_abs: Tensor | float | None, *, check: bool = True) -> Tensor:
    if max_abs is None:
        return largest_magnitude(values)
    if not isinstance(max_abs, Tensor):
        max_abs = torch.tensor(finite_array("max_abs", max_abs))
    elif max_abs.is_complex():
        raise TypeError(f"max_abs must hold real numbers; its dtype is {max_abs.dtype}")
    given = max_abs.detach().to(values.device, torch.promote_types(values.dtype, torch.float32))
    if not check:  # a look at the value would stop a GPU
        return given
    if not bool(torch.isfinite(given).all()) or bool((given < 0).any()):
        raise ValueError(f"max_abs must be finite and at least 0; it is {max_abs}")
    if given.ndim > values.ndim or any(
        size not in (1, whole) for size, whole in zip(given.shape[::-1], values.shape[::-1], strict=False)
    ):
        shapes = f"{tuple(values.shape)}; its shape is {tuple(given.shape)}"
        raise ValueError(f"max_abs must be one number, or broadcast to {shapes}")
    return given


def in_units(values: Tensor, alpha: Tensor, lift: Tensor) -> Tensor:
    """`|x| / alpha`: a division, since a rounded reciprocal could carry the maximum past the last level."""
    return values.abs() * lift / torch.where(alpha > 0, alpha, 1.0)


def addends(rounding: Rounding, drawn: Tensor | int) -> tuple[Tensor | int, Tensor | int]:
    """What is added to the bits of numbers from the smallest level on, and of those below it, given the random one."""
    added = {"stochastic": drawn, "nearest": _HALF, "down": 0, "flush": 0}
    return added[rounding.rounding], added[rounding.underflow]


def level_numbers(y: Tensor, drawn: Tensor | int, rounding: Rounding) -> Tensor:
    """The level k of every `y`, int32: y + 1 below 1, else 2 y, then one addition to the bits, and the exponent."""
    inside, below = addends(rounding, drawn)
    same = rounding.rounding == rounding.underflow
    addend = inside if same else torch.where(y < 1, below, inside).to(torch.int32)
    bits = (y + y.clamp(min=1)).view(torch.int32) + addend
    k = ((bits >> _MANTISSA_BITS) - 127).clamp(max=rounding.levels)
    return torch.where(y < 1, 0, k) if rounding.underflow == "flush" else k


def luq_encode(
    x: Tensor,
    rounding: Rounding = LUQ,
    *,
    max_abs: Tensor | float | None = None,
    rand: Tensor | None = None,
    generator: torch.Generator | None = None,
    check: bool = True,
) -> tuple[Tensor, Tensor]:
    """Quantise to signed powers of two, without bias by default.

    Args:
        max_abs: What the largest level stands for; the largest magnitude of `x` by default. A smaller one clips, with a
            bias. A tensor that broadcasts to `x` scales parts of it on their own, such as its rows.
        rand: Random integers in [0, 2^23), int32, of the shape of `x`; the same ones give the same codes on every
            device.
        generator: Source of the random integers where `rand` is None.
        check: Refuse NaN, infinities and a bad `max_abs`; off in hot loops.

    Returns:
        codes: uint8 of the shape of `x`: `k` in the low bits, the sign above; 0 for zero.
        alpha: The smallest level, float32, 0-d or of the shape of `max_abs`. 0 if all of `x` is zero.

    Examples:
        >>> codes, alpha = luq_encode(torch.tensor([64.0, -16.0, 1.0, 0.0]))
        >>> codes, alpha.item()
        (tensor([ 7, 13,  1,  0], dtype=torch.uint8), 1.0)
    """
    checked_rounding(rounding)
    values = real_tensor("x", x, check=check)
    alpha, lift = scale_of(checked_max_abs(values, max_abs, check=check), rounding)
    drawn: Tensor | int = 0
    if rand is not None or rounding.random:
        drawn = checked_mantissas(rand, values, generator, check=check)
    k = level_numbers(in_units(values, alpha, lift), drawn, rounding)
    codes = torch.where((values < 0) & (k > 0), k + (1 << sign_shift(rounding.fmt)), k)  # zero has no sign
    return codes.to(torch.uint8).view(x.shape), alpha / lift


def checked_scale(name: str, value: Tensor | float) -> Tensor | float:
    return finite_tensor(name, value) if isinstance(value, Tensor) else finite_number(name, value)


def luq_decode(codes: Tensor, alpha: Tensor | float, *, fmt: str | int = "fp4", check: bool = True) -> Tensor:
    """The values, float32, that codes of `luq_encode` stand for; without `check` codes are not looked at.

    Examples:
        >>> luq_decode(torch.tensor([7, 13, 1, 0], dtype=torch.uint8), 1.0)
        tensor([ 64., -16.,   1.,   0.])
    """
    levels, sign_bit = log_levels(fmt), 1 << sign_shift(fmt)
    wide = integer_tensor("codes", codes).to(torch.int32)
    k = wide & (sign_bit - 1)
    if check:
        alpha = checked_scale("alpha", alpha)
        wrong = wide[(wide < 0) | (wide >= 2 * sign_bit) | (k > levels)]
        if wrong.numel():
            allowed = f"levels 0 to {levels} with a sign bit of {sign_bit}, as fmt={fmt!r} has them"
            raise ValueError(f"codes must be {allowed}; one is {int(wrong[0])}")
    # 2^(k-1), and 0 for k = 0
    magnitude = (torch.ones_like(wide) << k) >> 1
    return torch.where(wide >= sign_bit, -magnitude, magnitude).to(torch.float32) * alpha


class _StraightThrough(torch.autograd.Function):
    """Another value with the gradient of the old one."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, value: Tensor) -> Tensor:  # noqa: ARG004
        return value

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grads[0], None


def luq(
    x: Tensor,
    rounding: Rounding = LUQ,
    *,
    samples: int = 1,
    max_abs: Tensor | float | None = None,
    rand: Tensor | None = None,
    generator: torch.Generator | None = None,
    check: bool = True,
) -> Tensor:
    """Quantise by `luq_encode` and decode again, with the dtype of `x` and its gradient passed straight through.

    Args:
        x, rounding, max_abs, generator, check: Of `luq_encode`.
        samples: Average so many independent quantisations (SMP, Section 5.1): the variance is divided by their number.
        rand: Random integers; with a leading axis of length `samples` where that is above 1.

    Examples:
        >>> x = torch.tensor([64.0, -3.0, 0.25])
        >>> mean = torch.stack([luq(x, generator=torch.Generator().manual_seed(i)) for i in range(2000)]).mean(0)
        >>> bool((mean - x).abs().max() < 0.1)
        True
    """
    samples = positive_integer("samples", samples)
    floating_tensor("x", x)
    draws: list[Tensor | None] = [rand] * samples
    if rand is not None and samples > 1:
        instance_of("rand", rand, Tensor, "an int32 tensor or None")
        if rand.ndim != x.ndim + 1 or len(rand) != samples:
            raise ValueError(f"rand must have a leading axis of length {samples}; its shape is {tuple(rand.shape)}")
        draws = list(rand)
    total = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for draw in draws:
        codes, alpha = luq_encode(x, rounding, max_abs=max_abs, rand=draw, generator=generator, check=check)
        total += luq_decode(codes, alpha, fmt=rounding.fmt, check=False)
    value = (total / samples).to(x.dtype)
    result: Tensor = _StraightThrough.apply(x, value)  # type: ignore[no-untyped-call]
    return result


def _moments(x: Tensor, rounding: Rounding, max_abs: Tensor | float | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of the quantised value of every entry, in float64: no sampling."""
    checked_rounding(rounding)
    values = real_tensor("x", x)
    alpha, lift = scale_of(checked_max_abs(values, max_abs), rounding)
    y = in_units(values, alpha, lift).double()
    y = y.clamp(max=2.0 ** (rounding.levels - 1))  # clipping
    small = y < 1
    low = torch.where(small, 0.0, torch.exp2(torch.floor(torch.log2(y.clamp(min=1.0)))))
    high = torch.where(small, 1.0, 2 * low)
    position = (y - low) / (high - low)
    never = torch.zeros_like(position)
    up = {"stochastic": position, "nearest": (position >= 0.5).double(), "down": never, "flush": never}
    chance = torch.where(small, up[rounding.underflow], up[rounding.rounding])
    unit = (alpha / lift).double()
    mean = torch.sign(values).double() * unit * (low + chance * (high - low))
    return mean, unit**2 * (high - low) ** 2 * chance * (1 - chance)


def luq_mean(x: Tensor, rounding: Rounding = LUQ, *, max_abs: Tensor | float | None = None) -> Tensor:
    """Expectation of the quantised value, exactly, float64: `x` itself for LUQ without clipping.

    Examples:
        >>> x = torch.tensor([64.0, 0.4])
        >>> luq_mean(x), luq_mean(x, Rounding(underflow="flush"))
        (tensor([64.0000,  0.4000], dtype=torch.float64), tensor([64.,  0.], dtype=torch.float64))
    """
    return _moments(x, rounding, max_abs)[0]


def luq_variance(x: Tensor, rounding: Rounding = LUQ, *, max_abs: Tensor | float | None = None) -> Tensor:
    r"""Variance of the quantised value, exactly, float64: :math:`\alpha^2(y-l)(u-y)` for LUQ.

    Examples:
        >>> luq_variance(torch.tensor([64.0, 3.0, 0.5]))
        tensor([0.0000, 1.0000, 0.2500], dtype=torch.float64)
    """
    return _moments(x, rounding, max_abs)[1]


def round_nearest_power(v: Tensor) -> Tensor:
    """The nearest power of two by value, ties up (RDNP, Eqs. 13-14), for positive float32 numbers.

    Rounding the exponent to the nearest integer would put the boundary at the geometric midpoint instead: a bias.

    Examples:
        >>> round_nearest_power(torch.tensor([1.4, 1.5, 2.9, 3.0]))
        tensor([1., 2., 2., 4.])
    """
    values = real_tensor("v", v)
    if values.numel() and float(values.min()) < torch.finfo(torch.float32).tiny:
        raise ValueError(f"v must hold positive normal float32 numbers; its smallest entry is {float(values.min())}")
    if values.numel() and float(values.max()) >= 1.5 * 2.0**127:
        raise ValueError(f"v must be nearer to 2^127 than to 2^128; its largest entry is {float(values.max())}")
    bits = values.view(torch.int32) + _HALF
    return ((bits >> _MANTISSA_BITS) << _MANTISSA_BITS).view(torch.float32).to(v.dtype)
