"""Squared regression through chapter 01's solver, against an ODE solver and torch."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from lib.edge_of_stability import SquaredRegression


def model(n: int = 4, d: int = 12, seed: int = 0) -> tuple[SquaredRegression, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    task = SquaredRegression(rng.standard_normal((n, d)), rng.standard_normal(n))
    return task, *(0.5 * rng.standard_normal((2, d)))


def torch_loss(task: SquaredRegression, flat: torch.Tensor) -> torch.Tensor:
    u, v = flat.chunk(2)
    residual = torch.from_numpy(task.X) @ (u * u - v * v) - torch.from_numpy(task.y)
    return (residual**2).mean() / 2


def test_loss_and_gradient_agree_with_torch() -> None:
    task, u, v = model()
    flat = torch.tensor(np.concatenate([u, v]), requires_grad=True)
    value = torch_loss(task, flat)
    value.backward()
    assert task.loss(u, v) == pytest.approx(value.item())
    np.testing.assert_allclose(np.concatenate(task.gradient(u, v)), flat.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_flow_solution_and_sharpness_agree_with_an_ode_solver_and_torchs_hessian(seed: int) -> None:
    task, u, v = model(seed=seed)
    d = len(u)
    flow = solve_ivp(
        lambda _, s: -np.concatenate(task.gradient(s[:d], s[d:])),
        (0, 1e4),
        np.concatenate([u, v]),
        method="LSODA",
        rtol=1e-11,
        atol=1e-13,
    )
    end = np.concatenate(task.gradient_flow_solution(u, v))
    np.testing.assert_allclose(end, flow.y[:, -1], atol=1e-7)
    hessian = torch.autograd.functional.hessian(lambda flat: torch_loss(task, flat), torch.from_numpy(end))
    assert task.gfs_sharpness(u, v) == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-9)


def test_gradient_descent_ends_at_the_edge_with_the_sharpness_falling() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 100))
    teacher = np.zeros(100)
    teacher[rng.choice(100, 5, replace=False)] = 1.0
    task = SquaredRegression(X, X @ teacher)
    u0, v0 = 0.2 + 0.02 * rng.standard_normal((2, 100))
    eta = 2.3 / task.gfs_sharpness(u0, v0)
    run = task.run_gd(u0, v0, eta, 1500, record_every=25)
    assert not run.diverged
    assert run.loss[-1] < 1e-20
    assert 1.4 < eta * run.gfs_sharpness[-1] < 2.02
    rises = np.diff(run.gfs_sharpness) / run.gfs_sharpness[:-1]
    assert (rises > 1e-9).mean() < 0.05
    assert rises.max() < 0.01
    np.testing.assert_array_equal(run.u[0], u0)


def test_divergence_ends_the_run() -> None:
    task, u, v = model()
    run = task.run_gd(u, v, 1e3, 100)
    assert run.diverged
    assert len(run.steps) < 5
    assert np.isfinite(run.u).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda task, u, v: task.gfs_sharpness(u * 0, v), "must not vanish"),
        (lambda task, u, v: task.gfs_sharpness(u[:-1], v), "u must have shape"),
        (lambda task, u, v: task.run_gd(u, v, 0.0, 10), "eta must be positive"),
        (lambda task, u, v: task.run_gd(u, v, 0.1, 0), "n_steps must be at least 1"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(*model())
