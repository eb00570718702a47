"""Pictures of floods: what they show, against matplotlib's own shading and by looking at pixels."""

import time

import numpy as np
import pytest
import torch
from matplotlib.colors import LightSource
from matplotlib.image import imread

from lib.flood.geo import read_dem, sample_geotiff
from lib.flood.maps import WATER, exaggeration, flood_picture, hillshade, shaded_flood


def hills(rows=40, columns=60, height=30.0):
    y, x = np.mgrid[0:rows, 0:columns]
    return height * np.sin(x / 7.0) * np.cos(y / 5.0)


@pytest.mark.parametrize("height", [0.3, 300.0])
def test_the_shading_is_that_of_matplotlib(height):
    z, dx = hills(height=height), 25.0
    light = LightSource(azdeg=315, altdeg=45)
    # the normals of the same exaggerated ground; its hillshade stretches the contrast
    east, north = np.gradient(z, dx, axis=1), -np.gradient(z, dx, axis=0)
    normals = np.dstack([-exaggeration(z, dx) * east, -exaggeration(z, dx) * north, np.ones_like(z)])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    np.testing.assert_allclose(hillshade(z, dx), np.clip(normals @ light.direction, 0, 1), atol=1e-12)
    np.testing.assert_allclose(hillshade(z + 1000.0, dx), hillshade(z, dx), atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_level_ground_of_any_size_has_one_brightness(shape):
    np.testing.assert_allclose(hillshade(np.full(shape, 7.0), 2.0), np.sqrt(0.5))


def test_slopes_are_steepened_until_they_can_be_seen():
    factors = [exaggeration(hills(height=height), 25.0) for height in (300.0, 30.0, 3.0, 0.3, 0.0)]
    assert factors[0] == 1
    assert factors == sorted(factors)
    assert factors[-1] == 1000
    for height, factor in zip((30.0, 3.0, 0.3), factors[1:], strict=False):
        slopes = factor * np.hypot(*np.gradient(hills(height=height), 25.0))
        assert 0.11 < slopes.mean() <= 0.3


def test_water_has_the_colours_of_its_depth_and_dry_ground_has_none():
    depth = np.array([[0.0, 0.05, 0.0501, 0.5, 1.0, 2.0]])
    image = shaded_flood(np.zeros_like(depth), depth, 10.0, vmax=1.0)
    assert image.dtype == np.uint8
    assert image.shape == (1, 6, 3)
    dry = image[0, :2].astype(int)
    assert (dry.max(axis=-1) - dry.min(axis=-1) < 12).all()  # nearly grey
    np.testing.assert_array_equal(image[0, 2:], WATER[[12, 127, 255, 255]])


def test_without_a_largest_depth_the_deepest_water_is_darkest():
    image = shaded_flood(torch.zeros(1, 2), torch.tensor([[0.2, 3.0]]), 10.0)
    np.testing.assert_array_equal(image[0, 1], WATER[-1])
    brightness = WATER @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) < 1).all()
    assert brightness[0] - brightness[-1] > 150


def test_an_image_is_fast_enough_for_a_live_figure():
    z, h = hills(64, 64), np.abs(hills(64, 64)) / 30
    taken = []
    for _ in range(20):
        start = time.perf_counter()
        shaded_flood(z, h, 4.0, vmax=2.0)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.002


def test_bad_maps_are_refused():
    for z, h, message in ((np.zeros((0, 3)), np.zeros((0, 3)), "z must have cells"),
                          (np.zeros((2, 3)), np.zeros((3, 2)), r"h must have shape \(2, 3\)")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            shaded_flood(z, h, 1.0)


@pytest.fixture(scope="module")
def dem(tmp_path_factory):
    return read_dem(sample_geotiff(tmp_path_factory.mktemp("map") / "dem.tif", shape=(32, 48)))


def test_a_picture_shows_ground_and_water(dem, tmp_path):
    z, dx, profile = dem
    low = z < z.median()
    path = flood_picture(z, low * 1.0, dx, tmp_path / "new" / "a.png", title="Half is flooded", profile=profile)
    pixels = imread(path)[..., :3]
    blue = pixels[..., 2] - pixels[..., 0] > 0.25
    assert pixels.shape[1] > pixels.shape[0] > 400
    assert 0.2 < blue.mean() < 0.5
    assert pixels.std() > 0.1


def test_cells_without_data_are_blank(dem, tmp_path):
    z, dx, profile = dem
    missing = np.zeros((32, 48), bool)
    missing[:, :24] = True
    wall = torch.where(torch.from_numpy(missing), 5000.0, z)
    drawn = [
        imread(flood_picture(ground, torch.zeros_like(z), dx, tmp_path / "a.png", profile=its))[..., :3]
        for ground, its in ((z, profile), (wall, {**profile, "missing": missing}))
    ]
    ground, whole = (pixels.min(-1) < 0.99 for pixels in drawn[::-1])
    rows = slice(whole.shape[0] // 3, whole.shape[0] // 3 + 20)
    columns = np.nonzero(whole[rows].all(0))[0]
    left, right = columns[: len(columns) // 3], columns[len(columns) * 2 // 3 : len(columns) * 5 // 6]
    assert ground[rows, right].mean() > 0.9
    assert ground[rows, left[20:]].mean() < 0.1
    # the ground that is left is shaded as it was, not flattened by a wall of 4 km
    assert drawn[1][rows, right].std() > 0.3 * drawn[0][rows, right].std()


def test_a_foreign_profile_is_named(dem, tmp_path):
    z, dx, profile = dem
    for other in (3, "utm", {"height": 2}):
        with pytest.raises(TypeError, match="profile must be that of a map, from read_dem"):
            flood_picture(z, z * 0, dx, tmp_path / "a.png", profile=other)
    with pytest.raises(ValueError, match=r"profile must be that of z, with 16 x 48 cells; it has 32 x 48"):
        flood_picture(z[:16], z[:16] * 0, dx, tmp_path / "a.png", profile=profile)


def test_pictures_of_one_flood_are_equal_and_a_dry_one_says_so(tmp_path):
    z = hills(20, 100)
    first, second = (flood_picture(z, -z / 10 * (z < 0), 5.0, tmp_path / name) for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
    dry = flood_picture(z, np.zeros_like(z), 5.0, tmp_path / "dry.png")
    pixels = imread(dry)[..., :3]
    inside = pixels[: pixels.shape[0] - 100, 100 : pixels.shape[1] - 250]
    assert (inside[..., 2] - inside[..., 0]).max() < 0.05
    assert inside.min() < 0.2  # the words
