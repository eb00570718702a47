import numpy as np
import pytest

from lib.forgetting import (
    TaskCollection,
    back_and_forth_angles,
    cyclic_bounds,
    cyclic_ordering,
    forgetting,
    one_pass_angles,
    planar_curve,
    planar_forgetting,
    planar_tasks,
    principal_angles,
    random_ordering,
    row_space,
    two_task_distance,
    two_task_forgetting,
    two_task_worst_case,
    worst_case_forgetting,
)


def bases(rng: np.random.Generator, ranks: list[int], d: int) -> list[np.ndarray]:
    return [np.linalg.qr(rng.standard_normal((d, r)))[0] for r in ranks]


def dense(rows: list[np.ndarray], order: np.ndarray) -> float:
    """The same by products of d x d matrices."""
    product = np.eye(len(rows[0]))
    for m in order:
        product = product - rows[m] @ (rows[m].T @ product)
    mean = sum(rows[m] @ rows[m].T for m in order) / len(order)
    return float(np.linalg.eigvalsh(product.T @ mean @ product)[-1])


def test_it_is_reached_and_never_passed(rng: np.random.Generator) -> None:
    for _ in range(10):
        rows = bases(rng, rng.integers(1, 8, 4).tolist(), 8)
        order = random_ordering(4, 9, rng)
        value, w = worst_case_forgetting(rows, order)
        tasks = TaskCollection([b.T for b in rows], w_star=w)
        assert forgetting(tasks, order)[-1] == pytest.approx(value, abs=1e-14)
        assert worst_case_forgetting(tasks, order)[0] == pytest.approx(value, abs=1e-14)
        for other in rng.standard_normal((20, 8)):
            tasks = TaskCollection([b.T for b in rows], w_star=other / np.linalg.norm(other))
            assert forgetting(tasks, order)[-1] <= value + 1e-14


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7, 50, 51])
def test_powers_of_a_cycle_are_long_products(rng: np.random.Generator, k: int) -> None:
    rows = bases(rng, [3, 4, 2], 6)
    order = cyclic_ordering(3, k)
    assert worst_case_forgetting(rows, order)[0] == pytest.approx(dense(rows, order), rel=1e-9, abs=1e-14)


def test_two_tasks_have_a_closed_form(rng: np.random.Generator) -> None:
    for k in (1, 2, 3, 10, 31):
        d = int(rng.integers(2, 12))
        first, second = bases(rng, rng.integers(1, d, 2).tolist(), d)
        formula = float(two_task_forgetting(principal_angles(first, second), k).max())
        assert worst_case_forgetting([first, second], cyclic_ordering(2, k))[0] == pytest.approx(formula, abs=1e-14)


def test_the_worst_angle_is_the_worst() -> None:
    angles = np.linspace(0, np.pi / 2, 100_001)
    for k in (2, 4, 10, 100):
        theta, value = two_task_worst_case(k)
        curve = two_task_forgetting(angles, k)
        assert curve.max() == pytest.approx(value, rel=1e-6)
        assert angles[curve.argmax()] == pytest.approx(theta, abs=1e-4)
        assert 1 / (2 * np.e * k) <= value <= 1 / (2 * np.e * (k - 1))
        assert cyclic_bounds(2, k) == (value, value)
    assert two_task_distance(1e-3, 1000) == pytest.approx(0.999, abs=1e-3)
    with pytest.raises(ValueError, match="theta must lie between 0 and pi/2"):
        two_task_forgetting(2.0, 2)


def test_the_plane_is_a_case_of_it(rng: np.random.Generator) -> None:
    angles = rng.uniform(0, 3, 5)
    order = random_ordering(5, 20, rng)
    rows = [row_space(X) for X in planar_tasks(angles)]
    assert worst_case_forgetting(rows, order)[0] == pytest.approx(float(planar_forgetting(angles, order)), rel=1e-9)
    curve = [planar_forgetting(angles, order[: k + 1]) for k in range(20)]
    np.testing.assert_allclose(planar_curve(angles, order), curve, atol=1e-14)
    many = planar_forgetting(np.stack([angles, angles + 1]), order)
    np.testing.assert_allclose(many, [curve[-1]] * 2, rtol=1e-12)  # turning the plane changes nothing


def test_sharp_planar_constants() -> None:
    lost = 1 - planar_forgetting(one_pass_angles(4000), np.arange(4000))
    assert lost * 4000**0.5 == pytest.approx(1.984, abs=1e-3)
    for T in (16, 64):
        k = 32 * T**2
        value = float(planar_forgetting(back_and_forth_angles(T, k), np.arange(k) % T))
        assert value * np.pi**2 * np.e * k / T**2 == pytest.approx(1, abs=0.02)
        lower, upper = cyclic_bounds(T, k, d=2, r_max=1)
        assert lower <= value <= upper


def test_tasks_that_determine_everything_forget_nothing() -> None:
    assert worst_case_forgetting([np.eye(2), [[1.0], [0.0]]], [0, 1])[0] == 0.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: worst_case_forgetting([], [0]), ValueError, "list of at least one basis"),
        (lambda: worst_case_forgetting([[[2.0], [0.0]]], [0]), ValueError, "orthonormal columns"),
        (lambda: worst_case_forgetting([[[1.0]], [[1.0], [0.0]]], [0]), ValueError, "must share one d"),
        (lambda: planar_curve([[0.0]], [0]), ValueError, "angles must have one axis"),
        (lambda: planar_forgetting([], [0]), ValueError, "at least one task"),
        (lambda: back_and_forth_angles(1, 4), ValueError, "T must be at least 2"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
