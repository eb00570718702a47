"""Who may import whom: the contracts catch violations that are planted in a copy of the package."""

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Where an import is planted, and what must be said of it below which contract.
PLANTED = [
    ("training.py", "lib.flood.pooling", "never the other way round", "lib.training -> lib.flood.pooling"),
    ("four_bit/packing.py", "lib.flood.pooling", "never the other way round", "four_bit.packing -> lib.flood.pooling"),
    ("somewhere.py", "math", "never the other way round", "not listed as layers: - lib.somewhere"),
    ("flood/pooling.py", "lib.flood.claims.solver", "nobody imports claims", "pooling -> lib.flood.claims.solver"),
    ("flood/explorers.py", "lib.flood.commands", "nobody imports claims", "explorers -> lib.flood.commands"),
    ("flood/pooling.py", "lib.claims", "mathematics knows no ledger", "lib.flood.pooling -> lib.claims"),
    ("flood/pooling.py", "matplotlib.pyplot", "mathematics draws nothing", "lib.flood.pooling -> matplotlib"),
    ("flood/pooling.py", "lib.flood.downsampler", "no cycles inside a wing", "pooling -> .downsampler"),
]


def copy(folder: Path, *left_out: str) -> None:
    """The package and its contracts."""
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("data", "__pycache__", *left_out))
    shutil.copy(ROOT / "pyproject.toml", folder)


def broken_contracts(folder: Path) -> list[tuple[str, str]]:
    """Of each contract that is broken its name, and what is said of it (each also with what stands beside it)."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    kept, _, broken = " ".join(done.stdout.split()).partition("Broken contracts")
    assert "Contracts: " in kept, done.stdout + done.stderr
    return list(pairwise(re.split("[- ]{20,}", broken)))


def test_planted_violations_are_caught(tmp_path: Path) -> None:
    copy(tmp_path)
    assert broken_contracts(tmp_path) == []
    for name, module, *_ in PLANTED:
        with (tmp_path / "lib" / name).open("a") as file:
            file.write(f"\nimport {module}\n")
    broken = broken_contracts(tmp_path)
    for _, _, contract, said in PLANTED:
        assert any(contract in name and said in text for name, text in broken), (said, broken)
