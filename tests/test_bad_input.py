"""Every public name, one wrong argument at a time: a clear refusal before any work, no silent or broken answer."""

import inspect

import numpy as np
import pytest
import torch

from lib.chapters import open_chapters
from tests import bad_input
from tests.bad_input import counted

# of the ground floor what users call; the checks themselves take names of arguments, which nobody else writes
GROUND_FLOOR = ("augmentation", "datasets", "models", "training")
PLACES = [f"lib.{chapter.name}" for chapter in open_chapters()]
SILENT = (
    # a loss of NaN is a result that training loops look at, a time step of NaN one that a simulation looks at
    *("downsample_loss", "half_mean_square", "LocalInertialSolver.time_step"),
    # where nothing is random, nothing is drawn
    *("int4_encode(rand", "int4_encode(generator"),
    # kept with a checkpoint or shown, as it is
    *("fit(extra", "fit(facts", "fit(description", "flood_picture(title"),
)


# a call that is stopped may be in the middle of numba's, which can only pass over it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("place", [*PLACES, *(f"lib.{name}" for name in GROUND_FLOOR)])
def test_wrong_arguments_are_refused_by_name(place: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    classes, found = counted(place)
    for kind in ("hang", "mutated argument", "valid input refused", "global random state moved", "shares memory"):
        assert not classes[kind], [outcome for outcome in found if outcome[0] == kind]
    assert classes["not repeatable"] <= 1, found
    assert not [what for outcome, what, _ in found if outcome == "silent" and not what.startswith(SILENT)]
    other = [outcome for outcome in found if outcome[0] == "another kind of error"]
    assert len(other) <= 0.05 * classes["clear refusal"], other


def _doubles(x: float) -> float:
    return 2 * x


def _asks_for_an_attribute(x: np.ndarray) -> float:
    return float(x.mean())


def _always_fails(x: float) -> float:
    raise OSError(f"no file {x}")


def _gives_back(x: np.ndarray) -> np.ndarray:
    return x


def _adds_in_place(x: np.ndarray) -> None:
    x += 1


def _draws(x: float, seed: int) -> float:
    return x + seed + float(torch.rand(()))


def _waits(x: float) -> float:
    while x != 1:
        pass
    return x


def _counts_badly(x: int) -> int:
    if type(x) is not int:
        raise TypeError(f"x must be an integer; it is {x!r}")
    return x


@pytest.mark.parametrize(
    ("function", "arguments", "seen"),
    [
        (_doubles, {"x": 1.0}, "silent"),
        (_asks_for_an_attribute, {"x": np.ones(2)}, "another kind of error"),
        (_gives_back, {"x": np.ones(2)}, "shares memory"),
        (_adds_in_place, {"x": np.ones(2)}, "mutated argument"),
        (_draws, {"x": 1.0, "seed": 0}, "global random state moved"),
        (_waits, {"x": 1.0}, "hang"),
        (_counts_badly, {"x": 1}, "valid input refused"),
        (_counts_badly, {"x": 1}, "clear refusal"),
        (_always_fails, {"x": 1.0}, "not repeatable"),
    ],
)
def test_the_sweep_sees_what_is_wrong(function, arguments, seen, monkeypatch) -> None:
    monkeypatch.setattr(bad_input, "HANG_SECONDS", 0.05)
    call = bad_input.Call(function.__name__, function, inspect.signature(function).bind(**arguments))
    assert seen in {outcome for outcome, _, _ in bad_input.sweep(call)}
