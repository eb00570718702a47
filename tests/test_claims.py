"""Every declared claim of every chapter, and the ledger that holds them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lib import claims as ledger_module
from lib.__main__ import app
from lib.chapters import CHAPTERS, chapter, open_chapters
from lib.claims import (
    ClaimDoesNotHold,
    Evidence,
    at_most,
    claim,
    combine,
    decade,
    ledger,
    run_claims,
    true_that,
    within,
)

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
DECLARED = [(of.name, one.id) for of in open_chapters() for one in ledger(of.name)]


@pytest.mark.parametrize(("chapter_name", "claim_id"), DECLARED, ids=[f"{c}.{i}" for c, i in DECLARED])
def test_claim_holds(chapter_name: str, claim_id: str) -> None:
    result = ledger(chapter_name)[claim_id].check().require()
    assert result.markdown() in README, "the README's scoreboard is out of date (make readme writes it)"


def test_every_open_chapter_declares_claims_with_sources() -> None:
    for of in open_chapters():
        book = ledger(of.name)
        assert len(book) >= 8
        for one in book:
            assert one.chapter == of.name
            assert one.source
            assert one.statement.endswith(".")
            assert re.fullmatch(r"[a-z0-9-]+", one.id)


def test_chapters_are_numbered_and_found_by_any_name() -> None:
    assert [one.number for one in CHAPTERS] == list(range(1, 11))
    assert chapter("01") is chapter("initialization_shape") is chapter("initialization-shape")
    with pytest.raises(ValueError, match=r"chapter must be one of .*'nonsense'"):
        chapter("nonsense")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.0])
def test_evidence_at_most_fails_on_large_and_on_nan(bad: float) -> None:
    assert not at_most(bad, 1.0).holds
    assert at_most(1.0, 1.0).holds


def test_evidence_within_is_closed_and_fails_on_nan() -> None:
    assert within(3, 3, 4).holds
    assert not within(np.nan, 3, 4).holds
    assert not within(4.1, 3, 4).holds


def test_combined_evidence_holds_only_if_all_do() -> None:
    good, bad = true_that("sky", True), true_that("sea", False)
    assert combine(good, good).holds
    assert not combine(good, bad).holds
    assert combine(good, bad).measured == "sky; not so: sea"
    with pytest.raises(ValueError, match="at least one"):
        combine()


@pytest.mark.parametrize(("value", "shown"), [(9.99e-9, "< 1e-8"), (1e-8, "< 1e-7"), (0.5, "< 1e0"), (3.0, "< 1e1")])
def test_decade_rounds_up(value: float, shown: str) -> None:
    assert decade(value) == shown
    assert value < float(shown[2:])


@claim(source="a test", statement="This never holds.")
def never() -> Evidence:
    return at_most(2.0, 1.0, remark="by construction")


def test_a_claim_that_does_not_hold_raises_and_says_so() -> None:
    result = never.check()
    assert "DOES NOT HOLD (2; asked: ≤ 1)" in repr(result)
    assert "✗ does not hold" in result._repr_html_()
    with pytest.raises(ClaimDoesNotHold, match="by construction"):
        result.require()


def test_the_ledger_measures_once_and_shows_stable_rows() -> None:
    book = ledger("1")
    first = book.show("neuron-potential-limits")
    assert book.show("neuron-potential-limits") is first
    assert str(round(first.seconds, 6)) not in repr(first) + first._repr_html_()
    with pytest.raises(KeyError, match="has no claim 'nonsense'"):
        book["nonsense"]


def _few(monkeypatch: pytest.MonkeyPatch, *kept: str) -> None:
    """Let ledgers hold only a few claims, so that the command line is quick."""
    original = ledger_module.Ledger.__init__

    def shortened(self, of) -> None:
        original(self, of)
        self.claims = {name: value for name, value in self.claims.items() if name in kept}

    monkeypatch.setattr(ledger_module.Ledger, "__init__", shortened)


def test_command_line_writes_json_and_html_and_exits_0(tmp_path, monkeypatch) -> None:
    _few(monkeypatch, "neuron-potential-limits", "time-warp")
    files = tmp_path / "a.json", tmp_path / "a.html"
    done = CliRunner().invoke(app, ["claims", "1", "--json", str(files[0]), "--html", str(files[1])])
    assert done.exit_code == 0, done.output
    assert "2 of 2 claims hold" in done.output
    rows = json.loads(files[0].read_text())
    keys = {"chapter", "id", "source", "statement", "paper", "measured", "bound", "holds", "remark", "seconds"}
    assert [set(row) for row in rows] == [keys, keys]
    assert "✓ holds" in files[1].read_text()


def test_command_line_exits_1_when_a_claim_fails(monkeypatch) -> None:
    _few(monkeypatch, "neuron-potential-limits")
    monkeypatch.setattr("lib.initialization_shape.neuron.NeuronPotential.radial", lambda _, x: 2 * np.asarray(x) ** 1.5)
    done = CliRunner().invoke(app, ["claims"])
    assert done.exit_code == 1
    assert "0 of 1 claims hold" in done.output


def test_a_claim_that_breaks_fails_alone(monkeypatch) -> None:
    _few(monkeypatch, "neuron-potential-limits", "time-warp")
    monkeypatch.setattr("lib.initialization_shape.claims.NeuronPotential", None)
    broken, fine = sorted(run_claims(["1", "initialization-shape"]), key=lambda result: result.evidence.holds)
    assert "TypeError" in broken.evidence.measured
    assert fine.evidence.holds


def test_command_line_refuses_an_unknown_chapter() -> None:
    done = CliRunner().invoke(app, ["claims", "nonsense"])
    assert done.exit_code == 2


def test_claims_run_in_worker_processes(monkeypatch) -> None:
    _few(monkeypatch, "neuron-potential-limits", "time-warp")
    results = run_claims(["1"], jobs=2)
    assert [result.claim.id for result in results] == ["time-warp", "neuron-potential-limits"]
    assert all(result.evidence.holds for result in results)
