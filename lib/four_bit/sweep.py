"""Many trainings side by side: every way to quantise with every seed, in as many processes as there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from lib.experiment import named
from lib.files import output_folder
from lib.four_bit.comparison import SEEDS, WAYS
from lib.four_bit.experiment import PRESETS, FourBitPreset, FourBitRun, train_four_bit
from lib.four_bit.layers import LUQConfig
from lib.parallel import in_parallel
from lib.validation import instance_of, job_count, known_device, known_seed, one_of

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
    settings, ways, seeds = named(preset, PRESETS), _by_name(ways), _distinct(seeds)
    known_device(device)
    job_count(jobs)
    place = None if folder is None else output_folder("folder", folder)
    work = [
        (replace(settings, config=config, seed=seed), place and place / _file_name(way) / f"seed-{seed}")
        for way, config in ways.items()
        for seed in seeds
    ]
    train = partial(train_four_bit, data_path=data_path, device=device)
    runs = iter(list(in_parallel(train, work, "trainings", jobs=jobs)))
    return {way: list(islice(runs, len(seeds))) for way in ways}


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


def _distinct(seeds: object) -> list[int]:
    if not isinstance(seeds, Iterable):
        raise TypeError(f"seeds must be a list of integers; it is {seeds!r}")
    found = [known_seed("seeds", seed) for seed in seeds]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"seeds must hold at least one integer, each once; it is {found}")
    return found


def _file_name(way: str) -> str:
    """A way's name without what a file system might not like."""
    return re.sub(r"[^A-Za-z0-9]+", "-", way).strip("-").lower()
