"""Many trainings side by side: every way to quantise with every seed, in as many processes as there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lib.experiment import named, train_in_ways
from lib.four_bit.comparison import SEEDS, WAYS
from lib.four_bit.experiment import PRESETS, FourBitPreset, FourBitRun, train_four_bit
from lib.four_bit.layers import LUQConfig
from lib.validation import instance_of, known_device, one_of

__all__ = ["sweep_four_bit"]


def sweep_four_bit(
    preset: str | FourBitPreset,
    ways: Sequence[str] | Mapping[str, LUQConfig],
    *,
    seeds: Sequence[int] = SEEDS,
    folder: str | Path | None = None,
    data_path: str | Path | None = None,
    device: str = "cpu",
    jobs: int | None = None,
) -> dict[str, list[FourBitRun]]:
    """Train a preset in several ways and with several seeds.

    Args:
        preset: Its `config` and `seed` are replaced.
        ways: Names in `WAYS`, or settings by name.
        folder: Where checkpoints go, in a folder a training; a second call goes on from them. None keeps nothing.
        jobs: Processes; None leaves it to a surrounding `joblib.parallel_config`, which may carry them to a cluster.

    Returns:
        The runs by way, in the order of the seeds.

    Examples:
        >>> small = replace(PRESETS["quick"], count=256, epochs=1)
        >>> found = sweep_four_bit(small, ["FP32", "FP3 LUQ"], seeds=(0, 1))
        >>> {way: len(runs) for way, runs in found.items()}
        {'FP32': 2, 'FP3 LUQ': 2}
    """
    settings = named(preset, PRESETS)
    known_device(device)
    presets = {way: replace(settings, config=config) for way, config in _by_name(ways).items()}
    train = partial(train_four_bit, data_path=data_path, device=device)
    return train_in_ways(train, presets, seeds=seeds, folder=folder, jobs=jobs)


def _by_name(ways: Sequence[str] | Mapping[str, LUQConfig]) -> Mapping[str, LUQConfig]:
    if not isinstance(ways, Mapping):
        if not isinstance(ways, (list, tuple)):
            raise TypeError(f"ways must be a list of names, or settings by name; it is {ways!r}")
        ways = {way: WAYS[one_of("ways", way, WAYS)] for way in ways}
    if not ways:
        raise ValueError("ways must not be empty")
    for way, config in ways.items():
        instance_of("ways", way, str, "names with settings")
        instance_of(f"ways[{way!r}]", config, LUQConfig, "a LUQConfig")
    return ways
