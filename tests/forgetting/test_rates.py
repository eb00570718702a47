import itertools

import numpy as np
import pytest

from lib.forgetting import (
    TaskCollection,
    cyclic_bounds,
    dominating_rates,
    expected_curve,
    expected_forgetting,
    expected_loss,
    expected_loss_curve,
    forgetting,
    random_bound,
)


def bases(rng: np.random.Generator, T: int, d: int) -> list[np.ndarray]:
    return [np.linalg.qr(rng.standard_normal((d, int(rng.integers(1, d)))))[0] for _ in range(T)]


def test_the_expectation_is_the_mean_over_all_orders(rng: np.random.Generator) -> None:
    rows, w = bases(rng, 3, 4), rng.standard_normal(4)
    tasks = TaskCollection([basis.T for basis in rows], w_star=w)
    curves = [forgetting(tasks, list(order)) for order in itertools.product(range(3), repeat=5)]
    np.testing.assert_allclose(expected_curve(rows, 5, w), np.mean(curves, axis=0), atol=1e-15)
    assert expected_forgetting(rows, 5, w) == pytest.approx(float(np.mean(curves, axis=0)[-1]), abs=1e-15)


def test_without_a_solution_it_is_the_largest(rng: np.random.Generator) -> None:
    rows = bases(rng, 3, 2)
    turns = np.linspace(0, np.pi, 721)
    around = [expected_forgetting(rows, 6, [np.cos(turn), np.sin(turn)]) for turn in turns]
    assert expected_forgetting(rows, 6) == pytest.approx(max(around), rel=1e-4)


def test_expected_loss_is_the_mean_over_all_orders(rng: np.random.Generator) -> None:
    rows = bases(rng, 3, 3)
    shrink = np.array([0.9, 0.5, 0.7])
    loss = np.zeros((3, 3))
    for order in itertools.product(range(3), repeat=3):
        product = np.eye(3)
        for c, m in zip(shrink, order, strict=True):
            product = (np.eye(3) - c * rows[m] @ rows[m].T) @ product
        loss += product.T @ sum(b @ b.T for b in rows) @ product / 3**4
    assert expected_loss(rows, 3, shrink) == pytest.approx(float(np.linalg.eigvalsh(loss)[-1]), rel=1e-12)


@pytest.mark.parametrize("shrink", [1.0, 0.4])
def test_a_curve_of_losses_is_each_loss(rng: np.random.Generator, shrink: float) -> None:
    rows = bases(rng, 3, 4)
    each = [expected_loss(rows, k, shrink) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(expected_loss_curve(rows, 4, shrink), each, rtol=1e-12)
    with pytest.raises(ValueError, match="shrink must lie above 0 and be at most 1"):
        expected_loss_curve(rows, 4, 1.5)


def test_the_recursion_dominates(rng: np.random.Generator) -> None:
    for _ in range(20):
        rows = bases(rng, int(rng.integers(2, 6)), int(rng.integers(2, 6)))
        spectrum = np.linalg.eigvalsh(sum(b @ b.T for b in rows) / len(rows)).clip(0, 1)
        for shrink in (None, 0.4, (20 - np.arange(20)) / 20):
            assert expected_loss(rows, 20, shrink) <= dominating_rates(spectrum, 20, shrink) + 1e-14


def test_bounds() -> None:
    assert cyclic_bounds(3, 3) == (0.0, pytest.approx(9 / 3**0.5))
    assert cyclic_bounds(3, 9)[0] == pytest.approx(1 / (24 * np.e))
    assert random_bound(9, 4, 1.0) == 3.0
    for call, message in (
        (lambda: cyclic_bounds(3, 4), "k must be a multiple of T = 3"),
        (lambda: cyclic_bounds(3, 3, d=4), "d and r_max must be given together"),
        (lambda: random_bound(1, 2, 3.0), "r_avg must"),
        (lambda: dominating_rates([], 2), "spectrum must hold at least one"),
        (lambda: dominating_rates([1.0], 2, [0.5, 1.5]), "shrink must lie above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
