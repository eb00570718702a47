"""INT4 for weights and activations: a clip from two moments (SAWB, Choi et al. 2018), and rounding to nearest.

The forward pass is not linear, so unbiased rounding buys nothing there and costs squared error (Section 3.2 of
Chmiel et al., arXiv 2112.10769).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lib.four_bit.logarithmic import checked_mantissas, checked_max_abs, checked_scale, largest_magnitude, real_tensor
from lib.four_bit.packing import integer_tensor
from lib.validation import finite_array, finite_tensor, one_of, positive_number, true_or_false

__all__ = ["SAWB", "int4_decode", "int4_encode", "int4_mean_and_variance", "sawb_clip"]

#: Coefficients for 15 levels; for 17 levels (12.68, 12.80) are in use.
SAWB = (12.1, 12.2)


def sawb_clip(x: Tensor, coeffs: tuple[float, float] = SAWB, *, check: bool = True) -> Tensor:
    r"""The clip :math:`c_1\sqrt{E x^2} - c_2 E|x|`, 0-d: at most the largest magnitude, and that where not positive.

    Args:
        check: Refuse NaN and infinities; off in hot loops, where they make the clip NaN.

    Examples:
        A Gaussian is clipped at about 2.4 standard deviations, a constant not at all:

        >>> x = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
        >>> print(f"{sawb_clip(x):.1f} {sawb_clip(torch.ones(5)):.1f}")
        2.4 1.0
    """
    values = real_tensor("x", x, check=check)
    largest = largest_magnitude(values)
    if not values.numel():
        return largest
    c1, c2 = finite_array("coeffs", coeffs, shape=(2,)).tolist()
    clip = c1 * values.square().mean().sqrt() - c2 * values.abs().mean()
    return torch.where(clip <= 0, largest, torch.minimum(clip, largest))


def int4_encode(
    x: Tensor,
    *,
    clip: str | float | Tensor = "sawb",
    signed: bool | Tensor = True,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    rand: Tensor | None = None,
    generator: torch.Generator | None = None,
    check: bool = True,
) -> tuple[Tensor, Tensor]:
    """Quantise to 15 levels -7 … 7, or to 16 levels 0 … 15 where there are no negative numbers.

    Args:
        clip: `"sawb"`, `"max"`, or the clip itself: a positive number, or a tensor that broadcasts.
        signed: Whether codes have signs; without them `x` must not be negative. A 0-d boolean tensor decides on its
            device.
        rounding: `"nearest"` (ties to even) or `"stochastic"`.
        rand, generator: Of the random numbers of `"stochastic"`, of `luq_encode`.
        check: Refuse NaN, infinities, and negative numbers without signs; off in hot loops, where NaN makes the scale
            NaN.

    Returns:
        codes: int8 of the shape of `x`.
        scale: Width of a level, 0-d float32; 0 if all of `x` is zero.

    Examples:
        >>> codes, scale = int4_encode(torch.tensor([-7.0, 0.4, 3.6]), clip="max")
        >>> codes, scale.item()
        (tensor([-7,  0,  4], dtype=torch.int8), 1.0)
    """
    one_of("rounding", rounding, ("nearest", "stochastic"))
    if not isinstance(signed, Tensor):
        signed = true_or_false("signed", signed)
    elif signed.dtype != torch.bool:
        raise TypeError(f"signed must be True, False or a boolean tensor; its dtype is {signed.dtype}")
    values = real_tensor("x", x, check=check)
    if check and not signed and values.numel() and float(values.min()) < 0:
        raise ValueError(f"x must not be negative without signs; its smallest entry is {float(values.min())}")
    bound = _bound(values, clip, check=check)
    sign = signed if isinstance(signed, Tensor) else torch.full_like(bound, signed, dtype=torch.bool)
    last = torch.where(sign, 7.0, 15.0)
    first = torch.where(sign, -last, 0.0)
    scale = bound / last
    units = values / torch.where(scale > 0, scale, 1.0)
    if rounding == "nearest":
        units = torch.round(units)
    else:
        units = torch.floor(units + checked_mantissas(rand, values, generator, check=check).to(torch.float32) / 2**23)
    return torch.clamp(units, first, last).to(torch.int8).view(x.shape), scale


def _bound(values: Tensor, clip: str | float | Tensor, *, check: bool) -> Tensor:
    if isinstance(clip, Tensor):
        return finite_tensor("clip", clip) if check else clip
    if not isinstance(clip, str):
        return torch.tensor(positive_number("clip", clip), dtype=torch.float32, device=values.device)
    if clip not in ("sawb", "max"):
        raise ValueError(f"clip must be sawb, max or a number; it is {clip!r}")
    return sawb_clip(values, check=False) if clip == "sawb" else largest_magnitude(values)


def int4_mean_and_variance(
    x: Tensor, *, max_abs: Tensor | float | None = None, stochastic: bool = True
) -> tuple[Tensor, Tensor]:
    """Expectation and variance of every entry after rounding to the 15 levels -7 … 7, exactly, float64.

    Args:
        max_abs: What the last level stands for; the largest magnitude by default.
        stochastic: Or to nearest, which has no variance.

    Examples:
        >>> int4_mean_and_variance(torch.tensor([7.0, 0.25]))
        (tensor([7.0000, 0.2500], dtype=torch.float64), tensor([0.0000, 0.1875], dtype=torch.float64))
    """
    values = real_tensor("x", x).double()
    largest = checked_max_abs(values, max_abs)
    true_or_false("stochastic", stochastic)
    scale = largest / 7
    units = (values / torch.where(scale > 0, scale, 1.0)).clamp(-7, 7)
    if not stochastic:
        return torch.round(units) * scale, torch.zeros_like(units)
    position = units - torch.floor(units)
    return units * scale, scale**2 * position * (1 - position)


def int4_decode(codes: Tensor, scale: Tensor | float) -> Tensor:
    """The values that codes from -8 to 15 stand for, float32.

    Examples:
        >>> int4_decode(torch.tensor([-7, 3], dtype=torch.int8), 0.5)
        tensor([-3.5000,  1.5000])
    """
    integer_tensor("codes", codes, -8, 15)
    return codes.to(torch.float32) * checked_scale("scale", scale)
