"""Chapter 01 against its peers: the same minimiser by general solvers, and by training."""

import numpy as np
import pytest
from scipy.optimize import minimize

from lib.initialization_shape import (
    DiagonalPotential,
    gradient_descent,
    least_l1_interpolator,
    least_l2_interpolator,
    minimize_potential,
    scale_shape_to_weights,
)
from tests.benchmarks.conftest import label

ALPHA, SHAPE = 1e-4, 0.5


def problem(d: int, n: int):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)), rng.standard_normal(n), DiagonalPotential.from_scale_shape(ALPHA, SHAPE, d)


def group(d: int, n: int) -> str:
    return f"the minimiser of Q, d = {d}, n = {n} (α = {ALPHA:g}, s = {SHAPE})"


def agreement(potential, w, best) -> str:
    """How a peer's answer differs from ours: relative objective and relative distance."""
    objective = float(potential(w) / potential(best) - 1)
    return f"objective {objective:+.1e}, distance {np.linalg.norm(w - best) / np.linalg.norm(best):.0e}"


@pytest.mark.parametrize(("d", "n"), [(100, 10), (300, 30), (1000, 100)])
def test_ours(benchmark, d: int, n: int) -> None:
    X, y, potential = problem(d, n)
    label(benchmark, group(d, n), "ours: dual Newton")
    solution = benchmark.pedantic(minimize_potential, args=(potential, X, y), rounds=50, warmup_rounds=3)
    benchmark.extra_info["note"] = f"misfit {solution.residual:.0e}"
    assert solution.converged


@pytest.mark.parametrize("analytic", [True, False], ids=["analytic", "numerical"])
def test_slsqp(benchmark, analytic: bool) -> None:
    X, y, potential = problem(100, 10)
    label(benchmark, group(100, 10), f"scipy SLSQP, {'analytic' if analytic else 'numerical'} derivatives")
    derivatives = {"jac": potential.grad} if analytic else {}
    constraint = {"type": "eq", "fun": lambda w: X @ w - y, **({"jac": lambda _: X} if analytic else {})}
    start = least_l2_interpolator(X, y)

    def solve():
        options = {"ftol": 1e-12, "maxiter": 2000}
        return minimize(potential, start, constraints=constraint, method="SLSQP", options=options, **derivatives)

    answer = benchmark.pedantic(solve, rounds=3, warmup_rounds=1)
    best = minimize_potential(potential, X, y).w
    benchmark.extra_info["note"] = agreement(potential, answer.x, best)
    assert np.linalg.norm(answer.x - best) < 1e-2 * np.linalg.norm(best)


@pytest.mark.parametrize(("d", "n", "rounds"), [(100, 10, 5), (300, 30, 5), (1000, 100, 2)])
def test_cvxpy_with_clarabel(benchmark, d: int, n: int, rounds: int) -> None:
    cvxpy = pytest.importorskip("cvxpy", reason="the bench extra is not installed")
    X, y, potential = problem(d, n)
    label(benchmark, group(d, n), "CVXPY with Clarabel")
    quarter = potential.k / 4

    def solve():
        # q_k(w) is the least of (relative entropies of p and m to k/4) / 2 over p - m = w
        p, m = cvxpy.Variable(d), cvxpy.Variable(d)
        entropy = cvxpy.sum(cvxpy.kl_div(p, quarter)) + cvxpy.sum(cvxpy.kl_div(m, quarter))
        task = cvxpy.Problem(cvxpy.Minimize(entropy / 2), [X @ (p - m) == y])
        task.solve(solver=cvxpy.CLARABEL)
        return p.value - m.value

    answer = benchmark.pedantic(solve, rounds=rounds, warmup_rounds=1)
    best = minimize_potential(potential, X, y).w
    benchmark.extra_info["note"] = agreement(potential, answer, best)
    assert potential(best) <= potential(answer) + 1e-6 * abs(potential(best))
    assert np.linalg.norm(answer - best) < 1e-2 * np.linalg.norm(best)


def test_gradient_descent(benchmark) -> None:
    X, y, potential = problem(100, 10)
    label(benchmark, group(100, 10), "training: gradient descent to a loss of 1e-10")
    u, v = (np.full(100, float(layer)) for layer in scale_shape_to_weights(ALPHA, SHAPE))
    weights = {"u_p": u, "v_p": v, "u_m": u, "v_m": v}
    tol = float(np.sqrt(2e-10 * 10) / np.linalg.norm(y))

    def train():
        return gradient_descent("diagonal", X, y, weights, lr=1e-3, tol=tol)

    end = benchmark.pedantic(train, rounds=1)
    benchmark.extra_info["note"] = agreement(potential, end.w, minimize_potential(potential, X, y).w)
    assert end.converged


def test_least_l1_by_highs(benchmark) -> None:
    X, y, _ = problem(1000, 100)
    label(benchmark, group(1000, 100), "HiGHS, for the least L1 norm alone (the end k → 0)")
    benchmark.pedantic(least_l1_interpolator, args=(X, y), rounds=3)


def test_physical_limit(benchmark) -> None:
    X, y, potential = problem(1000, 100)
    iterations = minimize_potential(potential, X, y).n_iter
    label(benchmark, group(1000, 100), f"limit: the {iterations} products of 100 x 1000 x 100 alone")

    def products() -> None:
        for _ in range(iterations):
            X @ X.T

    benchmark.pedantic(products, rounds=50, warmup_rounds=3)
