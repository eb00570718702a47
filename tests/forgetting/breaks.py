"""What makes each claim of chapter 03 fail."""

from dataclasses import replace as with_settings

import torch

from lib.forgetting import margins, rates, search, sweep, symbolic, two_tasks, worst_case
from lib.forgetting.claims import cycles, experiments, projections, random_orders
from lib.forgetting.sequences import cyclic_ordering
from lib.forgetting.tasks import TaskCollection
from lib.training import fit
from tests.breaking import Break, both, edit, replace


def once_more(bases, ordering):
    """The first task again in the end."""
    return worst_case.worst_case_forgetting(bases, [*ordering, ordering[0]])


def in_the_plane(T, k, **options):
    return search.search_cyclic(T, k, d=2, nullity=1, **options)


def in_a_cycle(bases, k, w_star=None):
    """The worst case of the cyclic order in the place of a mean over orders."""
    return worst_case.worst_case_forgetting(bases, cyclic_ordering(len(bases), k))[0]


def from_the_start(model, *data, seed, **options):
    """Training that begins with new weights at each visit."""
    torch.nn.init.normal_(next(model.parameters()), std=0.05, generator=torch.Generator().manual_seed(seed))
    return fit(model, *data, seed=seed, **options)


def no_chance(T, k, rng):
    return cyclic_ordering(T, k)


#: Tasks that are not learnt quite to the end.
HALF_LEARNT = edit(projections, "fit_sequence", "error - basis", "error - 0.999 * basis")
#: One power too many, as where the first projection is forgotten to meet the solution itself.
ONE_POWER_MORE = edit(projections, "two_task_forgetting", "2 * (steps - 1)", "2 * steps")

#: Fewer pictures, a smaller network and shorter recursions.
SMALL = with_settings(experiments.PRESET, count=240, tests=500, width=32, epochs=8, batch_size=80)
SETTING = both(
    replace(experiments, "PRESET", SMALL),
    replace(random_orders, "_BOUNDS", {k: row for k, row in random_orders._BOUNDS.items() if k <= 1000}),
)
BREAKS: dict[str, list[Break]] = {
    "learning-to-the-end-projects": [
        HALF_LEARNT,
        edit(TaskCollection, "projector", "basis @ basis.T", "1.001 * basis @ basis.T"),
    ],
    "worst-case-is-an-eigenvalue": [
        edit(projections, "worst_case_forgetting", "/ order.size", "/ (order.size + 1)"),
        edit(projections, "worst_case_forgetting", "vectors[:, -1]", "vectors[:, 0]"),
        edit(worst_case, "_product", "(once, laps)", "(once, laps - 1)"),
        edit(projections, "forgetting", "np.arange(1, k + 1)", "np.arange(2, k + 2)"),
    ],
    "two-tasks-in-closed-form": [
        ONE_POWER_MORE,
        edit(projections, "two_task_forgetting", "steps // 2 / steps", "1 / 2"),
        replace(projections, "principal_angles", lambda a, b: two_tasks.principal_angles(a, b)[-1:]),
    ],
    "worst-angle-is-intermediate": [
        edit(symbolic, "two_task_formula", "2 * (k - 1)", "2 * k"),
        ONE_POWER_MORE,
        edit(projections, "two_task_worst_case", "np.sqrt(1 / steps)", "np.sqrt(1 / (steps + 1))"),
        edit(symbolic, "worst_angle", "sp.log(1 - 1 / K)", "sp.log(1 - 2 / K)"),
    ],
    "only-angles-between-are-forgotten": [
        edit(projections, "worst_case_forgetting", "seen -= counts", "seen -= 0.9 * counts"),
        replace(projections, "worst_case_forgetting", once_more),
    ],
    "little-is-forgotten-far-from-the-solution": [
        HALF_LEARNT,
        edit(projections, "two_task_distance", '(positive_integer("k", k) - 1)', 'positive_integer("k", k)'),
        edit(projections, "forgetting", "np.arange(1, k + 1)", "np.arange(2, k + 2)"),
    ],
    "one-pass-can-forget-everything": [
        edit(cycles, "one_pass_angles", "np.cos(angles[j])", "0.9 * np.cos(angles[j])"),
        edit(cycles, "planar_forgetting", "path - path[..., -1:]", "path - path[..., :1]"),
        edit(cycles, "planar_forgetting", "np.square(np.cos(", "np.abs(np.cos("),
    ],
    "cycles-lie-between-their-bounds": [
        edit(cycles, "cyclic_bounds", "24 *", "10 *"),
        edit(cycles, "back_and_forth_angles", "2 * tasks**2", "tasks**2"),
        edit(cycles, "planar_forgetting", "path - path[..., -1:]", "path"),
    ],
    "lemmas-of-the-upper-bound": [
        edit(TaskCollection, "projector", "basis @ basis.T", "1.5 * basis @ basis.T"),
        edit(cycles, "cyclic_bounds", "(2 * steps)", "(50 * steps)"),
    ],
    "plane-is-not-the-worst-case": [
        replace(cycles, "search_cyclic", in_the_plane),
        edit(search, "_forgetting", "rounds - 1", "rounds - 2"),
    ],
    "random-orders-in-expectation": [
        edit(random_orders, "expected_curve", "/ (step + 1)", "/ (step + 2)"),
        edit(random_orders, "expected_forgetting", "later, total = rows", "later, total = nulls"),
        edit(random_orders, "random_bound", "9 *", "0.3 *"),
        replace(random_orders, "expected_forgetting", in_a_cycle),
    ],
    "recursion-dominates-the-expected-loss": [
        edit(random_orders, "dominating_rates", "2 * rates", "3 * rates"),
        edit(random_orders, "_recursions", "2 * mean", "3 * mean"),
        edit(rates, "_losses", "- c * rows", "- 0.9 * c * rows"),
    ],
    "average-weights-lose-one-over-k": [
        edit(random_orders, "fit_sequence", "error - basis", "error - 0.999 * basis"),
        # the last weights, which have no such bound, in the place of all
        edit(random_orders, "_average_loss", "across + np.mean", "mean * (k + 1) + np.mean"),
        edit(
            random_orders,
            "_recursions",
            "exact.append(np.mean(nulls @ exact",
            "exact.append(np.mean(1.01 * nulls @ exact",
        ),
    ],
    "penalties-that-grow-reach-one-over-k": [
        edit(random_orders, "dominating_rates", "(c * rates[", "(rates["),
        edit(random_orders, "dominating_rates", "[::-1]", ""),
        edit(random_orders, "expected_loss", "[::-1]", ""),
        edit(rates, "_losses", "- c * rows", "- 0.5 * c * rows"),
    ],
    "digits-are-forgotten-less-in-a-cycle": [
        edit(experiments, "digit_tasks", "pixels[pair] / 16", "pixels[pair] / 15"),
        replace(experiments, "random_ordering", no_chance),
        edit(experiments, "forgetting", "np.arange(1, k + 1)", "np.arange(2, k + 2)"),
    ],
    "patients-are-remembered-far-from-joint-training": [
        edit(experiments, "fit_sequence", "error + tasks.w_star", "error + tasks.w_star / 100"),
        edit(experiments, "forgetting", "np.square(residual)", "np.abs(residual)"),
        edit(experiments, "worst_case_forgetting", "/ order.size", "/ (order.size + 2)"),
    ],
    "networks-forget-less-with-repetition": [
        # nothing but the first task
        edit(sweep, "_pair", "train[visit % 2]", "train[0]"),
        # a new network at each visit
        replace(sweep, "fit", from_the_start),
    ],
    "repetition-need-not-help": [
        edit(margins, "four_weight_tasks", "-1 - e", "0.5 - e"),
        edit(experiments, "nearest_with_margin", "end = 1 - 1e-12", "end = 0.5"),
    ],
}
