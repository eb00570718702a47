"""What chapter 01 adds to the command line: `python -m lib sweep initialization-shape`."""

from __future__ import annotations

from typing import Any

import typer

from lib.command_line import Call, ExperimentCommand

__all__ = ["COMMANDS"]


class Sweep(ExperimentCommand):
    """Test error over scales and shapes of the initialization (Figure 7.1)."""

    target = "lib.initialization_shape.sweep:sweep_initialization_shape"

    def report(self, result: Any, call: Call) -> None:
        """Mean over data sets."""
        typer.echo("mean test error; rows: shape s, columns: scale alpha")
        typer.echo("      s " + " ".join(f"{alpha:8.1e}" for alpha in call.settings.alphas[::3]))
        for shape, row in zip(call.settings.shapes, result.mean(axis=0), strict=True):
            typer.echo(f"{shape:7.2f} " + " ".join(f"{error:8.3f}" for error in row[::3]))


#: verb -> the command
COMMANDS = {"sweep": Sweep}
