"""Flow and monitor for torch networks, against dense Hessians and an ODE solver."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from lib.edge_of_stability import (
    GFSMonitor,
    half_mean_square,
    hessian_top_eigenvalue,
    integrate_gradient_flow,
    network_gfs_sharpness,
)
from tests.edge_of_stability.nets import Between, Sequence, attention, behind_zeros, flat_loss, network, seeded


def test_flow_agrees_with_an_ode_solver() -> None:
    model, data = network(outputs=2)
    value, flat = flat_loss(model, data)
    tol = 1e-3

    def velocity(_: float, point: np.ndarray) -> np.ndarray:
        leaf = torch.from_numpy(point.copy()).requires_grad_()
        return -torch.autograd.grad(value(leaf), leaf)[0].numpy()

    def small(_: float, point: np.ndarray) -> float:
        return float(value(torch.from_numpy(point.copy()))) - tol

    small.terminal = True
    exact = solve_ivp(velocity, (0, 1e5), flat.numpy(), method="LSODA", rtol=1e-7, atol=1e-9, events=small).y[:, -1]
    top = torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, torch.from_numpy(exact.copy())))[-1].item()
    for method in ("etd", "rk4"):
        end = integrate_gradient_flow(model, half_mean_square, data, tol=tol, method=method, rtol=1e-3)
        assert end.converged
        ours = torch.cat([part.reshape(-1) for part in end.params.values()])
        np.testing.assert_allclose(ours.numpy(), exact, atol=5e-3)
        found, _ = hessian_top_eigenvalue(lambda: value(leaf), [leaf := ours.requires_grad_()])
        assert found[0] == pytest.approx(top, rel=2e-3)


def test_nothing_changes_the_model_and_batches_add_up() -> None:
    model, data = network()
    before = {name: p.clone() for name, p in model.named_parameters()}
    whole = network_gfs_sharpness(model, half_mean_square, data, tol=0.01)
    parts = [(data[0][:2], data[1][:2]), (data[0][2:], data[1][2:])]
    assert network_gfs_sharpness(model, half_mean_square, parts, tol=0.01) == pytest.approx(whole)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.dtype == torch.float32
        assert parameter.grad is None


def test_frozen_parameters_and_buffers_are_kept() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6).eval(), nn.Tanh(), nn.Linear(6, 1))
    model[0].weight.requires_grad_(False)
    _, data = network()
    end = integrate_gradient_flow(model, half_mean_square, data, tol=1e-2)
    assert "0.weight" not in end.params


def test_monitor_measures_when_asked_and_falls_below_the_edge() -> None:
    model, data = network()
    phi = network_gfs_sharpness(model, half_mean_square, data, tol=1e-3)
    eta = 2 / (0.75 * phi)
    monitor = GFSMonitor(40, model, half_mean_square, data, tol=1e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    for step in range(401):
        monitor(step)
        optimizer.zero_grad()
        half_mean_square(model(data[0]), data[1]).backward()
        optimizer.step()
    assert monitor.steps == list(range(0, 401, 40))
    assert len(monitor.loss) == len(monitor.sharpness) == len(monitor.gfs_sharpness) == 11
    curve = np.array(monitor.gfs_sharpness)
    assert np.all(curve[1:] <= 1.02 * curve[:-1])  # an observation, not a theorem, for networks like this one
    assert curve[-1] < 0.9 * phi
    assert monitor.gfs_sharpness[0] == pytest.approx(phi, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "loss_fn", "message"),
    [
        ({}, lambda o, t: (o - t).abs().mean(), "needs a squared loss"),
        ({"method": "euler"}, half_mean_square, "method must be"),
        ({"tol": 0.0}, half_mean_square, "tol must be positive"),
        ({"rtol": -1.0}, half_mean_square, "rtol must be positive"),
        ({"max_steps": 0}, half_mean_square, "max_steps must be at least 1"),
    ],
)
def test_bad_settings_are_refused(options, loss_fn, message) -> None:
    model, data = network()
    with pytest.raises(ValueError, match=message):
        integrate_gradient_flow(model, loss_fn, data, **options)


def test_targets_have_the_shape_of_outputs() -> None:
    model, data = network()
    with pytest.raises(ValueError, match="targets must have the shape of the outputs"):
        half_mean_square(model(data[0]), data[1][:, 0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sequence(attention(0.3)).eval(),
        lambda: Sequence(attention()).train(),
        lambda: Sequence(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)).eval(),
        lambda: Sequence(nn.LSTM(8, 8, batch_first=True)),
        lambda: Sequence(nn.GRU(8, 8, batch_first=True)).eval(),
        lambda: Between(nn.BatchNorm1d(6, track_running_stats=False)).eval(),
        lambda: Between(lambda h: h - h.mean(0)),
        lambda: Between(lambda h: h + 0.2 * h.roll(1, 0)),
        lambda: behind_zeros(lambda h: h - h.mean(0)),
    ],
)
def test_attention_recurrence_and_coupled_examples_have_a_flow_and_a_sharpness(make) -> None:
    """Both methods come to where small steps of gradient descent come to, and see the curvature there."""
    model, (_, data) = seeded(make), network(2)
    value, flat = flat_loss(model, data)
    goal = 0.85 * float(value(flat).detach())
    for method in ("etd", "rk4"):
        end = integrate_gradient_flow(model, half_mean_square, data, tol=goal, method=method, rtol=1e-2)
        there = torch.cat([part.reshape(-1) for part in end.params.values()])
        point = flat.detach()
        while float(value(point)) > end.loss:
            leaf = point.requires_grad_()
            point = point.detach() - 0.01 * torch.autograd.grad(value(leaf), leaf)[0]
        assert float((there - point).norm()) < 0.3 * float((point - flat).norm())
    monitor = GFSMonitor(1, model, half_mean_square, data, tol=goal)
    monitor(0)
    leaf = flat.detach().requires_grad_()
    values, vectors = hessian_top_eigenvalue(lambda: value(leaf), [leaf], tol=1e-8)
    assert monitor.sharpness[0] == pytest.approx(values[0], rel=1e-2)
    along, step = torch.from_numpy(vectors[0]), 1e-4
    around = [float(value(leaf.detach() + sign * step * along)) for sign in (-1, 0, 1)]
    assert (around[0] - 2 * around[1] + around[2]) / step**2 == pytest.approx(values[0], rel=1e-3)


class Steep(nn.Module):
    """Each weight alone goes from below 1 up to 2, where the curvature is a thousand times that of the start."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.w) ** 4


def test_rk4_shortens_its_steps_where_curvature_grows() -> None:
    data = torch.ones(1, 3), torch.full((1, 3), 16.0)
    end = integrate_gradient_flow(Steep(), half_mean_square, data, method="rk4", tol=1e-3, max_steps=3000)
    torch.testing.assert_close(end.params["w"], torch.full((3,), 2.0, dtype=torch.float64), rtol=0, atol=1e-2)


CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
CROSS_ENTROPIES = [({}, 0.5), ({"label_smoothing": 0.1}, 0.7), ({"ignore_index": 1}, 0.4), ({"reduction": "sum"}, 3.0)]
WEIGHTED = ({"weight": torch.tensor([1.0, 2.0, 3.0])}, 0.5)


@pytest.mark.parametrize(("options", "goal"), [*CROSS_ENTROPIES, WEIGHTED])
def test_classes_as_targets_go_through_rk4(options, goal) -> None:
    model, data = network(outputs=3)
    batch, loss_fn = (data[0], CLASSES), nn.CrossEntropyLoss(**options)
    end = integrate_gradient_flow(model, loss_fn, batch, tol=goal, method="rk4")
    assert end.converged
    outputs = torch.func.functional_call(model, end.params, (data[0].double(),))
    assert float(loss_fn.double()(outputs, CLASSES)) == pytest.approx(end.loss, rel=1e-9)
    assert network_gfs_sharpness(model, nn.functional.cross_entropy, batch, tol=0.5, method="rk4") > 0


def test_a_monitor_of_training_that_diverged_goes_on() -> None:
    model, data = network()
    monitor = GFSMonitor(1, model, half_mean_square, data, tol=0.1)
    with torch.no_grad():
        model[0].weight.fill_(torch.inf)
    monitor(0)
    assert not np.isfinite(monitor.loss[0])
    assert np.isnan([monitor.sharpness[0], monitor.gfs_sharpness[0]]).all()


def test_a_flow_from_a_huge_loss_ends() -> None:
    model, data = network()
    with torch.no_grad():
        model[2].weight.mul_(1e20)
    with pytest.warns(RuntimeWarning, match="gradient flow stopped"):
        integrate_gradient_flow(model, half_mean_square, (data[0] * 1e18, data[1]), max_steps=5)


@pytest.mark.parametrize("method", ["etd", "rk4"])
def test_a_flow_that_does_not_arrive_says_so(method) -> None:
    model, data = network()
    monitor = GFSMonitor(1, model, half_mean_square, data, method=method, max_steps=1, tol=1e-12)
    with pytest.warns(RuntimeWarning, match="stopped after 1 steps"):
        monitor(0)
    assert np.isnan(monitor.gfs_sharpness[0])
    # a stationary point: zero outputs and zero weights, and the last bias, which alone could move, is frozen
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model[2].bias.requires_grad_(False)
    with pytest.warns(RuntimeWarning, match="stopped after 0 steps"):
        assert not integrate_gradient_flow(model, half_mean_square, data, method=method).converged
