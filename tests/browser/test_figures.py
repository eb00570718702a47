"""Every figure of a chapter in the shape of a lesson, at its default and at each try, as plotly draws it.

No two texts overlap, none is cut off, every axis has a label, every map has a scale or a legend, and the figure is as
wide as its cell.
"""

import io
from collections.abc import Iterator, Sequence

import pytest
from PIL import Image

from lib.chapters import open_chapters
from lib.explorer import all_explorers
from tools.stills import Drawing, small_png, strip

pytestmark = pytest.mark.browser

NAMES = [key for key in all_explorers() if any(one.lesson and key.startswith(one.name) for one in open_chapters())]
#: Of a cell in a narrow and in a wide window.
WIDTHS = 640, 1100
TEXTS = """() => [...document.querySelectorAll('#figure svg text')].filter(e => e.textContent.trim()).map(e => {
    const {left, right, top, bottom} = e.getBoundingClientRect();
    return [e.textContent, left, right, top, bottom];
})"""
#: Labels of axes, and the places of all panels.
LABELS = """() => [...document.querySelectorAll('#figure .infolayer g[class*=title] text')].map(e => {
    const {left, right, top, bottom} = e.getBoundingClientRect();
    return [e.textContent, left, right, top, bottom];
})"""
PANELS = """() => Object.values(document.getElementById('figure')._fullLayout._plots).map(({xaxis: x, yaxis: y}) =>
    [x._offset, x._offset + x._length, y._offset, y._offset + y._length])"""
SIZE = """() => {
    const {left, right, top, bottom} = document.querySelector('#figure .main-svg').getBoundingClientRect();
    return [left, right, top, bottom];
}"""


def overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes (left, right, top, bottom) share more than their edges."""
    (x0, x1, y0, y1), (x2, x3, y2, y3) = one, other
    return min(x1, x3) - max(x0, x2) > 1.5 and min(y1, y3) - max(y0, y2) > 1.5


def faults(page: Drawing, figure: dict, width: int) -> Iterator[str]:
    """What is wrong with a drawn figure."""
    page.draw(figure, width)
    left, right, top, bottom = page.page.evaluate(SIZE)
    if abs(right - left - width) > 1:
        yield f"the figure is {right - left:.0f} pixels wide in a cell of {width}"
    texts = page.page.evaluate(TEXTS)
    for number, (words, x0, x1, y0, y1) in enumerate(texts):
        if x0 < left - 1 or x1 > right + 1 or y0 < top - 1 or y1 > bottom + 1:
            yield f"{words!r} is cut off"
        for other, *place in texts[number + 1 :]:
            if overlap((x0, x1, y0, y1), place):
                yield f"{words!r} overlaps {other!r}"
    for words, *place in page.page.evaluate(LABELS):
        if any(overlap(place, panel) for panel in page.page.evaluate(PANELS)):
            yield f"the label {words!r} lies in a panel"
    layout = figure["layout"]
    for name, axis in layout.items():
        if name[1:5] == "axis" and name[0] in "xy" and not (axis.get("title", {}).get("text") or axis.get("tickvals")):
            yield f"{name} has no label"
    named = {
        trace.get("name") for trace in figure["data"] if trace["type"] != "heatmap" and trace.get("showlegend", True)
    }
    for trace in figure["data"]:
        if trace["type"] == "heatmap" and not (trace.get("showscale") or len(named) > 1):
            yield f"the map {trace.get('name')!r} has neither a scale nor a legend"


@pytest.fixture(scope="module")
def page(browser) -> Drawing:
    return Drawing(browser.new_page())


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_whole_and_readable(page, name: str) -> None:
    told = all_explorers()[name]().figures()
    found = [
        f"{width} pixels, {each['label'] or 'default'}: {fault}"
        for width in WIDTHS
        for each in told
        for fault in faults(page, each["figure"], width)
    ]
    assert not found, "\n".join(found)


def test_faults_are_seen(page) -> None:
    axis = {"title": {"text": "x"}}
    ticks = {"title": {"text": "a label that is much too long for the height of this figure"}, "tickvals": [1]}
    crowded = {
        "data": [
            {"type": "heatmap", "z": [[0, 1], [1, 0]], "showscale": False, "name": "map"},
            {"type": "scatter", "y": [1, 2], "yaxis": "y2", "showlegend": False},
        ],
        "layout": {
            "height": 200,
            "xaxis": {"tickvals": [0, 0.001], "ticktext": ["nothing", "nothing more"]},
            "yaxis": ticks,
            "xaxis2": {},
            "yaxis2": {"title": {"text": "beside", "standoff": 0}, "side": "left", "anchor": "free", "position": 0.5},
            "annotations": [
                {"text": "one", "x": 0.5, "y": 0.5},
                {"text": "two", "x": 0.5, "y": 0.5, "showarrow": False},
            ],
        },
    }
    seen = "\n".join(faults(page, crowded, 400))
    for words in (
        "overlaps",
        "is cut off",
        "'beside' lies in a panel",
        "xaxis2 has no label",
        "neither a scale nor a legend",
    ):
        assert words in seen, seen
    good = {"data": [{"type": "scatter", "y": [1, 2]}], "layout": {"xaxis": axis, "yaxis": axis, "height": 300}}
    assert list(faults(page, good, 700)) == []


def test_a_still_is_one_small_picture_with_all_tries(page) -> None:
    told = {"heading": "What comes?\n  a) This.\n  b) That.", "figures": all_explorers()[NAMES[0]]().figures()}
    png = strip(page, told)
    assert png[:4] == b"\x89PNG"
    assert len(png) <= 80_000
    alone = strip(page, {"heading": "", "figures": told["figures"][:1]})
    assert int.from_bytes(png[20:24]) > 2 * int.from_bytes(alone[20:24])

    noise = Image.effect_noise((1000, 1000), 100).convert("RGB")
    with pytest.raises(ValueError, match="does not fit into 5000 bytes"):
        small_png(noise, 5000)


def test_a_still_keeps_a_colour_of_the_legend_alone() -> None:

    shades = Image.linear_gradient("L").resize((800, 600)).convert("RGB")
    green = (0, 158, 115)
    shades.paste(green, (20, 20, 30, 30))
    kept = Image.open(io.BytesIO(small_png(shades))).convert("RGB").getpixel((25, 25))
    assert max(abs(a - b) for a, b in zip(kept, green, strict=True)) <= 8
