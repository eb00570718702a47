"""The one training loop: one device or many, a bar while it runs, and checkpoints that it goes on from.

A run that was interrupted ends where the uninterrupted one would have ended, bit for bit on the same device:
the order of examples comes from the seed and the epoch, and every source of noise is seeded anew for each step
from the seed, the process and the step. So processes draw independent noise, and none of it has to be stored.

    accelerate launch --multi_gpu --num_processes 8 -m lib train four-bit --device cuda --preset imagenet-resnet50 ...

gives every process its share of each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lib.checkpoints import checkpoint_steps, delete_checkpoint, load_checkpoint, save_checkpoint
from lib.progress import progress
from lib.validation import known_device, positive_integer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

__all__ = ["TrainingRun", "accuracy", "fit", "is_first_process", "step_seed"]

#: Checkpoints that are kept: the last, and the one before in case that one is damaged.
_KEPT = 2


class Stateful(Protocol):
    """Something outside the network that a checkpoint must hold, such as a running estimate."""

    def state_dict(self) -> dict[str, Any]:
        """What there is to keep: tensors, numbers, strings and lists or dicts of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""


@dataclass(frozen=True)
class TrainingRun:
    """What came of a training.

    Attributes
    ----------
    losses
        Mean loss over the batch before every step, (steps,).
    scores
        What `evaluate` returned after every epoch, (epochs,).
    diverged
        Whether training stopped because a loss was not finite.
    """

    losses: NDArray[np.float64]
    scores: NDArray[np.float64]
    diverged: bool


def is_first_process() -> bool:
    """Whether this process is the one that speaks, of those that trained together.

    Examples
    --------
    >>> is_first_process()
    True
    """
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def step_seed(seed: int, rank: int, step: int) -> int:
    """A seed that no other combination of run, process and step shares.

    Examples
    --------
    >>> step_seed(0, 0, 1) == step_seed(0, 1, 0)
    False
    """
    high, low = np.random.SeedSequence((seed, rank, step)).generate_state(2)
    return int(high) << 31 ^ int(low)


def accuracy(model: nn.Module, data: Dataset[Any], *, batch: int = 1000, device: str | torch.device = "cpu") -> float:
    """The part of examples whose largest output is their class.

    Parameters
    ----------
    model
        The network; it is left in the mode in which it came.
    data
        Pairs of an input and a class.
    batch, device
        How many at a time, and where.

    Examples
    --------
    >>> accuracy(nn.Identity(), TensorDataset(torch.eye(3), torch.tensor([0, 1, 1])))
    0.6666666666666666
    """
    was_training = model.training
    model.eval()
    right = total = 0
    with torch.no_grad():
        for inputs, classes in _loader(data, _in_order(len(data), batch)):  # type: ignore[arg-type]
            right += int((model(inputs.to(device)).argmax(dim=1) == classes.to(device)).sum())
            total += len(classes)
    model.train(was_training)
    return right / total


def fit(
    model: nn.Module,
    data: Dataset[Any],
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    *,
    epochs: int,
    batch: int,
    seed: int = 0,
    schedule: LRScheduler | None = None,
    noise: Sequence[torch.Generator] = (),
    extra: Sequence[Stateful] = (),
    evaluate: Callable[[nn.Module], float] | None = None,
    folder: str | Path | None = None,
    every: int | None = None,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    workers: int = 0,
    description: str = "training",
) -> TrainingRun:
    """Train a network in place.

    Parameters
    ----------
    model, loss
        `loss(model(inputs), targets)` is the mean over a batch.
    data
        Pairs of tensors. Where an item depends on the epoch, it has a method `set_epoch`.
    optimizer, schedule
        On the parameters of `model`; the schedule moves on after every step.
    epochs, batch
        Passes over the data, and examples a step over all processes together; a rest of an epoch that is smaller
        than a batch is left out, others come in the next epoch.
    seed
        Of the order of examples and of the noise.
    noise
        Generators that the network draws from.
    extra
        What a checkpoint must hold beside network, optimizer and schedule; one state a process.
    evaluate
        A score after every epoch, measured on the first process.
    folder, every
        Where checkpoints go, and how many steps lie between them (an epoch by default). A folder that holds some is
        gone on from.
    device
        `"cpu"` or `"cuda"`; under `accelerate launch` each process has its own.
    precision
        `"bfloat16"` for torch's autocast.
    workers
        Processes that load data.
    description
        For the progress bar.

    Raises
    ------
    ValueError
        If a number is out of range, or a batch does not fit the data or the processes.

    Examples
    --------
    >>> data = TensorDataset(torch.eye(4), torch.arange(4))
    >>> model = nn.Linear(4, 4)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> run = fit(model, data, nn.functional.cross_entropy, optimizer, epochs=50, batch=2)
    >>> len(run.losses), accuracy(model, data)
    (100, 1.0)
    """
    _check(epochs, batch, every, precision)
    known_device(device)
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=device == "cpu")
    rank, ranks = accelerator.process_index, accelerator.num_processes
    count = len(data)  # type: ignore[arg-type]
    if batch > count or batch % ranks:
        raise ValueError(f"batch must be at most {count}, and a multiple of {ranks} processes; it is {batch}")
    place = accelerator.device if ranks > 1 else torch.device(device)
    per_epoch = count // batch
    n_steps = epochs * per_epoch

    run = _Run(model, optimizer, schedule, extra, accelerator, None if folder is None else Path(folder))
    start = run.restore(n_steps)
    model.to(place)
    _move(optimizer, place)
    wrapped = _share_gradients(model, place) if ranks > 1 else model
    model.train()

    batches = _batches(data, batch // ranks, epochs, start, seed=seed, rank=rank, ranks=ranks, workers=workers)
    if accelerator.is_main_process:  # one bar for all processes
        batches = progress(batches, description, total=n_steps - start)
    for step, (inputs, targets) in enumerate(batches, start=start):
        for generator in noise:
            generator.manual_seed(step_seed(seed, rank, step))
        optimizer.zero_grad()
        with torch.autocast(place.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            value = loss(wrapped(inputs.to(place)), targets.to(place))
        if not run.note_loss(value):
            return run.result(diverged=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if schedule is not None:
            schedule.step()
        done = step + 1
        if done % per_epoch == 0 and evaluate is not None:
            run.note_score(evaluate)
        if done % (every or per_epoch) == 0 or done == n_steps:
            run.keep(done)
    return run.result(diverged=False)


def _check(epochs: int, batch: int, every: int | None, precision: str) -> None:
    for name, value in (("epochs", epochs), ("batch", batch), ("every", 1 if every is None else every)):
        positive_integer(name, value)
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be float32 or bfloat16; it is {precision!r}")


@dataclass
class _Run:
    """A training as far as it has come, and how it is written down and found again."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler | None
    extra: Sequence[Stateful]
    accelerator: Any
    folder: Path | None
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def restore(self, n_steps: int) -> int:
        """Take up the last checkpoint, or write the first; the number of steps that are done."""
        if self.folder is None:
            return 0
        reached = [step for step in checkpoint_steps(self.folder) if step <= n_steps]
        self.accelerator.wait_for_everyone()
        if not reached:
            self.keep(0)
            return 0
        state = load_checkpoint(self.folder, reached[-1])
        ranks = self.accelerator.num_processes
        if len(state["extra"]) != ranks:
            raise ValueError(f"folder must be gone on with by {len(state['extra'])} processes; there are {ranks}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        for each, kept in zip(self.extra, state["extra"][self.accelerator.process_index], strict=True):
            each.load_state_dict(kept)
        self.losses, self.scores = state["losses"], state["scores"]
        return reached[-1]

    def keep(self, step: int) -> None:
        """Write everything down; all processes come here together."""
        from accelerate.utils import gather_object

        if self.folder is None:
            return
        states = gather_object([[each.state_dict() for each in self.extra]])
        if self.accelerator.is_main_process:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict() if self.schedule else {},
                "extra": states,
                "losses": self.losses,
                "scores": self.scores,
            }
            save_checkpoint(self.folder, step, state)
            for old in checkpoint_steps(self.folder)[:-_KEPT]:
                delete_checkpoint(self.folder, old)
        self.accelerator.wait_for_everyone()

    def note_loss(self, value: Tensor) -> bool:
        """Remember a loss, its mean over processes; whether it is finite."""
        alone = self.accelerator.num_processes == 1
        mean = value.detach() if alone else self.accelerator.reduce(value.detach(), reduction="mean")
        self.losses.append(float(mean))
        return bool(np.isfinite(self.losses[-1]))

    def note_score(self, evaluate: Callable[[nn.Module], float]) -> None:
        """Let the first process evaluate the network."""
        if self.accelerator.is_main_process:
            self.scores.append(evaluate(self.model))
        self.accelerator.wait_for_everyone()

    def result(self, *, diverged: bool) -> TrainingRun:
        return TrainingRun(np.array(self.losses), np.array(self.scores), diverged)


def _share_gradients(model: nn.Module, place: torch.device) -> nn.Module:
    """The network with gradients that are averaged over processes."""
    devices = [place] if place.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices)


def _move(optimizer: Optimizer, place: torch.device) -> None:
    """Bring the state that a checkpoint left on the CPU to where the parameters are."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim:
                state[name] = value.to(place)


def _in_order(count: int, batch: int) -> list[list[int]]:
    return [list(range(start, min(start + batch, count))) for start in range(0, count, batch)]


def _loader(data: Dataset[Any], indices: list[list[int]], workers: int = 0) -> DataLoader[Any]:
    """Batches by their indices; tensors in memory are indexed at once, other data item by item."""
    if isinstance(data, TensorDataset):
        return DataLoader(data, sampler=indices, batch_size=None)
    return DataLoader(data, batch_sampler=indices, num_workers=workers)


def _batches(
    data: Dataset[Any], share: int, epochs: int, start: int, *, seed: int, rank: int, ranks: int, workers: int = 0
) -> Iterator[Any]:
    """One process's share of every batch from the step `start` on; each epoch in an order of its own."""
    count = len(data)  # type: ignore[arg-type]
    per_epoch = count // (share * ranks)
    for epoch in range(start // per_epoch, epochs):
        order = np.random.default_rng((seed, epoch)).permutation(count)[: per_epoch * share * ranks]
        mine = order.reshape(per_epoch, ranks, share)[:, rank]
        if hasattr(data, "set_epoch"):
            data.set_epoch(epoch)
        yield from _loader(data, mine[max(0, start - epoch * per_epoch) :].tolist(), workers)
