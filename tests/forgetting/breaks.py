"""What makes each claim of chapter 03 fail."""

from lib.forgetting import search, symbolic, two_tasks, worst_case
from lib.forgetting.claims import cycles, projections
from lib.forgetting.tasks import TaskCollection
from tests.breaking import Break, edit, replace


def once_more(bases, ordering):
    """The first task again in the end."""
    return worst_case.worst_case_forgetting(bases, [*ordering, ordering[0]])


def in_the_plane(T, k, **options):
    return search.search_cyclic(T, k, d=2, nullity=1, **options)


#: Tasks that are not learnt quite to the end.
HALF_LEARNT = edit(projections, "fit_sequence", "error - basis", "error - 0.999 * basis")
#: One power too many, as where the first projection is forgotten to meet the solution itself.
ONE_POWER_MORE = edit(projections, "two_task_forgetting", "2 * (steps - 1)", "2 * steps")

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
}
