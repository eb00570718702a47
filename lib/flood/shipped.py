"""How the data of chapter 10 that ship with the package were made; landlab's by tools/landlab_reference.py."""

from __future__ import annotations

from pathlib import Path

from lib.flood.experiment import SHIPPED, train_flood

__all__ = ["flood_networks"]


def flood_networks(folder: Path) -> None:
    """The coarse maps, trained through the solver; about ten minutes on one core."""
    for name, preset in SHIPPED.items():
        trained = train_flood(preset)
        print(name, trained.scores[-1], flush=True)
        trained.model.half()  # half the size, and rounding changes nothing that is claimed
        trained.save(folder / f"flood_{name}.npz")
