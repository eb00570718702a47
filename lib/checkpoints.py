"""Checkpoints of long runs, and trained networks as files: whole or not there, loaded without unpickling code."""

from __future__ import annotations

import copy
import io
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from lib.files import alone_in, atomic_path, check_archive, known_path
from lib.validation import instance_of, integer_at_least

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "check_same",
    "checkpoint_steps",
    "claim_experiment",
    "delete_checkpoint",
    "held_experiment",
    "load_checkpoint",
    "load_network",
    "plain",
    "remove_unfinished",
    "save_checkpoint",
    "save_network",
]

#: What is written as it is.
_KEPT = (torch.Tensor, torch.nn.Parameter, bool, int, float, str, type(None))
#: numpy's numbers, which nobody can read back without unpickling, and Python's for them.
_NUMBERS = ((np.bool_, bool), (np.integer, int), (np.floating, float), (np.complexfloating, complex), (np.str_, str))

Network = TypeVar("Network", bound=torch.nn.Module)


def _path(folder: str | Path, step: int) -> Path:
    return known_path("folder", folder) / f"step_{integer_at_least('step', step, 0):08d}.pt"


def checkpoint_steps(folder: str | Path) -> list[int]:
    """The steps of which a folder holds checkpoints, in order.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     save_checkpoint(place, 20, {"weight": torch.ones(2)})
        ...     checkpoint_steps(place), load_checkpoint(place, 20)
        ([20], {'weight': tensor([1., 1.])})
    """
    found = (re.fullmatch(r"step_(\d+)\.pt", path.name) for path in known_path("folder", folder).glob("step_*.pt"))
    return sorted(int(match.group(1)) for match in found if match)


def plain(name: str, value: Any) -> Any:
    """Tensors, numbers, strings, and lists, tuples, sets or dicts of them, with Python's numbers for numpy's.

    Another part, which could not be read back, is refused by its name.

    Examples:
        >>> plain("state", {"sum": np.zeros(3)})
        Traceback (most recent call last):
        ...
        TypeError: state['sum'] must be a tensor, a number, a string, or a list or dict of them; it is a numpy.ndarray
    """
    kind = type(value)
    if kind in _KEPT:
        return value
    if kind in (list, tuple, set):
        return kind(plain(f"{name}[{index}]", each) for index, each in enumerate(value))
    if isinstance(value, dict):
        kept = copy.copy(value)  # its kind, and what a network's state keeps beside its entries
        kept.clear()
        if kind not in (dict, OrderedDict):
            _read_back(name, kept)
        for key, each in value.items():
            kept[plain(f"a key of {name}", key)] = plain(f"{name}[{key!r}]", each)
        return kept
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    for theirs, ours in _NUMBERS:
        if isinstance(value, theirs):
            return ours(value)
    return _read_back(name, value)


def _read_back(name: str, value: Any) -> Any:
    """The value itself, if it can be read without unpickling code."""
    stored = io.BytesIO()
    try:
        torch.save(value, stored)
        stored.seek(0)
        torch.load(stored, weights_only=True)
    except Exception as error:  # pickle raises whatever it likes
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"{name} must be a tensor, a number, a string, or a list or dict of them; it is a {kind}"
        ) from error
    return value


def save_checkpoint(folder: str | Path, step: int, state: dict[str, Any]) -> None:
    """Write what `plain` takes."""
    kept = plain("state", instance_of("state", state, dict))
    with atomic_path(_path(folder, step)) as temporary, _checksums():
        torch.save(kept, temporary)


@contextmanager
def _checksums() -> Iterator[None]:
    """Let torch write the checksums that `load_checkpoint` looks at, which a program may have switched off."""
    options = torch.serialization
    if getattr(options, "get_crc32_options", lambda: True)():  # torch before 2.6 always does
        yield
        return
    options.set_crc32_options(True)
    try:
        yield
    finally:
        options.set_crc32_options(False)


def delete_checkpoint(folder: str | Path, step: int) -> None:
    """Remove a checkpoint, if it is there."""
    _path(folder, step).unlink(missing_ok=True)


def remove_unfinished(folder: str | Path) -> None:
    """Remove what a process that was killed while it wrote has left behind."""
    for path in known_path("folder", folder).glob(".step_*.pt"):
        path.unlink(missing_ok=True)


def load_checkpoint(folder: str | Path, step: int) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote."""
    path = _path(folder, step)
    if not path.exists():
        raise ValueError(f"{path} is missing")
    try:
        check_archive(path)
    except ValueError as error:
        raise ValueError(f"{error}; delete it and go on from the one before") from error
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        first = str(error).split("\n")[0]
        raise ValueError(f"{path} is whole, but is no checkpoint that may be loaded: {first}") from error
    return state


def _marker(folder: str | Path) -> Path:
    return known_path("folder", folder) / "experiment.json"


def held_experiment(folder: str | Path, settings: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The facts that `claim_experiment` wrote into a folder; None if it holds no experiment yet.

    An experiment with other settings than those that are given is refused.
    """
    marker = _marker(folder)
    if not marker.exists():
        return None
    try:
        held = json.loads(marker.read_text(encoding="utf-8"))
        begun = dict(held["preset"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{marker} is damaged: {error}") from error
    if settings is not None:
        check_same(folder, begun, json.loads(_text(settings)))
    return {name: value for name, value in held.items() if name != "preset"}


def claim_experiment(folder: str | Path, settings: Mapping[str, Any], **facts: Any) -> None:
    """Write down which experiment a folder holds, and facts about it that are found once, if it is new.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     before = held_experiment(place)
        ...     claim_experiment(place, {"seed": 0}, eta=0.1)
        ...     before, held_experiment(place, {"seed": 0})
        (None, {'eta': 0.1})
    """
    _text(settings)  # refuses what is none
    text = _text({"preset": dict(settings), **facts})
    with alone_in(folder):  # of two that come at once, one is first
        if held_experiment(folder, settings) is None:
            with atomic_path(_marker(folder)) as temporary:
                temporary.write_text(text, encoding="utf-8")


def check_same(folder: str | Path, held: Mapping[str, Any], asked: Mapping[str, Any], what: str = "experiment") -> None:
    """Refuse a folder of something else, with the first setting that differs.

    Examples:
        >>> check_same("runs/a", {"lr": 0.3, "seed": 0}, {"lr": 0.1, "seed": 0})
        Traceback (most recent call last):
        ...
        ValueError: folder must be new or hold the same experiment; runs/a was begun with lr = 0.3, and 0.1 is asked for
    """
    for name in dict.fromkeys((*held, *asked)):
        if name not in held or name not in asked or held[name] != asked[name]:
            before, now = (repr(those[name]) if name in those else "nothing" for those in (held, asked))
            raise ValueError(
                f"folder must be new or hold the same {what}; {folder} was begun with {name} = {before}, "
                f"and {now} is asked for"
            )


def _text(settings: Mapping[str, Any]) -> str:
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings must be a dict; they are {settings!r}")
    return json.dumps(plain("settings", dict(settings)), indent=1)


def save_network(path: str | Path, network: torch.nn.Module, settings: Mapping[str, Any], **series: ArrayLike) -> None:
    """Write a trained network to one compressed file (.npz), with what it is made from, and the losses or the like."""
    instance_of("network", network, torch.nn.Module, "a torch module")
    stored: dict[str, Any] = {f"weights/{key}": value.cpu().numpy() for key, value in network.state_dict().items()}
    stored |= {name: np.asarray(values) for name, values in series.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **stored, preset=_text(settings))


def load_network(
    path: str | Path, make: Callable[[dict[str, Any]], Network]
) -> tuple[Network, dict[str, Any], dict[str, NDArray[Any]]]:
    """The network in evaluation mode, its settings and its series, as `save_network` wrote them.

    Args:
        make: The network at any weights, from its settings.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "line.npz"
        ...     save_network(file, torch.nn.Linear(1, 1), {"bias": True}, losses=[0.5, 0.25])
        ...     network, settings, series = load_network(file, lambda held: torch.nn.Linear(1, 1, **held))
        >>> settings, series["losses"]
        ({'bias': True}, array([0.5 , 0.25]))
    """
    path = known_path("path", path)
    if not callable(make):
        raise TypeError(f"make must be a function; it is {make!r}")
    try:
        check_archive(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            settings: dict[str, Any] = json.loads(str(stored["preset"]))
            network = make(settings)
            state = network.state_dict()
            weights = {key: torch.from_numpy(stored[f"weights/{key}"]).to(state[key].dtype) for key in state}
            names = [name for name in stored.files if name != "preset" and not name.startswith("weights/")]
            series = {name: stored[name] for name in names}
            series |= {name: each.astype(np.float64) for name, each in series.items() if each.dtype.kind == "f"}
        network.load_state_dict(weights)
    except Exception as error:  # `make` and the file may be wrong in any way
        raise ValueError(f"{path} holds no network that can be read: {error}") from error
    return network.eval(), settings, series
