"""Squared regression against torch; its flow solution and its runs are measured by the claims."""

import numpy as np
import pytest
import torch

from lib.edge_of_stability import SquaredRegression


def model(n: int = 4, d: int = 12, seed: int = 0) -> tuple[SquaredRegression, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    task = SquaredRegression(rng.standard_normal((n, d)), rng.standard_normal(n))
    return task, *(0.5 * rng.standard_normal((2, d)))


def test_loss_and_gradient_agree_with_torch() -> None:
    task, u, v = model()
    flat = torch.tensor(np.concatenate([u, v]), requires_grad=True)
    first, second = flat.chunk(2)
    residual = torch.from_numpy(task.X) @ (first**2 - second**2) - torch.from_numpy(task.y)
    value = (residual**2).mean() / 2
    value.backward()
    assert task.loss(u, v) == pytest.approx(value.item())
    np.testing.assert_allclose(np.concatenate(task.gradient(u, v)), flat.grad.numpy(), atol=1e-12)


def test_the_model_keeps_nothing_of_the_callers_arrays() -> None:
    X, y, u = np.array([[1.0, 2.0, 3.0]]), np.array([1.0]), np.full(3, 0.3)
    task = SquaredRegression(X, y)
    before = task.loss(u, u)
    X[:], y[:] = 7.0, 9.0
    assert task.loss(u, u) == before


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
        (lambda task, _, v: task.run_gd(["a"] * 12, v, 0.1, 5), "u0 must hold real"),
        (lambda task, u, v: task.run_gd(u, v, "x", 5), "eta must be a number"),
        (lambda task, u, v: task.run_gd(u, v, 0.0, 10), "eta must be positive"),
        (lambda task, u, v: task.run_gd(u, v, 0.1, 0), "n_steps must be at least 1"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call(*model())
