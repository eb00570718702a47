"""The quantiser of gradients: exact where it must be, right on average, the ablations not."""

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

MANTISSAS = 1 << 23


def heavy_tailed(count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.choice([-1, 1], count) * np.exp(2 * rng.standard_normal(count))).float()


def by_definition(x: np.ndarray, levels: int, rand: np.ndarray) -> np.ndarray:
    """Stochastic underflow, then stochastic rounding between powers of two, word by word in float64."""
    alpha = np.abs(x).max() / 2.0 ** (levels - 1)
    y, u = np.abs(x) / alpha, rand / MANTISSAS
    low = np.where(y < 1, 0.0, 2.0 ** np.floor(np.log2(np.maximum(y, 1))))
    high = np.where(y < 1, 1.0, 2 * low)
    return np.sign(x) * alpha * np.where((y - low) / (high - low) + u >= 1, high, low)


@pytest.mark.parametrize("fmt", LOG_FORMATS)
def test_one_addition_is_the_definition(fmt: str) -> None:
    x = heavy_tailed(5000).double()
    rand = random_mantissas(x.shape, generator=torch.Generator().manual_seed(1))
    ours = luq(x, Rounding(fmt), rand=rand).numpy()
    expected = by_definition(x.float().double().numpy(), LOG_FORMATS[fmt], rand.numpy().astype(np.float64))
    # y + 1 is rounded to a multiple of 2^-23, and so is y / alpha: a draw on the very edge may fall the other way
    assert np.mean(~np.isclose(ours, expected, rtol=1e-6)) < 1e-3


@pytest.mark.parametrize("fmt", LOG_FORMATS)
def test_unbiased_with_the_known_variance_on_a_grid_of_random_numbers(fmt: str) -> None:
    """The mean over an even grid of random integers is the expectation, up to the grid's width."""
    x = heavy_tailed(64)
    grid = torch.arange(0, MANTISSAS, MANTISSAS // 4096, dtype=torch.int32) + MANTISSAS // 8192
    rand = grid[:, None].expand(-1, len(x))
    values = luq(x.expand(len(grid), -1), Rounding(fmt), rand=rand).double()
    alpha = float(x.abs().max()) / 2.0 ** (LOG_FORMATS[fmt] - 1)
    bins = alpha * 2.0 ** torch.floor(torch.log2((x.abs() / alpha).clamp(min=1))).double()
    assert float(((values.mean(0) - x.double()).abs() / bins).max()) <= 2**-12
    variance = luq_variance(x, Rounding(fmt))
    np.testing.assert_allclose(values.var(0, correction=0), variance, atol=2e-3 * float(bins.max()) ** 2)
    np.testing.assert_allclose(luq_mean(x, Rounding(fmt)), x.double(), rtol=1e-6)


@pytest.mark.parametrize("rounding", ["stochastic", "nearest", "down"])
@pytest.mark.parametrize("underflow", ["stochastic", "nearest", "flush"])
def test_mean_and_variance_of_every_ablation(rounding, underflow) -> None:
    x = heavy_tailed(200)
    generator = torch.Generator().manual_seed(0)
    mode = Rounding(rounding=rounding, underflow=underflow)
    values = luq(x.expand(4000, -1), mode, generator=generator).double()
    mean, variance = luq_mean(x, mode), luq_variance(x, mode)
    error = (values.mean(0) - mean).abs()
    assert bool((error <= 5 * (variance / 4000).sqrt() + 1e-5 * mean.abs() + 1e-12).all())
    if rounding == underflow == "stochastic":
        assert float((mean - x.double()).abs().max()) < 1e-5 * float(x.abs().max())
    else:
        assert float((mean - x.double()).abs().max()) > 1e-3 * float(x.abs().max())


def test_levels_signs_and_zero() -> None:
    x = torch.tensor([64.0, -32.0, 2.0, -1.0, 0.0, -0.0])
    codes, alpha = luq_encode(x)
    assert codes.tolist() == [7, 14, 2, 9, 0, 0]
    assert alpha.item() == 1.0
    assert luq_decode(codes, alpha).tolist() == [64.0, -32.0, 2.0, -1.0, 0.0, 0.0]
    for fmt, levels in LOG_FORMATS.items():
        codes, _ = luq_encode(heavy_tailed(10_000), Rounding(fmt))
        assert len(codes.unique()) <= 2 * levels + 1
        assert int(codes.max()) < (16 if levels <= 7 else 32)


@pytest.mark.parametrize("fmt", LOG_FORMATS)
def test_every_code_of_a_format_is_decoded(fmt) -> None:
    levels, sign = LOG_FORMATS[fmt], 16 if fmt == "reference" else 8
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


def test_clipping_saturates_and_shows_in_the_mean() -> None:
    x = torch.tensor([100.0, 3.0])
    assert luq(x, max_abs=64.0)[0].item() == 64.0
    assert luq_mean(x, max_abs=64.0)[0].item() == 64.0


def test_a_power_of_two_for_alpha_never_clips() -> None:
    x = heavy_tailed(1000)
    _, exact = luq_encode(x)
    _, rounded = luq_encode(x, Rounding(pow2_alpha=True))
    assert exact.item() <= rounded.item() < 2 * exact.item()
    assert float(torch.log2(rounded)) == round(float(torch.log2(rounded)))
    assert luq_encode(torch.tensor([64.0]), Rounding(pow2_alpha=True))[1].item() == 1.0


def test_samples_divide_the_variance_and_gradients_pass_through() -> None:
    x = heavy_tailed(2000).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    whole = float(luq_variance(x).sum())
    for samples in (1, 4, 16):
        draws = luq(x.detach().expand(200, -1), samples=samples, generator=generator)
        # the squared error of one draw has heavy tails too: a few large entries carry most of it
        assert float((draws - x.detach()).square().sum(1).mean()) == pytest.approx(whole / samples, rel=0.2)
    luq(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    half = luq(x.detach().half())
    assert half.dtype == torch.float16
    rand = random_mantissas((3, 2000), generator=generator)
    assert torch.equal(luq(x, samples=3, rand=rand), sum(luq(x, rand=r) for r in rand) / 3)


def test_nearest_power_and_the_bias_of_rounding_exponents() -> None:
    v = torch.exp2(torch.rand(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20 - 10)
    v = v.float()
    nearest = round_nearest_power(v).double()
    lower = torch.exp2(torch.floor(torch.log2(v.double())))
    expected = torch.where(v.double() >= 1.5 * lower, 2 * lower, lower)
    assert torch.equal(nearest, expected)
    np.testing.assert_array_equal(nearest, torch.exp2(torch.floor(torch.log2(4 * v.double() / 3))))
    by_exponent = torch.exp2(torch.round(torch.log2(v.double())))
    assert float((by_exponent != nearest).double().mean()) == pytest.approx(np.log2(1.5) - 0.5, abs=2e-3)
