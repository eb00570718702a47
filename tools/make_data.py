"""Write the data that ship with the package, from the full sets and by real training.

    python tools/make_data.py [PART …]

All parts by default, which takes an hour. What a chapter ships is said in lib/chapters.py, and made in
`lib/<chapter>/shipped.py`.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from lib.chapters import open_chapters
from lib.datasets import fashion_mnist
from lib.files import atomic_path

DATA = Path(__file__).resolve().parent.parent / "lib" / "data"


def part_of_fashion_mnist(folder: Path) -> None:
    """The first 10,000 training and 2,000 test images."""
    parts = {}
    for split, count in (("train", 10_000), ("test", 2_000)):
        images, labels = fashion_mnist(split, full=True)
        parts |= {f"{split}_images": images[:count], f"{split}_labels": labels[:count]}
    with atomic_path(folder / "fashion_mnist.npz") as temporary:
        np.savez_compressed(temporary, **parts)


def makers() -> dict[str, Callable[[Path], None]]:
    """What can be made, by name."""
    found = {"fashion-mnist": part_of_fashion_mnist}
    for one in open_chapters():
        for name in one.data:
            found[name.replace("_", "-")] = getattr(import_module(f"lib.{one.name}.shipped"), name)
    return found


if __name__ == "__main__":
    known = makers()
    for part in sys.argv[1:] or known:
        if part not in known:
            raise SystemExit(f"there is no part {part!r}; there are {', '.join(known)}")
        known[part](DATA)
