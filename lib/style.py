"""One look for all figures: a palette that colour-blind readers can tell apart, fonts that can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "DIVERGING", "MATPLOTLIB", "new_figure", "panels", "show"]

#: Okabe and Ito's palette, by name.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "black": "#222222",
    "grey": "#999999",
}
#: In the order in which curves take them.
_PALETTE = [COLOURS[name] for name in ("blue", "vermilion", "green", "orange", "purple", "sky", "black")]

#: Plotly's colour scale from blue over white to red, for differences.
DIVERGING = [[0, "#053061"], [0.25, "#4393C3"], [0.5, "#FFFFFF"], [0.75, "#E0704E"], [1, "#8A0F26"]]

#: Settings for `matplotlib.rc_context`; the same size and resolution everywhere.
MATPLOTLIB: dict[Any, Any] = {
    "figure.dpi": 80,
    "savefig.dpi": 80,
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "axes.prop_cycle": f"cycler('color', {_PALETTE!r})",
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def new_figure(
    columns: int = 1, *, titles: tuple[str, ...] = (), widths: tuple[float, ...] | None = None, height: int = 400
) -> go.Figure:
    """An empty plotly figure with panels in a row, in the style of the suite; the height is in pixels."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1,
        cols=columns,
        subplot_titles=titles or None,
        column_widths=list(widths) if widths else None,
        horizontal_spacing=0.14,  # room for the label of the panel to the right where a cell is narrow
    )
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 100},
        font={"size": 13, "color": COLOURS["black"]},
        colorway=_PALETTE,
        legend={"orientation": "h", "x": 0, "y": 0.01, "yref": "container", "yanchor": "bottom"},
        hovermode="closest",
        autosize=True,
    )
    figure.update_annotations(font_size=14)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(showline=True, linecolor=COLOURS["grey"], ticks="outside", zeroline=False)
    return figure


def panels(columns: int = 1, *, width: float = 9.0, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A matplotlib figure of `width` x `height` inches with panels in a row, in the style of the suite.

    It belongs to nobody's global state; `show` displays it.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(MATPLOTLIB):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = [figure.add_subplot(1, columns, column + 1) for column in range(columns)]
    return figure, axes


def show(figure: Figure, alt: str) -> None:
    """Display a matplotlib figure in a notebook, with words for those who cannot see it.

    The words are also the output's plain text, so that a stored notebook is the same wherever it was run.
    """
    import base64
    import io

    from IPython.display import display
    from matplotlib import rc_context

    with rc_context(MATPLOTLIB):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    picture = {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": f"Figure: {alt}"}
    display(picture, raw=True, metadata={"image/png": {"alt": alt}})
