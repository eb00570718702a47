"""Eigenvalues, flow and monitor for torch networks, against dense Hessians and an ODE solver."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset, TensorDataset

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


@pytest.mark.parametrize("outputs", [1, 2])
def test_flow_agrees_with_an_ode_solver(outputs: int) -> None:
    model, data = network(outputs)
    value, flat = flat_loss(model, data)

    def velocity(_: float, point: np.ndarray) -> np.ndarray:
        leaf = torch.from_numpy(point.copy()).requires_grad_()
        return -torch.autograd.grad(value(leaf), leaf)[0].numpy()

    def small(_: float, point: np.ndarray) -> float:
        return float(value(torch.from_numpy(point.copy()))) - 1e-6

    small.terminal = True
    exact = solve_ivp(velocity, (0, 1e5), flat.numpy(), method="LSODA", rtol=1e-8, atol=1e-10, events=small).y[:, -1]
    top = torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, torch.from_numpy(exact.copy())))[-1].item()
    for method in ("etd", "rk4"):
        end = integrate_gradient_flow(model, half_mean_square, data, loss_tol=1e-6, method=method, rtol=1e-3)
        assert end.converged
        ours = torch.cat([part.reshape(-1) for part in end.params.values()]).numpy()
        np.testing.assert_allclose(ours, exact, atol=5e-3)
        sharp = network_gfs_sharpness(model, half_mean_square, data, loss_tol=1e-6, method=method, rtol=1e-3)
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
    with pytest.raises(ValueError, match="loss_fn must return one"):
        hessian_top_eigenvalue(lambda: 0.0, [leaf])
    with pytest.raises(ValueError, match="loss_fn must depend on params"):
        hessian_top_eigenvalue(lambda: torch.ones(()), [leaf])


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


class Between(nn.Module):
    """Two layers with anything between them."""

    def __init__(self, between) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(4, 6), nn.Linear(6, 2), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.between(self.first(x))))


class Sequence(nn.Module):
    """Inputs (N, 4) as two tokens of two numbers, through something that reads sequences."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.into, self.reader, self.out = nn.Linear(2, 8), reader, nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.into(x.view(-1, 2, 2))
        if isinstance(self.reader, nn.MultiheadAttention):
            read = self.reader(tokens, tokens, tokens, need_weights=False)[0]
        elif isinstance(self.reader, nn.RNNBase):
            read = self.reader(tokens)[0]
        else:
            read = self.reader(tokens)
        return self.out(read.mean(1))


def seeded(make):
    """A network with the same weights at every run; torch's global random state stays where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def attention(dropout: float = 0.0) -> nn.Module:
    return nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True)


def behind_zeros(between) -> nn.Module:
    model = Between(between)
    nn.init.zeros_(model.last.weight)
    return model


def numpy_noise(h: torch.Tensor) -> torch.Tensor:
    return h + 0.01 * torch.from_numpy(NOISE.standard_normal(6))


NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: Between(nn.Dropout(0.5)), "draws random"),
        (lambda: Between(lambda h: nn.functional.dropout(h, 0.5)).eval(), "draws random"),
        (lambda: Between(lambda h: nn.functional.dropout(h, 1e-6)).eval(), "draws random"),
        (lambda: Between(lambda h: h + 0.01 * torch.randn_like(h)).eval(), "draws random"),
        (lambda: Between(nn.RReLU()), "draws random"),
        (lambda: Between(numpy_noise).eval(), "gives other numbers"),
        (lambda: behind_zeros(numpy_noise).eval(), "gives other numbers"),
        (lambda: Sequence(attention(0.3)), "draws random"),
        (lambda: Sequence(nn.GRU(8, 8, num_layers=2, dropout=0.5, batch_first=True)), "draws random"),
        (lambda: Between(nn.BatchNorm1d(6)), "changes between.running_mean"),
        (lambda: nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2))), "changes 0"),
    ],
)
def test_models_that_are_no_fixed_function_are_refused(make, found) -> None:
    model, (_, data) = seeded(make), network(2)
    before, buffers = torch.get_rng_state(), {name: b.clone() for name, b in model.named_buffers()}
    with pytest.raises(ValueError, match=rf"model must be one fixed function; .*{found}.*call its eval\(\)"):
        GFSMonitor(1, model, half_mean_square, data)
    assert torch.equal(before, torch.get_rng_state())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name])


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
    """Both methods come to where small steps of gradient descent come to, and see the dense Hessian there."""
    model, (_, data) = seeded(make), network(2)
    value, flat = flat_loss(model, data)
    goal = 0.85 * float(value(flat).detach())
    for method in ("etd", "rk4"):
        end = integrate_gradient_flow(model, half_mean_square, data, loss_tol=goal, method=method, rtol=1e-3)
        there = torch.cat([part.reshape(-1) for part in end.params.values()])
        point = flat.detach()
        while float(value(point)) > end.loss:
            leaf = point.requires_grad_()
            point = point.detach() - 0.01 * torch.autograd.grad(value(leaf), leaf)[0]
        assert float((there - point).norm()) < 0.3 * float((point - flat).norm())
    monitor = GFSMonitor(1, model, half_mean_square, data, loss_tol=goal)
    monitor(0)
    leaf = flat.detach().requires_grad_()
    values, vectors = hessian_top_eigenvalue(lambda: value(leaf), [leaf], tol=1e-8)
    assert monitor.sharpness[0] == pytest.approx(values[0], rel=1e-2)
    along, step = torch.from_numpy(vectors[0]), 1e-4
    around = [float(value(leaf.detach() + sign * step * along)) for sign in (-1, 0, 1)]
    assert (around[0] - 2 * around[1] + around[2]) / step**2 == pytest.approx(values[0], rel=1e-3)


def test_rk4_shortens_its_steps_where_curvature_grows() -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.w) ** 4

    # each weight alone goes up to 2, where the curvature is a thousand times that of the start
    data = torch.ones(1, 3), torch.full((1, 3), 16.0)
    end = integrate_gradient_flow(Steep(), half_mean_square, data, method="rk4", loss_tol=1e-3, max_steps=3000)
    torch.testing.assert_close(end.params["w"], torch.full((3,), 2.0, dtype=torch.float64), rtol=0, atol=1e-2)


class Augmented(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(4), torch.zeros(1)


X, Y = network()[1]


def test_loaders_are_data_and_are_left_as_they_were() -> None:
    model, data = network()
    whole = network_gfs_sharpness(model, half_mean_square, data, loss_tol=0.1)
    dataset, generator = TensorDataset(*data), torch.Generator().manual_seed(3)
    before = torch.get_rng_state(), generator.get_state()
    loaders = [
        dataset,
        DataLoader(dataset, batch_size=4, shuffle=True),
        DataLoader(dataset, batch_size=4, shuffle=True, generator=generator),
        iter([data]),
        [list(data)],
    ]
    for loader in loaders:
        assert network_gfs_sharpness(model, half_mean_square, loader, loss_tol=0.1) == pytest.approx(whole, rel=1e-6)
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], generator.get_state())


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"x": X}, TypeError, "data must be a pair of tensors .*dict"),
        ((X.numpy(), Y.numpy()), TypeError, "data must hold pairs of tensors"),
        ((X, Y, Y), TypeError, "data must hold pairs of tensors"),
        ([(X, Y), (X[:, :2], Y)], ValueError, "data must hold batches of one shape"),
        ((X[:, :3], Y), ValueError, "model must take all inputs of data"),
        (DataLoader(Augmented()), ValueError, "the same at every reading"),
        (DataLoader(TensorDataset(X, Y), 4, drop_last=True), ValueError, "keeps 4 of 6"),
    ],
)
def test_other_data_are_refused_by_name(data, error, message) -> None:
    with pytest.raises(error, match=message):
        GFSMonitor(1, network()[0], half_mean_square, data)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Linear(4, 1).requires_grad_(False), ValueError, "model must have parameters"),
        (lambda: nn.LSTM(4, 1), ValueError, "model must return one tensor .*tuple"),
        (lambda: nn.Linear(4, 1).apply(lambda m: nn.init.constant_(m.weight, torch.nan)), ValueError, "finite weights"),
    ],
)
def test_other_models_are_refused_by_name(make, error, message) -> None:
    with pytest.raises(error, match=message):
        network_gfs_sharpness(make(), half_mean_square, network()[1])


CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("loss_fn", "plain", "goal"),
    [
        (nn.functional.cross_entropy, nn.functional.cross_entropy, 0.5),
        (
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])),
            lambda o, t: nn.functional.cross_entropy(o, t, weight=torch.tensor([1.0, 2.0, 3.0]).double()),
            0.5,
        ),
        (
            nn.CrossEntropyLoss(label_smoothing=0.1),
            lambda o, t: nn.functional.cross_entropy(o, t, label_smoothing=0.1),
            0.7,
        ),
        (nn.CrossEntropyLoss(ignore_index=1), lambda o, t: nn.functional.cross_entropy(o, t, ignore_index=1), 0.4),
        (nn.CrossEntropyLoss(reduction="sum"), lambda o, t: nn.functional.cross_entropy(o, t, reduction="sum"), 3.0),
    ],
)
def test_classes_as_targets_go_through_rk4(loss_fn, plain, goal) -> None:
    model, data = network(outputs=3)
    end = integrate_gradient_flow(model, loss_fn, (data[0], CLASSES), loss_tol=goal, method="rk4")
    assert end.converged
    outputs = torch.func.functional_call(model, end.params, (data[0].double(),))
    assert float(plain(outputs, CLASSES)) == pytest.approx(end.loss, rel=1e-9)
    assert network_gfs_sharpness(model, loss_fn, (data[0], CLASSES), loss_tol=goal, method="rk4") > 0


@pytest.mark.parametrize(
    ("loss_fn", "options", "error", "message"),
    [
        (nn.CrossEntropyLoss(), {}, ValueError, "needs a squared loss"),
        (nn.CrossEntropyLoss(reduction="none"), {"method": "rk4"}, ValueError, "loss_fn must return one real number"),
        (nn.CrossEntropyLoss(torch.ones(2)), {"method": "rk4"}, ValueError, "loss_fn must take outputs of shape"),
        (
            lambda o, t: nn.functional.cross_entropy(o, t, weight=torch.ones(3)),
            {"method": "rk4"},
            ValueError,
            "loss_fn must take .*also those that it holds, in float64",
        ),
        (lambda o, _: o.detach().mean(), {"method": "rk4"}, ValueError, "must have a gradient"),
        (lambda o, _: (o + torch.rand_like(o)).mean(), {"method": "rk4"}, ValueError, "loss_fn must be one fixed"),
        (lambda o, _: o.mean() / 0, {"method": "rk4"}, ValueError, "loss_fn must give finite"),
    ],
)
def test_other_losses_are_refused_by_name(loss_fn, options, error, message) -> None:
    model, data = network(outputs=3)
    with pytest.raises(error, match=message):
        network_gfs_sharpness(model, loss_fn, (data[0], CLASSES), **options)


def test_a_loss_without_second_derivative_is_refused() -> None:
    x = torch.ones(1, 1, 2, 4, requires_grad=True)

    def loss() -> torch.Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return (nn.functional.scaled_dot_product_attention(x, x, x) ** 2).sum()

    with pytest.raises(ValueError, match="loss_fn must have a second derivative"):
        hessian_top_eigenvalue(loss, [x])


def test_a_monitor_of_training_that_diverged_goes_on() -> None:
    model, data = network()
    monitor = GFSMonitor(1, model, half_mean_square, data, loss_tol=0.1)
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
