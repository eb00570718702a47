"""What chapter 06 adds to the command line: `python -m lib train`, `attack` and `audit`, each `alias-free`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lib.command_line import TrainingCommand, refusals
from lib.files import atomic_path, output_file

if TYPE_CHECKING:
    from torch import Tensor

    from lib.alias_free.experiment import AliasFreeRun

__all__ = ["COMMANDS"]

_Data = Annotated[Path | None, typer.Option(help="Folder of data that do not ship with the package.")]
_Device = Annotated[str, typer.Option(help="cpu or cuda.")]


class Train(TrainingCommand):
    """Train a network, print its accuracy, and write it to network.npz."""

    target = "lib.alias_free.experiment:train_alias_free"


@refusals()
def attack(
    network: Annotated[
        list[Path] | None, typer.Option(help="A network.npz of train; may be given several times. The four that ship.")
    ] = None,
    canvas: Annotated[bool, typer.Option(help="Those that ship and know four pixels of background around.")] = False,
    reach: Annotated[int, typer.Option(help="Pixels in every direction.")] = 3,
    count: Annotated[int | None, typer.Option(help="So many test pictures; 2 000 clothes, or all, by default.")] = None,
    full: Annotated[bool, typer.Option(help="Clothes from the full test set of 10 000.")] = False,
    data_path: _Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder for finished parts; a second run goes on from them.")] = None,
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
    x, y = _pictures(runs, count, full=full, data_path=data_path)
    clothes = next(iter(runs.values())).preset.data == "fashion"
    # other pictures lie on no background: their mean comes in
    attacks = standard_attacks(reach) if clothes else standard_attacks(reach, fill=0.0)
    reproducible()
    models = {name: run.model for name, run in runs.items()}
    rows = robustness_table(models, x, y, attacks, folder=out, device=device, jobs=jobs)
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
    data_path: _Data = None,
) -> None:
    """Shift what comes into each layer of a network by parts of a pixel, and measure how far what goes out is off."""
    from lib.alias_free.auditing import audit as audit_layers
    from lib.alias_free.experiment import AliasFreeRun, in_every_mode, trained_network
    from lib.validation import one_of

    if network is not None and mode is not None:
        raise ValueError("--mode and --network exclude each other")
    chosen: str = one_of("--mode", mode or "afc", tuple(in_every_mode("laptop")))
    run = AliasFreeRun.load(network) if network else trained_network(chosen)
    x, _ = _pictures({"": run}, 16, data_path=data_path)
    layers = audit_layers(run.model.double(), x.double())
    typer.echo(f"{'layer':32} {'kind':24} stride   error at (0.7182, -2.236)")
    for layer in layers:
        typer.echo(f"{layer.name or 'the network':32} {layer.kind:24} {layer.stride:6d}   {layer.error:.1e}")


def _networks(files: list[Path] | None, *, canvas: bool) -> dict[str, AliasFreeRun]:
    """Networks of the same data, by name."""
    from lib.alias_free.experiment import SHIPPED, AliasFreeRun, trained_network

    if not files:
        return {SHIPPED[name].mode: trained_network(name) for name in SHIPPED if name.endswith("-canvas") == canvas}
    if canvas:
        raise ValueError("--canvas and --network exclude each other")
    folders = [path.resolve().parent.name for path in files]
    # train calls all files alike: the folder tells more, unless two are called alike too
    names = folders if len(set(folders)) == len(files) else [str(path) for path in files]
    runs = {name: AliasFreeRun.load(path) for name, path in zip(names, files, strict=True)}
    if len({(run.preset.data, run.preset.margin) for run in runs.values()}) > 1:
        raise ValueError("--network must name networks for the same data and margin")
    return runs


def _pictures(
    runs: dict[str, AliasFreeRun], count: int | None, *, full: bool = False, data_path: Path | None = None
) -> tuple[Tensor, Tensor]:
    """Test pictures that the networks take."""
    from lib.alias_free.experiment import held_out
    from lib.alias_free.tables import first_pictures
    from lib.datasets import clothes

    preset = next(iter(runs.values())).preset
    if full and preset.data != "fashion":
        raise ValueError(f"--full is for clothes; the network was trained on {preset.data}")
    pictures = clothes("test", margin=preset.margin, full=True) if full else held_out(preset, data_path)
    return first_pictures(pictures, count)


#: verb -> the command
COMMANDS = {"attack": attack, "audit": audit, "train": Train}
