"""Paperplay: ten research papers as ten notebooks to play with, and the implementations behind them."""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "chapters",
        "claims",
        "datasets",
        "edge_of_stability",
        "explorer",
        "initialization_shape",
        "models",
        "style",
    ],
)
