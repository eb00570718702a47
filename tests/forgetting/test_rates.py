import itertools
import math

import numpy as np
import pytest

from lib.forgetting import (
    cyclic_bounds,
    dominating_rates,
    expected_loss,
    expected_loss_curve,
    random_bound,
)


def bases(rng: np.random.Generator, T: int, d: int) -> list[np.ndarray]:
    return [np.linalg.qr(rng.standard_normal((d, int(rng.integers(1, d)))))[0] for _ in range(T)]


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


def test_bounds() -> None:
    assert cyclic_bounds(3, 3) == (0.0, pytest.approx(9 / 3**0.5))
    assert cyclic_bounds(3, 9)[0] == pytest.approx(1 / (24 * math.e))
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
