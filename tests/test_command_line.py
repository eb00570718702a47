"""Every command, with one option given a bad value at a time: one line of error, exit code 2, before any work."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
from unittest.mock import Mock

import numpy as np
import pytest
import typer
from torch import nn
from typer.testing import CliRunner

from lib.__main__ import app, claims
from lib.chapters import open_chapters
from lib.command_line import Option, TrainingCommand
from lib.experiment import Count, Natural, NonNegative, OpenFraction, Positive, Run, Seed
from lib.flood.geo import sample_geotiff
from tests.test_experiment import Coat, Walk

#: verb and chapter -> the words of a call that is right
CALLS = {
    "claims": ["1"],
    "train four-bit": ["--out", "new"],
    "train sparsity": ["--out", "new"],
    "train alias-free": ["--out", "new"],
    "train flood": ["--out", "new"],
    "train edge-of-stability": ["--out", "new"],
    "sweep four-bit": ["--out", "new", "--ways", "FP32"],
    "sweep sparsity": ["--out", "new", "--methods", "dense"],
    "sweep initialization-shape": ["--out", "new"],
    "sweep forgetting": ["--out", "new"],
    "search forgetting": ["--out", "new"],
    "attack alias-free": [],
    "audit alias-free": [],
    "solve flood": ["--tiles", "tiles", "--dx", "8"],
    "simulate flood": ["--dem", "dem.tif", "--out", "depth.tif", "--rain", "10"],
}
#: where the work of a command begins
WORK = [
    ("lib.claims", "run_claims"),
    ("lib.training", "_batches"),
    ("lib.flood.scenarios", "flood_map"),
    ("lib.edge_of_stability.experiment", "_step_size"),
    ("lib.experiment", "_compute"),
    ("lib.alias_free.auditing", "audit"),
    ("lib.flood.commands", "_run"),
]
VALUES = {int: ("0", "-3", "many"), float: ("nan", "inf", "-1"), str: ("nonsense",)}
#: of options that are made from a preset, which reads all of one kind alike
BAD = {Count: "0", Natural: "-3", Seed: "-3", Positive: "0", NonNegative: "-1", OpenFraction: "1", float: "nan"}
BAD |= {int: "-3", bool: None}
#: values that are right where the general rule would have them wrong
RIGHT = {(name, "0") for name in ("margin", "smoothness", "workers", "seed")}
RIGHT |= {("fill", "-1"), ("nodata", "-1"), ("nodata", "nan")}


class Worked(BaseException):
    """The work has begun."""


def commands() -> dict[str, Any]:
    """Every command by its words: a function, or a class that makes its options from a preset."""
    found = {"claims": claims}
    for chapter in open_chapters():
        try:
            made = import_module(f"lib.{chapter.name}.commands").COMMANDS
        except ModuleNotFoundError:
            continue
        found |= {f"{verb} {chapter.name.replace('_', '-')}": command for verb, command in made.items()}
    return found


def bad_values(words: str, name: str, kind: object) -> Sequence[str]:
    """What must be refused as an option's value."""
    kinds = {each for each in (kind, *get_args(kind)) if each in (Path, int, float, str)}
    if Path not in kinds:
        return [*("" for _ in kinds), *(value for each in kinds for value in VALUES[each])]
    if name in ("out", "folder") and not words.startswith("simulate"):
        return "", "a-file", "a-file/below", "/dev/null"
    if name in ("out", "json_file", "html_file", "picture"):
        return "", ".", "a-file/below.tif", "/dev/null"
    return "", "/nope"


def bad_word(hint: Any) -> str | None:
    """What must be refused as an option that is made from such an annotation."""
    if get_origin(hint) in (Union, UnionType):
        return bad_word(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return f"{bad_word(get_args(hint)[0])},1"
    return BAD.get(hint, "nonsense")


def cases(words: str) -> Iterator[tuple[str, str]]:
    """Pairs of an option and what it must not be."""
    command = commands()[words]
    if not isinstance(command, type):
        for name, kind in get_type_hints(command).items():
            if name not in ("return", "chapters"):
                option = "--" + name.removesuffix("_file").replace("_", "-")
                yield from ((option, value) for value in bad_values(words, name, kind) if (name, value) not in RIGHT)
        return
    yield from (("--out", value) for value in bad_values(words, "out", Path))
    yield from (("--preset", value) for value in ("", "nonsense"))
    for option in command("name").options:
        value = "/nope" if option.name == "data_path" else bad_word(option.hint)
        if value is not None:
            yield option.flag, value


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "a-file").write_text("a file")
    (folder / "tiles").mkdir()
    np.save(folder / "tiles" / "one.npy", np.zeros((16, 16)))
    sample_geotiff(folder / "dem.tif", shape=(32, 32))
    return folder


@pytest.fixture
def idle(monkeypatch, place):
    """No work is done, and what there is stays."""
    for module, name in WORK:
        monkeypatch.setattr(import_module(module), name, Mock(side_effect=Worked))
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    yield
    assert sorted(place.rglob("*")) == before


def run(words: str, *more: str):
    """A command with its right words, of which later ones replace those of the same name."""
    given = list(CALLS[words])
    if more and more[0] in given:
        at = given.index(more[0])
        del given[at : at + 2]
    return CliRunner().invoke(app, [*words.split(), *given, *more], env={"COLUMNS": "200"})


def test_every_command_has_a_right_call() -> None:
    assert set(commands()) == set(CALLS)


@pytest.mark.parametrize("words", CALLS)
@pytest.mark.usefixtures("idle")
def test_right_calls_come_to_their_work(words, monkeypatch, place, tmp_path) -> None:
    for name in ("tiles", "dem.tif"):
        (tmp_path / name).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Worked):
        run(words)


@pytest.mark.parametrize("words", CALLS)
@pytest.mark.usefixtures("idle")
def test_bad_values_are_refused_in_one_line_before_the_work(words) -> None:
    for option, value in cases(words):
        done = run(words, option, value)
        assert done.exit_code == 2, (option, value, done.output, done.exception)
        said = re.sub(r"[\s│╭╮╰╯─]+", " ", done.output)
        assert "Error" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("words", [words for words, call in CALLS.items() if "--out" in call])
@pytest.mark.usefixtures("idle")
def test_a_folder_that_cannot_be_written_to_is_refused(words, monkeypatch) -> None:
    # a superuser may write anywhere
    monkeypatch.setattr(os, "access", lambda _, mode, **__: mode == os.R_OK)
    done = run(words)
    assert done.exit_code == 2, (done.output, done.exception)
    assert "must lie in a folder that can be written to" in re.sub(r"[\s│]+", " ", done.output)


# --- commands that are made from a preset

PRESETS = {"quick": Walk(), "paper": Walk(steps=9)}
WALKED: list[Any] = []


def walk(
    preset: str | Walk,
    folder: str | Path | None = None,
    *,
    friends: Sequence[str] = (),
    days: Sequence[int] = (1,),
    jobs: int | None = None,
) -> Run:
    """Walk."""
    WALKED.append((preset, folder, friends, days, jobs))
    return Run(nn.Linear(1, 1), np.ones(5), np.array([0.25]), diverged=preset.steps == 7, preset=preset)


class Train(TrainingCommand):
    """Walk, and write the network."""

    target = "tests.test_command_line:walk"


@pytest.fixture
def invoke(tmp_path):
    made = typer.Typer(add_completion=False)
    made.command(cls=Train, help=Train.__doc__)(lambda: None)
    WALKED.clear()
    return lambda *words: CliRunner().invoke(made, ["--out", str(tmp_path), *words], env={"COLUMNS": "200"})


def test_options_are_the_fields_and_the_parameters(invoke, tmp_path) -> None:
    changed = "--preset paper --widths 2,5 --no-alone --gait fast --colour blue --load none"
    for words in ([], changed.split(), ["--friends", "Ann", "--friends", "Bo, too", "--days", "1,2", "--jobs", "2"]):
        done = invoke(*words)
        assert done.exit_code == 0, done.output
    other = Walk(steps=9, widths=(2, 5), alone=False, gait="fast", coat=Coat("blue"), load=None)
    assert [
        (Walk(), tmp_path, (), (1,), None),
        (other, tmp_path, (), (1,), None),
        (Walk(), tmp_path, ("Ann", "Bo, too"), (1, 2), 2),
    ] == WALKED


def test_a_name_or_a_number_is_read_as_what_it_is() -> None:
    option = Option("fmt", Annotated[str | int, str], "Of rounding.")
    assert [option.read("fp3"), option.read("3")] == ["fp3", 3]


def test_help_is_what_the_docstrings_say(invoke) -> None:
    said = re.sub(r" *[│╭╮╰╯─]+ *", " ", " ".join(invoke("--help").output.split())).replace("<bool> ", "")
    for words in (
        "Walk, and write the network.",
        "--steps INTEGER How many, of each.",
        "--widths INTEGER,INTEGER,…",
        "--alone --no-alone",
        '--gait slow|fast "slow" or "fast".',
        "--colour TEXT Of the coat.",
        "--load NUMBER|none",
        "quick, paper; other options change it.",
    ):
        assert words in said, words


def test_a_run_is_printed_and_written(invoke, tmp_path) -> None:
    done = invoke()
    assert done.output.splitlines()[:2] == ["   epoch   test accuracy", "       1          0.2500"]
    assert (tmp_path / "network.npz").exists()
    (tmp_path / "network.npz").unlink()
    done = invoke("--steps", "7")
    assert done.exit_code == 1
    assert "diverged at step 5" in done.output
    assert not (tmp_path / "network.npz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "many"], "--steps must be an integer; it is 'many'"),
        (["--steps", "none"], "--steps must be an integer"),
        (["--widths", "2/5"], "--widths must be an integer; it is '2/5'"),
        (["--days", "2/5"], "--days must be an integer; it is '2/5'"),
        (["--load", "much"], "--load must be a number"),
        (["--load="], "--load must not be empty"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, message, invoke) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not WALKED


def test_help_imports_no_chapter() -> None:
    code = "import sys; from lib.__main__ import app; app(['train', '--help'], standalone_mode=False); "
    code += "print([name for name in ('torch', 'numba', 'lib.four_bit.experiment') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Train a network" in done.stdout
