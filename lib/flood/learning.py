"""Training of a coarse map through the solver, and how good the water on a coarse map is.

The loss looks at water, not at terrain: the coarse solver runs on the network's map, and its depths at the end are
held against the block means of the fine solution. Gradients come back through every time step (Giladi et al.,
NeurIPS 2021, arXiv 2106.07218, Section 3 and Eqs. 3 and 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from lib.experiment import Count, Natural, NonNegative, OpenFraction, Positive, Preset, Seed
from lib.flood.downsampler import Detour
from lib.flood.metrics import Loss, downsample_loss
from lib.flood.pooling import Pooling, blocks, elevation_tensor, pool_dem
from lib.flood.scenarios import FloodDataset, Forcing, TileFolder, flood_map
from lib.flood.solver import LocalInertialSolver
from lib.training import TrainingRun, check_options, evaluating, fit, one_cycle, processes, size_of, steps_an_epoch
from lib.validation import (
    instance_of,
    integer_at_least,
    known_device,
    one_of,
    pair,
    positive_integer,
    positive_number,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

__all__ = [
    "CoarseModel",
    "CoarseResult",
    "DescentResult",
    "DownsamplerTraining",
    "FloodLoss",
    "coarse_floods",
    "depth_gradient",
    "descend_coarse_maps",
    "mean_square_error",
    "train_downsampler",
]


class CoarseModel(nn.Module):
    """A network and the coarse solver behind it, as one differentiable map from elevations to water.

    With `augment` the network sees each map turned and mirrored at random while it trains. The solver commutes with the
    symmetries of the square, so only the network's answer has to be turned back.
    """

    def __init__(
        self,
        downsampler: Detour,
        solver: LocalInertialSolver,
        *,
        augment: bool = False,
        generator: torch.Generator | None = None,
        checkpoint_every: int = 0,
    ) -> None:
        super().__init__()
        self.downsampler, self.solver, self.augment = downsampler, solver, augment
        self.generator, self.checkpoint_every = generator, checkpoint_every

    def forward(self, z: Tensor, *forcing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse depths, the network's maps and the block means, each (B, R / factor, C / factor) [m]."""
        factor = self.downsampler.factor
        coarse = self._seen_turned(z) if self.augment and self.training else self.downsampler(z[:, None])[:, 0]
        # water stays in the maps' precision whatever the network computes in
        with torch.autocast(z.device.type, enabled=False):
            coarse = coarse.to(z.dtype)
            there = Forcing(*forcing).coarse(factor)
            h = there.simulate(self.solver, coarse, checkpoint_every=self.checkpoint_every)
            return h, coarse, pool_dem(z, factor)

    def _seen_turned(self, z: Tensor) -> Tensor:
        """The network's maps of maps that it saw turned and mirrored."""
        count = 8 if z.shape[-2] == z.shape[-1] else 4  # a map that is not square cannot be transposed
        which = torch.randint(count, (len(z),), generator=self.generator).tolist()
        turned = torch.stack([_turn(each, s) for each, s in zip(z, which, strict=True)])
        seen = self.downsampler(turned[:, None])[:, 0]
        return torch.stack([_turn(each, s, back=True) for each, s in zip(seen, which, strict=True)])


def _turn(z: Tensor, symmetry: int, *, back: bool = False) -> Tensor:
    """One of the 8 symmetries of the square, or its inverse: bits for two mirrors, then for a transposition."""
    mirrors = [axis for axis, bit in ((-2, 1), (-1, 2)) if symmetry & bit]
    if not symmetry & 4:
        return z.flip(mirrors)
    return z.mT.flip(mirrors) if back else z.flip(mirrors).mT


#: Depth [m] of a flood that is hardly one.
_LITTLE = 0.01


@dataclass(frozen=True)
class FloodLoss:
    """The loss of a batch (`downsample_loss`), and what it is measured in.

    Attributes:
        unit: What counts as 1: a number, or None for the loss of each map if it stayed dry, but at least that of a
            centimetre of water.
        smoothness: Weight of the paper's regularizer: Huber distance between the network's map, averaged over 2 x 2
            cells, and the block means.
    """

    factor: int
    kind: Loss = "mse"
    beta: float = 1.0
    unit: float | None = 1.0
    smoothness: float = 0.0

    def __call__(self, outputs: tuple[Tensor, Tensor, Tensor], h_fine: Tensor) -> Tensor:
        """Mean over the batch."""
        h, coarse, pooled = outputs
        if self.unit is not None:
            loss = self._distance(h, h_fine) / self.unit
        else:
            least = self._distance(torch.full_like(h[0], _LITTLE), torch.zeros_like(h_fine[0]))
            losses = [
                self._distance(one, fine) / self.if_dry(fine).clamp_min(least)
                for one, fine in zip(h, h_fine, strict=True)
            ]
            loss = torch.stack(losses).mean()
        if self.smoothness:
            above = functional.pad(coarse[:, None], (1, 0, 1, 0), mode="replicate")
            smooth = functional.avg_pool2d(above, 2, stride=1)[:, 0]
            loss = loss + self.smoothness * functional.smooth_l1_loss(smooth, pooled)
        return loss

    def if_dry(self, h_fine: Tensor) -> Tensor:
        """The loss of coarse maps that stay dry, in metres."""
        return self._distance(torch.zeros_like(blocks(h_fine, self.factor)[..., 0, 0]), h_fine)

    def _distance(self, h: Tensor, h_fine: Tensor) -> Tensor:
        return downsample_loss(h, h_fine, self.factor, self.kind, self.beta)


@dataclass(frozen=True)
class DownsamplerTraining(Preset):
    """How a network is trained through the coarse solver.

    Attributes:
        epochs: Passes over the maps.
        batch_size: Maps a step, over all processes.
        lr: Learning rate, or its peak.
        loss: `"mse"` or `"huber"`, as in `downsample_loss`.
        beta: Depth at which the Huber loss changes from a square to an absolute value [m].
        unit: What the loss is measured in. `"data"`: the mean loss of all maps where they stay dry. `"map"`: each map's
            own, so that shallow floods count as much as deep ones. `"metres"`: as it is.
        smoothness: Weight of the paper's regularizer, see `FloodLoss`.
        optimizer: `"adam"`, or `"sgd"` with momentum 0.9. Where the rate rises and falls, the momentum (Adam's first)
            falls from 0.95 to 0.85 and rises again.
        warmup: Fraction of the steps in which the learning rate rises, after which it falls to zero; None for a
            constant.
        clip: Longest gradient, to which longer ones are shortened; None for any.
        augment: Whether the network sees each map turned and mirrored at random.
        checkpoint_every: Time steps between those that are kept for the gradient, as in `LocalInertialSolver.simulate`;
            0 keeps all.
        seed: Of weights, the order of maps, and their turning.
    """

    epochs: Count = 36
    batch_size: Count = 16
    lr: Positive = 3e-3
    loss: Loss = "mse"
    beta: Positive = 1.0
    unit: Literal["data", "map", "metres"] = "data"
    smoothness: NonNegative = 0.0
    optimizer: Literal["adam", "sgd"] = "adam"
    warmup: OpenFraction | None = 0.15
    clip: Positive | None = 1.0
    augment: bool = True
    checkpoint_every: Natural = 0
    seed: Seed = 0


def train_downsampler(
    model: Detour,
    data: Dataset[tuple[Tensor, ...]],
    solver: LocalInertialSolver,
    training: DownsamplerTraining,
    *,
    test: Dataset[tuple[Tensor, ...]] | None = None,
    folder: str | Path | None = None,
    every: int | None = None,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    workers: int = 0,
) -> TrainingRun:
    """Train a network in place, through the coarse solver.

    Args:
        data: `FloodDataset` or `TileFolder`.
        solver: The coarse one, its `dx` that of a coarse cell (`LocalInertialSolver.coarse`).
        test: Maps on which the mean square error [m^2], the run's score, is measured after each epoch.
        folder, every, device, precision, workers: As in `lib.training.fit`.

    Examples:
        >>> from lib.flood import Downsampler, draw_floods
        >>> data = draw_floods(4, seed=1, side=32)
        >>> model = Downsampler(8, (4, 4, 4), generator=torch.Generator().manual_seed(0))
        >>> solver = LocalInertialSolver(dx=64.0, h_cfl_min=0.05)
        >>> run = train_downsampler(model, data, solver, DownsamplerTraining(epochs=4, batch_size=4, lr=0.03))
        >>> bool(run.losses[-1] < run.losses[0])
        True
    """
    options: dict[str, Any] = {"folder": folder, "every": every, "device": device, "precision": precision}
    options["workers"] = workers
    instance_of("training", training, DownsamplerTraining)
    check_options(**options)
    instance_of("model", model, Detour, "a network that draws coarse maps")
    instance_of("solver", solver, LocalInertialSolver)
    per_epoch = steps_an_epoch(data, training.batch_size, device)
    if isinstance(data, TileFolder) and not math.isclose(solver.dx, data.dx * model.factor):
        raise ValueError(
            f"solver.dx must be {data.dx * model.factor:g} m, that of a coarse cell; it is {solver.dx:g} m"
        )
    measured = _loss(training, model.factor, data)
    turns = torch.Generator().manual_seed(training.seed)
    whole = CoarseModel(
        model, solver, augment=training.augment, generator=turns, checkpoint_every=training.checkpoint_every
    )
    optimizer, schedule = _optimizer(training, model, training.epochs * per_epoch)
    share = training.batch_size // processes(device).num_processes
    score = partial(mean_square_error, solver=solver, batch_size=share, device=device)
    return fit(
        whole,
        data,
        measured,
        optimizer,
        epochs=training.epochs,
        batch_size=training.batch_size,
        seed=training.seed,
        schedule=schedule,
        noise=(turns,),
        evaluate=None if test is None else lambda _: score(model, test),
        clip=training.clip,
        facts={"training": repr(training), "measured": repr(measured), "solver": repr(solver)},
        description="through the solver",
        **options,
    )


def _loss(training: DownsamplerTraining, factor: int, data: Dataset[tuple[Tensor, ...]]) -> FloodLoss:
    """The loss in its unit."""
    loss = FloodLoss(factor, training.loss, training.beta, smoothness=training.smoothness)
    if training.unit == "metres":
        return loss
    return replace(loss, unit=None if training.unit == "map" else _dry_loss(data, loss))


def _dry_loss(data: Dataset[tuple[Tensor, ...]], loss: FloodLoss) -> float:
    """The mean loss over maps that stay dry."""
    count = size_of(data)
    mean = math.fsum(float(loss.if_dry(data[index][-1])) for index in range(count)) / count
    if not mean > 0:
        raise ValueError("data must hold floods; all maps stay dry")
    return mean


def _optimizer(training: DownsamplerTraining, model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler | None]:
    """The optimizer, and how its learning rate rises and falls."""
    kind: Any = torch.optim.Adam if training.optimizer == "adam" else partial(torch.optim.SGD, momentum=0.9)
    optimizer = kind(model.parameters(), lr=training.lr)
    if training.warmup is None:
        return optimizer, None
    return optimizer, one_cycle(optimizer, training.lr, steps, rise=training.warmup)


@dataclass(frozen=True)
class CoarseResult:
    """Water on coarse maps and what it should be, each (B, R, C) [m].

    Attributes:
        h: Depths that the coarse solver finds.
        truth: Block means of the fine depths.
        z: The coarse maps.
    """

    h: Tensor
    truth: Tensor
    z: Tensor


def coarse_floods(
    rule: Detour | Pooling, data: FloodDataset, solver: LocalInertialSolver, *, factor: int | None = None
) -> CoarseResult:
    """Run the floods of a data set on coarse maps, without gradients, by the compiled loop.

    Args:
        rule: A network, or a way of pooling (`pool_dem`), which needs a `factor`.
        solver: The coarse one.

    Examples:
        >>> from lib.flood import draw_floods, flood_metrics
        >>> data = draw_floods(3, seed=2, split="test", side=64)
        >>> found = coarse_floods("mean", data, LocalInertialSolver(dx=64.0, h_cfl_min=0.05), factor=8)
        >>> bool(flood_metrics(found.h, found.truth)["rmse"] < 0.1)
        True
    """
    if not isinstance(rule, Detour):
        one_of("rule", rule, get_args(Pooling))
    instance_of("data", data, FloodDataset)
    instance_of("solver", solver, LocalInertialSolver)
    if isinstance(rule, Detour):
        if factor not in (None, rule.factor):
            raise ValueError(f"factor must be that of the network, {rule.factor}; it is {factor}")
        factor, device = rule.factor, next(rule.parameters()).device
        with evaluating(rule), torch.no_grad():
            z = rule(data.z[:, None].to(device))[:, 0].to(data.z)
    elif factor is None:
        raise ValueError(f"factor must be given for the pooling {rule!r}")
    else:
        z = pool_dem(data.z, factor, rule)
    return CoarseResult(flood_map(solver, z, data.forcing.coarse(factor)), pool_dem(data.h, factor), z)


def mean_square_error(
    rule: Detour | Pooling,
    data: Dataset[tuple[Tensor, ...]],
    solver: LocalInertialSolver,
    *,
    factor: int | None = None,
    batch_size: int = 16,
    device: str = "cpu",
) -> float:
    """The mean square error [m^2] of coarse floods against block means; processes that train together share the maps.

    Args:
        rule, solver, factor: As in `coarse_floods`.
        data: `FloodDataset` or `TileFolder`.
        device: Of the processes that train together.

    Examples:
        >>> from lib.flood import draw_floods
        >>> data = draw_floods(3, seed=2, split="test", side=64)
        >>> bool(mean_square_error("mean", data, LocalInertialSolver(dx=64.0, h_cfl_min=0.05), factor=8) < 0.01)
        True
    """
    from accelerate.utils import reduce

    state = processes(known_device(device))
    mine = range(state.process_index, size_of(data), state.num_processes)
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(mine), positive_integer("batch_size", batch_size)):
        items = [data[i] for i in mine[start : start + batch_size]]
        z, *forcing, h = (torch.stack(parts) for parts in zip(*items, strict=True))
        found = coarse_floods(rule, FloodDataset(z, h, Forcing(*forcing)), solver, factor=factor)
        total += (found.h - found.truth).square().mean((-2, -1), dtype=torch.float64).sum()
    if state.num_processes > 1:
        total = reduce(total.to(state.device), reduction="sum")
    return float(total) / size_of(data)


@dataclass(frozen=True)
class DescentResult:
    """What gradient descent on coarse maps found.

    Attributes:
        z: The best map for each flood (B, R, C) [m].
        errors: Mean square errors [m^2] (iterations + 1, B), the block means first.
    """

    z: Tensor
    errors: Tensor


def descend_coarse_maps(
    data: FloodDataset, solver: LocalInertialSolver, *, factor: int, iterations: int = 30, lr: float = 0.02
) -> DescentResult:
    """Move the elevations of each coarse map until its water is right: what one map for one flood can reach.

    There is no network and nothing that carries over to another map or flood. Adam starts from the block means, with
    a learning rate that falls to zero along a cosine; the best map on the way is kept.

    Args:
        solver: The coarse one.
        iterations, lr: Of Adam; `lr` [m].

    Examples:
        >>> from lib.flood import draw_floods
        >>> data = draw_floods(2, seed=2, split="test", side=32)
        >>> found = descend_coarse_maps(data, LocalInertialSolver(dx=64.0, h_cfl_min=0.05), factor=8, iterations=3)
        >>> bool((found.errors.amin(0) < found.errors[0]).all())
        True
    """
    positive_integer("iterations", iterations)
    instance_of("data", data, FloodDataset)
    instance_of("solver", solver, LocalInertialSolver)
    best, truth, forcing = pool_dem(data.z, factor), pool_dem(data.h, factor), data.forcing.coarse(factor)
    z = best.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=positive_number("lr", lr))
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
    least = best.new_full((len(best),), torch.inf)
    errors: list[Tensor] = []
    for iteration in range(iterations + 1):
        h = forcing.simulate(solver, z)
        error = (h - truth).square().mean((-2, -1))
        errors.append(error.detach())
        better = errors[-1] < least
        best[better], least[better] = z.detach()[better], errors[-1][better]
        if iteration < iterations:
            adam.zero_grad()
            error.sum().backward()  # type: ignore[no-untyped-call]
            adam.step()
            falls.step()
    return DescentResult(best, torch.stack(errors))


def depth_gradient(
    solver: LocalInertialSolver, z: Tensor, duration: float, cell: tuple[int, int], **options: Any
) -> tuple[Tensor, Tensor]:
    """How the depth in one cell at the end depends on the elevation of every cell.

    Args:
        solver, z, duration: The run: a map (R, C).
        cell: Row and column.
        options: For `LocalInertialSolver.simulate`.

    Returns:
        h, gradient: Depths at the end [m] and `d h[cell] / d z` [-], both (R, C).

    Examples:
        A cell that lies higher is less deep; a map that lies higher as a whole changes nothing:

        >>> z = torch.zeros(3, 3, dtype=torch.float64)
        >>> h, gradient = depth_gradient(LocalInertialSolver(dx=10.0), z, 600.0, (1, 1), h0=0.5)
        >>> bool(gradient[1, 1] < -0.5), bool(gradient.sum().abs() < 1e-12)
        (True, True)
    """
    instance_of("solver", solver, LocalInertialSolver)
    if elevation_tensor("z", z).ndim != 2:
        raise ValueError(f"z must be one map (R, C); its shape is {tuple(z.shape)}")
    row, column = (integer_at_least("cell", place, 0) for place in pair("cell", cell))
    rows, columns = z.shape
    if not (row < rows and column < columns):
        raise ValueError(f"cell must lie on the map of {rows} x {columns} cells; it is {cell}")
    moved = z.detach().clone().requires_grad_()
    h = solver.simulate(moved, duration, **options).h
    if not h.requires_grad:  # no time has passed
        return h, torch.zeros_like(z)
    (gradient,) = torch.autograd.grad(h[row, column], moved)
    return h.detach(), gradient
