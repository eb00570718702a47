"""Training in 4 bits, from a laptop's seconds to ImageNet: presets, a run that goes on where it was interrupted.

The networks, their data and the schedule are settings; what is quantised and how is `LUQConfig`. A run may end with
a few epochs of fine-tuning (FNT, Section 5.2 of Chmiel et al., arXiv 2112.10769): high precision, INT4 weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset

from lib.datasets import IMAGE_SHAPES
from lib.experiment import Natural, Positive, named, prepare
from lib.four_bit.fused import active_backend
from lib.four_bit.layers import LUQConfig, quantize_model, quantizer_states, reconfigure
from lib.four_bit.schedule import fnt_lr
from lib.image_training import ImagePreset, ImageRun
from lib.models import image_network
from lib.training import TrainingRun, accuracy, fit, one_cycle
from lib.validation import known_device, torch_generator

__all__ = ["PRESETS", "FourBitPreset", "FourBitRun", "four_bit_task", "train_four_bit"]


@dataclass(frozen=True)
class FourBitPreset(ImagePreset):
    """A network, its data, and how to train it in 4 bits.

    Attributes:
        config: What is quantised, and how.
        fine_tuning: Epochs of fine-tuning (FNT) at the end.
        fine_tuning_lr: Peak of its triangle of learning rates.
    """

    config: LUQConfig = field(default_factory=LUQConfig)
    fine_tuning: Natural = 0
    fine_tuning_lr: Positive = 0.005

    def record(self) -> dict[str, Any]:
        """All settings, as a file can hold them: a group of processes is of one run alone."""
        group = "world" if self.config.process_group == "world" else None
        return asdict(replace(self, config=replace(self.config, process_group=group)))


_PAPER = FourBitPreset(
    "imagenet",
    "resnet50",
    config=LUQConfig(samples=2),
    epochs=90,
    batch_size=256,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    fine_tuning=3,
    fine_tuning_lr=1e-3,
)

#: Settings by name. `quick` takes seconds and `laptop` half a minute; the others are for GPUs.
PRESETS = {
    "quick": FourBitPreset(count=5000),
    "laptop": FourBitPreset(count=10_000),
    "laptop-convnet": FourBitPreset(architecture="convnet", count=10_000),
    "paper": _PAPER,
    "paper-resnet18": replace(_PAPER, architecture="resnet18"),
    "paper-mobilenet-v2": replace(_PAPER, architecture="mobilenet_v2"),
    "paper-resnext50": replace(_PAPER, architecture="resnext50_32x4d"),
    "paper-vit-b": replace(_PAPER, architecture="vit_b_16"),
    "cifar100-resnet18": FourBitPreset(
        "cifar100", "resnet18-small", epochs=200, lr=0.1, momentum=0.9, weight_decay=5e-4, fine_tuning_lr=0.01
    ),
}


@dataclass(frozen=True)
class FourBitRun(ImageRun):
    """A network that was trained in 4 bits.

    Attributes:
        losses, scores: Of the 4-bit phase and, after it, of fine-tuning.
        before_fine_tuning: Test accuracy at the end of the 4-bit phase.
        clipped: Fraction of all gradients that lay above a maximum guessed from earlier steps; 0 without such guesses.
    """

    preset: FourBitPreset
    before_fine_tuning: float = float("nan")
    clipped: float = 0.0

    preset_class = FourBitPreset

    @staticmethod
    def network(preset: Any, facts: dict[str, Any]) -> nn.Module:
        """The network that a training ends with, at any weights."""
        config = _fine_tuned(preset.config) if preset.fine_tuning else preset.config
        return _network(replace(preset, config=config), **facts)

    def lines(self) -> list[str]:
        """What quantised the gradients, and the accuracies."""
        head, *rows = super().lines() or [""]
        tuned = [f"{row}   (fine-tuning)" for row in rows[self.preset.epochs :]]
        backend = active_backend(next(self.model.parameters()).device, self.preset.config.backend)
        return [f"gradients on the path: {backend}", head, *rows[: self.preset.epochs], *tuned]


def four_bit_task(
    preset: str | FourBitPreset, data_path: str | Path | None = None, *, generator: torch.Generator | None = None
) -> tuple[nn.Module, Dataset[Any], Dataset[Any]]:
    """The quantised network of a preset at its initial weights, its training data and its test data.

    Args:
        data_path: As in `lib.datasets.image_task`.
        generator: Source of the gradients' rounding.

    Examples:
        >>> model, train, test = four_bit_task("quick")
        >>> len(train), len(test), type(model[4]).__name__
        (5000, 2000, 'LUQLinear')
    """
    settings = named(preset, PRESETS)
    torch_generator("generator", generator)
    train, test, classes = settings.images(data_path)
    return _network(settings, classes, generator), train, test


def _network(preset: FourBitPreset, classes: int, noise: torch.Generator | None = None) -> nn.Module:
    shape = IMAGE_SHAPES[preset.data]
    model, example = image_network(preset.architecture, shape, classes, seed=preset.seed)
    return quantize_model(model, preset.config, generator=noise, inplace=True, example=example)


def _fine_tuned(config: LUQConfig) -> LUQConfig:
    return replace(config, forward="weights", backward="none", hindsight=None)


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

    Args:
        folder: Where checkpoints go; a second run goes on from them. None keeps nothing.
        data_path, device, precision, every, workers: As in `four_bit_task` and `lib.training.fit`.

    Examples:
        >>> run = train_four_bit(replace(PRESETS["quick"], count=2048, batch_size=64, epochs=1))
        >>> len(run.losses), bool(run.scores[-1] > 0.5)
        (32, True)
    """
    settings = named(preset, PRESETS)
    active_backend(torch.device(known_device(device)), settings.config.backend)  # refuses what is not there
    options: dict[str, Any] = {"device": device, "precision": precision, "every": every, "workers": workers}
    # on the CPU for a GPU too: a kernel takes a seed from it, and drawing that on a GPU would wait for it
    noise = torch.Generator().manual_seed(settings.seed)
    model, train, test, per_epoch = prepare(
        settings,
        folder,
        lambda: four_bit_task(settings, data_path, generator=noise),
        batch_size=settings.batch_size,
        **options,
    )

    def phase(name: str, schedule: Any, lr: float, epochs: int, first_epoch: int = 0) -> TrainingRun:
        momentum = 0.9 if settings.momentum is None else settings.momentum
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=settings.weight_decay)
        return fit(
            model,
            train,
            functional.cross_entropy,
            optimizer,
            epochs=epochs,
            batch_size=settings.batch_size,
            seed=settings.seed + bool(first_epoch),
            schedule=schedule(optimizer, settings, epochs * per_epoch),
            noise=(noise,),
            extra=quantizer_states(model),
            evaluate=partial(accuracy, data=test, workers=workers),
            folder=None if folder is None else Path(folder) / name,
            first_epoch=first_epoch,
            description=name,
            **options,
        )

    runs = [phase("four-bit", _cycle, settings.lr, settings.epochs)]
    clipped = max((each.clipped_fraction for each in quantizer_states(model)), default=0.0)
    if settings.fine_tuning and not runs[0].diverged:
        reconfigure(model, _fine_tuned(settings.config))
        runs.append(phase("fine-tuning", _triangle, settings.fine_tuning_lr, settings.fine_tuning, settings.epochs))
    losses, scores = (np.concatenate([getattr(run, each) for run in runs]) for each in ("losses", "scores"))
    before = float(runs[0].scores[-1]) if len(runs[0].scores) else float("nan")
    return FourBitRun(model.eval(), losses, scores, runs[-1].diverged, settings, before, clipped)


def _cycle(optimizer: torch.optim.Optimizer, preset: FourBitPreset, steps: int) -> LRScheduler:
    return one_cycle(optimizer, preset.lr, steps, rise=0.1, cycle_momentum=preset.momentum is None)


def _triangle(optimizer: torch.optim.Optimizer, preset: FourBitPreset, steps: int) -> LRScheduler:
    """From where the cycle ends."""
    final, peak = preset.lr / 25 / 1e4, preset.fine_tuning_lr
    return LambdaLR(optimizer, lambda t: fnt_lr(min(t, steps), steps, final, peak) / peak)
