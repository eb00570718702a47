"""Searches over numbers of tasks, steps and free dimensions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.forgetting import WorstCyclesPreset, back_and_forth_angles, planar_forgetting, sweep_worst_cycles
from lib.forgetting.worst_cycles import PRESETS

TINY = replace(PRESETS["quick"], tasks=(3, 4), starts=4, steps=60)


def test_shards_on_one_folder_make_the_whole(tmp_path: Path) -> None:
    assert sweep_worst_cycles(TINY, tmp_path, shard=(0, 2)) is None
    sweep_worst_cycles(TINY, tmp_path, shard=(1, 2))
    np.testing.assert_array_equal(sweep_worst_cycles(TINY, tmp_path), sweep_worst_cycles(TINY))


def test_in_the_plane_the_closed_form_is_nearly_reached() -> None:
    found = sweep_worst_cycles(replace(TINY, nullities=(1,), steps=300))
    assert found is not None
    for T, value in zip((3, 4), found[:, 0, 0], strict=True):
        fan = float(planar_forgetting(back_and_forth_angles(T, 4 * T**2), np.arange(4 * T**2) % T))
        assert fan <= value <= 1.01 * fan


def test_a_cycle_needs_two_tasks() -> None:
    with pytest.raises(ValueError, match="tasks must be at least 2"):
        WorstCyclesPreset(tasks=(1, 3))
