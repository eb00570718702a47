"""Checkpoints of long runs: whole or not there, numbered by step, loaded without unpickling code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lib.files import atomic_path

__all__ = [
    "checkpoint_steps",
    "delete_checkpoint",
    "held_experiment",
    "load_checkpoint",
    "remove_unfinished",
    "save_checkpoint",
    "set_experiment",
]


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


def delete_checkpoint(folder: str | Path, step: int) -> None:
    """Remove a checkpoint, if it is there."""
    _path(Path(folder), step).unlink(missing_ok=True)


def remove_unfinished(folder: str | Path) -> None:
    """Remove what a process that was killed while it wrote has left behind."""
    for path in Path(folder).glob(".step_*.pt"):
        path.unlink(missing_ok=True)


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


def _marker(folder: str | Path) -> Path:
    return Path(folder) / "experiment.json"


def held_experiment(folder: str | Path, settings: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The facts that `set_experiment` wrote into a folder; None if it holds no experiment yet.

    Parameters
    ----------
    folder
        The folder of a run.
    settings
        What the run must have been started with, if given.

    Raises
    ------
    ValueError
        If the folder holds an experiment with other settings.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     before = held_experiment(place)
    ...     set_experiment(place, {"seed": 0}, eta=0.1)
    ...     before, held_experiment(place, {"seed": 0})
    (None, {'eta': 0.1})
    """
    marker = _marker(folder)
    if not marker.exists():
        return None
    held = json.loads(marker.read_text(encoding="utf-8"))
    if settings is not None and held["preset"] != json.loads(json.dumps(settings)):
        raise ValueError(f"folder must be new or hold the same experiment; {folder} holds {held['preset']}")
    return {name: value for name, value in held.items() if name != "preset"}


def set_experiment(folder: str | Path, settings: Mapping[str, Any], **facts: Any) -> None:
    """Write down which experiment a folder holds, and facts about it that are found once."""
    with atomic_path(_marker(folder)) as temporary:
        temporary.write_text(json.dumps({"preset": settings, **facts}, indent=1), encoding="utf-8")
