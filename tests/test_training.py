"""The training loop: what it visits, what it stores, and that an interruption leaves no trace."""

import subprocess
import sys
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Dataset, TensorDataset

from lib import alias_free, flood
from lib.checkpoints import checkpoint_steps, load_checkpoint
from lib.edge_of_stability import EdgeRun, edge_task, train_edge_of_stability
from lib.four_bit import PRESETS, four_bit_task
from lib.models import fully_connected, residual_network, small_convnet
from lib.training import _batches, accuracy, fit, one_cycle, step_seed
from tests.flood.test_learning import train_together
from tests.interrupting import interrupt_at
from tests.launching import TWO_PROCESSES

FOUR = TensorDataset(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))


def fit_line(**options):
    """Train a linear layer, unless told otherwise."""
    model = options.pop("model", None) or nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    arguments = {"data": FOUR, "loss": functional.cross_entropy, "epochs": 1, "batch_size": 2}
    return fit(model, optimizer=optimizer, **{**arguments, **options})


class Noisy(nn.Module):
    """Adds noise from a generator; counts its calls, which a checkpoint must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.calls = torch.Generator(), 0

    def forward(self, x):
        if self.training:
            self.calls += 1
            return x + torch.randn(x.shape, generator=self.generator)
        return x


class Calls:
    def __init__(self, noisy: Noisy) -> None:
        self.noisy = noisy

    def state_dict(self):
        return {"calls": self.noisy.calls}

    def load_state_dict(self, state) -> None:
        self.noisy.calls = state["calls"]


def train(folder, every: int | None = None):
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(50, 4, generator=rng), torch.randint(3, (50,), generator=rng))
    noisy = Noisy()
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), noisy, nn.Dropout(), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=rng)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = OneCycleLR(optimizer, 0.1, total_steps=18)
    run = fit(
        model, data, functional.cross_entropy, optimizer, epochs=3, batch_size=8, schedule=schedule,
        noise=(noisy.generator,), extra=(Calls(noisy),), evaluate=lambda net: accuracy(net, data, batch_size=20),
        folder=folder, every=every, clip=1.5,
    )  # fmt: skip
    return run, model, noisy


@pytest.mark.parametrize(("every", "stop", "reached"), [(4, 9, [4, 8]), (None, 11, [0, 6]), (100, 3, [0])])
def test_an_interrupted_run_goes_on_to_the_same_end(every, stop, reached, tmp_path) -> None:
    whole, model, noisy = train(None)
    assert (whole.losses.shape, whole.scores.shape, whole.diverged) == ((18,), (3,), False)
    torch.manual_seed(6)  # dropout must not see it
    with interrupt_at(stop):
        train(tmp_path, every)
    assert checkpoint_steps(tmp_path) == reached
    for _ in range(2):  # the second time there is nothing left to do
        again, other, counted = train(tmp_path, every)
        np.testing.assert_array_equal(again.losses, whole.losses)
        np.testing.assert_array_equal(again.scores, whole.scores)
        assert counted.calls == noisy.calls == 18
        for key, value in model.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key
    assert load_checkpoint(tmp_path, 18)["losses"] == whole.losses.tolist()


def test_a_folder_may_hold_more_than_is_asked_for_and_what_was_left_unfinished(tmp_path) -> None:
    fit_line(epochs=2, folder=tmp_path)
    # its own checkpoints are not taken for old ones
    assert len(fit_line(folder=tmp_path).losses) == 2
    assert 2 in checkpoint_steps(tmp_path)
    (tmp_path / ".step_00000012-x.pt").write_bytes(b"half")
    fit_line(epochs=3, folder=tmp_path)
    assert not list(tmp_path.glob(".step*"))


@pytest.mark.parametrize(
    "loss", [lambda output, _: output.sum() / 0, lambda output, _: (0 * output).abs().sum().sqrt()]
)
def test_an_infinite_loss_or_gradient_ends_a_training(loss) -> None:
    model = nn.Linear(2, 2)
    run = fit_line(model=model, loss=loss, epochs=2)
    assert run.diverged
    assert len(run.losses) == 1
    assert model.weight.isfinite().all()


class Squares(Dataset):
    """Items one by one, which know their epoch."""

    epoch = -1

    def __len__(self) -> int:
        return 6

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int):
        return torch.full((2,), float(index)), torch.tensor(self.epoch)


def targets(data, share: int, epochs: int, *, start: int = 0, rank: int = 0, ranks: int = 1, **options):
    batches = _batches(data, share, epochs, start, seed=7, rank=rank, ranks=ranks, **options)
    return [batch[1].tolist() for batch in batches]


def test_every_example_once_an_epoch_in_another_order_and_shared_between_processes() -> None:
    data = TensorDataset(torch.arange(12), torch.arange(12))
    whole = targets(data, 4, 2)
    first, second = (list(chain(*part)) for part in (whole[:3], whole[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    halves = [targets(data, 2, 2, rank=rank, ranks=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    # from the middle of the second epoch
    assert targets(data, 4, 2, start=4) == whole[4:]


def test_other_data_come_item_by_item_and_know_their_epoch() -> None:
    assert targets(Squares(), 3, 2) == [[0] * 3] * 2 + [[1] * 3] * 2
    assert targets(Squares(), 3, 1, first_epoch=5) == [[5] * 3] * 2


@pytest.mark.parametrize(("steps", "rise"), [(1, 0.3), (2, 0.5), (5, 0.1), (10, 0.1), (100, 0.01)])
def test_a_cycle_of_any_number_of_steps(steps, rise) -> None:
    """Where the rise ends with the first step, torch alone divides by zero."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = one_cycle(optimizer, 0.5, steps, rise=rise)
    rates = []
    for _ in range(steps):
        rates += schedule.get_last_lr()
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
        ({"precision": "float8"}, "precision must be"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"clip": float("inf")}, "clip must be positive and finite"),
        ({"noise": ["nonsense"]}, "noise must be generators of torch"),
        ({"data": torch.ones(4, 2)}, "data must hold tuples of inputs and a target"),
    ],
)
def test_bad_settings_are_refused_before_the_folder_is_taken(change, message, tmp_path) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fit_line(folder=tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


def test_numpy_integers_are_integers(tmp_path) -> None:
    eight = np.uint8
    for epochs in (1, 2):  # and can be gone on with
        options = {"batch_size": eight(2), "seed": eight(3), "every": eight(1), "first_epoch": eight(0)}
        run = fit_line(epochs=eight(epochs), workers=eight(0), folder=tmp_path, **options)
    assert len(run.losses) == 4


def test_bfloat16_runs() -> None:
    seen = []

    def loss(output, target):
        seen.append(output.dtype)
        return functional.cross_entropy(output, target)

    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)  # at others the eight bits of a loss may not see one step
    run = fit_line(model=model, loss=loss, precision="bfloat16")
    assert seen == [torch.bfloat16] * 2
    assert run.losses[1] < run.losses[0]


class Weighted(nn.Module):
    """A weighted sum of its inputs."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(inputs))

    def forward(self, *given):
        return sum(weight * each for weight, each in zip(self.weights, given, strict=True))


def train_weighted(inputs: int = 3, **options):
    """Losses, weights, and every gradient that the optimizer meets, on the way to a sum."""
    rng, met = torch.Generator().manual_seed(0), []
    tensors = [torch.randn(12, generator=rng) for _ in range(inputs)]
    model = Weighted(inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: met.append(model.weights.grad.clone()))
    data = TensorDataset(*tensors, 4 * sum(tensors))
    run = fit(model, data, functional.mse_loss, optimizer, epochs=5, batch_size=4, **options)
    return run.losses, model.weights.detach(), met


@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_all_but_the_last_tensor_are_inputs(inputs) -> None:
    losses, weights, _ = train_weighted(inputs)
    assert losses[-1] < 0.3 * losses[0]
    assert ((weights - 4).abs() < 2).all()


def test_long_gradients_are_shortened_and_short_ones_are_not() -> None:
    free, clipped = train_weighted(), train_weighted(clip=1.5)
    long = float(free[2][0].norm())
    assert long > 3
    assert max(float(each.norm()) for each in clipped[2]) == pytest.approx(1.5, rel=1e-5)
    # the first is the same but for its length
    torch.testing.assert_close(clipped[2][0], free[2][0] * (1.5 / long), rtol=1e-5, atol=0)
    assert clipped[0][0] == free[0][0]
    assert free[0][-1] < clipped[0][-1]
    # a length that is never met changes nothing, bit for bit
    np.testing.assert_array_equal(train_weighted(clip=1e6)[0], free[0])


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Where two CPU processes have trained a network of each of three chapters, and what they said."""
    folder = tmp_path_factory.mktemp("together")
    command = [*TWO_PROCESSES, "-m", "tests.launched", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


@pytest.mark.slow
def test_two_processes_train_an_alias_free_network(together) -> None:
    folder, said = together
    assert said.count("test accuracy") == 1  # one process speaks
    assert len(alias_free.AliasFreeRun.load(folder / "alias-free" / "network.npz").losses) == 8


@pytest.mark.slow
def test_two_processes_share_the_examples_of_an_edge_and_the_path_is_the_same(together, tmp_path) -> None:
    folder, said = together
    assert said.count("2/eta") == 1
    assert load_checkpoint(folder / "edge-of-stability", 20)["processes"] == 2
    run = EdgeRun.load(folder / "edge-of-stability" / "network.npz")
    one = train_edge_of_stability(run.preset, tmp_path)
    np.testing.assert_allclose(run.losses, one.losses, rtol=1e-8)
    assert list(run.steps) == [0, 20]


@pytest.mark.slow
def test_two_processes_train_a_downsampler_as_one_does(together) -> None:
    two = load_checkpoint(together[0] / "flood", 4)
    assert len(two["extra"]) == 2  # two processes it was
    one = train_together(None)
    np.testing.assert_allclose(two["losses"], one.losses, rtol=1e-4)
    np.testing.assert_allclose(two["scores"], one.scores, rtol=1e-3)
    assert one.losses.std() > 1e-4


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


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_data_that_are_empty_or_not_finite_are_refused(bad) -> None:
    inputs = torch.ones(4, 2)
    inputs[3, 1] = bad
    data = TensorDataset(inputs, torch.zeros(4, dtype=torch.long))
    for use in (lambda: fit_line(data=data), lambda: accuracy(nn.Identity(), data)):
        with pytest.raises(ValueError, match="data must be finite; 1 of its 8"):
            use()
    with pytest.raises(ValueError, match="data must not be empty"):
        accuracy(nn.Identity(), TensorDataset(torch.ones(0, 2), torch.ones(0)))


class Logarithm(nn.Module):
    def forward(self, x):
        return x.log()


def test_accuracy_in_parts_and_an_answer_of_nan_is_wrong() -> None:
    answers, classes = torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
    assert accuracy(Logarithm(), TensorDataset(answers, classes), batch_size=3) == 1
    answers[0, 2] = -1  # one class of one example, whose logarithm is NaN
    assert accuracy(Logarithm(), TensorDataset(answers, classes), batch_size=3) == 7 / 8
    assert accuracy(Logarithm(), TensorDataset(-torch.ones(8, 4), torch.zeros(8, dtype=torch.long))) == 0


def test_torchs_generator_stays_where_it_was(tmp_path) -> None:
    """Where a seed or a generator is given, as everywhere here."""
    own, model = torch.Generator().manual_seed(0), nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    widths = {"activation": "relu", "normalize": True, "generator": own}
    few = {"count": 1, "test_count": 1, "side": 16, "batch_size": 1}
    before = torch.get_rng_state()
    for use in (
        lambda: fully_connected((4, 3, 2), **widths),
        lambda: small_convnet((1, 2), 3, **widths),
        lambda: residual_network((1, 1), 3, width=2, generator=own),
        lambda: accuracy(nn.Identity(), Squares(), workers=1),
        lambda: edge_task("quick"),
        lambda: four_bit_task(replace(PRESETS["quick"], count=8)),
        lambda: alias_free.alias_free_task(replace(alias_free.PRESETS["quick"], count=8)),
        *(lambda name=name: flood.flood_task(replace(flood.PRESETS[name], **few)) for name in ("quick", "laptop")),
        lambda: flood.trained_network("rain"),
        lambda: alias_free.trained_network("aps"),
        lambda: fit_line(model=model, data=Squares(), folder=tmp_path, workers=1),
    ):
        use()
        assert torch.equal(torch.get_rng_state(), before)
