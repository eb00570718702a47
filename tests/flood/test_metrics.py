"""Scores and loss, against scikit-learn and sums by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score, r2_score

from lib.flood.metrics import downsample_loss, flood_metrics
from lib.flood.pooling import pool_dem
from tests.flood.test_pooling import draw


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
    h = draw(8, 8).abs().requires_grad_()
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


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_losses_by_hand(beta):
    h_fine, h_coarse = draw(3, 8, 8).abs(), draw(3, 2, 2, seed=1).abs()
    error = (h_coarse - pool_dem(h_fine, 4)).abs()
    assert downsample_loss(h_coarse, h_fine, 4).item() == pytest.approx(error.square().mean().item())
    huber = torch.where(error < beta, error.square() / (2 * beta), error - beta / 2).mean()
    assert downsample_loss(h_coarse, h_fine, 4, "huber", beta).item() == pytest.approx(huber.item())


def test_nan_in_a_depth_is_not_hidden():
    assert downsample_loss(torch.full((1, 1), math.nan), torch.zeros(2, 2), 2).isnan()


def test_maps_that_do_not_fit_are_refused():
    dry = torch.zeros(4, 4)
    with pytest.raises(ValueError, match="one shape"):
        flood_metrics(dry, torch.zeros(1, 4))
    with pytest.raises(ValueError, match="must differ"):
        flood_metrics(dry, dry, (0.1, 0.1))
    for shape in ((1, 2, 2), (1, 1)):
        with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
            downsample_loss(torch.zeros(shape), dry, 2)
