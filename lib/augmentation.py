"""Images for training: cropped and mirrored by chance, in a way that depends on seed, epoch and image alone.

So a run that goes on in the middle of an epoch sees what it would have seen, with any number of loading processes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib.files import input_folder
from lib.validation import integer_at_least, known_seed, positive_integer, true_or_false

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ImageFolder", "ShiftedImages"]

#: Mean and standard deviation of ImageNet's red, green and blue, with values from 0 to 1.
_MEAN, _SPREAD = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
_KINDS = (".jpeg", ".jpg", ".png")


class ShiftedImages(Dataset[tuple[Tensor, Tensor]]):
    """Images in memory, each shifted by a few pixels and perhaps mirrored, anew in every epoch.

    Args:
        images: (N, C, H, W), uint8.
        labels: (N,), integers.
        padding: Largest shift in pixels; black comes in from the border.

    Examples:
        >>> data = ShiftedImages(np.ones((2, 3, 8, 8), np.uint8), np.array([0, 1]), padding=2)
        >>> data[1][0].shape, data[1][1]
        (torch.Size([3, 8, 8]), tensor(1))
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.generic], *, padding: int = 4, seed: int = 0
    ) -> None:
        images, labels = _whole_numbers("images", images), _whole_numbers("labels", labels)
        if images.dtype != np.uint8:
            raise TypeError(f"images must be uint8; they are {images.dtype}")
        if images.ndim != 4 or labels.shape != images.shape[:1] or not images.size:
            raise ValueError(
                f"images must be (N, C, H, W), and labels one an image; they are {images.shape}, {labels.shape}"
            )
        positive_integer("padding", padding)
        known_seed("seed", seed)
        values = images.astype(np.float32)
        axes = (0, 2, 3)
        self.mean, self.spread = values.mean(axes, keepdims=True)[0], values.std(axes, keepdims=True)[0] + 1e-6
        self.images, self.labels = images, labels
        self.padding, self.seed, self.epoch = padding, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Shift in another way from now on."""
        self.epoch = integer_at_least("epoch", epoch, 0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        pad = self.padding
        top, left = rng.integers(0, 2 * pad + 1, 2)
        image = self.images[index]
        wide = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
        cut = wide[:, top : top + image.shape[1], left : left + image.shape[2]]
        if rng.integers(2):
            cut = cut[:, :, ::-1]
        values = (cut.astype(np.float32) - self.mean) / self.spread
        return torch.from_numpy(values), torch.tensor(int(self.labels[index]))


def _whole_numbers(name: str, values: object) -> NDArray[Any]:
    """A copy, which nobody else can change."""
    try:
        array = np.array(values)
    except ValueError as error:
        raise ValueError(f"{name} must be a regular array") from error
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers; they are {array.dtype}")
    return array


class ImageFolder(Dataset[tuple[Tensor, Tensor]]):
    """Pictures in folders, one folder a class, as ImageNet is kept.

    For training, a random part of the picture (8 to 100 % of its area, 3:4 to 4:3) is scaled to the size and perhaps
    mirrored; otherwise the middle seven eighths of its shorter side are.

    Args:
        path: The folder of the classes' folders; classes are numbered in the order of their names.
        size: Height and width of what comes out, in pixels.
    """

    def __init__(self, path: str | os.PathLike[str], *, size: int = 224, train: bool = True, seed: int = 0) -> None:
        positive_integer("size", size)
        true_or_false("train", train)
        known_seed("seed", seed)
        root = input_folder("path", path)
        self.classes = sorted(each.name for each in root.iterdir() if each.is_dir() and each.name[0] != ".")
        self.items = [
            (file, number)
            for number, name in enumerate(self.classes)
            for file in sorted((root / name).iterdir())
            if file.suffix.lower() in _KINDS
        ]
        if not self.items:
            raise ValueError(f"path must be a folder with a folder of pictures a class; {root} holds none")
        self.size, self.train, self.seed, self.epoch = size, train, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other parts from now on."""
        self.epoch = integer_at_least("epoch", epoch, 0)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from PIL import Image

        file, number = self.items[index]
        rng = np.random.default_rng((self.seed, self.epoch, index))
        try:
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:  # Pillow has its own words for each format
            raise ValueError(f"{file} is damaged: {error}") from error
        box = _random_part(rng, *picture.size) if self.train else _middle(*picture.size)
        scaled: Any = picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
        values = np.asarray(scaled, dtype=np.float32) / 255
        if self.train and rng.integers(2):
            values = values[:, ::-1]
        values = (values - _MEAN) / _SPREAD
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))), torch.tensor(number)


def _random_part(rng: np.random.Generator, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a part of random area and shape; the middle where ten draws do not fit."""
    for _ in range(10):
        area = rng.uniform(0.08, 1.0) * width * height
        shape = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = np.sqrt(area * shape), np.sqrt(area / shape)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, left + w, top + h
    return _middle(width, height)


def _middle(width: int, height: int) -> tuple[float, float, float, float]:
    half = min(width, height) * 7 / 16
    return width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half
