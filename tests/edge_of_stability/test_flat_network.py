"""Anybody's model, loss and data: what is taken, and what is refused by name."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lib.edge_of_stability import GFSMonitor, half_mean_square
from lib.edge_of_stability.flat_network import FlatNetwork, read_examples
from tests.edge_of_stability.nets import Between, Sequence, attention, behind_zeros, network, seeded

X, Y = network()[1]
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
NOISE = np.random.default_rng(0)


def numpy_noise(h: torch.Tensor) -> torch.Tensor:
    return h + 0.01 * torch.from_numpy(NOISE.standard_normal(6))


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


class Augmented(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(4), torch.zeros(1)


def test_loaders_are_data_and_are_left_as_they_were() -> None:
    dataset, generator = TensorDataset(X, Y), torch.Generator().manual_seed(3)
    before = torch.get_rng_state(), generator.get_state()
    for data in (
        dataset,
        DataLoader(dataset, batch_size=4, shuffle=True),
        DataLoader(dataset, batch_size=4, shuffle=True, generator=generator),
        iter([(X, Y)]),
        [[X, Y]],
    ):
        for found, given in zip(read_examples(data), (X, Y), strict=True):
            assert found.dtype == torch.float64
            torch.testing.assert_close(found.sort(0).values, given.double().sort(0).values)
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], generator.get_state())


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"x": X}, TypeError, "data must be a pair of tensors .*dict"),
        ((X.numpy(), Y.numpy()), TypeError, "data must hold pairs of tensors"),
        ((X, Y, Y), TypeError, "data must hold pairs of tensors"),
        ((X, Y[:1]), ValueError, "must pair inputs and targets"),
        ([(X, Y), (X[:, :2], Y)], ValueError, "data must hold batches of one shape"),
        ([], ValueError, "at least one example"),
        ((X[:0], Y[:0]), ValueError, "at least one example"),
        ([(X, Y), (X[:0], Y[:0])], ValueError, "at least one example"),
        (DataLoader(Augmented()), ValueError, "the same at every reading"),
        (DataLoader(TensorDataset(X, Y), 4, drop_last=True), ValueError, "keeps 4 of 6"),
    ],
)
def test_other_data_are_refused_by_name(data, error, message) -> None:
    with pytest.raises(error, match=message):
        read_examples(data)


WEIGHTED = nn.CrossEntropyLoss(torch.ones(2))


@pytest.mark.parametrize(
    ("model", "loss_fn", "message"),
    [
        (nn.Linear(3, 1), half_mean_square, "model must take all inputs of data"),
        (nn.Linear(4, 1).requires_grad_(False), half_mean_square, "model must have parameters"),
        (nn.LSTM(4, 1), half_mean_square, "model must return one tensor .*tuple"),
        (nn.Linear(4, 1).apply(lambda m: nn.init.constant_(m.weight, torch.nan)), half_mean_square, "finite weights"),
        (nn.Linear(4, 3), nn.CrossEntropyLoss(reduction="none"), "loss_fn must return one real number"),
        (nn.Linear(4, 3), WEIGHTED, "loss_fn must take outputs of shape"),
        (
            nn.Linear(4, 3),
            lambda o, t: nn.functional.cross_entropy(o, t, weight=torch.ones(3)),
            "loss_fn must take .*also those that it holds, in float64",
        ),
        (nn.Linear(4, 3), lambda o, _: o.detach().mean(), "must have a gradient"),
        (nn.Linear(4, 3), lambda o, _: (o + torch.rand_like(o)).mean(), "loss_fn must be one fixed"),
        (nn.Linear(4, 3), lambda o, _: o.mean() / 0, "loss_fn must give finite"),
    ],
)
def test_other_models_and_losses_are_refused_by_name(model, loss_fn, message) -> None:
    targets = Y if loss_fn is half_mean_square else CLASSES
    with pytest.raises(ValueError, match=message):
        FlatNetwork(model, loss_fn, read_examples((X, targets))).check()


def test_only_squared_losses_have_a_scale() -> None:
    model, data = network(3)
    flat = FlatNetwork(model, nn.CrossEntropyLoss(), read_examples((data[0], CLASSES)))
    with pytest.raises(ValueError, match="needs a squared loss"):
        flat.square_scale()
    assert FlatNetwork(model, nn.MSELoss(), read_examples(data)).square_scale() == pytest.approx(1 / 18)
