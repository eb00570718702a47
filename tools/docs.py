"""Write what the code knows: the README's table of chapters, the pages of docs/, CITATION.cff, and the pictures.

    python tools/docs.py [--check] [readme] [chapters] [scoreboard] [speed] [cli] [citation] [pictures]

`--check` compares what is quick to compute, and exits with 1 where a file is out of date. The scoreboard takes minutes:
there it only compares which claims are listed.
"""

import doctest
import inspect
import io
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from matplotlib import rc_context
from PIL import Image, ImageDraw, ImageFont
from stills import WIDTH, Drawing, drawing, small_png
from typer.main import get_command

import lib
from lib.chapters import CHAPTERS, Chapter, open_chapters
from lib.claims import ledger, run_claims
from lib.experiment import described as meanings
from lib.explorer import Explorer, Slider, all_explorers
from lib.files import atomic_path
from lib.overview import chapter_map
from lib.style import COLOURS, MATPLOTLIB

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
RESULTS = ROOT / "tests" / "benchmarks" / "results.json"
WRITTEN = "<!-- written by tools/docs.py: do not edit -->"
#: The picture at the top of the README: an explorer, the slider that moves, and its settings on the way there.
LIVE = ("alias_free.moving_picture", "dx", [0.25 * step for step in range(13)])


def table(columns: str, rows: Iterator[tuple[Any, ...]] | list[tuple[Any, ...]], align: str = "") -> list[str]:
    """Lines of a table; columns are separated by `|`, and so are their alignments."""
    names = columns.split("|")
    rule = align.split("|") if align else ["---"] * len(names)
    return [_row(names), _row(rule), *(_row([str(cell).replace("|", "&#124;") for cell in row]) for row in rows)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(title: str, *lines: str) -> str:
    """A whole page."""
    return "\n".join([WRITTEN, f"# {title}", "", *lines, ""])


# ---------------------------------------------------------------------------------------------------------- chapters


def chapter_table() -> str:
    """The README's table: one line for each chapter."""

    def row(one: Chapter) -> tuple[Any, ...]:
        title = f"[**{one.title}**](notebooks/{one.notebook})" if one.is_open else f"{one.title} *(to come)*"
        return one.number, title, one.promise, f"[{one.venue}](https://arxiv.org/abs/{one.arxiv})", one.time

    return "\n".join(table("|chapter|what you will see|paper|minutes", [row(one) for one in CHAPTERS]))


def readme() -> str:
    """The README with its table of chapters."""
    text = (ROOT / "README.md").read_text()
    begin, end = "<!-- chapters: written by tools/docs.py -->", "<!-- /chapters -->"
    before, _, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"README.md must hold {begin!r} and {end!r}")
    return f"{before}{begin}\n{chapter_table()}\n{end}{after}"


def chapters() -> str:
    """Each open chapter: its paper, a picture, what to know, and how to use it as a library."""
    titles = {one.name: one.title for one in CHAPTERS}
    text = """What each chapter shows, what it asks of its reader, and how to use its part of the library.

![The map of chapters, a row for each road; open chapters are blue](pictures/map.png)"""
    for one in open_chapters():
        known = [one.needs, *(f"chapter “{titles[name]}”" for name in one.builds_on)]
        text += f"""

## {one.number}. {one.title}

{one.promise} [Open the notebook.](../notebooks/{one.notebook})

![{one.promise}](pictures/{Path(one.notebook).stem}.png)

**Paper.** {citation_line(one)}

**Time.** {one.time} minutes, playing included.

**What to know.** {_capital("; ".join(known))}.

**Use it as a library.**
"""
        text += "\n".join(examples(one))
    return page("The chapters", text)


def citation_line(one: Chapter) -> str:
    """The paper with its authors and a link."""
    authors = ", ".join(f"{given} {family}" for given, family in one.people)
    title = one.paper if one.paper.endswith("?") else f"{one.paper}."
    return f"{authors}: *{title}* {one.venue}, [arXiv {one.arxiv}](https://arxiv.org/abs/{one.arxiv})"


def examples(one: Chapter) -> list[str]:
    """The examples of the wing's docstring: prose as it is, code without prompts, results as comments."""
    text = inspect.getdoc(import_module(f"lib.{one.name}")) or ""
    _, _, text = text.partition("Examples:\n")
    text = textwrap.dedent(text)
    lines: list[str] = []
    code: list[str] = []
    for part in [*doctest.DocTestParser().parse(text), "end"]:
        if isinstance(part, doctest.Example):
            imported = code and code[-1].startswith(("from ", "import "))
            code += [""] if imported and not part.source.startswith(("from ", "import ")) else []
            code += [*part.source.splitlines(), *(f"# {line}" for line in part.want.splitlines())]
        elif part.strip():
            lines += ["", "```python", *code, "```"] if code else []
            lines += ["", part.strip()]
            code = []
    return lines[:-2]


# -------------------------------------------------------------------------------------------------------- scoreboard


def scoreboard() -> str:
    """Every claim of every open chapter, measured now."""
    results = run_claims(jobs=2)
    held = sum(result.evidence.holds for result in results)
    lines = [
        "Every claim of the papers that a machine can check is measured by code: in the notebook where you have just "
        "understood it, in the tests, and here. “Here” is what came out, rounded to what is the same on every machine, "
        "“asked” the bound it is held against, which was fixed before. For each claim a test breaks the implementation "
        "and sees the claim fail.",
        "",
        "`make claims` measures all of them again; `python -m lib claims --json FILE --html FILE --jobs N` writes them "
        "down.",
        "",
        f"**{held} of {len(results)} claims hold.**",
    ]
    for one in open_chapters():
        lines += ["", f"## {one.number}. {one.title}", "", *table("|claim|source|paper|here|asked", [])]
        lines += [result.markdown() for result in results if result.claim.chapter == one.name]
    return page("Scoreboard", *lines)


def lists_all_claims(text: str) -> bool:
    """Whether the scoreboard has a row for each claim, in order; what they measure is left to the tests."""
    rows = [line for line in text.splitlines() if line.startswith(("| ✓", "| ✗"))]
    declared = [one.statement.replace("|", "&#124;") for of in open_chapters() for one in ledger(of.name)]
    return len(rows) == len(declared) and all(map(str.__contains__, rows, declared))


# ------------------------------------------------------------------------------------------------------------- speed


def speed() -> str:
    """What `make bench` measured last: a line for each chapter, then every table, on one core and on a GPU."""
    stored = json.loads(RESULTS.read_text())
    explorers = [rows for name, rows in stored["groups"].items() if name.startswith("explorers")]
    slowest = max((row["milliseconds"] for rows in explorers for row in rows), default=0.0)
    others = {name: rows for name, rows in stored["groups"].items() if not name.startswith("explorers")}
    lines = [
        "`make bench` measures against the peers that solve the same problem, and `make docs` writes this page. "
        f"Measured on {stored['machine']}, the same work in the same run; the median of repeated runs.",
        *("", "## One line for each chapter", ""),
        *table("|work|ours|peer|its time|ratio", headlines(others), "--:|---|--:|---|--:|--:"),
        *("", f"**Explorers.** Kernel time of a slider's move: at most {slowest:.0f} ms in the median."),
    ]
    gpu = {name: rows for name, rows in others.items() if _on_gpu(name, rows)}
    for where, groups in (("one core", {k: v for k, v in others.items() if k not in gpu}), ("a GPU", gpu)):
        if groups:
            lines += ["", f"## On {where}: {len(groups)} comparisons"]
        for name, rows in groups.items():
            cells = [(row["name"], _time(row), _ratio(row), row.get("note") or "") for row in rows]
            lines += ["", f"**{_capital(name)}**", "", *table("|time|ratio to ours|", cells, "---|--:|--:|---")]
    return page("Speed", *lines)


def headlines(groups: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[Any, ...]]:
    """For each open chapter the comparison that its entry in the registry names."""
    for one in open_chapters():
        if one.headline is not None:
            group, peer = one.headline
            rows = {row["name"]: row for row in groups[group]}
            ours = next(row for name, row in rows.items() if name.startswith("ours"))
            yield one.number, _capital(group), _time(ours), peer, _time(rows[peer]), _ratio(rows[peer])


def _time(row: dict[str, Any]) -> str:
    time = row["milliseconds"]
    return f"{time / 1000:.3g} s" if time >= 1000 else f"{time:.3g} ms"


def _ratio(row: dict[str, Any]) -> str:
    return f"{row['ratio']:,.0f}" if row["ratio"] >= 100 else f"{row['ratio']:.3g}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _on_gpu(name: str, rows: list[dict[str, Any]]) -> bool:
    return any("NVIDIA" in f"{name} {row['name']} {row.get('note', '')}" for row in rows)


# ------------------------------------------------------------------------------------------------------ command line


def cli() -> str:
    """Every command with its options, every preset with its settings."""
    from lib.__main__ import app

    lines = [
        "`python -m lib`, installed also as `paperplay`. Long runs keep what they have done, and go on after an "
        "interruption with the settings that they were begun with. What cannot work is refused before the work "
        "starts, with exit code 2.",
    ]
    for words, command in commands(get_command(app), "python -m lib"):
        context = command.context_class(command, info_name=words)
        records = [each.get_help_record(context) for each in command.get_params(context)]
        rows = [(f"`{option}`", _words(text)) for option, text in filter(None, records)]
        lines += ["", f"## `{words}`", "", command.help, "", *table("option|what", rows)]
    lines += [
        "",
        "# Presets",
        "",
        "Settings by name, for `--preset` and for the functions of the library; – is `None`.",
    ]
    for one in open_chapters():
        lines += described(one.title, presets(one.name)) if presets(one.name) else []
    return page("Command line", *lines)


def commands(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    """All commands below one, with the words that call them."""
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
    for name, each in (below or {}).items():
        yield from commands(each, f"{words} {name}")


def _words(text: str) -> str:
    """A help text without its markup."""
    return " ".join(text.split()).replace("<", "&lt;")


def presets(name: str) -> dict[str, Any]:
    """The presets of a chapter by name; empty where it has none."""
    found: dict[str, Any] = getattr(import_module(f"lib.{name}"), "PRESETS", {})
    return found


def described(title: str, named: dict[str, Any]) -> list[str]:
    """A table of the settings in which presets differ, a line of those that are the same in all, and what they mean."""
    kind = type(next(iter(named.values())))
    cells = {field.name: [_setting(getattr(one, field.name)) for one in named.values()] for field in fields(kind)}
    same = [f"`{name}` {values[0]}" for name, values in cells.items() if len(set(values)) == 1]
    rows = [(f"`{name}`", *values) for name, values in cells.items() if len(set(values)) > 1]
    lines = ["", f"## {title}: `{kind.__name__}`", "", *table("|" + "|".join(f"`{name}`" for name in named), rows)]
    lines += ["", f"The same in all: {', '.join(same)}."] if same else []
    said: dict[str, list[str]] = {}
    for name, meaning in meanings(kind).items():
        said.setdefault(meaning, []).append(f"`{name}`")
    return [*lines, "", *(f"* {', '.join(names)}: {meaning}" for meaning, names in said.items())]


def _setting(value: Any) -> str:
    if is_dataclass(value):
        own = [each.name for each in fields(value) if getattr(value, each.name) != each.default]
        return f"{type(value).__name__}({', '.join(f'{name}={getattr(value, name)!r}' for name in own)})"
    if isinstance(value, tuple) and len(value) > 8:
        return f"{len(value)} values from {value[0]:.3g} to {value[-1]:.3g}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value)


# ---------------------------------------------------------------------------------------------------------- citation


def citation() -> str:
    """CITATION.cff with the version of the package and the papers of all open chapters."""
    held = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    papers = [
        {
            "type": "conference-paper",
            "title": one.paper,
            "authors": [{"family-names": family, "given-names": given} for given, family in one.people],
            "year": one.year,
            "conference": {"name": one.venue},
            "url": f"https://arxiv.org/abs/{one.arxiv}",
            "notes": f"arXiv:{one.arxiv}; chapter {one.number} of Paperplay",
        }
        for one in open_chapters()
    ]
    whole = {**held, "version": lib.__version__, "references": papers}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=120)


# ---------------------------------------------------------------------------------------------------------- pictures


def pictures() -> None:
    """The map, the first explorer of every open chapter (at its first try, where it has tries), and one that moves."""
    with drawing() as page:
        draw_pictures(page)


def draw_pictures(page: Drawing) -> None:
    buffer = io.BytesIO()
    with rc_context(MATPLOTLIB):
        chapter_map().savefig(buffer, format="png", metadata={"Software": None})
    stills = {"map": buffer.getvalue()}
    explorers = all_explorers()
    for one in open_chapters():
        first = next(explorer for key, explorer in explorers.items() if key.startswith(f"{one.name}."))
        stills[Path(one.notebook).stem] = small_png(page.picture(first().figures()[:2][-1]["figure"], WIDTH))
    for name, data in stills.items():
        with atomic_path(PICTURES / f"{name}.png") as temporary:
            temporary.write_bytes(data)
    name, control, values = LIVE
    explorer = explorers[name]()
    frames = [frame(page, explorer, control, value) for value in values]
    there_and_back = [*frames[1:], *frames[-2:0:-1]]
    with atomic_path(PICTURES / "live.gif") as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=there_and_back, duration=160, loop=0)


def frame(page: Drawing, explorer: Explorer, control: str, value: float) -> Image.Image:
    """The explorer at a setting, with the slider that leads there above it."""
    explorer.set(**{control: value})
    still = page.picture(explorer.figures()[0]["figure"], WIDTH)
    bar = 46
    image = Image.new("RGB", (still.width, still.height + bar), "white")
    image.paste(still, (0, bar))
    draw = ImageDraw.Draw(image)
    slider = explorer.declared[control]
    assert isinstance(slider, Slider)
    low, high = slider.extremes()
    left, right, y = 260, still.width - 110, bar // 2 + 4
    knob = left + (right - left) * (value - low) / (high - low)
    font = ImageFont.load_default(16)
    draw.text((left - 14, y), slider.label, COLOURS["black"], font, anchor="rm")
    draw.line((left, y, right, y), COLOURS["grey"], 4)
    draw.line((left, y, knob, y), COLOURS["blue"], 4)
    draw.ellipse((knob - 9, y - 9, knob + 9, y + 9), "white", COLOURS["blue"], 3)
    draw.text((right + 16, y), f"{value:.2f}", COLOURS["black"], font, anchor="lm")
    return image.quantize(64, dither=Image.Dither.NONE)


# -------------------------------------------------------------------------------------------------------------- main

#: What is written by name: the file, and what it should hold.
PAGES: dict[str, tuple[Path, Callable[[], str]]] = {
    "readme": (ROOT / "README.md", readme),
    "chapters": (ROOT / "docs" / "chapters.md", chapters),
    "scoreboard": (ROOT / "docs" / "scoreboard.md", scoreboard),
    "speed": (ROOT / "docs" / "speed.md", speed),
    "cli": (ROOT / "docs" / "cli.md", cli),
    "citation": (ROOT / "CITATION.cff", citation),
}


def is_stale(name: str) -> bool:
    """Whether a file holds something else than it should."""
    path, content = PAGES[name]
    text = path.read_text()
    return not lists_all_claims(text) if name == "scoreboard" else text != content()


def main(arguments: list[str]) -> int:
    """Write, or compare."""
    names = [name for name in arguments if name != "--check"] or [*PAGES, "pictures"]
    if "--check" in arguments:
        stale = [name for name in names if name != "pictures" and is_stale(name)]
        if stale:
            print(f"out of date: {', '.join(stale)} (python tools/docs.py {' '.join(stale)} writes them)")
        return bool(stale)
    for name in names:
        if name == "pictures":
            pictures()
            continue
        path, content = PAGES[name]
        text = content()
        with atomic_path(path) as temporary:
            temporary.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
