"""What chapters that train a network for images share: its settings, and the run that comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lib.datasets import IMAGE_SHAPES, ImageSet, image_task
from lib.experiment import BelowOne, Count, NonNegative, Positive, Preset, Run, Seed

if TYPE_CHECKING:
    from pathlib import Path

    from torch.utils.data import Dataset

__all__ = ["ImagePreset", "ImageRun"]


@dataclass(frozen=True)
class ImagePreset(Preset):
    """A network, its images, and how to train it.

    Attributes:
        data: `"fashion"` (ships with the package), `"cifar10"`, `"cifar100"` or `"imagenet"` (from a folder).
        architecture: `"mlp"` (layers of 128 between a first and a last one, with batch normalisation), `"convnet"`
            (three convolutions, for 28 x 28 pixels), `"resnet18-small"` (for small images), or a name in
            torchvision.models.
        count: Number of training images; None for all.
        full: Fashion-MNIST: test on all 10 000 images of the whole set, where it is installed, not on the 2 000 that
            ship.
        epochs: Passes over the data.
        batch_size: Images a step, over all processes.
        lr: Peak of the learning rate, which rises over a tenth of the steps and falls to zero.
        momentum: Of stochastic gradient descent. None: against the rate, from 0.95 down to 0.85 and up again.
        weight_decay: Of stochastic gradient descent.
        seed: Of weights, the order of images, and all else that is random.
    """

    data: ImageSet = "fashion"
    architecture: str = "mlp"
    count: Count | None = None
    full: bool = False
    epochs: Count = 3
    batch_size: Count = 128
    lr: Positive = 0.05
    momentum: BelowOne | None = None
    weight_decay: NonNegative = 0.0
    seed: Seed = 0

    def images(self, path: str | Path | None) -> tuple[Dataset[Any], Dataset[Any], int]:
        """Training and test data, and the number of classes; `path` is that of `lib.datasets.image_task`."""
        train, test, _, classes = image_task(self.data, count=self.count, full=self.full, path=path, seed=self.seed)
        return train, test, classes


@dataclass(frozen=True)
class ImageRun(Run):
    """A network for images that was trained."""

    preset: ImagePreset

    preset_class = ImagePreset

    def facts(self) -> dict[str, Any]:
        """The number of classes."""
        image = torch.zeros(1, *IMAGE_SHAPES[self.preset.data], device=next(self.model.parameters()).device)
        with torch.no_grad():
            return {"classes": self.model(image).shape[1]}
