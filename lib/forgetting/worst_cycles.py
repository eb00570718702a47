"""How much a cycle can forget, as far as a search finds it: over numbers of tasks, steps and free dimensions."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.experiment import Count, Pieces, Positive, Preset, Seed, named
from lib.forgetting.search import search_cyclic
from lib.validation import known_device

__all__ = ["PRESETS", "WorstCyclesPreset", "sweep_worst_cycles"]


@dataclass(frozen=True)
class WorstCyclesPreset(Preset):
    """Searches with `search_cyclic`, one for each number of tasks T, of steps, of free dimensions, and seed.

    Attributes:
        tasks: Numbers of tasks T, from 2.
        squares: Numbers of steps, in units of T^2.
        nullities: Dimensions that a task leaves free, in twice as many.
        seeds: Of the starts; the best of all is kept.
        starts, steps, lr: Of each search.
    """

    tasks: tuple[Count, ...] = (3, 4, 5, 8)
    squares: tuple[Count, ...] = (1, 4)
    nullities: tuple[Count, ...] = (1, 2, 3)
    seeds: tuple[Seed, ...] = (0, 1)
    starts: Count = 64
    steps: Count = 500
    lr: Positive = 0.02

    def check(self) -> None:
        """Refuse a cycle of one task, which forgets nothing."""
        if min(self.tasks) < 2:
            raise ValueError(f"tasks must be at least 2; the smallest is {min(self.tasks)}")


#: `quick` takes a second, `laptop` two minutes on one core; `paper` is for a GPU or a cluster.
PRESETS = {
    "quick": WorstCyclesPreset(tasks=(3,), squares=(4,), nullities=(1, 2), seeds=(0,), starts=8, steps=200),
    "laptop": WorstCyclesPreset(),
    "paper": WorstCyclesPreset(
        tasks=(3, 4, 5, 8, 16, 32, 64),
        squares=(1, 4, 16, 24),
        nullities=tuple(range(1, 9)),
        seeds=tuple(range(25)),
        starts=4096,
        steps=5000,
    ),
}


def _found(search: dict[str, Any], device: str) -> dict[str, Any]:
    return {"value": np.array(search_cyclic(**search, d=2 * search["nullity"], device=device)[0])}


def sweep_worst_cycles(
    preset: str | WorstCyclesPreset,
    folder: str | Path | None = None,
    *,
    device: str = "cpu",
    shard: tuple[int, int] = (0, 1),
    jobs: int | None = None,
) -> NDArray[np.float64] | None:
    """Search for the most that a cycle forgets; `folder`, `shard` and `jobs` are as in `sweep_forgetting`.

    Returns:
        ndarray of shape (tasks, squares, nullities), or None: The largest forgetting found; None for a shard.

    Examples:
        >>> found = sweep_worst_cycles("quick")
        >>> found.shape, bool(found[0, 0, 1] > found[0, 0, 0])
        ((1, 1, 2), True)
    """
    settings = named(preset, PRESETS)
    place = known_device(device)
    shared = {"starts": settings.starts, "steps": settings.steps, "lr": settings.lr}
    axes = (settings.tasks, settings.squares, settings.nullities, settings.seeds)
    searches = [
        {"T": T, "k": square * T**2, "nullity": nullity, "seed": seed, **shared}
        for T, square, nullity, seed in product(*axes)
    ]
    work = [(search, (search, place)) for search in searches]
    found = Pieces(folder).compute(_found, work, "searches", shard=shard, jobs=jobs)
    if len(found) < len(work):
        return None
    values = np.array([each["value"] for each in found], dtype=np.float64)
    return np.asarray(values.reshape([len(each) for each in axes]).max(axis=-1))
