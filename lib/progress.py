"""Progress bars that show in a terminal and leave no trace in logs or stored notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["progress"]

T = TypeVar("T")


def progress(items: Iterable[T], description: str, *, total: int | None = None) -> Iterator[T]:
    """Pass `items` on, with a bar on standard error while that is a terminal.

    Examples:
        >>> list(progress(range(3), "counting"))
        [0, 1, 2]
    """
    from tqdm import tqdm

    # disable=None: silent wherever standard error is not a terminal
    return iter(tqdm(items, desc=description, total=total, disable=None, leave=False))
