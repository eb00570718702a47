"""What all commands share: what the user got wrong is said in one line, with exit code 2, before the work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["Command", "given", "refusals"]


@contextmanager
def refusals() -> Iterator[None]:
    """Say what was refused, or which package is missing, without a traceback; around a command, as `@refusals()`."""
    try:
        yield
    except ImportError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    except (ValueError, TypeError, OSError) as error:
        raise typer.BadParameter(str(error)) from error


class Command(TyperCommand):
    """A command that takes no empty words: pathlib would make the current folder of one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse `--option ""` and `--option=`."""
        for before, word in zip(["", *args], args, strict=False):
            name, equals, value = word.partition("=")
            if not word or (name.startswith("--") and equals and not value):
                raise typer.BadParameter(f"{name or before} must not be empty", ctx)
        return super().parse_args(ctx, args)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given.

    Examples
    --------
    >>> given({"epochs": 3, "seed": None})
    {'epochs': 3}
    """
    return {name: value for name, value in options.items() if value is not None}
