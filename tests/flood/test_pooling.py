"""Fixed poolings, against NumPy and loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.flood.pooling import blocks, pool_dem

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


def test_the_median_of_an_even_block_is_not_torchs():
    z = torch.tensor([[0.0, 1.0], [2.0, 10.0]])
    assert pool_dem(z, 2, "median").item() == 1.5
    assert z.median().item() == 1.0


@pytest.mark.parametrize(("factor", "cell"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_nearest_takes_the_cell_at_the_centre(factor, cell):
    z = draw(2 * factor, 3 * factor)
    assert torch.equal(pool_dem(z, factor, "nearest"), z[cell::factor, cell::factor])


def test_mean_pooling_conserves_volume():
    h = draw(3, 32, 48).abs()
    coarse = pool_dem(h, 8)
    torch.testing.assert_close(coarse.sum((-2, -1)) * 64, h.sum((-2, -1)), rtol=1e-14, atol=0)
    assert not torch.allclose(pool_dem(h, 8, "median").sum((-2, -1)) * 64, h.sum((-2, -1)), rtol=1e-3)


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


def test_the_edge_preserving_filter_keeps_a_step_and_smooths_a_ripple():
    step = torch.zeros(4, 8, dtype=torch.float64)
    step[:, 4:] = 30.0
    torch.testing.assert_close(pool_dem(step, 1, "bilateral"), step, rtol=0, atol=1e-12)
    ripple = 0.1 * (-1.0) ** torch.arange(8.0, dtype=torch.float64).expand(4, 8)
    assert pool_dem(ripple, 1, "bilateral")[:, 1:-1].abs().max() < 0.05


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


@pytest.mark.parametrize(
    ("z", "factor", "how", "error", "message"),
    [
        (
            torch.zeros(4, 6),
            4,
            "mean",
            ValueError,
            "multiples of the factor 4; this map has 4 x 6 cells: crop it to 4 x 4",
        ),
        (torch.zeros(4, 4), 0, "mean", ValueError, "factor must be at least 1"),
        (torch.zeros(4), 2, "mean", ValueError, "at least two axes"),
        (torch.zeros(0, 4), 2, "mean", ValueError, "at least two axes"),
        (torch.zeros(4, 4, dtype=torch.int64), 2, "mean", TypeError, "floating-point"),
    ],
)
def test_bad_maps_are_refused(z, factor, how, error, message):
    with pytest.raises(error, match=message):
        pool_dem(z, factor, how)


@pytest.mark.parametrize("how", ["mean", "max", "min", "median", "nearest", "bilateral"])
@pytest.mark.parametrize("factor", [1, 2])
def test_a_coarse_map_shares_no_memory_with_the_fine_one(how, factor):
    z = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    before = z.clone()
    pool_dem(z, factor, how).fill_(7.0)
    assert torch.equal(z, before)


def test_blocks_are_where_they_were():
    z = torch.arange(24.0).reshape(4, 6)
    assert torch.equal(blocks(z, 2)[1, 2], z[2:4, 4:6])
