"""Two codes in a byte, eight signs in a byte: what a layer keeps for backward."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.counter import checked_sizes
from lib.validation import instance_of, true_or_false

__all__ = ["pack_bits", "pack_nibbles", "unpack_bits", "unpack_nibbles"]


def integer_tensor(name: str, value: Tensor, low: int | None = None, high: int | None = None) -> Tensor:
    """Return `value` if it is a tensor of integers, and between two bounds where these are given."""
    instance_of(name, value, Tensor, "a tensor of integers")
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers; their dtype is {value.dtype}")
    if low is not None and high is not None and value.numel():
        least, most = int(value.min()), int(value.max())
        if least < low or most > high:
            raise ValueError(f"{name} must lie in {low} … {high}; they run from {least} to {most}")
    return value


def checked_bytes(packed: Tensor, count: int) -> None:
    instance_of("packed", packed, Tensor, "a tensor of bytes")
    if packed.dtype != torch.uint8 or packed.numel() != count:
        raise ValueError(f"packed must hold {count} bytes; it is {packed.dtype}, {tuple(packed.shape)}")


def pack_nibbles(codes: Tensor, *, check: bool = True) -> Tensor:
    """Pack integers from 0 to 15, or from -8 to 7, into uint8 of ceil(n / 2), the low half of a byte first.

    Args:
        check: Whether to look that they are so small; off in hot loops.

    Examples:
        >>> pack_nibbles(torch.tensor([1, 2, -1]))
        tensor([33, 15], dtype=torch.uint8)
    """
    integer_tensor("codes", codes, *((-8, 15) if check else ()))
    flat = codes.reshape(-1).to(torch.uint8) & 15
    if flat.numel() % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    return flat[0::2] | (flat[1::2] << 4)


def unpack_nibbles(packed: Tensor, shape: tuple[int, ...] | torch.Size, signed: bool | Tensor = False) -> Tensor:
    """Undo `pack_nibbles`: uint8 codes from 0 to 15, or int8 from -8 to 7 where `signed`.

    A 0-d boolean tensor decides on its device; then the codes are int8 in both cases.

    Examples:
        >>> unpack_nibbles(torch.tensor([33, 15], dtype=torch.uint8), (3,), signed=True)
        tensor([ 1,  2, -1], dtype=torch.int8)
    """
    sizes = checked_sizes(shape)
    count = math.prod(sizes)
    checked_bytes(packed, (count + 1) // 2)
    pairs = torch.stack([packed & 15, packed >> 4], dim=-1)
    flat = pairs.reshape(-1)[:count]
    if isinstance(signed, Tensor):
        if signed.dtype != torch.bool or signed.ndim:
            raise ValueError(f"signed must be True, False or a 0-d boolean tensor; it is {signed!r}")
        flat = flat.to(torch.int8) - ((flat & 8) * signed).to(torch.int8) * 2
    elif true_or_false("signed", signed):
        # the fourth bit counts -8
        flat = (flat.to(torch.int8) ^ 8) - 8
    return flat.reshape(sizes)


def pack_bits(mask: Tensor) -> Tensor:
    """Pack a boolean mask, eight entries per byte, the lowest bit first.

    Examples:
        >>> pack_bits(torch.tensor([True, False, True]))
        tensor([5], dtype=torch.uint8)
    """
    if instance_of("mask", mask, Tensor, "a boolean tensor").dtype != torch.bool:
        raise TypeError(f"mask must be boolean; its dtype is {mask.dtype}")
    flat = mask.reshape(-1).to(torch.uint8)
    if flat.numel() % 8:
        flat = torch.cat([flat, flat.new_zeros(8 - flat.numel() % 8)])
    places = torch.arange(8, dtype=torch.uint8, device=flat.device)
    return (flat.reshape(-1, 8) << places).sum(dim=1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Undo `pack_bits`.

    Examples:
        >>> unpack_bits(torch.tensor([5], dtype=torch.uint8), (3,))
        tensor([ True, False,  True])
    """
    sizes = checked_sizes(shape)
    count = math.prod(sizes)
    checked_bytes(packed, (count + 7) // 8)
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = (packed.reshape(-1, 1) >> places) & 1
    return bits.reshape(-1)[:count].reshape(sizes).bool()
