"""Every explorer of every chapter: any setting of its controls gives finite data and no error; and the base class."""

import base64
import json
from typing import Any, ClassVar

import numpy as np
import pytest
from comm import DummyComm
from plotly.basedatatypes import Undefined

from lib.explorer import Choice, Explorer, Slider, Toggle, all_explorers
from lib.style import new_figure

EXPLORERS = all_explorers()
RANDOM_SETTINGS = 40


def check(explorer: Explorer) -> None:
    """No error, and data that can be drawn."""
    assert explorer.error == ""
    assert explorer.data
    for name, value in explorer.data.items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and array.size:
            # gaps between lines are NaN on purpose; infinities never are
            assert not np.isinf(array).any(), f"{name} is infinite at {explorer!r}"
            if name in explorer.with_gaps:
                assert np.isfinite(array).mean() > 0.5, f"{name} is nearly empty at {explorer!r}"
            elif name not in explorer.may_be_absent:
                assert np.isfinite(array).all(), f"{name} is not finite at {explorer!r}"


@pytest.mark.parametrize("name", EXPLORERS)
def test_explorer_survives_every_control(name: str) -> None:
    explorer = EXPLORERS[name]()
    check(explorer)
    for control, declared in explorer.declared.items():
        for value in declared.extremes():
            explorer.controls[control].value = value
            check(explorer)
        explorer.reset()
    rng = np.random.default_rng(0)
    for _ in range(RANDOM_SETTINGS):
        explorer.set(**{control: declared.random(rng) for control, declared in explorer.declared.items()})
        check(explorer)


@pytest.mark.parametrize("name", EXPLORERS)
def test_first_control_changes_the_figure_and_reset_brings_it_back(name: str) -> None:
    explorer = EXPLORERS[name]()

    def drawn() -> str:
        return json.dumps(explorer.figure.to_plotly_json()["data"], default=lambda value: np.asarray(value).tolist())

    first = drawn()
    control, declared = next(iter(explorer.declared.items()))
    traces = len(explorer.figure.data)
    explorer.controls[control].value = declared.extremes()[0]
    assert drawn() != first
    assert len(explorer.figure.data) == traces
    explorer.reset()
    assert drawn() == first
    assert explorer.parameters == pytest.approx(EXPLORERS[name]().parameters)


@pytest.mark.parametrize("name", EXPLORERS)
def test_no_trace_is_left_out_of_what_another_one_gets(name: str) -> None:
    """The browser would take the word that stands for "as it was" for a value: a colour, a width, a name."""
    explorer = EXPLORERS[name]()
    messages = []
    explorer.figure.observe(lambda change: messages.append(change["new"]), names="_py2js_update")
    control, declared = next(iter(explorer.declared.items()))
    explorer.controls[control].value = declared.extremes()[0]
    message = next(message for message in messages if message)
    for path, values in message["style_data"].items():
        for trace, value in zip(message["style_traces"], values, strict=False):
            assert value is not Undefined or path not in explorer.figure.data[trace], (path, trace)


@pytest.mark.parametrize("name", EXPLORERS)
def test_explorer_is_pure_labelled_and_has_a_picture_with_words(name: str) -> None:
    explorer = EXPLORERS[name]()
    again = explorer.compute(**explorer.parameters)
    for key, value in explorer.data.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(again[key]))
    assert all(control.description for control in explorer.controls.values())
    bundle, metadata = explorer._repr_mimebundle_()
    picture = base64.b64decode(bundle["image/png"])
    assert picture[:4] == b"\x89PNG"
    assert len(picture) < 110_000
    assert bundle["text/plain"] == repr(explorer)
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert explorer.caption in metadata["image/png"]["alt"]
    for axis in (*explorer.figure.select_xaxes(), *explorer.figure.select_yaxes()):
        assert axis.title.text or axis.tickvals, f"an axis of {name} has no title"


def plain(value: Any) -> Any:
    """Arrays, and what stands for them on the way to a page, as lists."""
    if isinstance(value, dict):
        if value.keys() == {"buffer", "dtype", "shape"}:
            return np.frombuffer(value["buffer"], value["dtype"]).reshape(value["shape"]).tolist()
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def present(explorer: Explorer) -> str:
    """The figure as it is, traces first."""
    figure = explorer.figure
    return repr([[plain(trace.to_plotly_json()) for trace in figure.data], plain(figure.layout.to_plotly_json())])


def told(state: dict) -> str:
    """The figure in a state that a page is given."""
    return repr([plain(state["_widget_data"]), plain(state["_widget_layout"])])


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_page_that_asks_is_told_the_present_figure(name: str) -> None:
    """A page loaded again and a stored notebook ask for the whole state, or for single properties of it."""
    explorer = EXPLORERS[name]()
    figure = explorer.figure
    assert any(np.size(trace[key]) > 1 for trace in figure.data for key in ("x", "y", "z") if key in trace)
    assert told(figure.get_state()) == present(explorer)
    before = explorer.parameters
    for control, declared in explorer.declared.items():
        explorer.controls[control].value = declared.extremes()[0]
        assert told(figure.get_state()) == present(explorer)
    explorer.reset()
    assert explorer.parameters == pytest.approx(before)
    single = {key: figure.get_state(key)[key] for key in ("_widget_data", "_widget_layout")}
    assert told(single) == told(figure.get_state(["_widget_data", "_widget_layout"])) == present(explorer)


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

    def build(self):
        figure = new_figure()
        figure.add_scatter(name="curve")
        return figure

    def compute(self, power, scale, broken, kind):
        self.calls = getattr(self, "calls", 0) + 1
        if broken:
            raise ZeroDivisionError("<broken> on purpose")
        x = np.linspace(0, 1, 5)
        return {"x": x, "y": scale * x**power * (-1 if kind == "mirrored" else 1)}

    def draw(self, data):
        self.figure.data[0].update(x=data["x"], y=data["y"])


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


def test_several_controls_move_with_one_drawing() -> None:
    explorer = Parabola()
    before = explorer.calls
    explorer.set(power=3, scale=10.0, kind="mirrored")
    assert explorer.calls == before + 1
    assert explorer.figure.data[0].y[-1] == -10.0


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
    import asyncio

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
        explorer.still()
        seen.append(explorer.data["fine"])
        return seen

    assert asyncio.run(move()) == [True, False, False, True, False, True]
    alone = Refined()
    alone.controls["power"].value = 3
    assert alone.data["fine"], "without an event loop nobody would refine it later"


class Wire:
    """What goes to a page, widget by widget: the state at first, then every update."""

    def __init__(self, monkeypatch) -> None:
        self.opened: dict[str, dict] = {}
        self.updates: dict[str, list[dict]] = {}
        wire = self

        class Recorded(DummyComm):
            def publish_msg(self, msg_type, data=None, **_rest):
                if msg_type == "comm_open":
                    wire.opened[self.comm_id] = data["state"]
                elif msg_type == "comm_msg":
                    wire.updates.setdefault(self.comm_id, []).append(data.get("state", {}))

        monkeypatch.setattr("comm.create_comm", Recorded)


def test_a_page_hears_of_a_figure_with_its_first_picture_and_then_of_changes_only(monkeypatch) -> None:
    wire = Wire(monkeypatch)
    explorer, second = Parabola(power=3), Parabola()
    opened, updates = wire.opened[explorer.figure.model_id], wire.updates.setdefault(explorer.figure.model_id, [])
    assert opened["_widget_data"][0]["name"] == "curve"
    assert opened["_widget_data"][0]["y"]["shape"] == (5,)
    assert not updates, "all was said at first"
    explorer._repr_mimebundle_()
    assert not updates
    explorer.controls["power"].value = 4
    sent = {name for update in updates for name in update}
    assert "_py2js_update" in sent
    assert not sent & {"_widget_data", "_widget_layout", "_esm"}
    explorer._repr_mimebundle_()
    assert updates[-1].keys() == {"_widget_data", "_widget_layout"}, "a stored notebook has the figure as displayed"
    assert second.figure._library is explorer.figure._library, "plotly's five megabytes go once to a page"
    large = [model for model, state in wire.opened.items() if len(repr(state)) > 1_000_000]
    assert large in ([], [explorer.figure._library.model_id])


def test_widgets_that_were_all_closed_can_be_made_again() -> None:
    Parabola().figure._library.close()
    assert Parabola().figure._library.comm is not None


def test_slow_sliders_wait_for_the_end_of_the_movement_and_say_so() -> None:
    slow = Slider("size", 0.0, 1.0, 0.1, 0.5, on_release=True).widget()
    assert not slow.continuous_update
    assert "on release" in slow.description
