from dataclasses import replace

import numpy as np
import pytest

from lib.forgetting import PRESETS, ForgettingPreset, changed_clothes, sweep_forgetting

TINY = ForgettingPreset(amounts=(0.0, 90.0), seeds=(0, 1), count=100, tests=50, width=8, epochs=2, cycles=2)


def test_a_change_of_nothing_is_none_and_turning_all_the_way_comes_back() -> None:
    same = changed_clothes("train", 20).tensors
    for change in (
        changed_clothes("train", 20, amount=360.0),
        changed_clothes("train", 20, change="permutation"),
    ):
        assert change.tensors[0].equal(same[0])
        assert change.tensors[1].equal(same[1])
    half = changed_clothes("train", 20, change="permutation", amount=0.5, seed=1).tensors[0]
    assert half.sort(1).values.equal(same[0].sort(1).values)
    moved = (half != same[0]).any(0).float().mean()
    assert 0.3 < moved <= 0.5
    near = changed_clothes("train", 20, amount=90.001).tensors[0]  # interpolated, and on the same side as whole turns
    assert (near - changed_clothes("train", 20, amount=90.0).tensors[0]).abs().mean() < 0.01


def test_pieces_are_kept_and_shared(tmp_path) -> None:
    whole = sweep_forgetting(TINY)
    assert whole.shape == (2, 2, 4, 2)
    assert np.array_equal(whole[0, :, :, 0], whole[0, :, :, 1])  # two tasks that are the same
    assert sweep_forgetting(TINY, tmp_path, shard=(0, 2)) is None
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(sweep_forgetting(TINY, tmp_path), whole)
    more = sweep_forgetting(replace(TINY, amounts=(90.0,)), tmp_path)
    np.testing.assert_array_equal(more[0], whole[1])


def test_similar_tasks_are_lost_less() -> None:
    found = sweep_forgetting("quick")[:, 0]
    lost = found[:, 0, 0] - found[:, 1, 0]
    assert lost[1] > lost[0] + 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amounts": (400.0,)}, "amounts must"),
        ({"change": "permutation"}, "amounts must"),
        ({"batch_size": 2000}, "batch_size must be at most count"),
    ],
)
def test_bad_presets_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PRESETS["laptop"], **change)
