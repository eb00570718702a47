"""N:M blocks: of every M consecutive entries along one dimension at most N are kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.validation import finite_tensor, floating_tensor, positive_integer

__all__ = ["as_blocks", "checked_dim", "checked_pattern", "in_place_of", "is_nm_sparse"]


def checked_pattern(n: int, m: int) -> tuple[int, int]:
    """Return N and M if at least one entry of a block can be dropped."""
    n, m = positive_integer("n", n), positive_integer("m", m)
    if n >= m:
        raise ValueError(f"n must be less than m, the length of a block; they are {n} and {m}")
    return n, m


def checked_dim(x: Tensor, m: int, dim: int) -> int:
    """Return a dimension, counted from 0, if it can be cut into blocks of `m`."""
    if not isinstance(dim, (int, np.integer)) or isinstance(dim, bool):
        raise TypeError(f"dim must be an integer; it is {dim!r}")
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim must be a dimension of x, which has {x.ndim}; it is {dim}")
    if x.shape[dim] % m:
        raise ValueError(f"the size of x along dim must be a multiple of m = {m}; it is {x.shape[dim]}")
    return int(dim) % x.ndim


def computed_in(x: Tensor) -> torch.dtype:
    """The dtype of all that is computed: float64 for float64, otherwise float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def as_blocks(x: Tensor, m: int, dim: int, *, check: bool = True) -> Tensor:
    """The blocks of a tensor as (*rest, size / m, m): `dim` is moved last and cut. A view where that is possible."""
    if check:
        finite_tensor("x", x)
    else:
        floating_tensor("x", x)
    dim = checked_dim(x, m, dim)
    last = x.detach().movedim(dim, -1)
    return last.reshape(*last.shape[:-1], last.shape[-1] // m, m)


def in_place_of(blocks: Tensor, dim: int) -> Tensor:
    """Undo `as_blocks`; contiguous."""
    return blocks.flatten(-2).movedim(-1, dim).contiguous()


def is_nm_sparse(x: Tensor, n: int, m: int, dim: int = -1) -> bool:
    """Whether no block of `m` along `dim` has more than `n` entries other than 0.

    Examples:
        >>> x = torch.tensor([[1.0, 0.0, 2.0, 0.0]])
        >>> is_nm_sparse(x, 2, 4), is_nm_sparse(x, 1, 4)
        (True, False)
    """
    n, m = checked_pattern(n, m)
    return not bool((as_blocks(x, m, dim, check=False).count_nonzero(-1) > n).any())
