"""Run notebooks on clean kernels and store their outputs.

    python tools/execute.py notebooks/*.ipynb

Outputs are stored without widget states (each would carry a whole plotting library) and without timings; live figures
with a still picture that plotly draws in a headless browser.
"""

import base64
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from stills import Drawing, drawing, strip

from lib.explorer import FIGURES, STILLS
from lib.files import atomic_path


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        store_widget_state=False,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def draw_stills(notebook: nbformat.NotebookNode, page: Drawing) -> None:
    """Put a still picture in the place of the figures that a cell tells."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if told := output.get("data", {}).pop(FIGURES, None):
                output["data"]["image/png"] = base64.b64encode(strip(page, told)).decode()


def main(paths: list[str]) -> None:
    """Execute each notebook and write it whole or not at all."""
    os.environ[STILLS] = "1"  # kernels tell the figures of which stills are drawn
    with drawing() as page:
        for name in paths:
            path = Path(name)
            start = time.perf_counter()
            notebook = execute(path)
            draw_stills(notebook, page)
            with atomic_path(path) as temporary:
                nbformat.write(notebook, temporary)
            print(f"{path}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
