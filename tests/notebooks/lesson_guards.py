"""What every chapter in the shape of a lesson keeps to: each guard says what is wrong, cell by cell."""

import re
from collections.abc import Callable, Iterator, Sequence

Cell = dict
CORE, DEPTH, LINES = 40, 25, 12
WIDGET = "application/vnd.jupyter.widget-view+json"
#: How a notebook speaks of what nobody has looked up, and words that readers asked us not to use.
HEARSAY = ("we remember", "from memory", "as remembered", "put to the test")
PARTS = ("## In depth", "## Ledger")


def source(cell: Cell) -> str:
    return "".join(cell["source"])


def parts(cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The core path, and what comes after it."""
    start = next(place for place, cell in enumerate(cells) if f"\n{source(cell)}".count(f"\n{PARTS[0]}"))
    return list(cells[:start]), list(cells[start:])


def sizes(cells: Sequence[Cell]) -> Iterator[str]:
    """At most so many cells in a part, and so many lines in a cell of the core path."""
    core, depth = parts(cells)
    for name, part, most in (("core path", core, CORE), ("in depth", depth, DEPTH)):
        if len(part) > most:
            yield f"the {name} has {len(part)} cells, more than {most}"
    for cell in core:
        if cell["cell_type"] == "code" and len(source(cell).splitlines()) > LINES:
            yield f"{cell['id']} has more than {LINES} lines"


def badges(cells: Sequence[Cell]) -> Iterator[str]:
    """One badge after another is a list that nobody reads; tables stand in the ledger."""
    shows = ["claims.show(" in source(cell) for cell in cells]
    for cell, before, now in zip(cells[1:], shows, shows[1:], strict=False):
        if before and now:
            yield f"{cell['id']} follows another badge"
    ledger = next(place for place, cell in enumerate(cells) if f"\n{source(cell)}".count(f"\n{PARTS[1]}"))
    for cell in cells[:ledger]:
        if "claims.table(" in source(cell):
            yield f"{cell['id']} shows the table of claims before the ledger"


def words(cells: Sequence[Cell]) -> Iterator[str]:
    """No hearsay, and a link for each paper."""
    for cell in cells:
        text = source(cell)
        yield from (f"{cell['id']} says {phrase!r}" for phrase in HEARSAY if phrase in text.lower())
        if cell["cell_type"] == "markdown":
            bare = re.sub(r"\[[^\]]*\]\([^)]*\)", "", text)
            yield from (
                f"{cell['id']} names {found} without a link" for found in re.findall(r"arXiv:? ?\d{4}\.\d+", bare)
            )
            yield from (f"{cell['id']} names {found} without a link" for found in re.findall(r"et al\. \(?\d{4}", bare))


def numbers(cells: Sequence[Cell]) -> Iterator[str]:
    """A cell that prints nothing but True shows nothing."""
    for cell in cells:
        for output in cell.get("outputs", ()):
            text = "".join(output.get("text", "")) or "".join(output.get("data", {}).get("text/plain", ""))
            if re.fullmatch(r"[^\n]*\b(True|False)\s*", text.strip()) and not re.search(r"\d", text):
                yield f"{cell['id']} shows only {text.strip()!r}"


def terms(cells: Sequence[Cell], declared: Sequence[str]) -> Iterator[str]:
    """Each term of the chapter is bold where it is defined, and not used before; the title page is free."""
    texts = [source(cell) if cell["cell_type"] == "markdown" else "" for cell in cells[1:]]
    for term in declared:
        defined = [place for place, text in enumerate(texts) if f"**{term.lower()}**" in text.lower()]
        if not defined:
            yield f"{term!r} is defined nowhere"
            continue
        first = next(place for place, text in enumerate(texts) if term.lower() in text.lower())
        if first < defined[0]:
            yield f"{cells[1 + first]['id']} uses {term!r} before {cells[1 + defined[0]]['id']} defines it"


def shape(cells: Sequence[Cell]) -> Iterator[str]:
    """The parts of a chapter, and what they need."""
    everything = "\n".join(map(source, cells))
    for heading in ("Play", "The idea", "Write it yourself", "Why it is true", "See it hold", "On real data"):
        if not re.search(rf"^## \d\. {heading}", everything, re.MULTILINE):
            yield f"there is no part {heading!r}"
    for heading in (r"## \d\. In your own project", r"## \d\. Check yourself", *PARTS):
        if not re.search(rf"^{heading}", everything, re.MULTILINE):
            yield f"there is no part {heading!r}"
    for call, least in (("predict(", 1), ("check(", 2), ("quiz(", 1), ("<summary>Solution</summary>", 3)):
        if everything.count(call) < least:
            yield f"{call} occurs {everything.count(call)} times, not {least}"
    if not re.search(r"\*\*Goals\.\*\*.*?1\. .*?2\. .*?3\. ", source(cells[0]), re.DOTALL):
        yield "the first cell names no three goals"
    if not re.search(r"https://(arxiv|doi)\.org/", source(cells[0])):
        yield "the first cell has no link to the paper"


GUARDS: tuple[Callable[[Sequence[Cell]], Iterator[str]], ...] = (sizes, badges, words, numbers, shape)
