"""Scalar networks and their flow solutions, against differences; the claims hold them against an ODE solver."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.edge_of_stability import (
    balances,
    gd_path,
    gd_step,
    gfs_sharpness,
    gradient,
    gradient_flow_solution,
    hessian,
    loss,
    phase_map,
    run_gd,
    sharpness,
    solve_balances,
)
from lib.edge_of_stability.flow_solution import _by_logarithms


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("target", [1.0, -2.0])
def test_derivatives_agree_with_differences_also_at_zeros(depth: int, target: float) -> None:
    rng = np.random.default_rng(depth)
    w = rng.standard_normal((4, depth))
    w[0, 0] = 0.0
    step = 1e-6
    for i, e in enumerate(np.eye(depth) * step):
        slope = (loss(w + e, target) - loss(w - e, target)) / (2 * step)
        np.testing.assert_allclose(gradient(w, target)[:, i], slope, atol=1e-7)
        curve = (gradient(w + e, target) - gradient(w - e, target)) / (2 * step)
        np.testing.assert_allclose(hessian(w, target)[:, i], curve, atol=1e-7)


@given(st.integers(0, 100_000), st.integers(2, 10), st.floats(-3, 3))
def test_flow_solution_is_a_minimum_with_the_same_balances(seed: int, depth: int, log_scale: float) -> None:
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((30, depth)) * np.exp(log_scale * rng.uniform(-1, 1, (30, 1)))
    target = float(rng.choice([-1, 1]) * np.exp(rng.uniform(-2, 2)))
    solution = gradient_flow_solution(w, target)
    np.testing.assert_allclose(solution.prod(axis=1), target, rtol=1e-9)
    np.testing.assert_allclose(balances(solution), balances(w), rtol=1e-7, atol=1e-9 * (w**2).max())
    changed = (np.sign(solution) != np.sign(w)).sum(axis=1)
    np.testing.assert_array_equal(changed, np.sign(w).prod(axis=1) * np.sign(target) < 0)
    np.testing.assert_allclose(gfs_sharpness(w, target), target**2 * (1 / solution**2).sum(axis=1), rtol=1e-7)


def test_kernel_survives_products_that_overflow_and_underflow() -> None:
    for scale, goal in ((1e-40, 0.0), (1e40, 0.0), (1.0, 750.0), (1.0, -600.0)):
        b = np.arange(8.0)[:, None] * scale
        c = solve_balances(b, np.full(1, goal))
        assert np.log(c + b).sum() == pytest.approx(goal, abs=1e-9)


def test_targets_of_any_size() -> None:
    for target in (1e-200, 1e-20, 1e20, 1e140):
        # two equal weights: c is the target, and phi twice the target
        assert gfs_sharpness([1.0, 1.0], target) == pytest.approx(2 * target, rel=1e-12)
    assert gfs_sharpness(np.ones((0, 3))).shape == (0,)


def test_batches_agree_with_single_calls() -> None:
    w = np.random.default_rng(1).standard_normal((3, 5, 4))
    np.testing.assert_allclose(gfs_sharpness(w)[2, 3], gfs_sharpness(w[2, 3]), rtol=1e-12)
    np.testing.assert_allclose(gd_step(w, np.full((3, 5), 0.1))[1, 1], gd_step(w[1, 1], 0.1), rtol=1e-12)


def test_one_zero_weight_moves_off_zero_in_the_right_direction() -> None:
    np.testing.assert_allclose(np.sign(gradient_flow_solution([0.0, -2.0])), [-1, -1])
    np.testing.assert_allclose(np.sign(gradient_flow_solution([0.0, -2.0], -1.0)), [1, -1])


@pytest.mark.parametrize("bad", [np.nan, 0.0, "1", 1j], ids=str)
@pytest.mark.parametrize(
    "call",
    [
        *(partial(each, [1.5, 0.6]) for each in (loss, gradient, hessian, sharpness, gradient_flow_solution)),
        partial(gfs_sharpness, [1.5, 0.6]),
        partial(run_gd, [1.5, 0.6], 0.1, 5),
        partial(gd_path, [1.5, 0.6], 0.1, 5),
        lambda target: phase_map([1.5], [0.6], 0.1, target=target),
    ],
)
def test_a_target_is_a_finite_number_that_is_not_zero(call, bad) -> None:
    with pytest.raises((ValueError, TypeError), match="target must"):
        call(bad)


@pytest.mark.parametrize(
    ("w", "target", "message"),
    [
        ([1.0], 1.0, "at least two weights"),
        (1.0, 1.0, "at least two weights"),
        ([1e155, 1.0], 1.0, "w must be below 1e\\+150"),
        ([0.0, 0.0, 1.0], 1.0, "two or more zeros"),
        ([1.0, -1.0, 2.0], 1.0, "two smallest weights of equal size"),
    ],
)
def test_bad_weights_are_refused(w, target, message) -> None:
    with pytest.raises(ValueError, match=message):
        gradient_flow_solution(w, target)
    with pytest.raises(ValueError, match=message):
        gfs_sharpness(w, target)


def test_kernel_and_logarithms_find_the_same_root_in_every_depth() -> None:
    """The compiled loop and the sums of logarithms are two ways to one number, also for balances of any size."""
    rng = np.random.default_rng(3)
    for depth in range(2, 13):
        b = np.exp(rng.uniform(-12, 12, (depth, 500))) * rng.choice([0.0, 1.0], (depth, 500), p=[0.2, 0.8])
        b[rng.integers(depth), :] = 0.0
        np.testing.assert_allclose(solve_balances(b, 0.0), _by_logarithms(b), rtol=1e-12)
        goals = np.repeat((2.0, -5.0), 250)
        c = solve_balances(b, goals)
        np.testing.assert_allclose(np.log(c + b).sum(axis=0), goals, atol=1e-9)


@pytest.mark.parametrize(
    ("b", "goal", "message"),
    [
        ([[1.0], [2.0]], 0.0, "a zero in every column"),
        ([[0.0], [-1.0]], 0.0, "a zero in every column"),
        ([[0.0], [np.inf]], [0.0], "must be finite"),
        (np.empty((0, 3)), 0.0, "the first of them not empty"),
        ([0.0, 1.0], 0.0, "b must have 2 axes"),
        ([[0.0], [1.0]], [0.0, 1.0], "log_product must be a number"),
    ],
)
def test_balances_that_are_none_are_refused(b, goal, message) -> None:
    with pytest.raises(ValueError, match=message):
        solve_balances(b, goal)
