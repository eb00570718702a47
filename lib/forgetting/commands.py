"""What chapter 03 adds to the command line: `python -m lib sweep forgetting`, `python -m lib search forgetting`."""

import math
from typing import Any

import numpy as np
import typer

from lib.command_line import Call, ExperimentCommand

__all__ = ["COMMANDS"]


class Sweep(ExperimentCommand):
    """Train a network on two tasks alternately, and see what it forgets of the first."""

    target = "lib.forgetting.sweep:sweep_forgetting"

    def report(self, result: Any, call: Call) -> None:
        """How much accuracy on the first task the second one costs, after each cycle."""
        lost = result[:, :, 0, :1] - result[:, :, 1::2, 0]
        unit = "degrees" if call.settings.change == "rotation" else "fraction"
        typer.echo("accuracy on the first task that is lost after each cycle (mean over seeds)")
        typer.echo(f"{unit:>10}" + "".join(f"{cycle + 1:8d}" for cycle in range(call.settings.cycles)))
        for amount, row in zip(call.settings.amounts, lost.mean(axis=1), strict=True):
            typer.echo(f"{amount:10.4g}" + "".join(f"{drop:8.3f}" for drop in row))


class Search(ExperimentCommand):
    """Look for the tasks of which a cycle forgets most."""

    target = "lib.forgetting.worst_cycles:sweep_worst_cycles"

    def report(self, result: Any, call: Call) -> None:
        """What was found, in units of T^2/(pi^2 e k), the most in the plane where T and k/T^2 are large."""
        settings = call.settings
        typer.echo("largest forgetting found; in brackets, in units of T^2/(pi^2 e k)")
        typer.echo(f"{'T':>4}{'k':>8}" + "".join(f"{nullity:8d} free       " for nullity in settings.nullities))
        for T, rows in zip(settings.tasks, result, strict=True):
            for square, row in zip(settings.squares, rows, strict=True):
                values = "".join(f"{value:10.6f} ({value * square * np.pi**2 * math.e:.3f})" for value in row)
                typer.echo(f"{T:4d}{square * T**2:8d}{values}")


#: verb -> the command
COMMANDS = {"search": Search, "sweep": Sweep}
