"""How the data of chapter 05 that ship with the package were made."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lib.files import atomic_path
from lib.sparsity.crossover import SHIPPED_PRESET, SHIPPED_WAYS, train_crossover
from lib.sparsity.races import NOISES, RACERS, SEEDS, race_key
from lib.sparsity.wrong_point import softmax_descent

__all__ = ["sparsity_crossover", "sparsity_races"]


def sparsity_races(folder: Path) -> None:
    """Softmax regression on clothes with pruned gradients, three seeds each: about three minutes on one core."""
    parts: dict[str, Any] = {}
    for (method, n, m), noise in product(RACERS, NOISES):
        runs = [softmax_descent(method, n, m, label_noise=noise, seed=seed) for seed in SEEDS]
        key = race_key(method, n, m, noise)
        for part in ("loss", "accuracy", "gradient"):
            parts[f"{key}/{part}"] = np.array([getattr(run, part) for run in runs], dtype=np.float32)
        print(key, [float(run.loss[-1]) for run in runs], flush=True)
    with atomic_path(folder / "sparsity_races.npz") as temporary:
        np.savez_compressed(temporary, **parts)


def sparsity_crossover(folder: Path) -> None:
    """Small networks on clothes over label noise, size of batches and length: 13 minutes on one core."""
    found = train_crossover(SHIPPED_PRESET, SHIPPED_WAYS, jobs=1)
    ends = {name: getattr(found, name).astype(np.float32) for name in ("accuracy", "loss")}
    with atomic_path(folder / "sparsity_crossover.npz") as temporary:
        np.savez_compressed(temporary, **ends)
