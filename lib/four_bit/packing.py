"""Two codes in a byte, eight signs in a byte: what a layer keeps for backward."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["pack_bits", "pack_nibbles", "unpack_bits", "unpack_nibbles"]


def pack_nibbles(codes: Tensor, *, check: bool = True) -> Tensor:
    """Pack integer codes of 4 bits, the low half of a byte first.

    Parameters
    ----------
    codes
        Integers from 0 to 15, or from -8 to 7, of any shape.
    check
        Whether to look that they are; off in hot loops.

    Returns
    -------
    uint8 tensor of ceil(n / 2)

    Examples
    --------
    >>> pack_nibbles(torch.tensor([1, 2, -1]))
    tensor([33, 15], dtype=torch.uint8)
    """
    if codes.is_floating_point() or codes.dtype == torch.bool:
        raise TypeError(f"codes must hold integers; their dtype is {codes.dtype}")
    if check and codes.numel() and not -8 <= int(codes.min()) <= int(codes.max()) <= 15:
        raise ValueError(f"codes must fit in 4 bits; they run from {int(codes.min())} to {int(codes.max())}")
    flat = codes.reshape(-1).to(torch.uint8) & 15
    if flat.numel() % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    return flat[0::2] | (flat[1::2] << 4)


def unpack_nibbles(packed: Tensor, shape: tuple[int, ...] | torch.Size, signed: bool | Tensor = False) -> Tensor:
    """Undo `pack_nibbles`: uint8 codes from 0 to 15, or int8 from -8 to 7 where `signed`.

    A 0-d boolean tensor decides on its device; then the codes are int8 in both cases.

    Examples
    --------
    >>> unpack_nibbles(torch.tensor([33, 15], dtype=torch.uint8), (3,), signed=True)
    tensor([ 1,  2, -1], dtype=torch.int8)
    """
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.numel() != (count + 1) // 2:
        raise ValueError(f"packed must hold {(count + 1) // 2} bytes; it is {packed.dtype}, {tuple(packed.shape)}")
    pairs = torch.stack([packed & 15, packed >> 4], dim=-1)
    flat = pairs.reshape(-1)[:count]
    if isinstance(signed, Tensor):
        flat = flat.to(torch.int8) - ((flat & 8) * signed).to(torch.int8) * 2
    elif signed:
        # the fourth bit counts -8
        flat = (flat.to(torch.int8) ^ 8) - 8
    return flat.reshape(shape)


def pack_bits(mask: Tensor) -> Tensor:
    """Pack a boolean mask, eight entries a byte, the lowest bit first.

    Examples
    --------
    >>> pack_bits(torch.tensor([True, False, True]))
    tensor([5], dtype=torch.uint8)
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean; its dtype is {mask.dtype}")
    flat = mask.reshape(-1).to(torch.uint8)
    if flat.numel() % 8:
        flat = torch.cat([flat, flat.new_zeros(8 - flat.numel() % 8)])
    places = torch.arange(8, dtype=torch.uint8, device=flat.device)
    return (flat.reshape(-1, 8) << places).sum(dim=1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Undo `pack_bits`.

    Examples
    --------
    >>> unpack_bits(torch.tensor([5], dtype=torch.uint8), (3,))
    tensor([ True, False,  True])
    """
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.numel() != (count + 7) // 8:
        raise ValueError(f"packed must hold {(count + 7) // 8} bytes; it is {packed.dtype}, {tuple(packed.shape)}")
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = (packed.reshape(-1, 1) >> places) & 1
    return bits.reshape(-1)[:count].reshape(shape).bool()
