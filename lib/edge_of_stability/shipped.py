"""How the data of chapter 02 that ship with the package were made."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lib.checkpoints import load_checkpoint
from lib.edge_of_stability.experiment import PRESETS, EdgePreset, edge_task, train_edge_of_stability
from lib.files import atomic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["edge_runs"]

#: 2 / eta in units of the initial GFS sharpness: stable, barely unstable, unstable, very unstable
_EDGES = (1.1, 0.9, 0.75, 0.6)
_NETWORKS = {"digits": "quick", "clothes": "laptop"}


def edge_runs(folder: Path) -> None:
    """Descent on two small networks at four step sizes, with the flow solution from every tenth step.

    About ten minutes on two cores.
    """
    parts: dict[str, Any] = {}
    for network, name in _NETWORKS.items():
        for edge in _EDGES:
            run = _run(replace(PRESETS[name], edge=edge, every=10))
            parts |= {f"{network}/{edge}/{key}": value for key, value in run.items()}
            print(network, edge, flush=True)
    with atomic_path(folder / "edge_runs.npz") as temporary:
        np.savez_compressed(temporary, **parts)


def _run(preset: EdgePreset) -> dict[str, NDArray[Any]]:
    """One run, with the network's outputs at every checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        run = train_edge_of_stability(preset, folder, jobs=2)
        model, (inputs, targets) = edge_task(preset)
        outputs = []
        for step in run.steps:
            model.load_state_dict(load_checkpoint(folder, int(step))["model"])
            with torch.no_grad():
                outputs.append(model(inputs)[:, 0].numpy())
    columns = {name: getattr(run, name) for name in ("eta", "losses", "steps", "loss", "sharpness", "gfs_sharpness")}
    return {**columns, "outputs": np.array(outputs, dtype=np.float32), "targets": targets[:, 0].numpy()}
