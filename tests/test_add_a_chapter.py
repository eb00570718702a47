"""A new chapter needs its wing, one entry of the registry and one line of layer order: an eleventh is added to a copy.

Its files are the shortest of each kind that there can be: an example to copy from.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.chapters import CHAPTERS
from tests.test_contracts import broken_contracts, copy

ROOT = Path(__file__).resolve().parents[1]

ENTRY = """
    Chapter(
        number=11,
        name="pendulum",
        title="The pendulum",
        promise="Wide swings take longer than small ones.",
        paper="Horologium oscillatorium",
        authors=("Huygens, Christiaan",),
        conference="Paris",
        year=1673,
        arxiv="0000.00000",
        road="models in the world",
        needs="calculus",
        builds_on=("flood",),
        minutes=20,
    ),
"""

WING = {
    "__init__.py": '''
"""Chapter 11: the pendulum (Huygens, Paris 1673).

Examples:
    >>> from lib.pendulum import period
    >>> round(period(1.0, 90.0), 3)
    2.368
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
''',
    "__init__.pyi": """
from . import explorers as explorers
from .swings import period as period
""",
    "swings.py": '''
"""How long a swing takes."""

import math

from scipy.special import ellipk

from lib.validation import number_between, positive_number

__all__ = ["period"]


def period(length: float, angle: float) -> float:
    """Seconds that a pendulum of `length` metres takes to swing from `angle` degrees and back.

    Examples:
        >>> round(period(1.0, 1e-3), 3)
        2.006
    """
    half = math.radians(number_between("angle", angle, 0, 179)) / 2
    return 4 * math.sqrt(positive_number("length", length) / 9.81) * float(ellipk(math.sin(half) ** 2))
''',
    "claims/__init__.py": '''
"""The claims of chapter 11: of small swings."""

from lib.pendulum.claims import small

TOPICS = (small,)
''',
    "claims/small.py": '''
"""Small swings."""

import math

from lib.claims import Evidence, at_most, claim
from lib.pendulum.swings import period


@claim(source="Part IV", statement="Small swings of all widths take the same time.", paper="2π sqrt(l / g)")
def small_swings_take_the_same_time() -> Evidence:
    wanted = 2 * math.pi * math.sqrt(1 / 9.81)
    return at_most([abs(period(1.0, angle) / wanted - 1) for angle in (0.1, 0.5, 1.0)], 1e-4)
''',
    "explorers.py": '''
"""The live figures of chapter 11."""

import numpy as np

from lib.explorer import Explorer, Panel, Slider, axis, line
from lib.pendulum.swings import period


class SwingExplorer(Explorer):
    """The time of a swing over its width."""

    name = "swing"
    title = "Wide swings take longer"
    caption = "Longer pendulums are slower, and all are slower when they swing wide."
    declared = {"length": Slider("length (m)", 0.1, 2.0, 0.1, 1.0)}

    panels = (Panel("time of a swing", axis("width (degrees)", (0, 170)), axis("seconds", (0, 8))),)
    traces = (line("time", "blue", x="angle", y="time"),)

    def compute(self, length):
        angles = np.linspace(1, 170, 100)
        return {"angle": angles, "time": np.array([period(length, angle) for angle in angles])}
''',
    "commands.py": '''
"""What chapter 11 adds to the command line: `python -m lib swing pendulum`."""

from typing import Annotated

import typer

__all__ = ["COMMANDS"]


def swing(angle: Annotated[float, typer.Option(help="Width of the swing, in degrees.")] = 10.0) -> None:
    """Say how long a swing takes."""
    from lib.pendulum.swings import period

    typer.echo(f"{period(1.0, angle):.3f} s")


#: verb -> the function behind it
COMMANDS = {"swing": swing}
''',
}

LOOK = """
import doctest, sys
import lib
from typer.testing import CliRunner
from lib.__main__ import app
from lib.claims import run_claims
from lib.explorer import all_explorers
from lib.overview import ChapterTable, chapter_map
sys.path.insert(0, sys.argv[1])
import docs

assert doctest.testmod(lib.pendulum) == (0, 2)
(result,) = run_claims(["11"])
assert result.claim.id == "small-swings-take-the-same-time" and result.evidence.holds
assert abs(all_explorers()["pendulum.swing"](length=2.0).data["time"][0] - 2.837) < 1e-3
assert "swing" in CliRunner().invoke(app, ["--help"]).output
assert CliRunner().invoke(app, ["swing", "pendulum", "--angle", "90"]).output == "2.368 s\\n"
assert "11\\nThe\\npendulum" in [text.get_text() for text in chapter_map().axes[0].texts]
assert '<a href="11_pendulum.ipynb">' in ChapterTable()._repr_html_()
assert "[**The pendulum**](notebooks/11_pendulum.ipynb)" in docs.chapter_table()
assert "from lib.pendulum import period" in docs.chapters()
assert "Horologium oscillatorium" in docs.citation()
"""


def build(folder: Path, *left_out: str) -> None:
    """A copy of the package with a chapter more, without what is left out."""
    copy(folder, *left_out)
    for name, text in WING.items():
        path = folder / "lib" / "pendulum" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip())
    insert(folder / "lib" / "chapters.py", "\n)\n\n\ndef open_chapters", ENTRY.rstrip())
    insert(folder / "pyproject.toml", '\n    "flood",', '\n    "pendulum",')


def insert(path: Path, before: str, text: str) -> None:
    whole = path.read_text()
    assert whole.count(before) == 1
    path.write_text(whole.replace(before, text + before))


@pytest.mark.slow
def test_a_new_chapter_is_seen_everywhere(tmp_path: Path) -> None:
    build(tmp_path, *(one.name for one in CHAPTERS))  # it stands alone: the others would only take time
    command = [sys.executable, "-c", LOOK, ROOT / "tools"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_new_chapter_keeps_the_contracts(tmp_path: Path) -> None:
    build(tmp_path)
    assert broken_contracts(tmp_path) == []
