"""The suite at a glance: the map of chapters as a picture and as a table."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from lib.chapters import CHAPTERS, ROADS, Chapter
from lib.style import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ChapterTable", "chapter_map"]


class ChapterTable:
    """The chapters as a table: what, how long, what to know; links where a chapter is open."""

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
    return str(one.number), linked + paper, html.escape(one.promise), one.time, html.escape(one.needs)


def chapter_map() -> Figure:
    """The chapters as a picture: a row for each road, open chapters in colour."""
    roads = {road: [one.name for one in CHAPTERS if one.road == road] for road in ROADS}
    height = len(ROADS) - 1
    places = {name: (x, height - row) for row, names in enumerate(roads.values()) for x, name in enumerate(names)}
    figure, (ax,) = panels(width=9.5, height=4.2)
    for one in CHAPTERS:
        x, y = places[one.name]
        for before in one.builds_on:
            x0, y0 = places[before]
            arrow = {"arrowstyle": "-|>", "color": COLOURS["black"], "lw": 1.5}
            ax.annotate("", (x - 0.44, y), (x0 + 0.44, y0), arrowprops=arrow)
        face, ink = (COLOURS["blue"], "white") if one.is_open else ("#EEEEEE", COLOURS["black"])
        box = {"boxstyle": "round,pad=0.55", "facecolor": face, "edgecolor": COLOURS["grey"]}
        words = one.title.split()
        middle = (len(words) + 1) // 2
        label = f"{one.number}\n{' '.join(words[:middle])}\n{' '.join(words[middle:])}".rstrip()
        ax.text(x, y, label, ha="center", va="center", color=ink, fontsize=10, bbox=box)
    for row, road in enumerate(ROADS):
        label = road.replace(" ", "\n", 1)
        ax.text(-0.62, height - row, label, ha="center", va="center", rotation=90, fontsize=9, color=COLOURS["black"])
    ax.set(xlim=(-0.75, max(map(len, roads.values())) - 0.4), ylim=(-0.6, height + 0.6))
    ax.axis("off")
    return figure
