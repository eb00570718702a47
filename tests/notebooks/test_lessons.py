"""Chapters in the shape of a lesson: the notebook keeps to it, solutions are right, mistakes are helped."""

import copy
import json
import re
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.chapters import open_chapters
from lib.explorer import all_explorers
from lib.lesson import check, predict, quiz
from tests.notebooks import lesson_guards as guards

ROOT = Path(__file__).resolve().parents[2]
LESSONS = [one for one in open_chapters() if one.lesson]
CASES = pytest.mark.parametrize("chapter", LESSONS, ids=lambda one: one.name)


def cells_of(chapter) -> list[dict]:
    return json.loads((ROOT / "notebooks" / chapter.notebook).read_text())["cells"]


def lesson_of(chapter):
    return import_module(f"lib.{chapter.name}.lesson")


@CASES
@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda guard: guard.__name__)
def test_the_notebook_keeps_to_the_shape(chapter, guard) -> None:
    assert list(guard(cells_of(chapter))) == []


@CASES
def test_terms_are_defined_before_they_are_used(chapter) -> None:
    assert list(guards.terms(cells_of(chapter), lesson_of(chapter).TERMS)) == []


def planted(**changes):
    """The cells of a chapter with other sources or outputs in some of them."""
    cells = copy.deepcopy(cells_of(LESSONS[0]))
    for place, (key, value) in changes.items():
        cells[int(place.strip("_"))][key] = value
    return cells


def test_every_guard_sees_a_planted_fault() -> None:
    code = next(str(place) for place, cell in enumerate(cells_of(LESSONS[0])) if cell["cell_type"] == "code")
    long = planted(**{code: ("source", ["x = 1\n"] * 13)})
    assert "has more than 12 lines" in "".join(guards.sizes(long))
    extra = {"cell_type": "markdown", "id": "extra", "metadata": {}, "source": "more"}
    assert "the core path has" in "".join(guards.sizes([extra] * 41 + cells_of(LESSONS[0])))
    assert "in depth has" in "".join(guards.sizes(cells_of(LESSONS[0]) + [extra] * 26))
    twice = [{**extra, "cell_type": "code", "source": 'claims.show("a")'}] * 2 + cells_of(LESSONS[0])
    assert "follows another badge" in "".join(guards.badges(twice))
    table = [{**extra, "cell_type": "code", "source": "claims.table()"}, *cells_of(LESSONS[0])]
    assert "before the ledger" in "".join(guards.badges(table))
    for text in ("we remember it", "see arXiv 2305.13064", "as in Cohen et al. 2021"):
        assert len(list(guards.words([{**extra, "source": text}]))) == 1
    shown = {**extra, "cell_type": "code", "outputs": [{"output_type": "stream", "text": "it holds: True\n"}]}
    assert "shows only" in "".join(guards.numbers([shown]))
    early = [extra, {**extra, "source": "the cobweb turns"}, {**extra, "source": "a **cobweb** is"}]
    assert list(guards.terms(early, ("cobweb", "web of lies"))) == [
        "extra uses 'cobweb' before extra defines it",
        "'web of lies' is defined nowhere",
    ]
    assert len(list(guards.shape([extra]))) >= 10


def solutions(chapter) -> dict[str, str]:
    """The code in the folded solution that follows each check, by the exercise's name."""
    found: dict[str, str] = {}
    cells = cells_of(chapter)
    for cell, after in pairwise(cells):
        for name in re.findall(r'check\("\w+\.(\w+)"', guards.source(cell) if cell["cell_type"] == "code" else ""):
            folded = guards.source(after).partition("<summary>Solution</summary>")[2]
            found[name] = folded.partition("```python\n")[2].partition("```")[0]
    return found


@CASES
def test_folded_solutions_pass_and_mistakes_are_helped(chapter) -> None:
    shown, exercises = solutions(chapter), lesson_of(chapter).EXERCISES
    assert shown.keys() == exercises.keys()
    for name, exercise in exercises.items():
        names = {"np": np, "torch": torch, "eos": import_module(f"lib.{chapter.name}")}
        exec(shown[name], names)
        checked = check(f"{chapter.name}.{name}", names[name])
        assert checked.verdict == "✓", f"the folded solution of {name}: {checked}"
        assert check(f"{chapter.name}.{name}", lambda *_: None).verdict == "○"
        assert len(exercise.mistakes) >= 2
        for mistake in exercise.mistakes:
            checked = check(f"{chapter.name}.{name}", mistake.answer)
            assert checked.verdict == "✗"
            assert mistake.helps in checked.words


@CASES
def test_six_questions_on_three_goals(chapter) -> None:
    asked = quiz(chapter.name)
    assert [one.question.goal for one in asked.asked] == sorted(one.question.goal for one in asked.asked)
    assert {one.question.goal for one in asked.asked} == {1, 2, 3}
    assert len(asked.asked) == 6
    for one in asked.asked:
        place = next(number for number, option in enumerate(one.question.options) if option.right)
        one.answer(place)
        assert "Right." in one.said.value
    assert "6 of 6" in asked.score.value
    places = [[option.right for option in one.question.options].index(True) for one in asked.asked]
    assert len(set(places)) > 1, "the right answer always stands at the same place"


@CASES
def test_every_prediction_hides_its_explorer_until_it_is_answered(chapter) -> None:
    source = "\n".join(guards.source(cell) for cell in cells_of(chapter) if cell["cell_type"] == "code")
    explorers = {type_.__name__: type_ for type_ in all_explorers().values()}
    pairs = re.findall(r'predict\("\w+\.(\w+)", explorers\.(\w+)\(', source)
    assert {name for name, _ in pairs} == lesson_of(chapter).PREDICTIONS.keys()
    for name, explorer in pairs:
        for answered in (True, False):
            asked = predict(f"{chapter.name}.{name}", explorers[explorer]())
            assert asked.explorer not in asked.children
            asked.asked.answer(0) if answered else asked.skip()
            assert asked.explorer in asked.children
            assert all(button.disabled for button in asked.asked.buttons)
            assert asked.asked.question.right.why.split("'")[0][:30] in asked.asked.said.value


@CASES
def test_every_explorer_has_tries(chapter) -> None:
    for key, explorer in all_explorers().items():
        if key.startswith(f"{chapter.name}."):
            assert len(explorer.tries) >= 2, f"{explorer.__name__} has no tries"
