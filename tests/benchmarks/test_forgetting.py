"""Chapter 03 against its peers: Kaczmarz's steps, blocks of them, and the worst case; all with their set-up."""

import numpy as np
import pytest
import scipy.sparse

from lib.forgetting import TaskCollection, cyclic_ordering, fit_sequence, last_weights, worst_case_forgetting
from tests.benchmarks.conftest import label

STEPS = 20_000
ROWS = "20,000 cyclic steps on one row each, 200 × 400"
SPARSE = "the same, 1 % of the entries not zero"
BLOCKS = "200 cyclic tasks of 250 examples, T = 10, d = 300"
WORST = "the worst forgetting of those"
GROWTH = "how steps grow: one row each of 200, Gram matrix included"
BLOCK_GROWTH = "how steps grow: blocks, bases known"


def rows(density: float = 1.0):
    rng = np.random.default_rng(0)
    A = scipy.sparse.random_array((200, 400), density=density, rng=rng, format="csr") if density < 1 else None
    if A is not None:
        A = A[np.diff(A.indptr) > 0]  # the peer divides by the norm of a row
    return (rng.standard_normal((200, 400)) if A is None else A), rng.standard_normal(400)


def blocks():
    rng = np.random.default_rng(0)
    return [rng.standard_normal((250, 300)) for _ in range(10)], rng.standard_normal(300)


@pytest.mark.parametrize(("density", "group"), [(1.0, ROWS), (0.01, SPARSE)])
def test_rows(benchmark, density: float, group: str) -> None:
    A, w = rows(density)
    order = cyclic_ordering(A.shape[0], STEPS)
    label(benchmark, group, "ours: Gram matrix" if density == 1 else "ours: the entries that are there")
    benchmark.pedantic(lambda: last_weights(TaskCollection.of_rows(A, w_star=w), order), rounds=20, warmup_rounds=2)


@pytest.mark.parametrize(("density", "group"), [(1.0, ROWS), (0.01, SPARSE)])
def test_rows_by_the_peer(benchmark, density: float, group: str) -> None:
    kaczmarz = pytest.importorskip("kaczmarz", reason="the bench extra is not installed")
    A, w = rows(density)
    dense = A if density == 1 else A.toarray()
    label(
        benchmark, group, "kaczmarz-algorithms, Cyclic", "" if density == 1 else "dense; sparse rows: 17 times as long"
    )
    found = benchmark.pedantic(
        lambda: kaczmarz.Cyclic.solve(dense, dense @ w, maxiter=STEPS, tol=None), rounds=3, warmup_rounds=1
    )
    ours = last_weights(TaskCollection.of_rows(A, w_star=w), cyclic_ordering(A.shape[0], STEPS))
    assert np.abs(ours - found).max() < 1e-9


def test_blocks(benchmark) -> None:
    X, w = blocks()
    label(benchmark, BLOCKS, "ours: projections")
    benchmark.pedantic(
        lambda: fit_sequence(TaskCollection(X, w_star=w), cyclic_ordering(10, 200))[-1], rounds=5, warmup_rounds=1
    )


def test_blocks_by_least_squares(benchmark) -> None:
    X, w_star = blocks()

    def learn():
        w = np.zeros(300)
        for m in cyclic_ordering(10, 200):
            w = w + np.linalg.lstsq(X[m], X[m] @ (w_star - w), rcond=None)[0]
        return w

    label(benchmark, BLOCKS, "numpy lstsq, one after another")
    found = benchmark.pedantic(learn, rounds=1)
    assert np.abs(found - fit_sequence(TaskCollection(X, w_star=w_star), cyclic_ordering(10, 200))[-1]).max() < 1e-9


def test_worst_case(benchmark) -> None:
    X, w = blocks()
    tasks = TaskCollection(X, w_star=w)
    assert len(tasks.null_bases) == 10
    label(benchmark, WORST, "ours: products within null spaces", "null spaces known")
    benchmark.pedantic(lambda: worst_case_forgetting(tasks, cyclic_ordering(10, 200))[0], rounds=20, warmup_rounds=2)


def test_worst_case_by_dense_products(benchmark) -> None:
    X, w = blocks()
    tasks = TaskCollection(X, w_star=w)
    seen = [basis @ basis.T for basis in tasks.bases]
    order = cyclic_ordering(10, 200)

    def dense():
        product = np.eye(300)
        for m in order:
            product = product - seen[m] @ product
        return float(np.linalg.eigvalsh(product.T @ (sum(seen[m] for m in order) / order.size) @ product)[-1])

    label(benchmark, WORST, "numpy, dense products", "projections known")
    found = benchmark.pedantic(dense, rounds=3, warmup_rounds=1)
    assert found == pytest.approx(worst_case_forgetting(tasks, order)[0], rel=1e-6)


@pytest.mark.parametrize(("k", "d"), [(20_000, 400), (40_000, 400), (80_000, 400), (20_000, 1600), (20_000, 6400)])
def test_growth_of_rows(benchmark, k: int, d: int) -> None:
    A = np.random.default_rng(0).standard_normal((200, d))
    tasks, order = TaskCollection.of_rows(A, w_star=A[0]), cyclic_ordering(200, k)
    label(benchmark, GROWTH, f"ours: k = {k:,}, d = {d:,}")
    benchmark.pedantic(lambda: last_weights(tasks, order), rounds=20, warmup_rounds=2)


@pytest.mark.parametrize(("k", "d"), [(200, 300), (400, 300), (800, 300), (200, 600), (200, 1200)])
def test_growth_of_blocks(benchmark, k: int, d: int) -> None:
    rng = np.random.default_rng(0)
    tasks = TaskCollection([rng.standard_normal((50, d)) for _ in range(10)], w_star=rng.standard_normal(d))
    assert len(tasks.bases) == 10
    label(benchmark, BLOCK_GROWTH, f"ours: k = {k:,}, d = {d:,}, 50 examples")
    benchmark.pedantic(lambda: fit_sequence(tasks, cyclic_ordering(10, k))[-1], rounds=20, warmup_rounds=2)
