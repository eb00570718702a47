"""What chapter 03 adds to the command line: `python -m lib sweep forgetting`."""

from __future__ import annotations

from typing import Any

import typer

from lib.command_line import Call, ExperimentCommand

__all__ = ["COMMANDS"]


class Sweep(ExperimentCommand):
    """Train a network on two tasks in turns, and see what it forgets of the first."""

    target = "lib.forgetting.sweep:sweep_forgetting"

    def report(self, result: Any, call: Call) -> None:
        """How much accuracy on the first task the second one costs, after each cycle."""
        if result is None:
            typer.echo(f"done; once all workers are, the same command without --shard shows what is in {call.out}")
            return
        lost = result[:, :, 0, :1] - result[:, :, 1::2, 0]
        unit = "degrees" if call.settings.change == "rotation" else "fraction"
        typer.echo("accuracy on the first task that is lost after each cycle (mean over seeds)")
        typer.echo(f"{unit:>10}" + "".join(f"{cycle + 1:8d}" for cycle in range(call.settings.cycles)))
        for amount, row in zip(call.settings.amounts, lost.mean(axis=1), strict=True):
            typer.echo(f"{amount:10.4g}" + "".join(f"{drop:8.3f}" for drop in row))


#: verb -> the command
COMMANDS = {"sweep": Sweep}
