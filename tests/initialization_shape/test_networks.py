"""The torch modules and the audit."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.initialization_shape import (
    DiagonalLinear,
    NeuronLinear,
    audit_initialization,
    gradient_flow,
    neuron_delta,
    potential_scale,
)


def test_diagonal_module_starts_unbiased_with_the_right_potential() -> None:
    model = DiagonalLinear(5, alpha=0.02, shape=-0.4)
    assert model.effective_weight.abs().max() == 0
    np.testing.assert_allclose(model.potential().k, potential_scale(0.02, -0.4))
    assert model(torch.ones(3, 5, dtype=torch.float64)).shape == (3,)
    assert sum(p.numel() for p in model.parameters()) == 20


def test_neuron_module_has_the_asked_scale_shape_and_slope() -> None:
    model = NeuronLinear(6, alpha=0.3, shape=0.5, slope=0.2, generator=torch.Generator().manual_seed(1))
    assert model.effective_weight.norm().item() == pytest.approx(0.3)
    assert model.potential().delta == pytest.approx(float(neuron_delta(0.3, 0.5)))
    x = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    linear = x @ model.effective_weight
    torch.testing.assert_close(model(x), torch.where(linear > 0, linear, 0.2 * linear))
    same = NeuronLinear(6, alpha=0.3, shape=0.5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(same.u, model.u)


def two_layers(width: int = 8) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def test_what_the_audit_calls_delta_is_conserved_by_training() -> None:
    model = two_layers().double()
    before = audit_initialization(model)
    X = torch.randn(10, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=2.5e-4)
    for _ in range(200):
        optimizer.zero_grad()
        (model(X) ** 2).mean().backward()
        optimizer.step()
    after = audit_initialization(model)
    moved = np.abs(after.alpha - before.alpha).max()
    assert moved > 0.05
    assert np.abs(after.delta - before.delta).max() < moved / 100


def test_audit_reports_regimes_and_identities() -> None:
    report = audit_initialization(two_layers(), target=1.0)
    np.testing.assert_allclose(report.inertia, np.sqrt(report.delta**2 + 4 * report.alpha**2))
    np.testing.assert_allclose(report.delta, 4 * report.alpha * report.shape / (1 - report.shape**2), rtol=1e-6)
    assert len(report.regime) == 8
    assert set(audit_initialization(two_layers(), target=1e-3).regime) == {"kernel"}
    assert set(audit_initialization(two_layers(), target=1e4).regime) == {"rich"}
    assert "8 hidden neurons" in str(report)


class Backwards(nn.Module):
    """Two layers of one shape, made in the other order than they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


class Undecided(Backwards):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class SideBySide(Backwards):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x) + self.first(x)


class Again(Backwards):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(self.first(x)))


class ByHand(Backwards):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x @ self.first.weight.T)


EXAMPLES = torch.ones(3, 4)


@pytest.mark.parametrize(("make", "inputs"), [(Backwards, None), (Backwards, EXAMPLES), (Undecided, EXAMPLES)])
def test_the_audit_follows_the_order_of_computation(make, inputs) -> None:
    model = make().train()
    plain = nn.Sequential(model.first, nn.ReLU(), model.last)
    report, expected = audit_initialization(model, inputs), audit_initialization(plain)
    np.testing.assert_array_equal(report.delta, expected.delta)
    wrong = audit_initialization(nn.Sequential(model.last, nn.ReLU(), model.first))
    assert not np.allclose(report.delta, wrong.delta)
    assert model.training
    assert not model.first._forward_hooks


@pytest.mark.parametrize(
    ("model", "inputs", "error", "message"),
    [
        (Undecided(), None, ValueError, "inputs must be given.*cannot be traced"),
        (SideBySide(), None, ValueError, "one feeding the other"),
        (SideBySide(), EXAMPLES, ValueError, "one feeding the other"),
        (Again(), None, ValueError, "inputs must be given"),
        (Again(), EXAMPLES, ValueError, "each of its two linear layers once; it makes 3"),
        (ByHand(), None, ValueError, "inputs must be given"),
        (ByHand(), EXAMPLES, ValueError, "each of its two linear layers once; it makes 1"),
        (Backwards(), EXAMPLES[:, :3], ValueError, "inputs must be a batch"),
        (Backwards(), "examples", TypeError, "inputs must be a tensor"),
    ],
)
def test_an_order_that_is_not_known_is_refused(model, inputs, error, message) -> None:
    with pytest.raises(error, match=message):
        audit_initialization(model, inputs)


@pytest.mark.parametrize(("output", "inner", "regime"), [(10.0, 0.01, "kernel"), (0.01, 10.0, "features")])
def test_a_kernel_neuron_ends_where_its_linearisation_does_and_a_feature_neuron_does_not(output, inner, regime) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((5, 20)), rng.standard_normal(5)
    y /= np.linalg.norm(np.linalg.lstsq(X, y, rcond=None)[0])
    u = rng.standard_normal(20)
    u *= inner / np.linalg.norm(u)
    model = nn.Sequential(nn.Linear(20, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(u)[None])
        model[1].weight.fill_(output)
    assert audit_initialization(model, target=1.0).regime == (regime,)
    tangent = np.hstack([(X @ u)[:, None], output * X])
    move = np.linalg.lstsq(tangent, y - output * (X @ u), rcond=None)[0]
    linearised = output * u + move[0] * u + output * move[1:]
    end = gradient_flow("neuron", X, y, {"a": output, "u": u}).w
    distance = np.linalg.norm(end - linearised) / np.linalg.norm(end)
    assert (distance < 1e-2) == (regime == "kernel")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: NeuronLinear(2, 1.0, 0.0, slope=0.0), ValueError, "slope must lie in"),
        (lambda: NeuronLinear(2, 1.0, 0.0, slope="steep"), TypeError, "slope must be a number"),
        (lambda: audit_initialization(nn.Linear(2, 2)), ValueError, "two linear layers.*2 to 2"),
        (lambda: audit_initialization(nn.ReLU()), ValueError, "its linear layers: none"),
        (lambda: audit_initialization(nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1))), ValueError, "one feeding"),
        (lambda: audit_initialization(two_layers(), target=0.0), ValueError, "target must be positive"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
