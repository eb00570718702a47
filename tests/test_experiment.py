"""What chapters that train or sweep share: settings, stored runs, pieces of work."""

import json
import sys
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any, Literal

import numpy as np
import pytest
import torch
from joblib import parallel_config
from torch import nn

from lib.chapters import open_chapters
from lib.checkpoints import held_experiment
from lib.experiment import (
    Count,
    Natural,
    NonNegative,
    OpenFraction,
    Pieces,
    Positive,
    Preset,
    Run,
    Seed,
    described,
    named,
    prepare,
)
from tests.interrupting import interrupt_at


@dataclass(frozen=True)
class Coat:
    """Something nested.

    Attributes:
        colour: Of the coat.
    """

    colour: str = "red"


@dataclass(frozen=True)
class Walk(Preset):
    """All kinds of fields.

    Attributes:
        steps, rests: How many, of each.
        gait: `"slow"` or `"fast"`.

    Notes:
        none: Of this.
    """

    steps: Count = 3
    rests: Natural = 0
    gait: Literal["slow", "fast"] = "slow"
    stride: Positive = 0.5
    load: NonNegative | None = None
    rise: OpenFraction = 0.5
    slope: float = 0.0
    alone: bool = True
    name: str = "a"
    widths: tuple[Count, ...] = (1, 2)
    seed: Seed = 0
    coat: Coat = Coat()

    def check(self) -> None:
        if self.rests > self.steps:
            raise ValueError(f"rests must be at most {self.steps}; it is {self.rests}")


PRESETS = {"quick": Walk(), "paper": Walk(steps=9)}


def test_values_become_pythons_own_and_come_back_from_a_file() -> None:
    walk = Walk(steps=np.int64(4), stride=np.float32(0.5), alone=np.bool_(False), widths=[np.int8(3)], load=2)
    assert walk == Walk(steps=4, stride=0.5, alone=False, widths=(3,), load=2.0)
    assert Walk(widths=np.array([5, 6])).widths == (5, 6)
    kinds = [type(value) for value in (walk.steps, walk.stride, walk.alone, walk.widths[0], walk.load)]
    assert kinds == [int, float, bool, int, float]
    walk = replace(walk, coat=Coat("blue"))
    assert Walk.from_record(json.loads(json.dumps(walk.record()))) == walk


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1; it is 0"),
        ({"rests": -1}, "rests must be at least 0"),
        ({"rests": 4}, "rests must be at most 3; it is 4"),
        ({"gait": "odd"}, "gait must be one of slow, fast; it is 'odd'"),
        ({"stride": 0.0}, "stride must be positive"),
        ({"load": -1.0}, "load must be finite and at least 0"),
        ({"rise": 1.0}, "rise must lie between 0 and 1, and be neither"),
        ({"slope": float("nan")}, "slope must be finite"),
        ({"alone": 1}, "alone must be True or False"),
        ({"name": None}, "name must be a str"),
        ({"widths": ()}, "widths must not be empty"),
        ({"widths": (1, 0)}, "widths must be at least 1"),
        ({"widths": [[1, 2], [3]]}, "widths must be an integer"),
        ({"widths": "12"}, "widths must be a list or a tuple"),
        ({"widths": np.array(3)}, "widths must be a list or a tuple"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"coat": {"colour": "red"}}, "coat must be a Coat"),
    ],
)
def test_what_does_not_fit_its_annotation_is_refused_by_name(change, message) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        Walk(**change)
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        replace(Walk(), **change)


def test_settings_by_name() -> None:
    assert named("paper", PRESETS) is PRESETS["paper"]
    assert named(Walk(steps=5), PRESETS).steps == 5
    with pytest.raises(ValueError, match="preset must be one of quick, paper; it is 'large'"):
        named("large", PRESETS)
    for wrong in (None, Coat(), 3):
        with pytest.raises(TypeError, match="preset must be one of quick, paper, or a Walk; it is"):
            named(wrong, PRESETS)


def test_fields_are_described_once() -> None:
    assert described(Walk) == dict.fromkeys(("steps", "rests"), "How many, of each.") | {
        "gait": '`"slow"` or `"fast"`.'
    }
    assert described(Coat) == {"colour": "Of the coat."}
    assert described(Preset) == {}


WINGS = [import_module(f"lib.{chapter.name}") for chapter in open_chapters()]


@pytest.mark.parametrize("wing", [wing for wing in WINGS if "PRESETS" in wing.__all__])
def test_every_chapter_has_the_three_sizes_and_describes_its_settings(wing) -> None:
    assert {"quick", "laptop", "paper"} <= set(wing.PRESETS)
    for preset in wing.PRESETS.values():
        said = described(type(preset))
        assert set(said) == set(asdict(preset))


# --- runs


@dataclass(frozen=True)
class LineRun(Run):
    """A line of some width."""

    preset: Walk
    length: float = 0.0
    steps: np.ndarray = ()

    preset_class = Walk

    def facts(self) -> dict[str, Any]:
        return {"inputs": self.model.in_features}

    @staticmethod
    def network(preset: Any, facts: dict[str, Any]) -> nn.Module:
        return nn.Linear(facts["inputs"], preset.steps)


def line(diverged: bool = False) -> LineRun:
    return LineRun(nn.Linear(2, 3), np.arange(4.0), np.array([0.5, 1.5]), diverged, Walk(), 2.5, np.arange(2))


@pytest.mark.parametrize("diverged", [False, True])
def test_a_run_comes_back_from_its_file_and_is_shown_as_a_table(diverged, tmp_path) -> None:
    run = line(diverged)
    run.save(tmp_path / "network.npz")
    again = LineRun.load(tmp_path / "network.npz")
    assert torch.equal(again.model.weight, run.model.weight)
    assert not again.model.training
    assert (again.preset, again.diverged, again.length) == (run.preset, diverged, 2.5)
    for name in ("losses", "scores", "steps"):
        np.testing.assert_array_equal(getattr(again, name), getattr(run, name))
    assert again.steps.dtype == np.int64
    assert again.lines() == ["   epoch   test accuracy", "       1          0.5000", "       2          1.5000"]
    assert replace(again, scores=np.empty(0)).lines() == []


def test_what_is_no_such_run_is_refused(tmp_path) -> None:
    path = tmp_path / "network.npz"
    line().save(path)
    Run(nn.Linear(2, 3), np.ones(1), np.ones(1), diverged=False, preset=Walk(seed=5)).save(tmp_path / "plain.npz")
    with pytest.raises(ValueError, match=r"plain\.npz holds no network"):
        LineRun.load(tmp_path / "plain.npz")
    with np.load(path) as stored:
        np.savez(path, **{name: values for name, values in stored.items() if name != "scores"})
    with pytest.raises(ValueError, match=r"holds no LineRun: .*scores"):
        LineRun.load(path)


def test_a_folder_is_taken_when_all_was_looked_at(tmp_path) -> None:
    data = torch.utils.data.TensorDataset(torch.zeros(8, 2), torch.zeros(8, dtype=torch.long))
    options = {"batch_size": 4, "device": "cpu", "precision": "float32", "every": None, "workers": 0}

    def task():
        return nn.Linear(2, 2), data, None

    def broken():
        raise ValueError("no data")

    for make, change in ((broken, {}), (task, {"batch_size": 9}), (task, {"every": 0}), (task, {"device": "gpu"})):
        with pytest.raises(ValueError, match=r"no data|must be"):
            prepare(Walk(), tmp_path, make, **{**options, **change})
        assert not list(tmp_path.iterdir())
    model, train, test, per_epoch = prepare(Walk(), tmp_path, task, **options)
    assert (type(model), train, test, per_epoch) == (nn.Linear, data, None, 2)
    assert held_experiment(tmp_path, Walk().record()) == {}
    with pytest.raises(ValueError, match="begun with seed = 0, and 1"):
        prepare(Walk(seed=1), tmp_path, broken, **options)


# --- pieces of work


def powers(base: int, most: int) -> dict[str, Any]:
    return {"all": np.float64(base) ** np.arange(most), "last": base**most}


WORK = [({"base": base, "most": 3}, (base, 3)) for base in (2, 3, 5)]


def test_pieces_with_a_folder_and_without_are_the_same(tmp_path) -> None:
    alone, kept = (Pieces(folder).compute(powers, WORK, "powers") for folder in (None, tmp_path))
    for results in (alone, kept, Pieces(tmp_path).compute(powers, WORK, "powers"), Pieces(tmp_path).load(WORK)):
        assert [each["last"] for each in results] == [8, 27, 125]
        assert type(results[0]["last"]) is int
        np.testing.assert_array_equal(results[2]["all"], [1, 5, 25])
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_surrounding_configuration_decides_where_the_work_runs(backend: str, tmp_path) -> None:
    with parallel_config(backend=backend, n_jobs=2):
        found = Pieces(tmp_path).compute(powers, WORK, "powers")
    assert [each["last"] for each in found] == [8, 27, 125]


def test_what_was_interrupted_goes_on_where_it_stopped(tmp_path) -> None:
    here = sys.modules[__name__]
    with interrupt_at(2, here, "powers"):
        Pieces(tmp_path).compute(here.powers, WORK, "powers")
    with pytest.raises(ValueError, match="must hold all 3 pieces; 1 are missing"):
        Pieces(tmp_path).load(WORK)
    with interrupt_at(1, here, "powers"):  # one piece is left
        Pieces(tmp_path).compute(here.powers, WORK, "powers")
        here.powers(0, 0)
    assert len(Pieces(tmp_path).load(WORK)) == 3


def test_workers_share_a_folder(tmp_path) -> None:
    pieces = Pieces(tmp_path)
    assert [each["last"] for each in pieces.compute(powers, WORK, "powers", shard=(0, 2))] == [8, 125]
    assert len(list(tmp_path.iterdir())) == 2
    assert [each["last"] for each in pieces.compute(powers, WORK, "powers", shard=(1, 2))] == [27]
    assert len(pieces.load(WORK)) == 3
    for wrong in ((2, 2), (-1, 2), (0,), 3, "0/2", (0.5, 2)):
        with pytest.raises((TypeError, ValueError), match="shard must be"):
            pieces.compute(powers, WORK, "powers", shard=wrong)


def test_other_settings_are_other_pieces_and_damaged_ones_are_named(tmp_path) -> None:
    pieces = Pieces(tmp_path)
    pieces.compute(powers, WORK, "powers")
    other = [({"base": 2, "most": 4}, (2, 4))]
    assert pieces.compute(powers, other, "powers")[0]["last"] == 16
    assert pieces.path({"most": 3, "base": 2}) == pieces.path(WORK[0][0])
    file = pieces.path(WORK[0][0])
    file.write_bytes(file.read_bytes()[:-80])
    for again in (lambda: pieces.load(WORK), lambda: pieces.compute(powers, WORK, "powers")):
        with pytest.raises(ValueError, match=rf"{file.name} is damaged.*delete it"):
            again()
    file.unlink()
    assert pieces.compute(powers, WORK, "powers")[0]["last"] == 8


def test_a_piece_that_is_known_is_not_computed(tmp_path) -> None:
    for pieces, last in ((Pieces(tmp_path), -1), (Pieces(None), 8)):
        pieces.keep(WORK[0][0], {"last": -1, "all": [1]})
        assert pieces.compute(powers, WORK[:1], "powers")[0]["last"] == last


def test_a_folder_that_cannot_be_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ValueError, match="folder must be a folder"):
        Pieces(tmp_path / "file")
    assert not Pieces(tmp_path / "new").path(WORK[0][0]).exists()
    with pytest.raises(ValueError, match="3 are missing"):
        Pieces(tmp_path / "new").load(WORK)
    assert not (tmp_path / "new").exists()
