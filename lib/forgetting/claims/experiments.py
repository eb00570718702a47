"""Claims about real data, a network, and a model of four weights."""

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize
from scipy.stats import ttest_1samp

from lib.claims import Evidence, at_least, at_most, claim, combine, true_that, within
from lib.forgetting.margins import four_weight_outputs, four_weight_path, four_weight_tasks, nearest_with_margin
from lib.forgetting.real_tasks import diabetes_tasks, digit_tasks
from lib.forgetting.sequences import cyclic_ordering, fit_sequence, forgetting, random_ordering
from lib.forgetting.sweep import ForgettingPreset, sweep_forgetting
from lib.forgetting.tasks import Array
from lib.forgetting.worst_case import worst_case_forgetting
from lib.validation import finite_number

#: Of all networks here but for the turns and the cycles.
PRESET = ForgettingPreset()


def _low_and_high(values: Array) -> tuple[Array, Array]:
    """Ends of the 95 % interval of a mean, over the first axis."""
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    return low, high


@claim(
    source="Section 5; measured here",
    statement="Five tasks of real digits in a cycle: what is forgotten fades within ten rounds, and faster than in "
    "random order: worst cases are another matter than benign tasks.",
)
def digits_are_forgotten_less_in_a_cycle() -> Evidence:
    tasks = digit_tasks()
    square, at = tasks.w_star @ tasks.w_star, np.array([5, 10, 20, 50]) - 1
    cyclic = forgetting(tasks, cyclic_ordering(5, 50)) / square
    rng = np.random.default_rng(0)
    random = np.stack([forgetting(tasks, random_ordering(5, 50, rng)) / square for _ in range(50)])
    low, high = _low_and_high(random)
    known = np.array([3.3e-3, 3.5e-3, 1.7e-3, 2.3e-4])
    return combine(
        within(cyclic[at] / [6.68e-3, 1.73e-3, 3.01e-4, 8.25e-6], 0.98, 1.02, label="F over 6.68e-3 … 8.25e-6"),
        true_that("random means are 3.3e-3 … 2.3e-4", (low[at] <= known) & (known <= high[at]), bound="in 95 %"),
        at_most(cyclic[9:] / low[9:], 0.8, label="cycle over random, k ≥ 10", shown="< 0.8"),
        at_least(cyclic[4] / high[4], 1.5, label="at k = 5"),
        remark="F/|w*|² at k = 5, 10, 20, 50; 50 random orders, 95 % intervals of their mean",
    )


@claim(
    source="Section 4; measured here",
    statement="Diabetes patients by age, one group after another: next to nothing is forgotten, and after 100 rounds "
    "the weights are still nearly as far from joint training as at the start.",
)
def patients_are_remembered_far_from_joint_training() -> Evidence:
    lost, kept, left, worst = [], [], [], []
    order, steps = cyclic_ordering(5, 500), np.array([5, 50, 500])
    for seed in range(5):
        tasks = diabetes_tasks(seed=seed)
        square = tasks.w_star @ tasks.w_star
        lost.append(forgetting(tasks, order)[4:] / square)
        kept.append(lost[-1][-1] / lost[-1][0])
        left.append(np.square(fit_sequence(tasks, order) - tasks.offline).sum(axis=1) / square)
        worst.append([worst_case_forgetting(tasks, order[:k])[0] for k in steps])
    return combine(
        at_most(lost, 1e-5, label="F/|w*|²"),
        within(kept, 0.2, 1, label="F(500)/F(5)", digits=1),
        within(left, 0.97, 1 + 1e-12, label="distance²/|w*|²", digits=2),
        within(np.divide(worst, [0.17, 0.0085, 0.0007]), 0.85, 1.15, label="worst over 0.17, 0.0085, 0.0007", digits=1),
        remark="5 draws of 50 patients in each of 5 groups, d = 286; worst cases at k = 5, 50, 500",
    )


def _drops(cycles: int, *degrees: float) -> Array:
    """Accuracy on the first task that is lost after each cycle, against the first visit: (seeds, degrees, cycles)."""
    accuracy = sweep_forgetting(replace(PRESET, amounts=degrees, cycles=cycles))
    assert accuracy is not None
    return np.moveaxis(accuracy[:, :, 0, :1] - accuracy[:, :, 1::2, 0], 1, 0)


@claim(
    source="measured here",
    statement="A network on clothes and the same clothes turned: a quarter turn costs the first task far more than a "
    "small turn, and repetition restores much of what a turn by 45 degrees had cost.",
)
def networks_forget_less_with_repetition() -> Evidence:
    once, middle = _drops(1, 15.0, 90.0)[:, :, 0], _drops(3, 45.0)[:, 0]
    far, _ = _low_and_high(once[:, 1] - once[:, 0])
    restored = middle[:, 0] - middle[:, 2]
    return combine(
        at_least(far, 0.3, label="90 above 15 degrees"),
        at_least(restored.mean(), 0.2, label="45 degrees, cycle 1 above cycle 3"),
        at_least(_low_and_high(restored)[0], 0, label="low end of its interval"),
        at_most(np.diff(middle.mean(axis=0)), -0.02, label="from cycle to cycle", shown="falls"),
        remark="accuracy lost on upright clothes, 3 seeds, 95 % intervals (low end); 784-64-10, 12 epochs a visit",
    )


def _distance_by_slsqp(start: Array, x: Array) -> float:
    """To the nearest weights with a margin on x, from several starts of scipy's SLSQP."""
    rng = np.random.default_rng(0)
    constraint = {"type": "ineq", "fun": lambda w: finite_number("output", float(four_weight_outputs(w, x))) - 1}
    found = []
    for first in start + rng.standard_normal((4, 4)):
        run = minimize(lambda w: ((w - start) ** 2).sum(), first, constraints=constraint, options={"ftol": 1e-13})
        found.append(float(run.fun) if run.success else np.inf)
    return float(np.sqrt(np.min(found)))


@claim(
    source="Schliserman, Buzaglo, Evron and Soudry 2026, Theorem 5",
    statement="Where the model is not linear repetition need not help: on a network of four weights two tasks, learnt "
    "alternately, spoil one another each time, though weights that answer both exist.",
    paper="hinge loss of about 2",
)
def repetition_need_not_help() -> Evidence:
    tasks, path = four_weight_tasks(), four_weight_path(400)
    before = np.array([four_weight_outputs(path[1:], x) for x in tasks[::-1]])
    hinge = np.maximum(1 - np.where(np.arange(400) % 2, before[1], before[0]), 0)
    starts = [*path[:4], *np.random.default_rng(0).standard_normal((8, 4))]
    errors = []
    for step, start in enumerate(starts):
        x = tasks[step % 2]
        nearest = nearest_with_margin(start, x)
        errors.append(abs(float(np.linalg.norm(nearest - start)) - _distance_by_slsqp(start, x)))
        errors.append(float(np.maximum(1 - four_weight_outputs(nearest, x), 0)))
    return combine(
        within(hinge, 1.9, 2.1, label="hinge loss of the other task", digits=2),
        at_most(np.abs(path[:, [0, 2]]), 0, label="u₁, v₁", shown="0"),
        at_least(four_weight_outputs([3.2, 0.0, 0.0, 0.0], tasks), 1, label="output of (3.2, 0, 0, 0) on both"),
        at_most(errors, 1e-5, label="distance from SLSQP's", shown="< 1e-5"),
        remark="400 steps; the nearest weights compared with scipy's at the first 4 and 8 random starts",
    )
