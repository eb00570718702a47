"""A figure tells pages all that they need, once, in few bytes."""

import numpy as np
import pytest

from lib.live_figure import LiveFigure, packed
from lib.style import new_figure
from tests.wire import Page, Wire, unpacked


@pytest.fixture
def figure() -> LiveFigure:
    """A line, and a map beside it."""
    plain = new_figure(2, titles=("line", "map"))
    plain.add_scatter(name="curve", line_color="red", row=1, col=1)
    plain.add_heatmap(name="map", row=1, col=2)
    return LiveFigure(plain)


@pytest.mark.parametrize(
    "array",
    [
        np.linspace(-1, 1, 7),
        np.arange(5),
        np.array([[0.5, np.nan], [1e-20, 1e20]]),
        np.arange(10_000, dtype=np.uint8).reshape(100, 100),
        np.sin(np.arange(5000.0)).reshape(50, 100)[::-1],
        np.array([True, False]),
        np.array(["a", "b"]),
        np.zeros((0, 3)),
    ],
)
def test_packed_arrays_are_small_and_come_out_as_they_were(array: np.ndarray) -> None:
    sent = packed({"z": [array]})["z"][0]
    if array.dtype.kind in "iuf":
        assert len(sent["buffer"]) <= 4 * array.size
    back = np.asarray(unpacked(sent))
    if array.dtype.kind == "f":
        np.testing.assert_allclose(back.reshape(array.shape), array, rtol=1e-7)
    else:
        np.testing.assert_array_equal(back, array)


def test_integers_too_large_for_four_bytes_stay_whole() -> None:
    assert unpacked(packed(np.array([2**40, -1]))) == [2**40, -1]


def test_a_page_hears_of_a_figure_with_its_first_picture_and_then_of_changes_only(monkeypatch, figure) -> None:
    wire = Wire(monkeypatch)
    curve, place = figure.data
    with figure.batch_update():
        curve.y, place.z = np.arange(3.0), np.eye(50)
    assert not wire.opened
    figure.open()
    page = Page(wire, figure)
    assert page.traces[0]["y"] == [0.0, 1.0, 2.0]
    assert page.traces[1]["z"] == np.eye(50).tolist()
    assert not page.updates, "all was said at first"
    with figure.batch_update():
        curve.y, place.z, place.name = np.arange(4.0), np.eye(50), "a map"
    (change,) = page.follow()
    assert set(change["style_data"]) == {"y", "name"}, "the map is as it was"
    assert page.traces[0]["name"] == "curve"
    assert page.traces[1]["name"] == "a map"
    assert not {name for update in page.updates for name in update} & {"_widget_data", "_widget_layout", "_esm"}
    figure.send_whole()
    assert page.updates[-1].keys() == {"_widget_data", "_widget_layout"}
    assert unpacked(page.updates[-1]["_widget_data"]) == page.traces


def test_plotlys_five_megabytes_go_to_a_page_once(monkeypatch, figure) -> None:
    wire = Wire(monkeypatch)
    second = LiveFigure(new_figure())
    figure.open()
    second.open()
    assert second._library is figure._library
    large = [model for model, state in wire.opened.items() if len(repr(state)) > 1_000_000]
    assert large in ([], [figure._library.model_id])
    figure._library.close()
    assert LiveFigure(new_figure())._library.comm is not None, "widgets that were all closed can be made again"
