"""The base of every live figure: declared controls, panels and traces, and a pure `compute` between them.

A subclass says what its controls are, how data follow from their values, and which panels and traces show the data.
Everything else is done here, once: layout, one controller for all panels, errors shown in the figure's place, a reset
button, and a still picture for saved notebooks.

    class Parabola(Explorer):
        name = "parabola"
        title = "A parabola"
        caption = "The curve steepens as the slider moves to the right."
        declared = {"power": Slider("power", 1, 4, 0.1, 2)}
        panels = (Panel("x to the power {power:.1f}", axis("x", (0, 1)), axis("y", (0, 1))),)
        traces = (line("curve", "blue", x=np.linspace(0, 1, 50), y="y"),)

        def compute(self, power):
            return {"y": np.linspace(0, 1, 50) ** power, "power": power}

Data are named in three ways. The `x`, `y`, `z` and `customdata` of a trace are names of data, of which a single number
is repeated, or numbers that stay; `xy` names an array of points (n, 2). Titles and names of traces are templates for
`str.format`. Any other property of a trace or an axis, in plotly's own words, may be a `Key`.
"""

from __future__ import annotations

import asyncio
import html
import inspect
import json
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from operator import itemgetter
from string import Formatter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import ipywidgets as widgets
import numpy as np

from lib.chapters import open_chapters
from lib.style import COLOURS, new_figure
from lib.validation import one_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "Choice",
    "Explorer",
    "Key",
    "Panel",
    "Slider",
    "Toggle",
    "Trace",
    "Try",
    "all_explorers",
    "axis",
    "bars",
    "dots",
    "heatmap",
    "line",
    "swatch",
]

Data = Mapping[str, Any]

#: The environment variable that asks for figures beside the live widget, and their kind.
STILLS = "PAPERPLAY_FIGURES"
FIGURES = "application/vnd.paperplay.figures+json"

# How long controls must stay where they are before a coarse picture is refined.
_REST_SECONDS = 0.25

_WIDE = {"description_width": "initial"}

#: Properties of a trace that hold numbers; words there are names of data.
_NUMBERS = ("x", "y", "z", "customdata")


@dataclass(frozen=True)
class Slider:
    """A number. With `log`, `low` and `high` are powers of ten and `step` a part of a decade; `default` is the value.

    `on_release` waits for the end of the movement: for work that is slower than the eye.
    """

    label: str
    low: float
    high: float
    step: float
    default: float
    log: bool = False
    on_release: bool = False
    format: str = ""

    def widget(self) -> widgets.Widget:
        """The control itself."""
        common = {
            "description": f"{self.label} (on release)" if self.on_release else self.label,
            "value": self.default,
            "min": self.low,
            "max": self.high,
            "step": self.step,
            "continuous_update": not self.on_release,
            "style": _WIDE,
            "layout": widgets.Layout(width="380px"),
        }
        if self.log:
            return widgets.FloatLogSlider(readout_format=self.format or ".2g", **common)
        if all(isinstance(value, int) for value in (self.low, self.high, self.step, self.default)):
            return widgets.IntSlider(**common)
        return widgets.FloatSlider(readout_format=self.format or ".3g", **common)

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return (10.0**self.low, 10.0**self.high) if self.log else (self.low, self.high)

    def random(self, rng: np.random.Generator) -> float:
        """A value that the slider can take."""
        steps = int(rng.integers(0, round((self.high - self.low) / self.step) + 1))
        value = min(self.low + steps * self.step, self.high)
        return float(10.0**value) if self.log else value


@dataclass(frozen=True)
class Toggle:
    """On or off."""

    label: str
    default: bool = False

    def widget(self) -> widgets.Widget:
        """The control itself."""
        return widgets.Checkbox(value=self.default, description=self.label, indent=False, style=_WIDE)

    def extremes(self) -> tuple[bool, bool]:
        """Off and on."""
        return False, True

    def random(self, rng: np.random.Generator) -> bool:
        """Off or on."""
        return bool(rng.integers(2))


@dataclass(frozen=True)
class Choice:
    """One of a few named options."""

    label: str
    options: tuple[str, ...]
    default: str

    def widget(self) -> widgets.Widget:
        """The control itself."""
        layout = widgets.Layout(width="380px")
        return widgets.Dropdown(
            options=self.options, value=self.default, description=self.label, style=_WIDE, layout=layout
        )

    def extremes(self) -> tuple[str, str]:
        """First and last option."""
        return self.options[0], self.options[-1]

    def random(self, rng: np.random.Generator) -> str:
        """Any option."""
        return self.options[int(rng.integers(len(self.options)))]


@dataclass(frozen=True)
class Try:
    """Something to see at certain values of the controls, under a button.

    Attributes:
        label: Of the button.
        settings: Values of controls; all others go to their defaults.
        expect: What there is to see, with data in braces.
        holds: Whether it is so, from the data.
        not_at: Settings at which it is not so: a test sees both.
    """

    label: str
    settings: Mapping[str, Any]
    expect: str
    holds: Callable[[Mapping[str, Any]], bool]
    not_at: Mapping[str, Any]


class Key(str):
    """The name of the data that a property of a trace or of an axis takes its value from."""

    __slots__ = ()


@dataclass(frozen=True)
class Panel:
    """A pair of axes under a title. Panels stand in a row, unless they have a place.

    `place` is (left, right, bottom, top), each a fraction of the figure's sides; `equal` gives both axes one scale, so
    that circles look like circles.
    """

    title: str
    x: Mapping[str, Any]
    y: Mapping[str, Any]
    width: float = 1.0
    place: tuple[float, float, float, float] | None = None
    equal: bool = False


def axis(title: str, limits: Any = None, *, log: bool = False, **plotly: Any) -> dict[str, Any]:
    """An axis in plotly's words. `limits` are powers of ten where it is logarithmic.

    Examples:
        >>> axis("loss", (-4, 0), log=True, dtick=1)
        {'title': 'loss', 'range': (-4, 0), 'type': 'log', 'dtick': 1}
    """
    chosen = {"title": title or None, "range": limits, "type": "log" if log else None, **plotly}
    return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class Trace:
    """What is drawn in a panel: `line`, `dots`, `bars`, `heatmap` and `swatch` make one."""

    kind: str
    panel: int
    properties: Mapping[str, Any]


def _trace(
    kind: str, name: str, *, panel: int = 1, legend: bool = True, hover: str | bool = True, **plotly: Any
) -> Trace:
    """A trace in plotly's words; `hover` is its template for what a pointer is told, or False for nothing."""
    look = {
        "name": name,
        "showlegend": None if legend else False,  # plotly knows what belongs into a legend
        "hovertemplate": f"{hover}<extra></extra>" if isinstance(hover, str) else None,
        "hoverinfo": None if hover else "skip",
        **plotly,
    }
    return Trace(kind, panel, {name: value for name, value in look.items() if value is not None})


def _colour(name: str) -> str:
    return COLOURS.get(name, name)


def line(name: str, color: str, *, width: float | Key | None = None, dash: str | None = None, **settings: Any) -> Trace:
    """A line; NaN is a gap in it. Colours have the names of `lib.style.COLOURS`, or plotly's.

    Args:
        settings: Of all traces: `panel` (1, from the left), `legend` (True), `hover` (plotly's template for what a
            pointer is told, False for nothing), the data, and whatever else plotly knows.
    """
    look = {"mode": "lines", "line_color": _colour(color), "line_width": width, "line_dash": dash}
    return _trace("scatter", name, **(look | settings))


def dots(
    name: str, color: str, *, size: float | Key | None = None, symbol: str | None = None, **settings: Any
) -> Trace:
    """Points that are not joined."""
    look = {"mode": "markers", "marker_color": _colour(color), "marker_size": size, "marker_symbol": symbol}
    return _trace("scatter", name, **(look | settings))


def bars(name: str, *colors: str, width: float | None = None, **settings: Any) -> Trace:
    """Bars of one colour, or each of its own."""
    colours = [_colour(color) for color in colors]
    return _trace("bar", name, marker_color=colours if len(colours) > 1 else colours[0], width=width, **settings)


def heatmap(name: str, colors: Any, low: float | Key, high: float | Key, **settings: Any) -> Trace:
    """A map of `z` (rows, columns); `colors` is plotly's colour scale, from `low` to `high`."""
    # plotly notes zauto itself once a limit is changed, and a page that is loaded again would hold another figure
    return _trace("heatmap", name, colorscale=colors, zmin=low, zmax=high, zauto=False, showscale=False, **settings)


def swatch(name: str, color: str) -> Trace:
    """A square in the legend that says what a colour of a map means."""
    return dots(name, color, size=12, symbol="square", x=(None,), y=(None,))


class _Link(NamedTuple):
    """A property that is drawn: where it stands, the names of the data it needs, and how it follows from them."""

    target: Any
    name: str
    keys: list[str]
    value: Callable[[Data], Any]


def _links(target: Any, properties: Mapping[str, Any]) -> Iterator[_Link]:
    for name, value in properties.items():
        if name == "xy":
            for column, coordinate in enumerate("xy"):
                yield _Link(target, coordinate, [value], _column(value, column))
        elif name in _NUMBERS and isinstance(value, str):
            beside = properties.get("y" if name == "x" else "x")
            keys = [value, beside] if isinstance(beside, str) else [value]
            yield _Link(target, name, keys, _array(value, beside))
        elif isinstance(value, Key):
            yield _Link(target, name, [value], itemgetter(value))
        elif name in ("name", "text", "title"):
            fields = [re.split(r"[.[]", field)[0] for _, field, _, _ in Formatter().parse(value) if field]
            if fields:
                yield _Link(target, "title.text" if name == "title" else name, fields, value.format_map)


def _column(key: str, column: int) -> Callable[[Data], Any]:
    return lambda data: np.atleast_2d(data[key])[:, column]


def _array(key: str, beside: Any) -> Callable[[Data], Any]:
    """Numbers as they are; a single one for each of those beside it, such as of a line across a panel."""

    def value(data: Data) -> Any:
        array = np.asarray(data[key])
        return array if array.ndim else np.repeat(array, np.size(data[beside] if isinstance(beside, str) else beside))

    return value


def _fixed(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The properties that are not drawn; numbers as lists, since plotly packs arrays that it is given at the start."""
    drawn = {"xy", *(link.name.split(".")[0] for link in _links(None, properties))}
    kept = {name: value for name, value in properties.items() if name not in drawn}
    return {name: np.asarray(value).tolist() if name in _NUMBERS else value for name, value in kept.items()}


class UnknownDataError(ValueError):
    """A panel or a trace names data that an explorer does not compute."""


class Explorer(widgets.VBox):
    """A live figure: controls above, panels below, all of them redrawn from one `compute`.

    Attributes:
        controls: The ipywidgets by name; set `.value` to move one.
        parameters: The present values by name.
        figure: The plotly FigureWidget.
        data: What `compute` returned last.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    caption: ClassVar[str]
    declared: ClassVar[dict[str, Slider | Toggle | Choice]]
    panels: ClassVar[tuple[Panel, ...]]
    traces: ClassVar[tuple[Trace, ...]]
    #: More of plotly's layout, such as a height.
    figure_layout: ClassVar[Mapping[str, Any]] = {}
    #: Names of data that a setting may leave empty (all NaN), such as a root that does not exist.
    may_be_absent: ClassVar[tuple[str, ...]] = ()
    #: Names of data that hold NaN on purpose, as gaps between lines.
    with_gaps: ClassVar[tuple[str, ...]] = ()
    #: What is worth trying.
    tries: ClassVar[tuple[Try, ...]] = ()
    #: Whether `compute` takes `fine=False` for a quick, coarse answer while a control moves; the fine one follows
    #: as soon as the controls rest for a moment.
    coarse_while_moving: ClassVar[bool] = False
    #: The name of a slider of whole numbers that a play button moves from end to end, such as a time.
    played: ClassVar[str | None] = None
    #: The sliders that a click on a map sets to its x and y.
    clicked: ClassVar[tuple[str, str] | None] = None

    def __init__(self, **values: Any) -> None:
        from lib.live_figure import LiveFigure

        self._check(values)
        self.controls: dict[str, Any] = {name: control.widget() for name, control in self.declared.items()}
        for name, value in values.items():
            self.controls[name].value = value
        self.figure: go.FigureWidget = LiveFigure(self.build())
        # Without it a figure that is drawn before its cell has a size keeps a width of 700 pixels.
        self.figure._config = {**self.figure._config, "responsive": True}
        self._links = list(self._linked())
        self.data: Data = {}
        self._message = widgets.HTML(layout=widgets.Layout(display="none"))
        reset = widgets.Button(description="Reset", tooltip="Back to the first picture", icon="undo")
        reset.on_click(lambda _: self.reset())
        bar = widgets.HBox(
            [*self._shown_controls(), reset], layout=widgets.Layout(flex_flow="row wrap", grid_gap="4px 18px")
        )
        self._said = widgets.HTML()
        heading = widgets.HTML(f"<b>{html.escape(self.title)}</b>")
        caption = widgets.HTML(f'<div style="font-size:12px;line-height:1.4">{html.escape(self.caption)}</div>')
        self._frame = widgets.VBox()
        super().__init__([heading, bar, *self._try_buttons(), self._message, self._frame, caption])
        self._held = False
        self._rest: asyncio.TimerHandle | None = None
        for control in self.controls.values():
            control.observe(self._on_change, names="value")
        for trace in self.figure.select_traces(selector={"type": "heatmap"}) if self.clicked else ():
            trace.on_click(self._on_click)
        self.refresh()
        self.figure.open()  # a page is told the first picture together with the figure, not after it
        self._told = True
        self._frame.children = [self.figure]

    def _shown_controls(self) -> list[widgets.Widget]:
        """The controls in their order, with a play button behind the slider that it moves."""
        shown = list(self.controls.values())
        if self.played is None:
            return shown
        slider = self.controls.get(self.played)
        if not isinstance(slider, widgets.IntSlider):
            raise TypeError(f"played must name a slider of whole numbers; {self.played!r} is none")
        range_of = {name: getattr(slider, name) for name in ("min", "max", "step", "value")}
        tooltip = f"play: {self.declared[self.played].label}"
        play = widgets.Play(tooltip=tooltip, interval=200, repeat=True, **range_of)
        # linked in the kernel: a slider that code has moved before the first display stays where it is
        widgets.link((play, "value"), (slider, "value"))
        shown.insert(shown.index(slider) + 1, play)
        return shown

    def _try_buttons(self) -> list[widgets.Widget]:
        """A row with a button for each try, and the words that a press says."""
        buttons = []
        for each in self.tries:
            button = widgets.Button(description=each.label, tooltip=f"Try: {each.label}", layout={"width": "auto"})
            button.on_click(lambda _, each=each: self.try_out(each))
            buttons.append(button)
        row = widgets.HBox([widgets.HTML("Try:"), *buttons], layout=widgets.Layout(flex_flow="row wrap"))
        return [row, self._said] if buttons else []

    def try_out(self, what: Try | str) -> None:
        """Set the controls as a try says, given itself or by its label, and say what there is to see."""
        labels = {each.label: each for each in self.tries}
        chosen = what if isinstance(what, Try) else labels[one_of("what", what, labels)]
        self.set(**self._defaults() | dict(chosen.settings))
        if not self.error:
            words = html.escape(chosen.expect.format_map(self.data))
            self._said.value = f'<div role="status" style="line-height:1.4">{words}</div>'

    def build(self) -> go.Figure:
        """The figure with all that stays as it is, still without numbers."""
        widths = tuple(panel.width for panel in self.panels)
        figure = new_figure(len(widths), titles=tuple(panel.title for panel in self.panels), widths=widths)
        for column, panel in enumerate(self.panels, start=1):
            x, y = _fixed(panel.x), _fixed(panel.y)
            if panel.equal:
                x["constrain"] = y["constrain"] = "domain"
                y["scaleanchor"] = f"x{column if column > 1 else ''}"
            if panel.place:
                left, right, bottom, top = panel.place
                x["domain"], y["domain"] = (left, right), (bottom, top)
                figure.layout.annotations[column - 1].update(x=(left + right) / 2, y=top)
            figure.update_xaxes(x, row=1, col=column)
            figure.update_yaxes(y, row=1, col=column)
        for trace in self.traces:
            figure.add_trace({"type": trace.kind, **_fixed(trace.properties)}, row=1, col=trace.panel)
        figure.update_layout(self.figure_layout)
        return figure

    def _linked(self) -> Iterator[_Link]:
        """All properties of the figure that are drawn."""
        for target, trace in zip(self.figure.data, self.traces, strict=True):
            yield from _links(target, trace.properties)
        layout = self.figure.layout
        for number, panel in enumerate(self.panels, start=1):
            yield from _links(layout[f"xaxis{number}"], panel.x)
            yield from _links(layout[f"yaxis{number}"], panel.y)
            yield from _links(layout.annotations[number - 1], {"text": panel.title})

    @abstractmethod
    def compute(self, *args: Any, **kwargs: Any) -> Data:
        """Data from the controls' values: pure, and fast enough to follow a finger."""

    def draw(self, data: Data) -> None:
        """Put data into the traces, titles and axes that name them."""
        unknown = sorted({key for link in self._links for key in link.keys} - data.keys())
        if unknown:
            raise UnknownDataError(f"{type(self).__name__} draws {', '.join(unknown)}; it computes {', '.join(data)}")
        for target, name, _, value in self._links:
            new, old = value(data), target[name]
            # plotly sends what changed, but takes NaN for a change
            numbers = all(isinstance(each, np.ndarray) and each.dtype.kind == "f" for each in (new, old))
            if not (numbers and np.array_equal(new, old, equal_nan=True)):
                target[name] = new

    @property
    def parameters(self) -> dict[str, Any]:
        """The controls' present values."""
        return {name: control.value for name, control in self.controls.items()}

    def _check(self, values: Mapping[str, Any]) -> None:
        """Refuse unknown names, and values that a widget would silently clip."""
        for name, value in values.items():
            if name not in self.declared:
                raise ValueError(f"{type(self).__name__} has no control {name!r}; it has {', '.join(self.declared)}")
            control = self.declared[name]
            if isinstance(control, Slider):
                low, high = control.extremes()
                margin = 1e-9 * (high - low)
                if not low - margin <= value <= high + margin:
                    raise ValueError(f"{name} must lie between {low:g} and {high:g}; it is {value}")

    def _on_click(self, _: Any, points: Any, __: Any) -> None:
        """Move two sliders to where a map was clicked, to a hundredth."""
        if self.clicked and points.xs:
            moved = {}
            for name, place in zip(self.clicked, (points.xs[0], points.ys[0]), strict=True):
                slider = self.controls[name]
                decimals = None if isinstance(slider, widgets.IntSlider) else 2
                moved[name] = round(min(max(place, slider.min), slider.max), decimals)
            self.set(**moved)

    def _on_change(self, _: Any) -> None:
        if self._held:
            return
        loop = _running_loop() if self.coarse_while_moving else None
        if loop is None:  # nobody would come back to refine the picture
            self.refresh()
            return
        self.refresh(fine=False)
        self._rest = loop.call_later(_REST_SECONDS, self.refresh)

    def refresh(self, *, fine: bool = True) -> None:
        """Compute and draw once, or show in the figure's place what went wrong."""
        self._said.value = ""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        try:
            data = self.compute(**self.parameters) if fine else self.compute(**self.parameters, fine=False)
            with self.figure.batch_update():
                self.draw(data)
        except UnknownDataError:  # a mistake in the class
            raise
        except Exception as error:  # whatever happens in a handler would vanish in a log that nobody reads
            text = html.escape(f"{type(error).__name__}: {error}")
            self._message.value = f'<pre role="alert" style="color:#a00;white-space:pre-wrap">{text}</pre>'
            self._show(self._message, self._frame)
            return
        self.data = data
        self._told = False
        if self._frame.layout.display == "none":
            self._show(self._frame, self._message)

    @staticmethod
    def _show(shown: widgets.Widget, hidden: widgets.Widget) -> None:
        shown.layout.display = None
        hidden.layout.display = "none"

    @property
    def error(self) -> str:
        """The message that stands in the figure's place; empty while all is well."""
        return self._message.value if self._frame.layout.display == "none" else ""

    def set(self, **values: Any) -> None:
        """Move several controls and draw once."""
        self._check(values)
        self._held = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.refresh()

    def reset(self) -> None:
        """Every control back to its default."""
        self.set(**self._defaults())

    def _defaults(self) -> dict[str, Any]:
        return {name: control.default for name, control in self.declared.items()}

    def figures(self) -> list[dict[str, Any]]:
        """The present figure and one for each try, with its label: what a stored notebook shows as a still picture."""
        if self._rest is not None:  # a coarse picture waits to be refined: a still is of the fine one
            self.refresh()
        shown = [{"label": "", "figure": json.loads(self.figure.to_json())}]
        other = type(self)() if self.tries else self
        for each in self.tries:
            other.try_out(each)
            label = f"Try: {each.label}. {each.expect.format_map(other.data)}"
            shown.append({"label": label, "figure": json.loads(other.figure.to_json())})
        return shown

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={_short(value)}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({values})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.bundle(super()._repr_mimebundle_(**kwargs), repr(self))

    def bundle(self, live: Any, words: str, heading: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """What a cell stores: the live widget, words, and for `tools/execute.py` the figures of its still."""
        live = live[0] if isinstance(live, tuple) else live
        live["text/plain"] = words
        if os.environ.get(STILLS):
            live[FIGURES] = {"heading": heading, "figures": self.figures()}
        if not self._told:  # nbclient stores what it was told, and does not know plotly's messages about changes
            self.figure.send_whole()
            self._told = True
        return live, {"image/png": {"alt": f"{self.title}. {self.caption}"}}


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def all_explorers() -> dict[str, type[Explorer]]:
    """Every explorer of every open chapter, as `{"chapter.name": class}`.

    Examples:
        >>> "initialization_shape.scale_shape" in all_explorers()
        True
    """
    found: dict[str, type[Explorer]] = {}
    for chapter in open_chapters():
        module_name = f"lib.{chapter.name}.explorers"
        for value in vars(import_module(module_name)).values() if find_spec(module_name) else ():
            if inspect.isclass(value) and issubclass(value, Explorer) and value.__module__ == module_name:
                found[f"{chapter.name}.{value.name}"] = value
    return found
