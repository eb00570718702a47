"""Importing the package costs next to nothing until a name that needs more is used."""

import subprocess
import sys

import pytest

from lib.chapters import open_chapters

HEAVY = ("torch", "sympy", "scipy.stats", "matplotlib", "plotly", "ipywidgets", "sklearn", "joblib")
PROBE = """
import sys, time
start = time.process_time()
import {module}
seconds = time.process_time() - start
print(seconds, *[name for name in {heavy!r} if name in sys.modules])
"""


@pytest.mark.parametrize("module", ["lib", *(f"lib.{chapter.name}" for chapter in open_chapters())])
def test_import_is_light(module: str) -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", PROBE.format(module=module, heavy=HEAVY)], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert all(not loaded for _, *loaded in runs), f"{module} loads {runs[0][1:]}"
    # processor time, the best of three: what the import costs, not what else the machine does
    assert min(float(seconds) for seconds, *_ in runs) < 0.15


@pytest.mark.parametrize("chapter", [chapter.name for chapter in open_chapters()])
def test_every_public_name_can_be_imported(chapter: str) -> None:
    module = __import__(f"lib.{chapter}", fromlist=["*"])
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
