"""Claims about scalar networks: the flow solution, one step, and whole runs of gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lib.claims import Evidence, at_least, at_most, claim, combine, none, true_that, within
from lib.edge_of_stability.flow_solution import gfs_sharpness, gradient_flow_solution, solve_balances
from lib.edge_of_stability.scalar_network import balances, gd_step, gradient, sharpness
from lib.edge_of_stability.trajectories import MONOTONE_LIMIT, gpgd_step, run_gd

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_ROUNDING = 1e-11
#: Starts of long runs, for each number of weights.
_LONG_RUNS = 2000


def end_of_flow(velocity: Callable[[Array], Array], start: Array) -> Array:
    """Where an ODE solver comes to in a long time."""
    from scipy.integrate import solve_ivp

    run = solve_ivp(lambda _, s: velocity(s), (0, 1e4), start, method="LSODA", rtol=1e-11, atol=1e-13)
    return np.asarray(run.y[:, -1])


def positive_part(x: Array) -> Array:
    """1 where a number is positive, 0 where it is not, and NaN where it is NaN: no comparison would tell."""
    return np.heaviside(x, 0.0)


@claim(
    source="derived here",
    statement="The gradient flow solution of a scalar network is algebraic: balances are conserved, and one number "
    "is left to solve for.",
)
def flow_solution_is_algebraic() -> Evidence:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(40):
        w = rng.standard_normal(int(rng.integers(2, 7)))
        errors.append(np.abs(gradient_flow_solution(w) - end_of_flow(lambda v: -gradient(v), w)))
    return at_most(errors, 1e-8, remark="40 Gaussian starts, D = 2 … 6, either sign; against an ODE solver")


@claim(
    source="derived here",
    statement="One step of gradient descent multiplies the balance of weights i and j by "
    "1 − η²(p−y)²p²/(w_i w_j)², where p is the product and y the target.",
)
def balance_identity() -> Evidence:
    import sympy as sp

    from lib.edge_of_stability import symbolic

    new, expected = symbolic.balance_step()
    rng = np.random.default_rng(1)
    errors = []
    for depth in (2, 3, 5, 10):
        w = np.exp(rng.uniform(-1, 1, (100, depth))) * rng.choice([-1.0, 1.0], (100, depth))
        eta = 0.1 / sharpness(w)
        after = gd_step(w, eta)
        pull = (eta * (w.prod(axis=1) - 1) * w.prod(axis=1)) ** 2
        factor = 1 - pull / (w[:, 0] * w[:, 1]) ** 2
        misfit = after[:, 0] ** 2 - after[:, 1] ** 2 - (w[:, 0] ** 2 - w[:, 1] ** 2) * factor
        errors.append(np.abs(misfit) / (w**2).max())
    return combine(
        true_that("sympy: the difference is 0", sp.simplify(new - expected) == 0),
        at_most(errors, 1e-12, label="difference in code"),
        remark="symbols for any number of weights; 400 random networks, D = 2 … 10",
    )


@claim(
    source="derived here",
    statement="Where the product is the target, the Hessian is v vᵀ with v_i = y/w_i, so the sharpness is y² Σ 1/w_i².",
)
def sharpness_at_a_minimum() -> Evidence:
    import sympy as sp

    from lib.edge_of_stability import symbolic

    residuals = []
    for depth in (2, 3, 4):
        hessian, v = symbolic.hessian_at_minimum(depth)
        residuals.append((hessian - v * v.T).applyfunc(sp.simplify) == sp.zeros(depth, depth))
    rng = np.random.default_rng(2)
    solution = gradient_flow_solution(rng.standard_normal((200, 5)), 3.0)
    closed = 9 * (1 / solution**2).sum(axis=1)
    return combine(
        true_that("sympy: D = 2, 3, 4", residuals),
        at_most(np.abs(sharpness(solution, 3.0) / closed - 1), 1e-10, label="eigenvalues, D = 5"),
        at_most(np.abs(gfs_sharpness(solution, 3.0) / closed - 1), 1e-10, label="φ"),
        remark="symbolic, and 200 random minima with y = 3",
    )


@dataclass(frozen=True)
class _Steps:
    """Random networks and one step of each, without those whose weights leave the positive orthant."""

    eta_phi: Array
    rise: Array
    factor: Array


@lru_cache(maxsize=1)
def _random_steps(count: int = 100_000) -> dict[int, _Steps]:
    """Networks with positive weights of all degrees of imbalance, and step sizes up to 6 / phi; by depth."""
    rng = np.random.default_rng(0)
    found = {}
    for depth in (2, 3, 4, 6, 10):
        spread = rng.uniform(0.05, 1.2, (count, 1))
        w = np.exp(rng.uniform(-1, 1, (count, depth)) * spread + rng.uniform(-0.5, 0.5, (count, 1)))
        phi, eta_phi = gfs_sharpness(w), rng.uniform(0, 6, count)
        after = gd_step(w, eta_phi / phi)
        stays = ~(after <= 0).any(axis=1)  # what is NaN does not pass for a step that leaves
        w, phi, eta_phi, after = w[stays], phi[stays], eta_phi[stays], after[stays]
        product, smallest = w.prod(axis=1), np.sort(w, axis=1)
        factor = (eta_phi / phi * (product - 1) * product / (smallest[:, 0] * smallest[:, 1])) ** 2
        found[depth] = _Steps(eta_phi, gfs_sharpness(after) / phi - 1, factor)
    return found


@claim(
    source="abstract (monotone); constants derived here",
    statement="One step from positive weights to positive weights never raises φ while ηφ ≤ 2√2, "
    "nor while the largest balance factor η²(p−y)²p²/(w_i w_j)² is at most 2.",
    paper="monotone in scalar networks",
)
def one_step_is_monotone() -> Evidence:
    steps = _random_steps().values()
    inside = [~(one.rise <= _ROUNDING) & ~(one.eta_phi > MONOTONE_LIMIT) for one in steps]
    shrinks = [~(one.rise <= _ROUNDING) & ~(one.factor > 2) for one in steps]
    looked = sum(int((one.eta_phi <= MONOTONE_LIMIT).sum()) for one in steps)
    delicate = sum(int(((one.factor > 1) & (one.factor <= 2)).sum()) for one in steps)
    return combine(
        none(inside, "rises with ηφ ≤ 2√2"),
        none(shrinks, "rises with a factor ≤ 2"),
        at_least(looked / 1000, 100, label="steps in thousands"),
        remark=f"about {round(looked, -3):,} random steps, D = 2 … 10; {round(delicate, -3):,} with a factor in (1, 2]",
    )


@claim(
    source="derived here",
    statement="The boundary is real: with D = 2 and ηφ from 3.04 to 6, some steps do raise φ; none does below 2√2.",
)
def boundary_is_real() -> Evidence:
    two = _random_steps()[2]
    far = two.eta_phi > 3.04
    rises = positive_part(two.rise - _ROUNDING)
    fraction = (rises * far).sum() / far.sum()
    first = two.eta_phi[rises > 0].min(initial=np.inf)
    return combine(
        within(fraction, 0.01, 0.5, label="fraction of steps that rise"),
        within(first, round(MONOTONE_LIMIT, 2), 3.3, label="smallest ηφ of a rise"),
        remark="the steps of the claim before, D = 2",
    )


@claim(
    source="derived here",
    statement="For two weights the constant 2√2 cannot be improved: from a small product the balance, and with it "
    "φ = √(b² + 4), grows as soon as ηφ is above 2√2.",
)
def bound_is_sharp() -> Evidence:
    start = np.array([1.0, 0.5]) * np.array([[1e-2], [1e-3]])
    before, changes = balances(start).max(axis=1), []
    for margin in (0.998, 1.002):
        eta = margin * MONOTONE_LIMIT / gfs_sharpness(start)
        after = gd_step(start, eta)
        stays = bool((after > 0).all())
        changes.append(balances(after).max(axis=1) / before - 1 if stays else np.full(2, np.nan))
    below, above = changes
    return combine(
        at_most(below, -1e-3, label="change of b at 0.998 × 2√2", shown="below 0"),
        within(above, 1e-3, 1e-1, label="at 1.002 × 2√2", digits=1),
        at_most(np.abs(gfs_sharpness(start) / np.hypot(before, 2.0) - 1), 1e-12, label="φ against √(b² + 4)"),
        remark="starts (0.01, 0.005) and (0.001, 0.0005)",
    )


def _starts(rng: np.random.Generator, count: int, depth: int, product: Array | float, low: float = 0.05) -> Array:
    """Positive weights with a given product and all degrees of imbalance."""
    w = np.exp(rng.uniform(-1, 1, (count, depth)) * rng.uniform(low, 1.2, (count, 1)))
    scale = np.asarray(product / w.prod(axis=1)) ** (1 / depth)
    return np.asarray(w * scale[:, None])


def _long_runs(rng: np.random.Generator, depth: int) -> tuple[int, float, Array]:
    """How often φ rose in many long runs, the part that left the orthant, and the last ηφ of those that converged."""
    w = _starts(rng, _LONG_RUNS, depth, rng.uniform(0.05, 1.3, _LONG_RUNS))
    eta = rng.uniform(1, MONOTONE_LIMIT, _LONG_RUNS) / gfs_sharpness(w)
    positive, moving = np.ones(_LONG_RUNS, dtype=bool), np.arange(_LONG_RUNS)
    before, phi, rises = np.zeros_like(w), gfs_sharpness(w), 0
    for _ in range(3000):
        after = gd_step(w[moving], eta[moving])
        stays = ~(after <= 0).any(axis=1)  # what is NaN stays
        positive[moving[~stays]] = False
        moving, after = moving[stays], after[stays]
        now = gfs_sharpness(after)
        rises += int(np.count_nonzero(~(now <= phi[moving] * (1 + _ROUNDING))))
        # a run that is back where it was two steps ago only repeats what was looked at
        goes_on = (after != before[moving]).any(axis=1)
        before[moving], w[moving], phi[moving] = w[moving], after, now
        moving = moving[goes_on]
    converged = positive & (np.abs(w.prod(axis=1) - 1) < 1e-6)
    return rises, float((~positive).mean()), (eta * phi)[converged]


@claim(
    source="abstract; limits derived here",
    statement="Along whole runs of gradient descent φ never rises, as long as weights stay positive; "
    "runs that converge end with ηφ below 2.",
    paper="monotone in scalar networks",
)
def whole_runs_are_monotone() -> Evidence:
    rng = np.random.default_rng(3)
    rises, left, tops = zip(*(_long_runs(rng, depth) for depth in (2, 3, 4, 5, 8)), strict=True)
    return combine(
        none(rises, "rises of φ"),
        at_most(tops, 2.0, label="largest final ηφ", shown="≤ 2"),
        at_most(left, 0.01, label="fraction that left the orthant", shown="< 1%"),
        remark=f"{_LONG_RUNS} starts each for D = 2, 3, 4, 5, 8; 3000 steps, ηφ from 1 to 2√2 at the start",
    )


def _after_thousands(w: Array, eta: Array, thousands: int) -> Array:
    """Weights after so many thousand steps; those that are back after the last two of a thousand stay there."""
    w, moving = w.copy(), np.arange(len(w))
    for _ in range(thousands):
        middle = run_gd(w[moving], eta[moving], 998, record_every=998).w[-1]
        w[moving] = run_gd(middle, eta[moving], 2, record_every=2).w[-1]
        moving = moving[(w[moving] != middle).any(axis=1)]
    return w


@claim(
    source="paper's theorem; constants derived here",
    statement="Started near a minimum that is too sharp, with 2/η above the least sharpness D, "
    "gradient descent converges, to a point at or below the edge 2/η, with four weights mostly within a few percent.",
    paper="converges to slightly below 2/η; its constants are not quoted here",
)
def convergence_to_the_edge() -> Evidence:
    rng = np.random.default_rng(4)
    settled, finals = [], {}
    for depth in (2, 4):
        starts, steps = [], []
        for product in (0.99, 0.9, 0.7):
            w = _starts(rng, 400, depth, product)
            eta = rng.uniform(2.05, 2.8, 400) / gfs_sharpness(w)
            kept = ~(eta * depth >= 1.9)
            starts.append(w[kept])
            steps.append(eta[kept])
        w, eta = np.concatenate(starts), np.concatenate(steps)
        w = _after_thousands(w, eta, 20)
        settled.append(np.abs(w.prod(axis=1) - 1) < 1e-8)
        finals[depth] = eta * gfs_sharpness(w)
    everything = np.concatenate(list(finals.values()))
    return combine(
        true_that("all converge", settled),
        at_least(everything, 1.0, label="least final ηφ"),
        within(np.quantile(finals[2], 0.1), 1.5, 1.8, label="lowest tenth for D = 2"),
        at_most(everything, 2.0, label="largest", shown="≤ 2"),
        at_least(np.median(finals[4]), 1.9, label="median for D = 4"),
        remark=f"{len(everything)} runs with ηφ from 2.05 to 2.8 and ηD < 1.9; 20,000 steps",
    )


@claim(
    source="derived here",
    statement="Where 2/η lies below the least sharpness D of all minima, nothing converges: runs settle in a "
    "cycle of two.",
)
def no_convergence_below_the_least_sharpness() -> Evidence:
    rng = np.random.default_rng(5)
    arrived, cycles, runs = [], [], 0.0
    for depth in (2, 4):
        w = _starts(rng, 200, depth, 0.9)
        eta = rng.uniform(2.05, 2.4, 200) / depth
        # a start that is admissible: its sharpness is near the least
        kept = positive_part(MONOTONE_LIMIT - eta * gfs_sharpness(w))
        runs += kept.sum()
        w, eta = w[kept > 0], eta[kept > 0]
        w = _after_thousands(w, eta, 10)
        once = gd_step(w, eta)
        arrived.append(~(np.abs(w.prod(axis=1) - 1) >= 1e-6))
        cycles.append(np.abs(gd_step(once, eta) - w).max(axis=1) < 1e-6)
    return combine(
        none(arrived, "runs converge"),
        true_that("all end in a cycle of two", cycles),
        within(runs, 100, 400, label="runs", digits=1),
        remark=f"{runs:.0f} runs with ηD from 2.05 to 2.4, D = 2 and 4; 10,000 steps",
    )


@claim(
    source="abstract, Figure of the scalar network",
    statement="Along one and the same run the loss goes up many times, and φ not once.",
    paper="loss non-monotone, φ monotone",
)
def loss_jumps_and_phi_falls() -> Evidence:
    rng = np.random.default_rng(6)
    loss_rises, phi_rises, runs = [], [], 0
    for depth in (2, 3, 4):
        w = _starts(rng, 200, depth, 0.95)
        eta = 2.5 / gfs_sharpness(w)
        kept = ~(eta * depth >= 1.9)
        run = run_gd(w[kept], eta[kept], 2000)
        # near the minimum the loss is rounding, and its rises mean nothing
        loss_rises.append(positive_part(np.diff(run.loss, axis=0) - 1e-20).sum(axis=0))
        phi_rises.append(~(run.gfs_sharpness[1:] <= run.gfs_sharpness[:-1] * (1 + _ROUNDING)))
        runs += int(kept.sum())
    counts = np.concatenate(loss_rises)
    return combine(
        at_least(counts, 5, label="fewest rises of a loss"),
        at_least(np.median(counts), 10, label="median"),
        none(phi_rises, "rises of φ"),
        remark=f"{runs} runs of 2000 steps, D = 2, 3, 4, started 5 % below the minimum with ηφ = 2.5",
    )


def _product_map(b: Array, eta: float, product: float) -> float:
    """The next product when balances are frozen."""
    weights = np.sqrt(solve_balances(b[:, None], 2 * np.log(product)) + b)
    return float(gpgd_step(weights, eta).prod())


def _period(b: Array, eta: float) -> int:
    """Length of the cycle that the frozen map settles in; 0 if it is longer than 16."""
    product = 0.9
    for _ in range(3000):
        product = _product_map(b, eta, product)
    orbit = product
    for length in range(1, 17):
        orbit = _product_map(b, eta, orbit)
        if abs(orbit - product) < 1e-6:
            return length
    return 0


@claim(
    source="derived here",
    statement="With frozen balances descent is a map of the product alone, whose fixed point has the multiplier "
    "1 − ηφ: stable up to ηφ = 2, then a cycle of two, then of four.",
)
def frozen_balances() -> Evidence:
    import sympy as sp

    from lib.edge_of_stability import symbolic

    slope, expected = symbolic.frozen_multiplier(3)
    rng = np.random.default_rng(7)
    errors = []
    for _ in range(100):
        b = balances(np.exp(rng.uniform(-1, 1, int(rng.integers(2, 6)))))
        start = np.sqrt(solve_balances(b[:, None], 0.0) + b)
        eta = rng.uniform(0.5, 2.5) / float(gfs_sharpness(start))
        step = 1e-5
        measured = (_product_map(b, eta, 1 + step) - _product_map(b, eta, 1 - step)) / (2 * step)
        errors.append(abs(measured - (1 - eta * float(gfs_sharpness(start)))))
    b = balances([1.5, 1.0, 0.7])
    phi = float(gfs_sharpness(np.sqrt(solve_balances(b[:, None], 0.0) + b)))
    periods = [_period(b, level / phi) for level in (1.9, 2.1, 2.6)]
    return combine(
        true_that("sympy: D = 3", sp.simplify(slope - expected) == 0),
        at_most(errors, 1e-7, label="numeric slope"),
        true_that("periods 1, 2, 4 at ηφ = 1.9, 2.1, 2.6", periods == [1, 2, 4]),
        remark="100 random balances, D = 2 … 5; periods for balances of (1.5, 1, 0.7)",
    )
