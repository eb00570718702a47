"""How the data of chapter 04 that ship with the package were made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lib.files import atomic_path
from lib.four_bit.comparison import COMPARED
from lib.four_bit.experiment import PRESETS
from lib.four_bit.sweep import sweep_four_bit
from lib.four_bit.weight_updates import train_and_capture

__all__ = ["four_bit_gradient", "four_bit_runs"]


def four_bit_runs(folder: Path) -> None:
    """Two networks trained in all ways that are compared, three seeds each; 3 bits end with an epoch of fine-tuning.

    About 25 minutes on one core.
    """
    parts: dict[str, Any] = {}
    for network, ways in COMPARED.items():
        preset = replace(PRESETS["laptop" if network == "mlp" else "laptop-convnet"], full=True)
        for way in ways:
            runs = sweep_four_bit(replace(preset, fine_tuning=int(way == "3 bits")), [way], jobs=2)[way]
            parts[f"{network}/{way}/scores"] = np.array([run.scores for run in runs], dtype=np.float32)
            parts[f"{network}/{way}/losses"] = np.array([run.losses for run in runs], dtype=np.float32)
            print(network, way, [float(run.scores[-1]) for run in runs], [run.clipped for run in runs], flush=True)
    with atomic_path(folder / "four_bit_runs.npz") as temporary:
        np.savez_compressed(temporary, **parts)


def four_bit_gradient(folder: Path) -> None:
    """A real gradient, of the second of five linear layers, and the activations that it meets.

    Reproduced up to rounding, which 150 steps of training amplify: the stored arrays come from a CPU with AVX-512, and
    one with AVX2 gives inputs that are off by 0.2 % of their norm and a gradient that is off by 6 % on one thread, by
    5 % and 18 % on two, whose sums have another order.
    """
    second = list(train_and_capture().values())[1]
    with atomic_path(folder / "four_bit_gradient.npz") as temporary:
        np.savez_compressed(temporary, delta=second.delta.numpy(), inputs=second.inputs.numpy())
