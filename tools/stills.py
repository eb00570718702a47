"""Still pictures of live figures, drawn by plotly itself in a headless browser.

What a stored notebook shows of an explorer is one picture: the figure at its default, below it one for each of its
tries, and above it the question of a prediction. `tools/execute.py` puts it into the notebook.
"""

import io
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plotly
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, sync_playwright

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: Pixels, and the height of a try in units of its explorer's.
WIDTH, LOWER = 960, 0.68
LARGEST = 80_000

_DRAW = """async ([figure, width]) => {
    const place = document.getElementById('figure');
    place.style.width = `${width}px`;
    await Plotly.newPlot(place, figure.data, {...figure.layout, width, autosize: false}, {staticPlot: true});
}"""


class Drawing:
    """A page with the plotly.js of the installed package."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_content("<body style='margin:0'><div id='figure'></div>")
        page.add_script_tag(path=Path(plotly.__file__).parent / "package_data" / "plotly.min.js")

    def draw(self, figure: dict[str, Any], width: int) -> None:
        """Draw a figure, in plotly's JSON, as wide as a cell is."""
        self.page.evaluate(_DRAW, [figure, width])

    def picture(self, figure: dict[str, Any], width: int) -> Image.Image:
        """The figure as pixels."""
        self.draw(figure, width)
        return Image.open(io.BytesIO(self.page.locator("#figure .svg-container").screenshot())).convert("RGB")


@contextmanager
def drawing() -> Iterator[Drawing]:
    """A headless browser for stills."""
    if CHROMIUM is None:
        raise SystemExit("stills are drawn in chromium, which is not on this machine (on Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield Drawing(browser.new_page(viewport={"width": 1400, "height": 1200}))
        browser.close()


def strip(page: Drawing, told: dict[str, Any]) -> bytes:
    """One PNG of at most 80 kB: a heading, the default, and each try under its label, lower and without a legend."""
    heading, (first, *tries) = told["heading"], told["figures"]
    pictures = [_text(heading, 17)] if heading else []
    pictures.append(page.picture(first["figure"], WIDTH))
    for each in tries:
        layout = {**each["figure"]["layout"], "showlegend": False}
        layout["height"] = round(layout.get("height", 380) * LOWER)
        layout["margin"] = {**layout.get("margin", {}), "b": 55, "t": 40}
        pictures += [_text(each["label"], 16), page.picture({**each["figure"], "layout": layout}, WIDTH)]
    whole = Image.new("RGB", (WIDTH, sum(picture.height for picture in pictures)), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return small_png(whole)


def small_png(image: Image.Image, largest: int = LARGEST) -> bytes:
    """The picture in as many colours, and then pixels, as fit into so many bytes."""
    for scale in (1.0, 0.85, 0.7, 0.6, 0.5):
        size = round(image.width * scale), round(image.height * scale)
        scaled = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
        for colours in (128, 48, 24):
            buffer = io.BytesIO()
            # by what differs most, not by what is most frequent: a colour of the legend alone is kept too
            fewer = scaled.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            fewer.save(buffer, "PNG", optimize=True)
            if buffer.tell() <= largest:
                return buffer.getvalue()
    raise ValueError(f"a still of {image.size} does not fit into {largest} bytes")


def _text(words: str, size: int) -> Image.Image:
    font = ImageFont.truetype(findfont("DejaVu Sans"), size)
    letters = int(WIDTH / (0.6 * size))
    lines = [part for line in words.splitlines() for part in textwrap.wrap(line, letters, subsequent_indent="      ")]
    image = Image.new("RGB", (WIDTH, 12 + (size + 8) * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((12, 8 + (size + 8) * number), line, "black", font)
    return image
