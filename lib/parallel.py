"""Independent pieces of work, in as many processes as the caller or a surrounding `joblib.parallel_config` says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from lib.progress import progress
from lib.validation import job_count

__all__ = ["in_parallel"]

T = TypeVar("T")


def in_parallel(
    function: Callable[..., T], arguments: Sequence[tuple[object, ...]], description: str, *, jobs: int | None = None
) -> Iterator[T]:
    """Results of `function(*a)` for each `a`, in order, with a progress bar.

    Other processes must be able to import the function. `jobs` is their number; None leaves it, and where they run, to
    a surrounding `joblib.parallel_config`.

    Examples:
        >>> list(in_parallel(pow, [(2, 3), (3, 2)], "powers"))
        [8, 9]
    """
    from joblib import Parallel, delayed

    if not callable(function):
        raise TypeError(f"function must be a function; it is {function!r}")
    job_count(jobs)
    calls = [delayed(function)(*each) for each in arguments]
    try:
        parallel = Parallel(n_jobs=jobs, return_as="generator")
    except ValueError:  # a backend that only returns everything at once
        parallel = Parallel(n_jobs=jobs)
    return progress(parallel(calls), description, total=len(calls))
