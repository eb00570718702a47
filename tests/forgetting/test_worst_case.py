import numpy as np
import pytest

from lib.forgetting import (
    TaskCollection,
    back_and_forth_angles,
    cyclic_bounds,
    cyclic_ordering,
    planar_curve,
    planar_forgetting,
    planar_tasks,
    random_ordering,
    row_space,
    two_task_forgetting,
    two_task_worst_case,
    worst_case_forgetting,
)
from lib.forgetting.claims.projections import dense_worst_case


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7, 50, 51])
def test_powers_of_a_cycle_are_long_products(rng: np.random.Generator, k: int) -> None:
    rows = [row_space(rng.standard_normal((r, 6))) for r in (3, 4, 2)]
    order = cyclic_ordering(3, k)
    value, w = worst_case_forgetting(rows, order)
    assert value == pytest.approx(dense_worst_case(rows, order), rel=1e-9, abs=1e-14)
    assert worst_case_forgetting(TaskCollection([b.T for b in rows], w_star=w), order)[0] == pytest.approx(value)


def test_the_plane_is_a_case_of_it(rng: np.random.Generator) -> None:
    angles = rng.uniform(0, 3, 5)
    order = random_ordering(5, 20, rng)
    rows = [row_space(X) for X in planar_tasks(angles)]
    assert worst_case_forgetting(rows, order)[0] == pytest.approx(float(planar_forgetting(angles, order)), rel=1e-9)
    curve = [planar_forgetting(angles, order[: k + 1]) for k in range(20)]
    np.testing.assert_allclose(planar_curve(angles, order), curve, atol=1e-14)
    many = planar_forgetting(np.stack([angles, angles + 1]), order)
    np.testing.assert_allclose(many, [curve[-1]] * 2, rtol=1e-12)  # turning the plane changes nothing


def test_bounds_of_two_tasks_are_what_they_forget() -> None:
    for k in (2, 4, 100):
        assert cyclic_bounds(2, k) == (two_task_worst_case(k)[1],) * 2
    assert two_task_forgetting(0.3, 1) == 0
    with pytest.raises(ValueError, match="theta must lie between 0 and pi/2"):
        two_task_forgetting(2.0, 2)


def test_tasks_that_determine_everything_forget_nothing() -> None:
    assert worst_case_forgetting([np.eye(2), [[1.0], [0.0]]], [0, 1])[0] == 0.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: worst_case_forgetting([], [0]), ValueError, "list of at least one basis"),
        (lambda: worst_case_forgetting([[[2.0], [0.0]]], [0]), ValueError, "orthonormal columns"),
        (lambda: worst_case_forgetting([[[1.0]], [[1.0], [0.0]]], [0]), ValueError, "must share one d"),
        (lambda: planar_curve([[0.0]], [0]), ValueError, "angles must have 1 axes"),
        (lambda: planar_forgetting([], [0]), ValueError, "at least one task"),
        (lambda: back_and_forth_angles(1, 4), ValueError, "T must be at least 2"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
