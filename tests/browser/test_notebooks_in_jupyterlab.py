"""Every notebook in a real JupyterLab: it runs, its explorers are drawn, and they follow the keyboard."""

import re
import time
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest

from tests.browser.conftest import ROOT, TOKEN

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]

SCREENSHOTS = ROOT / "screenshots"
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))

# The time from a key press to the end of the first burst of changes of the figure: a pause of 150 ms ends a burst,
# and so a picture that is refined later counts with its first, coarse version.
STOPWATCH = """
() => {
  window.__latency = [];
  let pressed = null, changed = null, timer = null;
  document.addEventListener('keydown', () => { pressed = performance.now(); changed = null; }, true);
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


def run_all(page, seconds: float = 180) -> None:
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
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    watch = Watch(page)
    session = open_notebook(page, lab, name)
    try:
        start = time.perf_counter()
        run_all(page)
        print(f"\n{name}: all cells in {time.perf_counter() - start:.0f} s")
        errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
        assert errors.count() == 0, errors.all_inner_texts()
        expected = (ROOT / "notebooks" / name).read_text().count("application/vnd.jupyter.widget-view+json")
        figures = page.locator(".js-plotly-plot")
        if expected:
            figures.first.scroll_into_view_if_needed()
            page.wait_for_selector(".js-plotly-plot .main-svg", timeout=30_000)
        assert figures.count() == expected
        screenshot_all(page, name)
        for number in range(expected):
            move_and_check(page, name, number)
        assert not watch.problems, watch.problems
    finally:
        page.close()
        lab.api(f"sessions/{session}", "DELETE")


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
    handle = explorer.locator(".noUi-handle").first
    handle.focus()
    page.evaluate(
        STOPWATCH.replace(
            "[...document.querySelectorAll('.js-plotly-plot')].pop()",
            f"document.querySelectorAll('.js-plotly-plot')[{number}]",
        )
    )
    for press in range(20):
        page.keyboard.press("ArrowLeft" if press < 10 else "ArrowRight")
        time.sleep(0.55)
        if press == 0:
            assert figure.evaluate(READ_DATA) != before, f"explorer {number} of {name} did not follow the slider"
            explorer.screenshot(path=SCREENSHOTS / f"{Path(name).stem}_explorer_{number + 1}.png")
    latencies = np.array(page.evaluate("window.__latency"))
    assert len(latencies) >= 10
    print(
        f"{name} explorer {number + 1}: key to picture, median {np.median(latencies):.0f} ms, "
        f"p90 {np.quantile(latencies, 0.9):.0f} ms ({len(latencies)} presses)"
    )
