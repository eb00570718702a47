"""How the data of chapter 04 that ship with the package were made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lib.datasets import clothes
from lib.files import atomic_path
from lib.four_bit.comparison import COMPARED
from lib.four_bit.experiment import PRESETS
from lib.four_bit.sweep import sweep_four_bit
from lib.four_bit.weight_updates import LayerGradient, capture_gradients
from lib.models import fully_connected

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


def real_gradient() -> LayerGradient:
    """A gradient of the second of five linear layers after 150 steps of training, and what it meets.

    Reproduced up to rounding, which the training amplifies: the stored arrays come from a CPU with AVX-512, and one
    with AVX2 gives inputs that are off by 0.2 % of their norm and a gradient that is off by 6 % on one thread, by 5 %
    and 18 % on two, whose sums have another order.
    """
    pictures, classes = clothes().tensors
    generator = torch.Generator().manual_seed(0)
    model = fully_connected((784, 128, 128, 128, 128, 10), activation="relu", generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(150):
        chosen = torch.randint(len(pictures), (128,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(model(pictures[chosen]), classes[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return list(capture_gradients(model, functional.cross_entropy, pictures[:256], classes[:256]).values())[1]


def four_bit_gradient(folder: Path) -> None:
    """Half a second on one core."""
    gradient = real_gradient()
    with atomic_path(folder / "four_bit_gradient.npz") as temporary:
        np.savez_compressed(temporary, delta=gradient.delta.numpy(), inputs=gradient.inputs.numpy())
