"""A plotly FigureWidget that is whole for whoever asks, and says little: arrays go to a page as small bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as widgets
import numpy as np
import plotly
import plotly.graph_objects as go
from plotly.serializers import custom_serializers
from traitlets import Dict, Instance, List, Unicode, default

__all__ = ["LiveFigure", "packed"]

#: Fewer bytes are not worth the time to deflate them.
_SMALL = 1000


def packed(value: Any, widget: Any = None) -> Any:
    """Numbers as bytes, deflated where that pays; plotly would write out 2-D arrays and 8-byte integers as text.

    Of floating-point numbers four bytes are sent: seven digits, more than a screen can show.
    """
    if isinstance(value, dict):
        return {name: packed(inner, widget) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [packed(inner, widget) for inner in value]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        return custom_serializers["to_json"](value, widget)
    if value.dtype.kind == "f":
        array = value.astype(np.float32)
    else:
        array = value.astype(np.int32) if value.itemsize == 8 else value
        array = array if np.array_equal(array, value) else value.astype(np.float64)
    small = array.nbytes <= _SMALL
    numbers = array.tobytes() if small else zlib.compress(array.tobytes(), 1)
    return {"buffer": numbers, "dtype": str(array.dtype), "shape": array.shape, "deflated": not small}


_PACKED = {"to_json": packed, "from_json": custom_serializers["from_json"]}


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
    # plotly's own, with arrays packed
    _widget_data: List[Any] = List().tag(sync=True, **_PACKED)
    _py2js_update = Dict(allow_none=True).tag(sync=True, **_PACKED)

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
