"""Training a coarse map, from seconds on a laptop to the paper's size; and the networks that ship with the package."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib.experiment import Count, Positive, Run, Seed, named, prepare
from lib.flood.downsampler import Detour, Downsampler, FeatureDownsampler, Norm
from lib.flood.learning import DownsamplerTraining, train_downsampler
from lib.flood.pooling import blocks
from lib.flood.scenarios import CELL, FloodDataset, Kind, TileFolder, draw_floods, solution_cache, solve_tiles
from lib.flood.solver import LocalInertialSolver
from lib.training import processes
from lib.validation import job_count, known_device, one_of

__all__ = [
    "PRESETS",
    "SHIPPED",
    "FloodPreset",
    "FloodRun",
    "coarse_solver",
    "flood_task",
    "held_out",
    "train_flood",
    "trained_network",
]


@dataclass(frozen=True)
class FloodPreset(DownsamplerTraining):
    """A network, its floods, and how to train it.

    Attributes:
        architecture: `"convolutional"` (`Downsampler`), `"features"` (`FeatureDownsampler`) or `"paper"`
            (`PaperDownsampler`).
        factor: Fine cells along a side of a coarse cell.
        kind: What drives the floods: `"rain"`, `"inflow"` or `"mixed"`.
        count: Number of drawn maps to train on; with none, maps are tiles in the folders `train` and, where it is
            there, `test`.
        test_count: Number of drawn maps to test on.
        side: Cells along a side of a drawn map.
        dx: Side of a fine cell [m].
        alpha: Of the solvers: time step over the CFL step. The 0.7 of the paper's code multiplies another, shorter
            step, of at most half its length.
        fine_floor, coarse_floor: Least depth for the time step of the fine and of the coarse solver [m].
        norm: Of the paper's network: `"batch"` or `"group"`.
        data_seed: Of the maps.
    """

    architecture: Literal["convolutional", "features", "paper"] = "convolutional"
    factor: Count = 16
    kind: Kind = "rain"
    count: Count | None = 128
    test_count: Count = 48
    side: Count = 128
    dx: Positive = CELL
    alpha: Positive = 0.5
    fine_floor: Positive = 0.05
    coarse_floor: Positive = 0.05
    norm: Norm = "batch"
    data_seed: Seed = 1

    def check(self) -> None:
        """Refuse what the factor does not divide."""
        if self.architecture == "paper" and self.factor != 16:
            raise ValueError(f"factor must be 16 for the paper's network; it is {self.factor}")
        if self.count is not None and self.side % self.factor:
            raise ValueError(f"side must be a multiple of the factor {self.factor}; it is {self.side}")


_FEATURES = FloodPreset(architecture="features", epochs=40, lr=5e-3, batch_size=32)

#: Settings by name. `quick` takes seconds, the `laptop` ones minutes; `paper` is for GPUs and a folder of tiles.
PRESETS = {
    "quick": replace(_FEATURES, count=48, test_count=16, batch_size=16, epochs=20),
    "laptop": FloodPreset(),
    "laptop-features": _FEATURES,
    "laptop-factor8": FloodPreset(factor=8),
    "laptop-inflow": FloodPreset(kind="inflow", loss="huber", beta=0.1, unit="map"),
    # squares of the depths of a few rivers would outweigh all rain
    "laptop-mixed": FloodPreset(kind="mixed", count=256, epochs=60, loss="huber", beta=0.1, unit="map"),
    "paper": FloodPreset(
        architecture="paper",
        kind="mixed",
        count=None,
        dx=1.0,
        fine_floor=0.01,
        coarse_floor=0.1,
        epochs=50,
        lr=1e-3,
        unit="metres",
        warmup=None,
        clip=None,
        augment=False,
        checkpoint_every=50,
    ),
}


def coarse_solver(preset: str | FloodPreset = "laptop") -> LocalInertialSolver:
    """The solver behind the network."""
    settings = named(preset, PRESETS)
    return LocalInertialSolver(dx=settings.dx * settings.factor, alpha=settings.alpha, h_cfl_min=settings.coarse_floor)


@dataclass(frozen=True)
class FloodRun(Run):
    """A trained network, as in `lib.experiment.Run`; `scores` are mean square errors [m^2] on the test maps."""

    model: Detour
    preset: FloodPreset

    preset_class = FloodPreset
    score = ("mean square error on the test maps [m^2]", ".6f")

    @staticmethod
    def network(preset: Any, _: dict[str, Any]) -> Detour:
        """The network of a preset, at its initial weights."""
        weights = torch.Generator().manual_seed(preset.seed)
        if preset.architecture == "paper":
            return Downsampler.paper(preset.norm, checkpointed=True, generator=weights)
        if preset.architecture == "features":
            return FeatureDownsampler(preset.factor, generator=weights)
        return Downsampler(preset.factor, generator=weights)


@lru_cache(maxsize=4)
def held_out(kind: Kind) -> FloodDataset:
    """The floods, 48 of each kind, that all networks of the chapter are tested on; they are remembered."""
    preset = PRESETS["laptop"]
    return draw_floods(preset.test_count, seed=preset.data_seed + 1, split="test", kind=kind, folder=solution_cache())


def flood_task(
    preset: str | FloodPreset, data_path: str | Path | None = None, *, device: str = "cpu", jobs: int | None = None
) -> tuple[Detour, Dataset[tuple[Tensor, ...]], Dataset[tuple[Tensor, ...]] | None]:
    """The network of a preset at its initial weights, the floods to train on, and those to test on.

    Fine solutions that are missing are computed first; where several processes train together, they must be there.

    Args:
        data_path: Folder with `train` and, if there are some, `test` tiles (see `TileFolder`), for presets without
            drawn maps.
        device: Of the processes that train together.
        jobs: Processes that solve; None leaves it to a surrounding `joblib.parallel_config`.

    Examples:
        >>> model, train, test = flood_task(replace(PRESETS["quick"], count=2, test_count=1, side=32))
        >>> type(model).__name__, len(train), len(test)
        ('FeatureDownsampler', 2, 1)
    """
    settings = named(preset, PRESETS)
    known_device(device)
    job_count(jobs)
    if settings.count is not None and data_path is not None:
        raise ValueError(f"data_path must be None for maps that are drawn; it is {str(data_path)!r}")
    model = FloodRun.network(settings, {})
    fine = LocalInertialSolver(dx=settings.dx, alpha=settings.alpha, h_cfl_min=settings.fine_floor)
    if settings.count is not None:
        drawn: dict[str, Any] = {"kind": settings.kind, "side": settings.side, "solver": fine, "jobs": jobs}
        train = draw_floods(settings.count, seed=settings.data_seed, **drawn)
        test = draw_floods(settings.test_count, seed=settings.data_seed + 1, split="test", **drawn)
        return model, train, test
    return model, *_tiles(settings, data_path, fine, device=device, jobs=jobs)


def _tiles(
    settings: FloodPreset, data_path: str | Path | None, fine: LocalInertialSolver, *, device: str, jobs: int | None
) -> tuple[TileFolder, TileFolder | None]:
    """The folders to train on and to test on, all their tiles solved."""
    if data_path is None:
        raise ValueError("data_path must name the folder of the tiles")
    train, test = Path(data_path) / "train", Path(data_path) / "test"
    if not train.is_dir():
        raise ValueError(f"data_path must hold a folder 'train' with tiles; {train} is not there")
    folders = [train, test] if test.is_dir() else [train]
    for tiles in (TileFolder(folder, settings.dx) for folder in folders):
        blocks(tiles.elevations(0), settings.factor)  # before hours are spent on solving them
        # processes that wait for hours for another one give up
        if processes(device).num_processes > 1 and not all(tiles.solution(i).exists() for i in range(len(tiles))):
            raise ValueError(f"{tiles.folder} has tiles without solutions: run `python -m lib solve flood` first")
    solved = [
        solve_tiles(folder, fine, kind=settings.kind, seed=settings.data_seed + place, jobs=jobs)
        for place, folder in enumerate(folders)
    ]
    return solved[0], solved[1] if len(solved) > 1 else None


def train_flood(
    preset: str | FloodPreset,
    folder: str | Path | None = None,
    *,
    data_path: str | Path | None = None,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    every: int | None = None,
    workers: int = 0,
    jobs: int | None = None,
) -> FloodRun:
    """Train a coarse map through the solver.

    Args:
        data_path, jobs: As in `flood_task`.
        folder, device, precision, every, workers: As in `lib.training.fit`.

    Examples:
        >>> small = replace(PRESETS["quick"], count=4, test_count=2, side=32, epochs=2, batch_size=4)
        >>> trained = train_flood(small)
        >>> len(trained.losses), len(trained.scores)
        (2, 2)
    """
    settings = named(preset, PRESETS)
    solver = coarse_solver(settings)
    job_count(jobs)
    # drawn floods are solved first, for minutes
    if settings.count is not None and settings.batch_size > settings.count:
        raise ValueError(f"batch_size must be at most {settings.count}; it is {settings.batch_size}")
    options: dict[str, Any] = {"device": device, "precision": precision, "every": every, "workers": workers}
    task = partial(flood_task, settings, data_path, device=device, jobs=jobs)
    model, train, test, _ = prepare(settings, folder, task, batch_size=settings.batch_size, **options)
    run = train_downsampler(model, train, solver, settings, test=test, folder=folder, **options)
    return FloodRun(model.eval(), run.losses, run.scores, run.diverged, settings)


#: The networks that ship with the package, and their settings.
SHIPPED = {
    "rain": PRESETS["laptop"],
    "rain-factor8": PRESETS["laptop-factor8"],
    "mixed": PRESETS["laptop-mixed"],
}


def trained_network(name: str) -> FloodRun:
    """A network that ships with the package, its weights rounded to half precision.

    `"rain"` was trained on rain alone, `"mixed"` on rain and rivers, and both coarsen by 16; `"rain-factor8"` on rain,
    and coarsens by 8.

    Examples:
        >>> trained_network("rain").model.factor
        16
    """
    one_of("name", name, SHIPPED)
    with as_file(files("lib") / "data" / f"flood_{name}.npz") as place:
        return FloodRun.load(place)
