"""Write the README's pictures, tables and scoreboard from the code; `--check` compares what is quick to compute.

python tools/readme.py [--check]
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import rc_context

from lib.chapters import CHAPTERS, open_chapters
from lib.claims import run_claims
from lib.explorer import all_explorers
from lib.files import atomic_path
from lib.overview import chapter_map
from lib.style import MATPLOTLIB

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "pictures"
RESULTS = ROOT / "tests" / "benchmarks" / "results.json"


def chapters() -> str:
    """The table of chapters, with a picture for each open one."""
    rows = ["| | chapter | what you will see | |", "|---|---|---|---|"]
    for one in CHAPTERS:
        title = one.paper if one.paper.endswith("?") else f"{one.paper}."
        paper = f"{one.authors}: *{title}* {one.venue}, arXiv {one.arxiv}"
        if one.is_open:
            picture = f'<img src="docs/pictures/{Path(one.notebook).stem}.png" width="330" alt="{one.promise}">'
            title = f"[**{one.title}**](notebooks/{one.notebook})"
        else:
            picture, title = "", f"{one.title} *(to come)*"
        rows.append(f"| {one.number} | {title}<br><sub>{paper}</sub> | {one.promise} | {picture} |")
    return "\n".join(rows)


def scoreboard() -> str:
    """Every claim of every open chapter, measured now."""
    results = run_claims(jobs=2)
    held = sum(result.evidence.holds for result in results)
    lines = [f"**{held} of {len(results)} claims hold.**"]
    for one in open_chapters():
        lines += ["", f"<details><summary>{one.number}. {one.title}</summary>", ""]
        lines += ["| | claim | source | paper | here | asked |", "|---|---|---|---|---|---|"]
        lines += [result.markdown() for result in results if result.claim.chapter == one.name]
        lines += ["", "</details>"]
    return "\n".join(lines)


def speed() -> str:
    """What `make bench` measured last: on one core, then on a GPU, each table folded away with its like."""
    stored = json.loads(RESULTS.read_text())
    lines = [f"Measured on {stored['machine']}, the same work in the same run; the median of repeated runs."]
    explorers = [rows for name, rows in stored["groups"].items() if name.startswith("explorers")]
    slowest = max((row["milliseconds"] for rows in explorers for row in rows), default=0.0)
    lines += ["", f"**Explorers.** Kernel time of a slider's move: at most {slowest:.0f} ms in the median."]
    others = {name: rows for name, rows in stored["groups"].items() if not name.startswith("explorers")}
    gpu = {name: rows for name, rows in others.items() if _on_gpu(name, rows)}
    for where, groups in (("one core", {k: v for k, v in others.items() if k not in gpu}), ("a GPU", gpu)):
        if groups:
            lines += ["", f"<details><summary>On {where}: {len(groups)} comparisons</summary>"]
            for name, rows in groups.items():
                lines += _comparison(name, rows)
            lines += ["", "</details>"]
    return "\n".join(lines)


def _on_gpu(name: str, rows: list[dict[str, Any]]) -> bool:
    return any("NVIDIA" in f"{name} {row['name']} {row.get('note', '')}" for row in rows)


def _comparison(name: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = ["", f"**{name[0].upper()}{name[1:]}**", "", "| | time | ratio to ours | |", "|---|--:|--:|---|"]
    for row in rows:
        cells = (row["name"], f"{row['milliseconds']:.3g} ms", f"{row['ratio']:.3g}", row.get("note", ""))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


QUICK = {"chapters": chapters, "speed": speed}
SLOW = {"scoreboard": scoreboard}


def with_block(text: str, name: str, content: str) -> str:
    """The README with the part between two markers replaced."""
    begin, end = f"<!-- {name}: written by tools/readme.py -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"README.md has no markers for {name}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def pictures() -> None:
    """The map, and the first explorer of every open chapter."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with rc_context(MATPLOTLIB):
        chapter_map().savefig(buffer, format="png", metadata={"Software": None})
    stills = {"map": buffer.getvalue()}
    explorers = all_explorers()
    for one in open_chapters():
        first = next(explorer for key, explorer in explorers.items() if key.startswith(f"{one.name}."))
        stills[Path(one.notebook).stem] = first().still()
    for name, data in stills.items():
        with atomic_path(PICTURES / f"{name}.png") as temporary:
            temporary.write_bytes(data)


def main(arguments: list[str]) -> int:
    """Write, or compare."""
    text = README.read_text()
    if "--check" in arguments:
        stale = [name for name, content in QUICK.items() if with_block(text, name, content()) != text]
        if stale:
            print(f"README.md is out of date: {', '.join(stale)} (make readme writes them)")
        return bool(stale)
    for name, content in {**QUICK, **SLOW}.items():
        text = with_block(text, name, content())
    with atomic_path(README) as temporary:
        temporary.write_text(text)
    pictures()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
