"""Four networks that differ in their strides and activation functions alone, trained alike, up to ImageNet."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Dataset, TensorDataset

from lib.alias_free.convnext import ConvNeXt, Mode
from lib.augmentation import ImageFolder, ShiftedImages
from lib.checkpoints import claim_experiment, held_experiment, load_network, save_network
from lib.datasets import FASHION_MEAN, FASHION_SPREAD, cifar10, fashion_mnist
from lib.files import input_folder
from lib.training import accuracy, check_options, fit, is_first_process, steps_an_epoch
from lib.validation import (
    instance_of,
    integer_at_least,
    known_seed,
    number_between,
    one_of,
    positive_integer,
    positive_number,
    true_or_false,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ALIAS_FREE_PRESETS",
    "SHIPPED",
    "AliasFreePreset",
    "AliasFreeRun",
    "alias_free_preset",
    "alias_free_task",
    "clothes",
    "held_out",
    "in_every_mode",
    "load_alias_free",
    "save_alias_free",
    "train_alias_free",
    "trained_alias_free",
]


@dataclass(frozen=True)
class AliasFreePreset:
    """A network, its pictures, and how to train it.

    Attributes
    ----------
    mode, depths, dims, patch, stem_kernel, kernel, layer_scale, init_std, act_scale, stem_activation
        Of `ConvNeXt`.
    data
        `"fashion"` (ships with the package), `"cifar10"` or `"imagenet"` (from a folder).
    count
        The first so many training pictures; None for all.
    margin
        Pixels of background that are put around pictures of clothes on each side.
    epochs, batch, lr, weight_decay, rise, clip
        Of AdamW: the rate rises to `lr` in the part `rise` of all steps and falls to zero; gradients longer than
        `clip` are shortened.
    seed
        Of weights and order.
    """

    mode: Mode = "afc"
    data: Literal["fashion", "cifar10", "imagenet"] = "fashion"
    count: int | None = None
    margin: int = 0
    depths: tuple[int, ...] = (1, 1)
    dims: tuple[int, ...] = (16, 32)
    patch: int = 2
    stem_kernel: int = 4
    kernel: int = 5
    layer_scale: float = 1.0
    init_std: float | None = None
    act_scale: float = 1.0
    stem_activation: bool = False
    epochs: int = 4
    batch: int = 128
    lr: float = 4e-3
    weight_decay: float = 0.02
    rise: float = 0.2
    clip: float | None = 1.0
    seed: int = 0


#: Settings by name. `quick` takes seconds and `laptop` a minute; `canvas` is the same on a wide background. The others
#: are for GPUs; all can be had in every mode.
ALIAS_FREE_PRESETS = {
    "quick": AliasFreePreset(count=4000, epochs=3),
    "laptop": AliasFreePreset(),
    "canvas": AliasFreePreset(margin=4),
    "cifar10": AliasFreePreset(
        data="cifar10", depths=(2, 2, 2), dims=(64, 128, 256), epochs=100, batch=256, weight_decay=0.05
    ),
    "imagenet": AliasFreePreset(
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
        batch=4096,
        weight_decay=0.05,
        rise=20 / 300,
    ),
}


class AliasFreeRun(NamedTuple):
    """A trained network.

    Attributes
    ----------
    model
        In evaluation mode.
    losses
        Before every step.
    scores
        Test accuracy after every epoch.
    diverged
        Whether a loss or a gradient was not finite.
    preset
        How it was made.
    """

    model: ConvNeXt
    losses: NDArray[np.float64]
    scores: NDArray[np.float64]
    diverged: bool
    preset: AliasFreePreset = AliasFreePreset()


def alias_free_preset(preset: str | AliasFreePreset) -> AliasFreePreset:
    """A preset by its name, or a setting of one's own, after its values were looked at.

    Raises
    ------
    ValueError
        If there is none of that name, or a value is out of range.

    Examples
    --------
    >>> alias_free_preset("laptop").epochs
    4
    """
    if isinstance(preset, str):
        if preset not in ALIAS_FREE_PRESETS:
            raise ValueError(f"preset must be one of {', '.join(ALIAS_FREE_PRESETS)}; it is {preset!r}")
        preset = ALIAS_FREE_PRESETS[preset]
    instance_of("preset", preset, AliasFreePreset, "a name or an AliasFreePreset")
    one_of("mode", preset.mode, get_args(Mode))
    one_of("data", preset.data, ("fashion", "cifar10", "imagenet"))
    for name in ("epochs", "batch", *(("count",) if preset.count is not None else ())):
        positive_integer(name, getattr(preset, name))
    positive_number("lr", preset.lr)
    integer_at_least("margin", preset.margin, 0)
    known_seed("seed", preset.seed)
    if preset.clip is not None:
        positive_number("clip", preset.clip)
    if preset.margin and preset.data != "fashion":
        raise ValueError(f"margin must be 0 for the data {preset.data!r}, which have no plain background")
    number_between("weight_decay", preset.weight_decay, 0)
    if number_between("rise", preset.rise, 0, 1) in (0, 1):
        raise ValueError(f"rise must lie between 0 and 1, and be neither; it is {preset.rise}")
    return preset


def clothes(
    split: Literal["train", "test"], count: int | None = None, *, margin: int = 0, full: bool = False
) -> TensorDataset:
    """Pictures of Fashion-MNIST, of mean 0 and spread 1, with so many pixels of background around.

    Parameters
    ----------
    split, full
        As in `lib.datasets.fashion_mnist`.
    count
        The first so many; None for all.
    margin
        Pixels on each side.

    Raises
    ------
    ValueError
        If there are fewer pictures, or a number is out of range.

    Examples
    --------
    >>> clothes("test", 3, margin=4)[0][0].shape
    torch.Size([1, 36, 36])
    """
    integer_at_least("margin", margin, 0)
    true_or_false("full", full)
    images, labels = fashion_mnist(split, full=full)
    if count is not None and positive_integer("count", count) > len(images):
        raise ValueError(f"count must be at most {len(images)}; it is {count}")
    values = functional.pad(torch.tensor(images[:count]).float(), (margin,) * 4)
    values = values.div_(255).sub_(FASHION_MEAN).div_(FASHION_SPREAD)
    return TensorDataset(values[:, None], torch.from_numpy(labels[:count].astype(np.int64)))


def alias_free_task(
    preset: str | AliasFreePreset, data_path: str | Path | None = None
) -> tuple[ConvNeXt, Dataset[Any], Dataset[Any]]:
    """The network of a preset at its initial weights, its training data and its test data.

    Parameters
    ----------
    preset
        A name in `ALIAS_FREE_PRESETS`, or a setting.
    data_path
        Folder of CIFAR-10's binary version, or of ImageNet with `train` and `val`.

    Raises
    ------
    ValueError
        If a setting is out of range or data are missing.

    Examples
    --------
    >>> model, train, test = alias_free_task(replace(ALIAS_FREE_PRESETS["quick"], count=100))
    >>> len(train), len(test), model.mode
    (100, 2000, 'afc')
    """
    settings = alias_free_preset(preset)
    train, test, channels, classes = _data(settings, data_path)
    return _initial_network(settings, channels, classes), train, test


def _initial_network(preset: AliasFreePreset, channels: int, classes: int) -> ConvNeXt:
    with torch.random.fork_rng(devices=[]):  # torch's own initial weights come from its own generator
        torch.manual_seed(preset.seed)
        return ConvNeXt(
            channels,
            classes,
            preset.depths,
            preset.dims,
            preset.mode,
            patch=preset.patch,
            stem_kernel=preset.stem_kernel,
            kernel=preset.kernel,
            layer_scale=preset.layer_scale,
            init_std=preset.init_std,
            act_scale=preset.act_scale,
            stem_activation=preset.stem_activation and preset.mode == "afc",
        )


def _data(preset: AliasFreePreset, path: str | Path | None) -> tuple[Dataset[Any], Dataset[Any], int, int]:
    """Training data, test data, channels and classes."""
    if preset.data == "fashion":
        if path is not None:
            raise ValueError("data_path must be None for clothes, which ship with the package")
        train = clothes("train", preset.count, margin=preset.margin)
        return train, clothes("test", margin=preset.margin), 1, 10
    if path is None:
        raise ValueError(f"data_path must name the folder of {preset.data}")
    input_folder("data_path", path)
    if preset.data == "cifar10":
        shifted = ShiftedImages(*cifar10(path, "train", count=preset.count), seed=preset.seed)
        images, labels = cifar10(path, "test")
        values = torch.from_numpy((images - shifted.mean) / shifted.spread).float()
        return shifted, TensorDataset(values, torch.from_numpy(labels.astype(np.int64))), 3, 10
    if preset.count is not None:
        raise ValueError("count must be None for imagenet: take a smaller folder")
    pictures = ImageFolder(Path(path) / "train", train=True, seed=preset.seed)
    held_out = ImageFolder(Path(path) / "val", train=False)
    if held_out.classes != pictures.classes:
        raise ValueError(f"{path} must hold the same classes in train and val")
    return pictures, held_out, 3, len(pictures.classes)


def held_out(preset: str | AliasFreePreset, data_path: str | Path | None = None) -> Dataset[Any]:
    """The test data of a preset: pairs of a picture (C, H, W) and its class.

    Parameters and errors are those of `alias_free_task`.

    Examples
    --------
    >>> len(held_out("canvas")), held_out("canvas")[0][0].shape
    (2000, torch.Size([1, 36, 36]))
    """
    return _data(alias_free_preset(preset), data_path)[1]


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
    """Train a network.

    Parameters
    ----------
    preset
        A name in `ALIAS_FREE_PRESETS`, or a setting of your own.
    folder
        Where checkpoints go; a second run goes on from them. None keeps nothing.
    data_path
        As in `alias_free_task`.
    device, precision, every, workers
        As in `lib.training.fit`.

    Raises
    ------
    ValueError
        If a setting is out of range, data are missing, or the folder holds another experiment.

    Examples
    --------
    >>> small = replace(ALIAS_FREE_PRESETS["quick"], count=512, batch=64, epochs=1, dims=(4, 8))
    >>> run = train_alias_free(small)
    >>> len(run.losses), len(run.scores)
    (8, 1)
    """
    settings = alias_free_preset(preset)
    check_options(device=device, precision=precision, every=every, workers=workers, folder=folder)
    if folder is not None:
        held_experiment(folder, asdict(settings))
    model, train, test = alias_free_task(settings, data_path)
    per_epoch = steps_an_epoch(train, settings.batch, device)
    if folder is not None and is_first_process(device):
        claim_experiment(folder, asdict(settings))
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    total = settings.epochs * per_epoch
    # where the rise is over with the first step, torch would divide by zero
    rise = settings.rise * (1 + 1e-9) if settings.rise * total == 1 else settings.rise

    def score(net: nn.Module) -> float:
        return accuracy(net, test, device=next(net.parameters()).device, workers=workers)

    run = fit(
        model,
        train,
        functional.cross_entropy,
        optimizer,
        epochs=settings.epochs,
        batch=settings.batch,
        seed=settings.seed,
        schedule=OneCycleLR(optimizer, settings.lr, total_steps=total, pct_start=rise),
        evaluate=score,
        folder=folder,
        every=every,
        clip=settings.clip,
        device=device,
        precision=precision,
        workers=workers,
        description=f"training ({settings.mode})",
    )
    return AliasFreeRun(model.eval(), run.losses, run.scores, run.diverged, settings)


def in_every_mode(preset: str | AliasFreePreset) -> dict[Mode, AliasFreePreset]:
    """The same setting for the four versions of the network.

    Examples
    --------
    >>> list(in_every_mode("quick"))
    ['baseline', 'blurpool', 'aps', 'afc']
    """
    settings = alias_free_preset(preset)
    return {mode: replace(settings, mode=mode) for mode in get_args(Mode)}


#: The presets of which trained networks ship with the package, in every mode.
SHIPPED = ("laptop", "canvas")


def save_alias_free(path: str | Path, run: AliasFreeRun) -> None:
    """Write a trained network, how it was made and its training; `load_alias_free` reads it."""
    head = run.model.head
    # what a folder of pictures decides is not in the preset
    settings = {**asdict(run.preset), "channels": run.model.in_channels, "classes": head.out_features}
    save_network(path, run.model, settings, losses=run.losses, scores=run.scores)


def load_alias_free(path: str | Path) -> AliasFreeRun:
    """Read a network that `save_alias_free` wrote, as `python -m lib train alias-free` does.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or no such network.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_alias_free(Path(folder) / "network.npz", trained_alias_free("aps"))
    ...     load_alias_free(Path(folder) / "network.npz").preset.mode
    'aps'
    """
    model, settings, series = load_network(path, _remembered)
    return AliasFreeRun(model, series["losses"], series["scores"], diverged=False, preset=_remembered_preset(settings))


def _remembered_preset(settings: dict[str, Any]) -> AliasFreePreset:
    held = {name: value for name, value in settings.items() if name not in ("channels", "classes")}
    # a file knows lists only
    return AliasFreePreset(**{**held, "depths": tuple(held["depths"]), "dims": tuple(held["dims"])})


def _remembered(settings: dict[str, Any]) -> ConvNeXt:
    return _initial_network(_remembered_preset(settings), settings["channels"], settings["classes"])


def trained_alias_free(mode: Mode, preset: str = "laptop") -> AliasFreeRun:
    """A network that ships with the package, trained on 10 000 pictures of Fashion-MNIST.

    Parameters
    ----------
    mode
        Of `ConvNeXt`.
    preset
        `"laptop"`: on the pictures as they are, 28 x 28. `"canvas"`: with four pixels of background around, 36 x 36.

    Raises
    ------
    ValueError
        If there is none of that mode or preset.

    Examples
    --------
    >>> trained_alias_free("afc").model.mode
    'afc'
    """
    one_of("mode", mode, get_args(Mode))
    one_of("preset", preset, SHIPPED)
    with as_file(files("lib") / "data" / f"alias_free_{preset}_{mode}.npz") as place:
        return load_alias_free(place)
