"""How the data of chapter 05 that ship with the package were made."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lib.files import atomic_path
from lib.sparsity.races import NOISES, RACERS, SEEDS, race_key
from lib.sparsity.wrong_point import softmax_descent

__all__ = ["sparsity_races"]


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
