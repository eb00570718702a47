"""Drawn flood plains, and what is measured on their blocks."""

import heapq

import numpy as np
import pytest
import torch
from scipy import ndimage

from lib.flood.pooling import pool_dem
from lib.flood.terrain import FEATURES, REGIONS, block_features, make_terrain, real_dem, terrain

EDGES = ndimage.generate_binary_structure(2, 1)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def drawn():
    return [terrain((48, 48), rng=rng(seed)) for seed in range(150)]


def test_the_real_elevations():
    z, dx, dy = real_dem()
    assert z.shape == (344, 403)
    assert (z.min(), z.max(), z.dtype) == (236.0, 1076.0, np.float64)
    # a degree of latitude is 110.97 km at 36.6 degrees, and one of longitude 89.50 km (printed geodetic tables)
    assert 1200 * dy / 1000 == pytest.approx(110.97, abs=0.01)
    assert 1200 * dx / 1000 == pytest.approx(89.50, abs=0.02)


def test_training_and_test_ground_do_not_overlap():
    columns = {split: [terrain((32, 48), split, rng=rng(seed)).source[2:] for seed in range(60)] for split in REGIONS}
    assert max(last for _, last in columns["train"]) <= 270
    assert min(first for first, _ in columns["test"]) >= 290
    # all of both regions is used
    assert min(first for first, _ in columns["train"]) < 20
    assert max(last for _, last in columns["test"]) > 380


def test_the_ground_is_the_crop_that_it_names_in_any_of_eight_positions():
    """Blurred and enlarged ground follows the named window in one of its positions, and no other window."""
    z, found = real_dem().z, set()
    for seed in range(30):
        parts = terrain((128, 128), "train", rng=rng(seed))
        top, bottom, left, right = parts.source
        assert (bottom - top, right - left) == (48, 48)
        small = ndimage.zoom(parts.ground, 48 / 128, order=1, grid_mode=True, mode="nearest").ravel()
        here, elsewhere = (
            [np.corrcoef(small, np.rot90(p, k).ravel())[0, 1] for p in (piece, piece[:, ::-1]) for k in range(4)]
            for piece in (z[top:bottom, left:right], z[344 - bottom : 344 - top, 222 - left : 222 - left + 48])
        )
        assert max(here) > 0.97
        assert max(elsewhere) < 0.9
        found.add(int(np.argmax(here)))
    assert found == set(range(8))


def test_the_generator_decides():
    generator = rng(3)
    first, second = make_terrain((32, 48), rng=generator), make_terrain((32, 48), rng=generator)
    assert first.shape == (32, 48)
    assert first.dtype == np.float64
    assert np.array_equal(first, terrain((32, 48), rng=rng(3)).z)
    for other in (second, make_terrain((32, 48), "test", rng=rng(3))):
        assert not np.array_equal(first, other)


def test_relief_canals_and_embankments_have_the_recipes_sizes(drawn):
    counts, reliefs = [], []
    for parts in drawn:
        reliefs.append(np.ptp(parts.ground))
        assert parts.ground.min() == 0
        depths, heights = np.unique(parts.canals)[1:], np.unique(parts.embankments)[1:]
        assert 1 <= len(depths) <= 2
        assert depths.min() >= 0.5
        assert depths.max() <= 1.5
        # up to three embankments; one may lie outside, or wholly below another
        assert len(heights) <= 3
        assert heights.min(initial=1.0) >= 1
        assert heights.max(initial=1.0) <= 3
        counts.append(len(heights))
        assert np.array_equal(parts.z, parts.ground - parts.canals + parts.embankments)
        for depth in depths:
            # width 2 to 4 cells: nothing is left after shaving off 3 cells all round, something is at the start
            assert not ndimage.binary_erosion(parts.canals == depth, iterations=4).any()
    assert set(counts) >= {1, 2, 3}
    assert 3 <= min(reliefs) < 4
    assert 7 < max(reliefs) <= 8


def test_some_embankments_have_gaps(drawn):
    """Where there is a single one, so that no higher one hides a part of it."""
    alone = [parts.embankments > 0 for parts in drawn if len(np.unique(parts.embankments)) == 2]
    broken = sum(ndimage.label(wall, np.ones((3, 3)))[1] > 1 for wall in alone)
    assert 5 <= broken < len(alone)


def test_walls_and_canals_cross_the_map(drawn):
    """A canal is one connected channel, a wall without gaps parts the map in two for water that goes through edges."""
    canals, across, walls, parted = 0, 0, 0, 0
    for parts in drawn:
        if len(np.unique(parts.canals)) == 2:
            ways, _ = ndimage.label(parts.canals > 0, EDGES)
            canals += 1
            across += bool((set(ways[0]) & set(ways[-1]) | set(ways[:, 0]) & set(ways[:, -1])) - {0})
        wall = parts.embankments > 0
        whole = len(np.unique(parts.embankments)) == 2 and ndimage.label(wall, EDGES)[1] == 1
        if whole and ((wall[0].any() and wall[-1].any()) or (wall[:, 0].any() and wall[:, -1].any())):
            walls += 1
            parted += ndimage.label(~wall, EDGES)[1] >= 2
    # a canal may leave the map for a part of its way
    assert across > 0.8 * canals > 10
    assert parted == walls >= 5


def test_other_zooms_and_sizes():
    big = terrain((320, 352), "test", rng=rng(), zoom=3.5)
    assert big.z.shape == (320, 352)
    with pytest.raises(
        ValueError, match=r"region of 'test' has 113: ask for a smaller shape or a zoom of at least 3\.12"
    ):
        terrain((320, 352), "test", rng=rng())
    # the smallest crops may be level in whole metres; they must still give ground with relief
    assert all(np.ptp(terrain((8, 8), rng=rng(seed)).ground) >= 3 - 1e-9 for seed in range(50))


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((4, 64), ValueError, "at least 8 cells"),
        ((64,), ValueError, "shape must be"),
        ((64.0, 64), TypeError, "shape must be an integer"),
    ],
)
def test_bad_shapes_are_refused(shape, error, message):
    with pytest.raises(error, match=message):
        make_terrain(shape, rng=rng())


def bottleneck(z):
    """Lowest highest elevation on a way from the first to the last column, by Dijkstra's search."""
    rows, columns = z.shape
    queue, done = [(z[i, 0], i, 0) for i in range(rows)], set()
    heapq.heapify(queue)
    while True:
        height, i, j = heapq.heappop(queue)
        if (i, j) in done:
            continue
        done.add((i, j))
        if j == columns - 1:
            return height
        for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= k < rows and 0 <= m < columns:
                heapq.heappush(queue, (max(height, z[k, m]), k, m))


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 12])
def test_features_against_search_and_numpy(factor):
    z = np.random.default_rng(factor).normal(size=(2, 2 * factor, 3 * factor))
    found = block_features(torch.from_numpy(z), factor)
    assert found.shape == (2, 9, 2, 3)
    for b, i, j in np.ndindex(2, 2, 3):
        block = z[b, i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
        wanted = {
            "min": block.min(),
            "max": block.max(),
            "quantile_10": np.quantile(block, 0.1),
            "quantile_50": np.quantile(block, 0.5),
            "quantile_90": np.quantile(block, 0.9),
            "std": block.std(),
            "saddle_west_east": bottleneck(block),
            "saddle_north_south": bottleneck(block.T),
            "mean": block.mean(),
        }
        assert tuple(wanted) == FEATURES
        np.testing.assert_allclose(found[b, :, i, j], list(wanted.values()), atol=1e-13)


def test_saddles_at_the_end_of_long_ways():
    """A channel that winds through the whole block, far longer than the block is wide, and back and forth."""
    z = torch.full((15, 15), 9.0)
    z[::2] = 0.0
    z[1::4, -1] = 1.0
    z[3::4, 0] = 2.0
    for block in (z, z.T, z.flip(0), z.T.flip(1)):
        found = dict(zip(FEATURES, block_features(block, 15)[:, 0, 0].tolist(), strict=True))
        assert found["saddle_west_east"] == bottleneck(block.numpy())
        assert found["saddle_north_south"] == bottleneck(block.T.numpy())


def test_features_gradients():
    z = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda map_: block_features(map_, 3), (z,))
    level = torch.zeros(4, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(block_features(level, 4).sum(), level)
    assert torch.isfinite(grad).all()


def test_features_move_with_the_datum():
    z = torch.from_numpy(make_terrain((64, 64), rng=rng()))
    moved, found = block_features(z + 100, 16), block_features(z, 16)
    std = FEATURES.index("std")
    torch.testing.assert_close(moved[std], found[std], rtol=1e-9, atol=1e-9)
    others = [i for i in range(9) if i != std]
    torch.testing.assert_close(moved[others], found[others] + 100, rtol=1e-12, atol=0)
    torch.testing.assert_close(found[-1], pool_dem(z, 16))
