"""Which layers commute with translation, against the plain definitions and against each other."""

import math

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
    CircularConvTranspose2d,
    DemodulatingStem,
    IdealDownsample2d,
    IdealPixelShuffle,
    IdealResample2d,
    PolyActivation,
    equivariance_error,
    ideal_lowpass,
)
from lib.alias_free.claims.layers import from_plain
from lib.alias_free.claims.plain import plain_upsample, plain_version
from tests.alias_free.pictures import F64, noise, pictures

#: A shift that no grid of a few times the size makes whole.
GENERIC = (0.7182, -2.236)


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that are neither zero nor one, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for part in module.parameters():
            part.add_(0.3 * torch.randn(part.shape, generator=generator, dtype=F64))
    return module


X = pictures(2, 8, 32, 24)


def test_a_polynomial_of_higher_degree_commutes_with_every_translation() -> None:
    layer = AliasFreeActivation(8, coef=(0.1, 0.5, 0.2, -0.1, 0.05)).double()
    for shift in (GENERIC, (1 / 3, 2.7), (1, 1), (0.5, 0.5)):
        assert equivariance_error(layer, X, shift) < 1e-11


#: What is compared with its plain form, and what it is given.
AGAINST_PLAIN = {
    "quadratic": (AliasFreeActivation(3, in_scale=2.0, out_scale=1.5), noise(2, 3, 14, 14)),
    "quadratic, odd and even side": (AliasFreeActivation(3), noise(2, 3, 7, 12)),
    "quadratic on twice the grid": (AliasFreeActivation(3, 2), noise(2, 3, 9, 10)),
    "cubic": (AliasFreeActivation(3, coef=(0.1, 0.5, 0.2, -0.1)), noise(2, 3, 9, 10)),
    "degree 4 on three times the grid": (AliasFreeActivation(3, 3, coef=(0.1, 0.5, 0.2, -0.1, 0.1)), noise(1, 3, 5, 6)),
    "two 1 x 1 layers": (AliasFreeMLP(4, in_scale=2.0, out_scale=0.5), noise(2, 7, 10, 4)),
    "two 1 x 1 layers on twice the grid": (AliasFreeMLP(4, oversample=2, in_scale=1.0), noise(1, 8, 5, 4)),
    "strided convolution": (CircularConv2d(3, 5, 4, stride=4, lowpass=True), noise(2, 3, 16, 12)),
    "strided convolution in groups": (CircularConv2d(4, 8, 2, stride=2, lowpass=True, groups=2), noise(1, 4, 6, 10)),
    "odd stride": (CircularConv2d(2, 3, 3, stride=3, lowpass=True, bias=False), noise(1, 2, 15, 12)),
    "dilated": (CircularConv2d(3, 5, 3, stride=2, lowpass=True, dilation=2), noise(2, 3, 16, 12)),
    "down-sampling": (IdealDownsample2d(2), noise(2, 3, 12, 10)),
    "large pictures": (CircularConv2d(1, 2, 4, stride=4, lowpass=True), noise(1, 1, 160, 132)),
}


@pytest.mark.parametrize("name", AGAINST_PLAIN)
def test_values_and_gradients_are_those_of_the_plain_form(name) -> None:
    module, x = AGAINST_PLAIN[name]
    layer = drawn(module)
    assert type(plain_version(layer)) is not type(layer)
    assert max(from_plain(layer, x)) < 1e-11


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_transposed_convolution_goes_round_the_torus(kernel, stride) -> None:
    """On a picture that is repeated, torch's own gives in the middle what ours gives, before the low-pass."""
    x = noise(2, 4, 5, 6)
    for padding, dilation, groups in ((0, 1, 2), (1, 1, 1), (4, 2, 1)):
        sizes = {"stride": stride, "dilation": dilation, "groups": groups}
        layer = CircularConvTranspose2d(4, 2, kernel, padding=padding, **sizes).double()
        wide = functional.conv_transpose2d(x.repeat(1, 1, 7, 7), layer.weight, layer.bias, **sizes)
        top, left = 3 * 5 * stride + padding, 3 * 6 * stride + padding
        wanted = wide[..., top : top + 5 * stride, left : left + 6 * stride]
        assert torch.allclose(layer(x), wanted if stride == 1 else ideal_lowpass(wanted, (5, 6)), atol=1e-12)


def test_up_sampling_keeps_the_pixels_and_takes_the_size_of_torchs_own() -> None:
    x = noise(1, 2, 6, 7)
    assert torch.allclose(IdealResample2d(scale_factor=(2, 3))(x)[..., ::2, ::3], x, atol=1e-12)
    assert torch.allclose(IdealResample2d(scale_factor=3)(x), plain_upsample(x, 3), atol=1e-12)
    for options in ({"scale_factor": 1.5}, {"scale_factor": (2.0, 1.25)}, {"size": 9}, {"size": (3, 8)}):
        assert IdealResample2d(**options)(x).shape == nn.Upsample(**options)(x).shape


def test_the_quadratics_own_gradient() -> None:
    poly = drawn(PolyActivation(3, in_scale=1.3, out_scale=0.7))
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=F64).requires_grad_()
    parameters = tuple(poly.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: poly(x), (x, *parameters))
    assert torch.autograd.gradgradcheck(lambda x, *_: poly(x), (x, *parameters))
    by_hand = poly.out_scale * sum(poly.coef[:, j, None, None] * (poly.in_scale * x) ** j for j in range(3))
    assert torch.allclose(poly(x), by_hand, atol=1e-13)


def test_the_quadratic_keeps_its_input_alone() -> None:
    kept = []
    x = noise(50, 4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda part: kept.append(part) or part, lambda part: part):
        PolyActivation(4).double().without_constant(x)
    assert [part.data_ptr() for part in kept if part.numel() >= x.numel()] == [x.data_ptr()]


def test_every_coefficient_counts() -> None:
    three = torch.full((1, 2, 1, 1), 3.0)
    for degree in range(6):
        assert (PolyActivation(2, coef=[0.0] * degree + [2.0])(three) == 2.0 * 3**degree).all()


def test_polyphase_sampling_by_hand() -> None:
    """One way for each picture, that of the largest norm, whatever the norm and the place of the batch."""
    x = noise(3, 2, 6, 9)
    for p in (1, 2, 3.5):
        found = APSDownsample2d(3, p)(x)
        for picture, kept in zip(x, found, strict=True):
            ways = [picture[:, i::3, j::3] for i in range(3) for j in range(3)]
            assert torch.equal(kept, max(ways, key=lambda way: float(way.abs().pow(p).sum())))
    weight = noise(3, 2, 2, 3, seed=1)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((APSDownsample2d(3)(y) * weight).sum(), y)
    assert int((gradient != 0).sum()) == weight.numel()
    assert torch.allclose((gradient * x).sum(), (APSDownsample2d(3)(x) * weight).sum())
    assert APSDownsample2d()(x[..., :8].contiguous(memory_format=torch.channels_last)).shape == (3, 2, 3, 4)


@pytest.mark.parametrize("size", range(1, 8))
def test_blur_filters_are_binomial(size: int) -> None:
    impulse = torch.zeros(1, 1, 8, 8)
    impulse[..., 4, 4] = 1
    blurred = BlurPool2d(1, stride=1, kernel_size=size)(impulse)[0, 0]
    taps = torch.tensor([math.comb(size - 1, k) / 2 ** (size - 1) for k in range(size)])
    start = 4 - size // 2
    assert torch.allclose(blurred[start : start + size, start : start + size], torch.outer(taps, taps))
    assert torch.allclose(blurred.sum(), torch.tensor(1.0))


def test_normalisation_by_hand() -> None:
    layer = drawn(AliasFreeLayerNorm(8))
    variance = X.var(1, correction=0, keepdim=True).mean((2, 3), keepdim=True)
    wanted = (X - X.mean(1, keepdim=True)) / (variance + 1e-6).sqrt()
    wanted = wanted * layer.weight[:, None, None] + layer.bias[:, None, None]
    assert torch.allclose(layer(X), wanted, atol=1e-13)


def test_resampling_stays_exact_under_autocast() -> None:
    x = X.float()
    for layer, stride in ((IdealDownsample2d(2), 2), (AliasFreeLayerNorm(8), 1), (AliasFreeActivation(8), 1)):
        plain = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(layer(x), plain)
            assert equivariance_error(layer, x, GENERIC, stride) < 1e-5
        half = layer(x.bfloat16())
        assert half.dtype == torch.bfloat16
        assert (half.float() - plain).abs().max() < 0.05 * plain.abs().max()
    mlp = AliasFreeMLP(8, in_scale=1.0, out_scale=1.0)
    last = x.movedim(1, -1).requires_grad_()
    plain = mlp(last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = mlp(last)
    assert (rounded - plain).abs().max() < 0.05 * plain.abs().max()
    gradients = [torch.autograd.grad(out.square().sum(), (last, *mlp.parameters())) for out in (plain, rounded)]
    for exact, other in zip(*gradients, strict=True):
        assert other.dtype == torch.float32
        assert (exact - other).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: IdealDownsample2d(2)(torch.zeros(1, 1, 7, 8)), "multiples of the stride 2; they are 7 and 8"),
        (lambda: IdealDownsample2d()(torch.zeros(8, 8)), r"x must have the shape \(B, C, H, W\)"),
        (lambda: BlurPool2d(1, kernel_size=8), "kernel_size must be 1 to 7; it is 8"),
        (lambda: AliasFreeActivation(2, oversample=0), "oversample must be at least 1"),
        (lambda: DemodulatingStem(2, 2, (1.0, 2.0)), "coef must hold three numbers"),
        (lambda: DemodulatingStem(2, 1), "stride must be above 1"),
        (lambda: PolyActivation(2, coef=()), "coef must hold one number at least"),
        (lambda: AliasFreeMLP(4)(torch.zeros(4, 6, 4)), r"x must have the shape \(B, H, W, C\)"),
        (lambda: AliasFreeMLP(4)(torch.zeros(1, 4, 6, 6)), "x must have 4 channels; it has 6"),
        (IdealResample2d, "one of size and scale_factor must be given"),
        (lambda: IdealResample2d((4, 4, 4)), "size must be a pair"),
        (lambda: IdealPixelShuffle(2)(torch.zeros(1, 6, 4, 4)), "x must have a multiple of 4 channels; it has 6"),
        (lambda: CircularConvTranspose2d(1, 1, 2, stride=2)(torch.zeros(1, 1, 4, 4), [9, 8]), "output_size must be"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_pictures_of_integers_are_refused() -> None:
    layers = (
        AliasFreeActivation(2), AliasFreeLayerNorm(2), AliasFreeMLP(2), APSDownsample2d(), BlurPool2d(2),
        CircularConv2d(2, 2, 3), IdealDownsample2d(), CircularConvTranspose2d(2, 2, 2), IdealPixelShuffle(1),
        IdealResample2d(3), PolyActivation(2),
    )  # fmt: skip
    for layer in layers:
        with pytest.raises(TypeError, match=r"x must be a floating-point tensor; it is torch\.uint8"):
            layer(torch.zeros(1, 2, 2, 2, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(2, 2), (1, 9), (8, 3)])
@pytest.mark.parametrize("kernel", [4, 7])
def test_a_kernel_that_is_larger_than_a_side_goes_round_it(shape, kernel) -> None:
    x = noise(1, 2, *shape)
    layer = CircularConv2d(2, 3, kernel, bias=False).double()
    for shift in ((0, 1), (1, 0), (1, 2)):
        assert torch.allclose(layer(x.roll(shift, (-2, -1))), layer(x).roll(shift, (-2, -1)), atol=1e-12)
    nn.init.ones_(layer.weight)
    assert torch.allclose(layer(torch.ones_like(x)), torch.tensor(2.0 * kernel**2, dtype=F64))


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own, when it is first used
def test_torch_func_can_take_the_activation_apart() -> None:
    layer = AliasFreeActivation(3).double()
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = dict(layer.named_parameters())

    def loss(held, one):
        return torch.func.functional_call(layer, held, (one[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parts, x)
    total = torch.autograd.grad(layer(x).square().sum(), tuple(parts.values()))
    for name, wanted in zip(parts, total, strict=True):
        assert torch.allclose(each[name].sum(0), wanted, rtol=1e-9)


def test_shapes_without_values() -> None:
    x = torch.empty(2, 3, 8, 8, device="meta")
    for layer in (AliasFreeActivation(3), IdealDownsample2d(), CircularConv2d(3, 5, 4, stride=2, lowpass=True)):
        assert layer.to("meta")(x).device.type == "meta"
