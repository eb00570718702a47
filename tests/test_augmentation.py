"""Images for training: chance that depends on seed, epoch and image alone."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lib.augmentation import ImageFolder, ShiftedImages


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)


def folder(place, size=(40, 30)):
    rng = np.random.default_rng(0)
    for name in ("bear", "ant"):
        (place / name).mkdir(parents=True)
        for number in range(3):
            kind = ("png", "jpg", "JPEG")[number]
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(place / name / f"{number}.{kind}")
        (place / name / "notes.txt").write_text("no picture")
    return place


def test_shifts_depend_on_seed_epoch_and_image_alone() -> None:
    data = ShiftedImages(images(), np.arange(6), padding=2)
    first = [data[i][0] for i in range(6)]
    assert all(torch.equal(a, data[i][0]) for i, a in enumerate(first))
    data.set_epoch(1)
    later = [data[i][0] for i in range(6)]
    assert not any(torch.equal(a, b) for a, b in zip(first, later, strict=True))
    two = [batch[0] for batch in DataLoader(data, batch_size=3, num_workers=2)]
    assert torch.equal(torch.cat(two), torch.stack(later))


def test_shifted_images_are_windows_of_the_padded_ones() -> None:
    pictures = images(40)
    data = ShiftedImages(pictures, np.arange(40), padding=1)
    seen, mirrored = set(), 0
    for index in range(40):
        values = data[index][0].numpy() * data.spread + data.mean
        wide = np.pad(pictures[index], ((0, 0), (1, 1), (1, 1))).astype(np.float32)
        for top in range(3):
            for left in range(3):
                cut = wide[:, top : top + 8, left : left + 8]
                for flip in (cut, cut[:, :, ::-1]):
                    if np.allclose(values, flip, atol=1e-3):
                        seen.add((top, left))
                        mirrored += flip is not cut
    assert len(seen) == 9
    assert 8 <= mirrored <= 32


def test_folders_of_pictures(tmp_path) -> None:
    folder(tmp_path)
    (tmp_path / ".cache").mkdir()
    train = ImageFolder(tmp_path, size=16, seed=3)
    assert train.classes == ["ant", "bear"]
    assert len(train) == 6
    assert [int(train[i][1]) for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert train[0][0].shape == (3, 16, 16)
    assert torch.equal(train[2][0], train[2][0])
    before = train[2][0]
    train.set_epoch(1)
    assert not torch.equal(train[2][0], before)
    still = ImageFolder(tmp_path, size=16, train=False)
    one = still[0][0]
    still.set_epoch(5)
    assert torch.equal(still[0][0], one)
    assert abs(float(one.mean())) < 1


def test_the_middle_is_taken_and_colours_are_standardised(tmp_path) -> None:
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[2:30, 10:38] = 255  # seven eighths of the shorter side, in the middle
    (tmp_path / "one").mkdir()
    Image.fromarray(picture).save(tmp_path / "one" / "a.png")
    values = ImageFolder(tmp_path, size=28, train=False)[0][0]
    white = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(
        values[:, 1:-1, 1:-1].numpy(), np.broadcast_to(white[:, None, None], (3, 26, 26)), rtol=1e-5
    )


def test_bad_input_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="images must be"):
        ShiftedImages(images(), np.arange(5))
    with pytest.raises(ValueError, match="holds none"):
        ImageFolder(tmp_path)
    with pytest.raises(ValueError, match="is not there"):
        ImageFolder(tmp_path / "nowhere")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png is damaged"):
        ImageFolder(tmp_path)[0]
