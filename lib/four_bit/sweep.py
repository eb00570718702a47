"""Many trainings side by side: every way to quantise with every seed, in as many processes as there are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lib.four_bit.comparison import SEEDS, WAYS
from lib.four_bit.experiment import FourBitPreset, FourBitRun, four_bit_preset, train_four_bit
from lib.four_bit.layers import LUQConfig
from lib.parallel import in_parallel

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

    Parameters
    ----------
    preset
        As for `train_four_bit`; its `config` and `seed` are replaced.
    ways
        Names in `WAYS`, or settings by name.
    seeds
        One training each.
    folder
        Where checkpoints go, in a folder a training; a second call goes on from them. None keeps nothing.
    data_path, device
        As for `train_four_bit`.
    jobs
        Processes; None leaves it to a surrounding `joblib.parallel_config`, which may carry them to a cluster.

    Returns
    -------
    dict
        The runs by way, in the order of the seeds.

    Raises
    ------
    ValueError
        If a way is unknown, or a setting out of range.

    Examples
    --------
    >>> small = replace(four_bit_preset("quick"), count=256, epochs=1)
    >>> found = sweep_four_bit(small, ["FP32", "FP3 LUQ"], seeds=(0, 1))
    >>> {way: len(runs) for way, runs in found.items()}
    {'FP32': 2, 'FP3 LUQ': 2}
    """
    settings = four_bit_preset(preset)
    if not isinstance(ways, Mapping):
        unknown = [way for way in ways if way not in WAYS]
        if unknown:
            raise ValueError(f"ways must be of {', '.join(WAYS)}; {unknown[0]!r} is none of them")
        ways = {way: WAYS[way] for way in ways}
    pairs = [(way, seed) for way in ways for seed in seeds]
    work: list[tuple[object, ...]] = []
    for way, seed in pairs:
        place = None if folder is None else Path(folder) / _file_name(way) / f"seed-{seed}"
        work.append((replace(settings, config=ways[way], seed=seed), place, data_path, device))
    found: dict[str, list[FourBitRun]] = {way: [] for way in ways}
    for (way, _), run in zip(pairs, in_parallel(_train, work, "trainings", jobs=jobs), strict=True):
        found[way].append(run)
    return found


def _file_name(way: str) -> str:
    """A way's name without what a file system might not like."""
    return re.sub(r"[^A-Za-z0-9]+", "-", way).strip("-").lower()


def _train(settings: FourBitPreset, folder: Path | None, data_path: str | Path | None, device: str) -> FourBitRun:
    return train_four_bit(settings, folder, data_path=data_path, device=device)
