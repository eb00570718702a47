"""Real data: a part that ships with the package, and whole sets from where the reader keeps them."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lib.files import input_folder
from lib.validation import finite_array, integer_at_least, known_seed, one_of, positive_integer, true_or_false

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.utils.data import Dataset, TensorDataset

    Images = NDArray[np.uint8]
    Labels = NDArray[np.uint8]

__all__ = [
    "FASHION_CLASSES",
    "FASHION_MEAN",
    "FASHION_SPREAD",
    "IMAGE_SHAPES",
    "cifar10",
    "cifar100",
    "clothes",
    "digits",
    "download_fashion_mnist",
    "fashion_mnist",
    "image_task",
    "photograph",
    "standardized",
]

FASHION_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

#: Mean and standard deviation of the training images, with values from 0 to 1.
FASHION_MEAN, FASHION_SPREAD = 0.2860, 0.3530

#: Environment variable with the folder of the four files of Fashion-MNIST.
FASHION_VARIABLE = "PAPERPLAY_FASHION_MNIST"

_SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
_CIFAR_BYTES = 3 * 32 * 32

Split = Literal["train", "test"]
ImageSet = Literal["fashion", "cifar10", "cifar100", "imagenet"]
#: Channels, height and width of their images.
IMAGE_SHAPES: dict[ImageSet, tuple[int, int, int]] = {
    "fashion": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "imagenet": (3, 224, 224),
}


def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """scikit-learn's handwritten digits: 1797 images (N, 8, 8) with values from 0 to 16, and their labels (N,).

    Examples:
        >>> images, labels = digits()
        >>> images.shape, labels[:3]
        ((1797, 8, 8), array([0, 1, 2]))
    """
    from sklearn.datasets import load_digits

    stored = load_digits()
    return np.asarray(stored.images, dtype=np.float64), np.asarray(stored.target, dtype=np.int64)


def photograph() -> Tensor:
    """The middle of scikit-learn's photograph of a pavilion, in grey (1, 1, 256, 256), of mean 0 and spread 1."""
    import torch
    from sklearn.datasets import load_sample_image

    grey = torch.from_numpy(load_sample_image("china.jpg").mean(2)).float()[80:336, 200:456]
    return ((grey - grey.mean()) / grey.std())[None, None]


def fashion_mnist(
    split: Split = "train", *, full: bool = False, path: str | os.PathLike[str] | None = None
) -> tuple[Images, Labels]:
    """Fashion-MNIST: grey images of clothes, and their classes (`FASHION_CLASSES`).

    Args:
        full: The whole set, 60 000 and 10 000 images, from the first place that has it: `path`, the folder that the
            environment variable PAPERPLAY_FASHION_MNIST names, the system's data directory (Debian's package
            dataset-fashion-mnist), or the cache of `download_fashion_mnist`. Without it the first 10 000 and 2 000
            images, which ship with this package.
        path: Folder of the four idx.gz files; implies `full`.

    Returns:
        (N, 28, 28) and (N,), uint8.

    Examples:
        >>> images, labels = fashion_mnist("test")
        >>> images.shape, FASHION_CLASSES[labels[0]]
        ((2000, 28, 28), 'ankle boot')
    """
    one_of("split", split, get_args(Split))
    true_or_false("full", full)
    if path is not None:
        input_folder("path", path)
    if not full and path is None:
        with as_file(files("lib") / "data" / "fashion_mnist.npz") as place, np.load(place) as stored:
            return stored[f"{split}_images"], stored[f"{split}_labels"]
    prefix = "train" if split == "train" else "t10k"
    names = [f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"]
    for folder in [Path(path)] if path is not None else _fashion_places():
        if all((folder / name).exists() for name in names):
            images, labels = (_read_idx(folder / name) for name in names)
            if len(images) != len(labels):
                raise ValueError(f"{folder} holds {len(images)} images and {len(labels)} labels")
            return images, labels
    where = f"path {path}" if path is not None else "the known places"
    raise ValueError(
        f"Fashion-MNIST was not found in {where}: install Debian's dataset-fashion-mnist, set {FASHION_VARIABLE} to a "
        "folder with its four idx.gz files, or call lib.datasets.download_fashion_mnist()"
    )


def _fashion_places() -> Iterator[Path]:
    if FASHION_VARIABLE in os.environ:
        yield Path(os.environ[FASHION_VARIABLE])
    for shared in (Path(sys.prefix) / "share", Path("/usr/share"), Path("/usr/local/share")):
        yield shared / "datasets" / "fashion-mnist"
    yield _cache()


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("paperplay")) / "fashion-mnist"


def download_fashion_mnist() -> Path:
    """Download Fashion-MNIST (30 MB, checked by SHA-256) into the user's cache, where `fashion_mnist` finds it."""
    import pooch

    folder = _cache()
    for name, digest in _SHA256.items():
        pooch.retrieve(f"{_SOURCE}{name}", known_hash=f"sha256:{digest}", fname=name, path=folder, progressbar=False)
    return folder


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes from a compressed idx file."""
    try:
        with gzip.open(path, "rb") as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    axes = content[3] if len(content) > 4 and content[:3] == b"\0\0\x08" else 0
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    values = np.frombuffer(content, dtype=np.uint8, offset=min(4 + 4 * axes, len(content)))
    if axes == 0 or values.size != int(np.prod(shape)):
        raise ValueError(f"{path} is damaged: it is no idx file of bytes of the size that it names")
    return values.reshape(shape).copy()  # which the reader may change, as other images


def cifar10(path: str | os.PathLike[str], split: Split = "train", *, count: int | None = None) -> tuple[Images, Labels]:
    """The first `count` images (N, 3, 32, 32) of CIFAR-10 and their labels (N,), uint8.

    They are read from the folder of its binary version (`data_batch_1.bin` ... `test_batch.bin`).
    """
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    return _read_cifar(path, names, split, count, labels=(10,))


def cifar100(
    path: str | os.PathLike[str], split: Split = "train", *, count: int | None = None
) -> tuple[Images, Labels]:
    """CIFAR-100, with its 100 fine classes, as `cifar10`; the files are `train.bin` and `test.bin`."""
    return _read_cifar(path, [f"{split}.bin"], split, count, labels=(20, 100))


def _read_cifar(
    path: str | os.PathLike[str], names: list[str], split: str, count: int | None, labels: tuple[int, ...]
) -> tuple[Images, Labels]:
    """Images and their last label from files of rows: one byte a label, each below its bound, then the image."""
    one_of("split", split, get_args(Split))
    input_folder("path", path)
    if count is not None:
        positive_integer("count", count)
    images, classes, have = [], [], 0
    width = len(labels) + _CIFAR_BYTES
    for name in names:
        file = Path(path) / name
        if not file.exists():
            raise ValueError(f"{file} is missing: path must be the folder of CIFAR-{labels[-1]}'s binary version")
        content = np.fromfile(file, dtype=np.uint8)
        if content.size == 0 or content.size % width:
            raise ValueError(f"{file} is damaged: its size is no multiple of {width} bytes")
        rows = content.reshape(-1, width)
        for column, bound in enumerate(labels):
            if rows[:, column].max() >= bound:
                raise ValueError(f"{file} is damaged: it holds a label above {bound - 1}")
        classes.append(rows[:, len(labels) - 1])
        images.append(rows[:, len(labels) :].reshape(-1, 3, 32, 32))
        have += len(rows)
        if count is not None and have >= count:
            break
    if count is not None and have < count:
        raise ValueError(f"{path} holds {have} images of the split {split!r}; {count} are asked for")
    return np.concatenate(images)[:count], np.concatenate(classes)[:count]


def standardized(images: NDArray[np.generic], *, per_channel: bool = False) -> NDArray[np.float64]:
    """Images with mean 0 and variance 1 over the whole set, or over each channel (axis 1) of it.

    Examples:
        >>> values = standardized(np.arange(8).reshape(2, 2, 2))
        >>> print(round(float(values.mean()), 12), round(float(values.std()), 12))
        0.0 1.0
    """
    values = finite_array("images", images)
    if true_or_false("per_channel", per_channel) and values.ndim < 2:
        raise ValueError(f"images must have channels along axis 1; their shape is {values.shape}")
    if not values.size:
        raise ValueError(f"images must not be empty; their shape is {values.shape}")
    axes = tuple(axis for axis in range(values.ndim) if axis != 1) if per_channel else None
    spread = values.std(axis=axes, keepdims=True)
    if np.any(spread <= 1e-12 * np.abs(values).max(initial=0.0)):
        raise ValueError("images must not all be equal")
    return np.asarray((values - values.mean(axis=axes, keepdims=True)) / spread)


def clothes(
    split: Split = "train",
    count: int | None = None,
    *,
    margin: int = 0,
    full: bool = False,
    path: str | os.PathLike[str] | None = None,
) -> TensorDataset:
    """Fashion-MNIST as tensors of mean 0 and spread 1 (N, 1, 28, 28), and classes (N,).

    Args:
        count: The first so many images; None for all.
        margin: Pixels of background around, on each side.

    Examples:
        >>> clothes("test", 3, margin=4)[0][0].shape
        torch.Size([1, 36, 36])
    """
    import torch
    from torch.nn.functional import pad
    from torch.utils.data import TensorDataset

    integer_at_least("margin", margin, 0)
    images, labels = fashion_mnist(split, full=full, path=path)
    if count is not None and positive_integer("count", count) > len(images):
        raise ValueError(f"count must be at most {len(images)}; it is {count}")
    values = pad(torch.tensor(images[:count]).float(), (margin,) * 4).div_(255).sub_(FASHION_MEAN).div_(FASHION_SPREAD)
    return TensorDataset(values[:, None], torch.from_numpy(labels[:count].astype(np.int64)))


def image_task(
    data: ImageSet,
    *,
    count: int | None = None,
    full: bool = False,
    margin: int = 0,
    path: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> tuple[Dataset[Any], Dataset[Any], int, int]:
    """Images to train on and to test on, the number of their channels, and that of their classes.

    CIFAR's training images come shifted and mirrored, ImageNet's cut and mirrored (`lib.augmentation`).

    Args:
        count: So many training images: the first ones, of ImageNet a random choice; None for all.
        full, margin: Of Fashion-MNIST, as in `clothes`.
        path: The folder of CIFAR's binary version, of ImageNet's with `train` and `val`, or of the whole Fashion-MNIST,
            of which a part ships with the package.

    Examples:
        >>> train, test, channels, classes = image_task("fashion", count=100)
        >>> len(train), len(test), channels, classes
        (100, 2000, 1, 10)
    """
    import torch
    from torch.utils.data import TensorDataset

    from lib.augmentation import ImageFolder, ShiftedImages

    one_of("data", data, get_args(ImageSet))
    true_or_false("full", full)
    known_seed("seed", seed)
    if path is not None:
        path = input_folder("data_path", path)
    if data == "fashion":
        train = clothes("train", count, margin=margin, full=full, path=path)
        return train, clothes("test", margin=margin, full=full, path=path), 1, 10
    for name, value in (("margin", margin), ("full", full)):
        if value:
            raise ValueError(f"{name} must be {type(value)()} for the data {data!r}; it is {value}")
    if path is None:
        raise ValueError(f"data_path must name the folder of {data}")
    folder = Path(path)
    if data != "imagenet":
        read, classes = (cifar10, 10) if data == "cifar10" else (cifar100, 100)
        shifted = ShiftedImages(*read(folder, "train", count=count), seed=seed)
        images, labels = read(folder, "test")
        values = torch.from_numpy((images - shifted.mean) / shifted.spread).float()
        return shifted, TensorDataset(values, torch.from_numpy(labels.astype(np.int64))), 3, classes
    pictures = ImageFolder(folder / "train", train=True, seed=seed)
    held_out = ImageFolder(folder / "val", train=False)
    if held_out.classes != pictures.classes:
        raise ValueError(f"{folder} must hold the same classes in train and val")
    if count is not None:
        if positive_integer("count", count) > len(pictures):
            raise ValueError(f"count must be at most {len(pictures)}; it is {count}")
        chosen = np.random.default_rng(seed).permutation(len(pictures))[:count]
        pictures.items = [pictures.items[index] for index in sorted(chosen)]
    return pictures, held_out, 3, len(pictures.classes)
