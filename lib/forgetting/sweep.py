"""A network on two tasks alternately: clothes, and the same clothes turned, or with pixels in another order.

What the linear theory says of similarity and repetition, tried on a network that is no linear model.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import rotate
from torch import nn
from torch.utils.data import TensorDataset

from lib.datasets import clothes
from lib.experiment import Count, NonNegative, OpenFraction, Pieces, Positive, Preset, Seed, named
from lib.files import input_folder
from lib.models import fully_connected
from lib.training import accuracy, fit
from lib.validation import known_seed, number_between, one_of, positive_integer

__all__ = ["PRESETS", "ForgettingPreset", "changed_clothes", "sweep_forgetting"]

Change = Literal["rotation", "permutation"]
#: The largest amount of each: degrees, and a fraction of the pixels.
_MOST = {"rotation": 360, "permutation": 1}


@dataclass(frozen=True)
class ForgettingPreset(Preset):
    """Two tasks, learnt alternately.

    Attributes:
        change: What makes the second task: `"rotation"` of the pictures, or a `"permutation"` of pixels.
        amounts: Degrees, or fractions of the pixels; one pair of tasks each.
        seeds: Of the network, the order of examples and the permutation; one training each.
        count, tests: Pictures to learn from and to look at, of each task.
        width: Hidden units.
        epochs: Per visit to a task.
        cycles: Visits to each task.
        batch_size, lr, momentum: Of stochastic gradient descent.
        full: The whole of Fashion-MNIST instead of the part that ships with the package.
    """

    change: Change = "rotation"
    amounts: tuple[NonNegative, ...] = (0.0, 15.0, 45.0, 90.0, 135.0, 180.0)
    seeds: tuple[Seed, ...] = (0, 1, 2)
    count: Count = 1500
    tests: Count = 1000
    width: Count = 64
    epochs: Count = 12
    cycles: Count = 3
    batch_size: Count = 100
    lr: Positive = 0.05
    momentum: OpenFraction = 0.9
    full: bool = False

    def check(self) -> None:
        """Refuse fractions above 1, and more pictures in a batch than there are."""
        for amount in self.amounts:
            number_between("amounts", amount, 0, _MOST[self.change])
        if self.batch_size > self.count:
            raise ValueError(f"batch_size must be at most count, {self.count}; it is {self.batch_size}")


#: `quick` takes a second or two, `laptop` half a minute; `paper` is for all pictures and a wide network.
PRESETS = {
    "quick": ForgettingPreset(amounts=(15.0, 90.0), seeds=(0,), count=300, tests=300, width=16, epochs=8, cycles=2),
    "laptop": ForgettingPreset(),
    "paper": ForgettingPreset(
        amounts=tuple(range(0, 181, 15)), seeds=tuple(range(10)), count=60_000, tests=10_000, width=1000, full=True
    ),
}


def changed_clothes(
    split: Literal["train", "test"],
    count: int,
    *,
    change: Change = "rotation",
    amount: float = 0.0,
    seed: int = 0,
    full: bool = False,
    data_path: str | Path | None = None,
) -> TensorDataset:
    """The first clothes of Fashion-MNIST, flat (count, 784), turned by degrees or with a fraction of pixels permuted.

    Examples:
        >>> upright, turned = changed_clothes("test", 5), changed_clothes("test", 5, amount=90.0)
        >>> turned[0][0].reshape(28, 28).equal(upright[0][0].reshape(28, 28).rot90(-1))
        True
    """
    rng = np.random.default_rng(known_seed("seed", seed))
    place = None if data_path is None else input_folder("data_path", data_path)
    images, labels = clothes(split, positive_integer("count", count), full=full, path=place).tensors
    number_between("amount", amount, 0, _MOST[one_of("change", change, _MOST)])
    if change == "rotation":
        # clockwise, about the middle; what comes in from outside is background, which is the darkest value
        turned = rotate(images.numpy(), -amount, (2, 3), reshape=False, order=1, cval=float(images.min()))
        return TensorDataset(torch.from_numpy(turned).flatten(1), labels)
    flat = images.flatten(1)
    moved = rng.choice(flat.shape[1], round(amount * flat.shape[1]), replace=False)
    order = np.arange(flat.shape[1])
    order[moved] = rng.permutation(moved)
    return TensorDataset(flat[:, torch.from_numpy(order)], labels)


#: The seeds of one angle share its pictures: upright and turned, to learn from and to look at.
_shared_clothes = lru_cache(maxsize=4)(changed_clothes)


def _pair(preset: ForgettingPreset, amount: float, seed: int, data_path: str | Path | None) -> dict[str, Any]:
    """Accuracies (2 cycles, 2) of both tasks after each visit, the first task's first."""
    generator = torch.Generator().manual_seed(seed)
    model = fully_connected((784, preset.width, 10), activation="relu", generator=generator)
    drawn = seed if preset.change == "permutation" else 0
    change = partial(_shared_clothes, change=preset.change, seed=drawn, full=preset.full, data_path=data_path)
    train = [change("train", preset.count, amount=each) for each in (0.0, amount)]
    test = [change("test", preset.tests, amount=each) for each in (0.0, amount)]
    learn = partial(fit, epochs=preset.epochs, batch_size=preset.batch_size)
    found = []
    for visit in range(2 * preset.cycles):
        optimizer = torch.optim.SGD(model.parameters(), lr=preset.lr, momentum=preset.momentum)
        learn(model, train[visit % 2], nn.functional.cross_entropy, optimizer, seed=seed + visit)
        found.append([accuracy(model, each) for each in test])
    return {"accuracy": np.array(found)}


def sweep_forgetting(
    preset: str | ForgettingPreset,
    folder: str | Path | None = None,
    *,
    data_path: str | Path | None = None,
    shard: tuple[int, int] = (0, 1),
    jobs: int | None = None,
) -> NDArray[np.float64] | None:
    """Train a network on both tasks alternately, for each amount of change and seed; what is interrupted goes on.

    Args:
        folder: Where the pieces go; pieces that are there already are not computed again. None keeps nothing.
        data_path: The folder of the whole Fashion-MNIST, for presets that ask for it.
        shard: `(i, n)`: do only the pieces whose place is `i` modulo `n`, for a cluster of `n` workers that share
            `folder`.
        jobs: Processes, through joblib; None leaves it to a surrounding `joblib.parallel_config`.

    Returns:
        ndarray of shape (amounts, seeds, 2 cycles, 2), or None: Test accuracies of both tasks after each visit, the
        first task being visited first; None for a shard.

    Examples:
        >>> tiny = ForgettingPreset(amounts=(90.0,), seeds=(0,), count=100, tests=50, width=4, epochs=1, cycles=1)
        >>> sweep_forgetting(tiny).shape
        (1, 1, 2, 2)
    """
    settings = named(preset, PRESETS)
    data_path = None if data_path is None else input_folder("data_path", data_path)
    shared = {name: value for name, value in settings.record().items() if name not in ("amounts", "seeds")}
    work = [
        ({**shared, "amount": amount, "seed": seed}, (settings, amount, seed, data_path))
        for amount in settings.amounts
        for seed in settings.seeds
    ]
    found = Pieces(folder).compute(_pair, work, "two tasks alternately", shard=shard, jobs=jobs)
    if len(found) < len(work):
        return None
    size = (len(settings.amounts), len(settings.seeds), 2 * settings.cycles, 2)
    return np.stack([each["accuracy"] for each in found]).reshape(size)
