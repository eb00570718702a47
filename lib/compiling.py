"""Compiled functions: numba's, with a cache on disk where there can be one.

numba's cache of a function sees the function's own file, and nothing else. A file with compiled functions therefore
imports nothing from `lib` but this decorator: constants of other files are arguments. Options stand where the
decorator is applied, for the same reason.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

__all__ = ["compiled"]


def compiled(*, fastmath: bool | set[str] = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with `numba.njit`; a cache that cannot be used costs time, and is no error.

    numba itself raises when a module is imported from where nothing can be written (a read-only package and no home),
    and when a disk is full or a file of the cache is damaged. A function that does not say `fastmath=False` gets what
    its first caller has, and keeps it in the cache: here all say it.

    Examples:
        >>> @compiled(error_model="numpy")
        ... def double(x):
        ...     return 2 * x
        >>> double(1.5)
        3.0
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(fastmath=fastmath, **options)(function)
        with suppress(RuntimeError):  # there is no folder for a cache
            dispatcher._cache = _Cache(function)
        return dispatcher

    return decorate


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache of one function."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except OSError:
            return None
        except (EOFError, pickle.UnpicklingError):
            # a file that was cut short: the function is compiled, and written anew
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)
