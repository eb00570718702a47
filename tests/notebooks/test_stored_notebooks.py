"""What is committed as an executed notebook is one: complete, in order, small, with pictures and words."""

import ast
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 18
SKIPPED_COMPARISONS = 0


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return json.loads(request.param.read_text())


def code_cells(notebook) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_open_chapter_has_its_notebook() -> None:
    from lib.chapters import open_chapters

    assert {path.name for path in PATHS} == {"00_start_here.ipynb", *(one.notebook for one in open_chapters())}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_file_is_small_and_plain(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    notebook = json.loads(path.read_text())
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_cells_ran_in_order_without_errors(notebook) -> None:
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", output.get("text")


def test_cells_are_short_and_have_stable_names(notebook) -> None:
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    for cell in notebook["cells"]:
        assert re.fullmatch(r"[a-z][a-z0-9-]*", cell["id"]), f"{cell['id']} is a random name"
    for cell in code_cells(notebook):
        assert len("".join(cell["source"]).splitlines()) <= LONGEST_CELL, cell["id"]


def test_no_comparison_is_skipped(notebook) -> None:
    tags = [tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", []) if tag.startswith("nbval")]
    marks = [cell["id"] for cell in code_cells(notebook) if "NBVAL" in "".join(cell["source"])]
    assert len(tags) + len(marks) <= SKIPPED_COMPARISONS


def test_widgets_and_pictures_come_with_words(notebook) -> None:
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "application/vnd.jupyter.widget-view+json" in data:
                words = "".join(data["text/plain"])
                assert "image/png" in data or len(words) > 200, f"{cell['id']}: neither a still picture nor questions"
                assert len(data.get("image/png", "")) * 3 / 4 < 81_000, f"{cell['id']}: its still is over 80 kB"
            if "image/png" in data:
                assert "text/plain" in data
                alt = output["metadata"].get("image/png", {}).get("alt", "")
                assert len(alt) > 20, f"{cell['id']}: a picture without words"


def test_no_pointers_timings_or_machine_paths_are_stored(notebook) -> None:
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            texts = [
                output.get("text", ""),
                *(output.get("data", {}).get(kind, "") for kind in ("text/plain", "text/html")),
            ]
            text = "".join("".join(piece) for piece in texts)
            assert not re.search(r"0x[0-9a-f]{6,}|/tmp/|/home/|/root/", text), cell["id"]


def imports_of_private_names(source: str) -> list[str]:
    """What a cell imports of `lib` but a public name of the package, of a module of the ground floor, or of a wing."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("lib.")]
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "lib":
            public = import_module(node.module).__all__ if node.module.count(".") < 2 else ()
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in public]
    return found


def test_notebooks_define_no_class_and_import_nothing_but_public_names(notebook) -> None:
    for cell in code_cells(notebook):
        source = "".join(cell["source"])
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(source))), cell["id"]
        assert imports_of_private_names(source) == [], cell["id"]


def test_the_guard_sees_a_name_that_is_not_public() -> None:
    public = "import lib, torch\nfrom lib import flood\nfrom lib.flood import explorers\nfrom lib.style import show"
    assert imports_of_private_names(public) == []
    for private in ("lib.flood.solver.LocalInertialSolver", "lib.flood.solver", "lib.style._CELL", "lib.compiling"):
        module, _, name = private.rpartition(".")
        assert imports_of_private_names(f"def late():\n    from {module} import {name}") == [private]
    assert imports_of_private_names("import lib.flood as f") == ["lib.flood"]


@pytest.mark.parametrize("path", [path for path in PATHS if not path.name.startswith("00")], ids=lambda path: path.stem)
def test_a_chapter_shows_all_its_claims_and_explorers(path: Path) -> None:
    from lib.chapters import chapter
    from lib.claims import ledger
    from lib.explorer import all_explorers

    name = path.stem.split("_", 1)[1]
    source = "\n".join("".join(cell["source"]) for cell in code_cells(json.loads(path.read_text())))
    for claim in () if chapter(name).lesson else ledger(name):  # a lesson shows them all in its ledger, most only there
        assert f'claims.show("{claim.id}")' in source, f"{claim.id} is not shown"
    assert "claims.table()" in source
    for key, explorer in all_explorers().items():
        if key.startswith(f"{name}."):
            assert f"explorers.{explorer.__name__}(" in source, f"{explorer.__name__} is not shown"
