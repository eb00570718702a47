"""Which layers commute with translation, against the plain definitions and against each other."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lib.alias_free import (
    AliasFreeActivation,
    AliasFreeLayerNorm,
    AliasFreeMLP,
    APSDownsample2d,
    BlurPool2d,
    CircularConv2d,
    IdealDownsample2d,
    PolyActivation,
    equivariance_error,
    fourier_shift,
    ideal_lowpass,
)

F64 = torch.float64
#: Shifts that no grid of a few times the size makes whole.
GENERIC = ((0.7182, -2.236), (1 / 3, 2.7))


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return fourier_shift(x, (0, 0), nyquist="zero")


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that are neither zero nor one, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for part in module.parameters():
            part.add_(0.3 * torch.randn(part.shape, generator=generator, dtype=F64))
    return module


X = pictures(2, 8, 32, 24)

EXACT = {
    "circular convolution": (CircularConv2d(8, 5, 5), 1),
    "ideal low-pass and stride 2": (IdealDownsample2d(2), 2),
    "ideal low-pass and stride 4": (IdealDownsample2d(4), 4),
    "low-pass before a strided convolution": (CircularConv2d(8, 6, 4, stride=4, lowpass=True), 4),
    "alias-free quadratic": (AliasFreeActivation(8), 1),
    "alias-free quadratic on twice the grid": (AliasFreeActivation(8, oversample=2), 1),
    "alias-free polynomial of degree 4": (AliasFreeActivation(8, coef=(0.1, 0.5, 0.2, -0.1, 0.05)), 1),
    "alias-free normalisation": (AliasFreeLayerNorm(8), 1),
}

BROKEN = {
    "zero padding": (nn.Conv2d(8, 5, 5, padding=2), 1),
    "stride 2": (CircularConv2d(8, 5, 3, stride=2), 2),
    "maximum pooling": (nn.MaxPool2d(2), 2),
    "average pooling": (nn.AvgPool2d(2), 2),
    "BlurPool 3": (BlurPool2d(8, filt_size=3), 2),
    "BlurPool 7": (BlurPool2d(8, filt_size=7), 2),
    "adaptive polyphase sampling": (APSDownsample2d(), 2),
    "ReLU": (nn.ReLU(), 1),
    "GELU": (nn.GELU(), 1),
    "quadratic point by point": (PolyActivation(8), 1),
    "quadratic on too coarse a grid": (AliasFreeActivation(8, oversample=1), 1),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("shift", [*GENERIC, (1, 1), (0.5, 0.5)])
def test_layers_that_commute_with_every_translation(name, shift) -> None:
    module, stride = EXACT[name]
    assert equivariance_error(drawn(module), X, shift, stride) < 1e-11


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("shift", GENERIC)
def test_layers_that_do_not(name, shift) -> None:
    module, stride = BROKEN[name]
    assert equivariance_error(drawn(module), X, shift, stride) > 1e-2


def test_mlp_commutes_and_does_not_without_its_finer_grid() -> None:
    def on_pictures(mlp: nn.Module):
        return lambda x: mlp(x.movedim(1, -1)).movedim(-1, 1)

    for shift in GENERIC:
        assert equivariance_error(on_pictures(drawn(AliasFreeMLP(8, in_scale=1.0, out_scale=1.0))), X, shift) < 1e-11
        coarse = drawn(AliasFreeMLP(8, in_scale=1.0, out_scale=1.0, oversample=1))
        assert equivariance_error(on_pictures(coarse), X, shift) > 1e-3


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_low_pass_and_convolution_commute(stride) -> None:
    """Filter, then convolve with the stride: the same as convolve, filter, and take every so many-th pixel."""
    x = torch.randn(1, 3, 24, 12, generator=torch.Generator().manual_seed(0), dtype=F64)
    fast = drawn(CircularConv2d(3, 5, 4, stride=stride, lowpass=True))
    full = CircularConv2d(3, 5, 4).double()
    full.load_state_dict(fast.state_dict())
    slow = ideal_lowpass(full(x), (24 // stride, 12 // stride))[..., ::stride, ::stride]
    assert torch.allclose(fast(x), slow, atol=1e-12)


def plain_activation(x: torch.Tensor, poly: PolyActivation) -> torch.Tensor:
    """As published: zeros between the pixels, two full FFTs, the polynomial, a low-pass, every second pixel."""

    def filtered(y: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        spectrum = torch.fft.fft2(y)
        for axis, side in ((-2, size[0]), (-1, size[1])):
            n = y.shape[axis]
            keep = (torch.fft.fftfreq(n, 1 / n, dtype=F64).abs() <= (side - 1) // 2).to(F64)
            spectrum = spectrum * (keep[:, None] if axis == -2 else keep)
        return torch.fft.ifft2(spectrum).real

    height, width = x.shape[-2:]
    stuffed = x.new_zeros(*x.shape[:-2], 2 * height, 2 * width)
    stuffed[..., ::2, ::2] = x
    fine = 4 * filtered(stuffed, (height, width))
    values = sum(poly.coef[:, j, None, None] * (poly.in_scale * fine) ** j for j in range(poly.degree + 1))
    return filtered(poly.out_scale * values, (height, width))[..., ::2, ::2]


@pytest.mark.parametrize("size", [(14, 14), (7, 12)])
@pytest.mark.parametrize("oversample", [None, 2])
def test_values_and_gradients_are_those_of_the_plain_form(size, oversample) -> None:
    x = pictures(2, 3, *size).requires_grad_()
    layer = drawn(AliasFreeActivation(3, oversample, in_scale=2.0, out_scale=1.5))
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    found = [
        (result, *torch.autograd.grad((result * weight).sum(), (x, *layer.parameters())))
        for result in (layer(x), plain_activation(x, layer.poly))
    ]
    for ours, plain in zip(*found, strict=True):
        # the plain form's low-pass also removes what even sides' halves hold
        assert torch.allclose(ideal_lowpass(ours, size) if ours.shape == x.shape else ours,
                              ideal_lowpass(plain, size) if plain.shape == x.shape else plain, atol=1e-10)  # fmt: skip


def test_the_quadratics_own_gradient() -> None:
    poly = drawn(PolyActivation(3, in_scale=1.3, out_scale=0.7))
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=F64).requires_grad_()
    parameters = tuple(poly.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: poly(x), (x, *parameters))
    assert torch.autograd.gradgradcheck(lambda x, *_: poly(x), (x, *parameters))
    by_hand = poly.out_scale * sum(poly.coef[:, j, None, None] * (poly.in_scale * x) ** j for j in range(3))
    assert torch.allclose(poly(x), by_hand, atol=1e-13)


def test_every_coefficient_counts() -> None:
    for degree in range(6):
        coef = [0.0] * degree + [2.0]
        assert torch.allclose(
            PolyActivation(2, coef=coef)(torch.full((1, 2, 1, 1), 3.0)), torch.tensor(2.0 * 3**degree)
        )


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (3, -5), (2, 2)])
def test_polyphase_sampling_rolls_for_whole_shifts(shift) -> None:
    out, moved = (APSDownsample2d()(x) for x in (X, X.roll(shift, (-2, -1))))
    rolls = [out.roll((i, j), (-2, -1)) for i in range(out.shape[-2]) for j in range(out.shape[-1])]
    for b in range(len(X)):
        assert any(torch.allclose(moved[b], roll[b], atol=1e-12) for roll in rolls)
    assert torch.allclose(out.mean((-2, -1)), moved.mean((-2, -1)), atol=1e-12)


def test_blur_filters() -> None:
    impulse = torch.zeros(1, 1, 8, 8)
    impulse[..., 4, 4] = 1
    for size in range(1, 8):
        blurred = BlurPool2d(1, stride=1, filt_size=size)(impulse)
        assert torch.allclose(blurred.sum(), torch.tensor(1.0))
    row = BlurPool2d(1, stride=1, filt_size=3)(impulse)[0, 0, 4] * 4 / 2
    assert row[3:6].tolist() == [0.25, 0.5, 0.25]


def test_normalisation_by_hand() -> None:
    layer = drawn(AliasFreeLayerNorm(8))
    centred = X - X.mean(1, keepdim=True)
    wanted = centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-6).sqrt()
    wanted = wanted * layer.weight[:, None, None] + layer.bias[:, None, None]
    assert torch.allclose(layer(X), wanted, atol=1e-13)


def test_autocast_and_small_pictures() -> None:
    layer = AliasFreeMLP(4, in_scale=1.0, out_scale=1.0)
    x = torch.rand(1, 6, 6, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (layer(x).float() - layer(x.double().float())).abs().max() < 0.1
    # a kernel that is larger than the torus goes round it
    assert CircularConv2d(1, 1, 7)(torch.ones(1, 1, 2, 2)).shape == (1, 1, 2, 2)
    ones = CircularConv2d(1, 1, 7, bias=False)
    nn.init.ones_(ones.weight)
    assert torch.allclose(ones(torch.ones(1, 1, 2, 2)), torch.tensor(49.0))
    kernel = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    conv = CircularConv2d(1, 1, 3, bias=False).double()
    with torch.no_grad():
        conv.weight.copy_(kernel)
    x = pictures(1, 1, 6, 5)
    wanted = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="circular"), kernel)
    assert torch.allclose(conv(x), wanted)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: IdealDownsample2d(2)(torch.zeros(1, 1, 7, 8)),
            "multiples of the stride 2; they are 7 and 8",
        ),
        (lambda: BlurPool2d(1)(torch.zeros(1, 1, 8, 7)), "H and W must be multiples of the stride 2"),
        (lambda: APSDownsample2d()(torch.zeros(1, 1, 7, 7)), "H and W must be multiples of the stride 2"),
        (lambda: CircularConv2d(1, 1, 3, stride=3)(torch.zeros(1, 1, 7, 7)), "multiples of the stride 3"),
        (lambda: IdealDownsample2d()(torch.zeros(8, 8)), r"x must have the shape \(B, C, H, W\)"),
        (lambda: BlurPool2d(1, filt_size=8), "filt_size must be 1 to 7; it is 8"),
        (lambda: APSDownsample2d(p=0), "p must be positive"),
        (lambda: PolyActivation(2, coef=()), "coef must hold finite numbers, and one at least"),
        (lambda: PolyActivation(2, coef=(1.0, float("inf"))), "coef must hold finite numbers"),
        (lambda: AliasFreeActivation(2, oversample=0), "oversample must be at least 1"),
        (lambda: AliasFreeLayerNorm(0), "channels must be at least 1"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
