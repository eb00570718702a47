"""Eigenvalues, flow and monitor for torch networks, against dense Hessians and an ODE solver."""

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


def network(outputs: int = 1) -> tuple[nn.Sequential, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    data = torch.randn(6, 4, generator=generator), torch.randn(6, outputs, generator=generator)
    return model, data


def flat_loss(model, data):
    """The loss as a function of one flat float64 vector, and the present vector."""
    names, shapes = zip(*((name, p.shape) for name, p in model.named_parameters()), strict=True)
    inputs, targets = (part.double() for part in data)

    def value(flat: torch.Tensor) -> torch.Tensor:
        pieces = flat.split([shape.numel() for shape in shapes])
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        return half_mean_square(torch.func.functional_call(model, weights, (inputs,)), targets)

    return value, torch.cat([p.detach().double().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("outputs", [1, 3])
def test_top_eigenvalues_agree_with_the_dense_hessian(outputs: int) -> None:
    model, data = network(outputs)
    value, flat = flat_loss(model, data)
    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, flat)).flip(0)
    leaf = flat.requires_grad_()
    values, vectors = hessian_top_eigenvalue(
        lambda: value(leaf), [leaf], k=2, tol=1e-8, generator=torch.Generator().manual_seed(1)
    )
    np.testing.assert_allclose(values, dense[:2].numpy(), rtol=1e-6)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(2), atol=1e-8)
    warm, _ = hessian_top_eigenvalue(lambda: value(leaf), [leaf], tol=1e-8, v0=vectors[0])
    assert warm[0] == pytest.approx(float(dense[0]), rel=1e-7)


@pytest.mark.parametrize("method", ["etd", "rk4"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_flow_agrees_with_an_ode_solver(method, outputs: int) -> None:
    model, data = network(outputs)
    value, flat = flat_loss(model, data)

    def velocity(_: float, point: np.ndarray) -> np.ndarray:
        leaf = torch.from_numpy(point.copy()).requires_grad_()
        return -torch.autograd.grad(value(leaf), leaf)[0].numpy()

    def small(_: float, point: np.ndarray) -> float:
        return float(value(torch.from_numpy(point.copy()))) - 1e-8

    small.terminal = True
    exact = solve_ivp(velocity, (0, 1e5), flat.numpy(), method="LSODA", rtol=1e-10, atol=1e-12, events=small).y[:, -1]
    end = integrate_gradient_flow(model, half_mean_square, data, loss_tol=1e-8, method=method, rtol=1e-4)
    assert end.converged
    ours = torch.cat([part.reshape(-1) for part in end.params.values()]).numpy()
    np.testing.assert_allclose(ours, exact, atol=5e-3)
    sharp = network_gfs_sharpness(model, half_mean_square, data, loss_tol=1e-8, method=method, rtol=1e-4)
    top = torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, torch.from_numpy(exact.copy())))[-1].item()
    assert sharp == pytest.approx(top, rel=2e-3)


def test_nothing_changes_the_model_and_batches_add_up() -> None:
    model, data = network()
    before = {name: p.clone() for name, p in model.named_parameters()}
    whole = network_gfs_sharpness(model, half_mean_square, data)
    parts = [(data[0][:2], data[1][:2]), (data[0][2:], data[1][2:])]
    assert network_gfs_sharpness(model, half_mean_square, parts) == pytest.approx(whole)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.dtype == torch.float32
        assert parameter.grad is None


def test_frozen_parameters_and_buffers_are_kept() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6).eval(), nn.Tanh(), nn.Linear(6, 1))
    model[0].weight.requires_grad_(False)
    _, data = network()
    end = integrate_gradient_flow(model, half_mean_square, data, loss_tol=1e-2)
    assert "0.weight" not in end.params


def test_monitor_measures_when_asked_and_falls_below_the_edge() -> None:
    model, data = network()
    phi = network_gfs_sharpness(model, half_mean_square, data)
    eta = 2 / (0.75 * phi)
    monitor = GFSMonitor(20, model, half_mean_square, data)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    for step in range(401):
        monitor(step)
        optimizer.zero_grad()
        half_mean_square(model(data[0]), data[1]).backward()
        optimizer.step()
    assert monitor.steps == list(range(0, 401, 20))
    assert len(monitor.loss) == len(monitor.sharpness) == len(monitor.gfs_sharpness) == 21
    curve = np.array(monitor.gfs_sharpness)
    assert np.all(curve[1:] <= 1.02 * curve[:-1])  # an observation, not a theorem, for networks like this one
    assert curve[-1] < 0.9 * phi
    assert monitor.gfs_sharpness[0] == pytest.approx(phi, rel=1e-6)


def test_running_out_of_steps_is_said() -> None:
    model, data = network()
    with pytest.warns(RuntimeWarning, match="stopped after 1 steps"):
        assert not integrate_gradient_flow(model, half_mean_square, data, loss_tol=1e-12, max_steps=1).converged


@pytest.mark.parametrize(
    ("options", "loss_fn", "message"),
    [
        ({}, lambda o, t: (o - t).abs().mean(), "needs a squared loss"),
        ({"method": "euler"}, half_mean_square, "method must be"),
        ({"loss_tol": 0.0}, half_mean_square, "loss_tol must be positive"),
        ({"rtol": -1.0}, half_mean_square, "rtol must be positive"),
        ({"max_steps": 0}, half_mean_square, "max_steps must be at least 1"),
    ],
)
def test_bad_settings_are_refused(options, loss_fn, message) -> None:
    model, data = network()
    with pytest.raises(ValueError, match=message):
        integrate_gradient_flow(model, loss_fn, data, **options)


def test_empty_data_and_broken_losses_are_refused() -> None:
    model, data = network()
    for empty in ([], (data[0][:0], data[1][:0]), [(data[0], data[1]), (data[0][:0], data[1][:0])]):
        with pytest.raises(ValueError, match="at least one example"):
            integrate_gradient_flow(model, half_mean_square, empty)
    leaf = torch.zeros(5, requires_grad=True)
    with pytest.raises(ValueError, match="loss must be finite"):
        hessian_top_eigenvalue((leaf / 0).sum, [leaf])
    with pytest.raises(ValueError, match="at least k \\+ 2"):
        hessian_top_eigenvalue((leaf**2).sum, [leaf], k=4)
    with pytest.raises(ValueError, match="every must be at least 1"):
        GFSMonitor(0, model, half_mean_square, data)


def test_directions_without_curvature_are_zero_and_a_flat_loss_is_refused() -> None:
    w, slope = torch.ones(3, dtype=torch.float64, requires_grad=True), torch.ones(4, requires_grad=True)
    unused = torch.ones(2, requires_grad=True)
    values, vectors = hessian_top_eigenvalue(
        lambda: (w**2 * torch.tensor([1.0, 2.0, 3.0])).sum() + slope.sum(), [w, slope, unused], tol=1e-10
    )
    assert values[0] == pytest.approx(6.0, rel=1e-6)
    np.testing.assert_allclose(vectors[0, 3:], 0.0, atol=1e-6)
    with pytest.raises(ValueError, match="must bend"):
        hessian_top_eigenvalue(slope.sum, [slope])


def test_shapes_that_do_not_fit_are_refused() -> None:
    model, data = network()
    with pytest.raises(ValueError, match="targets must have the shape of the outputs"):
        half_mean_square(model(data[0]), data[1][:, 0])
    with pytest.raises(ValueError, match="must pair inputs and targets"):
        network_gfs_sharpness(model, half_mean_square, (data[0], data[1][:1]))
    with pytest.raises(ValueError, match="v0 must have shape"):
        hessian_top_eigenvalue(
            lambda: half_mean_square(model(data[0]), data[1]), list(model.parameters()), v0=np.ones(3)
        )


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(6)])
def test_models_that_are_no_fixed_function_are_refused(layer) -> None:
    _, data = network()
    model = nn.Sequential(nn.Linear(4, 6), layer, nn.Tanh(), nn.Linear(6, 1))
    with pytest.raises(ValueError, match=r"call its eval\(\)"):
        network_gfs_sharpness(model, half_mean_square, data)


def test_classes_as_targets_go_through_rk4() -> None:
    model, data = network(outputs=3)
    classes = torch.tensor([0, 1, 2, 0, 1, 2])
    end = integrate_gradient_flow(model, nn.functional.cross_entropy, (data[0], classes), loss_tol=0.5, method="rk4")
    assert end.converged


@pytest.mark.parametrize("method", ["etd", "rk4"])
def test_a_stationary_point_does_not_arrive_and_says_so(method) -> None:
    model, data = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    # zero outputs and zero weights: only the last bias could move, and it is frozen
    model[2].bias.requires_grad_(False)
    with pytest.warns(RuntimeWarning, match="stopped after 0 steps"):
        end = integrate_gradient_flow(model, half_mean_square, data, method=method)
    assert not end.converged
    monitor = GFSMonitor(1, *network()[:1], half_mean_square, data, max_steps=1, loss_tol=1e-12)
    with pytest.warns(RuntimeWarning, match="stopped after 1 steps"):
        monitor(0)
    assert np.isnan(monitor.gfs_sharpness[0])
