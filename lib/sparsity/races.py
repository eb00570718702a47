"""The trainings that ship with the chapter: descent of softmax regression, dense, greedy and unbiased."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from lib.sparsity.wrong_point import Method

__all__ = ["NOISES", "RACERS", "SEEDS", "Race", "race_key", "races"]

RACERS: tuple[tuple[Method, int, int], ...] = (
    ("dense", 1, 2),
    *(("greedy", n, m) for n, m in ((1, 2), (2, 4), (1, 4), (1, 8))),
    *(("mvue", n, m) for n, m in ((1, 2), (2, 4), (1, 4), (1, 8))),
)
#: Fractions of labels that are drawn at random, and seeds.
NOISES, SEEDS = (0.0, 0.2, 0.4, 0.6), (0, 1, 2)


@dataclass(frozen=True)
class Race:
    """Losses and test accuracies after each epoch, (seeds, epochs + 1); norms of the gradient at the end, (seeds,)."""

    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    gradient: NDArray[np.float64]


def race_key(method: str, n: int, m: int, noise: float) -> str:
    """The name of a race in the file."""
    return f"{method}/{n}:{m}/{noise:g}"


@cache
def races() -> Mapping[tuple[Method, int, int, float], Race]:
    """The shipped trainings by method, N, M and fraction of random labels.

    Examples:
        >>> races()["greedy", 1, 8, 0.0].loss.shape
        (3, 61)
    """
    found = {}
    with as_file(files("lib") / "data" / "sparsity_races.npz") as place, np.load(place) as stored:
        for method, n, m in RACERS:
            for noise in NOISES:
                key = race_key(method, n, m, noise)
                arrays = [stored[f"{key}/{part}"].astype(np.float64) for part in ("loss", "accuracy", "gradient")]
                for each in arrays:
                    each.flags.writeable = False  # every caller gets the same ones
                found[method, n, m, noise] = Race(*arrays)
    return found
