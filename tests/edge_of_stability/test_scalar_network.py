"""Scalar networks and their flow solutions, against differences, sympy and an ODE solver."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from lib.edge_of_stability import (
    balances,
    gd_step,
    gfs_sharpness,
    gradient,
    gradient_flow_solution,
    hessian,
    loss,
    sharpness,
    solve_balances,
)


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


def test_sharpness_at_a_minimum_has_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    w = rng.uniform(0.5, 2, (20, 4))
    w[:, 0] = 3.0 / w[:, 1:].prod(axis=1)
    np.testing.assert_allclose(sharpness(w, 3.0), 9 * (1 / w**2).sum(axis=1), rtol=1e-10)


def test_one_step_multiplies_balances_by_the_known_factor() -> None:
    eta, residual, product, wi, wj = sp.symbols("eta r pi w_i w_j", real=True)
    # gradient of the i-th weight: residual * product / w_i
    new_i, new_j = wi - eta * residual * product / wi, wj - eta * residual * product / wj
    factor = 1 - eta**2 * residual**2 * product**2 / (wi**2 * wj**2)
    assert sp.simplify(new_i**2 - new_j**2 - (wi**2 - wj**2) * factor) == 0


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_flow_solution_agrees_with_an_ode_solver(depth: int) -> None:
    rng = np.random.default_rng(depth)
    for _ in range(5):
        w = rng.standard_normal(depth)
        flow = solve_ivp(lambda _, v: -gradient(v), (0, 1e4), w, method="LSODA", rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(gradient_flow_solution(w), flow.y[:, -1], atol=1e-8)


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


@pytest.mark.parametrize(
    ("w", "target", "message"),
    [
        ([1.0], 1.0, "at least two weights"),
        (1.0, 1.0, "at least two weights"),
        ([1.0, 2.0], 0.0, "target must be finite and not zero"),
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
        for goal in (0.0, 2.0, -5.0):
            np.testing.assert_allclose(solve_balances(b, goal), solve_balances(b, np.full(500, goal)), rtol=1e-12)


@pytest.mark.parametrize(
    ("b", "goal", "message"),
    [
        ([[1.0], [2.0]], 0.0, "a zero in every column"),
        ([[0.0], [-1.0]], 0.0, "a zero in every column"),
        ([[0.0], [np.inf]], 0.0, "must be finite"),
        ([[0.0], [np.inf]], [0.0], "must be finite"),
        (np.empty((0, 3)), 0.0, "the first of them not empty"),
        ([0.0, 1.0], 0.0, "b must have 2 axes"),
        ([[0.0], [1.0]], [0.0, 1.0], "log_product must be a number"),
    ],
)
def test_balances_that_are_none_are_refused(b, goal, message) -> None:
    with pytest.raises(ValueError, match=message):
        solve_balances(b, goal)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_symbolic_identities(depth: int) -> None:
    from lib.edge_of_stability import symbolic

    hessian_there, v = symbolic.hessian_at_minimum(depth)
    assert (hessian_there - v * v.T).applyfunc(sp.simplify) == sp.zeros(depth, depth)
    slope, expected = symbolic.frozen_multiplier(depth)
    assert sp.simplify(slope - expected) == 0
    numbers = {symbol: sp.Rational(3 + i, 4) for i, symbol in enumerate(sorted(v.free_symbols, key=str))}
    point = np.array([float(numbers[symbol]) for symbol in sorted(v.free_symbols, key=str)])
    np.testing.assert_allclose(
        np.array(hessian_there.subs(numbers), dtype=float), hessian(point, float(point.prod())), rtol=1e-12
    )
