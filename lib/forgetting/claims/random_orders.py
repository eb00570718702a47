"""Claims about tasks in random order: exact expectations, the bounds of later papers, and regularisation."""

from itertools import product

import numpy as np

from lib.claims import Evidence, at_most, claim, combine, within
from lib.forgetting.claims.projections import random_bases
from lib.forgetting.planar import planar_tasks
from lib.forgetting.rates import dominating_rates, expected_curve, expected_forgetting, expected_loss, random_bound
from lib.forgetting.sequences import fit_sequence, forgetting
from lib.forgetting.tasks import Array, TaskCollection, projectors, row_space


@claim(
    source="Theorem 13; the exact expectation derived here",
    statement="Expected forgetting over random orders is at most 9(d − mean rank)/k, far below it in random "
    "collections. For the worst even fan in the plane it is about 0.36/k, with 2 tasks or 10. It is computed without "
    "sampling, and equals the mean over all orders.",
    paper="9(d − mean rank)/k",
)
def random_orders_in_expectation() -> Evidence:
    rng = np.random.default_rng(5)
    bases, ratios = random_bases(rng, 4, 3), []
    w = rng.standard_normal(4)
    tasks = TaskCollection([basis.T for basis in bases], w_star=w)
    sampled = np.mean([forgetting(tasks, order) for order in product(range(3), repeat=5)], axis=0)
    errors = np.abs(expected_curve(bases, 5, w) - sampled)
    single = [expected_forgetting(bases, 5, sum(pair)) for pair in product(np.eye(4), repeat=2)]
    squares = np.reshape(single, (4, 4)) / 2
    form = squares - (np.diag(squares)[:, None] + np.diag(squares)) / 4
    largest = abs(float(np.linalg.eigvalsh(form)[-1]) - expected_forgetting(bases, 5))
    for trial in range(150):
        d, T, k = (int(rng.integers(2, end)) for end in (9, 7, 60))
        bases = random_bases(rng, d, T, spread=0.3 if trial % 2 else None)
        ratios.append(expected_forgetting(bases, k) / random_bound(k, d, np.mean([b.shape[1] for b in bases])))
    worst = []
    for T in (2, 3, 5, 10):
        fans = [planar_tasks(spread * np.linspace(0, 1, T)) for spread in np.linspace(0.1, 0.3, 11)]
        worst.append(100 * np.max([expected_forgetting([row.T for row in rows], 100) for rows in fans]))
    return combine(
        at_most(errors, 1e-14, label="distance from the mean over 243 orders"),
        at_most(largest, 1e-14, label="largest solution"),
        at_most(ratios, 0.05, label="largest share of the bound", shown="{:.2f}"),
        within(worst, 0.360, 0.366, label="k times that of the worst fan"),
        remark="3 tasks, d = 4, 5 steps; 150 random collections, d = 2 … 8, T = 2 … 6, k = 2 … 59; fans of 2, 3, 5, "
        "10 tasks, k = 100, 11 spreads",
    )


def _recursions(bases: list[Array], k: int) -> tuple[Array, Array]:
    """The exact expected loss (k, d, d) after 0 … k - 1 tasks, and what Lemma 10 says it is below."""
    rows, nulls = projectors(bases)
    mean = rows.mean(axis=0)
    exact, above = [mean], [mean]
    for _ in range(k - 1):
        exact.append(np.mean(nulls @ exact[-1] @ nulls, axis=0))
        step = above[-1] @ (np.eye(len(mean)) - 2 * mean) + np.linalg.eigvalsh(above[-1])[-1] * mean
        above.append((step + step.T) / 2)
    return np.stack(exact), np.stack(above)


@claim(
    source="Dereziński and Dong 2026, Lemma 10",
    statement="In random order the expected loss lies below a recursion, which falls nearly as k^(−3/4) whatever the "
    "tasks, and without the dimension.",
    paper="O(k^−(3/4 + 0.001))",
)
def recursion_dominates_the_expected_loss() -> Evidence:
    rng = np.random.default_rng(6)
    gaps, code = [], []
    for _ in range(200):
        d, T = int(rng.integers(2, 7)), int(rng.integers(2, 6))
        bases = random_bases(rng, d, T, spread=10 ** rng.uniform(-3, 0) if rng.random() < 0.6 else None)
        exact, above = _recursions(bases, 60)
        gaps.append(np.linalg.eigvalsh(above - exact)[:, 0])
        spectrum = np.linalg.eigvalsh(exact[0]).clip(0, 1)
        code.append(np.linalg.norm(exact[20], 2) - expected_loss(bases, 20))
        code.append(np.linalg.norm(above[20], 2) - dominating_rates(spectrum, 20))
    dense = np.logspace(0, -8, 400)
    bounds = {k: dominating_rates(dense, k) for k in (*range(30), 1000, 5000, 20_000)}
    sizes = [(k + 1) ** 0.75 * bound for k, bound in bounds.items()]
    return combine(
        at_most(np.maximum(-np.stack(gaps), 0), 1e-12, label="excess over the recursion"),
        at_most(np.abs(code), 1e-12, label="matrices against the code"),
        within(np.log(bounds[20_000] / bounds[5000]) / np.log(4), -0.753, -0.752, label="slope", digits=4),
        within(np.max(sizes), 1.135, 1.145, label="largest", digits=3),
        remark="200 random collections, 60 steps, smallest eigenvalues; slope of the recursion from k = 5000 to "
        "20,000 and largest (k+1)^0.75 times it for 400 eigenvalues from 1 to 1e-8",
    )


def _average_loss(bases: list[Array], k: int) -> Array:
    """(k + 1) times the exact expected loss (d, d) of the average of all weights, from the start to after k tasks."""
    rows, nulls = projectors(bases)
    total = across = later = mean = rows.mean(axis=0)
    for _ in range(k):
        later = later - mean @ later
        across = across + 2 * later
        total = across + np.mean(nulls @ total @ nulls, axis=0)
    return np.asarray(total / (k + 1))


@claim(
    source="Dereziński and Dong 2026, Theorem 9",
    statement="The average of all weights, and weights at a random time, have an expected loss of at most 1/(k+1), "
    "in random order.",
    paper="|w*|²/(k+1)",
)
def average_weights_lose_one_over_k() -> Evidence:
    rng = np.random.default_rng(7)
    few, w = random_bases(rng, 4, 3), rng.standard_normal(4)
    tasks = TaskCollection([basis.T for basis in few], w_star=w)
    means = np.stack([fit_sequence(tasks, order).mean(axis=0) - w for order in product(range(3), repeat=5)])
    error = w @ _average_loss(few, 5) @ w / 6 - np.square(means @ tasks.stacked.T).sum(axis=1).mean() / 3
    average, at_random = [], []
    for trial in range(100):
        d, T, k = (int(rng.integers(2, end)) for end in (9, 7, 100))
        bases = random_bases(rng, d, 80 if trial % 10 == 0 else T, spread=10 ** rng.uniform(-3, 0))
        average.append(np.linalg.norm(_average_loss(bases, k), 2))
        at_random.append(np.linalg.norm(_recursions(bases, k + 1)[0].sum(axis=0), 2))
    return combine(
        at_most(abs(error), 1e-14, label="distance from the mean over 243 orders"),
        at_most(average, 1, label="(k+1) times the loss of the average", shown="≤ 1"),
        at_most(at_random, 1 + 1e-12, label="at a random time", shown="≤ 1"),
        remark="exact expectations, the worst solution of 100 random collections, every tenth of 80 tasks",
    )


#: For each k the best fixed c = 1 / (1 + penalty), and k times the bound without, with this and with a growing penalty.
_BOUNDS = {100: (0.45, 2.04, 0.852, 0.654), 1000: (0.4, 3.56, 1.043, 0.666), 10_000: (0.35, 6.29, 1.236, 0.669)}


def _growing(k: int) -> Array:
    """What a penalty that grows leaves of each of k steps: from all to the kth part."""
    return np.arange(k, 0, -1) / k


@claim(
    source="after Levinstein et al. 2025; recursion and schedule derived here",
    statement="Bounds of the expected loss after k random tasks: without a penalty they fall slower than 1/k, with the "
    "best fixed one as log k/k, with a penalty that grows as 1/k. On the worst of 150 random collections it is "
    "slightly worse than none.",
    paper="O(log k/k) with a fixed penalty, O(1/k) with a growing one",
)
def penalties_that_grow_reach_one_over_k() -> Evidence:
    rng, dense, ratios = np.random.default_rng(1), np.logspace(0, -7, 400), []
    plans = [(k, shrink) for k in (10, 50) for shrink in (None, 0.4, _growing(k))]
    for k, (c, *known) in _BOUNDS.items():
        fixed = np.min([dominating_rates(dense, k, near) for near in (c - 0.05, c, c + 0.05)])
        found = [dominating_rates(dense, k), fixed, dominating_rates(dense, k, _growing(k))]
        ratios.append(k * np.divide(found, known))
    excess, losses = [], []
    for _ in range(150):
        d, T = int(rng.integers(2, 7)), int(rng.integers(2, 7))
        ranks = rng.integers(1, d, T).tolist()
        bases = [row_space(np.eye(d)[:r] + 10 ** rng.uniform(-3, 0.5) * rng.standard_normal((r, d))) for r in ranks]
        spectrum = np.linalg.eigvalsh(np.mean([basis @ basis.T for basis in bases], axis=0)).clip(0, 1)
        exact = np.array([k * expected_loss(bases, k, shrink) for k, shrink in plans])
        excess.append(np.maximum(exact - [k * dominating_rates(spectrum, k, shrink) for k, shrink in plans], 0))
        losses.append(exact.reshape(2, 3).max(axis=0))
    bounds, (none, _, grown) = np.transpose(ratios), np.max(losses, axis=0)
    return combine(
        within(bounds[0], 0.99, 1.01, label="k bound over 2.04, 3.56, 6.29"),
        within(bounds[1], 0.99, 1.01, label="best fixed over 0.852, 1.043, 1.236"),
        within(bounds[2], 0.99, 1.01, label="growing over 0.654, 0.666, 0.669"),
        at_most(excess, 1e-14, label="exact loss over its bound"),
        within(none, 0.35, 0.41, label="k times the exact loss without a penalty"),
        within(grown, 0.42, 0.5, label="with a growing one"),
        remark="bounds at k = 100, 1000, 10,000, with (t−1)/(k−t+1) at step t as the growing penalty; exact losses for "
        "150 random collections, k = 10, 50, also with a fixed penalty of 1.5",
    )
