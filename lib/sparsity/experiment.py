"""Training with pruned gradients, from a laptop's seconds to ImageNet: presets, a run that goes on where it stopped."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from lib.datasets import IMAGE_SHAPES
from lib.experiment import BelowOne, Count, named, prepare
from lib.image_training import ImagePreset, ImageRun
from lib.models import image_network
from lib.sparsity.layers import NMConfig, sparsify_model
from lib.sparsity.wrong_point import noisy_labels
from lib.training import accuracy, fit, one_cycle
from lib.validation import torch_generator

__all__ = ["PRESETS", "SparsityPreset", "SparsityRun", "sparsity_task", "train_sparsity"]


@dataclass(frozen=True)
class SparsityPreset(ImagePreset):
    """A network, its data, and how to train it with pruned gradients.

    Attributes:
        config: What is pruned, and how.
        all_layers: Whether the first and the last layer are pruned as well.
        depth: Layers of `"mlp"` between a first and a last one.
        label_noise: Fashion-MNIST: the chance with which a training image gets a class at random in place of its own.
    """

    config: NMConfig = field(default_factory=NMConfig)
    all_layers: bool = False
    depth: Count = 6
    label_noise: BelowOne = 0.0

    def check(self) -> None:
        """Refuse random labels where labels are not in memory."""
        if self.label_noise and self.data != "fashion":
            raise ValueError(f"label_noise must be 0 for the data {self.data!r}; it is {self.label_noise}")


_PAPER = SparsityPreset(
    "imagenet",
    "resnet50",
    config=NMConfig(n=1, m=2),
    epochs=90,
    batch_size=256,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
)

#: Settings by name. `quick` takes seconds and `laptop` half a minute; the others are for GPUs. The paper's networks and
#: data; its hyper-parameters where they are usual ones.
PRESETS = {
    "quick": SparsityPreset(count=5000),
    "laptop": SparsityPreset(count=10_000),
    "laptop-noisy": SparsityPreset(depth=2, count=10_000, label_noise=0.4),
    "paper": _PAPER,
    "paper-resnet18": replace(_PAPER, architecture="resnet18"),
    "paper-resnet50": _PAPER,
    "paper-vit-b-cifar10": replace(_PAPER, data="cifar10", architecture="vit_b_16", batch_size=128, lr=0.01),
}


@dataclass(frozen=True)
class SparsityRun(ImageRun):
    """A network that was trained with pruned gradients."""

    preset: SparsityPreset

    preset_class = SparsityPreset

    @staticmethod
    def network(preset: Any, facts: dict[str, Any]) -> nn.Module:
        """The network of a preset at any weights."""
        return _network(preset, **facts)


def sparsity_task(
    preset: str | SparsityPreset, data_path: str | Path | None = None, *, generator: torch.Generator | None = None
) -> tuple[nn.Module, Dataset[Any], Dataset[Any]]:
    """The pruned network of a preset at its initial weights, its training data and its test data.

    Args:
        data_path: As in `lib.datasets.image_task`.
        generator: Source of the masks.

    Examples:
        >>> model, train, test = sparsity_task("quick")
        >>> len(train), len(test), type(model[4]).__name__
        (5000, 2000, 'NMLinear')
    """
    settings = named(preset, PRESETS)
    torch_generator("generator", generator)
    train, test, classes = settings.images(data_path)
    if settings.label_noise:
        assert isinstance(train, TensorDataset)
        images, labels = train.tensors
        source = torch.Generator().manual_seed(settings.seed)
        train = TensorDataset(images, noisy_labels(labels, settings.label_noise, classes=classes, generator=source))
    return _network(settings, classes, generator), train, test


def _network(preset: SparsityPreset, classes: int, noise: torch.Generator | None = None) -> nn.Module:
    shape = IMAGE_SHAPES[preset.data]
    model, example = image_network(preset.architecture, shape, classes, depth=preset.depth, seed=preset.seed)
    skip = () if preset.all_layers else ("first", "last")
    return sparsify_model(model, preset.config, skip=skip, generator=noise, inplace=True, example=example)


def train_sparsity(
    preset: str | SparsityPreset,
    folder: str | Path | None = None,
    *,
    data_path: str | Path | None = None,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    every: int | None = None,
    workers: int = 0,
) -> SparsityRun:
    """Train a network with pruned gradients.

    Args:
        folder: Where checkpoints go; a second run goes on from them. None keeps nothing.
        data_path, device, precision, every, workers: As in `sparsity_task` and `lib.training.fit`.

    Examples:
        >>> run = train_sparsity(replace(PRESETS["quick"], count=2048, batch_size=64, epochs=1))
        >>> len(run.losses), bool(run.scores[-1] > 0.5)
        (32, True)
    """
    settings = named(preset, PRESETS)
    options: dict[str, Any] = {"device": device, "precision": precision, "every": every, "workers": workers}
    # on the CPU for a GPU too: a kernel takes a seed from it, and drawing that on a GPU would wait for it
    noise = torch.Generator().manual_seed(settings.seed)
    model, train, test, per_epoch = prepare(
        settings,
        folder,
        lambda: sparsity_task(settings, data_path, generator=noise),
        batch_size=settings.batch_size,
        **options,
    )
    momentum = 0.9 if settings.momentum is None else settings.momentum
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings.lr, momentum=momentum, weight_decay=settings.weight_decay
    )
    steps, against = settings.epochs * per_epoch, settings.momentum is None
    run = fit(
        model,
        train,
        functional.cross_entropy,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        schedule=one_cycle(optimizer, settings.lr, steps, rise=0.1, cycle_momentum=against),
        noise=(noise,),
        evaluate=partial(accuracy, data=test, workers=workers),
        folder=None if folder is None else Path(folder) / "training",
        **options,
    )
    return SparsityRun(model.eval(), run.losses, run.scores, run.diverged, settings)
