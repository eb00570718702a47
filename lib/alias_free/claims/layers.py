"""Which layers commute with a translation by parts of a pixel, which do not, and how fine a grid must be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lib.alias_free import symbolic
from lib.alias_free.auditing import GENERIC_SHIFT
from lib.alias_free.claims.plain import plain_version
from lib.alias_free.convnext import ConvNeXt
from lib.alias_free.layers import (
    AliasFreeActivation,
    AliasFreeLayerNorm,
    AliasFreeMLP,
    APSDownsample2d,
    BlurPool2d,
    CircularConv2d,
    DemodulatingStem,
    IdealDownsample2d,
)
from lib.alias_free.polynomials import GELU_QUADRATIC, dealias_size, evaluate_polynomial, fit_activation
from lib.alias_free.resampling import fourier_shift, ideal_lowpass, ideal_resample
from lib.alias_free.robustness import equivariance_error
from lib.claims import Evidence, at_least, at_most, claim, combine, true_that

F64 = torch.float64
_NOISE = "float64, 32 x 32 noise in 8 channels without the frequency N/2"


def noise(seed: int, *shape: int, dtype: torch.dtype = F64) -> Tensor:
    """White noise (B, C, H, W) without the frequency `N / 2` of even sides, which no shift by half a pixel keeps."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return fourier_shift(values, (0, 0), nyquist="zero")


Layer = TypeVar("Layer", bound=nn.Module)


def drawn(make: Callable[[], Layer], seed: int = 0) -> Layer:
    """A layer of weights that depend on the seed alone, in float64."""
    with torch.random.fork_rng(devices=[]):  # torch's own initial weights come from its own generator
        torch.manual_seed(seed)
        return make().double()


@claim(
    source="the convolution theorem, behind the paper's construction",
    statement="A convolution on the torus commutes with every translation, by whole pixels or parts of them. Zeros "
    "around the picture, the usual padding, break that.",
)
def convolution_commutes() -> Evidence:
    rng = np.random.default_rng(0)
    exact, padded = [], []
    for trial in range(20):
        kernel, height, width = int(rng.choice([3, 5, 7])), *(int(side) for side in rng.integers(5, 33, 2))
        shift = float(rng.uniform(-height, height)), float(rng.uniform(-width, width))
        x = noise(trial, 1, 3, height, width)
        layer = drawn(partial(CircularConv2d, 3, 4, kernel), trial)
        usual = nn.Conv2d(3, 4, kernel, padding=kernel // 2, dtype=F64)
        usual.load_state_dict(layer.state_dict())
        exact.append(equivariance_error(layer, x, shift))
        padded.append(equivariance_error(usual, x, shift))
    return combine(
        at_most(exact, 1e-12, label="torus"),
        at_least(padded, 1e-2, label="zeros around"),
        remark="20 kernels of 3 to 7 pixels, sides of 5 to 32, shifts of up to a whole side",
    )


@claim(
    source="Theorem A, derived here",
    statement="With an ideal low-pass before it a stride commutes with every translation, for all pictures and all "
    "strides that divide their sides.",
)
def ideal_downsampling_is_exact() -> Evidence:
    errors = []
    for side in range(1, 49):
        # white noise with the frequency N/2: the low-pass removes it, so a shift may do to it what it wants
        x = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(side), dtype=F64)
        strides = [stride for stride in range(2, side + 1) if side % stride == 0]
        errors += [equivariance_error(IdealDownsample2d(stride), x, GENERIC_SHIFT, stride) for stride in strides]
    return at_most(errors, 1e-11, remark=f"white noise, all {len(errors)} pairs of side and stride up to 48")


_SHIFTS = ((1.0, 1.0), (0.5, 0.5), (1 / 3, 2.7))


@claim(
    source="the paper's starting point; measured here",
    statement="All usual ways to make a picture coarser create aliases: a stride, max and average pooling, the "
    "binomial filters of BlurPool (less, the wider they are), and APS's choice of the strongest pixels.",
)
def usual_downsampling_aliases() -> Evidence:
    x = noise(0, 1, 8, 32, 32)
    blurred = {size: BlurPool2d(8, kernel_size=size).double() for size in (3, 5, 7)}
    others: dict[str, Callable[[Tensor], Tensor]] = {
        "stride": lambda y: y[..., ::2, ::2],
        "max": nn.MaxPool2d(2),
        "mean": nn.AvgPool2d(2),
        "APS": APSDownsample2d(),
    }
    wrong = {name: [equivariance_error(layer, x, shift, 2) for shift in _SHIFTS] for name, layer in others.items()}
    smoothed = [[equivariance_error(blurred[size], x, shift, 2) for size in blurred] for shift in _SHIFTS]
    return combine(
        *(at_least(errors, 0.3, label=name) for name, errors in wrong.items()),
        at_least([row[-1] for row in smoothed], 1e-2, label="BlurPool 7"),
        true_that("less with 3, 5, 7 taps", np.diff(smoothed) < 0),
        remark=f"{_NOISE}; shifts by 1, 1/2 and (1/3, 2.7) pixels",
    )


@claim(
    source="the paper's reason for polynomials",
    statement="A polynomial of degree d holds frequencies up to d times those of its input, and no higher.",
)
def degree_bounds_the_band() -> Evidence:
    degrees = range(1, 7)
    spectra = {degree: symbolic.tone_spectrum(degree) for degree in degrees}
    tops = [max(spectrum) == degree and min(spectrum) == -degree for degree, spectrum in spectra.items()]
    t = 2 * np.pi * np.arange(256) / 256
    beyond = []
    for degree in degrees:
        values = evaluate_polynomial(np.cos(5 * t + 0.3) + 0.2, [1.0] * (degree + 1))
        spectrum = np.abs(np.fft.rfft(values))
        beyond.append(spectrum[5 * degree + 1 :] / spectrum.max())
    return combine(
        true_that("highest frequency: d times the tone's", tops, bound="for d = 1 … 6, by algebra"),
        at_most(beyond, 1e-12, label="beyond it"),
        remark="a tone of frequency 5, on a grid of 256",
    )


@claim(
    source="Theorem C, derived here",
    statement="A polynomial of degree d is exact in its band on a grid of (d + 1) / 2 times the size, one and a half "
    "times for a quadratic where the paper takes twice, and on none with a point less.",
)
def smallest_exact_grid() -> Evidence:
    rng = np.random.default_rng(0)
    exact, smaller = [], []
    for side, degree in itertools.product((*range(5, 17), 28), range(2, 6)):
        coefficients = rng.uniform(0.5, 1.5, degree + 1)
        # the highest frequency must be there: it is the one whose alias comes in first
        top = np.cos(2 * np.pi * (side // 2) * np.arange(side) / side)
        x = torch.from_numpy((top + rng.uniform(-1, 1, side))[None])
        wanted = _polynomial_on(x, coefficients, 8 * degree * side)
        size = dealias_size(side, degree)
        exact.append(_relative_error(_polynomial_on(x, coefficients, size), wanted))
        smaller.append(_relative_error(_polynomial_on(x, coefficients, size - 1), wanted))
    symbols = [symbolic.alias_beyond_band(even=even, missing=missing) for missing in (0, 1) for even in (True, False)]
    return combine(
        at_most(exact, 1e-11, label="on it"),
        at_least(smaller, 1e-7, label="a point less"),
        true_that("by algebra the alias is one bin outside, then inside", symbols == [1, 1, 0, 0]),
        remark="sides 5 to 16 and 28, degrees 2 to 5, in the bins below N/2; against a grid of 8d times the size",
    )


def _polynomial_on(x: Tensor, coefficients: np.ndarray, size: int) -> Tensor:
    """A polynomial of rows (1, N), applied on a grid of so many points, in the band of the rows."""
    fine = ideal_resample(x, (1, size))
    return ideal_resample(evaluate_polynomial(fine, list(coefficients)), (1, x.shape[-1]))


def _relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest error over the largest entry, the frequency `N / 2` left out: a grid has no room for its phase."""
    difference = fourier_shift(got - wanted, (0, 0), nyquist="zero").abs().max()
    return float(difference / wanted.abs().max())


def on_grid(function: Callable[[Tensor], Tensor], factor: int) -> Callable[[Tensor], Tensor]:
    """A function applied on a grid of so many times the size."""

    def applied(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return ideal_resample(function(ideal_resample(x, (factor * height, factor * width))), (height, width))

    return applied


_FACTORS = (1, 2, 3, 4, 6, 8)


@claim(
    source="the paper's reason against GELU and ReLU",
    statement="No finer grid makes GELU or ReLU exact: their aliases fall with the grid and never vanish. A quadratic "
    "is exact from one and a half times on.",
)
def no_grid_makes_gelu_exact() -> Evidence:
    x = noise(0, 1, 8, 32, 32)
    gelu, relu = (
        [equivariance_error(on_grid(function, factor), x, GENERIC_SHIFT) for factor in _FACTORS]
        for function in (nn.functional.gelu, torch.relu)
    )
    layer = AliasFreeActivation(8).double()
    bare = AliasFreeActivation(8, oversample=1).double()
    return combine(
        at_most(equivariance_error(layer, x, GENERIC_SHIFT), 1e-11, label="quadratic"),
        at_least([equivariance_error(bare, x, GENERIC_SHIFT)], 0.1, label="quadratic on its own grid"),
        at_least(gelu[:2], 1e-2, label="GELU up to 2x"),
        at_least([gelu[-1]], 1e-9, label="GELU at 8x"),
        at_least([relu[-1]], 1e-4, label="ReLU at 8x"),
        true_that("both fall with the grid", [np.diff(gelu) <= 0, np.diff([relu[0], relu[1], relu[-1]]) < 0]),
        remark=f"{_NOISE}; shift (0.7182, -2.236)",
    )


@claim(
    source="derived here; the trap of tests by half pixels",
    statement="On a grid of twice the size a shift by half a pixel is a shift by a whole one: GELU there looks exact, "
    "though it is not at any other shift.",
)
def half_pixels_hide_aliases() -> Evidence:
    x = noise(0, 1, 8, 32, 32)
    double, quadruple = on_grid(nn.functional.gelu, 2), on_grid(nn.functional.gelu, 4)
    return combine(
        at_most(equivariance_error(double, x, (0.5, -1.5)), 1e-12, label="twice the size, half a pixel"),
        at_least([equivariance_error(double, x, GENERIC_SHIFT)], 1e-2, label="another shift"),
        at_most(equivariance_error(quadruple, x, (0.25, 1.75)), 1e-12, label="four times, a quarter"),
        at_least([equivariance_error(quadruple, x, GENERIC_SHIFT)], 1e-5, label="another shift"),
        remark=_NOISE,
    )


@claim(
    source="the paper's code; their origin derived here",
    statement="The quadratic that training starts from is the least-squares fit of GELU at 200 even steps between "
    "minus and plus the root of 2. Its slope 1/2 is exact, since GELU(x) - x/2 is even.",
    paper="0.0169394634313126, 0.5, 0.3078363963999393",
)
def quadratic_is_a_fit_of_gelu() -> Evidence:
    error = np.abs(fit_activation() - np.array([0.0169394634313126, 0.5, 0.3078363963999393]))
    start = AliasFreeActivation(1).double().poly.coef[0].tolist()
    rest = symbolic.even_part_of_gelu()
    (x,) = rest.free_symbols
    return combine(
        at_most(error, 1e-12, label="fit against it"),
        at_most(np.abs(np.subtract(start, GELU_QUADRATIC)), 1e-7, label="layer's start"),
        true_that("slope 1/2, by algebra", 2 * symbolic.slope_of_fitted_gelu() == 1 and rest == rest.subs(x, -x)),
    )


@claim(
    source="the paper's normalisation, by Parseval's theorem",
    statement="Dividing by one standard deviation for the whole picture commutes with every translation; layer "
    "normalisation of each pixel, as in ConvNeXt, does not.",
)
def one_deviation_for_the_picture() -> Evidence:
    free = AliasFreeLayerNorm(8).double()
    usual = nn.LayerNorm(8, dtype=F64)
    with torch.no_grad():
        for layer in (free, usual):
            layer.weight.copy_(torch.linspace(0.5, 2, 8))
            layer.bias.copy_(torch.linspace(-1, 1, 8))
    exact, broken = [], []
    for seed in range(5):
        x = noise(seed, 2, 8, 32, 27)
        exact.append(equivariance_error(free, x, GENERIC_SHIFT))
        broken.append(equivariance_error(lambda y: usual(y.movedim(1, -1)).movedim(-1, 1), x, GENERIC_SHIFT))
    return combine(
        at_most(exact, 1e-12, label="whole picture"),
        at_least(broken, 1e-2, label="each pixel"),
        remark="float64, noise of 32 x 27 pixels in 8 channels",
    )


@claim(
    source="Theorem B, derived here",
    statement="The ideal low-pass commutes with convolution, so it can come before a convolution that runs with its "
    "stride, instead of behind one at full resolution: the same numbers for a small part of the work.",
)
def low_pass_may_come_first() -> Evidence:
    differences = []
    shapes = ((3, 8, 4, 4, 32), (6, 12, 2, 2, 20), (2, 3, 7, 3, 27))
    for seed, (inputs, outputs, kernel, stride, side) in enumerate(shapes):
        layer = drawn(partial(CircularConv2d, inputs, outputs, kernel, stride=stride, lowpass=True), seed)
        x = torch.randn(1, inputs, side, side, generator=torch.Generator().manual_seed(seed), dtype=F64)
        differences.append(from_plain(layer, x))
    return combine(
        at_most([value for value, *_ in differences], 1e-12, label="values"),
        at_most([gradients for _, *gradients in differences], 1e-12, label="gradients"),
        remark="against a convolution at full resolution, a low-pass by FFT, every r-th pixel; r = 4, 2, 3",
    )


def from_plain(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """How far a layer's values, and the gradients of its input and all parameters, are from those of its plain form.

    Each is the largest difference over the largest entry; gradients are those of a fixed random form of the values.
    """
    results = []
    for form in (layer, plain_version(layer)):
        place = x.clone().requires_grad_()
        values = form(place)
        weight = torch.randn(values.shape, generator=torch.Generator().manual_seed(7), dtype=F64)
        gradients = torch.autograd.grad((values * weight).sum(), (place, *form.parameters()))
        results.append([values.detach(), *gradients])
    return [(a - b).abs().max() / b.abs().max() for a, b in zip(*results, strict=True)]


@claim(
    source="Theorem D, derived here; 0.75 is the paper's code's",
    statement="The product of a picture with its low-pass to the part c of the band aliases, but outside what a "
    "following stride r keeps as long as c is at most 1 - 1/r: for r = 4 that is 0.75. Three bins more let them in.",
    paper="0.75 for a stride of 4",
)
def demodulating_stem_is_exact() -> Evidence:
    exact, above = [], []
    for stride in (2, 4):
        x = noise(stride, 1, 2, 64, 64)
        layer = DemodulatingStem(2, stride).double()
        with torch.no_grad():
            layer.gain.fill_(1.0)
        follows = IdealDownsample2d(stride)
        exact.append(equivariance_error(nn.Sequential(layer, follows), x, GENERIC_SHIFT, stride))
        # three bins more than it may keep; a product of two pictures as in the layer
        side = 64 - 64 // stride + 2 * 3
        above.append(
            equivariance_error(lambda y: follows(y * ideal_lowpass(y, (side, side))), x, GENERIC_SHIFT, stride)  # noqa: B023
        )
    return combine(
        at_most(exact, 1e-12, label="at 1 - 1/r"),
        at_least(above, 1e-3, label="three bins above"),
        remark="float64, 64 x 64 noise, strides 2 and 4",
    )


@claim(
    source="derived here: the fast form against the published one",
    statement="Ours and the published form (zeros between pixels, twice the grid, FFTs at full size) are the same "
    "function with the same gradients. Ours needs fewer than 0.72 of its multiplications, its FFTs not counted.",
)
def fast_form_is_the_same_function() -> Evidence:
    differences = []
    for side, channels in ((28, 24), (14, 48), (7, 96)):
        layer = drawn(partial(AliasFreeMLP, channels, in_scale=1.0, out_scale=1.0), side)
        differences.append(from_plain(layer, noise(side, 1, channels, side, side).movedim(1, -1)))
    make = partial(ConvNeXt, 3, 10, (1, 1, 1), (8, 16, 32), patch=4, layer_scale=0.1, init_std=None, act_scale=1.0)
    return combine(
        at_most([value for value, *_ in differences], 1e-12, label="values"),
        at_most([gradients for _, *gradients in differences], 1e-11, label="gradients"),
        at_most(from_plain(drawn(make), noise(0, 1, 3, 64, 64)), 1e-10, label="a whole network"),
        at_most(_saved_multiplications(), 0.72, label="multiplications", shown="< 0.72"),
        remark="blocks of 28, 14 and 7 pixels, a network of three stages, float64; multiplications in the four kinds "
        "of block of ConvNeXt-Tiny; times are in the benchmarks",
    )


def _saved_multiplications() -> list[float]:
    """Ours over the published form's, of matrix products as torch counts them, in ConvNeXt-Tiny's kinds of block."""
    from torch.utils.flop_counter import FlopCounterMode

    shares = []
    for side, channels in ((56, 96), (28, 192), (14, 384), (7, 768)):
        layer, x = AliasFreeMLP(channels), torch.zeros(1, side, side, channels)
        counts = []
        for form in (layer, plain_version(layer)):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                form(x)
            counts.append(counter.get_total_flops())
        shares.append(counts[0] / counts[1])
    return shares
