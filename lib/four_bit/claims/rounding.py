"""The claims of chapter 04 about rounding, integers and memory: those that need no training.

Statements marked "derived here" are proved or measured by us; a paper's number is given where the paper has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.claims import Evidence, at_least, at_most, claim, combine, none, true_that, within
from lib.four_bit.clipping_fit import SAWBFit, fit_sawb
from lib.four_bit.comparison import ROUNDINGS
from lib.four_bit.integers import SAWB, int4_decode, int4_encode
from lib.four_bit.layers import LUQConfig, LUQLinear, PackedReLU, quantize_model
from lib.four_bit.logarithmic import (
    LOG_FORMATS,
    Rounding,
    luq,
    luq_decode,
    luq_encode,
    luq_mean,
    luq_variance,
    random_mantissas,
    round_nearest_power,
)
from lib.four_bit.multiplier_free import mf_matmul, mf_product
from lib.four_bit.saved_memory import saved_for_backward
from lib.models import fully_connected

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_REPEATS = 20_000
#: Random integers that lie evenly: the middles of 4096 equal parts of [0, 2^23).
_EVEN = torch.arange(1 << 10, 1 << 23, 1 << 11, dtype=torch.int32)
_FORMATS = "K = " + ", ".join(str(levels) for levels in sorted(LOG_FORMATS.values()))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _heavy_tailed(count: int, seed: int = 0) -> Tensor:
    """Lognormal magnitudes with random signs, as gradients have them; float32."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.choice([-1, 1], count) * np.exp(2 * rng.standard_normal(count))).float()


def _bins(x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The levels 0, alpha, 2 alpha, 4 alpha … around every magnitude, float64; not by the library's arithmetic."""
    _, exponent = torch.frexp(x.abs().double() / alpha)
    above = alpha * torch.exp2(exponent.double())
    small = exponent <= 0
    return torch.where(small, 0.0, above / 2), torch.where(small, alpha, above)


def _smallest_level(x: Tensor, levels: int) -> float:
    return float(x.abs().max()) / 2.0 ** (levels - 1)


def _int4(x: Tensor, **options: Any) -> Tensor:
    """Rounded to INT4 and decoded again, float64."""
    return int4_decode(*int4_encode(x, **options)).double()


def _deviations(x: Tensor, alpha: float, rounding: Rounding) -> tuple[float, float, float]:
    """Quantise often by `luq`, and compare mean and variance with those of the levels around every number.

    Returns the largest error of a mean in standard errors; the median relative error of a variance (of numbers whose
    rarer level has a chance of at least 5 %: of the others there are too few draws); and the largest error of a mean
    over its bin, or of a variance over its square, where random integers lie evenly.
    """
    low, high = _bins(x, alpha)
    size = x.abs().double()
    variance, width = (size - low) * (high - size), high - low
    draws = luq(x.expand(_REPEATS, -1), rounding, generator=_seeded(rounding.levels)).double()
    even = luq(x.expand(len(_EVEN), -1), rounding, rand=_EVEN[:, None].expand(-1, len(x))).double()
    # nothing is random on a level
    random, likely = variance > 0, variance > 0.05 * 0.95 * width**2
    error = (draws.mean(dim=0) - x).abs()
    score = torch.where(random, error / (variance / _REPEATS).sqrt(), 0 * error)  # 0 * NaN is NaN
    spread = (draws.var(dim=0, correction=0)[likely] / variance[likely] - 1).abs().median()
    bias = (even.mean(dim=0) - x).abs() / width
    excess = (even.var(dim=0, correction=0) - variance).abs() / width**2
    return float(score.max()), float(spread), float(torch.maximum(bias, excess).max())


def _unbiased(runs: Sequence[tuple[float, float, float]]) -> Evidence:
    score, spread, integral = zip(*runs, strict=True)
    return combine(
        at_most(score, 5.0, label="largest error of a mean, in standard errors", shown="< 5"),
        at_most(spread, 0.02, label="median error of a variance", shown="< 2%"),
        at_most(integral, 2**-12, label="integrated: bias / bin, variance / bin²", shown="< 2⁻¹²"),
    )


@claim(
    source="Section 3.1, Eqs. 4-6, Table 1",
    statement="A number that is rounded up or down by chance, by its position between two levels, is right on "
    "average; the price is squared error, nowhere less than that of rounding to nearest, and twice it over a bin.",
)
def stochastic_rounding_is_unbiased() -> Evidence:
    import sympy as sp

    from lib.four_bit import symbolic

    m = symbolic.rounding_moments()
    identities = [
        m.bias.subs(m.chance, m.position),
        m.variance.subs(m.chance, m.position) - (m.x - m.low) * (m.high - m.x),
        m.mean_squared_error - m.bias**2 - m.variance,
    ]
    by_chance, to_nearest = symbolic.mean_squared_errors()

    clip = 3.3
    x = torch.from_numpy(np.random.default_rng(0).uniform(-clip, clip, 100_000)).float()
    scale = float(int4_encode(x, clip=clip)[1])
    nearest = (_int4(x, clip=clip) - x).square()
    generator = _seeded(0)
    draws = [_int4(x, clip=clip, rounding="stochastic", generator=generator) for _ in range(10)]
    errors = torch.stack(draws) - x

    few = x[:256]
    rand = _EVEN[:, None].expand(-1, len(few))
    values = _int4(few.expand(len(_EVEN), -1), clip=clip, rounding="stochastic", rand=rand)
    low = scale * torch.floor(few.double() / scale)
    variance = (few - low) * (low + scale - few)

    # the bins of the logarithmic grid are of many widths
    heavy = _heavy_tailed(100_000)
    exact = luq_variance(heavy)
    rounded = (luq_mean(heavy, Rounding(**ROUNDINGS["nearest"])) - heavy).square()
    return combine(
        true_that("sympy: bias, variance and MSE", [sp.simplify(identity) == 0 for identity in identities]),
        true_that("sympy: ratio 2 over a bin", sp.simplify(by_chance / to_nearest) == 2),
        at_most((values.mean(0) - few).abs() / scale, 2**-12, label="bias / bin", shown="< 2⁻¹²"),
        at_most(
            (values.var(0, correction=0) - variance).abs() / scale**2, 2**-12, label="variance / bin²", shown="< 2⁻¹²"
        ),
        within(errors.square().mean() / nearest.mean(), 1.98, 2.02, label="sampled ratio"),
        none(~(rounded <= exact * (1 + 1e-6) + 1e-12 * heavy.square()), "numbers where chance has less error"),
        remark="256 numbers integrated over 4096 random integers; 100,000 numbers in INT4, 10 draws each, and in FP4",
    )


@claim(
    source="Section 4, Eqs. 10-16",
    statement="The logarithmic quantiser is right on average for small numbers, for those between two levels and "
    "for the largest; its variance is that of rounding by chance.",
)
def luq_is_unbiased_in_all_three_regions() -> Evidence:
    x = _heavy_tailed(64)
    top = x[x.abs().argmax()]
    runs, kept = [], []
    for fmt, levels in LOG_FORMATS.items():
        runs.append(_deviations(x, _smallest_level(x, levels), Rounding(fmt)))
        kept.append(luq(top.expand(_REPEATS), Rounding(fmt), generator=_seeded(levels)) == top)
    return combine(
        _unbiased(runs),
        true_that("the largest is always kept", kept),
        remark=f"64 lognormal numbers, {_FORMATS}; 20,000 draws each, and integrated over 4096 random integers",
    )


@claim(
    source="Section 4, Eqs. 10-16; measured here",
    statement="Each of the three parts is needed: without chance below the smallest level, without chance between "
    "levels, or with a scale that clips, the mean is off in just that region.",
)
def ablations_are_biased() -> Evidence:
    x = _heavy_tailed(64)
    size = x.abs().double()
    alpha = _smallest_level(x, LOG_FORMATS["fp4"])
    low, high = _bins(x, alpha)
    yard = ((size - low) * (high - size) / _REPEATS).sqrt()
    regions = {"below": size < alpha, "inside": (size > alpha) & ~(yard <= 0)}
    fails = {
        "naive": ("below", "inside"),
        "stochastic rounding only": ("below",),
        "stochastic underflow only": ("inside",),
    }
    off: list[float] = []
    right: list[float] = []
    sampled = []
    for seed, name in enumerate(fails):
        rounding = Rounding(**ROUNDINGS[name])
        mean, variance = luq_mean(x, rounding), luq_variance(x, rounding)
        bias = (mean - x).abs() / yard
        for region, members in regions.items():
            (off if region in fails[name] else right).append(float(bias[members].median()))
        draws = luq(x.expand(_REPEATS, -1), rounding, generator=_seeded(seed)).double()
        error = (draws.mean(dim=0) - mean).abs() / ((variance / _REPEATS).sqrt() + 1e-6 * size)
        sampled.append(error)
    clipped = luq_mean(x, max_abs=x.abs().max() / 4).abs()
    lost = (1 - clipped / size).max()
    return combine(
        at_least(off, 20, label="median bias where a part is missing, in standard errors"),
        at_most(right, 0.01, label="where it is not", shown="< 0.01"),
        within(lost, 0.74, 0.76, label="part of the largest that a scale of max / 4 loses"),
        at_most(sampled, 5.0, label="samples against `luq_mean`", shown="< 5"),
        remark="64 lognormal numbers, K = 7; standard errors of 20,000 draws without the ablation",
    )


@claim(
    source="derived here",
    statement="Between two powers of two the variance is at most an eighth of the square of the number, whatever its "
    "size: that is why levels that double suit gradients of very different sizes.",
)
def relative_variance_is_at_most_an_eighth() -> Evidence:
    import sympy as sp

    from lib.four_bit import symbolic

    t, ratio = symbolic.relative_variance()
    peaks = [(place, ratio.subs(t, place)) for place in sp.solve(ratio.diff(t), t)]

    positions = np.arange(3000, 6000) / 3000
    x = torch.from_numpy(positions * np.exp2(np.arange(6))[:, None]).float()
    measured = luq_variance(x, max_abs=64.0) / x.double().square()
    places = positions[measured.argmax(dim=1)]
    return combine(
        true_that("sympy: 1/8, at 4/3 of the lower power", peaks == [(sp.Rational(4, 3), sp.Rational(1, 8))]),
        within(measured.max(), 0.1249, 0.1251, label="largest", digits=3),
        at_most(np.abs(places - 4 / 3), 1e-3, label="its place against 4/3", shown="< 1e-3"),
        at_most((measured - measured[0]).abs(), 1e-12, label="difference between octaves"),
        remark="3000 numbers in each of the six octaves of K = 7",
    )


def _relative_error(x: Tensor, w: Tensor, rounding: str, clip: str | float) -> float:
    """Relative rms error of a product of matrices in INT4, summed in float64."""
    generator = _seeded(0)
    a, b = (_int4(part, clip=clip, rounding=rounding, generator=generator) for part in (x, w))
    exact = x.double() @ w.double()
    return float((a @ b - exact).norm() / exact.norm())


@claim(
    source="Section 3.2, Eq. 9, Figure 1; measured here",
    statement="In a single forward pass rounding by chance adds error: a product of INT4 matrices is closer to the "
    "exact one when both are rounded to nearest.",
)
def forward_should_round_to_nearest() -> Evidence:
    generators = [np.random.default_rng(seed) for seed in range(5)]
    pairs = [[torch.from_numpy(rng.standard_normal(s)).float() for s in ((256, 64), (64, 32))] for rng in generators]
    nearest, chance, nearest_whole, chance_whole = (
        np.array([_relative_error(x, w, rounding, clip) for x, w in pairs])
        for clip in (2.4, "max")
        for rounding in ("nearest", "stochastic")
    )
    whole = (chance_whole / nearest_whole).mean()
    return combine(
        within(nearest.mean(), 0.155, 0.175, label="error to nearest"),
        within(chance.mean(), 0.2, 0.225, label="by chance"),
        at_least(chance / nearest, 1.1, label="least ratio"),
        within(whole / np.sqrt(2), 0.97, 1.03, label="ratio without clipping / √2", digits=1),
        remark="Gaussian 256 × 64 and 64 × 32, 5 seeds; clipped at 2.4 standard deviations, or at the largest",
    )


@claim(
    source="Section 6 (SAWB, Choi et al. 2018); derived here",
    statement="The two published pairs of numbers that turn two moments of a tensor into its clip lie close to "
    "straight lines through the best clips of six distributions: one for 15 levels, one for 17.",
    paper="(12.1, 12.2) in the authors' code; (12.68, 12.80) elsewhere",
)
def sawb_coefficients() -> Evidence:
    fifteen, seventeen = fit_sawb(15), fit_sawb(17)

    def distance(fit: SAWBFit, *other: float) -> Array:
        return np.abs(np.subtract(fit.coeffs, other))

    clips = SAWB[0] * fifteen.moments - SAWB[1]
    return combine(
        at_most(distance(fifteen, 12.03, 12.10), 0.3, label="15 levels against (12.03, 12.10)", shown="< 0.3"),
        at_most(distance(seventeen, 12.58, 12.72), 0.3, label="17 levels against (12.58, 12.72)", shown="< 0.3"),
        at_most(distance(seventeen, 12.68, 12.80), 0.1, label="against (12.68, 12.80)", shown="< 0.1"),
        at_most(np.abs(clips / fifteen.clips - 1), 0.15, label="clip by (12.1, 12.2) against best", shown="< 15%"),
        remark="exact fits: ({:.2f}, {:.2f}) and ({:.2f}, {:.2f}); (12.03, 12.10) and (12.58, 12.72) are fits to "
        "200,000 samples".format(*fifteen.coeffs, *seventeen.coeffs),
    )


def _fits_float(values: Tensor, exponents: int, mantissa_bits: int) -> bool:
    """Whether all numbers are zero, or a signed float of few bits with that many different exponents."""
    fractions, powers = torch.frexp(values[values != 0].double())
    scaled = fractions * 2 ** (mantissa_bits + 1)
    return bool((scaled == scaled.round()).all()) and int(powers.max() - powers.min()) < exponents


@claim(
    source="Section 7, Appendix A.8",
    statement="An integer times a power of two needs no multiplier: shifting the bits and comparing two signs gives "
    "every product exactly, and each fits in a float of seven bits.",
)
def multiplier_free_products_are_exact() -> Evidence:
    integers, codes = torch.arange(-8, 8), torch.arange(16, dtype=torch.uint8)
    real = integers[:, None].double() * luq_decode(codes, 1.0).double()
    products = mf_product(integers[:, None], codes[None])

    rng = np.random.default_rng(0)
    w, g = torch.from_numpy(rng.integers(-8, 8, (64, 96))), torch.from_numpy(rng.integers(0, 16, (96, 80)))
    whole = w.double() @ luq_decode(g, 1.0).double()
    return combine(
        none(products != real, "wrong products of 256"),
        none(mf_matmul(w, g) != whole, "wrong entries of a product of matrices"),
        within(products.abs().max(), 512, 512, label="largest for -8 … 7", digits=3),
        within(products[1:].abs().max(), 448, 448, label="for -7 … 7", digits=3),
        # one of the 16 exponents stands for zero
        true_that("all fit in [1, 4, 2]", _fits_float(products, 15, 2)),
        remark="INT4 times FP4, all 16 × 16; integers 64 × 96 times powers 96 × 80 against float64",
    )


@claim(
    source="Section 4, Eqs. 13-14; derived here",
    statement="To round to the nearest power of two the boundary must lie at 3/4 of the upper power; rounding the "
    "exponent puts it at 0.707, and sends 8.5 % of all numbers the wrong way.",
    paper="shift of the exponent by 0.084",
)
def nearest_power_needs_the_arithmetic_midpoint() -> Evidence:
    from lib.four_bit import symbolic

    rng = np.random.default_rng(0)
    v = torch.from_numpy(np.exp2(rng.uniform(-10, 10, 1_000_000))).float()
    # boundaries themselves, where ties go up
    v[:20] = torch.from_numpy(1.5 * np.exp2(np.arange(-10, 10))).float()
    exact = v.double()
    low = exact / torch.frexp(exact)[0] / 2
    expected = torch.where(exact - low < 2 * low - exact, low, 2 * low)
    ours = round_nearest_power(v).double()
    by_exponent = torch.exp2(torch.round(torch.log2(exact)))
    disagreement = float((by_exponent != ours).double().mean())
    off = abs(disagreement - float(symbolic.exponent_rounding_disagreement()))
    return combine(
        none(ours != expected, "numbers that go to another than the nearest"),
        within(disagreement, 0.083, 0.087, label="part that rounding the exponent misplaces"),
        at_most(off, 0.002, label="against log₂(3/2) - 1/2", shown="< 0.002"),
        remark="10⁶ numbers from 2⁻¹⁰ to 2¹⁰, even in their logarithm",
    )


def _bytes(count: int, expected: int, label: str) -> Evidence:
    return Evidence(f"{label} {count:,} B", f"{expected:,} B", count == expected)


def _kept(forward: nn.Module, x: Tensor, parameters: Iterable[Tensor] = ()) -> int:
    """Bytes that a pass holds for backward."""
    return saved_for_backward(lambda: forward(x), parameters).total


def _network() -> nn.Sequential:
    return fully_connected((784, 512, 512, 512, 10), activation="relu", generator=_seeded(0))


def _images(count: int) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=_seeded(1))


@claim(
    source="derived here",
    statement="Keeping packed 4-bit codes and one bit a ReLU, a network holds for backward less than a fifth of the "
    "bytes that it holds in 32 bits; the activations of one layer an eighth.",
)
def packed_memory() -> Evidence:
    layer, hidden = nn.Linear(512, 512), torch.rand(1024, 512, generator=_seeded(0))
    four_bit = LUQLinear.from_float(layer, LUQConfig())
    plain, ours = (_kept(each, hidden, each.parameters()) for each in (layer, four_bit))
    convolutions = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 14 * 14, 10),
    )
    ratios = []
    for model, images in ((_network(), _images(1024)), (convolutions, _images(64))):
        small = quantize_model(model, skip=())
        ratios.append(_kept(model, images, model.parameters()) / _kept(small, images, small.parameters()))
    return combine(
        _bytes(plain, 2_097_152, "a layer in FP32"),
        # codes of activations and of weights, and two scales
        _bytes(ours, 393_224, "in 4 bits, with its weights"),
        at_least(ratios[0], 5, label="times less: 784-512-512-512-10"),
        at_least(ratios[1], 5, label="a convnet"),
        remark="layer 512 → 512 and network at batch 1024; two convolutions and a linear layer at batch 64; all "
        "layers in 4 bits, FP32 parameters not counted",
    )


@claim(
    source="derived here",
    statement="Four-bit layers alone save little memory, since an ordinary ReLU keeps its whole output for itself: "
    "it must keep a single bit a number instead.",
)
def relu_must_be_packed_too() -> Evidence:
    model, images = _network(), _images(1024)
    packed = quantize_model(model, skip=())
    layers = [nn.ReLU() if isinstance(layer, PackedReLU) else layer for layer in packed.children()]
    nets = (model, nn.Sequential(*layers), packed)
    plain, half_way, ours = (_kept(nn.Sequential(net, nn.LogSoftmax(dim=1)), images) for net in nets)
    return combine(
        _bytes(plain, 11_661_312, "FP32"),
        _bytes(half_way, 7_985_696, "4-bit layers"),
        _bytes(ours, 1_890_848, "and packed ReLUs"),
        at_least(plain / ours, 5, label="times less"),
        remark="784-512-512-512-10 at batch 1024 with its log-softmax; weights that backward needs are counted",
    )


@claim(
    source="Section 7, Appendix A.7; our formula",
    statement="The smallest level may be rounded up to a power of two, so that scaling is arithmetic of exponents: "
    "the mean stays right, the variance below it becomes |x|(α′ - |x|). Rounded down, the largest are clipped.",
)
def power_of_two_alpha_keeps_it_unbiased() -> Evidence:
    x = _heavy_tailed(64)
    runs, powers, lost = [], [], []
    for fmt, levels in LOG_FORMATS.items():
        rounding = Rounding(fmt, pow2_alpha=True)
        rounded = float(luq_encode(x, rounding)[1])
        powers.append(rounded == 2.0 ** np.ceil(np.log2(_smallest_level(x, levels))))
        runs.append(_deviations(x, rounded, rounding))
        clipped = luq_mean(x, Rounding(fmt), max_abs=rounded / 2 * 2.0 ** (levels - 1))
        lost.append((1 - clipped / x).max())
    return combine(
        true_that("the power of two above α", powers),
        _unbiased(runs),
        at_least(lost, 0.1, label="part of the largest that rounding down loses"),
        remark=f"64 lognormal numbers, {_FORMATS}; 20,000 draws each, and integrated over 4096 random integers",
    )


@claim(
    source="derived here",
    statement="One addition of integers to the bits of a float does all of it: underflow by chance, rounding by "
    "chance and the exponent, the same as the definition with the same random numbers, without one exception.",
)
def one_formula_of_bits() -> Evidence:
    count, looked, wrong = 1_000_000, 0, []
    for fmt, levels in LOG_FORMATS.items():
        x = _heavy_tailed(count, levels)
        alpha = np.float32(_smallest_level(x, levels))
        powers = alpha * np.exp2(np.arange(-20, levels - 1)).astype(np.float32)
        special = np.concatenate([powers, np.nextafter(powers, np.float32(0)), np.nextafter(powers, 4 * powers), [0]])
        # and the largest, which is in `x` already, with its neighbour
        special = np.concatenate([special, -special, [np.nextafter(2 ** (levels - 1) * alpha, 0)]])
        x = torch.cat([x, torch.from_numpy(special).float()])

        # the definition: positions between levels and comparisons, in float64
        y = (x.abs() / float(alpha)).double()
        low, high = _bins(y, 1.0)
        position = torch.round((y - low) / (high - low) * 2**23).int()
        # a third of the random numbers at the very edge, where one more or less decides
        rand = random_mantissas(x.shape, generator=_seeded(levels))
        rand[::6], rand[1::6] = 2**23 - position[::6], 2**23 - position[1::6] - 1
        rand = rand.clamp(0, 2**23 - 1)
        expected = torch.sign(x) * float(alpha) * torch.where(position + rand >= 2**23, high, low)
        ours = luq_decode(*luq_encode(x, Rounding(fmt), rand=rand), fmt=fmt)
        wrong.append(ours != expected)
        looked += len(x)
    return combine(
        none(wrong, "values differ"),
        at_least(looked / 1e6, 5, label="million values"),
        remark=f"{_FORMATS}; with powers of two and their neighbours; a third of the random integers at the very edge",
    )
