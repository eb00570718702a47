"""Random numbers by place and seed: as good as drawn ones for rounding, and the same everywhere."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from lib.counter import FIRST_MULTIPLIER, SECOND_MULTIPLIER, counter_keys
from lib.four_bit import counter_mantissas

COUNT = 1 << 18
MANTISSAS = 1 << 23


def uniform(seed: int) -> np.ndarray:
    return (counter_mantissas((COUNT,), seed).double().numpy() + 0.5) / MANTISSAS


def by_hand(place: int, seed: int) -> int:
    """The hash in Python's integers."""
    first, second = (key & 0xFFFFFFFF for key in counter_keys(seed))
    word = place ^ first
    for key in (0, second):
        word = (word + key) & 0xFFFFFFFF
        word = (word ^ (word >> 16)) * FIRST_MULTIPLIER & 0xFFFFFFFF
        word = (word ^ (word >> 15)) * SECOND_MULTIPLIER & 0xFFFFFFFF
    return word >> 9


@pytest.mark.parametrize("seed", [0, 1, -1, 2**64 - 1, 123456789])
def test_eager_integers_are_the_hash(seed: int) -> None:
    for start in (0, 32_767, 2**31 - 2, 2**32 - 2):
        drawn = counter_mantissas((5,), seed, start=start)
        assert drawn.dtype == torch.int32
        assert drawn.tolist() == [by_hand((start + i) & 0xFFFFFFFF, seed) for i in range(5)]
    whole = counter_mantissas((70_000,), seed)
    assert torch.equal(whole[33_000:], counter_mantissas((37_000,), seed, start=33_000))


@pytest.mark.parametrize("seed", [0, 10**9])
def test_moments_and_bits(seed: int) -> None:
    u = uniform(seed)
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / COUNT)
    assert abs(u.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / COUNT)
    mantissas = counter_mantissas((COUNT,), seed).numpy()
    assert mantissas.min() >= 0
    assert mantissas.max() < MANTISSAS
    for high in (15, 7, 0):  # the top, middle and low eight bits
        observed = np.bincount(mantissas >> high & 255, minlength=256)
        statistic = ((observed - COUNT / 256) ** 2).sum() / (COUNT / 256)
        assert chi2.ppf(1e-5, 255) < statistic < chi2.ppf(1 - 1e-5, 255)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_no_correlation_of_neighbours_halves_and_seeds() -> None:
    """Rounding neighbours, rows, or the same entry at two steps with related numbers would not average out."""
    bound = 5 / np.sqrt(COUNT / 2)
    streams = {seed: uniform(seed) for seed in (0, 1, 2, 2**32, -1)}
    zero = streams[0]
    for lag in (1, 2, 3, 4, 16, 64, 1024, 4096, COUNT // 2):
        assert abs(correlation(zero[lag:], zero[:-lag])) < bound, lag
    for seed, other in streams.items():
        if seed:
            assert abs(correlation(zero, other)) < bound, seed
            assert abs(correlation(zero[1:], other[:-1])) < bound, seed
            # not the same numbers in another order either: some are shared by chance
            assert np.isin(zero, other).mean() == pytest.approx(1 - np.exp(-COUNT / MANTISSAS), abs=5e-3)
    # the place is mixed into every bit: flipping one bit of it flips half of the bits of the number
    base = counter_mantissas((COUNT,), 7).numpy()
    for bit in (0, 5, 13, 17):
        flipped = np.bitwise_count(base ^ base[np.arange(COUNT) ^ (1 << bit)]).mean() / 23
        assert abs(flipped - 0.5) < 2e-3


def test_seeds_have_their_own_keys() -> None:
    keys = {counter_keys(seed) for seed in range(10_000)}
    assert len(keys) == 10_000
    assert all(-(2**31) <= key < 2**31 for pair in keys for key in pair)
