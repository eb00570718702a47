"""Training a coarse map, from seconds on a laptop to the paper's size; and the networks that ship with the package."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib.checkpoints import claim_experiment, held_experiment, load_network, save_network
from lib.flood.downsampler import Detour, Downsampler, FeatureDownsampler, Norm
from lib.flood.learning import check_training, train_downsampler
from lib.flood.metrics import Loss
from lib.flood.pooling import blocks
from lib.flood.scenarios import CELL, Kind, TileFolder, draw_floods, solve_tiles
from lib.flood.solver import LocalInertialSolver
from lib.training import TrainingRun, check_options, is_first_process, processes, steps_an_epoch
from lib.validation import (
    instance_of,
    job_count,
    known_device,
    known_seed,
    one_of,
    positive_integer,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FLOOD_PRESETS",
    "SHIPPED",
    "FloodPreset",
    "TrainedDownsampler",
    "coarse_solver",
    "flood_preset",
    "flood_task",
    "load_downsampler",
    "save_downsampler",
    "train_flood",
    "trained_downsampler",
]

Network = Literal["convolutional", "features", "paper"]


@dataclass(frozen=True)
class FloodPreset:
    """A network, its floods, and how to train it.

    Attributes
    ----------
    network
        `"convolutional"` (`Downsampler`), `"features"` (`FeatureDownsampler`) or `"paper"` (`PaperDownsampler`).
    factor
        Fine cells along a side of a coarse cell.
    kind
        What drives the floods.
    count, test_count, side
        Drawn maps to train and to test on, and their cells along a side; without a count, maps are tiles in the
        folders `train` and, where it is there, `test`.
    dx
        Side of a fine cell [m].
    alpha, fine_floor, coarse_floor
        `alpha` of the solvers, and their `h_cfl_min` [m]. The 0.7 of the paper's code multiplies another, shorter
        step than the CFL step here, of at most half its length.
    norm
        Of the paper's network.
    epochs, lr, batch, loss, beta, unit, smoothness, optimizer, warmup, clip, augment, checkpoint_every
        As in `train_downsampler`.
    data_seed, seed
        Of the maps; of weights and order.
    """

    network: Network = "convolutional"
    factor: int = 16
    kind: Kind = "rain"
    count: int | None = 128
    test_count: int = 48
    side: int = 128
    dx: float = CELL
    alpha: float = 0.5
    fine_floor: float = 0.05
    coarse_floor: float = 0.05
    norm: Norm = "batch"
    epochs: int = 36
    lr: float = 3e-3
    batch: int = 16
    loss: Loss = "mse"
    beta: float = 1.0
    unit: Literal["data", "map", "metres"] = "data"
    smoothness: float = 0.0
    optimizer: Literal["adam", "sgd"] = "adam"
    warmup: float | None = 0.15
    clip: float | None = 1.0
    augment: bool = True
    checkpoint_every: int = 0
    data_seed: int = 1
    seed: int = 0


_FEATURES = FloodPreset("features", epochs=40, lr=5e-3, batch=32)

#: Settings by name. `quick` takes seconds, the `laptop` ones minutes; `paper` is for GPUs and a folder of tiles.
FLOOD_PRESETS = {
    "quick": replace(_FEATURES, count=48, test_count=16, batch=16, epochs=20),
    "laptop": FloodPreset(),
    "laptop-features": _FEATURES,
    "laptop-factor8": FloodPreset(factor=8),
    "laptop-inflow": FloodPreset(kind="inflow", loss="huber", beta=0.1, unit="map"),
    # squares of the depths of a few rivers would outweigh all rain
    "laptop-mixed": FloodPreset(kind="mixed", count=256, epochs=60, loss="huber", beta=0.1, unit="map"),
    "paper": FloodPreset(
        "paper",
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


#: Settings that are those of `train_downsampler`, `seed` aside.
_TRAINING: tuple[str, ...] = ("epochs", "lr", "batch", "loss", "beta", "unit", "smoothness", "optimizer", "warmup")
_TRAINING += ("clip", "checkpoint_every")


def flood_preset(preset: str | FloodPreset) -> FloodPreset:
    """A preset by its name, or a setting of one's own.

    Raises
    ------
    ValueError
        If there is none of that name, or a setting is out of range.

    Examples
    --------
    >>> flood_preset("laptop").epochs
    36
    """
    if isinstance(preset, str):
        if preset not in FLOOD_PRESETS:
            raise ValueError(f"preset must be one of {', '.join(FLOOD_PRESETS)}; it is {preset!r}")
        preset = FLOOD_PRESETS[preset]
    instance_of("preset", preset, FloodPreset, "a name or a FloodPreset")
    one_of("network", preset.network, get_args(Network))
    one_of("kind", preset.kind, get_args(Kind))
    one_of("norm", preset.norm, get_args(Norm))
    if preset.network == "paper" and preset.factor != 16:
        raise ValueError(f"factor must be 16 for the paper's network; it is {preset.factor}")
    for name in ("factor", "side", "test_count", "epochs", "batch", *(("count",) if preset.count is not None else ())):
        positive_integer(name, getattr(preset, name))
    for name in ("data_seed", "seed"):
        known_seed(name, getattr(preset, name))
    if preset.count is not None and preset.side % preset.factor:
        raise ValueError(f"side must be a multiple of the factor {preset.factor}; it is {preset.side}")
    check_training(**{name: getattr(preset, name) for name in _TRAINING})
    return preset


def coarse_solver(preset: str | FloodPreset = "laptop") -> LocalInertialSolver:
    """The solver behind the network.

    Examples
    --------
    >>> coarse_solver("laptop").dx
    128.0
    """
    settings = flood_preset(preset)
    return LocalInertialSolver(dx=settings.dx * settings.factor, alpha=settings.alpha, h_cfl_min=settings.coarse_floor)


def _network(preset: FloodPreset) -> Detour:
    weights = torch.Generator().manual_seed(preset.seed)
    if preset.network == "paper":
        return Downsampler.paper(preset.norm, checkpointed=True, generator=weights)
    if preset.network == "features":
        return FeatureDownsampler(preset.factor, generator=weights)
    return Downsampler(preset.factor, generator=weights)


def flood_task(
    preset: str | FloodPreset, data_path: str | Path | None = None, *, device: str = "cpu", jobs: int | None = None
) -> tuple[Detour, Dataset[tuple[Tensor, ...]], Dataset[tuple[Tensor, ...]] | None]:
    """The network of a preset at its initial weights, the floods to train on, and those to test on.

    Fine solutions that are missing are computed first; where several processes train together, they must be there.

    Parameters
    ----------
    preset
        A name in `FLOOD_PRESETS`, or a setting.
    data_path
        Folder with `train` and, if there are some, `test` tiles (see `TileFolder`), for presets without drawn maps.
    device
        Of the processes that train together.
    jobs
        Processes that solve; None leaves it to a surrounding `joblib.parallel_config`.

    Raises
    ------
    ValueError
        If the folder is missing, a tile is not as it must be, or has no solution that several processes could read.

    Examples
    --------
    >>> model, train, test = flood_task(replace(FLOOD_PRESETS["quick"], count=2, test_count=1, side=32))
    >>> type(model).__name__, len(train), len(test)
    ('FeatureDownsampler', 2, 1)
    """
    settings = flood_preset(preset)
    known_device(device)
    job_count(jobs)
    if settings.count is not None and data_path is not None:
        raise ValueError(f"data_path must be None for maps that are drawn; it is {str(data_path)!r}")
    model = _network(settings)
    fine = LocalInertialSolver(dx=settings.dx, alpha=settings.alpha, h_cfl_min=settings.fine_floor)
    if settings.count is not None:
        drawn: dict[str, Any] = {"kind": settings.kind, "side": settings.side, "solver": fine, "jobs": jobs}
        train = draw_floods(settings.count, seed=settings.data_seed, **drawn)
        test = draw_floods(settings.test_count, seed=settings.data_seed + 1, split="test", **drawn)
        return model, train, test
    if data_path is None:
        raise ValueError("data_path must name the folder of the tiles")
    folders = [folder for folder in (Path(data_path) / "train", Path(data_path) / "test") if folder.is_dir()]
    if not folders or folders[0].name != "train":
        raise ValueError(f"data_path must hold a folder 'train' with tiles; {Path(data_path) / 'train'} is not there")
    for folder in folders:  # before hours are spent on solving them
        blocks(TileFolder(folder, settings.dx).elevations(0), settings.factor)
    if processes(device).num_processes > 1:
        for folder in folders:  # processes that wait for hours for another one give up
            waiting = TileFolder(folder, settings.dx)
            if any(not waiting.solution(index).exists() for index in range(len(waiting))):
                raise ValueError(f"{folder} has tiles without solutions: run `python -m lib solve flood` first")
    tiles = [
        solve_tiles(folder, fine, kind=settings.kind, seed=settings.data_seed + place, jobs=jobs)
        for place, folder in enumerate(folders)
    ]
    return model, tiles[0], tiles[1] if len(tiles) > 1 else None


class TrainedDownsampler(NamedTuple):
    """A trained network and its training.

    Attributes
    ----------
    model
        In evaluation mode.
    losses
        Before every step.
    scores
        Mean square errors [m^2] on the test maps after every epoch.
    preset
        How it was made.
    diverged
        Whether training stopped because a loss or a gradient was not finite.
    """

    model: Detour
    losses: NDArray[np.float64]
    scores: NDArray[np.float64]
    preset: FloodPreset
    diverged: bool = False


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
) -> TrainedDownsampler:
    """Train a coarse map through the solver.

    Parameters
    ----------
    preset
        A name in `FLOOD_PRESETS`, or a setting of your own.
    folder
        Where checkpoints go; a second run goes on from them. None keeps nothing.
    data_path, jobs
        As in `flood_task`.
    device, precision, every, workers
        As in `lib.training.fit`.

    Raises
    ------
    ValueError
        If a setting is out of range, data are missing, or the folder holds another experiment.

    Examples
    --------
    >>> small = replace(FLOOD_PRESETS["quick"], count=4, test_count=2, side=32, epochs=2, batch=4)
    >>> trained = train_flood(small)
    >>> len(trained.losses), len(trained.scores)
    (2, 2)
    """
    settings = flood_preset(preset)
    solver = coarse_solver(settings)
    check_options(device=device, precision=precision, every=every, workers=workers, folder=folder)
    job_count(jobs)
    if folder is not None:
        held_experiment(folder, asdict(settings))
    if settings.count is not None and settings.batch > settings.count:  # drawn floods are solved first, for minutes
        raise ValueError(f"batch must be at most {settings.count}; it is {settings.batch}")
    model, train, test = flood_task(settings, data_path, device=device, jobs=jobs)
    steps_an_epoch(train, settings.batch, device)
    if folder is not None and is_first_process(device):
        claim_experiment(folder, asdict(settings))
    run: TrainingRun = train_downsampler(
        model,
        train,
        solver,
        **{name: getattr(settings, name) for name in (*_TRAINING, "augment", "seed")},
        test=test,
        folder=folder,
        every=every,
        device=device,
        precision=precision,
        workers=workers,
    )
    return TrainedDownsampler(model.eval(), run.losses, run.scores, settings, run.diverged)


#: The networks that ship with the package, and the presets that made them.
SHIPPED = {"rain": "laptop", "rain-factor8": "laptop-factor8", "mixed": "laptop-mixed"}


def save_downsampler(path: str | Path, trained: TrainedDownsampler) -> None:
    """Write a network, how it was made and its training; `load_downsampler` reads it."""
    save_network(path, trained.model, asdict(trained.preset), losses=trained.losses, scores=trained.scores)


def load_downsampler(path: str | Path) -> TrainedDownsampler:
    """Read a network that `save_downsampler` wrote, as `python -m lib train flood` does.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or no such network.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_downsampler(Path(folder) / "network.npz", trained_downsampler("rain"))
    ...     load_downsampler(Path(folder) / "network.npz").preset.kind
    'rain'
    """
    model, settings, series = load_network(path, lambda held: _network(FloodPreset(**held)))
    return TrainedDownsampler(model, series["losses"], series["scores"], FloodPreset(**settings))


def trained_downsampler(name: str) -> TrainedDownsampler:
    """A network that ships with the package, its weights rounded to half precision.

    Parameters
    ----------
    name
        `"rain"`: trained on rain alone; `"mixed"`: on rain and rivers; both coarsen by 16. `"rain-factor8"`: on rain,
        and coarsens by 8.

    Raises
    ------
    ValueError
        If there is none of that name.

    Examples
    --------
    >>> trained_downsampler("rain").model.factor
    16
    """
    one_of("name", name, SHIPPED)
    with as_file(files("lib") / "data" / f"flood_{name}.npz") as place:
        return load_downsampler(place)
