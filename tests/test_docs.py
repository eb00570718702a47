"""README, docs/ and CITATION.cff say what is really there."""

import re
from pathlib import Path

import pytest
import yaml

from lib.chapters import open_chapters
from tools import docs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()


@pytest.mark.parametrize("name", docs.PAGES)
def test_what_the_tool_writes_is_up_to_date(name: str) -> None:
    assert not docs.is_stale(name), f"python tools/docs.py {name} writes it anew"


def test_the_readme_is_short_and_the_two_commands_come_first() -> None:
    assert len(README.splitlines()) <= 150
    first_code = README.index("```")
    assert first_code < README.index("make lab") < README.index("make test") < README.index("```", first_code + 3)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_and_commands_exist(path: Path) -> None:
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z]+)`", text)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_python_examples_of_the_readme_run() -> None:
    """Those of docs/chapters.md are the wings' docstrings, which run as doctests."""
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, {})


def test_every_page_of_docs_is_named_in_the_readme() -> None:
    for path in PAGES[1:]:
        assert f"({path.relative_to(ROOT)})" in README


def test_every_open_chapter_can_be_cited_and_has_an_example_of_use() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["references"][0]["authors"][2] == {"family-names": "Shpigel Nacson", "given-names": "Mor"}
    for one in open_chapters():
        assert f"from lib.{one.name} import" in docs.chapters()


@pytest.mark.parametrize(
    "path", [ROOT / ".pre-commit-config.yaml", *ROOT.glob(".github/**/*.yml")], ids=lambda p: p.name
)
def test_what_other_tools_read_is_yaml(path: Path) -> None:
    assert yaml.safe_load(path.read_text())
