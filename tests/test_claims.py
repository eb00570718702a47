"""Every declared claim of every chapter, and the ledger that holds them."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lib import claims as ledger_module
from lib.__main__ import app
from lib.chapters import open_chapters
from lib.claims import (
    Claim,
    ClaimDoesNotHold,
    Evidence,
    at_least,
    at_most,
    claim,
    combine,
    decade,
    ledger,
    none,
    run_claims,
    true_that,
    within,
)
from lib.initialization_shape.scale_shape import potential_scale
from tests.tape import Tape

SCOREBOARD = (Path(__file__).resolve().parents[1] / "docs" / "scoreboard.md").read_text()
DECLARED = [(of.name, one.id) for of in open_chapters() for one in ledger(of.name)]


#: Claims in which nothing is a number: sympy's residuals are zero or not.
SYMBOLIC = {"warp-is-the-output-weight"}

_VALUES_OF_A_NETWORK = ("_network", "fully_connected", "_images", "quantize_model", "_FourBitLayer.from_float")
_TRAINED = ("trained_runs", "_trained", "train_four_bit")
#: Results that a claim does not measure where the tape puts a NaN; it is met in what the claim makes of them.
NOT_MEASURED: dict[str, tuple[str, ...]] = {
    # bytes do not depend on values
    "packed-memory": _VALUES_OF_A_NETWORK,
    "relu-must-be-packed-too": _VALUES_OF_A_NETWORK,
    # integers, which both sides are given
    "one-formula-of-bits": ("random_mantissas",),
    # settings
    "update-error-in-closed-form": ("gradient_quantizer",),
    # scores of an epoch before the last
    "three-bit-training-needs-luq": _TRAINED,
    "two-bit-training-recovers-with-samples": _TRAINED,
    "averages-must-reach-the-layers-before": _TRAINED,
    "four-bit-training-matches-fp32": _TRAINED,
    "integer-gradients-are-the-worst-on-the-convnet": _TRAINED,
    "hindsight-costs-nothing": _TRAINED,
    # products are counted, whatever the weights
    "fast-form-is-the-same-function": ("_saved_multiplications > plain_version",),
    # which entries are kept is measured, not their values
    "one-random-number-draws-the-mask": ("nm_mvue",),
    # it is not finite: that is the claim
    "blocks-with-one-entry-are-kept": ("_usual_approximation",),
    # rows behind the first 128
    "noise-of-an-update-in-closed-form": ("captured_gradient",),
    # losses, and scores of an epoch before the last
    "every-product-has-a-sparse-operand": ("train_sparsity",),
    "noise-hurts-more-in-a-short-training": ("train_sparsity",),
    "greedy-fails-where-every-gradient-is-pruned": ("train_sparsity",),
    "label-noise-turns-the-order": ("train_sparsity",),
    "greedy-descent-ends-at-a-wrong-point": ("races",),
    "blocks-along-classes-mislead-too": ("softmax_descent",),
    # a map behind the few that are flooded
    "cost-falls-with-the-cube": ("held_out", "draw_floods"),
    "one-map-can-go-far": ("held_out", "draw_floods"),
    # the same, and the losses of the training: the errors on the test maps are measured
    "passes-and-quantiles-help": ("held_out", "train_downsampler"),
    # networks of more than two weights
    "boundary-is-real": ("_random_steps > gfs_sharpness",),
    # steps are counted; where the flow ends is measured by its sharpness
    "flow-integrator": ("integrate_gradient_flow",),
    # elevations beside the piece that is flooded
    "lake-at-rest": ("real_dem",),
    "symmetries-of-the-square": ("real_dem",),
    "gradient-through-time": ("real_dem",),
}


#: What is repeated in earnest for each NaN is repeated less often.
FEWER = {"every-layers-update-is-unbiased": ("lib.four_bit.claims.training._REPEATS", 30)}


@pytest.fixture(scope="module", params=DECLARED, ids=[f"{c}.{i}" for c, i in DECLARED])
def tape(request: pytest.FixtureRequest) -> Tape:
    """A claim that was measured; one at a time is kept."""
    chapter_name, claim_id = request.param
    return Tape(ledger(chapter_name)[claim_id])


@pytest.mark.slow
def test_claim_holds(tape: Tape) -> None:
    result = tape.result.require()
    assert result.markdown() in SCOREBOARD, "docs/scoreboard.md is out of date (make docs writes it)"


@pytest.mark.slow
def test_claim_lets_no_nan_through(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    """One result of each function that it calls, in one entry, is enough for it not to hold, or to raise an error."""
    if tape.claim.id in FEWER:
        monkeypatch.setattr(*FEWER[tape.claim.id])
        tape = Tape(tape.claim)
        assert tape.result.evidence.holds
    assert tape.again() == tape.result.evidence, "the tape does not tell the whole story"
    places = tape.places()
    assert bool(places) != (tape.claim.id in SYMBOLIC)
    spoilt = {path: tape.again(call) for path, call in places.items()}
    held = {path for path, evidence in spoilt.items() if evidence is not None and evidence.holds}
    not_measured = NOT_MEASURED.get(tape.claim.id, ())
    assert not {path for path in held if not path.endswith(not_measured)}
    assert not places or len(held) < len(places), "no function's result is measured"


@claim(source="a test", statement="The way in which claims used to look for their worst trial.")
def careless() -> Evidence:
    return at_most(max(float(potential_scale(trial, 0.0)) for trial in (1.0, 2.0, 3.0)), 15.0)


@claim(source="a test", statement="The same by a mark that NaN does not set.")
def counting() -> Evidence:
    return none([potential_scale(trial, 0.0) > 15.0 for trial in (1.0, 2.0, 3.0)], "large errors")


@pytest.mark.parametrize("one", [careless, counting], ids=lambda one: one.id)
def test_the_tape_notices_a_claim_that_passes_over_nan(one: Claim) -> None:
    tape = Tape(one)
    (place,) = tape.places().values()
    evidence = tape.again(place)
    assert evidence is not None
    assert evidence.holds


def test_every_open_chapter_declares_claims_with_sources() -> None:
    for of in open_chapters():
        book = ledger(of.name)
        assert len(book) >= 8
        for one in book:
            assert one.chapter == of.name
            assert one.source
            assert one.statement.endswith(".")
            assert re.fullmatch(r"[a-z0-9-]+", one.id)


#: The same four numbers, as they come: the second is taken from `worst`.
FORMS: dict[str, Callable[[float], Any]] = {
    "list": lambda worst: [0.1, worst, 0.2, 0.3],
    "tuple of numpy numbers": lambda worst: tuple(np.float32([0.1, worst, 0.2, 0.3])),
    "nested lists": lambda worst: [[0.1], [[worst, 0.2], 0.3]],
    "numpy, float16, not contiguous": lambda worst: np.array([[0.1, worst], [0.2, 0.3]], dtype=np.float16).T,
    "objects": lambda worst: [mpmath.mpf(part) for part in (0.1, worst, 0.2, 0.3)],
    "torch, bfloat16, with a gradient": lambda worst: torch.tensor(
        [[0.1, worst], [0.2, 0.3]], dtype=torch.bfloat16, requires_grad=True
    ),
    "list of tensors and arrays": lambda worst: [torch.tensor([0.1, worst]), torch.tensor(0.2), np.full((1, 1), 0.3)],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_evidence_takes_arrays_of_any_shape_and_fails_on_the_worst_entry_or_nan(form: Callable[[float], Any]) -> None:
    assert at_most(form(1.0), 1.0).holds
    assert at_most(form(1.0), 1.0).measured == "1"
    assert at_least(form(0.125), 0.09).holds
    assert within(form(0.5), 0.09, 0.5).measured == "0.5"
    for evidence in (
        *(at_most(form(worst), 1.0) for worst in (1.5, np.inf)),
        *(at_least(form(worst), 0.09) for worst in (0.0625, -np.inf)),
        *(within(form(worst), 0.09, 0.5) for worst in (0.75, 0.0)),
    ):
        assert not evidence.holds
    spoilt = form(np.nan)
    for evidence in (at_most(spoilt, 1.0), at_least(spoilt, -1.0), within(spoilt, -1.0, 1.0)):
        assert not evidence.holds
        assert evidence.measured == evidence.shown == "nan (1 of 4)"
    assert decade(spoilt) == "nan"


@pytest.mark.parametrize("place", range(4))
def test_a_nan_fails_wherever_it_stands_and_what_is_masked_was_not_measured(place: int) -> None:
    values, masked = np.zeros(4), np.ma.zeros(4)
    values[place], masked[place] = np.nan, np.ma.masked
    for measured in (values, values.tolist(), torch.from_numpy(values), masked):
        for evidence in (at_most(measured, 1.0), at_least(measured, -1.0), within(measured, -1.0, 1.0)):
            assert not evidence.holds
        assert not none(measured, "cases").holds
    assert at_most(np.ma.zeros(4), 1.0).holds


#: What takes a measurement.
MEASURES: list[Callable[[Any], object]] = [
    lambda measured: at_most(measured, 1.0),
    lambda measured: at_least(measured, 1.0),
    lambda measured: within(measured, 0.0, 1.0),
    lambda measured: none(measured, "cases"),
    decade,
]


@pytest.mark.parametrize("measure", MEASURES)
def test_measurements_of_nothing_or_something_else_are_refused(measure: Callable[[Any], object]) -> None:
    for empty in ([], [[]], [[1.0], []], np.empty((3, 0)), [torch.empty(2, 0)]):
        for use in (measure, partial(true_that, "so")):
            with pytest.raises(ValueError, match="must not be empty"):
                use(empty)
    for foreign in ("1", 1j, torch.tensor([1j]), {}, [0.1, "1"], object(), np.datetime64("2020")):
        with pytest.raises(TypeError, match="must hold real numbers"):
            measure(foreign)


@pytest.mark.parametrize("bound", [np.nan, np.inf, "1", None])
def test_a_bound_that_is_none_is_refused(bound: Any) -> None:
    for measure in (lambda: at_most(0.0, bound), lambda: at_least(0.0, bound), lambda: within(0.0, bound, 1.0)):
        with pytest.raises((TypeError, ValueError), match="must be"):
            measure()
    with pytest.raises(ValueError, match="low must be at most high"):
        within(0.0, 1.0, -1.0)


def test_what_is_shown_is_the_entry_next_to_an_end_or_the_worst() -> None:
    assert within(3, 3, 4).holds
    assert within([3.5, 3.9], 3, 4).shown == "3.9"
    assert within([3.5, 4.1, 2.8], 3, 4).measured == "2.8"
    assert at_most([0.01, 0.02], 1.0, shown="{:.1%}").shown == "2.0%"
    assert at_most([0.01, 0.02], 1.0, shown="< 3%").shown == "< 3%"


def test_none_holds_only_where_nothing_was_counted() -> None:
    for counts in (np.int64(0), np.zeros((2, 2), bool), torch.zeros(3, dtype=torch.int32)):
        assert none(counts, "rises").holds
    for counts in (np.array([False, True]), torch.tensor([[0, 3]])):
        assert not none(counts, "rises").holds
    for counts in (0.5, [1, -1], [0, 1e-9], np.array([np.nan, 0.5])):
        with pytest.raises(ValueError, match="whole numbers"):
            none(counts, "rises")


def test_a_fact_holds_if_it_does_in_every_case() -> None:
    assert true_that("so", [np.True_, torch.tensor([True, True]), True]).holds
    assert true_that("so", [True, np.array([True, False])]).measured == "not so: so"
    for holds in (np.nan, 1, "yes", None, [True, 1.0]):
        for make in (true_that, lambda fact, holds: Evidence(fact, "exactly", holds)):
            with pytest.raises(TypeError, match="holds must be True or False"):
                make("so", holds)


def test_combined_evidence_holds_only_if_all_do() -> None:
    good, bad = true_that("sky", True), true_that("sea", False)
    assert combine(good, good).holds
    assert not combine(good, bad).holds
    with pytest.raises(ValueError, match="at least one"):
        combine()


def test_decade_rounds_up() -> None:
    assert [decade(value) for value in (9.99e-9, 1e-8, 0.5, 3.0)] == ["< 1e-8", "< 1e-7", "< 1e0", "< 1e1"]


@claim(source="a test", statement="This measures, and forgets to say so.")
def silent() -> Evidence:
    return None  # type: ignore[return-value]


@claim(source="a test", statement="This never holds.")
def never() -> Evidence:
    return at_most(2.0, 1.0, remark="by construction")


def test_a_claim_must_return_evidence_and_says_so_where_it_does_not_hold() -> None:
    with pytest.raises(TypeError, match="what silent measures must be Evidence"):
        silent.check()
    result = never.check()
    assert "DOES NOT HOLD (2; asked: ≤ 1)" in repr(result)
    assert ">✗</b> This never holds." in result._repr_html_()
    with pytest.raises(ClaimDoesNotHold, match="by construction"):
        result.require()


def test_the_ledger_measures_once_and_shows_stable_rows() -> None:
    book = ledger("1")
    first = book.show("neuron-potential-limits")
    assert book.show("neuron-potential-limits") is first
    assert str(round(first.seconds, 6)) not in repr(first) + first._repr_html_()
    with pytest.raises(KeyError, match="has no claim 'nonsense'"):
        book["nonsense"]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let ledgers hold only two claims, so that the command line is quick."""
    original = ledger_module.Ledger.__init__

    def shortened(self, of) -> None:
        original(self, of)
        kept = ("neuron-potential-limits", "time-warp")
        self.claims = {name: value for name, value in self.claims.items() if name in kept}

    monkeypatch.setattr(ledger_module.Ledger, "__init__", shortened)
    return monkeypatch


@pytest.mark.usefixtures("two")
def test_command_line_writes_json_and_html_and_exits_0(tmp_path) -> None:
    files = tmp_path / "a.json", tmp_path / "a.html"
    done = CliRunner().invoke(app, ["claims", "1", "--json", str(files[0]), "--html", str(files[1])])
    assert done.exit_code == 0, done.output
    assert "2 of 2 claims hold" in done.output
    rows = json.loads(files[0].read_text())
    keys = {"chapter", "id", "source", "statement", "paper", "measured", "bound", "holds", "remark", "seconds"}
    assert [set(row) for row in rows] == [keys, keys]
    assert "✓ holds" in files[1].read_text()
    assert CliRunner().invoke(app, ["claims", "nonsense"]).exit_code == 2


def test_a_claim_that_breaks_fails_alone_and_command_line_exits_1(two) -> None:
    two.setattr("lib.initialization_shape.claims.neurons.NeuronPotential", None)
    broken, fine = sorted(run_claims(["1", "initialization-shape"]), key=lambda result: result.evidence.holds)
    assert "TypeError" in broken.evidence.measured
    assert fine.evidence.holds
    done = CliRunner().invoke(app, ["claims"])
    assert done.exit_code == 1
    assert "1 of 2 claims hold" in done.output


@pytest.mark.usefixtures("two")
def test_claims_run_in_worker_processes() -> None:
    results = run_claims(["1"], jobs=2)
    assert [result.claim.id for result in results] == ["time-warp", "neuron-potential-limits"]
    assert all(result.evidence.holds for result in results)
