"""Claims about learning to the end as a projection, the exact worst case, and two tasks alternately."""

import math

import numpy as np
from numpy.typing import NDArray

from lib.claims import Evidence, at_most, claim, combine, true_that, within
from lib.forgetting.planar import planar_tasks
from lib.forgetting.sequences import cyclic_ordering, fit_sequence, forgetting, random_ordering
from lib.forgetting.tasks import Array, TaskCollection, row_space
from lib.forgetting.two_tasks import principal_angles, two_task_distance, two_task_forgetting, two_task_worst_case
from lib.forgetting.worst_case import worst_case_forgetting


def random_bases(rng: np.random.Generator, d: int, count: int, spread: float | None = None) -> list[Array]:
    """Bases (d, r_m) of row spaces of random ranks from 1 to d - 1: in any direction, or all near the first axes."""
    middle, width = (0.0, 1.0) if spread is None else (1.0, spread)
    ranks = rng.integers(1, d, count).tolist()
    return [row_space(middle * np.eye(rank, d) + width * rng.standard_normal((rank, d))) for rank in ranks]


def _descended(tasks: TaskCollection, order: NDArray[np.int64]) -> Array:
    """Weights after each task, by 1000 steps of gradient descent on it."""
    path = [np.zeros(tasks.d)]
    for m in order:
        w, rows, targets = path[-1], tasks.X[m], tasks.y[m]
        scaled = rows.T / np.linalg.norm(rows) ** 2
        for _ in range(1000):
            w = w - scaled @ (rows @ w - targets)
        path.append(w)
    return np.stack(path)


@claim(
    source="Section 2, equations 2, 5 and 7",
    statement="Learning a task to the end projects: w − w* goes onto the null space of the task's features. "
    "Least squares and gradient descent arrive at the same weights.",
)
def learning_to_the_end_projects() -> Evidence:
    rng = np.random.default_rng(0)
    products, solved, descended = [], [], []
    for _ in range(200):
        d, T = int(rng.integers(3, 30)), int(rng.integers(2, 8))
        rows = [rng.standard_normal((int(rng.integers(1, d)), d)) for _ in range(T)]
        tasks, order = TaskCollection(rows, w_star=rng.standard_normal(d)), random_ordering(T, 20, rng)
        projectors = [tasks.projector(m) for m in range(T)]
        error, w = -tasks.w_star, np.zeros(d)
        for m, after in zip(order, fit_sequence(tasks, order)[1:], strict=True):
            error = projectors[m] @ error
            w = w + np.linalg.lstsq(rows[m], tasks.y[m] - rows[m] @ w)[0]
            products.append(np.abs(after - tasks.w_star - error))
            solved.append(np.abs(after - w))
    for _ in range(3):
        wide = TaskCollection(list(rng.standard_normal((4, 3, 12))), w_star=rng.standard_normal(12))
        order = random_ordering(4, 6, rng)
        descended.append(np.abs(_descended(wide, order) - fit_sequence(wide, order)))
    return combine(
        at_most(products, 1e-10, label="product of projections"),
        at_most(solved, 1e-10, label="least squares"),
        at_most(descended, 1e-10, label="gradient descent"),
        remark="200 random collections, d = 3 … 29, T = 2 … 7, 20 steps; gradient descent on 3 of d = 12",
    )


def dense_worst_case(bases: list[Array], order: NDArray[np.int64]) -> float:
    """The largest eigenvalue of A' M A, with d x d matrices."""
    rows = np.stack([basis @ basis.T for basis in bases])
    product = np.eye(rows.shape[-1])
    for m in order:
        product = product - rows[m] @ product
    return float(np.linalg.eigvalsh(product.T @ rows[order].mean(axis=0) @ product)[-1])


@claim(
    source="derived here, from equation 7",
    statement="The most that given row spaces can forget is a largest eigenvalue: some solution reaches it, none more.",
)
def worst_case_is_an_eigenvalue() -> Evidence:
    rng = np.random.default_rng(1)
    reached, excess, dense = [], [], []
    for trial in range(30):
        bases = random_bases(rng, 8, 4, spread=None if trial % 2 else 0.3)
        tasks, order = TaskCollection([basis.T for basis in bases], w_star=np.zeros(8)), random_ordering(4, 9, rng)
        _, w = worst_case_forgetting(bases, order)
        starts = [w, *(other / np.linalg.norm(other) for other in rng.standard_normal((33, 8)))]
        losses = np.stack([forgetting(tasks, order, start) for start in starts])
        worst = np.array([worst_case_forgetting(bases, order[:k])[0] for k in range(1, 10)])
        reached.append([abs(losses[0, -1] - worst[-1]), abs(np.linalg.norm(w) - 1)])
        excess.append(np.maximum(losses - worst, 0))
        orders = (order, cyclic_ordering(4, 41))
        dense += [abs(worst_case_forgetting(bases, each)[0] - dense_worst_case(bases, each)) for each in orders]
    return combine(
        at_most(reached, 1e-12, label="distance at its eigenvector"),
        at_most(excess, 1e-12, label="excess elsewhere"),
        at_most(dense, 1e-12, label="small products against dense ones"),
        remark="30 random collections, d = 8, T = 4, orders of 1 … 9 tasks, 33 random solutions each; cycles of 41",
    )


@claim(
    source="Lemma 9; odd k derived here",
    statement="Two tasks learnt alternately forget at worst floor(k/2)/k · max (cos²θ)^(k−1) sin²θ over the principal "
    "angles θ.",
)
def two_tasks_in_closed_form() -> Evidence:
    rng = np.random.default_rng(2)
    errors = []
    for trial in range(300):
        first, second = random_bases(rng, int(rng.integers(2, 20)), 2, spread=0.2 if trial % 2 else None)
        k = 2 * int(rng.integers(1, 30)) + trial % 3 // 2
        formula = two_task_forgetting(principal_angles(first, second), k).max()
        errors.append(abs(worst_case_forgetting([first, second], cyclic_ordering(2, k))[0] - formula))
    return at_most(errors, 1e-12, remark="300 random pairs of any ranks, d = 2 … 19, k = 2 … 59")


@claim(
    source="Theorem 10; the angle derived here",
    statement="The worst angle is intermediate: cos²θ = (k−1)/k, 45 degrees at k = 2 and less later. What is forgotten "
    "there lies between 1/(2ek) and 1/(2e(k−1)), for even k.",
    paper="1/(2e(k−1)) − 1/(4e(k−1)²) + O(1/k³)",
)
def worst_angle_is_intermediate() -> Evidence:
    import sympy as sp

    from lib.forgetting import symbolic

    zero = [sp.simplify(product - formula) == 0 for product, formula in map(symbolic.two_task_formula, (1, 2, 3))]
    square, limit = symbolic.worst_angle()
    zero += [sp.simplify(square - (symbolic.K - 1) / symbolic.K) == 0, limit - 1 == 0]
    k, grid = np.array([2, 4, 10, 100]), np.linspace(0, np.pi / 2, 200_001)
    theta, worst = np.transpose([two_task_worst_case(count) for count in k])
    curves = np.stack([two_task_forgetting(grid, count) for count in k])
    angles = theta - [np.radians([45, 30, 18.434949, 5.73917]), grid[curves.argmax(axis=1)]]
    values = worst / [[0.125, 0.052734375, 0.01937102445, 0.001848648188], curves.max(axis=1)] - 1
    slow = 1 / (2 * math.e * (k - 1))
    rest = np.abs(worst - slow + slow / (2 * (k - 1))) * k**3
    return combine(
        true_that("sympy: formula, angle, limit 1/(2ek)", zero),
        at_most(np.abs(angles), 1e-5, label="angle on a grid"),
        at_most(np.abs(values), 1e-8, label="value"),
        true_that("between the bounds", [worst >= 1 / (2 * math.e * k), worst <= slow]),
        at_most(rest, 0.3, label="k³ times the distance from the paper's expansion", shown="< 0.3"),
        remark="200,001 angles; k = 2, 4, 10, 100",
    )


@claim(
    source="Theorem 6",
    statement="After one visit to each of two tasks nothing is forgotten, whatever the solution, if and only if all "
    "principal angles are 0 or 90 degrees.",
)
def only_angles_between_are_forgotten() -> Evidence:
    rng = np.random.default_rng(3)
    kept, lost, right = [], [], []
    # axes of two row spaces, and the axis towards which the last one of the second is turned
    for first, second, towards in 10 * (([0, 1, 2], [0, 1], 5), ([0, 1], [2, 3], 0), ([0, 1, 2], [0, 1, 3], 2)):
        frame = np.linalg.qr(rng.standard_normal((6, 6)))[0]
        pair = [frame[:, first], frame[:, second]]
        right.append(np.sin(2 * principal_angles(*pair)))
        kept.append(worst_case_forgetting(pair, [0, 1])[0])
        pair[1][:, -1] = np.cos(0.01) * pair[1][:, -1] + np.sin(0.01) * frame[:, towards]
        lost.append(worst_case_forgetting(pair, [0, 1])[0])
    return combine(
        at_most(right, 1e-6, label="sin 2θ", shown="< 1e-6"),
        at_most(kept, 1e-14, label="forgotten"),
        within(lost, 4.9e-5, 5.1e-5, label="after a turn of one direction by 0.01"),
        remark="nested, orthogonal and other commuting pairs in R^6, 10 frames each",
    )


@claim(
    source="Theorem 8; Section 4",
    statement="Little forgetting does not mean that the weights are near those of joint training: at small angles "
    "1000 visits forget next to nothing and leave nearly the whole distance.",
    paper="distance² ≤ (cos²θ)^(k−1), tight",
)
def little_is_forgotten_far_from_the_solution() -> Evidence:
    lost, left, closed, order = [], [], [], cyclic_ordering(2, 1000)
    for theta, known_loss, known_distance in ((0.1, 2.2e-7, 4.5e-5), (0.01, 4.5e-5, 0.905), (0.001, 5.0e-7, 0.999)):
        tasks = TaskCollection(planar_tasks([0.0, theta]), w_star=[1.0, 0.0])
        F, distance = forgetting(tasks, order), np.square(fit_sequence(tasks, order) - tasks.offline).sum(axis=1)
        lost.append(F[-1] / known_loss)
        left.append(distance[-1] / known_distance)
        for k in (2, 500, 501, 1000):
            closed.append(F[k - 1] / two_task_forgetting(theta, k) - 1)
            closed.append(distance[k] / two_task_distance(theta, k) - 1)
    return combine(
        within(lost, 0.97, 1.03, label="F(1000) over 2.2e-7, 4.5e-5, 5.0e-7", digits=1),
        within(left, 0.97, 1.03, label="distance² over 4.5e-5, 0.905, 0.999", digits=1),
        at_most(np.abs(closed), 1e-9, label="from the closed forms"),
        remark="θ = 0.1, 0.01, 0.001",
    )
