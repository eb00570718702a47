"""Who may import whom: each contract is seen to catch a violation that is planted in a copy of the package."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: What is planted where, and the contract that must break.
PLANTED = {
    "the ground floor uses a wing": ("training.py", "import lib.flood.pooling", "never the other way round"),
    "a chapter uses a later one": ("four_bit/packing.py", "import lib.flood.pooling", "never the other way round"),
    "a new file without a place": ("somewhere.py", "", "never the other way round"),
    "mathematics asks a claim": ("flood/pooling.py", "import lib.flood.claims.solver", "nobody imports claims"),
    "an explorer uses a command": ("flood/explorers.py", "import lib.flood.commands", "nobody imports claims"),
    "mathematics keeps a ledger": ("flood/pooling.py", "import lib.claims", "mathematics knows no ledger"),
    "mathematics draws": ("flood/pooling.py", "import matplotlib.pyplot", "mathematics draws nothing"),
    "two files use each other": ("flood/pooling.py", "import lib.flood.downsampler", "no cycles"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contracts")
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("data", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def broken_contracts(folder: Path) -> list[str]:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    lines = " ".join(done.stdout.split()).partition("Broken contracts")[0]
    assert "KEPT" in lines, done.stdout + done.stderr
    return [name.rpartition("KEPT")[2].strip() for name in lines.split("BROKEN")[:-1]]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_caught(planted: str, copy: Path) -> None:
    name, line, contract = PLANTED[planted]
    path = copy / "lib" / name
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        broken = broken_contracts(copy)
    finally:
        path.write_text(before) if before is not None else path.unlink()
    assert [each for each in broken if contract in each], broken


def test_the_copy_itself_is_fine(copy: Path) -> None:
    assert broken_contracts(copy) == []
