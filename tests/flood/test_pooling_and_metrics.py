"""Fixed poolings, scores and loss, against NumPy, scikit-learn and sums by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score, r2_score

from lib.flood.metrics import downsample_loss, flood_metrics
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
        (torch.zeros(4, 4), 2.0, "mean", TypeError, "factor must be an integer"),
        (torch.zeros(4, 4), 2, "average", ValueError, "how must be one of mean, max"),
        (torch.zeros(4), 2, "mean", ValueError, "at least two axes"),
        (torch.zeros(0, 4), 2, "mean", ValueError, "at least two axes"),
        (torch.tensor([[math.nan, 1.0]]), 1, "mean", ValueError, "1 of its 2 entries"),
        (torch.zeros(4, 4, dtype=torch.int64), 2, "mean", TypeError, "floating-point"),
        (np.zeros((4, 4)), 2, "mean", TypeError, "ndarray"),
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


@pytest.mark.parametrize("thresholds", [None, "0.1", 0.1, [0.1, None], [[0.1]], [math.nan], [0.0]])
def test_bad_thresholds_are_refused(thresholds):
    with pytest.raises((TypeError, ValueError), match=r"^thresholds must"):
        flood_metrics(torch.ones(2, 2), torch.ones(2, 2), thresholds)


def test_blocks_are_where_they_were():
    z = torch.arange(24.0).reshape(4, 6)
    assert torch.equal(blocks(z, 2)[1, 2], z[2:4, 4:6])


def test_scores_against_scikit_learn():
    h_ref, h = draw(2, 8, 8).abs(), draw(2, 8, 8, seed=1).abs()
    scores = flood_metrics(h, h_ref, thresholds=(0.1, 0.5, 1.5))
    flat, truth = h.flatten().numpy(), h_ref.flatten().numpy()
    assert list(scores) == ["rmse", "mae", "bias", "nse", "csi_0.1", "csi_0.5", "csi_1.5"]
    assert scores["nse"] == pytest.approx(r2_score(truth, flat))
    for limit in (0.1, 0.5, 1.5):
        assert scores[f"csi_{limit}"] == pytest.approx(jaccard_score(truth > limit, flat > limit))
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((flat - truth) ** 2)))
    assert scores["mae"] == pytest.approx(np.mean(np.abs(flat - truth)))
    assert scores["bias"] == pytest.approx(np.mean(flat) - np.mean(truth))


def test_scores_of_the_truth_and_of_its_mean():
    h = draw(8, 8).abs()
    assert flood_metrics(h, h) == {"rmse": 0, "mae": 0, "bias": 0, "nse": 1, "csi_0.1": 1, "csi_0.3": 1}
    assert flood_metrics(h.mean().expand(8, 8), h)["nse"] == pytest.approx(0, abs=1e-12)


def test_csi_where_nothing_or_only_one_map_is_flooded():
    dry, wet = torch.zeros(4, 4), torch.full((4, 4), 0.2)
    none = flood_metrics(dry, dry)
    assert math.isnan(none["csi_0.1"])
    assert math.isnan(none["nse"])
    assert flood_metrics(wet, dry)["csi_0.1"] == 0
    assert flood_metrics(dry, wet)["csi_0.1"] == 0
    assert math.isnan(flood_metrics(wet, dry)["csi_0.3"])
    # a threshold itself is not above the threshold, in single precision too
    assert math.isnan(flood_metrics(torch.full((2, 2), 0.3), dry[:2, :2], (0.3,))["csi_0.3"])
    # 0.1 cannot be written in binary: the mean of equal depths is off by a bit, the spread still none
    assert math.isnan(flood_metrics(torch.zeros(7, 3), torch.full((7, 3), 0.1), ())["nse"])


def test_scores_carry_no_gradient_and_take_no_broadcast():
    h = draw(4, 4).abs().requires_grad_()
    assert all(isinstance(value, float) for value in flood_metrics(h, h).values())


@pytest.mark.parametrize(
    ("h", "h_ref", "thresholds", "error", "message"),
    [
        (torch.zeros(4, 4), torch.zeros(1, 4), (0.1,), ValueError, "one shape"),
        (torch.full((2, 2), math.inf), torch.zeros(2, 2), (0.1,), ValueError, "h must be finite"),
        (torch.zeros(2, 2), torch.full((2, 2), math.nan), (0.1,), ValueError, "h_ref must be finite"),
        (torch.zeros(2, 2), torch.zeros(2, 2), (0.0,), ValueError, "thresholds must be positive"),
        (torch.zeros(2, 2), torch.zeros(2, 2), (0.1, 0.1), ValueError, "must differ"),
        (torch.zeros(2, 2), torch.zeros(2, 2), ("deep",), TypeError, "thresholds must hold real numbers"),
        (np.zeros((2, 2)), torch.zeros(2, 2), (0.1,), TypeError, "h must be a floating-point tensor"),
    ],
)
def test_bad_depths_are_refused(h, h_ref, thresholds, error, message):
    with pytest.raises(error, match=message):
        flood_metrics(h, h_ref, thresholds)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_losses_by_hand(beta):
    h_fine, h_coarse = draw(3, 8, 8).abs(), draw(3, 2, 2, seed=1).abs()
    error = (h_coarse - pool_dem(h_fine, 4)).abs()
    assert downsample_loss(h_coarse, h_fine, 4).item() == pytest.approx(error.square().mean().item())
    huber = torch.where(error < beta, error.square() / (2 * beta), error - beta / 2).mean()
    assert downsample_loss(h_coarse, h_fine, 4, "huber", beta).item() == pytest.approx(huber.item())


def test_the_loss_has_its_gradient_at_the_coarse_depths():
    h_fine, h_coarse = draw(4, 4).abs(), draw(2, 2, seed=1).requires_grad_()
    (grad,) = torch.autograd.grad(downsample_loss(h_coarse, h_fine, 2), h_coarse)
    torch.testing.assert_close(grad, 2 * (h_coarse.detach() - pool_dem(h_fine, 2)) / 4)


def test_nan_in_a_depth_is_not_hidden():
    assert downsample_loss(torch.full((1, 1), math.nan), torch.zeros(2, 2), 2).isnan()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"h_coarse": torch.zeros(1, 2, 2)}, r"shape \(2, 2\)"),
        ({"h_coarse": torch.zeros(1, 1)}, r"shape \(2, 2\)"),
        ({"factor": 3}, "multiples of the factor"),
        ({"kind": "l1"}, "kind must be one of mse, huber"),
        ({"kind": "huber", "beta": 0.0}, "beta must be positive"),
        ({"kind": None}, "kind must be one of mse, huber"),
        ({"beta": "1"}, "beta must be a number"),
        ({"h_fine": None}, "h_fine must be a floating-point tensor"),
        ({"h_coarse": np.zeros((2, 2))}, "h_coarse must be a floating-point tensor"),
        ({"h_fine": torch.zeros(4)}, "h_fine must have at least two axes"),
        ({"factor": None}, "factor must be an integer"),
    ],
)
def test_bad_losses_are_refused(arguments, message):
    good = {"h_coarse": torch.zeros(2, 2), "h_fine": torch.zeros(4, 4), "factor": 2}
    with pytest.raises((TypeError, ValueError), match=message):
        downsample_loss(**good | arguments)
