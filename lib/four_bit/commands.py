"""What chapter 04 adds to the command line: `python -m lib train four-bit` and `python -m lib sweep four-bit`."""

from __future__ import annotations

from typing import Any

import typer

from lib.command_line import Call, ExperimentCommand, TrainingCommand

__all__ = ["COMMANDS"]


class Train(TrainingCommand):
    """Train a network with 4-bit matrix products, and print its accuracy."""

    target = "lib.four_bit.experiment:train_four_bit"


class Sweep(ExperimentCommand):
    """Train in several ways with several seeds, and print their accuracies."""

    target = "lib.four_bit.sweep:sweep_four_bit"

    def report(self, result: dict[str, Any], _: Call) -> None:
        """Mean and range over seeds."""
        typer.echo("test accuracy, mean and range over seeds")
        for name, runs in result.items():
            final = [float(run.scores[-1]) if len(run.scores) and not run.diverged else float("nan") for run in runs]
            typer.echo(f"{name:36} {sum(final) / len(final):.4f}   {min(final):.4f} … {max(final):.4f}")


#: verb -> the command
COMMANDS = {"sweep": Sweep, "train": Train}
