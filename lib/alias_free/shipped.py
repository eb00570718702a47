"""How the data of chapter 06 that ship with the package were made."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import torch

from lib.alias_free.attacks import standard_attacks
from lib.alias_free.experiment import SHIPPED, held_out, train_alias_free, trained_network
from lib.alias_free.robustness import shift_counts
from lib.files import atomic_path
from lib.training import reproducible

__all__ = ["alias_free_attacks", "alias_free_networks"]


def alias_free_networks(folder: Path) -> None:
    """Four versions of a network for clothes, on two canvases; eight minutes on one core."""
    for name, preset in SHIPPED.items():
        run = train_alias_free(preset)
        print(name, run.scores, flush=True)
        run.save(folder / f"alias_free_{name}.npz")


def alias_free_attacks(folder: Path) -> None:
    """What the shipped networks say of 2,000 test pictures moved by five sets of shifts, counted in parts of 250.

    Half a minute on a GPU, much longer on a core.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reproducible()
    rows = []
    for (name, preset), (attack, (kind, shifts, fill)) in product(SHIPPED.items(), standard_attacks().items()):
        network = trained_network(name).model.to(device)
        parts = zip(*(torch.split(part.to(device), 250) for part in held_out(preset)[:]), strict=True)
        counts = [list(shift_counts(network, x, y, shifts, kind=kind, fill=fill)) for x, y in parts]
        rows.append(json.dumps(["canvas" if preset.margin else "laptop", preset.mode, attack, counts]))
    with atomic_path(folder / "alias_free_attacks.json") as temporary:
        temporary.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
