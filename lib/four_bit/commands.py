"""What chapter 04 adds to the command line: `python -m lib train four-bit` and `python -m lib sweep four-bit`."""

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
        str, typer.Option(help="quick, laptop, laptop-convnet, cifar100-resnet18 or imagenet-… (see the README).")
    ] = "quick",
    data: Annotated[Path | None, typer.Option(help="Folder of CIFAR-100 (binary version) or ImageNet.")] = None,
    network: Annotated[str | None, typer.Option(help="Another network: mlp, convnet, or of torchvision.")] = None,
    fmt: Annotated[str | None, typer.Option(help="Gradients: fp4, reference, printed, fp3 or fp2.")] = None,
    rounding: Annotated[str | None, typer.Option(help="Between levels: stochastic, nearest or down.")] = None,
    underflow: Annotated[str | None, typer.Option(help="Below the smallest: stochastic, nearest or flush.")] = None,
    samples: Annotated[int | None, typer.Option(help="Quantisations of a gradient that are averaged (SMP).")] = None,
    forward: Annotated[str | None, typer.Option(help="int4, weights or none.")] = None,
    backward: Annotated[str | None, typer.Option(help="luq, int4 or none.")] = None,
    hindsight: Annotated[float | None, typer.Option(help="Momentum of a guessed maximum.")] = None,
    shared_alpha: Annotated[bool, typer.Option(help="One alpha for all processes.")] = False,
    backend: Annotated[str | None, typer.Option(help="auto, eager or triton.")] = None,
    count: Annotated[int | None, typer.Option(help="Another number of training images.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Another number of epochs.")] = None,
    fine_tuning: Annotated[int | None, typer.Option(help="Epochs of fine-tuning (FNT) at the end.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step, over all processes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and rounding.")] = None,
    every: Annotated[int | None, typer.Option(help="Steps between checkpoints; an epoch by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32 or bfloat16, of what is not quantised.")] = "float32",
    workers: Annotated[int, typer.Option(help="Processes that load data.")] = 0,
) -> None:
    """Train a network with 4-bit matrix products, and print its accuracy."""
    from dataclasses import replace

    import torch

    from lib.four_bit.experiment import four_bit_preset, train_four_bit
    from lib.four_bit.fused import active_backend
    from lib.training import is_first_process
    from lib.validation import known_device

    base = four_bit_preset(preset)
    quantised: dict[str, Any] = {
        "fmt": fmt,
        "rounding": rounding,
        "underflow": underflow,
        "samples": samples,
        "forward": forward,
        "backward": backward,
        "hindsight": hindsight,
        "process_group": "world" if shared_alpha else None,
        "backend": backend,
    }
    trained: dict[str, Any] = {
        "network": network,
        "count": count,
        "epochs": epochs,
        "fine_tuning": fine_tuning,
        "batch": batch,
        "seed": seed,
    }
    config = replace(base.config, **given(quantised))
    path = active_backend(torch.device(known_device(device)), config.backend)
    settings = replace(base, config=config, **given(trained))
    run = train_four_bit(
        settings,
        out,
        data_path=data,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        every=every,
        workers=workers,
    )
    if not is_first_process(device):
        return
    typer.echo(f"gradients on the path: {path}")
    typer.echo("   epoch   test accuracy")
    for epoch, score in enumerate(run.scores, start=1):
        typer.echo(f"{epoch:8d}   {score:13.4f}{'   (fine-tuning)' if epoch > settings.epochs else ''}")
    if run.diverged:
        typer.echo(f"diverged at step {len(run.losses)}")
        raise typer.Exit(1)


@refusals()
def sweep(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints; a second run goes on from them.")],
    way: Annotated[list[str], typer.Option(help="A way to quantise, such as 'FP3 LUQ'; may be given several times.")],
    preset: Annotated[str, typer.Option(help="As for the command train.")] = "quick",
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    count: Annotated[int | None, typer.Option(help="Another number of training images.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Another number of epochs.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    jobs: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
) -> None:
    """Train in several ways with several seeds, and print their accuracies."""
    from dataclasses import replace

    from lib.four_bit.experiment import four_bit_preset
    from lib.four_bit.sweep import sweep_four_bit
    from lib.validation import positive_integer

    settings = replace(four_bit_preset(preset), **given({"count": count, "epochs": epochs}))
    numbers = range(positive_integer("--seeds", seeds))
    found = sweep_four_bit(settings, way, seeds=numbers, folder=out, data_path=data, device=device, jobs=jobs)
    typer.echo("test accuracy, mean and range over seeds")
    for name, runs in found.items():
        final = [float(run.scores[-1]) if len(run.scores) and not run.diverged else float("nan") for run in runs]
        typer.echo(f"{name:36} {sum(final) / len(final):.4f}   {min(final):.4f} … {max(final):.4f}")


#: verb -> the function behind it
COMMANDS = {"sweep": sweep, "train": train}
