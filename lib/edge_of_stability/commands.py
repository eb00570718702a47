"""What chapter 02 adds to the command line: `python -m lib train edge-of-stability`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lib.command_line import given, refusals

__all__ = ["COMMANDS"]


@refusals()
def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and results; a second run goes on from them.")],
    preset: Annotated[
        str, typer.Option(help="quick, laptop, laptop-convnet, cifar10-5k or cifar10-5k-convnet.")
    ] = "quick",
    data: Annotated[Path | None, typer.Option(help="Folder of the data (CIFAR-10: its binary version).")] = None,
    edge: Annotated[float | None, typer.Option(help="2/eta, or its ratio to the initial GFS sharpness.")] = None,
    count: Annotated[int | None, typer.Option(help="Another number of images.")] = None,
    steps: Annotated[int | None, typer.Option(help="Another number of steps.")] = None,
    every: Annotated[int | None, typer.Option(help="Steps between two checkpoints.")] = None,
    loss_tol: Annotated[float | None, typer.Option(help="Loss at which gradient flow has arrived.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    jobs: Annotated[int, typer.Option(help="Processes that look for flow solutions.")] = 1,
) -> None:
    """Train at the edge of stability, and follow the sharpness of the gradient flow solution."""
    from dataclasses import replace

    from lib.edge_of_stability.experiment import EDGE_PRESETS, run_edge_experiment
    from lib.training import is_first_process
    from lib.validation import one_of

    one_of("preset", preset, EDGE_PRESETS)
    changes: dict[str, Any] = {"edge": edge, "count": count, "n_steps": steps, "every": every, "loss_tol": loss_tol}
    settings = replace(EDGE_PRESETS[preset], **given(changes))
    run = run_edge_experiment(settings, out, data_path=data, device=device, jobs=jobs)
    if not is_first_process(device):
        return
    typer.echo(f"eta = {run.eta:.4g}, 2/eta = {2 / run.eta:.4g}; {int((run.losses[1:] > run.losses[:-1]).sum())} rises")
    typer.echo("    step       loss   eta * sharpness   eta * GFS sharpness")
    for row in zip(run.steps, run.loss, run.eta * run.sharpness, run.eta * run.gfs_sharpness, strict=True):
        typer.echo(f"{row[0]:8d}   {row[1]:8.2e}   {row[2]:15.3f}   {row[3]:19.3f}")
    if run.diverged:
        typer.echo(f"diverged at step {len(run.losses)}")


#: verb -> the function behind it
COMMANDS = {"train": train}
