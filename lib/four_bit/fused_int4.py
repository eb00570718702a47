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

from lib.four_bit.fused import Backend, _current, active_backend
from lib.four_bit.integers import SAWB, int4_encode
from lib.four_bit.packing import pack_bits, pack_nibbles, unpack_bits, unpack_nibbles

__all__ = ["PackedInt4", "int4_pack", "int4_unpack", "relu_grad", "relu_pack"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _kernels() -> Any:
    """The module of the kernels, which imports triton."""
    from lib.four_bit import int4_kernels

    return int4_kernels


def _real(name: str, x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor; it is {kind}")
    return x.detach()


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, _DTYPES))}; it is {dtype}")
    return dtype


@dataclass(frozen=True, eq=False, repr=False)
class PackedInt4:
    """A tensor in INT4, to compute with and to keep.

    Attributes
    ----------
    codes
        Integers as numbers of the dtype to compute in, of the tensor's shape. The values are `codes * scale`.
    packed
        The same as uint8 of ceil(n / 2), the first entry in the low half of a byte; None if it is not kept.
    scale
        Width of a level, 0-d float32; 0 if all entries are zero, not finite if one of them is not.
    signed
        Whether codes run from -7 to 7, not from 0 to 15: 0-d bool, on the tensor's device.
    shape
        Of the tensor.
    """

    codes: Tensor
    packed: Tensor | None
    scale: Tensor
    signed: Tensor
    shape: tuple[int, ...]

    def unpack(self, dtype: torch.dtype = torch.float32, backend: Backend = "auto") -> Tensor:
        """The codes as numbers, from the packed ones.

        Examples
        --------
        >>> int4_pack(torch.tensor([-7.0, 0.4, 3.6]), clip="max").unpack(torch.bfloat16)
        tensor([-7.,  0.,  4.], dtype=torch.bfloat16)
        """
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

    Parameters
    ----------
    x
        Floating-point tensor of any shape; more than float32 is rounded to that first.
    clip
        `"sawb"` or `"max"`, as for `int4_encode`.
    signed
        Whether codes have signs; None decides on the device, by whether an entry is negative.
    dtype
        Of the codes: float32, bfloat16 or float16, all exact.
    keep
        Whether to pack codes for backward, too.
    backend
        As for `active_backend`; `"compiled"` is eager here.

    Returns
    -------
    PackedInt4
        At the same scale all backends give the same bits. Scales differ by how the moments are summed: in the last
        digits of :math:`c_1\sqrt{E x^2}`, for SAWB, and not at all for the largest magnitude.

    Raises
    ------
    TypeError
        If `x` is no floating-point tensor.
    ValueError
        If `clip` or `dtype` is another one, or the backend cannot run here.

    Examples
    --------
    >>> operand = int4_pack(torch.tensor([-7.0, 0.4, 3.6]), clip="max")
    >>> operand
    PackedInt4(shape=(3,), dtype=torch.float32, kept=True)
    >>> operand.codes, operand.packed, operand.scale.item()
    (tensor([-7.,  0.,  4.]), tensor([9, 4], dtype=torch.uint8), 1.0)
    >>> int4_pack(torch.tensor([0.0, 0.5, 3.0]), clip="max").codes
    tensor([ 0.,  2., 15.])
    """
    values = _real("x", x)
    if clip not in ("sawb", "max"):
        raise ValueError(f"clip must be sawb or max; it is {clip!r}")
    _compute_dtype(dtype)
    way = active_backend(x.device, backend)
    shape = tuple(x.shape)
    if values.dtype not in _DTYPES:
        values = values.to(torch.float32)
    values = values.contiguous()
    if way == "triton" and values.numel():
        with _current(values):
            scale, sign = _kernels().int4_scale(values, SAWB if clip == "sawb" else None, signed)
            codes, packed = _kernels().int4_codes(values, scale, sign, dtype, packs=keep)
        return PackedInt4(codes, packed, scale, sign, shape)
    sign = (values < 0).any() if signed is None else torch.full((), signed, dtype=torch.bool, device=values.device)
    integers, scale = int4_encode(values, clip=clip, signed=sign, check=False)
    packed = pack_nibbles(integers, check=False) if keep else None
    return PackedInt4(integers.to(dtype), packed, scale, sign, shape)


def int4_unpack(
    packed: Tensor,
    shape: tuple[int, ...] | torch.Size,
    signed: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    backend: Backend = "auto",
) -> Tensor:
    """The codes of a `PackedInt4` as numbers, from what was kept of it.

    Parameters
    ----------
    packed, shape, signed
        As the attributes of a `PackedInt4`.
    dtype, backend
        As for `int4_pack`.

    Returns
    -------
    Tensor of that dtype and shape

    Raises
    ------
    ValueError
        If the bytes do not belong to the shape, or something else is not as above.

    Examples
    --------
    >>> int4_unpack(torch.tensor([9, 4], dtype=torch.uint8), (3,), torch.tensor(True))
    tensor([-7.,  0.,  4.])
    """
    _compute_dtype(dtype)
    if signed.dtype != torch.bool or signed.ndim:
        raise ValueError(f"signed must be a 0-d boolean tensor; it is {signed.dtype}, {tuple(signed.shape)}")
    count = math.prod(shape)
    if active_backend(packed.device, backend) != "triton" or not count:
        return unpack_nibbles(packed, shape, signed=signed).to(dtype)
    if packed.dtype != torch.uint8 or packed.numel() != (count + 1) // 2:
        raise ValueError(f"packed must hold {(count + 1) // 2} bytes; it is {packed.dtype}, {tuple(packed.shape)}")
    with _current(packed):
        codes: Tensor = _kernels().int4_numbers(packed.contiguous(), tuple(shape), signed, dtype)
    return codes


def relu_pack(x: Tensor, *, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """The positive part of a tensor, and one bit an entry for its gradient.

    Parameters
    ----------
    x
        Floating-point tensor of any shape; NaN stays NaN.
    backend
        As for `int4_pack`; what is more than float32 goes the eager way.

    Returns
    -------
    value
        Of the dtype and shape of `x`.
    bits
        Which entries are positive, as `pack_bits` lays them out.

    Examples
    --------
    >>> relu_pack(torch.tensor([-1.0, 2.0, 3.0]))
    (tensor([0., 2., 3.]), tensor([6], dtype=torch.uint8))
    """
    values = _real("x", x)
    if active_backend(x.device, backend) == "triton" and values.numel() and values.dtype in _DTYPES:
        with _current(values):
            value, bits = _kernels().relu(values.contiguous())
        return value, bits
    return values.clamp(min=0), pack_bits(values > 0)


def relu_grad(grad: Tensor, bits: Tensor, *, backend: Backend = "auto") -> Tensor:
    """The gradient where an entry was positive, and otherwise 0, also where the gradient is not finite.

    Parameters
    ----------
    grad
        Of the outputs of `relu_pack`.
    bits
        From there.
    backend
        As for `relu_pack`.

    Returns
    -------
    Tensor of the dtype and shape of `grad`

    Raises
    ------
    ValueError
        If there are not as many bits as entries.

    Examples
    --------
    >>> relu_grad(torch.tensor([float("inf"), 1.0, 2.0]), torch.tensor([6], dtype=torch.uint8))
    tensor([0., 1., 2.])
    """
    values = _real("grad", grad)
    if active_backend(grad.device, backend) != "triton" or not values.numel() or values.dtype not in _DTYPES:
        return torch.where(unpack_bits(bits, values.shape), values, 0)
    eighths = (values.numel() + 7) // 8
    if bits.dtype != torch.uint8 or bits.numel() != eighths:
        raise ValueError(f"packed must hold {eighths} bytes; it is {bits.dtype}, {tuple(bits.shape)}")
    with _current(values):
        result: Tensor = _kernels().relu_backward(values.contiguous(), bits.contiguous())
    return result
