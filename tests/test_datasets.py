"""Data: the part that ships, whole sets where they are, and clear words where they are not."""

import gzip
import shutil

import numpy as np
import pooch
import pytest
import torch
from PIL import Image

from lib import datasets
from lib.datasets import cifar10, clothes, digits, fashion_mnist, image_task, standardized


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return head + values.tobytes()


def write_fashion(folder, count: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8)
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return images, labels


def write_cifar(folder, classes: int, count: int = 8) -> None:
    """Files of CIFAR's binary version: labels, then 3 x 32 x 32 bytes."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"] if classes == 10 else ["train", "test"]
    for name in names:
        rows = rng.integers(0, 256, (count, 3072 + (1 if classes == 10 else 2)), dtype=np.uint8)
        rows[:, :-3072] %= 10
        rows.tofile(folder / f"{name}.bin")


def write_pictures(folder) -> None:
    """Folders as ImageNet's: four pictures to train on and one to test on, of two classes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 1)):
        for name in ("ant", "bee"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (250, 240, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.jpeg")


def test_shipped_part_of_fashion_mnist() -> None:
    for split, count in (("train", 10_000), ("test", 2_000)):
        images, labels = fashion_mnist(split)
        assert images.shape == (count, 28, 28)
        assert images.dtype == labels.dtype == np.uint8
        assert set(labels.tolist()) == set(range(10))


def test_whole_set_from_a_folder_or_the_environment(tmp_path, monkeypatch) -> None:
    images, labels = write_fashion(tmp_path)
    for found in (fashion_mnist("train", path=tmp_path), fashion_mnist("test", path=tmp_path)):
        np.testing.assert_array_equal(found[0], images)
        np.testing.assert_array_equal(found[1], labels)
    monkeypatch.setenv(datasets.FASHION_VARIABLE, str(tmp_path))
    assert len(fashion_mnist("train", full=True)[0]) == 7


def test_shipped_part_is_the_beginning_of_the_whole_set() -> None:
    try:
        whole = fashion_mnist("test", full=True)
    except ValueError:
        pytest.skip("the whole of Fashion-MNIST is not on this machine (on Debian: apt install dataset-fashion-mnist)")
    part = fashion_mnist("test")
    assert whole[0].shape == (10_000, 28, 28)
    np.testing.assert_array_equal(whole[0][:2000], part[0])
    np.testing.assert_array_equal(whole[1][:2000], part[1])


def test_missing_and_damaged_files_are_named(tmp_path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="Fashion-MNIST was not found in path"):
        fashion_mnist("train", path=tmp_path)
    monkeypatch.setattr(datasets, "_fashion_places", lambda: iter([tmp_path]))
    with pytest.raises(ValueError, match="dataset-fashion-mnist"):
        fashion_mnist("train", full=True)
    write_fashion(tmp_path)
    for content, message in (
        (b"nothing", r"train-images-idx3-ubyte\.gz is damaged"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc"), "no idx file"),
        (gzip.compress(idx(np.zeros((3, 28, 28), np.uint8))), "3 images and 7 labels"),
    ):
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            fashion_mnist("train", path=tmp_path)
    with pytest.raises(ValueError, match="split must be"):
        fashion_mnist("all")


def test_a_download_is_checked(tmp_path, monkeypatch) -> None:
    """What comes from the source is refused if it is not what was published."""
    source = tmp_path / "source"
    source.mkdir()
    write_fashion(source)
    monkeypatch.setattr(datasets, "_SOURCE", f"{source.as_uri()}/")
    monkeypatch.setattr(datasets, "_cache", lambda: tmp_path / "cache")

    def from_folder(url, output_file, _):
        shutil.copy(source / url.rsplit("/", 1)[1], output_file)

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *_, **__: from_folder)
    with pytest.raises(ValueError, match="does not match the known hash"):
        datasets.download_fashion_mnist()
    assert not list((tmp_path / "cache").glob("*.gz"))


def test_cifar_reads_its_binary_version(tmp_path) -> None:
    write_cifar(tmp_path, 10, 6)
    rows = np.fromfile(tmp_path / "data_batch_2.bin", np.uint8).reshape(6, 3073)
    images, labels = cifar10(tmp_path, count=8)
    assert images.shape == (8, 3, 32, 32)
    np.testing.assert_array_equal(images[6, 1, 2], rows[0, 1 + 1024 + 64 : 1 + 1024 + 96])
    np.testing.assert_array_equal(labels[6:], rows[:2, 0])
    assert len(cifar10(tmp_path)[0]) == 30
    assert len(cifar10(tmp_path, "test")[0]) == 6
    with pytest.raises(ValueError, match="30 images of the split 'train'; 31 are asked for"):
        cifar10(tmp_path, count=31)
    rows[0, 0] = 10
    for content, message in ((b"123", "no multiple of 3073"), (rows.tobytes(), "a label above 9")):
        (tmp_path / "test_batch.bin").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            cifar10(tmp_path, "test")


def test_standardized() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    channels = standardized(images, per_channel=True)
    np.testing.assert_allclose(channels.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(channels.std(axis=(0, 2, 3)), 1, rtol=1e-12)
    for equal in (np.ones((2, 2)), np.full((10, 3), 0.1)):
        with pytest.raises(ValueError, match="all be equal"):
            standardized(equal)
    with pytest.raises(ValueError, match="images must be finite"):
        standardized([[np.nan, 1.0]])
    assert digits()[0].shape == (1797, 8, 8)


# --- as tensors


def test_a_margin_is_background() -> None:
    plain, wide = clothes("test", 5).tensors[0], clothes("test", 5, margin=4).tensors[0]
    assert torch.equal(wide[..., 4:-4, 4:-4], plain)
    assert wide[..., :4, :].unique().numel() == 1
    # a shift within the margin brings in what leaves: background
    assert torch.equal(wide.roll(3, -1), torch.nn.functional.pad(wide, (3, 0), value=float(wide.min()))[..., :-3])


def test_tasks_of_images(tmp_path) -> None:
    """What a network is trained and tested on is of one size and one scale."""
    write_cifar(tmp_path / "ten", 10)
    write_cifar(tmp_path / "hundred", 100)
    write_pictures(tmp_path / "pictures")
    places = {"fashion": None, "cifar10": "ten", "cifar100": "hundred", "imagenet": "pictures"}
    seen = {}
    for data, place in places.items():
        train, test, channels, classes = image_task(data, count=6, path=place and tmp_path / place)
        assert len(train) == 6
        assert train[0][0].shape == test[0][0].shape
        assert train[0][0].dtype == test[0][0].dtype == torch.float32
        assert abs(float(torch.stack([test[k][0] for k in range(len(test))]).mean())) < 0.5
        seen[data] = (len(test), channels, classes, train[0][0].shape[-1])
    assert seen == {
        "fashion": (2000, 1, 10, 28), "cifar10": (8, 3, 10, 32), "cifar100": (8, 3, 100, 32),
        "imagenet": (2, 3, 2, 224),
    }  # fmt: skip
    one, other = (image_task("imagenet", count=6, path=tmp_path / "pictures", seed=seed)[0] for seed in (0, 1))
    assert one.items != other.items


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "fashion", "count": 20_000, "path": None}, "count must be at most 10000; it is 20000"),
        ({"data": "cifar10"}, "data_path must name the folder of cifar10"),
        ({"data": "cifar100", "path": "/nope"}, "data_path must be a folder; /nope is not there"),
        ({"data": "imagenet", "margin": 2}, "margin must be 0 for the data 'imagenet'; it is 2"),
        ({"data": "imagenet", "full": True}, "full must be False for the data 'imagenet'"),
        ({"data": "imagenet", "count": 9}, "count must be at most 8; it is 9"),
    ],
)
def test_tasks_that_cannot_be(arguments, message, tmp_path) -> None:
    write_pictures(tmp_path)
    with pytest.raises(ValueError, match=message):
        image_task(**{"path": tmp_path if "count" in arguments else None, **arguments})
    (tmp_path / "val" / "cat").mkdir()
    with pytest.raises(ValueError, match="the same classes in train and val"):
        image_task("imagenet", path=tmp_path)
