"""Transposable 2:4 masks: two entries in every row and in every column of each 4 x 4 tile.

The masked weights then are 2:4 along both dimensions: in the forward product, and in the one that takes the gradient
back. There are 90 such patterns, and the best of them is found by trying all (Hubara et al., 2021).
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from lib.validation import finite_tensor, positive_integer

__all__ = ["patterns", "transposable_mask"]

#: So many tiles at a time are held against all patterns.
_TILES = 1 << 15


@cache
def patterns() -> Tensor:
    """All 4 x 4 patterns with two entries in each row and column, flat: (90, 16), float64.

    Examples:
        >>> patterns().shape
        torch.Size([90, 16])
    """
    rows = [[float(i in pair) for i in range(4)] for pair in combinations(range(4), 2)]
    tiles = np.array(list(product(rows, repeat=4)))
    return torch.from_numpy(tiles[(tiles.sum(axis=1) == 2).all(axis=1)].reshape(-1, 16))


def transposable_mask(w: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """The mask that keeps the largest sum of magnitudes with two of four in every row and column of each tile.

    Exact; of equal sums the first pattern is taken.

    Args:
        w: (rows, columns), both multiples of 4.
        n, m: 2 and 4: for longer blocks there are too many patterns to try.

    Returns:
        Boolean, of the shape of `w`.

    Examples:
        >>> mask = transposable_mask(torch.arange(16.0).view(4, 4))
        >>> mask.sum(0).tolist(), mask.sum(1).tolist()
        ([2, 2, 2, 2], [2, 2, 2, 2])
    """
    if (positive_integer("n", n), positive_integer("m", m)) != (2, 4):
        raise ValueError(f"n and m must be 2 and 4; they are {n} and {m}")
    rows, columns = finite_tensor("w", w, ndim=2).shape
    if rows % 4 or columns % 4:
        raise ValueError(f"both sizes of w must be multiples of 4; its shape is {tuple(w.shape)}")
    # float64 adds eight of these without rounding that could depend on the place of a tile
    tiles = w.detach().double().abs().view(rows // 4, 4, columns // 4, 4).transpose(1, 2).reshape(-1, 16)
    choices = patterns().to(w.device)
    best = [choices[(part @ choices.T).argmax(dim=1)] for part in torch.split(tiles, _TILES)]
    mask = torch.cat(best) if best else tiles
    return mask.view(rows // 4, columns // 4, 4, 4).transpose(1, 2).reshape(rows, columns) > 0
