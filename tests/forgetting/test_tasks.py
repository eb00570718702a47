import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from lib.forgetting import TaskCollection, row_space
from lib.forgetting.tasks import null_basis


@given(st.integers(0, 10_000))
def test_row_space_is_that_of_the_singular_vectors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = rng.integers(1, 9, 2)
    X = rng.standard_normal((n, d))
    if n > 1 and rng.random() < 0.5:
        X[-1] = X[0] * rng.standard_normal()  # a repeated row adds no rank
    _, values, rows = np.linalg.svd(X)
    rank = int((values > max(n, d) * 2.3e-16 * values[0]).sum())
    basis, null = row_space(X), null_basis(row_space(X))
    assert basis.shape == (d, rank)
    assert np.abs(basis @ basis.T - rows[:rank].T @ rows[:rank]).max() < 1e-7
    assert np.abs(np.eye(d) - basis @ basis.T - null @ null.T).max() < 1e-12


def test_rank_follows_the_tolerance() -> None:
    X = np.diag([1.0, 1e-3, 1e-9])
    assert [row_space(X, rtol).shape[1] for rtol in (None, 1e-6, 1e-2)] == [3, 2, 1]
    assert row_space(np.zeros((2, 3))).shape == (3, 0)
    assert row_space(1e-300 * np.ones((2, 2))).shape == (2, 1)


def test_targets_and_solution_say_the_same(rng: np.random.Generator) -> None:
    X = [rng.standard_normal((2, 9)) for _ in range(3)]
    w = rng.standard_normal(9)
    for normalize in (False, True):
        from_w = TaskCollection(X, w_star=w, normalize=normalize)
        from_y = TaskCollection(X, [x @ w for x in X], normalize=normalize)
        sparse = TaskCollection([scipy.sparse.csr_array(x) for x in X], w_star=w, normalize=normalize)
        np.testing.assert_allclose(np.concatenate(from_y.y), np.concatenate(from_w.y), rtol=1e-12)
        np.testing.assert_allclose(np.concatenate(sparse.y), np.concatenate(from_w.y), rtol=1e-9)
        np.testing.assert_allclose(from_y.w_star, from_w.offline, atol=1e-12)
        stacked = np.linalg.pinv(np.concatenate(X))
        np.testing.assert_allclose(from_w.offline, stacked @ np.concatenate([x @ w for x in X]), atol=1e-12)
    assert scipy.sparse.issparse(sparse.stacked)
    assert np.linalg.norm(from_w.X[0], 2) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array])
def test_rows_are_tasks_of_one_example(rng: np.random.Generator, make) -> None:
    A, w = rng.standard_normal((4, 7)), rng.standard_normal(7)
    A[2] = 0
    for normalize in (False, True):
        rows = TaskCollection.of_rows(make(A), A @ w, normalize=normalize)
        one_by_one = TaskCollection([row[None] for row in A], [[each] for each in A @ w], normalize=normalize)
        assert (rows.T, rows.ranks.tolist()) == (4, [1, 1, 0, 1])
        np.testing.assert_allclose(rows.targets, one_by_one.targets, rtol=1e-12)
        np.testing.assert_allclose(rows.w_star, one_by_one.w_star, atol=1e-12)
        np.testing.assert_allclose(rows.projector(1), one_by_one.projector(1), atol=1e-12)


@pytest.mark.parametrize(
    ("X", "options", "error", "message"),
    [
        ([], {"w_star": [1.0]}, ValueError, "at least one matrix"),
        ([[[1.0, 2.0]]], {}, ValueError, "exactly one of the targets and w_star"),
        ([[[1.0, 2.0]]], {"y": [[1.0]], "w_star": [1.0, 1.0]}, ValueError, "exactly one of the targets and w_star"),
        ([[1.0, 2.0]], {"w_star": [1.0, 1.0]}, ValueError, "must have 2 axes"),
        ([[[1.0, 2.0]], [[1.0]]], {"w_star": [1.0, 1.0]}, ValueError, "must share one number of columns"),
        ([[[1.0, np.nan]]], {"w_star": [1.0, 1.0]}, ValueError, "must be finite"),
        ([[[1.0, 2.0]]], {"y": [[1.0], [2.0]]}, ValueError, "targets of 1 tasks"),
        ([[[1.0]], [[1.0]]], {"y": [[1.0], [2.0]]}, ValueError, "must have a common solution"),
    ],
)
def test_bad_tasks_are_refused(X, options, error, message) -> None:
    with pytest.raises(error, match=message):
        TaskCollection(X, **options)


def test_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(IndexError, match="m must lie between 0 and 0; it is 1"):
        TaskCollection([[[1.0]]], w_star=[1.0]).projector(1)
