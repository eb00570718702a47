"""The suite at a glance: the map of chapters as a picture and as a table."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from lib.chapters import CHAPTERS, Chapter
from lib.style import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ChapterTable", "chapter_map"]

# Where each chapter stands on the map, and what it builds on.
_PLACES = {
    1: (0, 2),
    2: (1, 2),
    3: (2, 2),
    4: (0, 1),
    5: (1, 1),
    9: (3, 2),
    6: (0, 0),
    7: (1, 0),
    8: (2, 0),
    10: (3, 0),
}
_ROWS = {2: "theory\nof learning", 1: "training\nwith less", 0: "models\nin the world"}
_BUILDS_ON = ((1, 2), (4, 5))


class ChapterTable:
    """The ten chapters as a table: what, how long, what to know; links where a chapter is open."""

    def __repr__(self) -> str:
        return "\n".join(f"{one.number:2d}  {one.title} ({'open' if one.is_open else 'to come'})" for one in CHAPTERS)

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;vertical-align:top;padding:4px 10px"'
        head = "".join(
            f"<th {cell}>{name}</th>" for name in ("", "chapter", "what you will see", "minutes", "you need")
        )
        rows = "".join(f"<tr>{''.join(f'<td {cell}>{value}</td>' for value in _row(one))}</tr>" for one in CHAPTERS)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(one: Chapter) -> tuple[str, ...]:
    title = html.escape(one.title)
    linked = f'<a href="{one.notebook}"><b>{title}</b></a>' if one.is_open else f"{title} <i>(to come)</i>"
    paper = f"<br><small>{html.escape(one.venue)}, arXiv {one.arxiv}</small>"
    return str(one.number), linked + paper, html.escape(one.promise), str(one.minutes), html.escape(one.needs)


def chapter_map() -> Figure:
    """The ten chapters as a picture: three roads, open chapters in colour.

    Examples
    --------
    >>> len(chapter_map().axes[0].texts) >= 10
    True
    """
    figure, (ax,) = panels(width=9.5, height=4.2)
    for before, after in _BUILDS_ON:
        (x0, y0), (x1, y1) = _PLACES[before], _PLACES[after]
        arrow = {"arrowstyle": "-|>", "color": COLOURS["black"], "lw": 1.5}
        ax.annotate("", (x1 - 0.44, y1), (x0 + 0.44, y0), arrowprops=arrow)
    for one in CHAPTERS:
        x, y = _PLACES[one.number]
        face, ink = (COLOURS["blue"], "white") if one.is_open else ("#EEEEEE", COLOURS["black"])
        box = {"boxstyle": "round,pad=0.55", "facecolor": face, "edgecolor": COLOURS["grey"]}
        words = one.title.split()
        middle = (len(words) + 1) // 2
        label = f"{one.number}\n{' '.join(words[:middle])}\n{' '.join(words[middle:])}".rstrip()
        ax.text(x, y, label, ha="center", va="center", color=ink, fontsize=10, bbox=box)
    for y, name in _ROWS.items():
        ax.text(-0.62, y, name, ha="center", va="center", rotation=90, fontsize=9, color=COLOURS["black"])
    ax.set(xlim=(-0.75, 3.6), ylim=(-0.6, 2.6))
    ax.axis("off")
    return figure
