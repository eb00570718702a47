"""Checkpoints of long runs, and trained networks as files: whole or not there, loaded without unpickling code."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from lib.files import atomic_path

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "checkpoint_steps",
    "delete_checkpoint",
    "held_experiment",
    "load_checkpoint",
    "load_network",
    "remove_unfinished",
    "save_checkpoint",
    "save_network",
    "set_experiment",
]

_UNREADABLE = (
    OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

Network = TypeVar("Network", bound=torch.nn.Module)


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


def save_network(path: str | Path, network: torch.nn.Module, settings: Mapping[str, Any], **series: ArrayLike) -> None:
    """Write a trained network to one compressed file.

    Parameters
    ----------
    path
        The file, by custom `.npz`.
    network
        Its weights are stored in the precision that they have.
    settings
        What the network is made from: numbers, strings, and lists of them.
    series
        Arrays of numbers that belong to it, such as the losses of its training.
    """
    stored: dict[str, Any] = {f"weights/{key}": value.cpu().numpy() for key, value in network.state_dict().items()}
    stored |= {name: np.asarray(values) for name, values in series.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **stored, preset=json.dumps(dict(settings)))


def load_network(
    path: str | Path, make: Callable[[dict[str, Any]], Network]
) -> tuple[Network, dict[str, Any], dict[str, NDArray[np.float64]]]:
    """Read what `save_network` wrote.

    Parameters
    ----------
    path
        The file.
    make
        The network at any weights, from its settings.

    Returns
    -------
    tuple
        The network in evaluation mode, its settings, and its series.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or holds another network.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "line.npz"
    ...     save_network(file, torch.nn.Linear(1, 1), {"bias": True}, losses=[0.5, 0.25])
    ...     network, settings, series = load_network(file, lambda held: torch.nn.Linear(1, 1, **held))
    >>> settings, series["losses"]
    ({'bias': True}, array([0.5 , 0.25]))
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            settings: dict[str, Any] = json.loads(str(stored["preset"]))
            network = make(settings)
            state = network.state_dict()
            weights = {key: torch.from_numpy(stored[f"weights/{key}"]).to(state[key].dtype) for key in state}
            names = [name for name in stored.files if name != "preset" and not name.startswith("weights/")]
            series = {name: stored[name].astype(np.float64) for name in names}
        network.load_state_dict(weights)
    except _UNREADABLE as error:
        raise ValueError(f"{path} holds no network that can be read: {error}") from error
    return network.eval(), settings, series
