"""What all commands share, and those that are made from the settings of an experiment.

What the user got wrong is said in one line, with exit code 2, before the work.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from lib.files import output_file, output_folder

__all__ = ["Call", "Command", "ExperimentCommand", "Option", "SweepCommand", "TrainingCommand", "refusals"]


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


#: What is said of parameters of the functions behind commands.
_SAID = {
    "data_path": "Folder of data that do not ship with the package.",
    "device": "cpu or cuda.",
    "precision": "Of products in the network.",
    "every": "Steps between checkpoints; an epoch by default.",
    "workers": "Processes that load data.",
    "jobs": "Processes on this machine.",
    "shard": "i/n: only this worker's share, of n workers on one folder.",
    "seeds": "One training each.",
    "methods": "dense, greedy, mvue, approx or uniform; may be given several times.",
    "patterns": "N:M, such as 2:4; may be given several times.",
    "both": "Whether to prune the gradient that goes to the layer before as well.",
    "ways": "A way to quantise, such as 'FP3 LUQ'; may be given several times.",
}


@dataclass(frozen=True)
class Option:
    """An option, and the field of a preset (`part` names the nested dataclass) or parameter that it sets."""

    name: str
    hint: Any
    help: str
    part: str | None = None
    default: Any = None

    @property
    def flag(self) -> str:
        """What one writes."""
        return "--" + self.name.replace("_", "-")

    def parameter(self) -> inspect.Parameter:
        """The option for typer: words, which `read` turns into values."""
        kind, empty = _bare(self.hint), inspect.Parameter.empty
        words: Any = bool if kind is bool else list[str] if _is_many(kind) and get_args(kind)[0] is str else str
        flag = f"{self.flag}/--no-{self.flag[2:]}" if kind is bool else self.flag
        metavar = None if kind is bool else _metavar(self.hint)
        shown: Any = ",".join(map(str, self.default)) if isinstance(self.default, tuple) else str(self.default)
        if self.default is None or self.default is empty:
            shown = False
        option = typer.Option(flag, help=self.help, metavar=metavar, show_default=shown)
        default, hint = (empty, words) if self.default is empty else (None, words | None)
        only = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(self.name, only, default=default, annotation=Annotated[hint, option])

    def read(self, given: Any) -> Any:
        """The value of what was given."""
        return given if isinstance(given, bool) else _read(self.flag, given, self.hint)


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The kinds that an annotation allows."""
    if get_origin(hint) is Annotated:
        return _kinds(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for part in get_args(hint) for kind in _kinds(part))
    return (hint,)


def _bare(hint: Any) -> Any:
    """The first of them."""
    return _kinds(hint)[0]


def _is_many(kind: Any) -> bool:
    return get_origin(kind) in (tuple, Sequence)


def _metavar(hint: Any) -> str:
    kind = _bare(hint)
    if types.NoneType in get_args(hint):
        return f"{_metavar(kind)}|none"
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if _is_many(kind):
        each = _metavar(get_args(kind)[0])
        return each if each == "TEXT" else f"{each},{each},…"
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _read(flag: str, given: Any, hint: Any) -> Any:
    """A word as a value of the kind that is asked for; `none` where that may be None."""
    kind = _bare(hint)
    if given == "none" and types.NoneType in get_args(hint):
        return None
    if _is_many(kind):
        # a pair may be written as i/n; in a list of numbers 1/2 is no number
        between = "," if get_origin(kind) is Sequence or Ellipsis in get_args(kind) else "[,/]"
        parts = given if isinstance(given, list) else re.split(between, given)
        return tuple(_read(flag, part, get_args(kind)[0]) for part in parts)
    if kind in (int, float):
        try:
            return kind(given)
        except ValueError:
            what = "an integer" if kind is int else "a number"
            raise ValueError(f"{flag} must be {what}; it is {given!r}") from None
    # a name or a number, as of a format: what can be read as a number is one
    return int(given) if int in _kinds(hint) and given.isdecimal() else given


@dataclass(frozen=True)
class Call:
    """What a command was asked for: settings, the folder, and the other options that were given."""

    settings: Any
    out: Path
    options: dict[str, Any]


class ExperimentCommand(Command):
    """A command made from a function `f(preset, folder, …)` of a chapter's experiment.

    There is an option for each field of the preset and for each other parameter of the function. The chapter is
    imported when its command is asked for, not before.
    """

    #: "module:function"; the module of the preset's class has `PRESETS`.
    target: ClassVar[str]

    @cached_property
    def function(self) -> Callable[..., Any]:
        """What does the work."""
        found: Callable[..., Any] = resolve_name(self.target)
        return found

    @cached_property
    def presets(self) -> dict[str, Any]:
        """The chapter's settings by name."""
        found: dict[str, Any] = import_module(self.function.__module__).PRESETS
        return found

    @cached_property
    def options(self) -> list[Option]:
        """All but `--out` and `--preset`."""
        from lib.experiment import described

        preset = type(self.presets["quick"])
        nested = {name: hint for name, hint in get_type_hints(preset).items() if is_dataclass(hint)}
        found: list[Option] = []
        parts: list[tuple[str | None, Any]] = [(None, self.function), ("", preset), *nested.items()]
        for part, kind in parts:
            said = _SAID if part is None else described(kind)
            defaults = inspect.signature(kind).parameters
            for name, hint in get_type_hints(kind, include_extras=True).items():
                if name in defaults and name not in ("preset", "folder") and not is_dataclass(hint):
                    default = defaults[name].default if part is None else None
                    found.append(Option(name, hint, said.get(name, "").replace("`", ""), part, default))
        return sorted(found, key=lambda option: option.part is None)

    @cached_property
    def inner(self) -> Any:
        """The command that typer makes from a function of these options."""

        def run(**given: Any) -> None:
            self.run(**given)

        words = typer.Option(help=f"{', '.join(self.presets)}; other options change it.", metavar="NAME")
        out = typer.Option(help="Folder for what is written; a second run goes on from there.")
        only = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("out", only, annotation=Annotated[Path, out]),
            inspect.Parameter("preset", only, default="quick", annotation=Annotated[str, words]),
            *(option.parameter() for option in self.options),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        app = typer.Typer(add_completion=False)
        app.command(help=self.help)(run)
        return typer.main.get_command(app)

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, which are not known before."""
        found: list[Any] = self.inner.get_params(ctx)
        return found

    def invoke(self, ctx: Any) -> Any:
        """Do what was asked for."""
        return self.inner.invoke(ctx)

    def run(self, *, out: Path, preset: str, **given: Any) -> None:
        """Read the options, call the function, and report."""
        from lib.experiment import named

        with refusals():
            self.look(out)
            settings = named(preset, self.presets)
            chosen = [option for option in self.options if given[option.name] is not None]
            changes: dict[str | None, dict[str, Any]] = {}
            for option in chosen:
                changes.setdefault(option.part, {})[option.name] = option.read(given[option.name])
            own, call = changes.pop("", {}), changes.pop(None, {})
            for part, values in changes.items():
                own[str(part)] = replace(getattr(settings, str(part)), **values)
            settings = replace(settings, **own)
            result = self.function(settings, folder=out, **call)
        if result is None:  # this worker's share of a sweep
            typer.echo(f"done; once all workers are, the same command without --shard shows what is in {out}")
        else:
            self.report(result, Call(settings, out, call))

    def look(self, out: Path) -> None:
        """Refuse a place where nothing can be written."""
        output_folder("--out", out)

    def report(self, result: Any, call: Call) -> None:
        """Print what came out."""
        raise NotImplementedError


class TrainingCommand(ExperimentCommand):
    """A command that trains, prints the scores, and writes the network to network.npz."""

    def look(self, out: Path) -> None:
        """Refuse a place where no network can be written."""
        super().look(out)
        output_file("--out", out / "network.npz")

    def report(self, result: Any, call: Call) -> None:
        """Print the run's lines, in one of the processes that train together."""
        from lib.training import is_first_process

        if not is_first_process(call.options.get("device", "cpu")):
            return
        for line in result.lines():
            typer.echo(line)
        if result.diverged:
            typer.echo(f"diverged at step {len(result.losses)}")
            raise typer.Exit(1)
        result.save(call.out / "network.npz")
        typer.echo(f"network: {call.out / 'network.npz'}")


class SweepCommand(ExperimentCommand):
    """A command that trains in several ways with several seeds, and prints accuracies."""

    def report(self, result: dict[str, Any], _: Call) -> None:
        """Mean and range over seeds."""
        typer.echo("test accuracy, mean and range over seeds")
        for name, runs in result.items():
            final = [float(run.scores[-1]) if len(run.scores) and not run.diverged else float("nan") for run in runs]
            typer.echo(f"{name:36} {sum(final) / len(final):.4f}   {min(final):.4f} … {max(final):.4f}")
