"""A look at the reader's environment: whether everything is there that the notebooks need."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

__all__ = ["EnvironmentCheck", "check_environment"]

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class EnvironmentCheck:
    """What is missing or too old, one line each; empty if all is well."""

    problems: tuple[str, ...]

    def __repr__(self) -> str:
        if self.problems:
            return "\n".join(["This environment needs attention:", *(f"  - {problem}" for problem in self.problems)])
        return "Ready: Python and all packages are there, in versions that fit."


def check_environment() -> EnvironmentCheck:
    """Compare Python and the installed packages with what `paperplay` asks for.

    Examples:
        >>> check_environment()
        Ready: Python and all packages are there, in versions that fit.
    """
    problems = []
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        problems.append(f"Python {oldest} or newer is needed; this is {sys.version.split()[0]}")
    for need in map(Requirement, requires("paperplay") or ()):
        if need.marker is not None and not need.marker.evaluate():
            continue
        try:
            found = version(need.name)
        except PackageNotFoundError:
            problems.append(f"{need.name} is missing: pip install '{need}'")
            continue
        if not need.specifier.contains(found, prereleases=True):
            problems.append(f"{need.name} is {found}; needed is {need.specifier}: pip install '{need}'")
    return EnvironmentCheck(tuple(problems))
