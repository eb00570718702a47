"""What chapter 06 adds to the command line: `python -m lib train`, `attack` and `audit`, each `alias-free`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lib.command_line import given, refusals
from lib.files import atomic_path, output_file

if TYPE_CHECKING:
    from torch import Tensor

    from lib.alias_free.experiment import AliasFreeRun

__all__ = ["COMMANDS"]

_File = Annotated[Path | None, typer.Option(help="Folder of CIFAR-10 (binary version) or ImageNet.")]
_Device = Annotated[str, typer.Option(help="cpu or cuda.")]


@refusals()
def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the network; a second run goes on from them.")],
    preset: Annotated[str, typer.Option(help="quick, laptop, canvas, cifar10 or imagenet.")] = "quick",
    mode: Annotated[str | None, typer.Option(help="afc, baseline, blurpool or aps; afc by default.")] = None,
    data: _File = None,
    count: Annotated[int | None, typer.Option(help="Another number of training pictures.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Another number of epochs.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a step, over all processes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and order.")] = None,
    margin: Annotated[int | None, typer.Option(help="Pixels of background around pictures of clothes.")] = None,
    every: Annotated[int | None, typer.Option(help="Steps between checkpoints; an epoch by default.")] = None,
    device: _Device = "cpu",
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    workers: Annotated[int, typer.Option(help="Processes that load data.")] = 0,
) -> None:
    """Train a network, print its accuracy, and write it to network.npz."""
    from dataclasses import replace

    from lib.alias_free.experiment import alias_free_preset, save_alias_free, train_alias_free
    from lib.training import is_first_process

    changes = {"mode": mode, "count": count, "epochs": epochs, "batch": batch, "seed": seed, "margin": margin}
    output_file("--out", out / "network.npz")
    settings = replace(alias_free_preset(preset), **given(changes))
    if data is not None and settings.data == "fashion":
        raise ValueError("--data must not be given for clothes, which ship with the package")
    run = train_alias_free(
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
    typer.echo("   epoch   test accuracy")
    for epoch, score in enumerate(run.scores, start=1):
        typer.echo(f"{epoch:8d}   {score:13.4f}")
    if run.diverged:
        typer.echo(f"diverged at step {len(run.losses)}")
        raise typer.Exit(1)
    save_alias_free(out / "network.npz", run)
    typer.echo(f"network: {out / 'network.npz'}")


@refusals()
def attack(
    network: Annotated[
        list[Path] | None, typer.Option(help="A network.npz of train; may be given several times. The four that ship.")
    ] = None,
    canvas: Annotated[bool, typer.Option(help="Those that ship and know four pixels of background around.")] = False,
    reach: Annotated[int, typer.Option(help="Pixels in every direction.")] = 3,
    count: Annotated[int | None, typer.Option(help="So many test pictures; 2 000 clothes, or all, by default.")] = None,
    full: Annotated[bool, typer.Option(help="Clothes from the full test set of 10 000.")] = False,
    data: _File = None,
    folder: Annotated[Path | None, typer.Option(help="For finished parts; a second run goes on from them.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    device: _Device = "cpu",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table as JSON.")] = None,
) -> None:
    """Translate test pictures until networks err: accuracies in the worst case, for five sets of shifts."""
    from lib.alias_free.attacks import standard_attacks
    from lib.alias_free.tables import format_robustness, robustness_table
    from lib.training import reproducible

    if json_file is not None:
        output_file("--json", json_file)
    runs = _networks(network, canvas=canvas)
    x, y = _pictures(runs, count, full=full, data=data)
    attacks = standard_attacks(reach, **_fill(runs))
    reproducible()
    models = {name: run.model for name, run in runs.items()}
    rows = robustness_table(models, x, y, attacks, folder=folder, device=device, jobs=jobs)
    typer.echo(f"{len(x)} test pictures, shifts of up to {reach} pixels; accuracies in percent")
    typer.echo(format_robustness(rows))
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps([row.record() for row in rows], indent=1) + "\n", encoding="utf-8")


@refusals()
def audit(
    network: Annotated[Path | None, typer.Option(help="A network.npz of train.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="One that ships: afc (by default), baseline, blurpool or aps.")
    ] = None,
    data: _File = None,
) -> None:
    """Shift what comes into each layer of a network by parts of a pixel, and measure how far what goes out is off."""
    from lib.alias_free.auditing import audit as audit_layers
    from lib.alias_free.experiment import load_alias_free, trained_alias_free

    if network is not None and mode is not None:
        raise ValueError("--mode and --network exclude each other")
    run = load_alias_free(network) if network else trained_alias_free(mode or "afc")  # type: ignore[arg-type]
    x, _ = _pictures({"": run}, 16, data=data)
    layers = audit_layers(run.model.double(), x.double())
    typer.echo(f"{'layer':32} {'kind':24} stride   error at (0.7182, -2.236)")
    for layer in layers:
        typer.echo(f"{layer.name or 'the network':32} {layer.kind:24} {layer.stride:6d}   {layer.error:.1e}")


def _networks(files: list[Path] | None, *, canvas: bool) -> dict[str, AliasFreeRun]:
    """Networks of the same data, by name."""
    from lib.alias_free.experiment import in_every_mode, load_alias_free, trained_alias_free

    if not files:
        preset = "canvas" if canvas else "laptop"
        return {mode: trained_alias_free(mode, preset) for mode in in_every_mode(preset)}
    if canvas:
        raise ValueError("--canvas and --network exclude each other")
    folders = [path.resolve().parent.name for path in files]
    # train calls all files alike: the folder tells more, unless two are called alike too
    names = folders if len(set(folders)) == len(files) else [str(path) for path in files]
    runs = {name: load_alias_free(path) for name, path in zip(names, files, strict=True)}
    if len({(run.preset.data, run.preset.margin) for run in runs.values()}) > 1:
        raise ValueError("--network must name networks for the same data and margin")
    return runs


def _pictures(
    runs: dict[str, AliasFreeRun], count: int | None, *, full: bool = False, data: Path | None = None
) -> tuple[Tensor, Tensor]:
    """Test pictures that the networks take."""
    from lib.alias_free.experiment import clothes, held_out
    from lib.alias_free.tables import first_pictures

    preset = next(iter(runs.values())).preset
    if full and preset.data != "fashion":
        raise ValueError(f"--full is for clothes; the network was trained on {preset.data}")
    if data is not None and preset.data == "fashion":
        raise ValueError("--data must not be given: the network was trained on clothes, which ship with the package")
    pictures = clothes("test", margin=preset.margin, full=True) if full else held_out(preset, data)
    return first_pictures(pictures, count)


def _fill(runs: dict[str, AliasFreeRun]) -> dict[str, float]:
    """Clothes lie on a background; other pictures have none but their mean."""
    return {} if next(iter(runs.values())).preset.data == "fashion" else {"fill": 0.0}


#: verb -> the function behind it
COMMANDS = {"attack": attack, "audit": audit, "train": train}
