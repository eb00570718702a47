"""Pictures of floods: shaded ground with the water's depth over it.

The shading is the usual one of maps: light from the north-west, 45 degrees high, on matt ground (Lambert's law).
Ground that floods is nearly level and would show nothing, so its slopes are exaggerated by a round factor, which
pictures state.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lib.files import atomic_path
from lib.style import COLOURS, MATPLOTLIB
from lib.validation import finite_array, positive_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

__all__ = ["WATER", "exaggeration", "flood_picture", "hillshade", "shaded_flood"]

#: Where the light comes from, as a unit vector to the east, to the north, upwards.
_LIGHT = (-0.5, 0.5, math.sqrt(0.5))
#: Mean of the slopes that the shading is meant to show.
_SHOWN_SLOPE = 0.3
#: The ground in full shadow and in full light.
_SHADOW, _SUN = np.array([100.0, 95.0, 88.0]), np.array([253.0, 251.0, 246.0])


_SCALE = LinearSegmentedColormap.from_list("water", ("#A8D8F4", COLOURS["sky"], COLOURS["blue"], "#08264F"), 256)
#: The colours of water (256, 3) uint8, from shallow to deep.
WATER = (255 * _SCALE(np.arange(256))[:, :3]).round().astype(np.uint8)


def _slopes(z: NDArray[np.float64], dx: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slopes (R, C) [-] to the east and to the north."""
    east, north = (
        np.gradient(z, dx, axis=axis) if z.shape[axis] > 1 else np.zeros_like(z)  # one row has no slope across it
        for axis in (1, 0)
    )
    return east, -north


def exaggeration(z: ArrayLike, dx: float) -> float:
    """By how much slopes have to be steepened to be seen in a shaded picture: 1, 2, 5, 10, 20, 50, ...

    The largest round number with which the mean slope of `z` (R, C) [m], with cells of side `dx` [m], is at most 0.3,
    but no less than 1 and no more than 1000.

    Examples:
        >>> exaggeration([[0.0, 1.0, 0.0], [1.0, 2.0, 1.0]], 100.0)
        20.0
    """
    # the mean, not its square: a few steep walls must not hide the rest
    slope = float(np.hypot(*_slopes(_ground(z), positive_number("dx", dx))).mean())
    wanted = min(max(_SHOWN_SLOPE / max(slope, 1e-9), 1.0), 1000.0)
    power = 10.0 ** math.floor(math.log10(wanted))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= wanted)


def hillshade(z: ArrayLike, dx: float) -> NDArray[np.float64]:
    """Brightness of the ground in light from the north-west, for a backdrop.

    The cosine of the angle between the light and the ground's normal, 0 where the light does not reach; slopes are
    steepened by `exaggeration`. Shadows that one hill casts on another are left out.

    Args:
        z: Elevations (R, C) [m], row 0 in the north.
        dx: Side of a cell [m].

    Returns:
        (R, C), from 0 to 1; level ground is 0.707.

    Examples:
        A ridge from north to south: light on its western side, shadow on its eastern side.

        >>> hillshade([[0.0, 50.0, 100.0, 50.0, 0.0]] * 2, 100.0).round(2)[0]
        array([0.86, 0.86, 0.71, 0.41, 0.41])
    """
    factor = exaggeration(z, dx)
    east, north = (factor * slope for slope in _slopes(_ground(z), dx))
    lit = (_LIGHT[2] - _LIGHT[0] * east - _LIGHT[1] * north) / np.sqrt(1 + east * east + north * north)
    return np.clip(lit, 0.0, 1.0, out=lit)


def shaded_flood(
    z: ArrayLike, h: ArrayLike, dx: float, *, threshold: float = 0.05, vmax: float | None = None
) -> NDArray[np.uint8]:
    """Shaded ground and, where it is flooded, the colour of the water's depth: an image, made in well under 2 ms.

    The ground shows through the water as a slight change of brightness; on level ground the colours are those of
    `WATER`, so that a colour bar can be read.

    Args:
        z, h: Elevations and depths (R, C) [m], row 0 in the north.
        dx: Side of a cell [m].
        threshold: Depth [m] down to which water is not shown.
        vmax: Depth [m] of the darkest colour; 0 has the lightest. The largest depth by default. Live figures should fix
            it, or colours change their meaning from one picture to the next.

    Returns:
        (R, C, 3) uint8: red, green, blue.

    Examples:
        >>> shaded_flood([[0.0, 0.0]], [[0.0, 1.0]], 10.0)
        array([[[208, 205, 199],
                [  8,  38,  79]]], dtype=uint8)
    """
    ground = _ground(z)
    depth = finite_array("h", h, shape=ground.shape)
    threshold = positive_number("threshold", threshold)
    deepest = max(float(depth.max()), threshold) if vmax is None else positive_number("vmax", vmax)
    shade = hillshade(ground, dx)[..., None]
    flooded = (depth > threshold)[..., None]
    return np.where(flooded, _water(depth, shade, deepest), _land(shade))


def _land(shade: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours (R, C, 3) of dry ground; `shade` is (R, C, 1)."""
    return np.asarray(_SHADOW + (_SUN - _SHADOW) * shade, dtype=np.uint8)


def _water(depth: NDArray[np.float64], shade: NDArray[np.float64], deepest: float) -> NDArray[np.uint8]:
    """Colours (R, C, 3) of water over ground with the brightness `shade` (R, C, 1)."""
    colour = WATER[(np.clip(depth / deepest, 0, 1) * 255).astype(np.intp)]
    return (colour * (1 + 0.35 * (shade - _LIGHT[2]))).clip(0, 255).astype(np.uint8)


def _ground(z: ArrayLike) -> NDArray[np.float64]:
    """Elevations as an array with two axes and at least one cell."""
    ground = finite_array("z", z, ndim=2)
    if not ground.size:
        raise ValueError(f"z must have cells; its shape is {ground.shape}")
    return ground


def flood_picture(
    z: ArrayLike,
    h: ArrayLike,
    dx: float,
    path: str | os.PathLike[str],
    *,
    threshold: float = 0.05,
    vmax: float | None = None,
    title: str | None = None,
    profile: Mapping[str, Any] | None = None,
) -> Path:
    """Draw a flood as a PNG: shaded ground, the water's depth over it, a colour bar, and axes in metres.

    Args:
        z, h, dx, threshold: See `shaded_flood`.
        path: An old file is replaced, missing folders are made.
        vmax: Depth [m] of the darkest colour; by default one that 5 per cent of the flooded cells exceed, rounded up.
        title: A line above the map.
        profile: From `read_dem`: the axes then show coordinates of the map instead of distances from its south-western
            corner, and cells without data are left blank.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = flood_picture([[0.0, 1.0, 0.0]] * 3, [[0.0, 0.0, 0.5]] * 3, 10.0, Path(folder) / "flood.png")
        ...     path.read_bytes()[1:4]
        b'PNG'
    """
    ground = _ground(z)
    extent = _extent(ground.shape, positive_number("dx", dx), profile)
    empty = np.broadcast_to(False if profile is None else profile.get("missing", False), ground.shape)
    depth = np.where(empty, 0.0, finite_array("h", h, shape=ground.shape))
    if empty.any() and not empty.all():
        ground = np.where(empty, np.median(ground[~empty]), ground)
    flooded = depth[depth > positive_number("threshold", threshold)]
    top = _top_of_scale(flooded, threshold) if vmax is None else positive_number("vmax", vmax)
    shade = hillshade(ground, dx)[..., None]
    shown = np.where(depth > threshold, 255, 0).astype(np.uint8)
    rows, columns = ground.shape
    height = min(max(7.0 * rows / columns, 2.0), 10.0)
    with rc_context({**MATPLOTLIB, "axes.grid": False, "savefig.dpi": 150}):
        width = min(max(height * columns / rows, 2.0), 7.0)
        figure = Figure(figsize=(width + 2.0, height + 1.3), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        axis = figure.add_subplot()
        # the ground is smooth between its cells; the water's cells stay cells, in which a depth can be read
        land = np.dstack([_land(shade), np.where(empty, 0, 255).astype(np.uint8)])
        axis.imshow(land if empty.any() else land[..., :3], extent=extent, interpolation="hanning")
        axis.imshow(np.dstack([_water(depth, shade, top), shown]), extent=extent)
        _label(axis, profile, exaggeration(ground, dx))
        if title is not None:
            axis.set_title(title, loc="left")
        scale = ScalarMappable(Normalize(0, top), _SCALE)
        beyond = "max" if flooded.size and flooded.max() > top else "neither"
        bar = figure.colorbar(scale, ax=axis, extend=beyond, shrink=0.85, pad=0.02, aspect=25, label="water depth [m]")
        bar.outline.set_visible(False)
        if not flooded.size:
            words = f"no water deeper than {threshold:g} m"
            paper = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round"}
            axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center", bbox=paper)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
    return Path(path)


def _top_of_scale(flooded: NDArray[np.float64], threshold: float) -> float:
    """A depth that few cells exceed, rounded up to a number that reads well."""
    depth = max(float(np.quantile(flooded, 0.95)), 2 * threshold) if flooded.size else 2 * threshold
    power = 10.0 ** math.floor(math.log10(depth))
    steps = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
    return next(step * power for step in steps if step * power >= depth)


def _extent(shape: tuple[int, ...], dx: float, profile: Mapping[str, Any] | None) -> tuple[float, float, float, float]:
    """West, east, south and north edge of the map [m]."""
    rows, columns = shape
    west = south = 0.0
    if profile is not None:
        if not isinstance(profile, Mapping) or not {"height", "width", "transform"} <= set(profile):
            raise TypeError(f"profile must be that of a map, from read_dem; it is {type(profile).__name__}")
        size = (profile["height"], profile["width"])
        if size != shape:
            raise ValueError(f"profile must be that of z, with {rows} x {columns} cells; it has {size[0]} x {size[1]}")
        west, south = profile["transform"].c, profile["transform"].f - rows * dx
    return west, west + columns * dx, south, south + rows * dx


def _label(axis: Axes, profile: Mapping[str, Any] | None, factor: float) -> None:
    """Names and numbers of the axes, and how the ground is shaded."""
    names = ("easting [m]", "northing [m]") if profile is not None else ("west to east [m]", "south to north [m]")
    for side, name in zip((axis.xaxis, axis.yaxis), names, strict=True):
        # few ticks: coordinates have six or seven digits, set in groups of three
        side.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace(",", "\u2009")))
        side.set_label_text(name)
    axis.tick_params(axis="y", labelrotation=90)
    for label in axis.get_yticklabels():
        label.set_verticalalignment("center")
    if factor > 1:
        words = f"slopes of the ground shaded {factor:g}-fold"
        look: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 8, "color": COLOURS["grey"]}
        axis.annotate(words, (1, 0), (0, -30), "axes fraction", "offset points", **look)
