"""Masks: exactly N kept whatever is rounded, exact chances, the same bits compiled and eager."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.sparsity import (
    is_nm_sparse,
    nm_approx_mvue,
    nm_greedy,
    nm_inclusion_probabilities,
    nm_joint_probabilities,
    nm_mvue,
    nm_mvue_variance,
    nm_uniform,
    sampling,
)
from lib.sparsity.blocks import as_blocks, in_place_of

PATTERNS = [(1, 2), (1, 4), (2, 4), (2, 8), (3, 4), (4, 8), (8, 16)]
LAST = 1 - 2.0**-24


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kinds(shape: tuple[int, ...]) -> dict[str, Tensor]:
    g = seeded()
    x = torch.randn(shape, generator=g)
    half = torch.rand(shape, generator=g) < 0.5
    return {
        "normal": x,
        "relu": x * (torch.rand(shape, generator=g) < 0.4),
        "heavy tails": x.exp() ** 6,
        "ties": x.sign(),
        "small integers": (2 * x).round(),
        "subnormal": (x * 100).round() * 2.0**-149,
        "huge and subnormal": torch.where(half, x * 1e37, x * 1e-44),
        "largest": x.sign() * torch.finfo(torch.float32).max,
        "zeros": torch.zeros(shape),
    }


@pytest.mark.parametrize(("n", "m"), PATTERNS)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_exactly_n_are_kept_and_bits_are_those_of_eager_torch(n: int, m: int, dim: int) -> None:
    for name, x in kinds((48, 32, 32)).items():
        rest = tuple(size for axis, size in enumerate(x.shape) if axis != dim % 3)
        rand = torch.rand(*rest, x.shape[dim] // m, generator=seeded(1))
        rand.view(-1)[:40] = 0
        rand.view(-1)[40:80] = LAST
        kept, mask = nm_mvue(x, n, m, dim, rand=rand, return_mask=True)
        blocks = as_blocks(x, m, dim)
        assert torch.equal(as_blocks(mask.float(), m, dim).sum(-1), (blocks != 0).sum(-1).clamp(max=n)), name
        assert torch.equal(kept, in_place_of(sampling._eager(blocks, n, rand, None), dim)), name
        by_seed = nm_mvue(x, n, m, dim, generator=seeded(2))
        seed = sampling.random_seed(seeded(2))
        assert torch.equal(by_seed, in_place_of(sampling._eager(blocks, n, None, seed), dim)), name
        greedy, chosen = nm_greedy(x, n, m, dim, return_mask=True)
        assert torch.equal(chosen, in_place_of(sampling._ranks(blocks.abs()) < n, dim)), name
        assert torch.equal(greedy, torch.where(chosen, x, 0.0)), name
        for pruned in (kept, greedy, nm_uniform(x, n, m, dim)):
            assert is_nm_sparse(pruned, n, m, dim), name


@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_chances_over_a_grid_of_random_numbers(n: int, m: int) -> None:
    """Every random number once: the frequencies are the probabilities, alone and in pairs, and the mean is x."""
    count = 1 << 14
    for seed in range(3):
        x = torch.randn(m, generator=seeded(seed), dtype=torch.float64).exp().float()
        grid = (torch.arange(count) + 0.5) / count
        kept, mask = nm_mvue(x.expand(count, m).contiguous(), n, m, rand=grid[:, None], return_mask=True)
        chances, hits = nm_inclusion_probabilities(x, n, m).double(), mask.double()
        assert (hits.mean(0) - chances).abs().max() < 1.01 / count
        assert (hits.T @ hits / count - nm_joint_probabilities(x, n, m)[0]).abs().max() < 1.01 * n / count
        error = (kept.double() - x.double()).square().sum(1).mean()
        assert float(error) == pytest.approx(float(nm_mvue_variance(x, n, m)), rel=3e-3)


@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_unbiased_with_the_numbers_of_a_seed(n: int, m: int) -> None:
    x = kinds((8, 64))["relu"]
    draws = torch.stack([nm_mvue(x, n, m, generator=seeded(seed)) for seed in range(1500)]).double()
    chances = nm_inclusion_probabilities(x.double(), n, m)
    spread = (x.double().square() * (1 - chances) / chances.clamp(min=1e-30) / 1500).sqrt()
    # of an entry that is hardly ever kept the mean is not normal
    common = (chances > 0.01) & (chances < 1)
    assert ((draws.mean(0) - x).abs() / spread)[common].max() < 5
    assert torch.equal(draws.mean(0)[chances == 1].float(), x[chances == 1])


def test_float64_and_half_precision() -> None:
    x = kinds((16, 32))["normal"]
    rand = torch.rand(16, 8, generator=seeded(3))
    exact = nm_mvue(x.double(), rand=rand.double())
    assert exact.dtype == torch.float64
    assert (exact - nm_mvue(x, rand=rand)).abs().max() < 1e-5
    for dtype in (torch.bfloat16, torch.float16):
        short = x.to(dtype)
        assert torch.equal(nm_mvue(short, rand=rand), nm_mvue(short.float(), rand=rand).to(dtype))
        assert torch.equal(nm_greedy(short), nm_greedy(short.float()).to(dtype))
    # where float32 would leave a chance of 0: a part of 2^-40
    tiny = torch.tensor([1.0, 1.0, 1.0, 2.0**-40], dtype=torch.float64)
    at = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    assert nm_mvue(tiny, rand=at)[3] != 0


def test_approx_is_unbiased_and_keeps_what_is_alone() -> None:
    for name in ("relu", "normal", "heavy tails"):
        x = kinds((16, 16))[name]
        draws = torch.stack([nm_approx_mvue(x, generator=seeded(seed)) for seed in range(600)]).double()
        spread = draws.std(0) / 600**0.5
        score = ((draws.mean(0) - x).abs() / spread.clamp(min=1e-30))[spread > 1e-6 * x.abs()]
        assert score.max() < 5.5, name
        few = (as_blocks(x, 4, -1) != 0).sum(-1) <= 2
        assert torch.equal(as_blocks(draws[7].float(), 4, -1)[few], as_blocks(x, 4, -1)[few]), name
    # on the very end of all chances nothing of chance 0 is drawn
    edge = nm_approx_mvue(torch.tensor([3.0, 1.0, 2.0, 0.0]), rand=torch.full((1, 2), LAST))
    assert edge[3] == 0
    assert edge.count_nonzero() == 2


def test_approx_needs_no_offset_for_small_gradients() -> None:
    """Its chances do not depend on the unit: there is no epsilon that small gradients would drown in."""
    x = kinds((16, 16))["normal"]
    for unit in (1e-8, 1e-30):
        found = nm_mvue_variance(x * unit, 2, 4, method="approx") / unit**2
        assert torch.allclose(found, nm_mvue_variance(x, 2, 4, method="approx"), rtol=1e-5)


def test_uniform_takes_every_pair_alike() -> None:
    masks = nm_uniform(torch.ones(40_000, 4), 2, 4, generator=seeded()) != 0
    codes = (masks * torch.tensor([1, 2, 4, 8])).sum(1)
    counts = torch.bincount(codes, minlength=16).double() / len(codes)
    assert np.allclose(counts[[3, 5, 6, 9, 10, 12]], 1 / 6, atol=0.01)


def test_not_finite_is_refused_or_kept_where_it_is_not_looked_for() -> None:
    x = kinds((8, 16))["normal"]
    for value in (float("nan"), float("inf")):
        for dtype in (torch.float32, torch.float64):
            bad = x.to(dtype).clone()
            bad[3, 5] = value
            for prune in (nm_mvue, nm_greedy, nm_approx_mvue):
                with pytest.raises(ValueError, match=r"x must be finite; 1 of its 128 entries is NaN or infinite"):
                    prune(bad)
            seen = nm_mvue(bad, check=False)
            assert torch.equal(seen[3, 5], bad[3, 5]) or bool(seen[3, 5].isnan() and bad[3, 5].isnan())
            assert bool(seen.isfinite().sum() == 127)


def test_an_empty_tensor_stays_empty() -> None:
    assert nm_mvue(torch.empty(0, 8)).shape == (0, 8)
    assert nm_greedy(torch.empty(8, 0), dim=0).shape == (8, 0)
