"""Every notebook in a real JupyterLab: its explorers follow the keyboard and survive a reload of the page.

Each notebook runs the cells that its explorers need, and one of them, another one every day, all of its cells.
"""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import numpy as np
import pytest

from tests.browser.conftest import FULL, NOTEBOOKS, ROOT, TOKEN, WIDGET

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

#: Of the first explorer of a notebook, and of each other one.
PRESSES = 14, 8
SCREENSHOTS = ROOT / "screenshots"

# The time from a key press to the end of the first burst of changes of the figure: a pause of 150 ms ends a burst,
# and so a picture that is refined later counts with its first, coarse version.
STOPWATCH = """
() => {
  window.__latency = [];
  let pressed = null, changed = null, timer = null;
  document.addEventListener('keydown', () => {
    clearTimeout(timer);
    pressed = performance.now();
    changed = null;
  }, true);
  const figure = [...document.querySelectorAll('.js-plotly-plot')].pop();
  new MutationObserver(() => {
    if (pressed === null) return;
    changed = performance.now();
    clearTimeout(timer);
    timer = setTimeout(() => { window.__latency.push(changed - pressed); pressed = null; }, 150);
  }).observe(figure, {subtree: true, childList: true, attributes: true, characterData: true});
}
"""
# A heat map that has lost its shape on the way has no rows of the right length.
MAPS_ARE_WHOLE = """element => element.data.filter(t => t.type === 'heatmap').every(
    t => t.z?.length > 1 && t.z.length === t.y?.length && t.z[0].length === t.x?.length)"""
READ_DATA = """element => JSON.stringify(element.data.map(t => [
    Array.from(t.x ?? []), Array.from(t.y ?? [], v => v === undefined ? null : v),
    Array.from(t.z ?? [], row => Array.from(row).reduce((sum, v, i) => sum + v * (i + 1), 0))]))"""

# All that the reader sees: the traces as they are told to plotly, the words, and how the lines are drawn.
READ_FIGURE = """element => {
    const plain = v => Array.isArray(v) || ArrayBuffer.isView(v) ? Array.from(v, plain)
        : v && typeof v === 'object' ? Object.fromEntries(Object.entries(v)
            .filter(([key, w]) => key[0] !== '_' && w != null).sort().map(([key, w]) => [key, plain(w)]))
        : Number.isNaN(v) ? 'NaN' : v;
    const all = (selector, read) => [...element.querySelectorAll(selector)].map(read);
    return {
        // plotly notes an x or y that came with an update; it draws the same without the note
        traces: element.data.map(({xtype, ytype, ...trace}) => plain(trace)),
        points: element.data.map(t => (t.z ?? t.y ?? t.x ?? []).length),
        words: all('.main-svg text', e => e.textContent),
        legend: all('.legendtext', e => e.textContent),
        lines: all('.js-line', e => [e.style.stroke, e.style.strokeWidth, e.style.strokeDasharray]),
        axes: Object.entries(element.layout).filter(([k]) => /^[xy]axis/.test(k)).sort()
            .map(([k, a]) => [k, a.type, a.title?.text, Array.from(a.range ?? [])]),
    };
}"""
DRAWN = """expected => [...document.querySelectorAll('.js-plotly-plot')].filter(
    e => e.querySelector('.trace, .heatmaplayer .hm, .barlayer .point')).length === expected"""


#: A figure that was drawn while it was hidden has grown to the width of its cell.
FILLS = """figure => figure.querySelector('.main-svg')?.getBoundingClientRect().width
    > 0.95 * figure.closest('.jp-OutputArea-output').getBoundingClientRect().width - 20"""


class Watch:
    """What must not happen in the page."""

    def __init__(self, page) -> None:
        self.problems: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"error in the page: {error}"))
        page.on("request", self._request)

    def _console(self, message) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _request(self, request) -> None:
        place = urlparse(request.url)
        if place.scheme in ("http", "https", "ws", "wss") and place.hostname != "127.0.0.1":
            self.problems.append(f"request to {place.hostname}")


def open_notebook(page, lab, name: str) -> str:
    """Open a notebook and wait for its kernel; the session's id."""
    page.goto(f"{lab.url}/lab/tree/{name}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
    session = lab.kernel_ready()
    time.sleep(0.5)
    return session


def run_all(page, seconds: float = 300) -> None:
    """Run all cells; a click that came too early is repeated."""
    prompts = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt")

    def texts() -> list[str]:
        # a folded cell shows no prompt
        return [text.strip() for text in prompts.all_text_contents() if text.strip()]

    for _ in range(3):
        page.locator(".jp-Notebook .jp-Cell").first.click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        end = time.monotonic() + 4
        while time.monotonic() < end:
            if any("*" in text for text in texts()):
                break
            time.sleep(0.1)
        else:
            continue
        break
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all(re.fullmatch(r"\[\d+\]:?", text) for text in texts()):
            return
        time.sleep(0.3)
    raise AssertionError(f"cells did not finish: {texts()}")


def screenshot_all(page, name: str) -> None:
    """The whole notebook as one tall picture, by making the window as tall as its content."""
    SCREENSHOTS.mkdir(exist_ok=True)
    height = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    page.set_viewport_size({"width": 1500, "height": min(int(height) + 200, 30_000)})
    time.sleep(1.5)
    page.screenshot(path=SCREENSHOTS / f"{Path(name).stem}.png")
    page.set_viewport_size({"width": 1500, "height": 1000})


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_and_explorers_follow_the_keyboard(name: str, lab, browser) -> None:
    page = browser.new_page()
    watch = Watch(page)
    session = open_notebook(page, lab, name)
    try:
        start = time.perf_counter()
        run_all(page)
        cells = "all cells" if name == FULL else "cells for explorers"
        print(f"\n{name}: {cells} in {time.perf_counter() - start:.0f} s")
        errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
        assert errors.count() == 0, errors.all_inner_texts()
        expected = figures_in(name)
        figures = page.locator(".js-plotly-plot")
        answer_predictions(page)
        if expected:
            figures.first.scroll_into_view_if_needed()
            page.wait_for_selector(".js-plotly-plot .main-svg", timeout=30_000)
        assert figures.count() == expected
        screenshot_all(page, name)
        for number in range(expected):
            move_and_check(page, name, number)
        if expected:
            start = time.perf_counter()
            reload_and_check(page, watch, name, expected)
            print(f"{name}: reload in {time.perf_counter() - start:.0f} s")
        assert not watch.problems, watch.problems
    finally:
        page.close()
        lab.api(f"sessions/{session}", "DELETE")


def figures_in(name: str) -> int:
    """How many live figures a notebook holds: widgets with a still picture."""
    cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    return sum(WIDGET in data and "image/png" in data for data in outputs)


def answer_predictions(page) -> None:
    """Answer the first question by keyboard, and ask to see the other figures; each shows itself in its full width."""
    asked = page.locator(".jp-OutputArea-output", has=page.locator("b", has_text="Predict:"))
    for number in range(asked.count()):
        cell = asked.nth(number)
        options = cell.locator("button.paperplay-option")
        (cell.get_by_text("Show me without an answer") if number else options.first).focus()
        page.keyboard.press("Enter")
        figure = cell.locator(".js-plotly-plot")
        figure.wait_for(timeout=20_000)
        page.wait_for_function(FILLS, arg=figure.element_handle(), timeout=10_000)
        assert options.first.is_disabled()
        assert cell.locator('[role="status"]', has_text=re.compile(r"\w")).count() == 1, "an answer is not explained"


def press_tries(page, explorer, figure) -> None:
    """Press each try by keyboard: it says what there is to see, and the figure changes."""
    tries = explorer.locator('button[title^="Try"]')
    for number in range(tries.count()):
        before = figure.evaluate(READ_DATA)
        tries.nth(number).focus()
        page.keyboard.press("Enter")
        end = time.monotonic() + 10
        while figure.evaluate(READ_DATA) == before and time.monotonic() < end:
            time.sleep(0.05)
        assert figure.evaluate(READ_DATA) != before, f"try {number + 1} changes nothing"
        assert len(explorer.locator('[role="status"]').last.inner_text()) > 20


def move_and_check(page, name: str, number: int) -> None:
    """Move the first slider of an explorer by keyboard, and expect other data and a picture of all its traces."""
    explorer = page.locator(".jp-OutputArea-output", has=page.locator(".js-plotly-plot")).nth(number)
    figure = explorer.locator(".js-plotly-plot")
    figure.scroll_into_view_if_needed()
    before = figure.evaluate(READ_DATA)
    assert (
        figure.evaluate("element => element.querySelectorAll('.trace, .heatmaplayer .hm, .barlayer .point').length")
        >= 1
    )
    assert figure.evaluate(MAPS_ARE_WHOLE), f"a heat map of explorer {number} of {name} has lost its shape"
    press_tries(page, explorer, figure)
    before = figure.evaluate(READ_DATA)
    handle = explorer.locator(".noUi-handle").first
    handle.focus()
    page.evaluate(
        STOPWATCH.replace(
            "[...document.querySelectorAll('.js-plotly-plot')].pop()",
            f"document.querySelectorAll('.js-plotly-plot')[{number}]",
        )
    )
    key, presses = "ArrowLeft", PRESSES[number > 0]
    for press in range(presses):
        seen, end = page.evaluate("window.__latency.length"), time.monotonic() + 3
        page.keyboard.press(key)
        while page.evaluate("window.__latency.length") == seen and time.monotonic() < end:
            time.sleep(0.02)
        if press == presses // 2 or time.monotonic() >= end:  # nothing moves at the end of a slider: turn round
            key = "ArrowRight" if key == "ArrowLeft" else "ArrowLeft"
        if press == 0:
            while figure.evaluate(READ_DATA) == before and time.monotonic() < end:
                time.sleep(0.02)
            assert figure.evaluate(READ_DATA) != before, f"explorer {number} of {name} did not follow the slider"
            explorer.screenshot(path=SCREENSHOTS / f"{Path(name).stem}_explorer_{number + 1}.png")
    latencies = np.array(page.evaluate("window.__latency"))
    assert len(latencies) >= presses // 2
    print(
        f"{name} explorer {number + 1}: key to picture, median {np.median(latencies):.0f} ms, "
        f"p90 {np.quantile(latencies, 0.9):.0f} ms ({len(latencies)} presses)"
    )


def load_again(page, watch: Watch, name: str, expected: int) -> None:
    """Load the page again until all figures are back, at most three times.

    ipywidgets waits two seconds for a model, and does not look again: on a machine that is busy for so long while a
    page loads it says "model not found", and a user loads the page once more. That is not ours to mend; a figure that
    never comes back, or comes back changed, is.
    """
    shown: list[str] = []
    for attempt in range(3):
        page.reload()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if page.evaluate(DRAWN, expected):
                return
            places = page.locator(".jp-OutputArea-output", has_text=re.compile("Loading widget|Error displaying"))
            shown = places.all_inner_texts()
            if any("model not found" in text for text in shown):
                break
            time.sleep(0.1)
        if not any("model not found" in text for text in shown):
            break
        print(f"{name}: load {attempt + 1} of the page found no models")
        watch.problems = [problem for problem in watch.problems if "model not found" not in problem]
    raise AssertionError(f"not all figures of {name} came back; in their places: {shown}")


def reload_and_check(page, watch: Watch, name: str, expected: int) -> None:
    """Load the page again while the kernel lives: the same figures, and a slider still moves them as a whole."""
    explorers = page.locator(".jp-OutputArea-output", has=page.locator(".js-plotly-plot"))
    figures = page.locator(".js-plotly-plot")

    def read() -> list[dict]:
        return [figures.nth(number).evaluate(READ_FIGURE) for number in range(expected)]

    before = at_rest(read)
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Control+s")
    page.wait_for_selector("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current:not(.jp-mod-dirty)", timeout=20_000)
    load_again(page, watch, name, expected)
    after = at_rest(read)
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        changed = list(differences(old, new))
        assert not changed, f"explorer {number} of {name} changed with the page: {changed[:8]}"
    for number, old in enumerate(after):
        handle = explorers.nth(number).locator(".noUi-handle").first
        handle.scroll_into_view_if_needed()
        handle.focus()
        at_its_least = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemin")
        page.keyboard.press("ArrowRight" if at_its_least else "ArrowLeft")
        new = at_rest(lambda number=number: figures.nth(number).evaluate(READ_FIGURE), until_other_than=old)
        assert new["traces"] != old["traces"], f"explorer {number} of {name} did not follow the slider after a reload"
        assert new["legend"] == old["legend"]
        assert all(new["points"][trace] for trace, points in enumerate(old["points"]) if points)
        explorers.nth(number).screenshot(path=SCREENSHOTS / f"{Path(name).stem}_explorer_{number + 1}_reloaded.png")


def at_rest(read: Callable[[], object], *, until_other_than: object = None, seconds: float = 10) -> object:
    """What `read` gives when it stays the same for half a second: a coarse picture is refined after a quarter."""
    end = time.monotonic() + seconds
    last = until_other_than
    while time.monotonic() < end:
        now = read()
        if now == last and now != until_other_than:
            break
        last = now
        time.sleep(0.5)
    return last


def differences(old: object, new: object, path: str = "") -> Iterator[str]:
    """Where two figures differ, in words that fit into a message."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from differences(old.get(key), new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, values in enumerate(zip(old, new, strict=True)):
            yield from differences(*values, f"{path}[{number}]")
    elif old != new:
        yield f"{path}: {str(old)[:60]} is now {str(new)[:60]}"
