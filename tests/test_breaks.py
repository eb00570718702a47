"""Every claim is seen to fail when the thing it speaks of is broken.

`tests/<chapter>/breaks.py` holds the ways to break it: BREAKS, by claim. It may name in SETTING what is set
differently for all of them, in KEEP what a claim remembers and no break touches, in BEFORE how to have that remembered
before anything is broken, and in FORGET what code outside of the claims remembers of a break.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import unwrap
from pkgutil import walk_packages
from types import CodeType, FunctionType, ModuleType
from typing import Any
from unittest.mock import Mock

import pytest

from lib.chapters import open_chapters
from lib.claims import ledger

CHAPTERS = [chapter.name for chapter in open_chapters()]
BREAKS = {chapter: import_module(f"tests.{chapter}.breaks") for chapter in CHAPTERS}
CASES = [
    (chapter, claim, number)
    for chapter, module in BREAKS.items()
    for claim, breaks in module.BREAKS.items()
    for number in range(len(breaks))
]


def remembered(chapter: str, breaks: ModuleType) -> Iterator[Any]:
    """The functions of the chapter's claims that keep what they measured, and those that its breaks name."""
    package = import_module(f"lib.{chapter}.claims")
    for module in walk_packages(package.__path__, f"{package.__name__}."):
        for value in vars(import_module(module.name)).values():
            if hasattr(value, "cache_clear") and value.__module__ == module.name:
                yield value
    yield from getattr(breaks, "FORGET", ())


@contextmanager
def nothing_remembered(chapter: str, breaks: ModuleType) -> Iterator[None]:
    """A break must not meet what was measured before it, nor leave anything behind."""
    getattr(breaks, "BEFORE", lambda: None)()
    caches = [each for each in remembered(chapter, breaks) if each not in getattr(breaks, "KEEP", ())]
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def names_used(function: Any) -> set[str]:
    """The names in a function, and in those of its module that it calls."""
    module, found, waiting = sys.modules[function.__module__], set(), [unwrap(function).__code__]
    while waiting:
        code = waiting.pop()
        values = [*code.co_consts, *(unwrap(getattr(module, name, None)) for name in set(code.co_names) - found)]
        own = [each for each in values if isinstance(each, FunctionType) and each.__module__ == module.__name__]
        waiting += [each.__code__ for each in own] + [each for each in values if isinstance(each, CodeType)]
        found |= set(code.co_names)
    return found


def set_differently(chapter: str) -> list[str]:
    """The claims that use what SETTING replaces in their module, other than by what remembers the same."""
    seen = Mock(spec=pytest.MonkeyPatch)
    getattr(BREAKS[chapter], "SETTING", lambda _: None)(seen)
    replaced = {
        (target.__name__, name)
        for (target, name, value), _ in seen.setattr.call_args_list
        if not getattr(value, "__name__", "").startswith("remembered")
    }
    return [
        one.id
        for one in ledger(chapter)
        if replaced & {(one.measure.__module__, name) for name in names_used(one.measure)}
    ]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_claim_has_breaks(chapter: str) -> None:
    breaks = BREAKS[chapter].BREAKS
    assert set(breaks) == set(ledger(chapter).claims)
    assert [claim for claim, ways in breaks.items() if len(ways) < 2] == []


@pytest.mark.slow
@pytest.mark.parametrize(("chapter", "claim", "number"), CASES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_broken_implementation_is_noticed(chapter: str, claim: str, number: int) -> None:
    breaks = BREAKS[chapter]
    with nothing_remembered(chapter, breaks), pytest.MonkeyPatch.context() as monkeypatch:
        if hasattr(breaks, "SETTING"):
            breaks.SETTING(monkeypatch)
        breaks.BREAKS[claim][number](monkeypatch)
        evidence = ledger(chapter)[claim].check().evidence
    assert not evidence.holds, evidence.measured


@pytest.mark.slow
@pytest.mark.parametrize(("chapter", "claim"), [(each, claim) for each in CHAPTERS for claim in set_differently(each)])
def test_the_setting_alone_breaks_nothing(chapter: str, claim: str) -> None:
    """A claim that fails without any break would let every break pass for one that was noticed."""
    with nothing_remembered(chapter, BREAKS[chapter]), pytest.MonkeyPatch.context() as monkeypatch:
        BREAKS[chapter].SETTING(monkeypatch)
        ledger(chapter)[claim].check().require()
