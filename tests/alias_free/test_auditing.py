"""The audit finds the layers that break translation, and the exchanged network has none."""

import numpy as np
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
    fit_activation,
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
    # batch normalisation is affine here, and the mean over all pixels knows no place; the last is the whole
    assert broken == {"0", "2", "3", "4.0", "4.1", "5", ""}
    assert (found[-1].name, found[-1].kind, found[-1].stride) == ("", "Sequential", 0)
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


def drawn(*layers: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in layers:
            for part in layer.modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()
    return nn.Sequential(*layers).double().eval()


def change(net: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((net(x) - net(fourier_shift(x, SHIFT))).abs().max())


def odd(*shape: int) -> torch.Tensor:
    return fourier_shift(pictures(*shape), (0, 0), nyquist="zero")


class Permuted(nn.Module):
    """A block that works on (B, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.act, self.narrow = nn.LayerNorm(6), nn.Linear(6, 24), nn.GELU(), nn.Linear(24, 6)

    def forward(self, x):
        return x + self.narrow(self.act(self.wide(self.norm(x.movedim(1, -1))))).movedim(-1, 1)


def test_layers_that_work_with_channels_last() -> None:
    # sides that could be taken for channels
    net, x = drawn(Permuted(), Permuted()), odd(1, 6, 24, 6)
    found = {layer.name: layer for layer in audit(net, x)}
    assert found["0.wide"].error < 1e-12
    assert found["0.act"].error > 0.01
    assert found["0.norm"].error > 0.01
    free = make_alias_free(net, x)
    after = {layer.name: layer.error for layer in audit(free, x)}
    assert max(error for name, error in after.items() if "act" in name) < 1e-12
    assert free[0].act.layers["24"].poly.coef.shape == (24, 3)
    # normalisation of each pixel stays, and the last line says so
    assert min(after["0.norm"], after[""]) > 0.01


class Bottleneck(nn.Module):
    """A residual block as in torchvision: one activation for several widths, overwriting what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.conv, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 3, padding=1, stride=2), nn.Conv2d(4, 8, 1)
        self.norm, self.shortcut, self.relu = nn.BatchNorm2d(4), nn.Conv2d(8, 8, 1, stride=2), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.norm(self.conv(self.relu(self.down(x)))))
        return self.relu(self.up(y) + self.shortcut(x))


def test_a_residual_network_becomes_exact() -> None:
    net, x = (
        drawn(nn.Conv2d(2, 8, 3, padding=1), Bottleneck(), Bottleneck(), nn.AdaptiveAvgPool2d(1)),
        odd(1, 2, 16, 24),
    )
    before = x.clone()
    assert audit(net, x)[-1].error > 0.01
    free = make_alias_free(net, x)
    assert torch.equal(x, before)
    assert set(free[1].relu.layers) == {"4", "8"}
    assert audit(free, x)[-1].error < 1e-12
    assert change(free, x) < 1e-12


def test_what_is_shared_stays_shared() -> None:
    act, conv = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
    net, x = drawn(nn.Sequential(conv, act), nn.Sequential(conv, act), act), odd(1, 4, 8, 8)
    free = make_alias_free(net, x)
    assert free[0][0] is free[1][0]
    assert free[0][1] is free[1][1] is free[2]
    assert [layer.name for layer in audit(net, x)].count("0.1") == 3
    assert change(nn.Sequential(free, nn.AdaptiveAvgPool2d(1)), x) < 1e-12


def test_the_audit_is_right_about_layers_that_overwrite() -> None:
    x = odd(1, 2, 9, 9)
    before = x.clone()
    found = [audit(nn.Sequential(nn.ReLU(inplace=way)), x)[0].error for way in (True, False)]
    assert found[0] == found[1]
    equivariance_error(nn.ReLU(inplace=True), x, SHIFT)
    assert torch.equal(x, before)


class Called(nn.Module):
    """Calls that are not of one tensor, and a function that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.join, self.act, self.conv = nn.Bilinear(4, 4, 4), nn.GELU(), CircularConv2d(2, 2, 3)

    def forward(self, x):
        y = self.act(self.conv(x=x))
        return torch.relu(y) + 0 * self.join(x[..., :4], x[..., :4]).sum()


def test_calls_with_names_and_several_tensors() -> None:
    net, x = drawn(Called()), odd(1, 2, 8, 8)
    assert [layer.name for layer in audit(net, x)] == ["0.conv", "0.act", ""]
    free = make_alias_free(net, x)
    found = audit(free, x)
    # all layers are exact and the whole is not: a function hides in there
    assert max(layer.error for layer in found[:-1]) < 1e-12
    assert found[-1].error > 1e-3


def test_what_needs_no_exchange_stays() -> None:
    head = nn.Linear(4, 3)
    net, x = (
        drawn(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head, nn.ReLU()),
        odd(1, 2, 8, 8),
    )
    net[0].weight.requires_grad_(False)
    free = make_alias_free(net.train(), x)
    assert isinstance(free[5], nn.ReLU)
    assert not free[0].weight.requires_grad
    assert free[0].bias.requires_grad
    assert all(part.training for part in free.modules())
    assert change(free, x) < 1e-12
    aliasing = drawn(CircularConv2d(2, 4, 3, stride=2), nn.GELU())
    assert make_alias_free(aliasing, x)[0].lowpass


def test_coefficients_have_full_precision() -> None:
    free = make_alias_free(nn.Sequential(nn.ReLU()), odd(1, 2, 8, 8))
    assert torch.equal(free[0].poly.coef[0], torch.from_numpy(fit_activation(lambda t: np.maximum(t, 0))))


def test_it_is_of_no_use_on_what_has_no_such_version() -> None:
    x = pictures(1, 2, 14, 14)
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3, padding=1).double())
    for layer, message in (
        (nn.Conv2d(2, 2, 3), "must have a square kernel"),
        (nn.Conv2d(2, 2, 3, padding=2, dilation=2), "must have a square kernel"),
        (nn.Conv2d(2, 2, (3, 1), padding=(1, 0)), "must have a square kernel"),
        (nn.Conv2d(2, 2, 2, padding=1), r"0 must keep sides: it gave \(1, 2, 15, 15\)"),
        (nn.Conv2d(2, 2, 2, stride=2, padding=1), "0 must keep sides"),
        (normed, "must be a Conv2d of torch itself; it is ParametrizedConv2d"),
        (nn.MaxPool2d(2, stride=(2, 1)), "must have one stride"),
        (nn.MaxPool2d(3, stride=1, padding=1), "must have a stride above 1"),
        (nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2)), "0.1: H and W must be multiples of the stride 2"),
    ):
        with pytest.raises(ValueError, match=message):
            make_alias_free(nn.Sequential(layer.double()), x)
    with pytest.raises(ValueError, match="must work on pictures"):
        make_alias_free(nn.Sequential(nn.Flatten(2), nn.ReLU()), x)
    with pytest.raises(ValueError, match=r"x must have the shape \(B, C, H, W\)"):
        audit(nn.Identity(), x[0])
    for function in (audit, make_alias_free):
        with pytest.raises(TypeError, match="model must be a module; it is int"):
            function(3, x)
        with pytest.raises(TypeError, match="x must be a floating-point tensor"):
            function(nn.Identity(), x.long())


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
