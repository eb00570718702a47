"""Write the data that ship with the package, from the full sets and by real training.

    python tools/make_data.py [fashion-mnist] [edge-runs]

fashion-mnist: the first 10 000 training and 2 000 test images. edge-runs: descent on two small networks at four
step sizes each, with the flow solution from every tenth step (chapter 02; about ten minutes on two cores).
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lib.checkpoints import load_checkpoint
from lib.datasets import fashion_mnist
from lib.edge_of_stability import EDGE_PRESETS, EdgePreset, edge_task, run_edge_experiment
from lib.files import atomic_path

DATA = Path(__file__).resolve().parent.parent / "lib" / "data"
#: 2 / eta in units of the initial GFS sharpness: stable, barely unstable, unstable, very unstable
EDGES = (1.1, 0.9, 0.75, 0.6)
NETWORKS = {"digits": "quick", "clothes": "laptop"}


def write_fashion_mnist() -> None:
    """The part of Fashion-MNIST."""
    parts = {}
    for split, count in (("train", 10_000), ("test", 2_000)):
        images, labels = fashion_mnist(split, full=True)
        parts |= {f"{split}_images": images[:count], f"{split}_labels": labels[:count]}
    with atomic_path(DATA / "fashion_mnist.npz") as temporary:
        np.savez_compressed(temporary, **parts)


def edge_run(preset: EdgePreset) -> dict[str, np.ndarray]:
    """One run, with the network's outputs at every checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_edge_experiment(preset, folder, jobs=2)
        model, (inputs, targets) = edge_task(preset)
        outputs = []
        for step in run.steps:
            model.load_state_dict(load_checkpoint(folder, int(step))["model"])
            with torch.no_grad():
                outputs.append(model(inputs)[:, 0].numpy())
    columns = {name: getattr(run, name) for name in ("eta", "losses", "steps", "loss", "sharpness", "gfs_sharpness")}
    return {**columns, "outputs": np.array(outputs, dtype=np.float32), "targets": targets[:, 0].numpy()}


def write_edge_runs() -> None:
    """The runs of chapter 02's replay."""
    parts = {}
    for network, name in NETWORKS.items():
        for edge in EDGES:
            run = edge_run(replace(EDGE_PRESETS[name], edge=edge, every=10))
            parts |= {f"{network}/{edge}/{key}": value for key, value in run.items()}
            print(network, edge, flush=True)
    with atomic_path(DATA / "edge_runs.npz") as temporary:
        np.savez_compressed(temporary, **parts)


PARTS = {"fashion-mnist": write_fashion_mnist, "edge-runs": write_edge_runs}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
