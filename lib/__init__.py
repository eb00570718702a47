"""Paperplay: ten research papers as ten notebooks to play with, and the implementations behind them."""

import lazy_loader as _lazy

from lib.chapters import open_chapters as _open_chapters

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        *("chapters", "claims", "datasets", "explorer", "models", "style"),
        *(chapter.name for chapter in _open_chapters()),
    ],
)
