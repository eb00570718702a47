"""Every claim about rounding is seen to fail when the thing it speaks of is broken."""

from collections.abc import Callable
from dataclasses import replace as with_settings

import numpy as np
import pytest
import sympy as sp
import torch
from torch import nn

from lib.claims import Claim
from lib.four_bit import clipping_fit, fused_int4, integers, layers, logarithmic, multiplier_free, symbolic
from lib.four_bit import rounding_claims as claims_module
from tests.breaking import Break, replace

CLAIMS = {value.id: value for value in vars(claims_module).values() if isinstance(value, Claim)}

ROUNDING_MOMENTS = symbolic.rounding_moments
RELATIVE_VARIANCE = symbolic.relative_variance
RANDOM_MANTISSAS = logarithmic.random_mantissas
SCALE_OF = logarithmic.scale_of
LUQ_ENCODE = logarithmic.luq_encode


def with_other(function: Callable, **changed: object) -> Callable:
    """The same function, with some of its options set to other values, whatever the caller asks for."""
    return lambda *arguments, **options: function(*arguments, **{**options, **changed})


def scaled(function: Callable, factor: float) -> Callable:
    """The same function, with another result."""
    return lambda *arguments, **options: factor * function(*arguments, **options)


def half_the_random_integers(shape, *, generator=None):
    """A source that never draws from its upper half: too few numbers go up."""
    return RANDOM_MANTISSAS(shape, generator=generator) >> 1


def seldom_up(rand, x, generator):
    return half_the_random_integers(x.shape, generator=generator)


def unequal_moments():
    moments = ROUNDING_MOMENTS()
    return with_settings(moments, variance=2 * moments.variance)


def clipped_luq(x, **options):
    """A scale from less than the largest magnitude."""
    return logarithmic.luq(x, **{"max_abs": 0.9 * x.abs().max(), **options})


def noise_on_the_exponent(x, *, fmt, rand=None, generator=None):
    """Chance in the logarithm: numbers go up by the position of their logarithm, not of themselves."""
    levels = logarithmic.LOG_FORMATS[fmt]
    alpha = x.abs().max() / 2 ** (levels - 1)
    drawn = RANDOM_MANTISSAS(x.shape, generator=generator) if rand is None else rand
    y, u = x.abs() / alpha, drawn / 2**23
    inside = torch.exp2(torch.floor(torch.log2(y.clamp(min=1)) + u).clamp(max=levels - 1))
    return torch.sign(x) * alpha * torch.where(y < 1, torch.floor(y + u), inside)


def uniform_variance(x, *, max_abs):
    """Of levels at equal distances."""
    return integers.int4_mean_and_variance(x, max_abs=max_abs)[1]


def at_an_unchanged_power():
    t, ratio = RELATIVE_VARIANCE()
    return t, ratio * t**2


def more_levels(levels: int):
    return clipping_fit.fit_sawb(levels + 2)


def without_clipping(clip, density, end, last):
    """As if levels went on above the clip: the finest are the best."""
    x, weights = clipping_fit._quadrature(np.linspace(0, end, 400))
    scale = clip / last
    return float((weights * density(x) * (x - scale * np.rint(x / scale)) ** 2).sum())


def forgotten_sign(int4, codes):
    return multiplier_free.mf_product(int4, codes & 7)


def seven_for_eight(int4, codes):
    """A magnitude of three bits, in which -8 has no place."""
    return multiplier_free.mf_product(int4.clamp(min=-7), codes)


def in_half_precision(int4, codes):
    return int4.half() @ logarithmic.luq_decode(codes, 1.0).half()


def nearest_exponent(v):
    return torch.exp2(torch.round(torch.log2(v)))


def ties_down(v):
    return logarithmic.round_nearest_power(torch.nextafter(v, torch.zeros(())))


def one_code_a_byte(codes, check=True):
    return codes.reshape(-1).to(torch.uint8)


def rounded_down(max_abs, levels, *, pow2):
    alpha, lift = SCALE_OF(max_abs, levels, pow2=False)
    return (torch.exp2(torch.floor(torch.log2(alpha))) if pow2 else alpha), lift


def by_a_reciprocal(values, alpha, lift):
    return values.abs() * lift * (1 / alpha)


def of_other_integers(x, *, rand, **options):
    return LUQ_ENCODE(x, rand=rand ^ 1, **options)


def by_logarithms(y, drawn, levels, rounding, underflow):
    """Level numbers by `log2`, which is rounded near powers of two."""
    low = torch.where(y < 1, 0, torch.exp2(torch.floor(torch.log2(y.clamp(min=1)))))
    width = torch.where(y < 1, 1, low)
    up = (y - low) / width + drawn / 2**23 >= 1
    return (torch.where(y < 1, 0, torch.log2(width).int() + 1) + up).clamp(max=levels).int()


BREAKS: dict[str, list[Break]] = {
    "stochastic-rounding-is-unbiased": [
        replace(symbolic, "rounding_moments", unequal_moments),
        replace(symbolic, "mean_squared_errors", lambda: (sp.Rational(1, 4), sp.Rational(1, 12))),
        replace(claims_module, "int4_encode", with_other(integers.int4_encode, rounding="nearest")),
        replace(integers, "checked_mantissas", seldom_up),
        replace(claims_module, "luq_variance", scaled(logarithmic.luq_variance, 0.5)),
    ],
    "luq-is-unbiased-in-all-three-regions": [
        replace(claims_module, "luq", with_other(logarithmic.luq, underflow="flush")),
        replace(claims_module, "luq", with_other(logarithmic.luq, rounding="nearest")),
        replace(claims_module, "luq", clipped_luq),
        replace(claims_module, "luq", noise_on_the_exponent),
        replace(claims_module, "luq", with_other(logarithmic.luq, fmt="fp4")),
        replace(logarithmic, "random_mantissas", half_the_random_integers),
    ],
    "ablations-are-biased": [
        replace(claims_module, "luq_mean", with_other(logarithmic.luq_mean, underflow="stochastic")),
        replace(claims_module, "luq_mean", with_other(logarithmic.luq_mean, rounding="nearest")),
        replace(claims_module, "luq_mean", with_other(logarithmic.luq_mean, max_abs=None)),
        replace(claims_module, "luq", with_other(logarithmic.luq, rounding="stochastic")),
    ],
    "relative-variance-is-at-most-an-eighth": [
        replace(symbolic, "relative_variance", at_an_unchanged_power),
        replace(claims_module, "luq_variance", scaled(logarithmic.luq_variance, 1.01)),
        replace(claims_module, "luq_variance", uniform_variance),
    ],
    "forward-should-round-to-nearest": [
        replace(claims_module, "int4_encode", with_other(integers.int4_encode, rounding="nearest")),
        replace(claims_module, "int4_encode", with_other(integers.int4_encode, clip=1.0)),
        replace(integers, "checked_mantissas", seldom_up),
    ],
    "sawb-coefficients": [
        replace(claims_module, "fit_sawb", more_levels),
        replace(claims_module, "SAWB", (12.68, 12.80)),
        replace(clipping_fit, "_squared_error", without_clipping),
        replace(clipping_fit, "_DENSITIES", dict(list(clipping_fit._DENSITIES.items())[:2])),
    ],
    "multiplier-free-products-are-exact": [
        replace(claims_module, "mf_product", forgotten_sign),
        replace(claims_module, "mf_product", seven_for_eight),
        replace(claims_module, "mf_matmul", in_half_precision),
    ],
    "nearest-power-needs-the-arithmetic-midpoint": [
        replace(claims_module, "round_nearest_power", nearest_exponent),
        replace(claims_module, "round_nearest_power", ties_down),
        replace(symbolic, "exponent_rounding_disagreement", lambda: sp.log(sp.Rational(4, 3), 2) - sp.Rational(1, 2)),
    ],
    "packed-memory": [
        replace(layers, "PackedReLU", nn.ReLU),
        replace(fused_int4, "pack_nibbles", one_code_a_byte),
        replace(claims_module, "quantize_model", with_other(layers.quantize_model, skip=("first", "last"))),
    ],
    "relu-must-be-packed-too": [
        replace(layers, "PackedReLU", nn.ReLU),
        replace(claims_module, "PackedReLU", nn.ReLU),
        replace(fused_int4, "pack_bits", one_code_a_byte),
    ],
    "power-of-two-alpha-keeps-it-unbiased": [
        replace(logarithmic, "scale_of", rounded_down),
        replace(claims_module, "luq", with_other(logarithmic.luq, pow2_alpha=False)),
        replace(claims_module, "luq", with_other(logarithmic.luq, underflow="nearest")),
        replace(claims_module, "luq_mean", with_other(logarithmic.luq_mean, max_abs=None)),
    ],
    "one-formula-of-bits": [
        replace(logarithmic, "in_units", by_a_reciprocal),
        replace(logarithmic, "level_numbers", by_logarithms),
        replace(claims_module, "luq_encode", of_other_integers),
    ],
}


def test_every_claim_has_a_break() -> None:
    assert set(BREAKS) == set(CLAIMS)


@pytest.mark.parametrize(
    ("claim_id", "number"), [(name, number) for name, breaks in BREAKS.items() for number in range(len(breaks))]
)
def test_a_broken_implementation_is_noticed(claim_id: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    BREAKS[claim_id][number](monkeypatch)
    assert not CLAIMS[claim_id].check().evidence.holds
