"""The audit finds the layers that break translation, and the exchanged network has none."""

import pytest
import torch
from torch import nn

from lib.alias_free import (
    CircularConv2d,
    ConvNeXt,
    DemodulatingStem,
    IdealDownsample2d,
    audit,
    equivariance_error,
    fourier_shift,
    ideal_lowpass,
    make_alias_free,
)

F64 = torch.float64
SHIFT = (0.7182, -2.236)


def pictures(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def classifier() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 6, 5, padding=2),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2, bias=False), nn.GELU()),
            nn.AvgPool2d(2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        ).double()  # fmt: skip


def test_the_audit_finds_what_breaks() -> None:
    net = classifier().train()
    found = audit(net, pictures(1, 2, 32, 32))
    assert net.training
    broken = {layer.name for layer in found if layer.error > 1e-6}
    # batch normalisation is affine here, and the mean over all pixels knows no place
    assert broken == {"0", "2", "3", "4.0", "4.1", "5"}
    assert {layer.name: layer.stride for layer in found}["4.0"] == 2
    assert {layer.kind for layer in found} >= {"Conv2d", "ReLU", "MaxPool2d", "GELU", "AvgPool2d", "BatchNorm2d"}


def test_the_exchanged_network_is_invariant() -> None:
    # nothing commutes with shifts of a picture that holds the frequency of an even side's half
    net, x = classifier().eval(), fourier_shift(pictures(1, 2, 32, 32), (0, 0), nyquist="zero")
    free = make_alias_free(net, x)
    assert isinstance(net[0], nn.Conv2d)
    assert not isinstance(net[0], CircularConv2d)
    assert isinstance(free[3], IdealDownsample2d)
    assert torch.equal(free[4][0].weight, net[4][0].weight)
    assert max(layer.error for layer in audit(free, x)) < 1e-11
    assert torch.allclose(free(x), free(fourier_shift(x, SHIFT)), atol=1e-11)
    assert not torch.allclose(net(x), net(fourier_shift(x, SHIFT)), atol=1e-3)
    loss = free.train()(x).square().sum()
    loss.backward()
    assert all(part.grad is not None for part in free.parameters())


def test_it_is_of_no_use_on_what_has_no_such_version() -> None:
    x = pictures(1, 2, 8, 8)
    for layer, message in (
        (nn.Conv2d(2, 2, 3), "must have a square kernel"),
        (nn.Conv2d(2, 2, 3, padding=2, dilation=2), "must have a square kernel"),
        (nn.Conv2d(2, 2, (3, 1), padding=(1, 0)), "must have a square kernel"),
        (nn.MaxPool2d(2, stride=(2, 1)), "must have one stride"),
    ):
        with pytest.raises(ValueError, match=message):
            make_alias_free(nn.Sequential(layer.double()), x)
    with pytest.raises(ValueError, match="must work on pictures"):
        make_alias_free(nn.Sequential(nn.Flatten(), nn.ReLU()), x)
    with pytest.raises(ValueError, match=r"x must have the shape \(B, C, H, W\)"):
        audit(nn.Identity(), x[0])


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_the_stems_aliases_lie_outside_and_a_wider_low_pass_lets_them_in(stride, monkeypatch) -> None:
    x = fourier_shift(pictures(1, 3, 24, 24), (0, 0), nyquist="zero")
    quadratic = DemodulatingStem(3, stride).double()
    nn.init.ones_(quadratic.gain)
    stem = nn.Sequential(quadratic, IdealDownsample2d(stride))
    assert equivariance_error(stem, x, SHIFT, stride) < 1e-11
    # three frequencies more
    monkeypatch.setattr(
        "lib.alias_free.layers.ideal_lowpass", lambda y, size: ideal_lowpass(y, (size[0] + 6, size[1] + 6))
    )
    assert equivariance_error(stem, x, SHIFT, stride) > 1e-3


def test_a_network_with_the_stem_is_invariant() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ConvNeXt(depths=(1, 1), dims=(4, 8), patch=4, stem_activation=True, layer_scale=1.0, init_std=None,
                       act_scale=1.0).double().eval()  # fmt: skip
    nn.init.constant_(net.stem[1].gain, 0.5)
    x = pictures(1, 1, 32, 32)
    assert torch.allclose(net(x), net(fourier_shift(x, SHIFT)), atol=1e-11)
    with pytest.raises(ValueError, match="stem_activation needs the mode 'afc'"):
        ConvNeXt(mode="aps", stem_activation=True)
    with pytest.raises(ValueError, match="coef must hold three numbers"):
        DemodulatingStem(2, 2, (1.0, 2.0))
    with pytest.raises(ValueError, match="stride must be above 1"):
        DemodulatingStem(2, 1)
