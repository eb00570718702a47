import numpy as np
import pytest
import scipy.sparse

from lib.forgetting import (
    TaskCollection,
    cyclic_ordering,
    fit_sequence,
    forgetting,
    last_weights,
    random_ordering,
)


def collection(rng: np.random.Generator, ranks: list[int], d: int) -> TaskCollection:
    w = rng.standard_normal(d)
    return TaskCollection([rng.standard_normal((r, d)) for r in ranks], w_star=w / np.linalg.norm(w), normalize=True)


def test_each_step_is_the_nearest_solution(rng: np.random.Generator) -> None:
    for _ in range(20):
        d = int(rng.integers(3, 20))
        tasks = collection(rng, rng.integers(1, d, 5).tolist(), d)
        order = random_ordering(5, 12, rng)
        path = fit_sequence(tasks, order, w := rng.standard_normal(d))
        for step, m in enumerate(order):
            w = w + np.linalg.pinv(tasks.X[m]) @ (tasks.y[m] - tasks.X[m] @ w)
            np.testing.assert_allclose(path[step + 1], w, atol=1e-10)


def test_forgetting_counts_every_visit_and_the_task_just_learnt(rng: np.random.Generator) -> None:
    tasks = collection(rng, [2, 3, 1], 6)
    order = [2, 0, 0, 1, 2, 0]
    path, found = fit_sequence(tasks, order), forgetting(tasks, order)
    losses = [[float(np.sum((tasks.X[m] @ w - tasks.y[m]) ** 2)) for m in order] for w in path[1:]]
    np.testing.assert_allclose(found, [np.mean(losses[k][: k + 1]) for k in range(6)], atol=1e-15)
    assert found[0] < 1e-30  # k = 1: the only task has just been learnt
    assert found[1] == pytest.approx(losses[1][0] / 2)  # k = 2: half the loss of the first task


@pytest.mark.parametrize("density", [1.0, 0.05])
def test_tasks_of_one_row_are_kaczmarz(rng: np.random.Generator, density: float) -> None:
    rows = scipy.sparse.random_array((30, 50), density=density, rng=rng, format="csr")
    w = rng.standard_normal(50)
    order = np.concatenate([cyclic_ordering(30, 100), random_ordering(30, 100, rng)])
    start = rng.standard_normal(50)
    dense = TaskCollection([row[None] for row in rows.toarray()], w_star=w)
    expected = fit_sequence(dense, order, start)[-1]
    np.testing.assert_allclose(last_weights(dense, order, start), expected, atol=1e-10)
    sparse = TaskCollection.of_rows(rows, w_star=w)
    np.testing.assert_allclose(last_weights(sparse, order, start), expected, atol=1e-10)


def test_one_sweep_is_one_of_gauss_and_seidel(rng: np.random.Generator) -> None:
    tasks = collection(rng, [1] * 5, 8)
    A, b = np.concatenate(tasks.X), np.concatenate(tasks.y)
    np.testing.assert_allclose(
        last_weights(tasks, cyclic_ordering(5, 5)), A.T @ np.linalg.solve(np.tril(A @ A.T), b), atol=1e-12
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda tasks: fit_sequence(tasks, [0, 2]), IndexError, "must hold tasks from 0 to 1"),
        (lambda tasks: forgetting(tasks, [-1]), IndexError, "must hold tasks from 0 to 1"),
        (lambda tasks: forgetting(tasks, []), ValueError, "at least one task"),
        (lambda tasks: forgetting(tasks, [0.5]), ValueError, "at least one task"),
        (lambda tasks: fit_sequence(tasks, [0], [1.0]), ValueError, "w0 must have shape"),
        (lambda _: fit_sequence([[1.0]], [0]), TypeError, "tasks must be"),
        (lambda _: cyclic_ordering(2, 0), ValueError, "k must be at least 1"),
        (lambda _: random_ordering(2, 3, np.random.default_rng(0), replace=False), ValueError, "at most T = 2"),
    ],
)
def test_bad_sequences_are_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call(TaskCollection([[[1.0, 0.0]], [[0.0, 1.0]]], w_star=[1.0, 1.0]))
