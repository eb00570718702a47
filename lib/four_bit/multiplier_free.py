"""INT4 times FP4 without a multiplier (MF-BPROP, Section 7 of Chmiel et al., arXiv 2112.10769).

One factor is an integer, the other a signed power of two: the product is a shift of the magnitude and an
exclusive or of the signs, exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.four_bit.packing import integer_tensor

__all__ = ["mf_matmul", "mf_product"]

_PART = 1 << 22  # products that are held at a time
_DEEPEST = (2**31 - 1) // 512  # terms that an int32 can add: each is at most 8 * 64


def mf_product(int4: Tensor, fp4_codes: Tensor) -> Tensor:
    """Products of integers, -8 to 7, and powers of two, given by their codes, in units of alpha times the scale, int32.

    Examples:
        >>> mf_product(torch.tensor([-3, 5]), torch.tensor([3, 8 + 7]))  # -3 * 4, 5 * -64
        tensor([ -12, -320], dtype=torch.int32)
    """
    integer_tensor("int4", int4, -8, 7)
    integer_tensor("fp4_codes", fp4_codes, 0, 15)
    if any(a != b and 1 not in (a, b) for a, b in zip(int4.shape[::-1], fp4_codes.shape[::-1], strict=False)):
        shapes = f"{tuple(int4.shape)}, {tuple(fp4_codes.shape)}"
        raise ValueError(f"int4 and fp4_codes must have shapes that broadcast; they have {shapes}")
    w, codes = int4.to(torch.int32), fp4_codes.to(torch.int32)
    below_zero = w >> 31  # all ones for a negative integer
    magnitude = (w ^ below_zero) - below_zero
    k = codes & 7
    shifted = (magnitude << k) >> 1  # one too far and back: k = 0 stands for zero, not for a half
    shifted = shifted & -(k > 0).to(torch.int32)
    negative = below_zero ^ -(codes >> 3)
    return (shifted ^ negative) - negative


def mf_matmul(int4: Tensor, fp4_codes: Tensor) -> Tensor:
    """The matrix product of integers (m, k) and powers of two (k, n) by shifts and additions, (m, n) int32.

    Examples:
        >>> mf_matmul(torch.tensor([[1, -2]]), torch.tensor([[1], [2]]))  # 1 * 1 - 2 * 2
        tensor([[-3]], dtype=torch.int32)
    """
    integer_tensor("int4", int4)
    integer_tensor("fp4_codes", fp4_codes)
    if int4.ndim != 2 or fp4_codes.ndim != 2 or int4.shape[1] != fp4_codes.shape[0]:
        raise ValueError(
            f"int4 and fp4_codes must be matrices that fit; they are {tuple(int4.shape)}, {tuple(fp4_codes.shape)}"
        )
    if int4.shape[1] > _DEEPEST:
        raise ValueError(f"int4 must have at most {_DEEPEST} columns, or an int32 could overflow")
    (m, depth), n = int4.shape, fp4_codes.shape[1]
    total = torch.zeros((m, n), dtype=torch.int32, device=int4.device)
    width = max(1, _PART // max(1, m * n))
    for start in range(0, depth, width):
        left, right = int4[:, start : start + width], fp4_codes[start : start + width]
        total += mf_product(left[:, :, None], right[None]).sum(dim=1, dtype=torch.int32)
    return total
