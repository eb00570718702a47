"""Slides hold the core path of a lesson, with a still picture for each live figure."""

import re
from pathlib import Path

import nbformat

from tools.slides import core_path, slides

ROOT = Path(__file__).resolve().parents[1]


def test_slides_are_the_core_path() -> None:
    path = ROOT / "notebooks" / "02_edge_of_stability.ipynb"
    kept = core_path(nbformat.read(path, as_version=4)).cells
    text = "\n".join(cell.source for cell in kept)
    assert "## 8. Check yourself" in text
    assert not re.search("^## (In depth|Ledger)", text, re.MULTILINE)
    assert "<details>" not in text
    parts = [cell.metadata.slideshow.slide_type for cell in kept if re.match("##? ", cell.source)]
    assert parts == ["slide"] * 9
    outputs = [output.get("data", {}) for cell in kept if cell.cell_type == "code" for output in cell.outputs]
    assert not any("widget" in kind for data in outputs for kind in data)
    assert sum("image/png" in data for data in outputs) >= 6


def test_slides_are_one_page_with_reveal_from_where_one_says(tmp_path) -> None:
    place = slides(ROOT / "notebooks" / "02_edge_of_stability.ipynb", "../reveal.js", tmp_path)
    page = place.read_text()
    assert "../reveal.js/dist/reveal.js" in page
    assert page.count("<section>") > 15
