"""Slides of a chapter's core path, from its stored notebook: a slide for each part, further cells below it.

    python tools/slides.py [--reveal URL_OR_FOLDER] notebooks/02_edge_of_stability.ipynb

writes slides/02_edge_of_stability.slides.html. A browser fetches reveal.js and MathJax from the network when it shows
them; `--reveal` names a copy of reveal.js instead. Arrow keys go through them, s opens the speaker's view.
"""

import argparse
import re
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter

from lib.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"


def core_path(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The cells before "In depth": parts begin slides, stills stand for live figures, folded text is left out."""
    kept = nbformat.v4.new_notebook(metadata=notebook.metadata)
    for cell in notebook.cells:
        if re.search(r"^## In depth", cell.source, re.MULTILINE):
            break
        if cell.cell_type == "markdown":
            kept.cells += _slides(cell)
            continue
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET, None)
        kept.cells.append(_typed(cell, "subslide" if kept.cells[-1].cell_type == "code" else "fragment"))
    return kept


def _slides(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """A markdown cell, cut where a part begins; hints and solutions stay in the notebook."""
    text = re.sub(r"<details>.*?</details>\s*", "", cell.source, flags=re.DOTALL)
    pieces = [piece.strip() for piece in re.split(r"^(?=##? )", text, flags=re.MULTILINE)]
    kinds = ["slide" if piece.startswith("#") else "subslide" for piece in pieces]
    return [
        _typed(nbformat.v4.new_markdown_cell(piece), kind) for piece, kind in zip(pieces, kinds, strict=True) if piece
    ]


def _typed(cell: nbformat.NotebookNode, kind: str) -> nbformat.NotebookNode:
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


def slides(path: Path, reveal: str = "", folder: Path = ROOT / "slides") -> Path:
    """Write the slides of one notebook; the file."""
    exporter = SlidesExporter(reveal_scroll=True, reveal_theme="white", reveal_transition="none")
    if reveal:
        exporter.reveal_url_prefix = reveal
    text, _ = exporter.from_notebook_node(core_path(nbformat.read(path, as_version=4)))
    folder.mkdir(exist_ok=True)
    place = folder / f"{path.stem}.slides.html"
    with atomic_path(place) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return place


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reveal", default="", help="where reveal.js is, instead of the network")
    parser.add_argument("notebooks", nargs="+", type=Path)
    arguments = parser.parse_args()
    for notebook in arguments.notebooks:
        print(slides(notebook, arguments.reveal))
