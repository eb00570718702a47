"""How the data of chapter 06 that ship with the package were made."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from lib.alias_free.experiment import SHIPPED, held_out, in_every_mode, train_alias_free, trained_network
from lib.alias_free.tables import robustness_counts
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
    for preset, suffix in (("laptop", ""), ("canvas", "-canvas")):
        modes = in_every_mode(preset)
        networks: dict[str, nn.Module] = {mode: trained_network(f"{mode}{suffix}").model for mode in modes}
        found = robustness_counts(networks, *held_out(preset)[:], device=device)
        rows += [json.dumps([preset, *pair, [list(part) for part in parts]]) for pair, parts in found.items()]
    with atomic_path(folder / "alias_free_attacks.json") as temporary:
        temporary.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
