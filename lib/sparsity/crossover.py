"""Where a mask without bias overtakes one without variance: trainings by label noise, size of batches and length.

The bias of the largest entries stays whatever is done; the variance of masks averages out over steps. What the noise of
labels adds to a gradient is large beside what a mask adds, and makes the largest entries a worse choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import TensorDataset

from lib.experiment import Pieces, named
from lib.files import read_arrays
from lib.sparsity.experiment import PRESETS, SparsityPreset, sparsity_task, train_sparsity
from lib.sparsity.layers import NMConfig
from lib.sparsity.sweep import pruned_ways
from lib.validation import instance_of, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SHIPPED_PRESET", "SHIPPED_WAYS", "Crossover", "shipped_crossover", "train_crossover"]

#: What ships: a network of four layers, of which the two in the middle are pruned, and the grid.
SHIPPED_PRESET = SparsityPreset(depth=2, count=10_000, full=True)
SHIPPED_WAYS = {
    **pruned_ways(["dense", "greedy", "mvue"], ["1:4"]),
    **pruned_ways(["greedy", "mvue"], ["1:2"], both=True),
}
LABEL_NOISE, BATCH_SIZE, EPOCHS, SEEDS = (0.0, 0.2, 0.4, 0.6), (32, 128, 512), (1, 3), (0, 1, 2)


@dataclass(frozen=True)
class Crossover:
    """Ends of trainings, on a grid (ways, label_noise, batch_size, epochs, seeds).

    Attributes:
        ways: Names as of `pruned_ways`.
        label_noise, batch_size, epochs, seeds: Of the trainings.
        accuracy: On the test images.
        loss: Cross entropy of all training images, with their labels as they were for training.
    """

    ways: tuple[str, ...]
    label_noise: tuple[float, ...]
    batch_size: tuple[int, ...]
    epochs: tuple[int, ...]
    seeds: tuple[int, ...]
    accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]

    def lead(self, way: str, over: str) -> NDArray[np.float64]:
        """Accuracy of one way beyond that of another, over the seeds the mean: (label_noise, batch_size, epochs).

        Examples:
            >>> shipped_crossover().lead("mvue 1:4", "greedy 1:4").shape
            (4, 3, 2)
        """
        mean = self.accuracy.mean(axis=-1)
        one, other = (self.ways.index(one_of(*each, self.ways)) for each in (("way", way), ("over", over)))
        found: NDArray[np.float64] = mean[one] - mean[other]
        return found


def _end(preset: SparsityPreset, data_path: str | None) -> dict[str, float]:
    """Accuracy and training loss at the end of one training."""
    run = train_sparsity(preset, data_path=data_path)
    if run.diverged:
        return {"accuracy": float("nan"), "loss": float("nan")}
    _, train, _ = sparsity_task(preset, data_path)
    assert isinstance(train, TensorDataset)
    images, labels = train.tensors
    with torch.no_grad():
        return {"accuracy": float(run.scores[-1]), "loss": float(functional.cross_entropy(run.model(images), labels))}


def train_crossover(
    preset: str | SparsityPreset,
    ways: Mapping[str, NMConfig],
    *,
    label_noise: Sequence[float] = LABEL_NOISE,
    batch_size: Sequence[int] = BATCH_SIZE,
    epochs: Sequence[int] = EPOCHS,
    seeds: Sequence[int] = SEEDS,
    folder: str | Path | None = None,
    data_path: str | Path | None = None,
    jobs: int | None = None,
) -> Crossover:
    """Train a preset on the grid of all these settings.

    Args:
        ways: Settings by name, such as those of `pruned_ways`.
        folder: A small file a training; a second call goes on from them. None keeps nothing.

    Examples:
        >>> small = replace(PRESETS["quick"], count=64)
        >>> axes = {"label_noise": [0.0, 0.5], "batch_size": [32], "epochs": [1], "seeds": [0]}
        >>> train_crossover(small, pruned_ways(["mvue"], ["1:4"]), **axes).accuracy.shape
        (1, 2, 1, 1, 1)
    """
    settings = named(preset, PRESETS)
    if settings.data != "fashion":
        raise ValueError(f"preset must be of the data fashion, whose labels can be noisy; it is of {settings.data}")
    if not isinstance(ways, Mapping) or not ways:
        raise TypeError(f"ways must be settings by name, at least one; it is {ways!r}")
    for name, config in ways.items():
        instance_of(f"ways[{name!r}]", config, NMConfig, "an NMConfig")
    axes = {"label_noise": label_noise, "batch_size": batch_size, "epochs": epochs, "seeds": seeds}
    for name, values in axes.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise TypeError(f"{name} must be a list of numbers; it is {values!r}")
    place = None if data_path is None else str(data_path)
    work = []
    for config, noise, size, length, seed in product(ways.values(), label_noise, batch_size, epochs, seeds):
        one = replace(settings, config=config, label_noise=noise, batch_size=size, epochs=length, seed=seed)
        work.append((one.record(), (one, place)))
    found = Pieces(folder).compute(_end, work, "trainings", jobs=jobs)
    shape = (len(ways), *map(len, axes.values()))
    ends = {name: np.array([each[name] for each in found]).reshape(shape) for name in ("accuracy", "loss")}
    return Crossover(
        tuple(ways), tuple(label_noise), tuple(batch_size), tuple(epochs), tuple(seeds), ends["accuracy"], ends["loss"]
    )


@cache
def shipped_crossover() -> Crossover:
    """The trainings that ship, of `SHIPPED_PRESET` on 10 000 images of clothes.

    Examples:
        >>> shipped_crossover().ways
        ('dense', 'greedy 1:4', 'mvue 1:4', 'greedy 1:2 both', 'mvue 1:2 both')
    """
    with as_file(files("lib") / "data" / "sparsity_crossover.npz") as place:
        stored = read_arrays(place)
    ends = {name: stored[name].astype(np.float64) for name in ("accuracy", "loss")}
    for each in ends.values():
        each.flags.writeable = False  # every caller gets the same ones
    return Crossover(tuple(SHIPPED_WAYS), LABEL_NOISE, BATCH_SIZE, EPOCHS, SEEDS, **ends)
