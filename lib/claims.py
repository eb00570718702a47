"""The ledger: a claim of a paper is declared once, and used in notebooks, tests and on the scoreboard."""

from __future__ import annotations

import html
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lib.chapters import Chapter, chapter, open_chapters
from lib.parallel import in_parallel
from lib.validation import finite_number, instance_of, true_or_false

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray

    #: What was measured: a number, an array or tensor of any shape, or lists of these.
    Measured: TypeAlias = ArrayLike | torch.Tensor | Sequence["Measured"]

__all__ = [
    "Claim",
    "ClaimDoesNotHold",
    "Evidence",
    "Ledger",
    "Result",
    "at_least",
    "at_most",
    "claim",
    "combine",
    "decade",
    "ledger",
    "none",
    "run_claims",
    "true_that",
    "within",
]


@dataclass(frozen=True)
class Evidence:
    """What a claim's function found.

    Attributes:
        measured, bound: The measured value or values, to be read, and what they are held against.
        remark: The set-up in a line.
        shown: `measured`, rounded to what is the same on every machine: what notebooks and the scoreboard show.
    """

    measured: str
    bound: str
    holds: bool
    remark: str = ""
    shown: str = ""

    def __post_init__(self) -> None:
        # not bool(holds): NaN, an array's address or a word would be as good as True
        object.__setattr__(self, "holds", true_or_false("holds", self.holds))
        # a rounded value may hide why a claim fails: then the measured one is shown
        if not self.shown or not self.holds:
            object.__setattr__(self, "shown", self.measured)


def _flat(name: str, value: Measured) -> NDArray[Any]:
    """All entries in one row; what is masked becomes NaN."""
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if isinstance(value, (list, tuple)):
        # each part by itself: one trial of several in which nothing was measured must not go unseen
        parts = [_flat(name, part) for part in value]
        row = np.concatenate(parts) if parts else np.empty(0)
    elif torch is not None and isinstance(value, torch.Tensor):
        # numpy has no bfloat16
        row = (value.double() if value.is_floating_point() else value).detach().cpu().numpy().ravel()
    elif np.ma.is_masked(value):
        row = np.ma.filled(np.ma.asarray(value, dtype=np.float64), np.nan).ravel()
    else:
        row = np.asarray(value).ravel()
    if not row.size:
        raise ValueError(f"{name} must not be empty: where nothing was measured nothing holds")
    return row


def _numbers(name: str, value: Measured) -> NDArray[np.float64]:
    """All entries in one row, float64."""
    row = _flat(name, value)
    # numbers of other libraries, of mpmath for instance, come as objects
    if row.dtype.kind not in "biufO":
        raise TypeError(f"{name} must hold real numbers; it has dtype {row.dtype}")
    try:
        return row.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold real numbers; it holds {row[0]!r}") from error


def _read(worst: float, entries: NDArray[np.float64], form: str) -> str:
    """The worst entry, to be read; how many are NaN where some are."""
    lost = int(np.isnan(entries).sum())
    return f"nan ({lost} of {entries.size})" if lost and entries.size > 1 else f"{worst:{form}}"


def decade(value: Measured) -> str:
    """A value by the power of ten above it, which does not depend on the last digits of an error; of several the worst.

    Anything below 1e-12 is rounding, whose size differs between machines.

    Examples:
        >>> decade(3.4e-9), decade(2e-16), decade(0.0), decade([1e-9, float("nan")])
        ('< 1e-8', '< 1e-12', '< 1e-12', 'nan')
    """
    worst = float(_numbers("value", value).max())
    if not math.isfinite(worst):
        return str(worst)
    if worst < 1e-12:
        return "< 1e-12"
    return f"< 1e{math.floor(math.log10(worst)) + 1:d}"


def at_most(measured: Measured, bound: float, *, remark: str = "", label: str = "", shown: str = "") -> Evidence:
    """Evidence that no error exceeds a bound; what is measured is the largest, and NaN exceeds every bound.

    Args:
        measured: A number, an array or tensor of any shape, or lists of these, none of them empty. Hand over all:
            Python's `max` and `min` pass over NaN.
        label: What the value is.
        shown: What is shown of it where it holds, with the largest error in the place of `{}`; by default its `decade`.

    Examples:
        >>> at_most(3.4e-9, 1e-7).holds, at_most([3.4e-9, float("nan")], 1e-7).holds
        (True, False)
        >>> at_most([0.02, 0.01], 0.05, label="distance", shown="{:.1g}").shown
        'distance = 0.02'
    """
    errors, bound = _numbers("measured", measured), finite_number("bound", bound)
    worst = float(errors.max())
    return Evidence(
        _named(label, _read(worst, errors, ".2g")),
        _named(label, f"≤ {bound:g}"),
        worst <= bound,
        remark,
        _named(label, shown.format(worst) if shown else decade(worst)),
    )


def _named(label: str, value: str) -> str:
    """`label = value`, or `label < value` where the value brings its own relation."""
    if not label:
        return value
    return f"{label} {value}" if value[:1] in "<≤≥" or value.startswith("in ") else f"{label} = {value}"


def within(
    measured: Measured, low: float, high: float, *, remark: str = "", label: str = "", digits: int = 2
) -> Evidence:
    """Evidence that all values lie in a closed interval; of the one next to its ends, or out of it, `digits` are shown.

    Examples:
        >>> within(3.98, 3.3, 4.7, label="ratio").shown, within([3.98, 4.8], 3.3, 4.7, label="ratio").shown
        ('ratio = 4', 'ratio = 4.8')
    """
    values, low, high = _numbers("measured", measured), finite_number("low", low), finite_number("high", high)
    if low > high:
        raise ValueError(f"low must be at most high; they are {low:g} and {high:g}")
    # numpy's argmax finds NaN first
    worst = float(values[np.maximum(low - values, values - high).argmax()])
    return Evidence(
        _named(label, _read(worst, values, ".4g")),
        _named(label, f"in [{low:g}, {high:g}]"),
        low <= worst <= high,
        remark,
        _named(label, f"{float(f'{worst:.{digits}g}'):g}"),
    )


def at_least(measured: Measured, bound: float, *, remark: str = "", label: str = "") -> Evidence:
    """Evidence that all values reach a bound (NaN reaches none); shown is that they do, not by how much.

    Examples:
        >>> at_least(12, 5, label="rises").shown, at_least([12, 3], 5, label="rises").shown
        ('rises ≥ 5', 'rises = 3')
    """
    values, bound = _numbers("measured", measured), finite_number("bound", bound)
    worst, asked = float(values.min()), _named(label, f"≥ {bound:g}")
    return Evidence(_named(label, _read(worst, values, ".4g")), asked, worst >= bound, remark, asked)


def none(found: Measured, what: str, *, remark: str = "") -> Evidence:
    """Evidence that something that was looked for never occurred.

    Args:
        found: How often it did: a count, several, or a mark for each place. NaN is no count, so that the claim fails; a
            mark must be set where the right thing was not found, `~(x <= bound)`: `x > bound` passes over NaN.
        what: In the plural.

    Examples:
        >>> none(0, "rises").measured, none([0, 2], "rises").holds, none(float("nan"), "rises").holds
        ('0 rises', False, False)
    """
    counts = _numbers("found", found)
    if (counts < 0).any() or (counts != np.floor(counts))[~np.isnan(counts)].any():
        raise ValueError(f"found must hold whole numbers of at least 0; its first entry is {counts[0]:g}")
    total = float(counts.sum())
    return Evidence(f"{total:.0f} {what}", "none", total == 0, remark)


def true_that(fact: str, holds: Measured, *, bound: str = "exactly", remark: str = "") -> Evidence:
    """Evidence without a number: a fact that was found to be so, or not, once or in each of several cases.

    Examples:
        >>> true_that("all residuals are 0", True).measured, true_that("it falls", np.diff([3, 2, 2]) < 0).measured
        ('all residuals are 0', 'not so: it falls')
    """
    cases = _flat("holds", holds)
    if cases.dtype != bool:
        raise TypeError(f"holds must be True or False; it has dtype {cases.dtype}")
    so = bool(cases.all())
    return Evidence(fact if so else f"not so: {fact}", bound, so, remark)


def combine(*parts: Evidence, remark: str = "") -> Evidence:
    """One piece of evidence from several, which holds if all do.

    Examples:
        >>> combine(at_most(1e-9, 1e-7, label="error"), within(4, 3, 5, label="ratio")).measured
        'error = 1e-09; ratio = 4'
    """
    if not parts:
        raise ValueError("combine needs at least one piece of evidence")
    measured, bound, remarks, shown = (
        "; ".join(filter(None, (getattr(part, name) for part in parts)))
        for name in ("measured", "bound", "remark", "shown")
    )
    return Evidence(measured, bound, all(part.holds for part in parts), remark or remarks, shown)


class ClaimDoesNotHold(AssertionError):  # noqa: N818  (it reads as a sentence where it is raised)
    """A claim was measured and does not hold."""


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper that a machine can check.

    Attributes:
        source: Theorem, equation, table, or "derived here".
        paper: What the paper reports, where it is known.
    """

    chapter: str
    id: str
    source: str
    statement: str
    paper: str
    measure: Callable[[], Evidence]

    def check(self) -> Result:
        """Measure now."""
        start = time.perf_counter()
        evidence = instance_of(f"what {self.id} measures", self.measure(), Evidence, "Evidence")
        return Result(self, evidence, time.perf_counter() - start)


@dataclass(frozen=True)
class Result:
    """A claim with its evidence; shows itself as one row."""

    claim: Claim
    evidence: Evidence
    seconds: float

    def require(self) -> Result:
        """Return self, or raise `ClaimDoesNotHold`."""
        if not self.evidence.holds:
            raise ClaimDoesNotHold(f"{self!r} ({self.evidence.remark})")
        return self

    def record(self) -> dict[str, str | bool | float]:
        """The row of the scoreboard's JSON."""
        said = {name: getattr(self.claim, name) for name in ("chapter", "id", "source", "statement", "paper")}
        found = {name: getattr(self.evidence, name) for name in ("measured", "bound", "holds", "remark")}
        return {**said, **found, "seconds": round(self.seconds, 3)}

    def markdown(self) -> str:
        """The row of docs/scoreboard.md; only values that are the same on every machine."""
        claim, evidence = self.claim, self.evidence
        cells = (claim.statement, claim.source, claim.paper or "–", evidence.shown, evidence.bound)
        mark = "✓" if evidence.holds else "✗"
        return f"| {mark} | {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"

    def __repr__(self) -> str:
        verdict = "holds" if self.evidence.holds else "DOES NOT HOLD"
        return f"{self.claim.id}: {verdict} ({self.evidence.shown}; asked: {self.evidence.bound})"

    def _repr_html_(self) -> str:
        """A badge of one line."""
        mark, colour = ("✓", "#1a7f37") if self.evidence.holds else ("✗", "#b3261e")
        words = f"{html.escape(self.claim.statement)} · <i>{html.escape(self.evidence.shown)}</i>"
        return f'<span title="{self.claim.id}"><b style="color:{colour}">{mark}</b> {words}</span>'


def claim(*, source: str, statement: str, paper: str = "") -> Callable[[Callable[[], Evidence]], Claim]:
    """Declare one sentence that a machine can check; its id is the function's name, its chapter the package around it.

    Examples:
        >>> @claim(source="derived here", statement="Two is even.")
        ... def two_is_even() -> Evidence:
        ...     return true_that("2 % 2 is 0", 2 % 2 == 0)
        >>> two_is_even.check().require()
        two-is-even: holds (2 % 2 is 0; asked: exactly)
    """

    def declare(measure: Callable[[], Evidence]) -> Claim:
        package = measure.__module__.split(".")
        name = package[1] if len(package) > 1 else package[0]
        return Claim(name, measure.__name__.replace("_", "-"), source, statement, paper, measure)

    return declare


class Ledger:
    """The claims of one chapter, in the order of their declaration; remembers what it has measured.

    Examples:
        >>> claims = ledger("initialization_shape")
        >>> claims.show("diagonal-potential")
        diagonal-potential: holds (all 6 identities; asked: exactly)
    """

    def __init__(self, of: Chapter) -> None:
        self.chapter = of
        # topic by topic, and each topic's in the order of its file
        topics = import_module(f"lib.{of.name}.claims").TOPICS
        declared = (value for topic in topics for value in vars(topic).values() if isinstance(value, Claim))
        self.claims = {one.id: one for one in declared}
        self._results: dict[str, Result] = {}

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.claims.values())

    def __len__(self) -> int:
        return len(self.claims)

    def __getitem__(self, name: str) -> Claim:
        if name not in self.claims:
            raise KeyError(f"{self.chapter.name} has no claim {name!r}; it has {', '.join(self.claims)}")
        return self.claims[name]

    def show(self, name: str) -> Result:
        """Measure a claim (once a session) and return its row; raises `ClaimDoesNotHold` if it does not hold."""
        claim = self[name]
        if name not in self._results:
            self._results[name] = claim.check()
        return self._results[name].require()

    def table(self) -> Table:
        """All claims of the chapter in one table; those not measured yet are measured now."""
        return Table([self.show(name) for name in self.claims])


class Table:
    """Results, one a row."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = list(results)

    def __repr__(self) -> str:
        held = sum(result.evidence.holds for result in self.results)
        return "\n".join([f"{held} of {len(self.results)} claims hold", *map(repr, self.results)])

    def _repr_html_(self) -> str:
        """Only values that are the same on every machine."""
        cell = 'style="text-align:left;vertical-align:top;padding:4px 8px;overflow-wrap:break-word"'
        columns = {"claim": 38, "source": 13, "paper": 15, "here": 15, "asked": 12, "": 7}
        head = "".join(f'<th {cell[:-1]};width:{width}%">{column}</th>' for column, width in columns.items())
        rows = []
        for result in self.results:
            claim, evidence = result.claim, result.evidence
            small = f"<code>{claim.id}</code> {html.escape(evidence.remark)}"
            statement = f'{html.escape(claim.statement)}<br><small style="opacity:.75">{small}</small>'
            mark = "✓ holds" if evidence.holds else "✗ does not hold"
            values = (claim.source, claim.paper or "–", evidence.shown, evidence.bound, mark)
            cells = "".join(f"<td {cell}>{html.escape(value)}</td>" for value in values)
            rows.append(f"<tr><td {cell}>{statement}</td>{cells}</tr>")
        table = '<table style="table-layout:fixed;width:100%;max-width:1100px">'
        return f"{table}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def ledger(name: str) -> Ledger:
    """The claims of a chapter, by its name or number."""
    return Ledger(chapter(name))


def _check(chapter_name: str, claim_id: str) -> tuple[Evidence, float]:
    """Measure one claim: what a worker process is sent and what it sends back can be pickled."""
    try:
        result = ledger(chapter_name)[claim_id].check()
    except Exception as error:  # one claim that breaks must not cost the others their row
        return Evidence(f"{type(error).__name__}: {error}", "no error", holds=False), 0.0
    return result.evidence, result.seconds


def run_claims(names: Sequence[str] = (), *, jobs: int | None = None) -> list[Result]:
    """Measure all claims of some chapters, by name or number, or of all open ones; `jobs` as in `in_parallel`."""
    chapters = dict.fromkeys(chapter(name) for name in names) or open_chapters()
    declared = [claim for of in chapters for claim in Ledger(of)]
    runs = in_parallel(_check, [(claim.chapter, claim.id) for claim in declared], "claims", jobs=jobs)
    return [Result(claim, *run) for claim, run in zip(declared, runs, strict=True)]
