"""The training loop: what it visits, what it stores, and that an interruption leaves no trace."""

import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Dataset, TensorDataset

from lib import alias_free, flood
from lib.checkpoints import checkpoint_steps, load_checkpoint
from lib.edge_of_stability import edge_task
from lib.four_bit import PRESETS, four_bit_task
from lib.models import fully_connected, residual_network, small_convnet
from lib.training import _batches, accuracy, fit, one_cycle, step_seed


class Noisy(nn.Module):
    """Adds noise from a generator; counts its calls as a checkpoint's extra."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator, self.calls = generator, 0

    def forward(self, x):
        if self.training:
            self.calls += 1
            return x + torch.randn(x.shape, generator=self.generator)
        return x

    def extra(self):
        module = self

        class State:
            def state_dict(self):
                return {"calls": module.calls}

            def load_state_dict(self, state):
                module.calls = state["calls"]

        return State()


def train(folder: Path | None, *, epochs: int = 3, every: int | None = None, stop: int | None = None):
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(50, 4, generator=rng), torch.randint(3, (50,), generator=rng))
    noise = torch.Generator()
    noisy = Noisy(noise)
    first, last = nn.Linear(4, 8), nn.Linear(8, 3)
    with torch.no_grad():
        for parameter in [*first.parameters(), *last.parameters()]:
            parameter.normal_(generator=rng)
    model = nn.Sequential(first, nn.BatchNorm1d(8), nn.ReLU(), noisy, last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    calls = iter(range(10**6))

    def loss(output, target):
        if next(calls) == stop:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(output, target)

    run = fit(
        model,
        data,
        loss,
        optimizer,
        epochs=epochs,
        batch_size=8,
        schedule=OneCycleLR(optimizer, 0.1, total_steps=18),
        noise=(noise,),
        extra=(noisy.extra(),),
        evaluate=lambda net: accuracy(net, data, batch_size=20),
        folder=folder,
        every=every,
    )
    return run, model, noisy


@pytest.mark.parametrize(("every", "stop", "reached"), [(4, 9, [4, 8]), (None, 11, [0, 6]), (100, 3, [0])])
def test_an_interrupted_run_goes_on_to_the_same_end(every, stop, reached, tmp_path) -> None:
    whole, model, noisy = train(None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, every=every, stop=stop)
    assert checkpoint_steps(tmp_path) == reached
    again, other, counted = train(tmp_path, every=every)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert counted.calls == noisy.calls == 18
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    # and once more: there is nothing left to do
    done, third, _ = train(tmp_path, every=every)
    np.testing.assert_array_equal(done.losses, whole.losses)
    assert torch.equal(third[0].weight, model[0].weight)
    assert load_checkpoint(tmp_path, 18)["losses"] == whole.losses.tolist()


def test_dropout_is_seeded_too_and_the_callers_generator_is_left_alone(tmp_path) -> None:
    def run(folder, stop=None):
        data = TensorDataset(torch.ones(16, 4), torch.zeros(16, dtype=torch.long))
        model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 2))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
        calls = iter(range(1000))

        def loss(output, target):
            if next(calls) == stop:
                raise KeyboardInterrupt
            return nn.functional.cross_entropy(output, target)

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = torch.get_rng_state()
        try:
            return fit(model, data, loss, optimizer, epochs=4, batch_size=4, folder=folder, every=3).losses
        finally:
            assert torch.equal(torch.get_rng_state(), before)

    whole = run(None)
    assert len(set(whole[:4].tolist())) == 4
    torch.manual_seed(6)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop=7)
    np.testing.assert_array_equal(run(tmp_path), whole)


def test_a_folder_belongs_to_one_training(tmp_path) -> None:
    def run(epochs=2, batch_size=2, **options):
        model = nn.Linear(2, 2)
        data = TensorDataset(torch.ones(8, 2), torch.zeros(8, dtype=torch.long))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = nn.functional.cross_entropy
        return fit(model, data, loss, optimizer, epochs=epochs, batch_size=batch_size, folder=tmp_path, **options)

    run()
    for other in ({"batch_size": 4}, {"seed": 1}, {"precision": "bfloat16"}):
        with pytest.raises(ValueError, match="hold the same training"):
            run(**other)
    # less than is there: its own checkpoints are not taken for old ones
    assert len(run(epochs=1).losses) == 4
    assert 4 in checkpoint_steps(tmp_path)
    (tmp_path / ".step_00000012-x.pt").write_bytes(b"half")
    run(epochs=3)
    assert not list(tmp_path.glob(".step*"))


def test_losses_scores_and_divergence() -> None:
    run, _, _ = train(None)
    assert run.losses.shape == (18,)
    assert run.scores.shape == (3,)
    assert not run.diverged
    model = nn.Linear(2, 2)
    data = TensorDataset(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    run = fit(model, data, lambda output, _: output.sum() / 0, optimizer, epochs=2, batch_size=2)
    assert run.diverged
    assert len(run.losses) == 1


def test_every_example_once_an_epoch_in_another_order_and_shared_between_processes() -> None:
    data = TensorDataset(torch.arange(12), torch.arange(12))
    one = {"seed": 7, "rank": 0, "ranks": 1}
    whole = [batch[0].tolist() for batch in _batches(data, 4, 2, 0, **one)]
    first, second = (list(chain(*part)) for part in (whole[:3], whole[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    halves = [[batch[0].tolist() for batch in _batches(data, 2, 2, 0, seed=7, rank=rank, ranks=2)] for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    # from the middle of the second epoch
    assert [batch[0].tolist() for batch in _batches(data, 4, 2, 4, **one)] == whole[4:]


class Squares(Dataset):
    """Items one by one, which know their epoch."""

    epoch = -1

    def __len__(self) -> int:
        return 6

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int):
        return torch.tensor([float(index)]), torch.tensor(self.epoch)


def test_other_data_come_item_by_item_and_know_their_epoch() -> None:
    epochs = [batch[1].tolist() for batch in _batches(Squares(), 3, 2, 0, seed=0, rank=0, ranks=1)]
    assert epochs == [[0] * 3] * 2 + [[1] * 3] * 2
    assert accuracy(nn.Identity(), TensorDataset(torch.eye(5), torch.zeros(5, dtype=torch.long)), batch_size=2) == 0.2


@pytest.mark.parametrize(("steps", "rise"), [(1, 0.3), (2, 0.5), (5, 0.1), (10, 0.1), (100, 0.01)])
def test_a_cycle_of_any_number_of_steps(steps, rise) -> None:
    """Where the rise ends with the first step, torch alone divides by zero."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = one_cycle(optimizer, 0.5, steps, rise=rise)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.5 / 25) or rise * steps < 1
    assert max(rates) <= 0.5
    assert rates[-1] < 1e-5


def test_seeds_of_steps_differ() -> None:
    seeds = {step_seed(seed, rank, step) for seed in range(3) for rank in range(4) for step in range(50)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 9}, "batch_size must be at most 4"),
        ({"every": 0}, "every must be at least 1"),
        ({"device": "gpu"}, "device must be cpu"),
        ({"precision": "float8"}, "precision must be"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"workers": -1}, "workers must be at least 0"),
    ],
)
def test_bad_settings_are_refused(change, message) -> None:
    model = nn.Linear(2, 2)
    data = TensorDataset(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    settings = {"epochs": 1, "batch_size": 2, **change}
    with pytest.raises(ValueError, match=message):
        fit(model, data, nn.functional.cross_entropy, torch.optim.SGD(model.parameters()), **settings)


def test_accuracy_wants_data() -> None:
    with pytest.raises(ValueError, match="data must not be empty"):
        accuracy(nn.Identity(), TensorDataset(torch.ones(0, 2), torch.zeros(0, dtype=torch.long)))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        accuracy(nn.Identity(), TensorDataset(torch.ones(1, 2), torch.zeros(1, dtype=torch.long)), batch_size=0)


def test_epochs_of_a_second_training_have_other_numbers() -> None:
    batches = _batches(Squares(), 3, 1, 0, seed=0, rank=0, ranks=1, first_epoch=5)
    assert [batch[1].tolist() for batch in batches] == [[5] * 3] * 2


def test_bfloat16_runs() -> None:
    model = nn.Linear(2, 2)
    seen = []
    data = TensorDataset(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))

    def loss(output, target):
        seen.append(output.dtype)
        return nn.functional.cross_entropy(output, target)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = fit(model, data, loss, optimizer, epochs=1, batch_size=2, precision="bfloat16")
    assert seen == [torch.bfloat16] * 2
    assert run.losses[1] < run.losses[0]


def train_weighted(clip: float | None = None, *, inputs: int = 3, folder: Path | None = None, stop: int | None = None):
    """Train weights of several inputs towards a sum; every gradient that the optimizer meets is kept."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.zeros(inputs))

        def forward(self, *given):
            assert len(given) == inputs
            return sum(weight * each for weight, each in zip(self.weights, given, strict=True)), given[0]

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            met.append(self.param_groups[0]["params"][0].grad.clone())
            return super().step(closure)

    rng, met = torch.Generator().manual_seed(0), []
    tensors = [torch.randn(12, generator=rng) for _ in range(inputs)]
    model = Weighted()
    calls = iter(range(100))

    def loss(outputs, targets):
        if next(calls) == stop:
            raise KeyboardInterrupt
        found, first = outputs
        # the first input comes out as it went in, beside its own target
        assert any(torch.equal(first, tensors[0][list(rows)]) for rows in orders)
        return ((found - targets) ** 2).mean()

    orders = [np.random.default_rng((0, epoch)).permutation(12)[at : at + 4] for epoch in range(5) for at in (0, 4, 8)]
    target = 4 * sum(tensors)
    run = fit(
        model, TensorDataset(*tensors, target), loss, Watched(model.parameters(), lr=0.1), epochs=5, batch_size=4,
        clip=clip, folder=folder, every=2,
    )  # fmt: skip
    return run.losses, model.weights.detach(), met


@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_all_but_the_last_tensor_are_inputs(inputs) -> None:
    losses, weights, _ = train_weighted(inputs=inputs)
    assert losses[-1] < 0.3 * losses[0]
    assert ((weights - 4).abs() < 2).all()


def test_long_gradients_are_shortened_and_short_ones_are_not() -> None:
    free, clipped = train_weighted(), train_weighted(1.5)
    long = np.array([float(each.norm()) for each in free[2]])
    norms = np.array([float(each.norm()) for each in clipped[2]])
    assert long.max() > 3
    assert norms.max() == pytest.approx(1.5, rel=1e-5)
    # the first is the same but for its length
    torch.testing.assert_close(clipped[2][0], free[2][0] * (1.5 / long[0]), rtol=1e-5, atol=0)
    assert clipped[0][0] == free[0][0]
    # one that is never met changes nothing, bit for bit
    np.testing.assert_array_equal(train_weighted(1e6)[0], free[0])
    assert free[0][-1] < clipped[0][-1]


def test_an_interrupted_run_with_clipped_gradients_goes_on(tmp_path) -> None:
    losses, weights, _ = train_weighted(1.5)
    with pytest.raises(KeyboardInterrupt):
        train_weighted(1.5, folder=tmp_path, stop=7)
    again, others, met = train_weighted(1.5, folder=tmp_path)
    np.testing.assert_array_equal(again, losses)
    assert torch.equal(others, weights)
    assert len(met) == 15 - 6


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan"), float("inf")])
def test_lengths_that_cannot_be(clip) -> None:
    with pytest.raises(ValueError, match="clip must be positive and finite"):
        train_weighted(clip)
    with pytest.raises(TypeError, match="clip must be a number"):
        train_weighted(str(clip))


def test_processes_part_before_the_interpreter_ends() -> None:
    """Else a thread of theirs may be left over, and a training that is done ends with SIGABRT."""
    program = (
        "import atexit, torch.distributed as group\n"
        "from lib.training import processes\n"
        "group.init_process_group('gloo', rank=0, world_size=1, store=group.HashStore())\n"
        "atexit.register(lambda: print(group.is_initialized()))\n"  # runs after what is registered later
        "processes('cpu')\n"
        "print(group.is_initialized())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


NONE_OF_ITS_KIND = (None, object(), "nonsense", 1.5, [[1.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    "name",
    ["model", "data", "loss", "optimizer", "epochs", "batch_size", "seed", "every", "device", "precision", "workers",
     "noise", "schedule", "evaluate", "folder", "first_epoch", "clip"],
)  # fmt: skip
def test_foreign_things_are_refused_by_name(name, tmp_path) -> None:
    model = nn.Linear(2, 2)
    right = {
        "model": model,
        "data": TensorDataset(torch.ones(4, 2), torch.zeros(4, dtype=torch.long)),
        "loss": nn.functional.cross_entropy,
        "optimizer": torch.optim.SGD(model.parameters()),
        "epochs": 1,
        "batch_size": 2,
        "folder": tmp_path / "new",
    }
    optional = {"every", "schedule", "evaluate", "folder", "clip"}
    for value in NONE_OF_ITS_KIND:
        if (value is None and name in optional) or (name == "folder" and value == "nonsense"):
            continue
        if name == "clip" and value == 1.5:
            continue
        wrong = [value] if name == "noise" else value
        with pytest.raises((ValueError, TypeError), match=name):
            fit(**{**right, name: wrong})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numpy_integers_are_integers(kind, tmp_path) -> None:
    model = nn.Linear(2, 2)
    data = TensorDataset(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    for epochs in (1, 2):  # and can be gone on with
        run = fit(
            model, data, nn.functional.cross_entropy, torch.optim.SGD(model.parameters()), epochs=kind(epochs),
            batch_size=kind(2), seed=kind(3), every=kind(1), first_epoch=kind(0), workers=kind(0), folder=tmp_path,
        )  # fmt: skip
    assert len(run.losses) == 4
    assert accuracy(model, data, batch_size=kind(3)) in (0, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_data_that_are_not_finite_are_refused(bad) -> None:
    model = nn.Linear(2, 2)
    inputs = torch.ones(4, 2)
    inputs[3, 1] = bad
    data = TensorDataset(inputs, torch.zeros(4, dtype=torch.long))
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(ValueError, match="data must be finite; 1 of its 8"):
        fit(model, data, nn.functional.cross_entropy, optimizer, epochs=1, batch_size=2)
    with pytest.raises(ValueError, match="data must be finite; 1 of its 8"):
        accuracy(model, data)
    with pytest.raises(TypeError, match="data must hold tuples of inputs and a target"):
        fit(model, torch.ones(4, 2), nn.functional.cross_entropy, optimizer, epochs=1, batch_size=2)


class Answers(nn.Module):
    """Gives every example the answer that it is."""

    def forward(self, x):
        return x.log()


def test_an_answer_of_nan_is_wrong() -> None:
    nothing, some = -torch.ones(8, 4), torch.eye(4).repeat(2, 1)
    classes = torch.arange(4).repeat(2)
    assert accuracy(Answers(), TensorDataset(some, classes)) == 1
    assert accuracy(Answers(), TensorDataset(nothing, torch.zeros(8, dtype=torch.long))) == 0
    some[0, 2] = -1  # one class of one example
    assert accuracy(Answers(), TensorDataset(some, classes)) == 7 / 8
    some[1, 1] = 1e38
    assert accuracy(Answers(), TensorDataset(some, classes)) == 7 / 8


def test_torchs_generator_stays_where_it_was(tmp_path) -> None:
    """Where a seed or a generator is given, as everywhere here."""
    own = torch.Generator().manual_seed(0)
    widths = {"activation": "relu", "normalize": True, "generator": own}

    def trained() -> None:
        model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(model.parameters())
        fit(model, Pairs(), nn.functional.cross_entropy, optimizer, epochs=1, batch_size=2, folder=tmp_path, workers=1)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    for use in (
        lambda: fully_connected((4, 3, 2), **widths),
        lambda: small_convnet((1, 2), 3, **widths),
        lambda: residual_network((1, 1), 3, width=2, generator=own),
        lambda: accuracy(nn.Identity(), TensorDataset(torch.eye(3), torch.arange(3))),
        lambda: accuracy(nn.Identity(), Pairs(), workers=1),
        lambda: edge_task("quick"),
        lambda: four_bit_task(replace(PRESETS["quick"], count=8)),
        lambda: alias_free.alias_free_task(replace(alias_free.PRESETS["quick"], count=8)),
        lambda: flood.flood_task(replace(flood.PRESETS["quick"], count=1, test_count=1, side=16, batch_size=1)),
        lambda: flood.flood_task(replace(flood.PRESETS["laptop"], count=1, test_count=1, side=16, batch_size=1)),
        lambda: flood.trained_network("rain"),
        lambda: alias_free.trained_network("aps"),
        trained,
    ):
        use()
        assert torch.equal(torch.get_rng_state(), before)


class Pairs(Dataset):
    """Items one by one."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        return torch.ones(2), torch.tensor(0)
