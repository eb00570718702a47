"""Training in 4 bits, from a laptop's seconds to ImageNet: presets, a run that goes on where it was interrupted.

The networks, their data and the schedule are settings; what is quantised and how is `LUQConfig`. A run may end with
a few epochs of fine-tuning (FNT, Section 5.2 of Chmiel et al., arXiv 2112.10769): high precision, INT4 weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.utils.data import Dataset, TensorDataset

from lib.augmentation import ImageFolder, ShiftedImages
from lib.checkpoints import held_experiment, set_experiment
from lib.datasets import FASHION_MEAN, FASHION_SPREAD, cifar100, fashion_mnist
from lib.four_bit.layers import LUQConfig, quantize_model, quantizer_states, reconfigure
from lib.four_bit.schedule import fnt_lr
from lib.models import fully_connected, residual_network, small_convnet
from lib.training import TrainingRun, accuracy, fit, is_first_process, size_of
from lib.validation import known_device, positive_integer, positive_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FOUR_BIT_PRESETS", "FourBitPreset", "FourBitRun", "four_bit_preset", "four_bit_task", "train_four_bit"]

_OWN_NETWORKS = ("mlp", "convnet", "resnet18-small")


@dataclass(frozen=True)
class FourBitPreset:
    """A network, its data, and how to train it.

    Attributes
    ----------
    data
        `"fashion"` (ships with the package), `"cifar100"` or `"imagenet"` (from a folder).
    network
        `"mlp"` (six layers of 128 between a first and a last one, with batch normalisation), `"convnet"` (three
        convolutions), `"resnet18-small"` (for small images), or a name in torchvision.models.
    config
        What is quantised, and how.
    count
        The first so many training images; None for all.
    full
        Fashion-MNIST: test on all 10 000 images of the whole set, where it is installed, not on the 2 000 that ship.
    epochs, batch
        As in `lib.training.fit`.
    lr, momentum, weight_decay
        Of stochastic gradient descent; `lr` is the peak of one rise over a tenth of the steps and a fall to zero.
        Without a momentum it runs against that, from 0.95 down to 0.85 and up again (torch's OneCycleLR).
    fine_tuning, fine_tuning_lr
        Epochs of FNT at the end, and the peak of its triangle.
    seed
        Of weights, the order of images, and rounding.
    """

    data: Literal["fashion", "cifar100", "imagenet"] = "fashion"
    network: str = "mlp"
    config: LUQConfig = field(default_factory=LUQConfig)
    count: int | None = None
    full: bool = False
    epochs: int = 3
    batch: int = 128
    lr: float = 0.05
    momentum: float | None = None
    weight_decay: float = 0.0
    fine_tuning: int = 0
    fine_tuning_lr: float = 0.005
    seed: int = 0


_TWO = LUQConfig(samples=2)
_IMAGENET = FourBitPreset(
    "imagenet",
    "resnet50",
    _TWO,
    epochs=90,
    batch=256,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    fine_tuning=3,
    fine_tuning_lr=1e-3,
)

#: Settings by name. `quick` takes seconds and `laptop` half a minute; the others are for GPUs.
FOUR_BIT_PRESETS = {
    "quick": FourBitPreset(count=5000),
    "laptop": FourBitPreset(count=10_000),
    "laptop-convnet": FourBitPreset(network="convnet", count=10_000),
    "cifar100-resnet18": FourBitPreset(
        "cifar100",
        "resnet18-small",
        LUQConfig(),
        epochs=200,
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        fine_tuning_lr=0.01,
    ),
    "imagenet-resnet18": replace(_IMAGENET, network="resnet18"),
    "imagenet-resnet50": _IMAGENET,
    "imagenet-mobilenet-v2": replace(_IMAGENET, network="mobilenet_v2"),
    "imagenet-resnext50": replace(_IMAGENET, network="resnext50_32x4d"),
    "imagenet-vit-b": replace(_IMAGENET, network="vit_b_16"),
}


@dataclass(frozen=True)
class FourBitRun:
    """What came of a training.

    Attributes
    ----------
    losses
        Before every step of the 4-bit phase and, after it, of fine-tuning.
    scores
        Test accuracy after every epoch of both.
    before_fine_tuning
        Test accuracy at the end of the 4-bit phase.
    clipped
        Part of all gradients that lay above a maximum guessed from earlier steps; 0 without such guesses.
    diverged
        Whether a loss was not finite.
    """

    losses: NDArray[np.float64]
    scores: NDArray[np.float64]
    before_fine_tuning: float
    clipped: float
    diverged: bool


def four_bit_task(
    preset: FourBitPreset, data_path: str | Path | None = None, *, generator: torch.Generator | None = None
) -> tuple[nn.Module, Dataset[Any], Dataset[Any]]:
    """The quantised network of a preset at its initial weights, its training data and its test data.

    Parameters
    ----------
    preset
        The setting.
    data_path
        Folder of the data, where they do not ship with the package: CIFAR-100's binary version, or ImageNet's
        folder with `train` and `val`.
    generator
        Source of the gradients' rounding.

    Examples
    --------
    >>> model, train, test = four_bit_task(FOUR_BIT_PRESETS["quick"])
    >>> len(train), len(test), type(model[4]).__name__
    (5000, 2000, 'LUQLinear')
    """
    train, test, classes = _data(preset, data_path)
    weights = torch.Generator().manual_seed(preset.seed)
    model: nn.Module
    if preset.network == "mlp":
        model = fully_connected((784, *[128] * 7, classes), activation="relu", normalize=True, generator=weights)
    elif preset.network == "convnet":
        model = small_convnet((1, 16, 32, 64), classes, activation="relu", normalize=True, generator=weights)
    elif preset.network == "resnet18-small":
        model = residual_network((2, 2, 2, 2), classes, generator=weights)
    else:
        model = _from_torchvision(preset.network, classes, preset.seed)
    return quantize_model(model, preset.config, generator=generator, inplace=True), train, test


def _from_torchvision(name: str, classes: int, seed: int) -> nn.Module:
    own = ", ".join(_OWN_NETWORKS)
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # a build for another torch breaks at its import
        raise ValueError(f"network must be one of {own}, or torchvision be at hand; it is {name!r}: {error}") from error
    if name not in models.list_models():
        raise ValueError(f"network must be one of {own} or of torchvision.models; it is {name!r}")
    with torch.random.fork_rng(devices=[]):  # it draws weights from torch's own generator
        torch.manual_seed(seed)
        model: nn.Module = models.get_model(name, num_classes=classes)
    return model


def _data(preset: FourBitPreset, path: str | Path | None) -> tuple[Dataset[Any], Dataset[Any], int]:
    """Training data, test data and the number of classes."""
    if preset.data == "fashion":
        train = _clothes("train", preset.count, full=preset.full, path=path)
        return train, _clothes("test", None, full=preset.full, path=path), 10
    if path is None:
        raise ValueError(f"data_path must name the folder of {preset.data}")
    if preset.data == "cifar100":
        shifted = ShiftedImages(*cifar100(path, "train", count=preset.count), seed=preset.seed)
        images, labels = cifar100(path, "test")
        values = torch.from_numpy((images - shifted.mean) / shifted.spread)
        return shifted, TensorDataset(values.float(), torch.from_numpy(labels.astype(np.int64))), 100
    pictures = ImageFolder(Path(path) / "train", train=True, seed=preset.seed)
    held_out = ImageFolder(Path(path) / "val", train=False)
    if held_out.classes != pictures.classes:
        raise ValueError(f"{path} must hold the same classes in train and val")
    if preset.count is not None:
        if preset.count > len(pictures):
            raise ValueError(f"count must be at most {len(pictures)}; it is {preset.count}")
        chosen = np.random.default_rng(preset.seed).permutation(len(pictures))[: preset.count]
        pictures.items = [pictures.items[index] for index in sorted(chosen)]
    return pictures, held_out, len(pictures.classes)


def _clothes(
    split: Literal["train", "test"], count: int | None, *, full: bool, path: str | Path | None
) -> TensorDataset:
    images, labels = fashion_mnist(split, full=full, path=path)
    if count is not None and count > len(images):
        raise ValueError(f"count must be at most {len(images)}; it is {count}")
    values = torch.tensor(images[:count]).float().div_(255).sub_(FASHION_MEAN).div_(FASHION_SPREAD)
    return TensorDataset(values[:, None], torch.from_numpy(labels[:count].astype(np.int64)))


def four_bit_preset(preset: str | FourBitPreset) -> FourBitPreset:
    """A preset by its name, or a setting of one's own, after its values were looked at.

    Examples
    --------
    >>> four_bit_preset("laptop").count
    10000
    """
    if isinstance(preset, str):
        if preset not in FOUR_BIT_PRESETS:
            raise ValueError(f"preset must be one of {', '.join(FOUR_BIT_PRESETS)}; it is {preset!r}")
        preset = FOUR_BIT_PRESETS[preset]
    if preset.data not in ("fashion", "cifar100", "imagenet"):
        raise ValueError(f"data must be fashion, cifar100 or imagenet; it is {preset.data!r}")
    if not isinstance(preset.config, LUQConfig):
        raise TypeError(f"config must be a LUQConfig; it is {preset.config!r}")
    for name in ("epochs", "batch"):
        positive_integer(name, getattr(preset, name))
    if preset.count is not None:
        positive_integer("count", preset.count)
    for name in ("lr", "fine_tuning_lr"):
        positive_number(name, getattr(preset, name))
    for name in ("fine_tuning", "seed"):
        value = getattr(preset, name)
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be an integer of at least 0; it is {value!r}")
    if not (preset.momentum is None or 0 <= preset.momentum < 1) or not 0 <= preset.weight_decay < np.inf:
        raise ValueError(
            f"momentum must be at least 0 and below 1, and weight_decay at least 0; "
            f"they are {preset.momentum}, {preset.weight_decay}"
        )
    return preset


def train_four_bit(
    preset: str | FourBitPreset,
    folder: str | Path | None = None,
    *,
    data_path: str | Path | None = None,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    every: int | None = None,
    workers: int = 0,
) -> FourBitRun:
    """Train a network in 4 bits, and fine-tune it where the preset says so.

    Parameters
    ----------
    preset
        A name in `FOUR_BIT_PRESETS`, or a setting of your own.
    folder
        Where checkpoints go; a second run goes on from them. None keeps nothing.
    data_path
        As for `four_bit_task`.
    device, precision, every, workers
        As for `lib.training.fit`.

    Raises
    ------
    ValueError
        If a setting is out of range, data are missing, or the folder holds another experiment.

    Examples
    --------
    >>> run = train_four_bit(replace(FOUR_BIT_PRESETS["quick"], count=2048, batch=64, epochs=1))
    >>> len(run.losses), bool(run.scores[-1] > 0.5)
    (32, True)
    """
    settings = four_bit_preset(preset)
    places: list[Path | None] = [None, None]
    known_device(device)
    # a group of processes is of this run alone
    same = asdict(replace(settings, config=replace(settings.config, process_group=None)))
    same["config"]["process_group"] = "world" if settings.config.process_group == "world" else None
    if folder is not None:
        held_experiment(folder, same)
        places = [Path(folder) / "four-bit", Path(folder) / "fine-tuning"]
    # on the CPU for a GPU too: a kernel takes a seed from it, and drawing that on a GPU would wait for it
    noise = torch.Generator().manual_seed(settings.seed)
    model, train, test = four_bit_task(settings, data_path, generator=noise)
    per_epoch = size_of(train) // settings.batch
    if per_epoch == 0:
        raise ValueError(f"batch must be at most {size_of(train)}; it is {settings.batch}")
    if folder is not None and is_first_process(device) and held_experiment(folder) is None:
        set_experiment(folder, same)

    def phase(place: Path | None, epochs: int, schedule: Any, lr: float, first_epoch: int = 0) -> TrainingRun:
        momentum = 0.9 if settings.momentum is None else settings.momentum
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=settings.weight_decay)
        return fit(
            model,
            train,
            functional.cross_entropy,
            optimizer,
            epochs=epochs,
            batch=settings.batch,
            seed=settings.seed + bool(first_epoch),
            schedule=schedule(optimizer, epochs * per_epoch),
            noise=(noise,),
            extra=quantizer_states(model),
            evaluate=lambda net: accuracy(net, test, device=next(net.parameters()).device, workers=workers),
            folder=place,
            every=every,
            first_epoch=first_epoch,
            device=device,
            precision=precision,
            workers=workers,
            description="4-bit training" if schedule is _one_cycle else "fine-tuning",
        )

    def _one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> OneCycleLR:
        # with a tenth of ten steps torch divides by zero
        rise = 0.1 if steps != 10 else 0.11
        return OneCycleLR(
            optimizer, settings.lr, total_steps=steps, pct_start=rise, cycle_momentum=settings.momentum is None
        )

    run = phase(places[0], settings.epochs, _one_cycle, settings.lr)
    clipped = [each.clipped_fraction for each in quantizer_states(model)]
    losses, scores, diverged = run.losses, run.scores, run.diverged
    if settings.fine_tuning and not diverged:
        reconfigure(model, replace(settings.config, forward="weights", backward="none", hindsight=None))
        final = settings.lr / 25 / 1e4  # where the cycle ends

        def triangle(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
            peak = settings.fine_tuning_lr
            return LambdaLR(optimizer, lambda t: fnt_lr(min(t, steps), steps, final, peak) / peak)

        more = phase(places[1], settings.fine_tuning, triangle, settings.fine_tuning_lr, settings.epochs)
        losses, scores = np.concatenate([losses, more.losses]), np.concatenate([scores, more.scores])
        diverged = more.diverged
    before = float(run.scores[-1]) if len(run.scores) else float("nan")
    return FourBitRun(losses, scores, before, max(clipped, default=0.0), diverged)
