"""Transposable masks, against trying all 0/1 tiles one by one."""

from itertools import product

import pytest
import torch

from lib.sparsity import is_nm_sparse, transposable_mask


def best_by_hand(tile: torch.Tensor) -> float:
    """The largest sum over rows of two, columns of two."""
    rows = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    sizes = tile.abs().tolist()
    found = 0.0
    for chosen in product(rows, repeat=4):
        if all(sum(column in row for row in chosen) == 2 for column in range(4)):
            found = max(found, sum(sizes[i][j] for i, row in enumerate(chosen) for j in row))
    return found


def test_best_of_all_tiles_one_by_one() -> None:
    w = torch.randn(8, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = transposable_mask(w)
    for i, j in product(range(0, 8, 4), range(0, 20, 4)):
        tile = w[i : i + 4, j : j + 4]
        kept = float(tile.abs()[mask[i : i + 4, j : j + 4]].sum())
        assert kept == pytest.approx(best_by_hand(tile), rel=1e-12)


def test_equal_tiles_get_equal_masks() -> None:
    """Wherever a tile stands, also with ties."""
    for tile in (torch.ones(4, 4), torch.randn(4, 4, generator=torch.Generator().manual_seed(1))):
        mask = transposable_mask(tile.repeat(65, 33))
        assert torch.equal(mask, mask[:4, :4].repeat(65, 33))
        assert is_nm_sparse(mask.float(), 2, 4, 0)
        assert is_nm_sparse(mask.float(), 2, 4, 1)
    assert transposable_mask(torch.zeros(0, 8)).shape == (0, 8)


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"both sizes of w must be multiples of 4; its shape is \(4, 6\)"):
        transposable_mask(torch.zeros(4, 6))
    with pytest.raises(ValueError, match=r"n and m must be 2 and 4; they are 4 and 8"):
        transposable_mask(torch.zeros(8, 8), 4, 8)
