"""Every command, with one option given a bad value at a time: one line of error, exit code 2, before any work."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from typer.testing import CliRunner

from lib.__main__ import app, claims
from lib.chapters import open_chapters
from lib.flood.geo import sample_geotiff

#: verb and chapter -> the words of a call that is right
CALLS = {
    "claims": ["1"],
    "train four-bit": ["--out", "new"],
    "train alias-free": ["--out", "new"],
    "train flood": ["--out", "new"],
    "train edge-of-stability": ["--out", "new"],
    "sweep four-bit": ["--out", "new", "--way", "FP32"],
    "sweep initialization-shape": ["--out", "new"],
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
    ("lib.initialization_shape.sweep", "_run_unit"),
    ("lib.alias_free.tables", "_counted"),
    ("lib.alias_free.auditing", "audit"),
    ("lib.flood.commands", "_run"),
]
VALUES = {int: ("0", "-3", "many"), float: ("nan", "inf", "-1"), str: ("nonsense",)}
#: values that are right where the general rule would have them wrong
RIGHT = {
    ("workers", "0"), ("seed", "0"), ("fine_tuning", "0"), ("margin", "0"), ("smoothness", "0"), ("hindsight", "0"),
    ("fill", "-1"), ("nodata", "-1"), ("nodata", "nan"),
}  # fmt: skip


class Worked(BaseException):
    """The work has begun."""


def commands() -> dict[str, Callable[..., None]]:
    """Every command by its words."""
    found = {"claims": claims}
    for chapter in open_chapters():
        name = f"lib.{chapter.name}.commands"
        for verb, function in import_module(name).COMMANDS.items() if find_spec(name) else ():
            found[f"{verb} {chapter.name.replace('_', '-')}"] = function
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


def cases(words: str) -> Iterator[tuple[str, str]]:
    """Pairs of an option and what it must not be."""
    for name, kind in get_type_hints(commands()[words]).items():
        if name not in ("return", "chapters"):
            option = "--" + name.removesuffix("_file").replace("_", "-")
            yield from ((option, value) for value in bad_values(words, name, kind) if (name, value) not in RIGHT)


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

    def work(*_, **__):
        raise Worked

    for module, name in WORK:
        monkeypatch.setattr(import_module(module), name, work)
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
def test_right_calls_come_to_their_work(words, monkeypatch, place, tmp_path) -> None:
    def work(*_, **__):
        raise Worked

    for module, name in WORK:
        monkeypatch.setattr(import_module(module), name, work)
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
