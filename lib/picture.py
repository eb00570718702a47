"""A still picture of a plotly figure, drawn by matplotlib: no browser, no network.

Saved notebooks and docs/ show these where a live figure cannot run. What is drawn is read back from
the live figure, so both always show the same data. Covers what the suite's figures use: lines, markers,
bars, heat maps, shapes' lines, linear and logarithmic axes, panel titles and a legend.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from lib.style import MATPLOTLIB, PALETTE

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes

__all__ = ["draw", "png"]

_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", None: "-"}
_MARKERS = {
    "circle": "o",
    "x": "x",
    "diamond": "D",
    "square": "s",
    "star": "*",
    "cross": "P",
    "triangle-up": "^",
    None: "o",
}


def png(figure: go.Figure, *, width: float = 9.0) -> bytes:
    r"""The figure as a PNG.

    Examples:
        >>> from lib.style import new_figure
        >>> png(new_figure())[:4]
        b'\x89PNG'
    """
    with rc_context(MATPLOTLIB):
        still = draw(figure, width=width)
        buffer = io.BytesIO()
        still.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def draw(figure: go.Figure, *, width: float = 9.0) -> Figure:
    """The figure as a matplotlib figure, `width` inches wide."""
    layout = figure.layout
    height = (layout.height or 380) / 80
    still = Figure(figsize=(width, height))
    panels = {_panel(trace) for trace in figure.data} or {("x", "y")}
    axes = {panel: _add_axes(still, figure, panel, width, height) for panel in sorted(panels)}
    labelled = []
    for number, trace in enumerate(figure.data):
        if trace.visible in (False, "legendonly"):
            continue
        artist = _draw_trace(axes[_panel(trace)], trace, PALETTE[number % len(PALETTE)])
        if artist is not None and trace.name and trace.showlegend is not False:
            labelled.append((artist, _plain(trace.name)))
    for annotation in layout.annotations:
        if annotation.text and annotation.xref == "paper":
            x, y = _place(annotation.x, annotation.y, width, height)
            still.text(x, y, _plain(annotation.text), ha="center", va="bottom", fontsize=11)
    for panel, ax in axes.items():
        _set_axis(ax, layout, panel)
    if labelled and layout.showlegend is not False:
        handles, names = zip(*labelled, strict=True)
        still.legend(handles, names, loc="lower left", ncol=min(4, len(names)), fontsize=9, bbox_to_anchor=(0.06, 0.0))
    return still


def _panel(trace: Any) -> tuple[str, str]:
    return trace.xaxis or "x", trace.yaxis or "y"


def _place(x: float, y: float, width: float, height: float) -> tuple[float, float]:
    """Paper coordinates to figure fractions, with room for labels and the legend."""
    left, right, bottom, top = 0.9 / width, 0.2 / width, 1.0 / height, 0.5 / height
    return left + x * (1 - left - right), bottom + y * (1 - bottom - top)


def _axis(layout: Any, name: str) -> Any:
    return layout[f"{name[0]}axis{name[1:]}"]


def _add_axes(still: Figure, figure: go.Figure, panel: tuple[str, str], width: float, height: float) -> Axes:
    x_domain = _axis(figure.layout, panel[0]).domain or (0, 1)
    y_domain = _axis(figure.layout, panel[1]).domain or (0, 1)
    x0, y0 = _place(x_domain[0], y_domain[0], width, height)
    x1, y1 = _place(x_domain[1], y_domain[1], width, height)
    return still.add_axes((x0, y0, x1 - x0, y1 - y0))


def _draw_trace(ax: Axes, trace: Any, colour: str) -> Any:
    if trace.type == "scatter":
        return _draw_scatter(ax, trace, colour)
    if trace.type == "bar":
        colours = trace.marker.color or colour
        return ax.bar(_values(trace.x), _values(trace.y), color=colours, width=trace.width or 0.8)
    if trace.type == "heatmap":
        x, y, z = _values(trace.x), _values(trace.y), np.asarray(trace.z, dtype=float)
        colours = _colour_map(trace.colorscale)
        ax.pcolormesh(x, y, z, cmap=colours, vmin=trace.zmin, vmax=trace.zmax, shading="nearest", rasterized=True)
        ax.grid(visible=False)
        return None
    raise ValueError(f"a {trace.type} trace has no still picture yet")


def _draw_scatter(ax: Axes, trace: Any, colour: str) -> Any:
    x, y = _values(trace.x), _values(trace.y)
    mode = trace.mode or "lines"
    line = trace.line.color or colour
    marker = trace.marker.color if isinstance(trace.marker.color, str) else line
    style: dict[Any, Any] = {
        "color": line,
        "linestyle": _DASHES.get(trace.line.dash, "-"),
        "linewidth": trace.line.width or 1.8,
    }
    if "lines" not in mode:
        style["linestyle"] = "none"
    if "markers" in mode:
        size = trace.marker.size if isinstance(trace.marker.size, (int, float)) else 6
        symbol = _MARKERS.get((trace.marker.symbol or "circle").removesuffix("-open"), "o")
        hollow = str(trace.marker.symbol or "").endswith("-open")
        style |= {"marker": symbol, "markersize": size * 0.75, "markeredgecolor": marker}
        style["markerfacecolor"] = "none" if hollow else marker
    (artist,) = ax.plot(x, y, alpha=trace.opacity or 1.0, **style)
    if trace.fill == "tozeroy":
        ax.fill_between(x.astype(float), y.astype(float), color=line, alpha=0.15)
    return artist


def _values(values: Any) -> np.ndarray[Any, np.dtype[Any]]:
    array = np.asarray(() if values is None else values)
    # None separates the pieces of a line
    return array.astype(float) if array.dtype == object and not any(isinstance(v, str) for v in array) else array


def _colour_map(colorscale: Any) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    if not colorscale:
        return "viridis"
    stops = [(float(place), _hex(colour)) for place, colour in colorscale]
    return LinearSegmentedColormap.from_list("plotly", stops)


def _hex(colour: str) -> str:
    match = re.fullmatch(r"rgb\((\d+), ?(\d+), ?(\d+)\)", colour)
    return "#" + "".join(f"{int(part):02x}" for part in match.groups()) if match else colour


def _set_axis(ax: Axes, layout: Any, panel: tuple[str, str]) -> None:
    if _axis(layout, panel[1]).scaleanchor:
        ax.set_aspect("equal", adjustable="box")
    for name, set_scale, set_limits, set_label, set_ticks in (
        (panel[0], ax.set_xscale, ax.set_xlim, ax.set_xlabel, ax.set_xticks),
        (panel[1], ax.set_yscale, ax.set_ylim, ax.set_ylabel, ax.set_yticks),
    ):
        axis = _axis(layout, name)
        if axis.type == "log":
            set_scale("log")
        if axis.range:
            low, high = axis.range
            set_limits(*((10.0**low, 10.0**high) if axis.type == "log" else (low, high)))
        if axis.title.text:
            set_label(_plain(axis.title.text))
        if axis.tickvals is not None:
            set_ticks(list(axis.tickvals), labels=[_plain(t) for t in axis.ticktext] if axis.ticktext else None)


def _plain(text: str) -> str:
    """Plotly's little HTML, as text."""
    text = re.sub(r"<br ?/?>", "\n", text)
    text = re.sub(r"<sub>(.*?)</sub>", r"$_{\\mathrm{\1}}$", text)
    text = re.sub(r"<sup>(.*?)</sup>", r"$^{\\mathrm{\1}}$", text)
    return re.sub(r"<[^>]+>", "", text)
