"""The claims of chapter 05 about single blocks: which mask is best, how it is drawn, what others cost."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import LinearConstraint, linprog, minimize
from torch import Tensor

from lib.claims import Evidence, at_least, at_most, claim, combine, none, true_that, within
from lib.sparsity.blocks import is_nm_sparse
from lib.sparsity.pairs import PAIRS, mvue24_pair_probabilities
from lib.sparsity.sampling import nm_greedy, nm_mvue
from lib.sparsity.transposable import patterns, transposable_mask
from lib.sparsity.water_filling import (
    Mask,
    approx_probabilities,
    nm_inclusion_probabilities,
    nm_joint_probabilities,
    nm_mvue_variance,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_PATTERNS = ((1, 2), (1, 4), (2, 4), (2, 8), (3, 4), (4, 8), (8, 16))
_GRID = 200_000


def _blocks(count: int, m: int, *, seed: int = 0) -> Array:
    """Blocks with light and with heavy tails."""
    rng = np.random.default_rng(seed)
    powers = rng.choice([0.5, 1.0, 3.0], size=(count, 1))
    return np.asarray(np.abs(rng.standard_normal((count, m))) ** powers)


def _variance(a: Array, n: int) -> float:
    """Of the best unbiased mask, over the squared norm."""
    return float(nm_mvue_variance(torch.from_numpy(a), n, len(a))) / float(a @ a)


def _by_descent(a: Array) -> float:
    """The least variance that a general optimiser finds over the probabilities of the six pairs."""
    holds = np.array([[i in pair for pair in PAIRS] for i in range(4)], dtype=np.float64)

    def value(p: Array) -> float:
        return float(np.sum(a**2 / (holds @ p)))

    def slope(p: Array) -> Array:
        return np.asarray(-holds.T @ (a / (holds @ p)) ** 2)

    found = minimize(
        value,
        np.full(6, 1 / 6),
        jac=slope,
        bounds=[(1e-9, 1)] * 6,
        constraints=LinearConstraint(np.ones(6), 1, 1),
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return float(found.fun) / float(a @ a) - 1


def _by_cuts(a: Array, n: int, cuts: int = 400) -> float:
    """A lower bound of the least variance, from a linear program: tangents of a^2 / P for each entry's P."""
    m = len(a)
    at = np.geomspace(1e-3, 1, cuts)
    rows, limits = [], []
    for i in range(m):
        row = np.zeros((cuts, 2 * m))
        # t >= a^2 (2 / p - P / p^2) for every p
        row[:, i], row[:, m + i] = -(a[i] ** 2) / at**2, -1
        rows.append(row)
        limits.append(-2 * a[i] ** 2 / at)
    total = np.concatenate([np.ones(m), np.zeros(m)])[None]
    found = linprog(
        np.concatenate([np.zeros(m), np.ones(m)]),
        A_ub=np.concatenate(rows),
        b_ub=np.concatenate(limits),
        A_eq=total,
        b_eq=[n],
        bounds=[(0, 1)] * m + [(0, None)] * m,
    )
    return float(found.fun) / float(a @ a) - 1


def _by_any_values(a: Array, points: int = 14) -> float:
    """The least variance over all unbiased estimators with two entries of a block and values on a grid."""
    level = np.sum(a**2)
    chances = nm_inclusion_probabilities(torch.from_numpy(a), 2, 4).numpy()
    columns, costs = [], []
    for i, j in PAIRS:
        # the best values are among those that are offered
        offers = [np.append(np.linspace(0, 2.5 * a.sum(), points), a[k] / chances[k]) for k in (i, j)]
        for values in product(*offers):
            column = np.zeros(5)
            column[[i, j, 4]] = *values, 1
            columns.append(column)
            costs.append(values[0] ** 2 + values[1] ** 2)
    found = linprog(costs, A_eq=np.transpose(columns), b_eq=[*a, 1], bounds=(0, None))
    return float(found.fun) / float(level) - 1


@claim(
    source="the paper's masks for 1:2 and 2:4; any N:M derived here",
    statement="No unbiased mask of a block has less variance than water-filling: neither other chances nor other "
    "values do better.",
)
def no_unbiased_mask_is_better() -> Evidence:
    fours = _blocks(40, 4)
    closed = np.array([_variance(a, 2) for a in fours])
    descent = [abs(_by_descent(a) - best) for a, best in zip(fours, closed, strict=True)]
    below, gaps = [], []
    for n, m in ((2, 4), (1, 4), (3, 4), (4, 8)):
        for a in _blocks(8, m, seed=n):
            gap = _variance(a, n) - _by_cuts(a, n)
            below.append(-gap)
            gaps.append(gap)
    free = [_by_any_values(a) - best for a, best in zip(fours[:6], closed[:6], strict=True)]
    return combine(
        at_most(descent, 1e-6, label="from SLSQP"),
        at_most(below, 1e-9, label="below a bound from linear programs by"),
        at_most(gaps, 1e-3, label="above it by", shown="< 0.001"),
        at_most(np.abs(free), 1e-8, label="from the best with free values"),
        remark="variance over squared norm; 40 blocks of 2:4, 32 of 2:4, 1:4, 3:4 and 4:8, 6 with free values",
    )


@claim(
    source="derived here",
    statement="The chances of the six pairs of a 2:4 block add up to 1, are never negative, and give each entry the "
    "chance of water-filling: three cases, by the size of the largest entry.",
)
def pairs_of_a_block_in_closed_form() -> Evidence:
    import sympy as sp

    from lib.sparsity import symbolic

    a1, a2, a3, a4 = symbolic.SORTED
    r, s, w, y, z = sp.symbols("r s w y z", nonnegative=True)
    # each case, and the order of the entries, as sums of numbers that are not negative
    small = ((w + s) / 2, (w + s) / 2 + y, (w + s) / 2 + y + z, (w + s) / 2 + y + z + w)
    large = (w, w + s + r, w + s + r + z, w + s + r + z + 2 * w + s)
    chances = symbolic.cases()
    signs, sums, alone = [], [], []
    for case, inside in (("small", small), ("large", large), ("dominant", (a1, a2, a3, a4))):
        order = dict(zip(symbolic.SORTED, inside, strict=True))
        for chance in chances[case].values():
            # a quotient of polynomials without a negative coefficient
            parts = [sp.Poly(sp.expand(part.subs(order))) for part in sp.fraction(sp.together(chance))]
            signs.append(all(factor >= 0 for part in parts for factor in part.coeffs()))
        sums.append(sp.simplify(sum(chances[case].values())) == 1)
        filled = symbolic.water_filling(2, 4)
        expected = [a / (a1 + a2 + a3) for a in (a1, a2, a3)] + [1] if case == "dominant" else filled
        alone += [sp.simplify(x - y) == 0 for x, y in zip(symbolic.marginals(chances[case]), expected, strict=True)]
    errors = []
    for block in _blocks(300, 4, seed=1):
        found = mvue24_pair_probabilities(block)
        own = [sum(p for p, pair in zip(found, PAIRS, strict=True) if i in pair) for i in range(4)]
        errors.append(np.abs(own - nm_inclusion_probabilities(torch.from_numpy(block), 2, 4).numpy()))
        errors.append(np.append(-found, found.sum() - 1))
    return combine(
        true_that("sympy: never negative", bool(np.all(signs))),
        true_that("sums are 1", [bool(each) for each in sums]),
        true_that("marginals are those of water-filling", [bool(each) for each in alone]),
        at_most(errors, 1e-12, label="numbers off by"),
        remark="three cases; 300 blocks in float64",
    )


@claim(
    source="derived here; Madow 1949",
    statement="One random number a block draws the mask: exactly N entries are kept, each with exactly its chance.",
)
def one_random_number_draws_the_mask() -> Evidence:
    grid = ((torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID)[:, None]
    off, counts, pairs = [], [], []
    for n, m in _PATTERNS:
        block = torch.from_numpy(_blocks(1, m, seed=m)[0]).float()
        _, mask = nm_mvue(block.expand(_GRID, m).contiguous(), n, m, rand=grid, return_mask=True)
        hits = mask.double()
        off.append((hits.mean(0) - nm_inclusion_probabilities(block, n, m)).abs())
        pairs.append((hits.T @ hits / _GRID - nm_joint_probabilities(block, n, m)[0]).abs().max())
        counts.append((mask.sum(1) != n).sum())
    return combine(
        none(torch.stack(counts), "blocks with another number"),
        at_most(torch.cat(off), 1.2 / _GRID, label="chances off by"),
        at_most(torch.stack(pairs), 8 / _GRID, label="those of pairs"),
        remark=f"{_GRID:,} random numbers, evenly spaced; 1:2, 1:4, 2:4, 2:8, 3:4, 4:8, 8:16",
    )


def _hard_blocks() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 8, generator=rng)
    coin = torch.rand(4096, 8, generator=rng) < 0.5
    return {
        "half zeros": x * coin,
        "ties": x.sign() * coin,
        "subnormal": (x * 100).round() * 2.0**-149,
        "huge beside subnormal": torch.where(coin, x * 1e37, x * 1e-44),
    }


@claim(
    source="derived here",
    statement="Exactly N entries stay wherever N are not zero, and all where fewer are, also for zeros, ties, "
    "subnormal and huge numbers, and at both ends of the random number.",
)
def exactly_n_stay_whatever_is_rounded() -> Evidence:
    wrong, over = [], []
    for x in _hard_blocks().values():
        for n, m in ((1, 2), (2, 4), (4, 8)):
            for u in (0.0, 0.5, 1 - 2.0**-24):
                rand = torch.full((4096, 8 // m), u)
                kept, mask = nm_mvue(x, n, m, rand=rand, return_mask=True)
                expected = (x.view(4096, -1, m) != 0).sum(-1).clamp(max=n)
                wrong.append((mask.view(4096, -1, m).sum(-1) != expected).sum())
                over.append(not is_nm_sparse(kept, n, m))
    return combine(
        none(torch.stack(wrong), "blocks with another number"),
        none(over, "tensors that are not N:M"),
        remark="4,096 rows of 8 of each kind; u = 0, 1/2 and 1 − 2⁻²⁴; 1:2, 2:4, 4:8",
    )


def _exact_ratio(a: list[Fraction]) -> Fraction:
    """Variance of two draws without replacement over the least one, without rounding."""
    total = sum(a, Fraction(0))
    drawn = [
        x / total * (1 + sum((y / (total - y) for j, y in enumerate(a) if j != i), Fraction(0)))
        for i, x in enumerate(a)
    ]
    approx = sum((x * x * (1 - p) / p for x, p in zip(a, drawn, strict=True)), Fraction(0))
    *rest, most = sorted(a)
    others = sum(rest, Fraction(0))
    alone = others**2 - sum(x * x for x in rest)
    least = alone if most >= others else total**2 / 2 - sum(x * x for x in a)
    return approx / least


@claim(
    source="approx-MVUE of the paper; its limit derived here",
    statement="The usual approximation, two draws in proportion to size, has between once and twice the least "
    "variance: it comes as near to twice as one likes, and never reaches it.",
)
def the_approximation_costs_less_than_twice() -> Evidence:
    rng = np.random.default_rng(3)
    whole = [[Fraction(int(k)) for k in 2 ** rng.uniform(0, 40, 4)] for _ in range(3000)]
    ratios = [_exact_ratio(a) for a in whole]
    floats = torch.tensor([[float(x) for x in a] for a in whole], dtype=torch.float64)
    ours = nm_mvue_variance(floats, 2, 4, method="approx") / nm_mvue_variance(floats, 2, 4)
    family = torch.tensor([[10.0**k, 1, 1, 1] for k in (1, 6)], dtype=torch.float64)
    near = (nm_mvue_variance(family, 2, 4, method="approx") / nm_mvue_variance(family, 2, 4))[:, 0]
    exact = torch.tensor([float(ratio) for ratio in ratios], dtype=torch.float64)
    return combine(
        true_that("all ratios in [1, 2), in exact fractions", [1 <= ratio < 2 for ratio in ratios]),
        at_most((ours[:, 0] / exact - 1).abs(), 1e-6, label="float64 off by"),
        within(near[0], 1.610, 1.612, label="(10, 1, 1, 1)", digits=4),
        at_least(near[1], 1.9999, label="(10⁶, 1, 1, 1)"),
        true_that("never more than 1", approx_probabilities(floats)[0] <= 1),
        remark="3,000 blocks of whole numbers up to 2⁴⁰",
    )


#: Relative squared errors of greedy, MVUE and approximate 2:4, of greedy and MVUE 1:2.
_LAWS = {
    "normal": (0.1328, 0.4748, 0.5035, 0.1819, 0.6366),
    "Laplace": (0.0800, 0.3130, 0.3468, 0.1256, 0.5013),
    "lognormal": (0.0484, 0.2030, 0.2340, 0.0786, 0.3680),
}


def _relative_errors(x: Tensor) -> list[float]:
    ways: list[tuple[int, int, Mask]] = [(2, 4, "greedy_mse"), (2, 4, "mvue"), (2, 4, "approx")]
    ways += [(1, 2, "greedy_mse"), (1, 2, "mvue")]
    return [float(nm_mvue_variance(x, n, m, method=way).sum() / x.square().sum()) for n, m, way in ways]


@claim(
    source="the paper's criterion; the values derived here",
    statement="Keeping the largest entries wins every comparison of squared errors, by a factor of 3.5 and more; and "
    "the heavier the tails, the less it costs to be unbiased.",
)
def greedy_wins_every_squared_error() -> Evidence:
    rng = np.random.default_rng(4)
    draws = {
        "normal": rng.standard_normal((100_000, 4)),
        "Laplace": rng.laplace(size=(100_000, 4)),
        "lognormal": rng.lognormal(size=(100_000, 4)),
    }
    found = {law: _relative_errors(torch.from_numpy(values)) for law, values in draws.items()}
    table = np.array([found[law] for law in _LAWS])
    known = np.array(list(_LAWS.values()))
    return combine(
        at_most(np.abs(table / known - 1), 0.03, label="from the table", shown="< 3%"),
        at_least([table[:, 1] / table[:, 0], table[:, 4] / table[:, 3]], 3.45, label="MVUE / greedy"),
        true_that("approximation above MVUE", table[:, 2] > table[:, 1]),
        within(table[0, 4] * math.pi / 2, 0.99, 1.01, label="normal 1:2 over 2/π"),
        at_least(-np.diff(table[:, 1]), 0.05, label="falls from law to law by"),
        remark="normal, Laplace, lognormal; 100,000 blocks each; expected squared errors over squared norms",
    )


@claim(
    source="Hubara et al. 2021, as the paper uses it",
    statement="The mask of a 4 × 4 tile with two entries in each row and column is the best of 90, and keeps nearly "
    "as much as the best mask of the rows alone.",
)
def transposable_masks_are_exact() -> Evidence:
    codes = np.arange(1 << 16)[:, None] >> np.arange(16) & 1
    tiles = codes.reshape(-1, 4, 4)
    allowed = codes[((tiles.sum(1) == 2) & (tiles.sum(2) == 2)).all(1)]
    w = torch.from_numpy(np.random.default_rng(5).standard_normal((400, 400)))
    mask = transposable_mask(w)
    scores = np.abs(w.numpy()).reshape(100, 4, 100, 4).transpose(0, 2, 1, 3).reshape(-1, 16) @ allowed.T
    kept = torch.where(mask, w.abs(), 0.0)
    ours = kept.view(100, 4, 100, 4).transpose(1, 2).reshape(-1, 16).sum(1).numpy()
    rows = nm_greedy(w)
    both = [is_nm_sparse(kept, 2, 4, dim) for dim in (0, 1)]
    return combine(
        true_that("90 patterns", [len(patterns()) == len(allowed) == 90, bool((patterns().sum(1) == 8).all())]),
        at_most(np.abs(ours - scores.max(axis=1)), 1e-12, label="from the best of all"),
        true_that("2:4 along both dimensions", both),
        within(float(kept.sum() / rows.abs().sum()), 0.91, 0.95, label="kept, over rows alone"),
        remark="10,000 tiles of normal weights",
    )
