"""Many trainings with pruned gradients side by side: every method with every pattern and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lib.experiment import named, train_in_ways
from lib.sparsity.blocks import checked_pattern
from lib.sparsity.experiment import PRESETS, SparsityPreset, SparsityRun, train_sparsity
from lib.sparsity.layers import NMConfig
from lib.sparsity.wrong_point import METHODS
from lib.validation import known_device, one_of, true_or_false

__all__ = ["pruned_ways", "sweep_sparsity"]


def pruned_ways(methods: Sequence[str], patterns: Sequence[str], *, both: bool = False) -> dict[str, NMConfig]:
    """Settings by name: every method with every pattern; `"dense"` has none.

    Args:
        patterns: Such as `"2:4"`.
        both: Whether the gradient that goes to the layer before is pruned as well; the names say so.

    Examples:
        >>> list(pruned_ways(["dense", "mvue"], ["1:2", "2:4"]))
        ['dense', 'mvue 1:2', 'mvue 2:4']
    """
    true_or_false("both", both)
    for name, values in (("methods", methods), ("patterns", patterns)):
        if not isinstance(values, (list, tuple)) or not values:
            raise TypeError(f"{name} must be a list of names; it is {values!r}")
    found, pairs = {}, [_pattern(each) for each in patterns]
    for method in methods:
        if one_of("methods", method, METHODS) == "dense":
            found["dense"] = NMConfig(update="none")
            continue
        for n, m in pairs:
            ways: Any = {"update": method, "backward": method if both else "none"}
            found[f"{method} {n}:{m}{' both' if both else ''}"] = NMConfig(n=n, m=m, **ways)
    return found


def _pattern(words: object) -> tuple[int, int]:
    first, colon, last = str(words).partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise ValueError(f"patterns must be N:M, such as 2:4; one is {words!r}")
    return checked_pattern(int(first), int(last))


def sweep_sparsity(
    preset: str | SparsityPreset,
    methods: Sequence[str] = ("dense", "greedy", "mvue"),
    *,
    patterns: Sequence[str] = ("1:2", "2:4"),
    both: bool = False,
    seeds: Sequence[int] = (0, 1, 2),
    folder: str | Path | None = None,
    data_path: str | Path | None = None,
    device: str = "cpu",
    jobs: int | None = None,
) -> dict[str, list[SparsityRun]]:
    """Train a preset with several methods, patterns and seeds.

    Args:
        preset: Its `config` and `seed` are replaced.
        methods, patterns, both: As in `pruned_ways`.
        folder: Where checkpoints go, in a folder a training; a second call goes on from them. None keeps nothing.
        jobs: Processes; None leaves it to a surrounding `joblib.parallel_config`, which may carry them to a cluster.

    Returns:
        The runs by the names of `pruned_ways`, in the order of the seeds.

    Examples:
        >>> small = replace(PRESETS["quick"], count=256, epochs=1)
        >>> {way: len(runs) for way, runs in sweep_sparsity(small, ["dense", "mvue"], seeds=(0, 1)).items()}
        {'dense': 2, 'mvue 1:2': 2, 'mvue 2:4': 2}
    """
    settings = named(preset, PRESETS)
    known_device(device)
    ways = pruned_ways(methods, patterns, both=both)
    train = partial(train_sparsity, data_path=data_path, device=device)
    presets = {way: replace(settings, config=config) for way, config in ways.items()}
    return train_in_ways(train, presets, seeds=seeds, folder=folder, jobs=jobs)
