"""INT4 and the ReLU on a GPU: Triton kernels, bit for bit the codes of `int4_encode` at the same scale.

Quantising reads a tensor twice, once for its scale and once for its codes, and waits for nothing: scale and sign stay
on the device. Sums are taken in an order that only the size decides, so they repeat bit for bit. Importing this module
imports triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lib.triton_parts import on_its_gpu

__all__ = ["int4_codes", "int4_numbers", "int4_scale", "relu", "relu_backward"]

_BLOCK = 2048
# Programs of the first stage of the sums, at most: what they find is read in one piece.
_PROGRAMS = 2048
# From 2^23 to 2^24 neighbouring float32 differ by 1: adding this rounds to an integer, ties to even, and leaves that
# integer in the lowest bits.
_MAGIC = tl.constexpr(1.5 * 2**23)
_MAGIC_BITS = tl.constexpr(0x4B400000)


@triton.jit(do_not_specialize=["steps", "programs"])
def _statistics_kernel(x_ptr, found_ptr, count, steps, programs, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    magnitudes = tl.zeros((BLOCK,), tl.float32)
    squares = tl.zeros((BLOCK,), tl.float32)
    largest = tl.zeros((BLOCK,), tl.int32)
    negative = tl.zeros((BLOCK,), tl.int32)
    for step in range(steps):
        places = (step * programs + program).to(tl.int64) * BLOCK + lanes
        x = tl.load(x_ptr + places, mask=places < count, other=0.0).to(tl.float32)
        # without its sign a float is ordered as the integer of its bits, and NaN comes last
        bits = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        magnitudes += tl.abs(x)
        squares += x * x
        largest = tl.maximum(largest, bits)
        negative = negative | (x < 0).to(tl.int32)
    # four rows, all as the integers of their bits
    tl.store(found_ptr + program, tl.sum(magnitudes, axis=0).to(tl.int32, bitcast=True))
    tl.store(found_ptr + programs + program, tl.sum(squares, axis=0).to(tl.int32, bitcast=True))
    tl.store(found_ptr + 2 * programs + program, tl.max(largest, axis=0))
    tl.store(found_ptr + 3 * programs + program, tl.max(negative, axis=0))


@triton.jit
def _mean(found_ptr, lanes, inside, count):
    """The mean in float64, infinite where the sum is so in float32, as it would be in eager torch."""
    sums = tl.load(found_ptr + lanes, mask=inside, other=0).to(tl.float32, bitcast=True).to(tl.float64)
    total = tl.sum(sums, axis=0)
    return tl.where(total > 3.4028235677973366e38, float("inf"), total / count)


@triton.jit(do_not_specialize=["programs", "count"])
def _scale_kernel(
    found_ptr,
    scale_ptr,
    signed_ptr,
    programs,
    count,
    SAWB: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    SIGN: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    lanes = tl.arange(0, PROGRAMS)
    inside = lanes < programs
    bits = tl.load(found_ptr + 2 * programs + lanes, mask=inside, other=0)
    clip = tl.max(bits, axis=0).to(tl.float32, bitcast=True)
    if SAWB:
        magnitude = _mean(found_ptr, lanes, inside, count)
        square = _mean(found_ptr + programs, lanes, inside, count)
        # the coefficients as eager torch rounds them
        c1, c2 = tl.full((), C1, tl.float32).to(tl.float64), tl.full((), C2, tl.float32).to(tl.float64)
        sawb = (c1 * tl.sqrt(square) - c2 * magnitude).to(tl.float32)
        # no minimum, which would take the number where the other is NaN
        clip = tl.where((sawb <= 0) | (sawb > clip), clip, sawb)
    if SIGN == "found":
        negative = tl.load(found_ptr + 3 * programs + lanes, mask=inside, other=0)
        signed = tl.max(negative, axis=0)
    else:
        signed = tl.full((), 1 if SIGN == "signed" else 0, tl.int32)
    tl.store(scale_ptr, tl.div_rn(clip, tl.where(signed != 0, 7.0, 15.0)))
    tl.store(signed_ptr, signed.to(tl.uint8))


@triton.jit
def _codes_kernel(
    x_ptr, scale_ptr, signed_ptr, codes_ptr, packed_ptr, count, pairs, PACKS: tl.constexpr, BLOCK: tl.constexpr
):
    program = tl.program_id(0).to(tl.int64)
    scale = tl.load(scale_ptr)
    signed = tl.load(signed_ptr) != 0
    places = program * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    # exactly rounded: the division of a GPU is not, and ties would fall to the wrong side
    units = tl.div_rn(x, tl.where(scale > 0, scale, 1.0))
    # NaN is code 0, of a scale that is not finite; the bounds are integers, so they may come before the rounding
    units = tl.where(units == units, units, 0.0)  # noqa: PLR0124
    units = tl.maximum(tl.minimum(units, tl.where(signed, 7.0, 15.0)), tl.where(signed, -7.0, 0.0))
    rounded = units + _MAGIC
    # never -0
    tl.store(codes_ptr + places, (rounded - _MAGIC).to(codes_ptr.dtype.element_ty), mask=inside)
    if PACKS:
        nibbles = rounded.to(tl.int32, bitcast=True) & 15
        low, high = tl.split(tl.reshape(nibbles, (BLOCK // 2, 2)))
        halves = program * (BLOCK // 2) + tl.arange(0, BLOCK // 2)
        tl.store(packed_ptr + halves, (low | (high << 4)).to(tl.uint8), mask=halves < pairs)


@triton.jit
def _numbers_kernel(packed_ptr, signed_ptr, codes_ptr, count, pairs, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    # with signs the fourth bit counts -8: flipped, it counts 8 from -8 on
    flip = tl.where(tl.load(signed_ptr) != 0, 8, 0)
    halves = program * (BLOCK // 2) + tl.arange(0, BLOCK // 2)
    pair = tl.load(packed_ptr + halves, mask=halves < pairs, other=0).to(tl.int32)
    nibbles = tl.interleave(pair & 15, pair >> 4) ^ flip
    codes = (nibbles | _MAGIC_BITS).to(tl.float32, bitcast=True) - (flip.to(tl.float32) + _MAGIC)
    places = program * BLOCK + tl.arange(0, BLOCK)
    tl.store(codes_ptr + places, codes.to(codes_ptr.dtype.element_ty), mask=places < count)


@triton.jit
def _relu_kernel(x_ptr, value_ptr, bits_ptr, count, eighths, BLOCK: tl.constexpr):
    bytes_ = tl.program_id(0).to(tl.int64) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
    lanes = tl.arange(0, 8)[None, :]
    places = bytes_[:, None] * 8 + lanes
    inside = places < count
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    # NaN stays NaN
    tl.store(value_ptr + places, tl.where(x <= 0, 0.0, x).to(value_ptr.dtype.element_ty), mask=inside)
    bits = tl.sum((x > 0).to(tl.int32) << lanes, axis=1)
    tl.store(bits_ptr + bytes_, bits.to(tl.uint8), mask=bytes_ < eighths)


@triton.jit
def _relu_backward_kernel(grad_ptr, bits_ptr, result_ptr, count, eighths, BLOCK: tl.constexpr):
    bytes_ = tl.program_id(0).to(tl.int64) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
    lanes = tl.arange(0, 8)[None, :]
    places = bytes_[:, None] * 8 + lanes
    inside = places < count
    bits = tl.load(bits_ptr + bytes_, mask=bytes_ < eighths, other=0).to(tl.int32)
    grad = tl.load(grad_ptr + places, mask=inside, other=0.0)
    # a product would turn infinity times 0 into NaN
    result = tl.where(((bits[:, None] >> lanes) & 1) != 0, grad, tl.zeros(grad.shape, grad.dtype))
    tl.store(result_ptr + places, result, mask=inside)


@on_its_gpu
def int4_scale(x: Tensor, coeffs: tuple[float, float] | None, signed: bool | None) -> tuple[Tensor, Tensor]:
    """Width of a level, 0-d float32, and whether there are signs, 0-d bool, of a contiguous tensor with entries.

    The clip is that of SAWB with these coefficients, or without them the largest magnitude; `signed` is looked up
    if it is None.
    """
    blocks = triton.cdiv(x.numel(), _BLOCK)
    programs = min(blocks, _PROGRAMS)
    found = torch.empty((4, programs), dtype=torch.int32, device=x.device)
    _statistics_kernel[(programs,)](x, found, x.numel(), triton.cdiv(blocks, programs), programs, BLOCK=_BLOCK)
    scale = torch.empty((), dtype=torch.float32, device=x.device)
    sign = torch.empty((), dtype=torch.uint8, device=x.device)
    c1, c2 = coeffs or (0.0, 0.0)
    _scale_kernel[(1,)](
        found,
        scale,
        sign,
        programs,
        x.numel(),
        SAWB=coeffs is not None,
        C1=c1,
        C2=c2,
        SIGN="found" if signed is None else "signed" if signed else "unsigned",
        PROGRAMS=_PROGRAMS,
    )
    return scale, sign.view(torch.bool)


@on_its_gpu
def int4_codes(
    x: Tensor, scale: Tensor, signed: Tensor, dtype: torch.dtype, *, packs: bool
) -> tuple[Tensor, Tensor | None]:
    """Codes of a contiguous tensor as numbers of its shape, and two in a byte if asked for."""
    count = x.numel()
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    packed = torch.empty((count + 1) // 2, dtype=torch.uint8, device=x.device) if packs else None
    pointer = codes if packed is None else packed
    grid = (triton.cdiv(count, _BLOCK),)
    sign = signed.view(torch.uint8)
    _codes_kernel[grid](x, scale, sign, codes, pointer, count, (count + 1) // 2, PACKS=packs, BLOCK=_BLOCK)
    return codes, packed


@on_its_gpu
def int4_numbers(packed: Tensor, shape: tuple[int, ...], signed: Tensor, dtype: torch.dtype) -> Tensor:
    """Packed codes as numbers again, of a shape with entries."""
    codes = torch.empty(shape, dtype=dtype, device=packed.device)
    grid = (triton.cdiv(codes.numel(), _BLOCK),)
    sign = signed.view(torch.uint8)
    _numbers_kernel[grid](packed, sign, codes, codes.numel(), packed.numel(), BLOCK=_BLOCK)
    return codes


@on_its_gpu
def relu(x: Tensor) -> tuple[Tensor, Tensor]:
    """The positive part of a contiguous tensor with entries, and which entries are positive, eight in a byte."""
    value = torch.empty_like(x)
    bits = torch.empty((x.numel() + 7) // 8, dtype=torch.uint8, device=x.device)
    _relu_kernel[(triton.cdiv(x.numel(), _BLOCK),)](x, value, bits, x.numel(), bits.numel(), BLOCK=_BLOCK)
    return value, bits


@on_its_gpu
def relu_backward(grad: Tensor, bits: Tensor) -> Tensor:
    """A contiguous gradient with entries where the bits are set, otherwise 0."""
    result = torch.empty_like(grad)
    grid = (triton.cdiv(grad.numel(), _BLOCK),)
    _relu_backward_kernel[grid](grad, bits, result, grad.numel(), bits.numel(), BLOCK=_BLOCK)
    return result
