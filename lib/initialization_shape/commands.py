"""What chapter 01 adds to the command line: `python -m lib sweep initialization-shape`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lib.command_line import refusals

__all__ = ["COMMANDS"]


@refusals()
def sweep(
    out: Annotated[Path, typer.Option(help="Folder for the pieces; a second run goes on where the first stopped.")],
    preset: Annotated[str, typer.Option(help="quick, laptop, paper, or paper-gd (the authors' protocol).")] = "quick",
    seeds: Annotated[int | None, typer.Option(help="Another number of data sets than the preset's.")] = None,
    shard: Annotated[str, typer.Option(help="i/n: this worker's share of n workers.")] = "0/1",
    jobs: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
) -> None:
    """Test error over scales and shapes of the initialization (Figure 7.1)."""
    from lib.initialization_shape.sweep import PRESETS, load_sweep, run_sweep

    index, _, count = shard.partition("/")
    if not (index.isdigit() and count.isdigit()):
        raise ValueError(f"--shard must look like 0/4; it is {shard!r}")
    run_sweep(preset, out, seeds=seeds, shard=(int(index), int(count)), jobs=jobs)
    if int(count) > 1:
        typer.echo(f"shard {shard} is done; load_sweep merges the folder when all are")
        return
    errors = load_sweep(out, preset, seeds=seeds).mean(axis=0)
    settings = PRESETS[preset]
    typer.echo("mean test error; rows: shape s, columns: scale alpha")
    typer.echo("      s " + " ".join(f"{alpha:8.1e}" for alpha in settings.alphas[::3]))
    for shape, row in zip(settings.shapes, errors, strict=True):
        typer.echo(f"{shape:7.2f} " + " ".join(f"{error:8.3f}" for error in row[::3]))


#: verb -> the function behind it
COMMANDS = {"sweep": sweep}
