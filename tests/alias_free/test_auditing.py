"""The audit finds the layers that break translation, and the exchanged network has none."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.alias_free import (
    CircularConv2d,
    IdealDownsample2d,
    audit,
    equivariance_error,
    fit_activation,
    fourier_shift,
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
        (nn.Conv2d(2, 2, 3), "0 must keep sides, or divide them"),
        (nn.Conv2d(2, 2, 3, padding=2, dilation=(2, 1)), "must have a square kernel, one stride and one dilation"),
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
        with pytest.raises(TypeError, match="model must be a module; it is 3"):
            function(3, x)
        with pytest.raises(TypeError, match="x must be a floating-point tensor"):
            function(nn.Identity(), x.long())


FINER = {
    "transposed, kernel as the stride": (nn.ConvTranspose2d(4, 3, 2, stride=2), 2),
    "transposed, twice the stride": (nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1), 2),
    "transposed, with output padding": (nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), 2),
    "transposed, in groups": (nn.ConvTranspose2d(4, 6, 3, stride=3, groups=2, bias=False), 3),
    "transposed, dilated": (nn.ConvTranspose2d(4, 4, 2, stride=2, dilation=2, padding=1, output_padding=1), 2),
    "transposed, without a stride": (nn.ConvTranspose2d(4, 3, 3, padding=1), 1),
    "nearest": (nn.Upsample(scale_factor=2), 2),
    "bilinear": (nn.Upsample(scale_factor=3, mode="bilinear", align_corners=True), 3),
    "bicubic": (nn.Upsample(size=(24, 32), mode="bicubic"), 2),
    "to half as many again": (nn.Upsample(scale_factor=1.5, mode="bilinear"), 1.5),
    "a subclass": (nn.UpsamplingBilinear2d(scale_factor=2), 2),
    "pixel shuffle": (nn.PixelShuffle(2), 2),
}


@pytest.mark.parametrize("name", FINER)
def test_layers_that_make_pictures_finer_are_seen_and_exchanged(name) -> None:
    layer, finer = FINER[name]
    net, x = drawn(layer), odd(1, 4, 12, 16)
    seen, whole = audit(net, x)
    assert (seen.name, seen.stride, whole.stride) == ("0", 1 / finer, 1 / finer)
    # by hand: a shift of what comes in by d pixels is one of finer * d of what goes out
    moved, wanted = net(fourier_shift(x, (0.3, 1.7))), fourier_shift(net(x), (0.3 * finer, 1.7 * finer))
    error = float(((moved - wanted).abs().max() / net(x).abs().max()).detach())
    assert audit(net, x, shift=(0.3, 1.7))[0].error == pytest.approx(error)
    assert error > 0.1
    free = make_alias_free(net, x)
    exact, exact_whole = audit(free, x)
    assert exact.stride == 1 / finer
    assert max(exact.error, exact_whole.error) < 1e-12
    assert list(free.state_dict()) == list(net.state_dict())
    # of a picture of one value the mean stays
    one = torch.ones_like(x)
    assert torch.allclose(free(one).mean((2, 3)), net(one)[..., 4:-4, 4:-4].mean((2, 3)), atol=0.05)


class Decoder(nn.Module):
    """A U-Net: functions within `forward`, a skip, a transposed convolution that is told its size, several results."""

    def __init__(self, *, by_function: bool) -> None:
        super().__init__()
        self.wide, self.deep = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding="same", dilation=2, groups=2)
        self.act, self.up = nn.SiLU(), nn.ConvTranspose2d(6, 6, 3, stride=2, padding=1)
        self.pool, self.out, self.by_function = nn.AvgPool2d(2), nn.Conv2d(12, 2, 1), by_function

    def forward(self, x):
        skip = self.act(self.wide(x))
        deep = self.act(self.deep(self.pool(skip)))
        fine = nn.functional.interpolate(deep, scale_factor=2) if self.by_function else self.up(deep, skip.shape[-2:])
        return {"out": self.out(torch.cat([fine, skip], 1)), "mean": [deep.mean((2, 3)), deep.argmax(1)]}


def test_networks_that_give_pictures() -> None:
    x = odd(1, 2, 16, 12)
    net = drawn(Decoder(by_function=False))[0]
    found = {layer.name: layer for layer in audit(net, x)}
    assert (found["up"].stride, found[""].stride) == (0.5, 1)
    assert min(found["up"].error, found[""].error) > 0.1
    free = make_alias_free(net, x)
    assert max(layer.error for layer in audit(free, x)) < 1e-12
    # a function that makes pictures finer has a line, and stays
    net = drawn(Decoder(by_function=True))[0]
    for one in (net, make_alias_free(net, x)):
        found = {layer.name: layer for layer in audit(one, x)}
        assert (found["interpolate"].kind, found["interpolate"].stride) == ("interpolate", 0.5)
        assert min(found["interpolate"].error, found[""].error) > 0.05


class Unpooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        return self.up(*self.down(x))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.ConvTranspose2d(2, 2, 3, stride=2), r"0 must keep sides: it gave \(1, 2, 17, 17\), without .*16, 16"),
        (nn.ConvTranspose2d(2, 2, (2, 1), stride=(2, 1)), "0 must have a square kernel"),
        (nn.ConvTranspose2d(2, 2, 3, padding=(1, 0)), "0 must have one padding"),
        (nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(2, 2, 2)), "0 must be a ConvTranspose2d of torch"),
        (Unpooling(), "0.down must give no indices"),
    ],
)  # fmt: skip
def test_what_makes_pictures_finer_and_has_no_such_version_is_named(layer, message) -> None:
    net, x = nn.Sequential(layer).double(), odd(1, 2, 8, 8)
    assert audit(net, x)[-1].error > 0.1
    with pytest.raises(ValueError, match=message):
        make_alias_free(net, x)


class Gate(nn.Module):
    """Squeeze and excitation, the mean taken in one of several ways."""

    def __init__(self, mean, act: nn.Module) -> None:
        super().__init__()
        self.mean, self.narrow, self.act, self.wide, self.gate = (
            mean, nn.Conv2d(4, 2, 1), act, nn.Conv2d(2, 4, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x):
        return x * self.gate(self.wide(self.act(self.narrow(self.mean(x)))))


def spread(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3), keepdim=True).expand_as(x)


MEANS = {
    "layer": nn.AdaptiveAvgPool2d(1),
    "keepdim": lambda x: x.mean((2, 3), keepdim=True),
    "spread over the map": spread,
}


@pytest.mark.parametrize("name", MEANS)
def test_activations_on_maps_of_one_value_stay(name) -> None:
    shared = nn.SiLU()
    net = drawn(nn.Conv2d(3, 4, 3, padding=1), Gate(MEANS[name], nn.ReLU()), nn.GELU(), nn.Conv2d(4, 4, 1))
    x = odd(2, 3, 16, 16)
    for example in (x, torch.zeros_like(x)):
        free = make_alias_free(net, example)
        assert isinstance(free[1].gate, nn.Sigmoid)
        assert isinstance(free[1].act, nn.ReLU)
        assert not isinstance(free[2], nn.GELU)
        assert audit(free, x)[-1].error < 1e-12
    # one layer for pictures and for pixels: a polynomial here, itself there
    if name != "spread over the map":
        net = drawn(nn.Conv2d(3, 4, 3, padding=1), shared, Gate(MEANS[name], shared))
        free = make_alias_free(net, x)
        assert audit(free, x)[-1].error < 1e-12
        point = pictures(2, 2, 1, 1)
        assert torch.equal(free[2].act(point), nn.functional.silu(point))
        assert not torch.allclose(free[1](x[:, :1].repeat(1, 4, 1, 1)), nn.functional.silu(x[:, :1]), atol=1e-3)


def test_a_trunk_that_ends_in_one_pixel_is_no_gate() -> None:
    net = drawn(nn.Conv2d(2, 4, 3, stride=4, padding=1), nn.GELU(), nn.Conv2d(4, 4, 2, stride=2), nn.ReLU())
    free = make_alias_free(net, odd(1, 2, 8, 8))
    assert audit(free, odd(1, 2, 16, 24))[-1].error < 1e-12
    # nor is one whose weights are zero at the start
    zero = drawn(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
    nn.init.zeros_(zero[0].weight)
    assert not isinstance(make_alias_free(zero, odd(1, 2, 8, 8))[1], nn.ReLU)


class OfOneSize(nn.Module):
    """Patches with positions, tokens that are mixed, a block with the channels last, a layer on all pixels."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error, self.patches, self.block = error, nn.Conv2d(3, 6, 4, stride=4), Permuted()
        self.places, self.head = nn.Parameter(torch.ones(1, 6, 4, 4)), nn.Linear(96, 2)

    def forward(self, x):
        if x.shape[-1] != 16 and self.error is not RuntimeError:
            raise self.error("another size")
        return self.head(self.block(self.patches(x) + self.places).flatten(1))


@pytest.mark.parametrize("error", [AssertionError, RuntimeError, KeyError, IndexError, NotImplementedError, Exception])
def test_networks_of_one_size_are_audited(error) -> None:
    net, x = drawn(OfOneSize(error))[0], odd(2, 3, 16, 16)
    found = {layer.name: layer for layer in audit(net, x)}
    assert found["patches"].stride == 4
    # the layout is seen without a picture of another size
    assert found["block.wide"].error < 1e-12
    assert min(found["block.norm"].error, found[""].error) > 0.01
    with pytest.raises(ValueError, match=r"x, of shape \(1, 3, 32, 32\) and .* itself it raised \w+: "):
        audit(net, odd(1, 3, 32, 32))


def test_what_fails_at_the_size_that_was_given_names_the_layer() -> None:
    net = drawn(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(5, 4, 3)))
    for function in (audit, make_alias_free):
        with pytest.raises(ValueError, match=r"in its layer '1\.1' it raised RuntimeError: .*channels"):
            function(net, odd(1, 3, 8, 8))
        for value, message in ((float("nan"), "x must be finite"), (float("inf"), "1 of its 192 entries")):
            x = odd(1, 3, 8, 8)
            x[0, 0, 0, 0] = value
            with pytest.raises(ValueError, match=message):
                function(net, x)
    with pytest.raises(ValueError, match="shift must be two finite numbers"):
        audit(nn.Identity(), odd(1, 3, 8, 8), shift=(0.5, float("inf")))
    with pytest.raises(ValueError, match="half_width must be positive"):
        make_alias_free(nn.Identity(), odd(1, 3, 8, 8), half_width=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_memory_with_the_channels_last(dtype) -> None:
    layers = (
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2),
        nn.PixelShuffle(2),
    )
    net = drawn(*layers).to(dtype).to(memory_format=torch.channels_last)
    x = odd(1, 2, 16, 16).to(dtype).contiguous(memory_format=torch.channels_last)
    before = audit(net, x)
    assert [layer.stride for layer in before] == [1, 1, 2, 0.5, 0.5, 0.5]
    free = make_alias_free(net, x)
    assert free(x).dtype == dtype
    bound = 30 * torch.finfo(dtype).eps
    after = audit(free, x)
    assert max(layer.error for layer in after) < bound
    assert min(layer.error for layer in before) > min(bound, 0.2)
