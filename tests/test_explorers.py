"""Every explorer of every chapter, on any setting of its controls, and what a page is told; and the base class."""

import asyncio
from typing import ClassVar

import ipywidgets as widgets
import numpy as np
import pytest
from plotly.callbacks import Points

from lib.explorer import (
    Choice,
    Explorer,
    Key,
    Panel,
    Slider,
    Toggle,
    UnknownDataError,
    all_explorers,
    axis,
    bars,
    dots,
    heatmap,
    line,
)
from lib.live_figure import packed
from lib.style import COLOURS
from tests.wire import Page, Wire, unpacked

EXPLORERS = all_explorers()
RANDOM_SETTINGS = 12
#: The most bytes that one move of a control may send, and the median over explorers of the most that each sends.
MOST, MEDIAN = 40_000, 10_000


def check(explorer: Explorer) -> None:
    """No error, data that are finite, and traces that have been drawn in full."""
    assert explorer.error == ""
    assert explorer.data
    for name, value in explorer.data.items():
        array = np.asarray(value)
        assert array.dtype != object, f"{name} is of mixed shapes or types at {explorer!r}"
        if array.dtype.kind == "f" and array.size:
            # gaps between lines are NaN on purpose; infinities never are
            assert not np.isinf(array).any(), f"{name} is infinite at {explorer!r}"
            if name in explorer.with_gaps:
                assert np.isfinite(array).mean() > 0.5, f"{name} is nearly empty at {explorer!r}"
            elif name not in explorer.may_be_absent:
                assert np.isfinite(array).all(), f"{name} is not finite at {explorer!r}"
    assert len(explorer.figure.data) == len(explorer.traces)
    for trace in explorer.figure.data:
        rows, columns = (len(trace.y), len(trace.x))
        shown = np.shape(trace.z) if trace.type == "heatmap" else (columns,)
        assert shown == ((rows, columns) if trace.type == "heatmap" else (rows,)), f"{trace.name} at {explorer!r}"


def drawn(explorer: Explorer) -> str:
    """All that the figure shows."""
    figure = explorer.figure
    return repr([unpacked([trace.to_plotly_json() for trace in figure.data]), unpacked(figure.layout.to_plotly_json())])


@pytest.fixture(scope="module", params=EXPLORERS)
def explorer(request: pytest.FixtureRequest) -> Explorer:
    return EXPLORERS[request.param]()


def test_explorer_is_pure_labelled_and_has_a_picture_with_words(explorer: Explorer) -> None:
    again = explorer.compute(**explorer.parameters)
    for key, value in explorer.data.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(again[key]))
    assert all(control.description for control in explorer.controls.values())
    bundle, metadata = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == repr(explorer)
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert explorer.caption in metadata["image/png"]["alt"]
    for side in (*explorer.figure.select_xaxes(), *explorer.figure.select_yaxes()):
        assert side.title.text or side.tickvals, f"an axis of {explorer!r} has no title"


def test_every_setting_can_be_drawn(explorer: Explorer) -> None:
    check(explorer)
    first = drawn(explorer)
    control, slider = next(iter(explorer.declared.items()))
    beside = slider.default / 10**slider.step if slider.log else slider.default - slider.step
    for value in (beside, slider.extremes()[0]):
        explorer.controls[control].value = value
        assert drawn(explorer) != first
    explorer.reset()
    for control, declared in explorer.declared.items():
        for value in declared.extremes():
            explorer.controls[control].value = value
            check(explorer)
        explorer.reset()
    rng = np.random.default_rng(0)
    for _ in range(RANDOM_SETTINGS):
        explorer.set(**{control: declared.random(rng) for control, declared in explorer.declared.items()})
        check(explorer)
    explorer.reset()
    assert drawn(explorer) == first


def most_bytes(explorer: Explorer, wire: Wire) -> int:
    """The most bytes that a move of one control sends; the page has the present figure after each control's."""
    figure, page = explorer.figure, Page(wire, explorer.figure)
    rng = np.random.default_rng(1)
    most = 0
    for control, declared in explorer.declared.items():
        for value in (*declared.extremes(), declared.random(rng)):
            wire.bytes = 0
            explorer.controls[control].value = value
            most = max(most, wire.bytes)
        page.follow()
        present = [trace.to_plotly_json() for trace in figure.data], figure.layout.to_plotly_json()
        # what is told to a page that is loaded again, or stored, and all changes that were sent since the first
        told = figure.get_state(["_widget_data", "_widget_layout"])
        wanted = repr(unpacked(packed(present)))  # as text, in which NaN is itself
        for state in (told.values(), (page.traces, page.layout)):
            assert repr(unpacked(tuple(state))) == wanted, f"{control} = {value} at {explorer!r}"
    return most


def test_a_page_has_the_present_figure_and_little_is_sent_for_it(monkeypatch) -> None:
    wire = Wire(monkeypatch)
    most = {name: most_bytes(kind(), wire) for name, kind in EXPLORERS.items()}
    assert max(most.values()) <= MOST, most
    assert np.median(list(most.values())) <= MEDIAN, most


class Parabola(Explorer):
    """A test's own explorer; it breaks on demand."""

    name = "parabola"
    title = "A parabola"
    caption = "It rises."
    declared: ClassVar[dict] = {
        "power": Slider("power", 1, 4, 1, 2),
        "scale": Slider("scale", -2, 2, 0.5, 1.0, log=True),
        "broken": Toggle("broken"),
        "kind": Choice("kind", ("plain", "mirrored"), "plain"),
    }
    panels = (Panel("to the power {power}", axis("x", (0, 1)), axis("{kind} y", Key("range"))),)
    traces = (line("curve of {kind}", "blue", x=np.linspace(0, 1, 5), y="y"), dots("end", "green", size=7, xy="end"))

    def compute(self, power, scale, broken, kind):
        self.calls = getattr(self, "calls", 0) + 1
        if broken:
            raise ZeroDivisionError("<broken> on purpose")
        y = scale * np.linspace(0, 1, 5) ** power * (-1 if kind == "mirrored" else 1)
        return {"y": y, "end": np.array([1.0, y[-1]]), "range": (0, y[-1]), "power": power, "kind": kind}


def test_traces_titles_and_axes_are_drawn_by_name() -> None:
    explorer = Parabola()
    explorer.set(power=3, scale=10.0, kind="mirrored")
    assert explorer.calls == 2, "several controls move with one drawing"
    curve, end = explorer.figure.data
    assert curve.name == "curve of mirrored"
    assert curve.line.color == COLOURS["blue"]
    np.testing.assert_array_equal(curve.y, explorer.data["y"])
    assert (list(end.x), list(end.y), end.mode, end.marker.size) == ([1.0], [-10.0], "markers", 7)
    layout = explorer.figure.layout
    assert layout.annotations[0].text == "to the power 3"
    assert layout.yaxis.title.text == "mirrored y"
    assert tuple(layout.yaxis.range) == (0, -10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"traces": (line("curve", "blue", x="y", y="height"),)},
        {"traces": (dots("end", "blue", xy="height"),)},
        {"traces": (bars("curve of {height:.2f}", "blue", x=(0,), y="power"),)},
        {"traces": (line("curve", "blue", width=Key("height"), x="y", y="y"),)},
        {"panels": (Panel("{height[0]}", axis("x"), axis("y")),)},
        {"panels": (Panel("title", axis("x"), axis("y", Key("height"))),)},
    ],
)
def test_data_that_are_not_computed_cannot_be_drawn(wrong: dict) -> None:
    with pytest.raises(UnknownDataError, match="draws height; it computes y, end, range, power, kind"):
        type("Wrong", (Parabola,), wrong)()


class Map(Explorer):
    """A map that can be clicked, and a time that plays."""

    name = "map"
    title = "A map"
    caption = "It has places."
    declared: ClassVar[dict] = {"row": Slider("row", 0, 3, 1, 1), "place": Slider("place", 0.0, 2.0, 0.25, 1.0)}
    clicked = ("place", "row")
    played = "row"
    panels = (Panel("map", axis("x"), axis("y"), equal=True),)
    traces = (heatmap("map", "Viridis", 0, 1, x=np.arange(3), y=np.arange(4), z="map"),)

    def compute(self, row, place):
        return {"map": np.outer(np.arange(4) == row, np.linspace(0, 1, 3) * place)}


def test_a_click_on_a_map_moves_two_sliders() -> None:
    explorer = Map()
    explorer._on_click(None, Points(xs=[1.234], ys=[2.6]), None)
    assert explorer.parameters == {"row": 3, "place": 1.23}
    explorer._on_click(None, Points(xs=[-0.4], ys=[3.4]), None)
    assert explorer.parameters == {"row": 3, "place": 0.0}
    explorer._on_click(None, Points(xs=[], ys=[]), None)
    assert explorer.parameters == {"row": 3, "place": 0.0}


def test_a_play_button_moves_its_slider_and_follows_it() -> None:
    explorer = Map()
    children = explorer.children[1].children
    (play,) = (child for child in children if isinstance(child, widgets.Play))
    assert children.index(play) == children.index(explorer.controls["row"]) + 1
    assert (play.min, play.max, play.value) == (0, 3, 1)
    play.value = 2
    assert explorer.parameters["row"] == 2
    assert explorer.data["map"][2].any()
    explorer.reset()
    assert play.value == 1
    for wrong in ("column", "place"):
        with pytest.raises(TypeError, match="played must name a slider of whole numbers"):
            type("Wrong", (Map,), {"played": wrong})()


def test_an_error_stands_in_the_figures_place_and_goes_away() -> None:
    explorer = Parabola()
    assert explorer.error == ""
    explorer.controls["broken"].value = True
    assert "ZeroDivisionError" in explorer.error
    assert "&lt;broken&gt;" in explorer.error
    assert explorer._frame.layout.display == "none"
    explorer.controls["broken"].value = False
    assert explorer.error == ""
    assert explorer._frame.layout.display is None


def test_values_at_construction_and_unknown_names() -> None:
    assert Parabola(power=3).parameters["power"] == 3
    assert repr(Parabola(power=3)) == "Parabola(power=3, scale=1, broken=False, kind='plain')"
    with pytest.raises(ValueError, match="no control 'nonsense'"):
        Parabola(nonsense=1)
    with pytest.raises(ValueError, match="no control 'nonsense'"):
        Parabola().set(nonsense=1)
    with pytest.raises(ValueError, match="power must lie between 1 and 4; it is 5"):
        Parabola(power=5)
    with pytest.raises(ValueError, match="scale must lie between"):
        Parabola().set(scale=1e6)


class Refined(Parabola):
    """Coarse while a control moves."""

    name = "refined"
    coarse_while_moving = True

    def compute(self, power, scale, broken, kind, *, fine=True):
        return {**super().compute(power, scale, broken, kind), "fine": fine}


def test_a_coarse_picture_is_refined_when_the_controls_rest() -> None:
    async def move() -> list[bool]:
        explorer = Refined()
        seen = [explorer.data["fine"]]
        for power in (3, 4):
            explorer.controls["power"].value = power
            seen.append(explorer.data["fine"])
        await asyncio.sleep(0.4)
        seen.append(explorer.data["fine"])
        explorer.controls["power"].value = 1
        seen.append(explorer.data["fine"])
        explorer.figures()
        seen.append(explorer.data["fine"])
        return seen

    assert asyncio.run(move()) == [True, False, False, True, False, True]
    alone = Refined()
    alone.controls["power"].value = 3
    assert alone.data["fine"], "without an event loop nobody would refine it later"


def test_slow_sliders_wait_for_the_end_of_the_movement_and_say_so() -> None:
    slow = Slider("size", 0.0, 1.0, 0.1, 0.5, on_release=True).widget()
    assert not slow.continuous_update
    assert "on release" in slow.description
