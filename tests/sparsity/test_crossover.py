"""The grid of trainings: each at its place, gone on with where it stopped, and what ships is what the script makes."""

from dataclasses import replace

import numpy as np
import pytest

from lib.sparsity import PRESETS, NMConfig, crossover, pruned_ways, shipped_crossover, train_crossover, train_sparsity
from lib.sparsity.crossover import SHIPPED_PRESET, SHIPPED_WAYS
from tests.interrupting import interrupt_at

SMALL = replace(PRESETS["quick"], depth=1, count=64)
AXES = {"label_noise": [0.0, 0.5], "batch_size": [8, 32], "epochs": [1], "seeds": [4]}
WAYS = pruned_ways(["dense", "mvue"], ["1:4"])


def test_every_training_is_at_its_place_and_the_grid_goes_on(tmp_path) -> None:
    whole = train_crossover(SMALL, WAYS, **AXES)
    assert whole.accuracy.shape == whole.loss.shape == (2, 2, 2, 1, 1)
    settings = replace(SMALL, config=WAYS["mvue 1:4"], label_noise=0.5, batch_size=8, epochs=1, seed=4)
    assert whole.accuracy[1, 1, 0, 0, 0] == train_sparsity(settings).scores[-1]
    assert len(np.unique(whole.loss)) == whole.loss.size
    assert (whole.loss[:, 1] > whole.loss[:, 0]).all()  # random labels are hard to learn
    np.testing.assert_allclose(
        whole.lead("mvue 1:4", "dense"), (whole.accuracy[1] - whole.accuracy[0]).mean(-1), atol=1e-12
    )
    with interrupt_at(5, crossover, "train_sparsity"):
        train_crossover(SMALL, WAYS, **AXES, folder=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 5
    again = train_crossover(SMALL, WAYS, **AXES, folder=tmp_path)
    np.testing.assert_array_equal(again.loss, whole.loss)
    np.testing.assert_array_equal(again.accuracy, whole.accuracy)


def test_a_training_that_diverges_has_no_end() -> None:
    axes = {"label_noise": [0.0], "batch_size": [32], "epochs": [3], "seeds": [0]}
    found = train_crossover(replace(SMALL, lr=1e30), {"dense": NMConfig(update="none")}, **axes)
    assert np.isnan(found.accuracy).all()
    assert np.isnan(found.loss).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ways": {}}, "ways must be settings by name"),
        ({"ways": {"mvue": "2:4"}}, r"ways\['mvue'\] must be an NMConfig"),
        ({"epochs": []}, "epochs must be a list"),
        ({"label_noise": [1.5]}, "label_noise must be at least 0 and below 1"),
        ({"preset": "paper"}, "preset must be of the data fashion"),
    ],
)
def test_bad_input_is_refused(change, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        train_crossover(**({"preset": SMALL, "ways": WAYS, **AXES} | change))


def test_what_ships_cannot_be_changed() -> None:
    for values in (shipped_crossover().accuracy, shipped_crossover().loss):
        assert values.shape == (5, 4, 3, 2, 3)
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0


@pytest.mark.slow
def test_what_ships_is_what_the_script_makes() -> None:
    """One training a way, again, tested on the part of the images that ships; rounding differs between processors."""
    stored = shipped_crossover()
    for place, config in enumerate(SHIPPED_WAYS.values()):
        settings = replace(SHIPPED_PRESET, config=config, full=False, label_noise=0.4, batch_size=512, epochs=1, seed=1)
        score = train_sparsity(settings).scores[-1]
        assert score == pytest.approx(stored.accuracy[place, 2, 2, 0, 1], abs=0.03)
