"""The quantiser of gradients, beside its claims: levels, modes, sizes, the known mean and variance of each mode."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.four_bit import (
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


def heavy_tailed(count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.choice([-1, 1], count) * np.exp(2 * rng.standard_normal(count))).float()


@pytest.mark.parametrize("rounding", ["stochastic", "nearest", "down"])
@pytest.mark.parametrize("underflow", ["stochastic", "nearest", "flush"])
def test_mean_and_variance_of_every_ablation(rounding, underflow) -> None:
    """Over random integers that lie evenly: up to their distance."""
    x, mode = heavy_tailed(200), Rounding(rounding=rounding, underflow=underflow)
    even = torch.arange(1 << 10, 1 << 23, 1 << 11, dtype=torch.int32)
    values = luq(x.expand(len(even), -1), mode, rand=even[:, None].expand(-1, len(x))).double()
    alpha = float(x.abs().max()) / 64
    bins = alpha * 2.0 ** torch.floor(torch.log2((x.abs() / alpha).clamp(min=1))).double()
    mean, variance = luq_mean(x, mode), luq_variance(x, mode)
    assert float(((values.mean(0) - mean).abs() / bins).max()) <= 2**-12
    assert float(((values.var(0, correction=0) - variance).abs() / bins**2).max()) <= 2**-11
    if rounding == underflow == "stochastic":
        assert float((mean - x.double()).abs().max()) < 1e-5 * float(x.abs().max())
    else:
        assert float((mean - x.double()).abs().max()) > 1e-3 * float(x.abs().max())


def test_levels_signs_and_zero() -> None:
    x = torch.tensor([64.0, -32.0, 2.0, -1.0, 0.0, -0.0])
    codes, alpha = luq_encode(x)
    assert codes.tolist() == [7, 14, 2, 9, 0, 0]
    assert alpha.item() == 1.0
    assert luq_encode(x, Rounding(pow2_alpha=True))[1].item() == 1.0  # it is one already
    assert luq(x, max_abs=16.0)[0].item() == luq_mean(x, max_abs=16.0)[0].item() == 16.0


@pytest.mark.parametrize("fmt", LOG_FORMATS)
def test_every_code_of_a_format_is_decoded(fmt) -> None:
    levels, sign = LOG_FORMATS[fmt], 16 if fmt == "reference" else 8
    codes, _ = luq_encode(heavy_tailed(10_000), Rounding(fmt))
    assert len(codes.unique()) <= 2 * levels + 1
    assert int(codes.max()) < 2 * sign
    k = torch.arange(levels + 1)
    expected = torch.where(k > 0, 2.0 ** (k - 1), 0.0)
    assert torch.equal(luq_decode(k, 1.0, fmt=fmt), expected)
    assert torch.equal(luq_decode(k + sign, 1.0, fmt=fmt), -expected)


def test_nearest_and_down_are_the_same_addition_with_a_constant() -> None:
    y = torch.tensor([64.0, 1.49, 1.5, 2.99, 3.0, 0.49, 0.5])
    assert luq(y, Rounding(rounding="nearest", underflow="nearest")).tolist() == [64, 1, 2, 2, 4, 0, 1]
    assert luq(y, Rounding(rounding="down", underflow="flush")).tolist() == [64, 1, 1, 2, 2, 0, 0]


@given(st.integers(0, 10_000), st.floats(-140, 120), st.sampled_from(sorted(LOG_FORMATS)))
def test_the_maximum_is_kept_and_scaling_by_powers_of_two_changes_nothing(seed: int, exponent: float, fmt: str) -> None:
    x = heavy_tailed(100, seed)
    rand = random_mantissas(x.shape, generator=torch.Generator().manual_seed(seed))
    codes, _ = luq_encode(x, Rounding(fmt), rand=rand)
    top = int(x.abs().argmax())
    assert int(codes[top]) & 7 == LOG_FORMATS[fmt] & 7
    scaled = x * 2.0 ** int(exponent / 2)
    again, _ = luq_encode(scaled, Rounding(fmt), rand=rand)
    assert torch.equal(codes, again)


def test_tiny_huge_and_empty_tensors() -> None:
    for scale in (2.0**-120, 2.0**-140, 2.0**100):
        x = heavy_tailed(1000) * scale
        value = luq(x, Rounding(rounding="nearest", underflow="nearest"))
        assert bool(torch.isfinite(value).all())
        assert float((value - x).abs().max()) <= 0.34 * float(x.abs().max())
    codes, alpha = luq_encode(torch.zeros(5))
    assert codes.tolist() == [0] * 5
    assert alpha.item() == 0.0
    assert luq(torch.zeros(0, 3)).shape == (0, 3)


def test_samples_are_averaged_and_gradients_pass_through() -> None:
    x = heavy_tailed(2000).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    luq(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    half = luq(x.detach().half())
    assert half.dtype == torch.float16
    rand = random_mantissas((3, 2000), generator=generator)
    assert torch.equal(luq(x, samples=3, rand=rand), sum(luq(x, rand=r) for r in rand) / 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: luq(x, "fp3"), r"rounding must be a Rounding, such as Rounding\(fmt='fp3'\)"),
        (lambda x: luq_encode(x, rand=torch.zeros(3)), "rand must be an int32 tensor"),
        *((lambda x, r=r: luq_encode(x, rand=torch.full((2,), r).int()), "rand must lie in") for r in (-1, 1 << 23)),
        (lambda x: luq(x, samples=2, rand=torch.zeros(2, dtype=torch.int32)), "leading axis of length 2"),
        (lambda x: round_nearest_power(-x), "positive normal"),
        *(
            (lambda _, code=code, fmt=fmt: luq_decode(torch.tensor([code]), 1.0, fmt=fmt), "codes must be levels 0 to")
            for fmt, many in {"fp4": (16, -1), "printed": (6,), "fp3": (4,), "fp2": (10,), "reference": (32, 9)}.items()
            for code in many
        ),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call(torch.ones(2))
