"""Write the data that ship with the package, from the full sets and by real training.

    python tools/make_data.py [fashion-mnist] [edge-runs] [four-bit-runs] [four-bit-gradient] [flood-networks]
                              [alias-free-networks] [alias-free-attacks]

fashion-mnist: the first 10 000 training and 2 000 test images. edge-runs: descent on two small networks at four
step sizes each, with the flow solution from every tenth step (chapter 02; about ten minutes on two cores).
four-bit-runs: two networks trained with gradients quantised in all ways that chapter 04 compares, three seeds each
(about 25 minutes on one core). four-bit-gradient: one gradient and the activations that it meets (chapter 04).
flood-networks: the coarse maps of chapter 10, trained through the solver (about ten minutes on one core).
alias-free-networks: four versions of a network for clothes, on two canvases (chapter 06; eight minutes on one core).
alias-free-attacks: how many of 2,000 test pictures they hold against five sets of shifts (half a minute on a
GPU, much longer on a core).
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lib.alias_free import (
    held_out,
    in_every_mode,
    robustness_counts,
    train_alias_free,
    trained_network,
)
from lib.alias_free.experiment import SHIPPED as ALIAS_FREE_NETWORKS
from lib.checkpoints import load_checkpoint
from lib.datasets import fashion_mnist
from lib.edge_of_stability import PRESETS as EDGE
from lib.edge_of_stability import EdgePreset, edge_task, train_edge_of_stability
from lib.files import atomic_path
from lib.flood.experiment import SHIPPED, train_flood
from lib.four_bit import PRESETS as FOUR_BIT
from lib.four_bit import sweep_four_bit
from lib.four_bit.comparison import COMPARED
from lib.four_bit.weight_updates import train_and_capture
from lib.training import reproducible

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
        run = train_edge_of_stability(preset, folder, jobs=2)
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
            run = edge_run(replace(EDGE[name], edge=edge, every=10))
            parts |= {f"{network}/{edge}/{key}": value for key, value in run.items()}
            print(network, edge, flush=True)
    with atomic_path(DATA / "edge_runs.npz") as temporary:
        np.savez_compressed(temporary, **parts)


def write_four_bit_runs() -> None:
    """The trainings of chapter 04; the way with 3 bits ends with an epoch of fine-tuning."""
    parts = {}
    for network, ways in COMPARED.items():
        preset = replace(FOUR_BIT["laptop" if network == "mlp" else "laptop-convnet"], full=True)
        for way in ways:
            runs = sweep_four_bit(replace(preset, fine_tuning=int(way == "3 bits")), [way], jobs=2)[way]
            parts[f"{network}/{way}/scores"] = np.array([run.scores for run in runs], dtype=np.float32)
            parts[f"{network}/{way}/losses"] = np.array([run.losses for run in runs], dtype=np.float32)
            print(network, way, [float(run.scores[-1]) for run in runs], [run.clipped for run in runs], flush=True)
    with atomic_path(DATA / "four_bit_runs.npz") as temporary:
        np.savez_compressed(temporary, **parts)


def write_four_bit_gradient() -> None:
    """A real gradient for chapter 04: of the second of five linear layers."""
    second = list(train_and_capture().values())[1]
    with atomic_path(DATA / "four_bit_gradient.npz") as temporary:
        np.savez_compressed(temporary, delta=second.delta.numpy(), inputs=second.inputs.numpy())


def write_flood_networks() -> None:
    """The networks of chapter 10."""
    for name, preset in SHIPPED.items():
        trained = train_flood(preset)
        print(name, trained.scores[-1], flush=True)
        trained.model.half()  # half the size, and rounding changes nothing that is claimed
        trained.save(DATA / f"flood_{name}.npz")


def write_alias_free_networks() -> None:
    """The networks of chapter 06."""
    for name, preset in ALIAS_FREE_NETWORKS.items():
        run = train_alias_free(preset)
        print(name, run.scores, flush=True)
        run.save(DATA / f"alias_free_{name}.npz")


def write_alias_free_attacks() -> None:
    """What the networks of chapter 06 say of moved pictures, counted in parts of 250."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reproducible()
    rows = []
    for preset, suffix in (("laptop", ""), ("canvas", "-canvas")):
        networks = {mode: trained_network(f"{mode}{suffix}").model for mode in in_every_mode(preset)}
        found = robustness_counts(networks, *held_out(preset)[:], device=device)
        rows += [json.dumps([preset, *pair, [list(part) for part in parts]]) for pair, parts in found.items()]
    with atomic_path(DATA / "alias_free_attacks.json") as temporary:
        temporary.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


PARTS = {
    "fashion-mnist": write_fashion_mnist,
    "edge-runs": write_edge_runs,
    "four-bit-runs": write_four_bit_runs,
    "four-bit-gradient": write_four_bit_gradient,
    "flood-networks": write_flood_networks,
    "alias-free-networks": write_alias_free_networks,
    "alias-free-attacks": write_alias_free_attacks,
}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
