"""The dual Newton solver, against general-purpose optimizers and at its limits."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from lib.initialization_shape import (
    DeepDiagonalPotential,
    DiagonalPotential,
    NeuronPotential,
    least_l2_interpolator,
    minimize_potential,
    sparse_regression,
)


def problem(n: int, d: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n), rng


@given(st.integers(0, 10_000), st.floats(-6, 3))
def test_optimality_conditions_hold_for_any_problem(seed: int, log_k: float) -> None:
    X, y, rng = problem(5, 20, seed)
    potential = DiagonalPotential(10**log_k * rng.uniform(0.5, 2, 20), rng.standard_normal(20))
    solution = minimize_potential(potential, X, y)
    assert solution.converged
    np.testing.assert_allclose(X @ solution.w, y, atol=1e-10)
    np.testing.assert_allclose(potential.grad(solution.w), solution.dual @ X, atol=1e-10)


@pytest.mark.parametrize(
    "potential",
    [
        DiagonalPotential(0.3, 0.2),
        DeepDiagonalPotential(3, 0.6),
        DeepDiagonalPotential(4, 0.9),
        NeuronPotential(0.5, np.linspace(0.1, 1, 12)),
        NeuronPotential(-0.5, np.linspace(0.1, 1, 12)),
    ],
    ids=repr,
)
def test_agrees_with_slsqp(potential) -> None:
    X, y, _ = problem(4, 12)
    ours = minimize_potential(potential, X, y)
    theirs = minimize(
        potential,
        least_l2_interpolator(X, y),
        jac=potential.grad,
        constraints={"type": "eq", "fun": lambda w: X @ w - y, "jac": lambda _: X},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    np.testing.assert_allclose(ours.w, theirs.x, atol=2e-5)
    assert potential(ours.w) <= potential(theirs.x) + 1e-10
    assert ours.converged
    assert ours.kkt < 1e-9


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("k", [1e-100, 1e-40, 1e-8, 1.0, 1e8])
def test_converges_from_the_smallest_to_the_largest_scales(k: float, noise: float) -> None:
    data = sparse_regression(200, 40, noise=noise, n_test=1, rng=np.random.default_rng(1))
    assert minimize_potential(DiagonalPotential(k), data.X, data.y).converged


def test_scales_of_very_different_size_in_one_problem() -> None:
    X, y, _ = problem(4, 10)
    for potential in (DiagonalPotential(10.0 ** np.linspace(-30, 5, 10)), DeepDiagonalPotential(3, 1e-5)):
        solution = minimize_potential(potential, X, y)
        assert solution.converged
        assert solution.kkt < 1e-10


def test_warm_start_saves_iterations() -> None:
    X, y, _ = problem(20, 100)
    cold = minimize_potential(DiagonalPotential(1e-3), X, y)
    warm = minimize_potential(DiagonalPotential(1.1e-3), X, y, dual0=cold.dual)
    assert warm.n_iter < cold.n_iter


def test_duplicate_rows_are_reported_and_merged() -> None:
    X, y, _ = problem(4, 10)
    expected = minimize_potential(DiagonalPotential(0.1), X, y)
    with pytest.warns(RuntimeWarning, match="5 rows but rank 4"):
        doubled = minimize_potential(DiagonalPotential(0.1), np.vstack([X, X[:1]]), np.append(y, y[0]))
    np.testing.assert_allclose(doubled.w, expected.w, atol=1e-10)
    assert doubled.kkt < 1e-10


def test_square_and_tall_systems_have_one_answer_or_none() -> None:
    X, y, rng = problem(5, 5)
    w = np.linalg.solve(X, y)
    np.testing.assert_allclose(minimize_potential(DiagonalPotential(0.1), X, y).w, w, atol=1e-9)
    tall = rng.standard_normal((8, 5))
    with pytest.warns(RuntimeWarning, match="8 rows but rank 5"):
        np.testing.assert_allclose(minimize_potential(DiagonalPotential(0.1), tall, tall @ w).w, w, atol=1e-8)
    with pytest.raises(ValueError, match="must be consistent"):
        minimize_potential(DiagonalPotential(0.1), tall, rng.standard_normal(8))


def test_rows_of_very_different_size_are_not_redundant() -> None:
    X, y, _ = problem(3, 10)
    sizes = np.array([1e-8, 1.0, 1e8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert minimize_potential(DiagonalPotential(0.1), X * sizes[:, None], y * sizes, tol=1e-9).converged


def test_zero_targets_and_zero_start_give_zero() -> None:
    X, _, _ = problem(3, 10)
    solution = minimize_potential(DiagonalPotential(0.1), X, np.zeros(3))
    np.testing.assert_array_equal(solution.w, np.zeros(10))
    assert solution.converged


def test_running_out_of_iterations_is_said() -> None:
    X, y, _ = problem(5, 20)
    with pytest.warns(RuntimeWarning, match="after 1 iterations"):
        solution = minimize_potential(DiagonalPotential(1e-6), X, y, max_iter=1)
    assert not solution.converged


@pytest.mark.parametrize(
    ("X", "y", "options", "message"),
    [
        ([[0.0, 0.0]], [1.0], {}, "must be consistent"),
        ([[1.0, 2.0]], [1.0], {"tol": np.nan}, "tol must be positive"),
        ([[1.0, 2.0]], [1.0], {"max_iter": 0}, "max_iter must be at least 1"),
        ([[1.0, 2.0]], [1.0], {"dual0": [0.0, 0.0]}, "dual0 must have shape"),
    ],
)
def test_bad_input_is_refused(X, y, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        minimize_potential(DiagonalPotential(1.0), X, y, **options)
