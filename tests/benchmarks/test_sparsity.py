"""Chapter 05 against usual torch code: masks of 2,097,152 float32 numbers, one thread."""

import pytest
import torch
from torch import Tensor

from lib.sparsity import nm_approx_mvue, nm_greedy, nm_mvue, transposable_mask
from tests.benchmarks.conftest import label

SHAPE = (4096, 512)
GROUPS = {
    0: "exact MVUE 2:4, 2,097,152 float32, one thread, blocks along dim 0",
    1: "exact MVUE 2:4, 2,097,152 float32, one thread, blocks along the last dim",
}
GREEDY = {
    0: "greedy 2:4, 2,097,152 float32, one thread, blocks along dim 0",
    1: "greedy 2:4, 2,097,152 float32, one thread, blocks along the last dim",
}
OTHERS = "exact MVUE of other patterns, blocks along dim 0"
MASK = "transposable mask of 4096 × 512 weights"


def numbers() -> Tensor:
    # a large block that is freed lets malloc hand out later ones from its heap: without it whole runs, of a copy too,
    # pay for new pages at each call
    large = torch.zeros(7_000_000)
    del large
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def as_rows(x: Tensor, dim: int) -> Tensor:
    """Blocks (…, 4), as torch code has them before it draws or sorts."""
    return (x.T if dim == 0 else x).reshape(-1, 4)


def back(blocks: Tensor, dim: int) -> Tensor:
    return blocks.view(SHAPE[1], SHAPE[0]).T.contiguous() if dim == 0 else blocks.view(SHAPE)


def by_multinomial(x: Tensor, dim: int) -> Tensor:
    """The approximation as it is usually written: a draw, another one without the first, division by their chances."""
    blocks = as_rows(x, dim)
    sizes = blocks.abs()
    share = sizes / sizes.sum(1, keepdim=True)
    chance = share.clone()
    for j in range(4):
        others = sizes.clone()
        others[:, j] = 0
        chance += share[:, j : j + 1] * others / others.sum(1, keepdim=True)
    first = torch.multinomial(sizes, 1)
    second = torch.multinomial(sizes.scatter(1, first, 0.0), 1)
    taken = torch.zeros_like(blocks).scatter_(1, first, 1.0).scatter_(1, second, 1.0)
    return back(blocks * taken / chance, dim)


def by_sorting(x: Tensor, dim: int) -> Tensor:
    blocks = as_rows(x, dim)
    order = blocks.abs().argsort(1, descending=True)[:, :2]
    return back(blocks * torch.zeros_like(blocks).scatter_(1, order, 1.0), dim)


@pytest.mark.parametrize("dim", [0, 1])
def test_exact(benchmark, dim: int) -> None:
    x, generator = numbers(), seeded()
    label(benchmark, GROUPS[dim], "ours: exact, one random number a block")
    benchmark.pedantic(lambda: nm_mvue(x, 2, 4, dim, generator=generator), rounds=40, warmup_rounds=3)


@pytest.mark.parametrize("dim", [0, 1])
def test_exact_against_a_copy(benchmark, dim: int) -> None:
    x = numbers()
    label(benchmark, GROUPS[dim], "a copy: the physical limit")
    benchmark.pedantic(x.clone, rounds=40, warmup_rounds=3)


@pytest.mark.parametrize("dim", [0, 1])
def test_exact_against_the_usual_approximation(benchmark, dim: int) -> None:
    x = numbers()
    label(benchmark, GROUPS[dim], "approximation by two draws of torch.multinomial", "up to twice the variance")
    found = benchmark.pedantic(lambda: by_multinomial(x, dim), rounds=3, warmup_rounds=1)
    assert (
        ((found != 0).view(1024, 4, 512) if dim == 0 else (found != 0).view(4096, 128, 4))
        .sum(1 if dim == 0 else 2)
        .eq(2)
        .all()
    )


@pytest.mark.parametrize("dim", [0, 1])
def test_approximation_of_ours(benchmark, dim: int) -> None:
    x, generator = numbers(), seeded()
    label(benchmark, GROUPS[dim], "our approximation, eager torch")
    benchmark.pedantic(lambda: nm_approx_mvue(x, dim, generator=generator), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("dim", [0, 1])
def test_greedy(benchmark, dim: int) -> None:
    x = numbers()
    label(benchmark, GREEDY[dim], "ours: comparisons")
    benchmark.pedantic(lambda: nm_greedy(x, 2, 4, dim), rounds=20, warmup_rounds=2)


@pytest.mark.parametrize("dim", [0, 1])
def test_greedy_by_sorting(benchmark, dim: int) -> None:
    x = numbers()
    label(benchmark, GREEDY[dim], "torch argsort and scatter")
    found = benchmark.pedantic(lambda: by_sorting(x, dim), rounds=5, warmup_rounds=1)
    assert torch.equal(found, nm_greedy(x, 2, 4, dim))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (1, 4), (4, 8), (8, 16)])
def test_other_patterns(benchmark, n: int, m: int) -> None:
    x, generator = numbers(), seeded()
    label(benchmark, OTHERS, f"ours: {n}:{m}")
    benchmark.pedantic(lambda: nm_mvue(x, n, m, 0, generator=generator), rounds=10, warmup_rounds=2)


def test_transposable(benchmark) -> None:
    x = numbers()
    label(benchmark, MASK, "ours: exact, all 90 patterns")
    benchmark.pedantic(lambda: transposable_mask(x), rounds=5, warmup_rounds=1)
