"""Pairs of a 2:4 block: the closed form, and a published table of it that is biased."""

import numpy as np
import pytest
import torch

from lib.sparsity import mvue24_pair_probabilities, nm_inclusion_probabilities
from lib.sparsity.pairs import PAIRS

BLOCKS = [(1.0, 2.0, 3.0, 3.5), (1.0, 2.0, 3.0, 5.5), (1.0, 2.0, 3.0, 10.0)]


def mean_of(block: tuple[float, ...], pairs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of an estimator that draws a pair and gives its entries some values."""
    chances = pairs / pairs.sum()
    held = np.array([[i in pair for pair in PAIRS] for i in range(4)])
    return np.asarray((held @ chances) * values)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_the_mean_is_the_block_in_its_own_order(block: tuple[float, ...], order: tuple[int, ...]) -> None:
    own = np.array(block)[list(order)] * [1, -1, 1, -1]
    pairs = mvue24_pair_probabilities(own)
    assert pairs.sum() == pytest.approx(1, abs=1e-14)
    assert (pairs >= 0).all()
    kept = nm_inclusion_probabilities(torch.from_numpy(own), 2, 4).numpy()
    assert mean_of(block, pairs, own / kept) == pytest.approx(own, abs=1e-12)


def test_zeros_and_huge_entries() -> None:
    assert mvue24_pair_probabilities([0, 0, 0, 0]).sum() == 1
    assert mvue24_pair_probabilities([0, 5, 0, 0])[PAIRS.index((1, 3))] == 1
    assert mvue24_pair_probabilities([1, 0, 2, 0])[PAIRS.index((0, 2))] == 1
    assert mvue24_pair_probabilities([1e308, 1e308, 1e308, 1e308]).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"a must have shape \(4,\)"):
        mvue24_pair_probabilities([1, 2, 3])


def published_means(block: tuple[float, ...]) -> np.ndarray:
    """A table that is in wide use, as it was read: one chance halved, and the same value for all that are kept."""
    a = np.array(block)
    total = a.sum()
    pairs = mvue24_pair_probabilities(a)
    if a[3] < a[:3].sum() and 2 * a[0] + a[2] <= a[3]:
        pairs[PAIRS.index((1, 3))] /= 2
    return mean_of(block, pairs, np.full(4, total / 2))


def test_a_published_table_is_biased_in_two_of_three_cases() -> None:
    assert published_means(BLOCKS[0]) == pytest.approx(BLOCKS[0], abs=1e-12)
    assert published_means(BLOCKS[1]) == pytest.approx([1.18, 1.33, 3.54, 5.46], abs=5e-3)
    assert published_means(BLOCKS[2]) == pytest.approx([1.33, 2.67, 4.0, 8.0], abs=5e-3)
    # half of all blocks of normal numbers are of these cases
    a = np.sort(np.abs(np.random.default_rng(0).standard_normal((20_000, 4))), axis=1)
    large = 2 * a[:, 0] + a[:, 2] <= a[:, 3]
    assert large.mean() == pytest.approx((3610 + 6583) / 20_000, abs=0.01)
