"""Claims about one pass over many tasks, and about cycles of them."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lib.claims import Evidence, at_least, at_most, claim, combine, within
from lib.forgetting.claims.projections import random_bases
from lib.forgetting.planar import back_and_forth_angles, one_pass_angles, planar_forgetting
from lib.forgetting.rates import cyclic_bounds
from lib.forgetting.search import search_cyclic
from lib.forgetting.sequences import cyclic_ordering
from lib.forgetting.tasks import Array, TaskCollection
from lib.forgetting.worst_case import worst_case_forgetting
from lib.validation import finite_array


def _climbed(angles: Array, order: NDArray[np.int64]) -> float:
    """The most that tasks in the plane forget near these angles, by L-BFGS with differences of all angles at once."""
    moves = 1e-8 * np.eye(angles.size + 1, angles.size, -1)

    def loss(phi: Array) -> tuple[float, Array]:
        # a step of the line search may come to a right angle, where all is lost
        losses = -np.log(np.maximum(finite_array("forgetting", planar_forgetting(phi + moves, order)), 1e-300))
        return float(losses[0]), (losses[1:] - losses[0]) / 1e-8

    found = minimize(loss, angles, jac=True, method="L-BFGS-B", options={"maxiter": 30})
    return float(planar_forgetting(found.x, order))


@claim(
    source="Theorem 7; the constant derived here",
    statement="One pass over T tasks can forget nearly everything: 1 − F falls as 2/√T, and for turns of equal "
    "size as π/√(2T). The most that an optimiser finds in the plane is F = (1 − 1/√T)², nearly.",
    paper="1 − F ≤ O(1/√T)",
)
def one_pass_can_forget_everything() -> Evidence:
    missing = [(1 - planar_forgetting(one_pass_angles(T), range(T))) * T**0.5 for T in (10, 100, 1000, 4000)]
    # one and the same task many times, then equal turns up to a right angle, in the best number
    turns = round(math.pi * math.sqrt(4000 / 2))
    even = np.concatenate([np.zeros(4000 - turns), np.linspace(0, np.pi / 2, turns)])
    best = [_climbed(one_pass_angles(T), np.arange(T)) for T in (100, 400)]
    return combine(
        within(missing, 1.65, 2, label="(1 − F)√T", digits=1),
        within(missing[-1], 1.98, 1.99, label="at T = 4000", digits=3),
        within((1 - planar_forgetting(even, range(4000))) * 4000**0.5, 2.19, 2.221, label="equal turns", digits=3),
        at_most(np.abs(np.subtract(best, [0.81, 0.9025])), 1e-5, label="best F from 0.81 and 0.9025", shown="< 1e-5"),
        remark="T = 10, 100, 1000, 4000 tasks in the plane; L-BFGS at T = 100, 400",
    )


@claim(
    source="Theorem 11; the constant derived here",
    statement="T tasks in a cycle forget at worst between T²/(24ek) and min{T²/√k, T²(d − r)/(2k)}; in the plane "
    "about T²/(π²ek).",
    paper="T²/(24ek) ≤ sup F ≤ min{T²/√k, T²(d − r)/(2k)}",
)
def cycles_lie_between_their_bounds() -> Evidence:
    best, outside = {}, []
    for T in (3, 4, 5, 8, 12, 16):
        for k in (T**2, 4 * T**2, 16 * T**2):
            best[T, k] = _climbed(back_and_forth_angles(T, k), cyclic_ordering(T, k))
            lower, upper = cyclic_bounds(T, k, d=2, r_max=1)
            outside += [lower / best[T, k], best[T, k] / upper]
    known = {(3, 9): 1.48, (3, 144): 1.340, (5, 400): 1.257, (16, 4096): 1.2164}
    ratios = [best[T, k] * 12 * math.e * k / T**2 / value for (T, k), value in known.items()]
    many = planar_forgetting(back_and_forth_angles(64, 32 * 64**2), cyclic_ordering(64, 32 * 64**2))
    return combine(
        at_most(outside, 1, label="largest of lower/F and F/upper", shown="{:.2f}"),
        within(ratios, 0.99, 1.01, label="12ekF/T² over 1.48, 1.34, 1.257, 1.2164"),
        within(many * math.pi**2 * math.e * 32, 0.998, 0.999, label="π²ekF/T² at T = 64, k = 32 T²", digits=4),
        remark="18 pairs of T = 3 … 16, k = T², 4T², 16T², L-BFGS from a sine; the four at (T, k) = (3, 9), (3, 144), "
        "(5, 400), (16, 4096), and 12/π² = 1.2159 in the limit",
    )


def _top(matrix: Array) -> float:
    return float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])


def _lemmas(nulls: list[Array], n: int) -> list[float]:
    """The left side minus the right side of Lemmas 22 a, b, d, e and 23, at the vector where it is largest."""
    T, one = len(nulls), np.eye(len(nulls[0]))
    lap = np.linalg.multi_dot(nulls[::-1])
    before, now, after = (np.linalg.matrix_power(lap, power) for power in (n - 1, n, n + 1))
    lost, step = one - lap.T @ lap, float(np.linalg.norm(now - after, 2))
    excess: list[float] = [
        _top((one - lap).T @ (one - lap) - T * lost),
        float(np.linalg.norm(before - now, 2)) - math.sqrt(T / n),
    ]
    for m, null in enumerate(nulls, start=1):
        excess.append(_top(one - null - m * lost))
        excess.append(float(np.linalg.norm((one - null) @ now, 2)) ** 2 - 2 * m * step)
    excess.append(_top(now.T @ now - after.T @ after) - float(np.linalg.matrix_rank(lap)) / n)
    # there and back: a symmetric lap
    there = np.linalg.matrix_power(lap.T @ lap, n - 1)
    excess.append(_top(there - there @ lap.T @ lap) - 1 / (math.e * (n - 1)))
    return excess


@claim(
    source="Lemmas 22 and 23, Theorem 11",
    statement="What one round loses bounds what the tasks have lost: the five inequalities that lead to the upper "
    "bound of a cycle hold, and the bound.",
)
def lemmas_of_the_upper_bound() -> Evidence:
    rng = np.random.default_rng(4)
    excess, ratios = [], []
    for trial in range(100):
        d, T, n = int(rng.integers(2, 9)), int(rng.integers(3, 8)), int(rng.integers(2, 12))
        bases = random_bases(rng, d, T, spread=0.2 if trial % 2 else None)
        tasks = TaskCollection([basis.T for basis in bases], w_star=np.zeros(d))
        excess.append(_lemmas([tasks.projector(m) for m in range(T)], n))
        worst, _ = worst_case_forgetting(tasks, cyclic_ordering(T, n * T))
        ratios.append(worst / cyclic_bounds(T, n * T, d, int(tasks.ranks.max()))[1])
    return combine(
        at_most(np.maximum(np.concatenate(excess), 0), 1e-12, label="excess"),
        at_most(ratios, 0.1, label="forgetting over its bound", shown="< {:.0e}"),
        remark="100 random collections, d = 2 … 8, T = 3 … 7, 2 … 11 rounds; at the worst vector of each lemma",
    )


@claim(
    source="derived here, a search",
    statement="The plane is not the worst case of a cycle: null spaces of two dimensions in R⁴ forget more. The search "
    "proves no more than that.",
)
def plane_is_not_the_worst_case() -> Evidence:
    found, again, gains = [], [], []
    for T, k, known in ((3, 36, 0.010931), (4, 16, 0.044066)):
        value, bases = search_cyclic(T, k, starts=8, steps=200)
        found.append(value / known)
        again.append(abs(worst_case_forgetting(bases, cyclic_ordering(T, k))[0] - value))
        gains.append(value / _climbed(back_and_forth_angles(T, k), cyclic_ordering(T, k)))
    return combine(
        at_least(gains, 1.04, label="over the best in the plane"),
        within(found, 0.998, 1.0001, label="over 0.010931, 0.044066"),
        at_most(again, 1e-12, label="difference from the exact value"),
        remark="(T, k) = (3, 36), (4, 16), 8 starts, 200 steps",
    )
