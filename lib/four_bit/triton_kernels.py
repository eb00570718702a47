"""The quantiser on a GPU: Triton kernels, bit for bit the codes of `luq_encode` with the numbers of `counter`.

Nothing is read twice and no random number travels through memory: encoding reads a tensor once and writes half a
byte per entry. Importing this module imports triton; nothing else in the package does.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lib.four_bit.logarithmic import Rounding
from lib.triton_parts import INTERPRETED, bits_at, on_its_gpu, stored

__all__ = ["INTERPRETED", "largest_magnitude", "level_numbers", "quantised", "scale"]

_BLOCK = 4096


@triton.jit
def scale(largest, LEVELS: tl.constexpr, POW2: tl.constexpr):
    """Alpha times a lift, and one over the lift: all powers of two but `largest`, so products are exact."""
    tiny = largest < 2.0**-60
    lift = tl.where(tiny, 2.0**64, 1.0)
    alpha = largest * lift * (2.0 ** (1 - LEVELS))
    if POW2:
        bits = (alpha.to(tl.int32, bitcast=True) + 0x7FFFFF) & 0x7F800000
        alpha = bits.to(tl.float32, bitcast=True)
    return alpha, lift, tl.where(tiny, 2.0**-64, 1.0)


@triton.jit
def level_numbers(x, drawn, alpha, lift, LEVELS: tl.constexpr, ROUNDING: tl.constexpr, UNDERFLOW: tl.constexpr):
    """The number k of the level of every entry: one integer addition."""
    # exactly rounded: the division of a GPU is not, and the largest entry could be carried past the last level
    y = tl.div_rn(tl.abs(x) * lift, tl.where(alpha > 0, alpha, 1.0))
    small = y < 1.0
    half = tl.full(y.shape, 0x400000, tl.int32)
    zero = tl.zeros(y.shape, tl.int32)
    inside = drawn if ROUNDING == "stochastic" else (half if ROUNDING == "nearest" else zero)
    below = drawn if UNDERFLOW == "stochastic" else (half if UNDERFLOW == "nearest" else zero)
    bits = (y + tl.maximum(y, 1.0)).to(tl.int32, bitcast=True) + tl.where(small, below, inside)
    k = tl.minimum((bits >> 23) - 127, LEVELS)
    if UNDERFLOW == "flush":
        k = tl.where(small, 0, k)
    return k


@triton.jit
def _draw(rand_ptr, index, places, inside, first, second, RANDOM: tl.constexpr):
    """Random numbers: none, hashed here, or the caller's."""
    if RANDOM == "counter":
        drawn = bits_at(index, first, second, 23)
    elif RANDOM == "given":
        drawn = tl.load(rand_ptr + places, mask=inside, other=0)
    else:
        drawn = tl.zeros(index.shape, tl.int32)
    return drawn


@triton.jit
def _largest_kernel(x_ptr, bits_ptr, count, BLOCK: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + places, mask=places < count, other=0.0).to(tl.float32)
    # without its sign a float is ordered as the integer of its bits, and NaN comes last
    bits = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    tl.atomic_max(bits_ptr, tl.max(bits, axis=0))


@triton.jit(do_not_specialize=["first", "second"])
def _quantise_kernel(
    x_ptr,
    largest_ptr,
    rand_ptr,
    out_ptr,
    alpha_ptr,
    count,
    pairs,
    first,
    second,
    LEVELS: tl.constexpr,
    ROUNDING: tl.constexpr,
    UNDERFLOW: tl.constexpr,
    POW2: tl.constexpr,
    RANDOM: tl.constexpr,
    FORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    alpha, lift, unlift = scale(tl.load(largest_ptr), LEVELS, POW2)
    if program == 0:
        tl.store(alpha_ptr, alpha * unlift)
    lanes = tl.arange(0, BLOCK)
    places = program.to(tl.int64) * BLOCK + lanes
    inside = places < count
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    index = program.to(tl.uint32) * BLOCK + lanes.to(tl.uint32)
    drawn = _draw(rand_ptr, index, places, inside, first, second, RANDOM)
    k = level_numbers(x, drawn, alpha, lift, LEVELS, ROUNDING, UNDERFLOW)
    if FORM == "packed":
        codes = tl.where((x < 0) & (k > 0), k | 8, k)
        low, high = tl.split(tl.reshape(codes, (BLOCK // 2, 2)))
        halves = program.to(tl.int64) * (BLOCK // 2) + tl.arange(0, BLOCK // 2)
        tl.store(out_ptr + halves, (low | (high << 4)).to(tl.uint8), mask=halves < pairs)
    else:
        # 2^(k-1), and 0 for k = 0; the sign before the product, so that zero has none
        magnitude = (tl.full(k.shape, 1, tl.int32) << k) >> 1
        value = tl.where(x < 0, -magnitude, magnitude).to(tl.float32)
        if FORM == "values":
            value = value * (alpha * unlift)
        tl.store(out_ptr + places, stored(value, out_ptr.dtype.element_ty), mask=inside)


@on_its_gpu
def largest_magnitude(x: Tensor) -> Tensor:
    """The largest absolute value of a contiguous tensor, 0-d float32; NaN if there is one."""
    bits = torch.zeros((), dtype=torch.int32, device=x.device)
    if x.numel():
        _largest_kernel[(triton.cdiv(x.numel(), _BLOCK),)](x, bits, x.numel(), BLOCK=_BLOCK)
    return bits.view(torch.float32)


@on_its_gpu
def quantised(
    x: Tensor,
    rounding: Rounding,
    largest: Tensor,
    keys: tuple[int, int],
    rand: Tensor | None,
    *,
    form: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """A contiguous, flat float32, bfloat16 or float16 tensor in one pass, and alpha.

    Args:
        form: `"packed"` codes, two in a byte; or decoded again, as `"values"` or in `"units"` of alpha.
        dtype: Of what is decoded.
    """
    packs, count = form == "packed", x.numel()
    found = torch.empty((count + 1) // 2 if packs else count, dtype=torch.uint8 if packs else dtype, device=x.device)
    alpha = torch.empty((), dtype=torch.float32, device=x.device)
    # an empty tensor still has an alpha; sizes that are multiples of 16 give wide loads and stores
    grid = (max(triton.cdiv(count, _BLOCK), 1),)
    _quantise_kernel[grid](
        x,
        largest,
        x if rand is None else rand,
        found,
        alpha,
        count,
        found.numel(),
        *keys,
        LEVELS=rounding.levels,
        ROUNDING=rounding.rounding,
        UNDERFLOW=rounding.underflow,
        POW2=rounding.pow2_alpha,
        RANDOM="given" if rand is not None else "counter" if rounding.random else "none",
        FORM=form,
        BLOCK=_BLOCK,
    )
    return found, alpha
