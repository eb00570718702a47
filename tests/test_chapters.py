"""What the registry says of each chapter is there, and fits together."""

import re
from importlib import import_module

import pytest

from lib.chapters import CHAPTERS, ROADS, Chapter, chapter, open_chapters


def test_chapters_are_numbered_and_found_by_any_name() -> None:
    assert [one.number for one in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))
    assert chapter("01") is chapter("initialization_shape") is chapter("initialization-shape")
    with pytest.raises(ValueError, match=r"chapter must be one of .*'nonsense'"):
        chapter("nonsense")


@pytest.mark.parametrize("one", CHAPTERS, ids=lambda one: one.name)
def test_an_entry_is_complete(one: Chapter) -> None:
    assert one.road in ROADS
    assert set(one.builds_on) <= {before.name for before in CHAPTERS[: one.number - 1]}
    assert all(given and family for given, family in one.people)
    assert re.fullmatch(r"\d{4}\.\d{5}", one.arxiv)


@pytest.mark.parametrize("one", open_chapters(), ids=lambda one: one.name)
def test_what_ships_can_be_made_again(one: Chapter) -> None:
    assert one.headline is not None
    if one.data:
        assert set(import_module(f"lib.{one.name}.shipped").__all__) == set(one.data)
