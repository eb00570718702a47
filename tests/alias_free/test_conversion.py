"""The exchanged network has no layer that breaks translation, and is otherwise what it was."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.alias_free import CircularConv2d, IdealDownsample2d, audit, fit_activation, fourier_shift, make_alias_free
from tests.alias_free.pictures import pictures
from tests.alias_free.test_auditing import Permuted, drawn, errors


def worst(net: nn.Module, x: torch.Tensor) -> float:
    return max(errors(net, x).values())


def test_a_classifier_becomes_invariant_and_can_be_trained() -> None:
    strided = nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2, bias=False)
    net = drawn(
        nn.Conv2d(2, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1),
        nn.Sequential(strided, nn.GELU()), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        nn.ReLU6(),
    )  # fmt: skip
    net[0].weight.requires_grad_(False)
    x = pictures(1, 2, 32, 32)
    free = make_alias_free(net, x)
    assert type(net[0]) is nn.Conv2d
    assert isinstance(free[3], IdealDownsample2d)
    assert isinstance(free[9], nn.ReLU6)
    assert torch.equal(free[4][0].weight, net[4][0].weight)
    assert worst(free, x) < 1e-11
    assert torch.allclose(free(x), free(fourier_shift(x, (0.7182, -2.236))), atol=1e-11)
    assert errors(net, x)[""] > 1e-3
    free.train()(x).sum().backward()
    assert [name for name, part in free.named_parameters() if part.grad is None] == ["0.weight"]
    assert all(part.training for part in make_alias_free(net.train(), x).modules())
    aliasing = drawn(CircularConv2d(2, 4, 3, stride=2), nn.GELU())
    assert make_alias_free(aliasing, x)[0].lowpass


def test_coefficients_have_full_precision() -> None:
    free = make_alias_free(nn.ReLU(), pictures(1, 2, 8, 8))
    assert torch.equal(free.poly.coef[0], torch.from_numpy(fit_activation(lambda t: np.maximum(t, 0))))


def test_layers_that_work_with_channels_last() -> None:
    # sides that could be taken for channels
    net, x = drawn(Permuted(), Permuted()), pictures(1, 6, 24, 6)
    found = errors(net, x)
    assert found["0.wide"] < 1e-12
    assert min(found["0.act"], found["0.norm"]) > 0.01
    free = make_alias_free(net, x)
    after = errors(free, x)
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
    net = drawn(nn.Conv2d(2, 8, 3, padding=1), Bottleneck(), Bottleneck(), nn.AdaptiveAvgPool2d(1))
    x = pictures(1, 2, 16, 24)
    before = x.clone()
    assert errors(net, x)[""] > 0.01
    free = make_alias_free(net, x)
    assert torch.equal(x, before)
    assert set(free[1].relu.layers) == {"4", "8"}
    assert worst(free, x) < 1e-12


class Listed(nn.Module):
    """Calls its layers from a list that torch does not know of."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.first, self.second = layers
        self.order = [self.first, self.second, self.first]

    def forward(self, x):
        for layer in self.order:
            x = layer(x)
        return x


def test_what_is_held_at_several_places_is_exchanged_at_all_of_them() -> None:
    act, conv = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
    net, x = drawn(nn.Sequential(conv, act), Listed(conv, act), act), pictures(1, 4, 8, 8)
    assert [layer.name for layer in audit(net, x)].count("0.1") == 3
    free = make_alias_free(net, x)
    assert free[0][0] is free[1].first is free[1].order[0]
    assert free[0][1] is free[1].second is free[2]
    assert worst(free, x) < 1e-12
    assert net[0][1] is act


FINER = {
    "transposed, kernel as the stride": (nn.ConvTranspose2d(4, 3, 2, stride=2), 2),
    "transposed, twice the stride": (nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1), 2),
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
    net, x = drawn(layer), pictures(1, 4, 12, 16)
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
    x = pictures(1, 2, 16, 12)
    net = drawn(Decoder(by_function=False))[0]
    found = {layer.name: layer for layer in audit(net, x)}
    assert (found["up"].stride, found[""].stride) == (0.5, 1)
    assert min(found["up"].error, found[""].error) > 0.1
    assert worst(make_alias_free(net, x), x) < 1e-12
    # a function that makes pictures finer has a line, and stays
    net = drawn(Decoder(by_function=True))[0]
    for one in (net, make_alias_free(net, x)):
        found = {layer.name: layer for layer in audit(one, x)}
        assert (found["interpolate"].kind, found["interpolate"].stride) == ("interpolate", 0.5)
        assert min(found["interpolate"].error, found[""].error) > 0.05


class Gate(nn.Module):
    """Squeeze and excitation, the mean taken in one of several ways."""

    def __init__(self, mean, act: nn.Module) -> None:
        super().__init__()
        self.mean, self.act, self.gate = mean, act, nn.Sigmoid()
        self.narrow, self.wide = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x):
        return x * self.gate(self.wide(self.act(self.narrow(self.mean(x)))))


def spread(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3), keepdim=True).expand_as(x)


@pytest.mark.parametrize("mean", [nn.AdaptiveAvgPool2d(1), spread])
def test_activations_on_maps_of_one_value_stay(mean) -> None:
    net = drawn(nn.Conv2d(3, 4, 3, padding=1), Gate(mean, nn.ReLU()), nn.GELU(), nn.Conv2d(4, 4, 1))
    x = pictures(2, 3, 16, 16)
    for example in (x, torch.zeros_like(x)):
        free = make_alias_free(net, example)
        assert isinstance(free[1].gate, nn.Sigmoid)
        assert isinstance(free[1].act, nn.ReLU)
        assert worst(free, x) < 1e-12


def test_one_activation_for_pictures_and_for_pixels() -> None:
    """A polynomial for pictures, itself for pixels."""
    shared, x = nn.SiLU(), pictures(2, 3, 16, 16)
    free = make_alias_free(drawn(nn.Conv2d(3, 4, 3, padding=1), shared, Gate(nn.AdaptiveAvgPool2d(1), shared)), x)
    assert worst(free, x) < 1e-12
    point = x[:, :2, :1, :1]
    assert torch.equal(free[2].act(point), nn.functional.silu(point))
    assert not torch.allclose(free[1](x[:, :1].repeat(1, 4, 1, 1)), nn.functional.silu(x[:, :1]), atol=1e-3)


def test_a_trunk_that_ends_in_one_pixel_is_no_gate() -> None:
    net = drawn(nn.Conv2d(2, 4, 3, stride=4, padding=1), nn.GELU(), nn.Conv2d(4, 4, 2, stride=2), nn.ReLU())
    assert worst(make_alias_free(net, pictures(1, 2, 8, 8)), pictures(1, 2, 16, 24)) < 1e-12
    # nor is one whose weights are zero at the start
    zero = drawn(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
    nn.init.zeros_(zero[0].weight)
    assert not isinstance(make_alias_free(zero, pictures(1, 2, 8, 8))[1], nn.ReLU)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_memory_with_the_channels_last(dtype) -> None:
    finer = nn.Upsample(scale_factor=2), nn.PixelShuffle(2)
    net = drawn(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *finer).to(dtype)
    net = net.to(memory_format=torch.channels_last)
    x = pictures(1, 2, 16, 16).to(dtype).contiguous(memory_format=torch.channels_last)
    before = audit(net, x)
    assert [layer.stride for layer in before] == [1, 1, 2, 0.5, 0.5, 0.5]
    free = make_alias_free(net, x)
    assert free(x).dtype == dtype
    bound = 30 * torch.finfo(dtype).eps
    assert worst(free, x) < bound
    assert min(layer.error for layer in before) > min(bound, 0.2)


class Unpooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        return self.up(*self.down(x))


normed = nn.utils.parametrizations.weight_norm


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(2, 2, 3), "0 must keep sides, or divide them"),
        (nn.Conv2d(2, 2, 3, padding=2, dilation=(2, 1)), "0 must have a square kernel, one stride and one dilation"),
        (nn.Conv2d(2, 2, (3, 1), padding=(1, 0)), "0 must have a square kernel"),
        (nn.Conv2d(2, 2, 2, padding=1), r"0 must keep sides: it gave \(1, 2, 15, 15\)"),
        (normed(nn.Conv2d(2, 2, 3, padding=1)), "0 must be a Conv2d of torch itself; it is ParametrizedConv2d"),
        (nn.MaxPool2d(2, stride=(2, 1)), "0 must have one stride"),
        (nn.MaxPool2d(3, stride=1, padding=1), "0 must have a stride above 1"),
        (nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2)), r"without aliases .*'0\.1' .* multiples of the stride 2"),
        (nn.Sequential(nn.Flatten(2), nn.ReLU()), r"0\.1 must work on pictures"),
        (nn.ConvTranspose2d(2, 2, 3, stride=2), r"0 must keep sides: it gave \(1, 2, 29, 29\), without .*28, 28"),
        (nn.ConvTranspose2d(2, 2, (2, 1), stride=(2, 1)), "0 must have a square kernel"),
        (nn.ConvTranspose2d(2, 2, 3, padding=(1, 0)), "0 must have one padding"),
        (normed(nn.ConvTranspose2d(2, 2, 2)), "0 must be a ConvTranspose2d of torch"),
        (Unpooling(), r"0\.down must give no indices"),
    ],
)  # fmt: skip
def test_what_has_no_such_version_is_named(layer, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_alias_free(nn.Sequential(layer).double(), pictures(1, 2, 14, 14))
    with pytest.raises(ValueError, match="half_width must be positive"):
        make_alias_free(nn.Identity(), pictures(1, 2, 14, 14), half_width=0)
