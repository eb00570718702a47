"""Every public name, one wrong argument at a time: a clear refusal before any work, no silent or broken answer."""

import pytest

from lib.chapters import open_chapters
from tests.bad_input import counted

GROUND_FLOOR = ("augmentation", "claims", "datasets", "files", "models", "parallel", "training", "validation")
PLACES = [f"lib.{chapter.name}" for chapter in open_chapters()]
# over all ten chapters and the ground floor at most 20
SILENT = 1


@pytest.mark.parametrize("place", [*PLACES, *(f"lib.{name}" for name in GROUND_FLOOR)])
def test_wrong_arguments_are_refused_by_name(place: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    classes, found = counted(place)
    for kind in ("hang", "mutated argument", "valid input refused", "global random state moved", "shares memory"):
        assert not classes[kind], [outcome for outcome in found if outcome[0] == kind]
    assert classes["not repeatable"] <= 1, found
    assert classes["silent"] <= SILENT, [outcome for outcome in found if outcome[0] == "silent"]
    other = [outcome for outcome in found if outcome[0] == "another kind of error"]
    assert len(other) <= 0.05 * classes["clear refusal"], other
