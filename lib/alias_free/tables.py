"""Tables of networks against attacks: data are cut into parts, a part is a piece of work, and counts are added up."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_args

import joblib
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from lib.alias_free.attacks import Attack, standard_attacks
from lib.alias_free.convnext import ConvNeXt, Mode
from lib.alias_free.experiment import trained_network
from lib.alias_free.robustness import (
    ShiftCounts,
    ShiftRobustness,
    check_attack,
    check_classification,
    shift_counts,
    shift_robustness,
)
from lib.datasets import clothes
from lib.experiment import Pieces
from lib.parallel import in_parallel
from lib.training import size_of
from lib.validation import instance_of, known_device, one_of, positive_integer

__all__ = [
    "RobustnessRow",
    "attack_table",
    "first_pictures",
    "format_robustness",
    "robustness_table",
    "shipped_attacks",
]

_ATTACKS = files("lib") / "data" / "alias_free_attacks.json"
_SHIPPED = ("laptop", "canvas")


class RobustnessRow(NamedTuple):
    """What came out of one network against one attack, by their names, and how many pictures were classified."""

    network: str
    attack: str
    pictures: int
    found: ShiftRobustness

    def record(self) -> dict[str, str | int | float]:
        """All of it as plain values, for JSON or a data frame."""
        named = {"network": self.network, "attack": self.attack, "pictures": self.pictures}
        return {**named, **self.found._asdict()}


def robustness_table(
    networks: Mapping[str, nn.Module],
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack] | None = None,
    *,
    folder: str | Path | None = None,
    part: int = 250,
    device: str = "cpu",
    jobs: int | None = None,
) -> list[RobustnessRow]:
    """Classify pictures by each network under each attack.

    Args:
        networks, attacks: By name; `standard_attacks` by default.
        x, y: Pictures (N, C, H, W) and classes (N,).
        folder: Where the counts of finished parts go; a second call takes them from there if weights, attack and
            pictures are the same. None keeps nothing.
        part: Pictures in a part.
        jobs: Processes; None leaves it to a surrounding `joblib.parallel_config`.

    Examples:
        >>> net, x, y = nn.Flatten(), torch.eye(4).reshape(4, 1, 1, 4), torch.arange(4)
        >>> (row,) = robustness_table({"flat": net}, x, y, {"one": Attack("circular", [(0, 1)])}, part=3)
        >>> row.pictures, row.found.clean_accuracy, row.found.adversarial_accuracy
        (4, 1.0, 0.0)
    """
    attacks = standard_attacks() if attacks is None else attacks
    for name, given in (("networks", networks), ("attacks", attacks)):
        if not isinstance(given, Mapping):
            raise TypeError(f"{name} must be a dict by name; it is {type(given).__name__}")
        if not given:
            raise ValueError(f"{name} must not be empty")
    pieces = Pieces(folder)
    for network in networks.values():
        check_classification(network, x, y)
    for name, attack in attacks.items():
        instance_of(f"attacks[{name!r}]", attack, Attack, "an Attack")
        check_attack(attack.shifts, attack.kind, attack.fill)
    known_device(device)
    size = positive_integer("part", part)
    parts = list(zip(torch.split(x, size), torch.split(y, size), strict=True))
    pairs = list(product(networks, attacks))
    keys = {name: _identity(net) for name, net in networks.items()}
    pictures = [joblib.hash([_bytes(values) for values in part]) for part in parts]
    work = [
        (
            {"network": keys[network], "attack": joblib.hash(tuple(attacks[attack])), "pictures": digest},
            (networks[network], attacks[attack], part, device),
        )
        for network, attack in pairs
        for digest, part in zip(pictures, parts, strict=True)
    ]
    counts = [ShiftCounts(**found) for found in pieces.compute(_counted, work, "pictures under attack", jobs=jobs)]
    count = len(parts)
    return [_row(*pair, counts[k * count : (k + 1) * count]) for k, pair in enumerate(pairs)]


def _row(network: str, attack: str, counts: Sequence[ShiftCounts]) -> RobustnessRow:
    whole = functools.reduce(ShiftCounts.joined, counts)
    return RobustnessRow(network, attack, whole.pictures, whole.robustness())


def shipped_attacks(preset: str = "laptop") -> list[RobustnessRow]:
    """The full table of the networks that ship with the package, 2 000 test pictures, as it was counted once.

    Examples:
        >>> row = next(row for row in shipped_attacks() if (row.network, row.attack) == ("afc", "any shift"))
        >>> row.pictures, row.found.clean_accuracy == row.found.adversarial_accuracy
        (2000, True)
    """
    one_of("preset", preset, _SHIPPED)
    return [
        _row(network, attack, [ShiftCounts(*part) for part in parts])
        for held, network, attack, parts in json.loads(_ATTACKS.read_text(encoding="utf-8"))
        if held == preset
    ]


def attack_table(attacks: Sequence[str], preset: str = "laptop", *, count: int = 100) -> list[RobustnessRow]:
    """The same for some of the `standard_attacks` and the first `count` pictures, counted here and remembered.

    Examples:
        >>> [row.network for row in attack_table(["half pixels"], count=2)]
        ['baseline', 'blurpool', 'aps', 'afc']
    """
    if not isinstance(attacks, (list, tuple)):
        raise TypeError(f"attacks must be a list of names; it is {attacks!r:.80}")
    for attack in attacks:
        one_of("attacks", attack, standard_attacks())
    one_of("preset", preset, _SHIPPED)
    _pictures(preset, positive_integer("count", count))
    modes: tuple[Mode, ...] = get_args(Mode)
    for mode in modes:  # loaded here: drawing the weights that a file replaces uses torch's one generator
        _network(mode, preset)
    work = [(mode, attack, preset, count) for mode in modes for attack in attacks]
    # torch's work needs no process; where torch itself uses all cores, more threads would only wait for each other
    with joblib.parallel_config(backend="threading", n_jobs=-1 if torch.get_num_threads() == 1 else 1):
        found = in_parallel(attacked, work, "attacks")
        return [RobustnessRow(mode, attack, count, each) for (mode, attack, *_), each in zip(work, found, strict=True)]


@functools.lru_cache(maxsize=64)
def attacked(mode: Mode, attack: str, preset: str, count: int) -> ShiftRobustness:
    """One row of `attack_table`."""
    chosen = standard_attacks()[attack]
    x, y = _pictures(preset, count)
    return shift_robustness(_network(mode, preset), x, y, chosen.shifts, kind=chosen.kind, fill=chosen.fill)


@functools.lru_cache(maxsize=8)
def _network(mode: Mode, preset: str) -> ConvNeXt:
    return trained_network(mode if preset == "laptop" else f"{mode}-{preset}").model


def _pictures(preset: str, count: int) -> tuple[Tensor, Tensor]:
    x, y = clothes("test", count, margin=4 if preset == "canvas" else 0).tensors
    return x, y


def _identity(network: nn.Module) -> str:
    """A digest of all that a network computes with: its layers and their settings, weights and buffers."""
    layers = [
        (name, type(layer).__module__, type(layer).__qualname__, repr(layer), _settings(layer))
        for name, layer in network.named_modules()
    ]
    weights = [(name, _bytes(value)) for name, value in (*network.named_parameters(), *network.named_buffers())]
    return str(joblib.hash((layers, weights)))


def _settings(layer: nn.Module) -> list[tuple[str, object]]:
    plain = (bool, int, float, str, tuple, type(None))
    return [
        (name, value) for name, value in sorted(vars(layer).items()) if isinstance(value, plain) and name != "training"
    ]


def _bytes(values: Tensor) -> tuple[str, tuple[int, ...], object]:
    """A tensor of any precision, bit for bit."""
    # of one entry, also a stride of two counts as contiguous, and has no bytes to view
    flat = values.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)
    return str(values.dtype), tuple(values.shape), flat.numpy()


def _counted(network: nn.Module, attack: Attack, part: tuple[Tensor, Tensor], device: str) -> dict[str, Any]:
    """Counts of one part."""
    x, y = (values.to(device) for values in part)
    moved = network if device == "cpu" else copy.deepcopy(network).to(device)
    return shift_counts(moved, x, y, attack.shifts, kind=attack.kind, fill=attack.fill)._asdict()


def first_pictures(data: Dataset[Any], count: int | None = None) -> tuple[Tensor, Tensor]:
    """Pictures and classes as tensors.

    Args:
        data: Pairs of a picture (C, H, W) and its class.
        count: The first so many, where the data are tensors; where they come from a folder, class by class, so many
            evenly spread ones. None for all.

    Examples:
        >>> x, y = first_pictures(TensorDataset(torch.rand(5, 1, 2, 2), torch.arange(5)), 3)
        >>> x.shape, y.tolist()
        (torch.Size([3, 1, 2, 2]), [0, 1, 2])
    """
    size = size_of(data)
    count = size if count is None else positive_integer("count", count)
    if count > size:
        raise ValueError(f"count must be at most {size}; it is {count}")
    if isinstance(data, TensorDataset):
        x, y = data.tensors
        return x[:count], y[:count]
    chosen = [data[int(k)] for k in np.linspace(0, size - 1, count).round()]
    return torch.stack([x for x, _ in chosen]), torch.tensor([int(y) for _, y in chosen])


def format_robustness(rows: Sequence[RobustnessRow]) -> str:
    """A table for the terminal, accuracies in percent.

    Examples:
        >>> print(format_robustness([RobustnessRow("net", "half pixels", 10, ShiftRobustness(0.9, 0.8, 0.95, 2e-7))]))
        network       attack                unmoved   worst shift   same class   largest change
        net           half pixels             90.00         80.00        95.00            2e-07
    """
    if not isinstance(rows, Sequence) or not all(isinstance(row, RobustnessRow) for row in rows):
        raise TypeError(f"rows must be those of robustness_table; it is {rows!r:.80}")
    lines = ["network       attack                unmoved   worst shift   same class   largest change"]
    for row in rows:
        clean, worst, same, change = row.found
        lines.append(
            f"{row.network:14}{row.attack:20}{100 * clean:9.2f}{100 * worst:14.2f}{100 * same:13.2f}{change:17.1g}"
        )
    return "\n".join(lines)
