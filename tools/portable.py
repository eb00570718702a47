"""Show that stored outputs do not depend on the number of threads or on the processor.

    python tools/portable.py notebooks/*.ipynb

Runs every notebook again with one and two threads, on other BLAS core types, and with the plainest kernels of
torch and numpy, and compares all text with what is stored. Exit code 0 only if nothing differs.
"""

import os
import sys
from pathlib import Path

import nbformat
from execute import execute
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

# those of numpy's faster loops that this processor has: no others may be named
_FAST_LOOPS = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))

SETTINGS = {
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "another core type": {"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "default"},
    "numpy's plainest loops": {"OMP_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": _FAST_LOOPS},
    "an old core type": {"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Nehalem", "ATEN_CPU_CAPABILITY": "default"},
}


def texts(notebook: nbformat.NotebookNode) -> dict[str, list[str]]:
    """All text that a comparison of outputs sees, by cell; pieces of one stream joined."""
    found: dict[str, list[str]] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        stream = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        data = [output.data for output in cell.outputs if "data" in output]
        kinds = ("text/plain", "text/html", "text/latex")
        found[cell.id] = [stream, *(piece[kind] for piece in data for kind in kinds if kind in piece)]
    return found


def main(paths: list[str]) -> int:
    """Compare, and say where something differs."""
    different = 0
    for name in paths:
        path = Path(name)
        stored = texts(nbformat.read(path, as_version=4))
        for setting, variables in SETTINGS.items():
            os.environ.update(variables)
            again = texts(execute(path))
            for key in variables:
                os.environ.pop(key)
            cells = [cell for cell, text in stored.items() if again[cell] != text]
            different += len(cells)
            print(f"{path.name}, {setting}: {'the same text' if not cells else 'different: ' + ', '.join(cells)}")
            for cell in cells:
                for was, now in zip(stored[cell], again[cell], strict=False):
                    if was != now:
                        print(f"  stored: {was[:300]}\n  now:    {now[:300]}")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
