"""Checkpoints of long runs: whole or not there, numbered by step, loaded without unpickling code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from lib.files import atomic_path

__all__ = ["checkpoint_steps", "load_checkpoint", "save_checkpoint"]


def _path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}.pt"


def checkpoint_steps(folder: str | Path) -> list[int]:
    """The steps of which a folder holds checkpoints, in order.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     save_checkpoint(place, 20, {"weight": torch.ones(2)})
    ...     checkpoint_steps(place), load_checkpoint(place, 20)
    ([20], {'weight': tensor([1., 1.])})
    """
    found = (re.fullmatch(r"step_(\d+)\.pt", path.name) for path in Path(folder).glob("step_*.pt"))
    return sorted(int(match.group(1)) for match in found if match)


def save_checkpoint(folder: str | Path, step: int, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and lists or dicts of them."""
    with atomic_path(_path(Path(folder), step)) as temporary:
        torch.save(state, temporary)


def load_checkpoint(folder: str | Path, step: int) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    ValueError
        If the file is missing or damaged.
    """
    path = _path(Path(folder), step)
    if not path.exists():
        raise ValueError(f"{path} is missing")
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(f"{path} is damaged; delete it and go on from the one before") from error
    return state
