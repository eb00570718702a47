"""INT4 operands and the ReLU of a 4-bit layer, in as few passes over memory as there are: eager torch, or Triton.

`int4_encode` is the definition. On a GPU the kernels read a tensor once for its scale and once for its codes, which
they write both as numbers, for the product, and as half a byte each, for backward. Nothing here waits for a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lib.four_bit.fused import Backend, active_backend
from lib.four_bit.integers import SAWB, int4_encode
from lib.four_bit.packing import checked_bytes, pack_bits, pack_nibbles, unpack_bits, unpack_nibbles
from lib.validation import floating_tensor, one_of

__all__ = ["PackedInt4", "int4_pack", "int4_unpack", "relu_grad", "relu_pack"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _kernels() -> Any:
    # imports triton
    from lib.four_bit import int4_kernels

    return int4_kernels


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, _DTYPES))}; it is {dtype}")
    return dtype


@dataclass(frozen=True, eq=False, repr=False)
class PackedInt4:
    """A tensor in INT4, to compute with and to keep.

    Attributes:
        codes: Integers as numbers of the dtype to compute in, of the tensor's shape. The values are `codes * scale`.
        packed: The same as uint8 of ceil(n / 2), the first entry in the low half of a byte; None if it is not kept.
        scale: Width of a level, 0-d float32; 0 if all entries are zero, not finite if one of them is not.
        signed: Whether codes run from -7 to 7, not from 0 to 15: 0-d bool, on the tensor's device.
    """

    codes: Tensor
    packed: Tensor | None
    scale: Tensor
    signed: Tensor
    shape: tuple[int, ...]

    def unpack(self, dtype: torch.dtype = torch.float32, backend: Backend = "auto") -> Tensor:
        """The codes as numbers, from the packed ones."""
        if self.packed is None:
            raise ValueError("there is nothing to unpack: it was made with keep=False")
        return int4_unpack(self.packed, self.shape, self.signed, dtype=dtype, backend=backend)

    def __repr__(self) -> str:
        return f"PackedInt4(shape={self.shape}, dtype={self.codes.dtype}, kept={self.packed is not None})"


def int4_pack(
    x: Tensor,
    *,
    clip: Literal["sawb", "max"] = "sawb",
    signed: bool | None = None,
    dtype: torch.dtype = torch.float32,
    keep: bool = True,
    backend: Backend = "auto",
) -> PackedInt4:
    r"""Quantise to 15 levels -7 … 7, or to 16 levels 0 … 15 where there are no negative numbers; round to nearest.

    At the same scale all backends give the same bits. Scales differ by how the moments are summed: in the last digits
    of :math:`c_1\sqrt{E x^2}`, for SAWB, and not at all for the largest magnitude.

    Args:
        x: Floating-point tensor of any shape; more than float32 is rounded to that first.
        signed: Whether codes have signs; None decides on the device, by whether an entry is negative.
        dtype: Of the codes: float32, bfloat16 or float16, all exact.
        keep: Whether to pack codes for backward, too.
        backend: A request to `active_backend`.

    Examples:
        >>> int4_pack(torch.tensor([0.0, 2.0, 15.0]), clip="max").codes
        tensor([ 0.,  2., 15.])
    """
    values = floating_tensor("x", x).detach()
    one_of("clip", clip, ("sawb", "max"))
    _compute_dtype(dtype)
    way = active_backend(x.device, backend)
    if values.dtype not in _DTYPES:
        values = values.to(torch.float32)
    values = values.contiguous()
    if way == "triton" and values.numel():
        scale, sign = _kernels().int4_scale(values, SAWB if clip == "sawb" else None, signed)
        codes, packed = _kernels().int4_codes(values, scale, sign, dtype, packs=keep)
        return PackedInt4(codes, packed, scale, sign, tuple(x.shape))
    return int4_operand(values, clip=clip, signed=signed, dtype=dtype, keep=keep)


def int4_operand(x: Tensor, *, signed: bool | None, dtype: torch.dtype, keep: bool, **options: Any) -> PackedInt4:
    """What `int4_encode` with these options gives, eager."""
    sign = (x < 0).any() if signed is None else torch.full((), signed, dtype=torch.bool, device=x.device)
    integers, scale = int4_encode(x, signed=sign, check=False, **options)
    packed = pack_nibbles(integers, check=False) if keep else None
    return PackedInt4(integers.to(dtype), packed, scale, sign, tuple(x.shape))


def int4_unpack(
    packed: Tensor,
    shape: tuple[int, ...] | torch.Size,
    signed: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    backend: Backend = "auto",
) -> Tensor:
    """The codes of a `PackedInt4` as numbers of a dtype, from its attributes.

    Examples:
        >>> int4_unpack(torch.tensor([9, 4], dtype=torch.uint8), (3,), torch.tensor(True))
        tensor([-7.,  0.,  4.])
    """
    _compute_dtype(dtype)
    if signed.dtype != torch.bool or signed.ndim:
        raise ValueError(f"signed must be a 0-d boolean tensor; it is {signed.dtype}, {tuple(signed.shape)}")
    count = math.prod(shape)
    if active_backend(packed.device, backend) != "triton" or not count:
        return unpack_nibbles(packed, shape, signed=signed).to(dtype)
    checked_bytes(packed, (count + 1) // 2)
    codes: Tensor = _kernels().int4_numbers(packed.contiguous(), tuple(shape), signed, dtype)
    return codes


def relu_pack(x: Tensor, *, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """The positive part of a tensor, where NaN stays NaN, and one bit per entry for its gradient (of `pack_bits`).

    What is more than float32 goes the eager way.

    Examples:
        >>> relu_pack(torch.tensor([-1.0, 2.0, 3.0]))
        (tensor([0., 2., 3.]), tensor([6], dtype=torch.uint8))
    """
    values = floating_tensor("x", x).detach()
    if active_backend(x.device, backend) == "triton" and values.numel() and values.dtype in _DTYPES:
        found: tuple[Tensor, Tensor] = _kernels().relu(values.contiguous())
        return found
    return values.clamp(min=0), pack_bits(values > 0)


def relu_grad(grad: Tensor, bits: Tensor, *, backend: Backend = "auto") -> Tensor:
    """The gradient where the bits of `relu_pack` are set, and otherwise 0, also where the gradient is not finite.

    Examples:
        >>> relu_grad(torch.tensor([float("inf"), 1.0, 2.0]), torch.tensor([6], dtype=torch.uint8))
        tensor([0., 1., 2.])
    """
    values = floating_tensor("grad", grad).detach()
    if active_backend(grad.device, backend) != "triton" or not values.numel() or values.dtype not in _DTYPES:
        return torch.where(unpack_bits(bits, values.shape), values, 0)
    checked_bytes(bits, (values.numel() + 7) // 8)
    result: Tensor = _kernels().relu_backward(values.contiguous(), bits.contiguous())
    return result
