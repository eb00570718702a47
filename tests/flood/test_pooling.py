"""Fixed poolings, against NumPy and loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.flood.pooling import pool_dem

RULES = ("mean", "max", "min", "median", "nearest", "bilateral")


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("how", "reference"), [(name, getattr(np, name)) for name in ("mean", "max", "min", "median")])
@given(rows=st.integers(1, 3), columns=st.integers(1, 3), factor=st.integers(1, 5), seed=st.integers(0, 99))
def test_each_block_has_numpys_value(how, reference, *, rows, columns, factor, seed):
    z = draw(2, rows * factor, columns * factor, seed=seed)
    found = pool_dem(z, factor, how)
    assert found.shape == (2, rows, columns)
    for b, i, j in np.ndindex(found.shape):
        block = z[b, i * factor : (i + 1) * factor, j * factor : (j + 1) * factor].numpy()
        assert found[b, i, j].item() == pytest.approx(reference(block), abs=1e-14)


@pytest.mark.parametrize(("factor", "cell"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_nearest_takes_the_cell_at_the_centre(factor, cell):
    z = draw(2 * factor, 3 * factor)
    assert torch.equal(pool_dem(z, factor, "nearest"), z[cell::factor, cell::factor])


def test_the_edge_preserving_filter_against_loops():
    z = draw(2, 6, 8) * 3
    padded = np.pad(z.numpy(), ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth = np.empty(z.shape)
    for b, i, j in np.ndindex(*z.shape):
        window = padded[b, i : i + 3, j : j + 3]
        rows, columns = np.indices((3, 3)) - 1
        weight = np.exp(-((window - window[1, 1]) ** 2) / (2 * 2.0**2) - (rows**2 + columns**2) / (2 * 50.0**2))
        smooth[b, i, j] = (weight * window).sum() / weight.sum()
    torch.testing.assert_close(pool_dem(z, 2, "bilateral"), pool_dem(torch.from_numpy(smooth), 2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("how", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_axes_type_and_datum(how, dtype):
    z = draw(2, 3, 8, 12, dtype=dtype)
    found = pool_dem(z, 4, how)
    assert found.shape == (2, 3, 2, 3)
    assert found.dtype == dtype
    torch.testing.assert_close(found[1, 2], pool_dem(z[1, 2], 4, how))
    torch.testing.assert_close(pool_dem(z + 4, 4, how), found + 4)
    torch.testing.assert_close(
        pool_dem(torch.full((4, 4), 0.3, dtype=dtype), 4, how), torch.tensor([[0.3]], dtype=dtype)
    )


@pytest.mark.parametrize("how", RULES)
def test_gradients_against_finite_differences(how):
    z = draw(1, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda map_: pool_dem(map_, 2, how), (z,))
    # a datum shift moves every coarse cell by itself: the weights of a block add up to one
    (grad,) = torch.autograd.grad(pool_dem(z, 2, how).sum(), z)
    assert grad.sum().item() == pytest.approx(6.0)


def test_bad_maps_are_refused():
    with pytest.raises(ValueError, match="multiples of the factor 4; this map has 4 x 6 cells: crop it to 4 x 4"):
        pool_dem(torch.zeros(4, 6), 4)
    for z in (torch.zeros(4), torch.zeros(0, 4)):
        with pytest.raises(ValueError, match="at least two axes"):
            pool_dem(z, 2)


@pytest.mark.parametrize("how", RULES)
@pytest.mark.parametrize("factor", [1, 2])
def test_a_coarse_map_shares_no_memory_with_the_fine_one(how, factor):
    z = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    before = z.clone()
    pool_dem(z, factor, how).fill_(7.0)
    assert torch.equal(z, before)
