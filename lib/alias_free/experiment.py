"""Four networks that differ in their strides and activation functions alone, trained alike, up to ImageNet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.nn import functional
from torch.utils.data import Dataset

from lib.alias_free.convnext import ConvNeXt, Mode
from lib.datasets import ImageSet, image_task
from lib.experiment import Count, Natural, NonNegative, OpenFraction, Positive, Preset, Run, Seed, named, prepare
from lib.training import accuracy, fit, one_cycle
from lib.validation import one_of

__all__ = [
    "PRESETS",
    "SHIPPED",
    "AliasFreePreset",
    "AliasFreeRun",
    "alias_free_task",
    "held_out",
    "in_every_mode",
    "train_alias_free",
    "trained_network",
]


@dataclass(frozen=True)
class AliasFreePreset(Preset):
    """A network, its pictures, and how to train it.

    Attributes:
        mode: Version of the network: `"baseline"`, `"blurpool"`, `"aps"` or `"afc"`.
        data: `"fashion"` (ships with the package), `"cifar10"`, `"cifar100"` or `"imagenet"` (from a folder).
        count: Number of training pictures; None for all.
        margin: Pixels of background around pictures of clothes, on each side.
        depths, dims: Blocks and channels of each stage.
        patch: Stride of the stem.
        stem_kernel, kernel: Sides of the convolutions of the stem, and of the blocks.
        layer_scale: Weight of a block beside what goes around it, at the start.
        init_std: Spread of the initial weights; None for torch's own.
        act_scale: Scale of the polynomial activation functions, as in `ConvNeXt`.
        stem_activation: Whether the alias-free stem has an activation function.
        epochs: Passes over the data.
        batch_size: Pictures a step, over all processes.
        lr: Peak of the learning rate of AdamW, which then falls to zero.
        weight_decay: Of AdamW.
        rise: Fraction of all steps in which the rate rises.
        clip: Longest gradient, to which longer ones are shortened; None for any.
        seed: Of weights and order.
    """

    mode: Mode = "afc"
    data: ImageSet = "fashion"
    count: Count | None = None
    margin: Natural = 0
    depths: tuple[Count, ...] = (1, 1)
    dims: tuple[Count, ...] = (16, 32)
    patch: Count = 2
    stem_kernel: Count = 4
    kernel: Count = 5
    layer_scale: float = 1.0
    init_std: Positive | None = None
    act_scale: float = 1.0
    stem_activation: bool = False
    epochs: Count = 4
    batch_size: Count = 128
    lr: Positive = 4e-3
    weight_decay: NonNegative = 0.02
    rise: OpenFraction = 0.2
    clip: Positive | None = 1.0
    seed: Seed = 0


#: Settings by name. `quick` takes seconds and `laptop` a minute; `canvas` is the same on a wide background. The others
#: are for GPUs; all can be had in every mode.
PRESETS = {
    "quick": AliasFreePreset(count=4000, epochs=3),
    "laptop": AliasFreePreset(),
    "canvas": AliasFreePreset(margin=4),
    "paper": AliasFreePreset(
        data="imagenet",
        depths=(3, 3, 9, 3),
        dims=(96, 192, 384, 768),
        patch=4,
        kernel=7,
        layer_scale=1e-6,
        init_std=0.02,
        act_scale=7.0,
        stem_activation=True,
        epochs=300,
        batch_size=4096,
        weight_decay=0.05,
        rise=20 / 300,
    ),
    "cifar10": AliasFreePreset(
        data="cifar10", depths=(2, 2, 2), dims=(64, 128, 256), epochs=100, batch_size=256, weight_decay=0.05
    ),
}


@dataclass(frozen=True)
class AliasFreeRun(Run):
    """A trained network; `losses`, `scores` (test accuracy) and the rest as in `lib.experiment.Run`."""

    model: ConvNeXt
    preset: AliasFreePreset

    preset_class = AliasFreePreset

    def facts(self) -> dict[str, int]:
        """Numbers of channels and classes, which a folder of pictures decides."""
        return {"channels": self.model.in_channels, "classes": self.model.head.out_features}

    @staticmethod
    def network(preset: Any, facts: dict[str, Any]) -> ConvNeXt:
        """The network of a preset, at its initial weights."""
        with torch.random.fork_rng(devices=[]):  # torch's own initial weights come from its own generator
            torch.manual_seed(preset.seed)
            names = ("depths", "dims", "mode", "patch", "stem_kernel", "kernel", "layer_scale", "init_std", "act_scale")
            return ConvNeXt(
                facts["channels"],
                facts["classes"],
                **{name: getattr(preset, name) for name in names},
                stem_activation=preset.stem_activation and preset.mode == "afc",
            )


def alias_free_task(
    preset: str | AliasFreePreset, data_path: str | Path | None = None
) -> tuple[ConvNeXt, Dataset[Any], Dataset[Any]]:
    """The network of a preset at its initial weights, its training data and its test data.

    Examples:
        >>> model, train, test = alias_free_task(replace(PRESETS["quick"], count=100))
        >>> len(train), len(test), model.mode
        (100, 2000, 'afc')
    """
    settings = named(preset, PRESETS)
    train, test, channels, classes = _data(settings, data_path)
    return AliasFreeRun.network(settings, {"channels": channels, "classes": classes}), train, test


def _data(preset: AliasFreePreset, path: str | Path | None) -> tuple[Dataset[Any], Dataset[Any], int, int]:
    return image_task(preset.data, count=preset.count, margin=preset.margin, path=path, seed=preset.seed)


def held_out(preset: str | AliasFreePreset, data_path: str | Path | None = None) -> Dataset[Any]:
    """The test data of a preset: pairs of a picture (C, H, W) and its class.

    Examples:
        >>> len(held_out("canvas")), held_out("canvas")[0][0].shape
        (2000, torch.Size([1, 36, 36]))
    """
    return _data(named(preset, PRESETS), data_path)[1]


def train_alias_free(
    preset: str | AliasFreePreset,
    folder: str | Path | None = None,
    *,
    data_path: str | Path | None = None,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    every: int | None = None,
    workers: int = 0,
) -> AliasFreeRun:
    """Train the network of a preset: a name in `PRESETS`, or settings of your own.

    Args:
        folder: Where checkpoints go; a second run goes on from them. None keeps nothing.

    Examples:
        >>> small = replace(PRESETS["quick"], count=512, batch_size=64, epochs=1, dims=(4, 8))
        >>> run = train_alias_free(small)
        >>> len(run.losses), len(run.scores)
        (8, 1)
    """
    settings = named(preset, PRESETS)
    options: dict[str, Any] = {"device": device, "precision": precision, "every": every, "workers": workers}
    model, train, test, per_epoch = prepare(
        settings, folder, lambda: alias_free_task(settings, data_path), batch_size=settings.batch_size, **options
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    run = fit(
        model,
        train,
        functional.cross_entropy,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        schedule=one_cycle(optimizer, settings.lr, settings.epochs * per_epoch, rise=settings.rise),
        evaluate=partial(accuracy, data=test, workers=workers),
        folder=folder,
        clip=settings.clip,
        description=f"training ({settings.mode})",
        **options,
    )
    return AliasFreeRun(model.eval(), run.losses, run.scores, run.diverged, settings)


def in_every_mode(preset: str | AliasFreePreset) -> dict[Mode, AliasFreePreset]:
    """The same setting for the four versions of the network.

    Examples:
        >>> list(in_every_mode("quick"))
        ['baseline', 'blurpool', 'aps', 'afc']
    """
    settings = named(preset, PRESETS)
    return {mode: replace(settings, mode=mode) for mode in get_args(Mode)}


#: The networks that ship with the package, and their settings.
SHIPPED: dict[str, AliasFreePreset] = {
    f"{mode}{suffix}": preset
    for name, suffix in (("laptop", ""), ("canvas", "-canvas"))
    for mode, preset in in_every_mode(name).items()
}


def trained_network(name: str) -> AliasFreeRun:
    """A network that ships with the package, trained on 10 000 pictures of Fashion-MNIST.

    Args:
        name: A mode of `ConvNeXt`, on the pictures as they are, 28 x 28; `"afc-canvas"` and its like with four pixels
            of background around, 36 x 36.

    Examples:
        >>> trained_network("afc").model.mode
        'afc'
    """
    one_of("name", name, SHIPPED)
    with as_file(files("lib") / "data" / f"alias_free_{name}.npz") as place:
        return AliasFreeRun.load(place)
