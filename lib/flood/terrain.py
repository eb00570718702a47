"""Ground for floods: real elevations with canals and embankments cut into them, and what a block of them looks like.

Crops of mountains in Tennessee are smoothed and flattened to the few metres of a flood plain, and get thin structures
that decide where water goes: the reason why averaging elevations fails (Giladi et al., NeurIPS 2021, arXiv 2106.07218).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from lib.flood.pooling import blocks, elevation_tensor
from lib.validation import numpy_generator, one_of, pair, positive_integer, positive_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEATURES", "REGIONS", "Split", "block_features", "make_terrain", "real_dem", "terrain"]

Split = Literal["train", "test"]

#: Columns of the real elevations that each split may use: 20 columns lie between.
REGIONS: dict[Split, tuple[int, int]] = {"train": (0, 270), "test": (290, 403)}

#: What `block_features` measures, in its order.
FEATURES = (
    "min", "max", "quantile_10", "quantile_50", "quantile_90", "std", "saddle_west_east", "saddle_north_south", "mean",
)  # fmt: skip

_SMALLEST_SIDE = 8


class RealDem(NamedTuple):
    """Real elevations: `z` (344, 403) [m], row 0 in the north; cells of `dx` (west-east) by `dy` [m]."""

    z: NDArray[np.float64]
    dx: float
    dy: float


def real_dem() -> RealDem:
    """The elevations of the Jacksboro fault that ship with matplotlib.

    Returns:
        `z` (344, 403) float64 [m], 236 to 1076 m; cells of about 74.6 m by 92.5 m: 1/1200 degree at the map's middle
        latitude, on the WGS 84 ellipsoid.

    Examples:
        >>> z, dx, dy = real_dem()
        >>> print(z.shape, z.min(), z.max(), f"{dx:.1f} {dy:.1f}")
        (344, 403) 236.0 1076.0 74.6 92.5
    """
    kept = _kept_dem()
    return kept._replace(z=kept.z.copy())


@lru_cache(maxsize=1)
def _kept_dem() -> RealDem:
    """The same, read once; not to be written to."""
    # matplotlib keeps the file: its folder is looked up without importing anything that draws
    folder = files("matplotlib") / "mpl-data" / "sample_data"
    with as_file(folder / "jacksboro_fault_dem.npz") as place, np.load(place) as stored:
        z = stored["elevation"].astype(np.float64)
        # the file calls its northern edge ymin
        latitude = np.radians((float(stored["ymin"]) + float(stored["ymax"])) / 2)
        step_x, step_y = np.radians(float(stored["dx"])), np.radians(float(stored["dy"]))
    semi_major, eccentricity_squared = 6378137.0, 6.69437999014e-3
    curvature = 1 - eccentricity_squared * np.sin(latitude) ** 2
    dx = step_x * semi_major * np.cos(latitude) / np.sqrt(curvature)
    dy = step_y * semi_major * (1 - eccentricity_squared) / curvature**1.5
    return RealDem(z, float(dx), float(dy))


@dataclass(frozen=True)
class Terrain:
    """A terrain and what it was made from; all maps (R, C) float64 [m].

    Attributes:
        ground: Smooth ground, lowest cell at 0.
        canals: How deep the canals are cut, 0 elsewhere.
        embankments: How high the embankments stand on the ground, 0 elsewhere and in their gaps.
        source: Rows and columns `(first, last + 1, first, last + 1)` of the real elevations that the ground comes from.
    """

    ground: NDArray[np.float64]
    canals: NDArray[np.float64]
    embankments: NDArray[np.float64]
    source: tuple[int, int, int, int]

    @property
    def z(self) -> NDArray[np.float64]:
        """The elevations, `ground - canals + embankments` (R, C) [m]."""
        return self.ground - self.canals + self.embankments


def make_terrain(
    shape: tuple[int, int], split: Split = "train", *, rng: np.random.Generator, zoom: float = 8 / 3
) -> NDArray[np.float64]:
    """The elevations (R, C) float64 [m] of a flood plain, `terrain(...).z`.

    Examples:
        >>> z = make_terrain((64, 64), "test", rng=np.random.default_rng(0))
        >>> z.shape, bool(np.ptp(z) > 3)
        ((64, 64), True)
    """
    return terrain(shape, split, rng=rng, zoom=zoom).z


def terrain(
    shape: tuple[int, int], split: Split = "train", *, rng: np.random.Generator, zoom: float = 8 / 3
) -> Terrain:
    """Draw a flood plain from the real elevations, with its canals and embankments kept apart.

    A crop of the split's region, turned and mirrored at random, is enlarged by cubic splines, blurred with a standard
    deviation of `zoom / 2` cells and scaled to a relief of 3 to 8 m. One or two canals (2 to 4 cells wide, 0.5 to
    1.5 m deep) and one to three embankments (1.5 to 3 cells wide, 1 to 3 m high) wind from one side of the map to the
    opposite one; each embankment has up to two round gaps (radius 2 to 5 cells). Where two of a kind cross, the
    deeper or higher one counts. An embankment without gaps is watertight: no two cells with a common edge lie on
    different sides of it.

    Cells of the result are meant to be 8 m wide; the real cells' ratio of width to height (0.81) is not kept.

    Args:
        shape: Rows and columns, at least 8 each.
        split: Columns 0 to 269 (`"train"`) or 290 to 402 (`"test"`) of the real elevations.
        zoom: Cells of the result for each real cell; above 301 cells a side, a test map needs more than the default.

    Examples:
        >>> parts = terrain((48, 64), "train", rng=np.random.default_rng(1))
        >>> bool(parts.canals.max() >= 0.5), bool(parts.embankments.max() >= 1.0), parts.z.shape
        (True, True, (48, 64))
    """
    one_of("split", split, get_args(Split))
    numpy_generator("rng", rng)
    rows, columns = (positive_integer("shape", side) for side in pair("shape", shape))
    if min(rows, columns) < _SMALLEST_SIDE:
        raise ValueError(f"both sides of shape must have at least {_SMALLEST_SIDE} cells; shape is {(rows, columns)}")
    ground, source = _ground((rows, columns), rng, split, positive_number("zoom", zoom))
    canals, embankments = np.zeros_like(ground), np.zeros_like(ground)
    for _ in range(rng.integers(1, 3)):
        distance, _ = _winding_line((rows, columns), rng)
        width, depth = rng.uniform(2, 4), rng.uniform(0.5, 1.5)
        canals = np.maximum(canals, np.where(distance <= width / 2, depth, 0.0))
    for _ in range(rng.integers(1, 4)):
        distance, line = _winding_line((rows, columns), rng)
        width, height = rng.uniform(1.5, 3), rng.uniform(1, 3)
        wall = distance <= width / 2
        for _ in range(rng.integers(0, 3)):
            middle, radius = line[rng.integers(len(line))], rng.uniform(2, 5)
            wall &= np.hypot(*(np.indices(ground.shape) - middle[:, None, None])) > radius
        embankments = np.maximum(embankments, np.where(wall, height, 0.0))
    return Terrain(ground, canals, embankments, source)


def _ground(
    shape: tuple[int, int], rng: np.random.Generator, split: Split, zoom: float
) -> tuple[NDArray[np.float64], tuple[int, int, int, int]]:
    """Smooth ground of a few metres of relief, and the window of the real elevations that it comes from."""
    first, last = REGIONS[split]
    region = _kept_dem().z[:, first:last]
    # a cubic spline asks for four points a side
    crop = [max(4, round(side / zoom)) for side in shape]
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    # Checked for both ways up, so that whether it fails does not depend on the draw.
    if max(crop) > min(region.shape):
        raise ValueError(
            f"shape {shape} at zoom {zoom:g} asks for {max(crop)} real cells a side; the region of {split!r} has "
            f"{min(region.shape)}: ask for a smaller shape or a zoom of at least {max(shape) / min(region.shape):.3g}"
        )
    height, width = crop if turns % 2 == 0 else crop[::-1]
    while True:
        top = int(rng.integers(region.shape[0] - height + 1))
        left = int(rng.integers(region.shape[1] - width + 1))
        piece = region[top : top + height, left : left + width]
        # elevations are whole metres: a very small crop can be level, and has no relief to scale
        if np.ptp(piece) > 0:
            break
    piece = np.rot90(piece, turns)
    piece = piece[:, ::-1] if mirrored else piece
    scale = [side / real for side, real in zip(shape, crop, strict=True)]
    smooth = ndimage.zoom(piece, scale, order=3, mode="nearest", grid_mode=True)
    smooth = ndimage.gaussian_filter(smooth, zoom / 2, mode="nearest")
    smooth = (smooth - smooth.min()) * (rng.uniform(3, 8) / np.ptp(smooth))
    return smooth, (top, top + height, first + left, first + left + width)


def _winding_line(shape: tuple[int, int], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A random line from one side to the opposite one: each cell's distance to it, and its points (row, column) inside.

    The line begins and ends a few cells outside, so that nothing passes round its ends.
    """
    rows, columns = shape
    down = bool(rng.integers(2))
    length, across = (rows, columns) if down else (columns, rows)
    count = int(rng.integers(4, 7))
    along = np.linspace(-5.0, length + 4.0, count)
    start, end = rng.uniform(0.1, 0.9, 2) * (across - 1)
    offsets = np.linspace(start, end, count) + rng.normal(0.0, 0.08 * across, count)
    vertices = np.stack([along, offsets] if down else [offsets, along], axis=1)
    square = np.full(shape, np.inf)
    points = []
    for a, b in pairwise(vertices):
        step = b - a
        south, east = np.arange(rows)[:, None] - a[0], np.arange(columns) - a[1]
        share = np.clip((south * step[0] + east * step[1]) / (step @ step), 0.0, 1.0)
        square = np.minimum(square, (south - share * step[0]) ** 2 + (east - share * step[1]) ** 2)
        points.append(a + np.linspace(0, 1, 32)[:, None] * step)
    line = np.concatenate(points)
    inside = np.all((line >= 0) & (line <= np.array(shape) - 1), axis=1)
    # a line may wind out of the map for a part of its way, hardly for all of it
    return np.sqrt(square), line[inside] if inside.any() else np.array([[rows / 2, columns / 2]])


def block_features(z: Tensor, factor: int) -> Tensor:
    """Nine numbers about each block of an elevation map, with which a small network can place a coarse cell.

    In the order of `FEATURES`: minimum, maximum, quantiles 10, 50 and 90 % (linear between cells, as in NumPy),
    standard deviation (over all cells, not all but one), saddles, mean. The saddle from west to east is the
    elevation to which water must rise to cross the block from its west to its east column, through edges of cells
    and within the block: the smallest, over all ways, of the highest elevation on the way. It tells a wall from a
    slope of the same mean.

    Args:
        z: Maps (..., R, C) [m], floating point. Gradients flow; a saddle's goes to the cell that is the pass.
        factor: Cells along a side of a block.

    Returns:
        (..., 9, R / factor, C / factor) [m], of the dtype and on the device of `z`.

    Examples:
        A wall from north to south, 3 m high, with an opening 1 m above the ground:

        >>> z = torch.zeros(4, 4)
        >>> z[:, 2] = 3.0
        >>> z[1, 2] = 1.0
        >>> found = dict(zip(FEATURES, block_features(z, 4)[:, 0, 0].tolist()))
        >>> found["saddle_west_east"], found["saddle_north_south"]
        (1.0, 0.0)
    """
    cut = blocks(elevation_tensor("z", z), factor)
    cells = cut.flatten(-2)
    ordered = cells.sort(-1).values
    variance = cells.var(-1, correction=0)
    # the root's slope at 0 is infinite: a level block gets 0 and no gradient
    level = variance <= 0
    std = torch.where(level, 0.0, torch.where(level, 1.0, variance).sqrt())
    return torch.stack(
        [
            ordered[..., 0],
            ordered[..., -1],
            *(_quantile(ordered, level) for level in (0.1, 0.5, 0.9)),
            std,
            _saddle(cut),
            _saddle(cut.transpose(-2, -1)),
            cells.mean(-1),
        ],
        dim=-3,
    )


def _quantile(ordered: Tensor, level: float) -> Tensor:
    """A quantile of sorted entries along the last axis; torch.quantile refuses more than 16 million entries."""
    place = level * (ordered.shape[-1] - 1)
    below = int(place)
    above = min(below + 1, ordered.shape[-1] - 1)
    return ordered[..., below] + (place - below) * (ordered[..., above] - ordered[..., below])


def _saddle(cut: Tensor) -> Tensor:
    """The lowest pass from the first to the last column of blocks (..., f, f)."""
    with torch.no_grad():
        z = cut.detach()
        reach = torch.full_like(z, torch.inf)
        reach[..., 0] = z[..., 0]
        while True:
            # Each sweep makes every way one cell longer. Values only fall, and are elevations: it ends.
            lowest = reach.clone()
            lowest[..., 1:] = torch.minimum(lowest[..., 1:], reach[..., :-1])
            lowest[..., :-1] = torch.minimum(lowest[..., :-1], reach[..., 1:])
            lowest[..., 1:, :] = torch.minimum(lowest[..., 1:, :], reach[..., :-1, :])
            lowest[..., :-1, :] = torch.minimum(lowest[..., :-1, :], reach[..., 1:, :])
            swept = torch.maximum(lowest, z)
            if torch.equal(swept, reach):
                break
            reach = swept
        height = reach[..., -1].amin(-1)
        where = (z.flatten(-2) == height[..., None]).to(torch.uint8).argmax(-1, keepdim=True)
    # The pass is the elevation of one of the cells: read from there, it has that cell's gradient.
    return cut.flatten(-2).gather(-1, where)[..., 0]
