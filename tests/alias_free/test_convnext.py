"""The network in its four versions, and what shifts do to it."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.alias_free import (
    ConvNeXt,
    crop_translate,
    equivariance_error,
    fourier_shift,
    shift_robustness,
    translate,
)

F64 = torch.float64


def network(mode: str = "afc", **options) -> ConvNeXt:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"depths": (1, 1, 1), "dims": (6, 8, 12), "layer_scale": 1.0, "init_std": None, "act_scale": 1.0}
        return ConvNeXt(mode=mode, **{**settings, **options}).eval()


def pictures(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64)


@pytest.mark.parametrize(("dtype", "bound"), [(F64, 1e-11), (torch.float32, 2e-5)])
def test_an_alias_free_network_is_invariant_before_any_training(dtype, bound) -> None:
    net, x = network().to(dtype), pictures(2, 1, 48, 48).to(dtype)
    plain = net(x)
    rng = np.random.default_rng(0)
    for shift in rng.uniform(-24, 24, (20, 2)).tolist():
        moved = net(fourier_shift(x, tuple(shift)))
        assert (moved - plain).abs().max() < bound * plain.abs().max()
    assert plain.std() > 1e-3


@pytest.mark.parametrize("mode", ["baseline", "blurpool", "aps"])
def test_the_others_are_not(mode) -> None:
    net, x = network(mode).double(), pictures(2, 1, 48, 48)
    plain, moved = net(x), net(fourier_shift(x, (0.7182, -2.236)))
    assert (moved - plain).abs().max() > 1e-3 * plain.abs().max()
    rolled = net(x.roll((1, 3), (-2, -1)))
    whole = float(((rolled - plain).abs().max() / plain.abs().max()).detach())
    assert (whole < 1e-11) == (mode == "aps")


def test_features_move_with_the_picture() -> None:
    net, x = network().double(), pictures(1, 1, 40, 24)
    assert equivariance_error(net.forward_features, x, (0.7182, -2.236), stride=8) < 1e-11
    assert equivariance_error(network("baseline").double().forward_features, x, (0.7182, -2.236), stride=8) > 1e-2


def test_any_size_and_the_same_keys() -> None:
    net = network()
    keys = list(net.state_dict())
    for size in ((48, 48), (16, 40), (24, 8)):
        assert net(pictures(1, 1, *size).float()).shape == (1, 10)
        assert list(net.state_dict()) == keys
    fresh = network()
    fresh.load_state_dict(net.state_dict())
    assert fresh.forward_features(pictures(1, 1, 24, 16).float()).shape == (1, 12, 3, 2)


def test_initial_weights() -> None:
    first, again, other = (ConvNeXt(generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    weight = first["stages.1.0.mlp.pwconv1.weight"]
    assert 0.015 < weight.std() < 0.02
    assert weight.abs().max() <= 0.04 + 1e-6
    assert (first["head.bias"] == 0).all()


@pytest.mark.parametrize("mode", ["baseline", "blurpool", "aps", "afc"])
def test_it_learns(mode) -> None:
    net = network(mode, depths=(1, 1), dims=(4, 8)).train()
    x, y = pictures(16, 1, 8, 8).float(), torch.arange(16) % 2
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(part.grad is not None and torch.isfinite(part.grad).all() for part in net.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvNeXt(mode="relu"), "mode must be one of baseline, blurpool, aps, afc; it is 'relu'"),
        (lambda: ConvNeXt(depths=(1,), dims=(4, 8)), "depths and dims must be as long as each other"),
        (lambda: ConvNeXt(depths=(0, 1)), "depths must be at least 1"),
        (lambda: ConvNeXt(init_std=0.0), "init_std must be positive"),
        (lambda: network()(torch.zeros(1, 1, 28, 28)), "H and W must be multiples of the total stride 8"),
        (lambda: network()(torch.zeros(1, 28, 28)), r"x must have the shape \(B, C, H, W\)"),
    ],
)
def test_bad_networks_are_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_translations() -> None:
    x = pictures(1, 2, 5, 6)
    assert torch.equal(translate(x, (2, -1)), x.roll((2, -1), (-2, -1)))
    assert torch.equal(translate(x, (0.5, 1)), fourier_shift(x, (0.5, 1)))
    zero = translate(x, (2, -1), "zero", fill=7.0)
    assert (zero[..., :2, :] == 7).all()
    assert (zero[..., -1] == 7).all()
    assert torch.equal(zero[..., 2:, :-1], x[..., :3, 1:])
    assert torch.equal(translate(x, (2, -1), "bilinear", fill=7.0), zero)
    assert (translate(x, (9, 0), "zero", fill=3.0) == 3).all()
    half = translate(x, (0, 0.25), "bilinear")
    assert torch.allclose(half[..., 1:], 0.75 * x[..., 1:] + 0.25 * x[..., :-1])
    large = pictures(1, 9, 9)
    assert torch.equal(crop_translate(large, (1, -2), (5, 5)), large[:, 1:6, 4:9])
    assert torch.equal(crop_translate(large, (0, 0), (5, 5)), large[:, 2:7, 2:7])


class Column(nn.Module):
    """The brightest of the first columns."""

    def forward(self, x):
        return x.sum((1, 2))


def test_robustness_by_hand() -> None:
    x = torch.zeros(3, 1, 4, 4)
    x[0, :, :, 0] = x[1, :, :, 1] = x[2, :, :, 2] = 1
    y = torch.tensor([0, 1, 0])
    model = Column().train()
    found = shift_robustness(model, x, y, [(0, 1), (2, 0)], batch_size=2)
    assert model.training
    # two of three are right; a shift by a column spoils both, one by rows none
    assert found.clean_accuracy == pytest.approx(2 / 3)
    assert found.adversarial_accuracy == 0
    assert found.consistency == pytest.approx(1 / 2)
    assert found.max_relative_change == pytest.approx(1)
    rows = shift_robustness(model.eval(), x, y, [(1, 0), (2, 0)], kind="circular")
    assert rows.adversarial_accuracy == rows.clean_accuracy
    assert rows.consistency == 1
    assert not model.training


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: translate(x, (0.5, 0), "zero"), ValueError, "shift must be whole for kind 'zero'"),
        (lambda x: translate(x, (0, 0), "mirror"), ValueError, "kind must be one of circular, zero, bilinear"),
        (lambda x: translate(x, (float("inf"), 0)), ValueError, "shift must be two finite numbers"),
        (lambda x: translate(x.byte(), (1, 0)), TypeError, "x must be a floating-point tensor"),
        (lambda x: crop_translate(x, (2, 0), (5, 5)), ValueError, "must lie within"),
        (lambda x: shift_robustness(Column(), x, torch.zeros(2), []), ValueError, "shifts must not be empty"),
        (lambda x: shift_robustness(Column(), x, torch.zeros(3), [(1, 1)]), ValueError, "y must hold one class"),
        (lambda x: equivariance_error(nn.ReLU(), x, (1, 1), 0), ValueError, "stride must be at least 1"),
    ],
)
def test_bad_shifts_are_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call(torch.zeros(2, 1, 6, 6))
