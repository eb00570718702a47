"""A plotly FigureWidget that is whole for whoever asks: a page loaded again, a saved notebook, a second view."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as widgets
import plotly
import plotly.graph_objects as go
from traitlets import Instance, Unicode, default

__all__ = ["LiveFigure"]


class LiveFigure(go.FigureWidget):
    """A FigureWidget that tells its present traces and layout to everyone who asks for its state.

    Plotly brings what it tells up to date only where the figure is what a cell displays; inside of a box it stays
    what it was at first. Here it is looked up when it is asked for, so a change still sends no more than the change.

    No page hears of the figure before `open` is called, so that the first picture can be part of what it hears first.
    """

    _esm = Path(__file__).with_suffix(".js")
    _shared: ClassVar[widgets.Widget | None] = None
    #: Plotly's own browser side, as a text that all figures of a kernel share.
    _library = Instance(widgets.Widget).tag(sync=True, **widgets.widget_serialization)
    _library_version = Unicode(plotly.__version__).tag(sync=True)

    def __init__(self, figure: go.Figure) -> None:
        self._complete = False
        super().__init__(figure)
        self._complete = True

    @default("_library")
    def _one_library(self) -> widgets.Widget:
        shared = LiveFigure._shared
        if shared is None or shared.comm is None:  # none yet, or somebody has closed all widgets
            shared = LiveFigure._shared = widgets.Label(str(go.FigureWidget._esm))
        return shared

    def open(self) -> None:
        """Let pages hear of the figure."""
        if self._complete:  # ipywidgets calls this before plotly has any traces
            super().open()

    def get_state(self, key: str | Iterable[str] | None = None, drop_defaults: bool = False) -> dict[str, Any]:
        """What a page is told; traces and layout as they are now."""
        keys = self.keys if key is None else [key] if isinstance(key, str) else list(key)
        # in place: assigning would send them
        if "_widget_data" in keys:
            self._widget_data[:] = deepcopy(self._data)
        if "_widget_layout" in keys:
            self._widget_layout.clear()
            self._widget_layout.update(deepcopy(self._layout))
        state: dict[str, Any] = super().get_state(keys, drop_defaults)
        return state

    def send_whole(self) -> None:
        """Tell pages all traces and the layout."""
        self.send_state(("_widget_data", "_widget_layout"))
