"""What the commands of chapter 03 say."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lib.__main__ import app

SEARCH = "search forgetting --tasks 3 --squares 1 --nullities 1,2 --seeds 0 --starts 2 --steps 5"
SWEEP = "sweep forgetting --amounts 0,90 --seeds 0 --count 100 --tests 50 --width 4 --epochs 1 --cycles 2"


@pytest.mark.parametrize(
    ("words", "heading", "rows"),
    [(SEARCH, "T       k       1 free              2 free", 1), (SWEEP, "degrees       1       2", 2)],
)
def test_the_report_has_a_row_for_each_setting(words: str, heading: str, rows: int, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*words.split(), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    table = done.output.split(heading)[1].strip().splitlines()
    assert len(table) == rows
    shared = CliRunner().invoke(app, [*words.split(), "--out", str(tmp_path), "--shard", "0/2"])
    assert "the same command without --shard" in shared.output
