"""The network in its four versions: which of them commute with translation, and what they are built of."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.alias_free import ConvNeXt, fourier_shift
from tests.alias_free.pictures import noise


def network(mode: str = "afc", **options) -> ConvNeXt:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"depths": (1, 1, 1), "dims": (6, 8, 12), "layer_scale": 1.0, "init_std": None, "act_scale": 1.0}
        return ConvNeXt(mode=mode, **{**settings, **options}).eval()


@pytest.mark.parametrize("mode", ["baseline", "blurpool", "aps"])
def test_the_others_are_not(mode) -> None:
    net, x = network(mode).double(), noise(2, 1, 48, 48)
    plain, moved = net(x), net(fourier_shift(x, (0.7182, -2.236)))
    assert (moved - plain).abs().max() > 1e-3 * plain.abs().max()
    rolled = net(x.roll((1, 3), (-2, -1)))
    whole = float(((rolled - plain).abs().max() / plain.abs().max()).detach())
    assert (whole < 1e-11) == (mode == "aps")


def test_any_size_and_the_same_keys() -> None:
    net = network()
    keys = list(net.state_dict())
    for size in ((48, 48), (16, 40), (24, 8)):
        assert net(noise(1, 1, *size).float()).shape == (1, 10)
        assert list(net.state_dict()) == keys
    fresh = network(depths=(np.int64(1), 1, 1), layer_scale=1)
    fresh.load_state_dict(net.state_dict())
    assert fresh.forward_features(noise(1, 1, 24, 16).float()).shape == (1, 12, 3, 2)


@pytest.mark.parametrize("init_std", [0.02, None])
def test_initial_weights_come_from_the_generator_alone(init_std) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (
        ConvNeXt(init_std=init_std, generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])
    if init_std is not None:
        weight = first["stages.1.0.mlp.pwconv1.weight"]
        assert 0.015 < weight.std() < 0.02
        assert weight.abs().max() <= 0.04 + 1e-6
        assert (first["head.bias"] == 0).all()


@pytest.mark.parametrize("mode", ["baseline", "blurpool", "aps", "afc"])
def test_every_weight_has_a_gradient(mode) -> None:
    net = network(mode, depths=(1, 1), dims=(4, 8)).train()
    nn.functional.cross_entropy(net(noise(16, 1, 8, 8).float()), torch.arange(16) % 2).backward()
    assert all(bool(part.grad.any()) and bool(part.grad.isfinite().all()) for part in net.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvNeXt(depths=(1,), dims=(4, 8)), "depths and dims must be as long as each other"),
        (lambda: ConvNeXt(mode="aps", stem_activation=True), "stem_activation needs the mode 'afc'"),
        (lambda: ConvNeXt(depths=(0, 1)), "depths must be at least 1"),
        (lambda: ConvNeXt(dims=(4, 2.5)), "dims must be integers"),
        (lambda: network()(torch.zeros(1, 1, 28, 28)), "H and W must be multiples of the total stride 8"),
        (lambda: network()(torch.zeros(1, 28, 28)), r"x must have the shape \(B, C, H, W\)"),
    ],
)
def test_bad_networks_are_refused(call, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, when it compiles first
def test_it_compiles_as_one_graph() -> None:
    net = network("afc", depths=(1,), dims=(4,), stem_activation=True).double()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    for side in (16, 24):
        x = noise(1, 1, side, 16).requires_grad_()
        (wanted,) = torch.autograd.grad(net(x).square().sum(), x)
        (found,) = torch.autograd.grad(compiled(x).square().sum(), x)
        assert torch.allclose(compiled(x), net(x), rtol=1e-10)
        assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)
