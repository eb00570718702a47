"""The one training loop: one device or many, a bar while it runs, and checkpoints that it goes on from.

A run that was interrupted ends where the uninterrupted one would have ended, bit for bit on the same device as far as
its operations are deterministic there (on a GPU, padding with the outermost cells is not):
the order of examples comes from the seed and the epoch, and every source of noise, torch's own included, is seeded
anew for each step from the seed, the process and the step. So processes draw independent noise, and none of it has
to be stored.

    accelerate launch --multi_gpu --num_processes 8 -m lib train four-bit --device cuda --preset paper ...

gives every process its share of each batch.
"""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lib.checkpoints import (
    check_same,
    checkpoint_steps,
    delete_checkpoint,
    load_checkpoint,
    plain,
    remove_unfinished,
    save_checkpoint,
)
from lib.files import alone_in, output_folder
from lib.progress import progress
from lib.validation import (
    finite_tensor,
    instance_of,
    integer_at_least,
    known_device,
    known_seed,
    one_of,
    positive_integer,
    positive_number,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "TrainingRun",
    "accuracy",
    "check_options",
    "evaluating",
    "fit",
    "is_first_process",
    "one_cycle",
    "processes",
    "reproducible",
    "size_of",
    "step_seed",
    "steps_an_epoch",
]

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

    Attributes:
        losses, scores: Of the batch before every step, and what `evaluate` returned after every epoch.
        diverged: Whether training stopped because a loss or a gradient was not finite.
    """

    losses: NDArray[np.float64]
    scores: NDArray[np.float64]
    diverged: bool


def processes(device: str | torch.device) -> Any:
    """The processes that train together on a kind of device: Accelerate's state, the same for all who ask.

    Whoever asks first decides how they talk to each other, so all must ask with their device.
    """
    from accelerate import PartialState

    state = PartialState(cpu=torch.device(known_device(device)).type == "cpu")
    _part_at_exit()
    return state


@cache
def _part_at_exit() -> None:
    def part() -> None:
        # Left to the end of the interpreter, the threads of gloo now and then outlive what they belong to: SIGABRT.
        if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
            torch.distributed.destroy_process_group()

    atexit.register(part)


def is_first_process(device: str | torch.device = "cpu") -> bool:
    """Whether this process is the one that speaks, of those that train together."""
    return bool(processes(device).is_main_process)


def size_of(data: object) -> int:
    """Number of examples; torch does not ask a data set to have one, but all of ours do."""
    if isinstance(data, str) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(f"data must be a data set with a length, such as torch's TensorDataset; it is {data!r}")
    return len(data)


def steps_an_epoch(data: Dataset[Any], batch_size: int, device: str | torch.device) -> int:
    """How many whole batches the data hold; at least one, which the processes that train together can share.

    Examples:
        >>> steps_an_epoch(TensorDataset(torch.zeros(10)), 4, "cpu")
        2
    """
    count, ranks = size_of(data), processes(device).num_processes
    if positive_integer("batch_size", batch_size) > count:
        raise ValueError(f"batch_size must be at most {count}; it is {batch_size}")
    if batch_size % ranks:
        raise ValueError(f"batch_size must be a multiple of {ranks}, the number of processes; it is {batch_size}")
    return count // batch_size


def one_cycle(
    optimizer: Optimizer, peak: float, steps: int, *, rise: float = 0.3, cycle_momentum: bool = True
) -> OneCycleLR:
    """A learning rate that rises to `peak` in the fraction `rise` of all steps, then falls to zero (OneCycleLR)."""
    # where the rise ends with the first step, torch divides by zero
    just_after = rise * (1 + 1e-9) if rise * steps == 1 else rise
    return OneCycleLR(optimizer, peak, total_steps=steps, pct_start=just_after, cycle_momentum=cycle_momentum)


def step_seed(seed: int, rank: int, step: int) -> int:
    """A seed for one step of one process of one run; two that agree are as rare as among random numbers of 32 bits."""
    numbers = [known_seed(name, value) for name, value in (("seed", seed), ("rank", rank), ("step", step))]
    # torch's generator on the CPU looks at 32 bits only
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def reproducible() -> None:
    """Let a GPU compute the same again when it is asked again, and float32 products in float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A network in evaluation mode; afterwards each of its layers is in the mode in which it came.

    Examples:
        >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval())
        >>> with evaluating(model):
        ...     inside = [layer.training for layer in model]
        >>> inside, [layer.training for layer in model]
        ([False, False], [True, False])
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def accuracy(model: nn.Module, data: Dataset[Any], *, batch_size: int = 1000, workers: int = 0) -> float:
    """The fraction of examples (an input and a class) whose largest output is their class; NaN among them is wrong.

    Processes that train together share the work. The network is left in the mode and on the device in which it came.

    Examples:
        >>> accuracy(nn.Identity(), TensorDataset(torch.eye(3), torch.tensor([0, 1, 1])))
        0.6666666666666666
    """
    from accelerate.utils import reduce

    instance_of("model", model, nn.Module, "a torch module")
    _check_examples(data)
    count = size_of(data)
    positive_integer("batch_size", batch_size)
    integer_at_least("workers", workers, 0)
    device = next((part.device for part in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    state = processes(device)
    mine = range(state.process_index, count, state.num_processes)
    right = torch.zeros((), dtype=torch.int64, device=device)
    with evaluating(model), torch.no_grad():
        parts = [list(mine[start : start + batch_size]) for start in range(0, len(mine), batch_size)]
        for inputs, classes in _loader(data, parts, workers):
            outputs = model(inputs.to(device))
            # NaN counts as largest
            right += ((outputs.argmax(dim=1) == classes.to(device)) & ~outputs.isnan().any(dim=1)).sum()
    return int(reduce(right, reduction="sum")) / count


def _seeded(place: torch.device, noise: Sequence[torch.Generator]) -> list[Callable[[int], object]]:
    """What sets the generators that a step draws from."""
    # torch.manual_seed notes each call for devices that may come later: as much work as a step of a small network
    own = torch.default_generator.manual_seed if place.type == "cpu" else torch.manual_seed
    return [own, *(generator.manual_seed for generator in noise)]


def fit(
    model: nn.Module,
    data: Dataset[Any],
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    schedule: LRScheduler | None = None,
    noise: Sequence[torch.Generator] = (),
    extra: Sequence[Stateful] = (),
    evaluate: Callable[[nn.Module], float] | None = None,
    folder: str | Path | None = None,
    every: int | None = None,
    first_epoch: int = 0,
    clip: float | None = None,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    workers: int = 0,
    facts: Mapping[str, str | float] | None = None,
    description: str = "training",
) -> TrainingRun:
    """Train a network in place.

    Args:
        loss: `loss(model(*inputs), targets)` is the mean over a batch.
        data: Tuples of tensors, of which the last is the target and the others are inputs. Where an item depends on the
            epoch, it has a method `set_epoch`.
        optimizer, schedule: On the parameters of `model`; the schedule moves on after every step, `ReduceLROnPlateau`
            after every epoch, by the mean of its losses.
        batch_size: Examples a step over all processes together; a rest of an epoch that is smaller than a batch is left
            out, others come in the next epoch.
        seed: Of the order of examples and of the noise.
        noise: Generators that the network draws from, other than torch's own.
        extra: What a checkpoint must hold beside network, optimizer and schedule; one state a process.
        evaluate: A score after every epoch; every process calls it, and the first one's answer is kept.
        folder, every: Where checkpoints go, and how many steps lie between them (an epoch by default). A folder that
            holds some is gone on from, by one process (or those of one launch) at a time, to as many epochs as are
            asked for; all else that makes the training what it is, from the learning rate to the number of examples,
            stays as it was.
        first_epoch: Number of the first epoch, for data that depend on it: that of a second training after a first.
        clip: Largest norm of a step's gradient; a longer one is shortened to it.
        device: Under `accelerate launch` each process has its own.
        precision: `"bfloat16"` for torch's autocast.
        facts: What else makes this training what it is: a folder that holds checkpoints of other facts is refused.

    Examples:
        >>> data = TensorDataset(torch.eye(4), torch.arange(4))
        >>> model = nn.Linear(4, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> run = fit(model, data, nn.functional.cross_entropy, optimizer, epochs=50, batch_size=2)
        >>> len(run.losses), accuracy(model, data)
        (100, 1.0)
    """
    check_options(device=device, precision=precision, every=every, workers=workers, folder=folder)
    _check_numbers(epochs=epochs, seed=seed, first_epoch=first_epoch, clip=clip)
    _check_parts(model, optimizer, schedule, noise)
    for name, function in (("loss", loss), ("evaluate", evaluate or loss)):
        if not callable(function):
            raise TypeError(f"{name} must be a function; it is {function!r}")
    _check_examples(data)
    together = processes(device)
    rank, ranks = together.process_index, together.num_processes
    per_epoch = steps_an_epoch(data, batch_size, device)
    place = together.device if ranks > 1 else torch.device(device)
    n_steps = epochs * per_epoch

    reproducible()
    what: dict[str, Any] = {}
    if folder is not None:
        _use_plain_numbers(optimizer, schedule)
        what = {"seed": seed, "batch_size": batch_size, "count": size_of(data), "precision": precision, "clip": clip}
        what |= {"first_epoch": first_epoch, **plain("facts", dict(facts or {})), **_moves(optimizer, schedule)}
    with alone_in(folder) if folder is not None and together.is_main_process else nullcontext(True) as alone:
        run = _Run(model, optimizer, schedule, extra, together, None if folder is None else Path(folder), what)
        model.to(place)
        if optimizer.state:  # of an earlier training: it follows the parameters
            optimizer.load_state_dict(optimizer.state_dict())
        start = run.restore(n_steps, alone=alone)
        wrapped = _share_gradients(model, place) if ranks > 1 else model
        model.train()

        order = {"seed": seed, "rank": rank, "ranks": ranks, "workers": workers, "first_epoch": first_epoch}
        batches = _batches(data, batch_size // ranks, epochs, start, **order)
        if together.is_main_process:  # one bar for all processes
            batches = progress(batches, description, total=n_steps - start)
        # dropout and its like draw from torch's own generator, whose state the caller gets back
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            for done, (*inputs, targets) in enumerate(batches, start=start + 1):
                for draw in _seeded(place, noise):
                    draw(step_seed(seed, rank, done - 1))
                optimizer.zero_grad()
                with torch.autocast(place.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
                    there = (each.to(place, non_blocking=True) for each in inputs)
                    found = loss(wrapped(*there), targets.to(place, non_blocking=True))
                if not run.descend(found, clip):
                    return run.result(diverged=True)
                run.move_schedule(per_epoch)
                if done % per_epoch == 0 and evaluate is not None:
                    run.note_score(evaluate)
                if done % (every or per_epoch) == 0 or done == n_steps:
                    run.keep(done)
        return run.result(diverged=False)


def check_options(
    *, device: str | torch.device, precision: str, every: int | None, workers: int, folder: str | Path | None
) -> None:
    """Refuse what `fit` could not use, before data are made for it."""
    known_device(device)
    one_of("precision", precision, ("float32", "bfloat16"))
    if every is not None:
        positive_integer("every", every)
    integer_at_least("workers", workers, 0)
    if folder is not None:
        output_folder("folder", folder)


def _check_numbers(*, epochs: int, seed: int, first_epoch: int, clip: float | None) -> None:
    positive_integer("epochs", epochs)
    known_seed("seed", seed)
    integer_at_least("first_epoch", first_epoch, 0)
    if clip is not None:
        positive_number("clip", clip)


def _check_parts(
    model: nn.Module, optimizer: Optimizer, schedule: LRScheduler | None, noise: Sequence[torch.Generator]
) -> None:
    instance_of("model", model, nn.Module, "a torch module")
    instance_of("optimizer", optimizer, Optimizer, "an optimizer of torch")
    for generator in noise:
        instance_of("noise", generator, torch.Generator, "generators of torch")
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError("optimizer must hold parameters of the model; it holds none")
    _check_steps("optimizer", optimizer)
    if schedule is None:
        return
    instance_of("schedule", schedule, LRScheduler, "a scheduler of torch.optim.lr_scheduler")
    if getattr(schedule, "optimizer", optimizer) is not optimizer:
        raise ValueError("schedule must be of the optimizer; it is of another one")
    if not isinstance(schedule, ReduceLROnPlateau):
        for each in (schedule, *getattr(schedule, "_schedulers", ())):
            _check_steps("schedule", each)
    elif schedule.mode != "min":
        raise ValueError(f"schedule must have mode 'min' as ReduceLROnPlateau: losses fall; it has {schedule.mode!r}")


def _check_examples(data: Dataset[Any]) -> None:
    if not size_of(data):
        raise ValueError("data must not be empty")
    first = data[0]
    if not (isinstance(first, (tuple, list)) and len(first) >= 2):
        raise TypeError(f"data must hold tuples of inputs and a target; the first item is a {type(first).__name__}")
    for values in data.tensors if isinstance(data, TensorDataset) else first:
        if isinstance(values, Tensor) and values.is_floating_point():
            finite_tensor("data", values)


def _check_steps(name: str, moves: Optimizer | LRScheduler) -> None:
    """Refuse an optimizer or a schedule whose step asks for something: a closure, a metric."""
    _, *asked = inspect.signature(type(moves).step).parameters.values()
    for each in asked:
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD:
            kind = type(moves).__name__
            raise ValueError(f"{name} must step without an argument; {kind} asks for {each.name}")


def _use_plain_numbers(optimizer: Optimizer, schedule: LRScheduler | None) -> None:
    """Take numpy's numbers for Python's from the start, as a training that is gone on with does."""
    for group in optimizer.param_groups:
        group.update({name: plain(name, value) for name, value in group.items() if name != "params"})
    if schedule is not None:
        schedule.load_state_dict(plain("schedule", schedule.state_dict()))


def _moves(optimizer: Optimizer, schedule: LRScheduler | None) -> dict[str, Any]:
    """The settings of an optimizer and a schedule, by name, as plain values that can be compared."""
    settings: dict[str, Any] = {"optimizer": type(optimizer).__name__, "schedule": type(schedule).__name__}
    many = len(optimizer.param_groups) > 1
    for number, group in enumerate(optimizer.param_groups):
        where = f"group {number}, " if many else ""
        settings[f"{where}parameters"] = len(group["params"])
        settings |= {f"{where}{name}": _comparable(value) for name, value in group.items() if name != "params"}
    state = {} if schedule is None else schedule.state_dict()
    return settings | {f"schedule, {name}": _comparable(value) for name, value in state.items()}


def _comparable(value: Any) -> Any:
    """A setting without tensors and objects, which do not compare to one truth."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_comparable(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _comparable(each) for name, each in value.items()}
    return value if isinstance(value, (bool, int, float, str, type(None))) else type(value).__name__


@dataclass
class _Run:
    """A training as far as it has come, and how it is written down and found again."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler | None
    extra: Sequence[Stateful]
    together: Any
    folder: Path | None
    what: dict[str, Any]
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def restore(self, n_steps: int, *, alone: bool) -> int:
        """Take up the last checkpoint, or write the first; the number of steps that are done."""
        if self.folder is None:
            return 0
        reached = [step for step in checkpoint_steps(self.folder) if step <= n_steps]
        self.together.wait_for_everyone()
        if self.together.is_main_process and alone:
            remove_unfinished(self.folder)
        if not reached:
            self.keep(0)
            return 0
        state = load_checkpoint(self.folder, reached[-1])
        ranks = self.together.num_processes
        # or an optimizer and a schedule that have come as far as the checkpoint has
        if self.what != state["what"] | state["moved"]:
            check_same(self.folder, state["what"], self.what, "training")
        if len(state["extra"]) != ranks:
            raise ValueError(f"folder must be gone on with by {len(state['extra'])} processes; there are {ranks}")
        mine = state["extra"][self.together.process_index]
        if len(mine) != len(self.extra):
            raise ValueError(f"extra must hold {len(mine)} parts, as in {self.folder}; it holds {len(self.extra)}")
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ValueError(f"model must be the one whose training {self.folder} holds: {error}") from error
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        for each, kept in zip(self.extra, mine, strict=True):
            each.load_state_dict(kept)
        self.what, self.losses, self.scores = state["what"], state["losses"], state["scores"]
        return reached[-1]

    def keep(self, step: int) -> None:
        """Write everything down; all processes come here together."""
        from accelerate.utils import gather_object

        if self.folder is None:
            return
        states = gather_object([[each.state_dict() for each in self.extra]])
        if self.together.is_main_process:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict() if self.schedule else {},
                "extra": states,
                "what": self.what,
                "moved": _moves(self.optimizer, self.schedule),
                "losses": self.losses,
                "scores": self.scores,
            }
            save_checkpoint(self.folder, step, state)
            for old in [done for done in checkpoint_steps(self.folder) if done <= step][:-_KEPT]:
                delete_checkpoint(self.folder, old)
        self.together.wait_for_everyone()

    def descend(self, loss: Tensor, clip: float | None) -> bool:
        """A step of the optimizer, if the loss, its mean over processes, and its gradient are finite."""
        from accelerate.utils import reduce

        loss.backward()  # type: ignore[no-untyped-call]
        self.losses.append(float(reduce(loss.detach(), reduction="mean")))
        if not np.isfinite(self.losses[-1]):
            return False
        # an infinite gradient would make weights NaN, and what they compute next could be anything
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), np.inf if clip is None else clip)
        if not bool(torch.isfinite(norm)):
            return False
        self.optimizer.step()
        return True

    def move_schedule(self, per_epoch: int) -> None:
        """Tell the schedule that a step is done or, if it asks how things go, that an epoch is."""
        if isinstance(self.schedule, ReduceLROnPlateau):
            if len(self.losses) % per_epoch == 0:
                self.schedule.step(float(np.mean(self.losses[-per_epoch:])))
        elif self.schedule is not None:
            self.schedule.step()

    def note_score(self, evaluate: Callable[[nn.Module], float]) -> None:
        """Remember the score of the first process's network, whose running statistics all others take over."""
        for buffer in self.model.buffers() if self.together.num_processes > 1 else ():
            torch.distributed.broadcast(buffer, src=0)
        score = evaluate(self.model)
        try:
            self.scores.append(float(score))
        except (TypeError, ValueError) as error:
            raise TypeError(f"evaluate must return a number; it returned {score!r}") from error

    def result(self, *, diverged: bool) -> TrainingRun:
        return TrainingRun(np.array(self.losses), np.array(self.scores), diverged)


def _share_gradients(model: nn.Module, place: torch.device) -> nn.Module:
    """The network with gradients that are averaged over processes."""
    devices = [place] if place.type == "cuda" else None
    # otherwise torch regroups what it adds up after the first step, and a resumed run would add in another order
    return nn.parallel.DistributedDataParallel(model, device_ids=devices, find_unused_parameters=True)


def _loader(data: Dataset[Any], indices: list[list[int]], workers: int = 0) -> DataLoader[Any]:
    """Batches by their indices; tensors in memory are indexed at once, other data item by item."""
    own = torch.Generator()  # a loader draws a seed, else from torch's own generator
    if isinstance(data, TensorDataset):
        return DataLoader(data, sampler=indices, batch_size=None, generator=own)
    pin = torch.cuda.is_available()
    return DataLoader(data, batch_sampler=indices, num_workers=workers, pin_memory=pin, generator=own)


def _batches(
    data: Dataset[Any],
    share: int,
    epochs: int,
    start: int,
    *,
    seed: int,
    rank: int,
    ranks: int,
    workers: int = 0,
    first_epoch: int = 0,
) -> Iterator[Any]:
    """One process's share of every batch from the step `start` on; each epoch in an order of its own."""
    count = size_of(data)
    per_epoch = count // (share * ranks)
    for epoch in range(start // per_epoch, epochs):
        order = np.random.default_rng((seed, epoch)).permutation(count)[: per_epoch * share * ranks]
        mine = order.reshape(per_epoch, ranks, share)[:, rank]
        if hasattr(data, "set_epoch"):
            data.set_epoch(first_epoch + epoch)
        yield from _loader(data, mine[max(0, start - epoch * per_epoch) :].tolist(), workers)
