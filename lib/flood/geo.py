"""Elevation maps from GeoTIFF, flood maps to GeoTIFF and NetCDF-CF: what geographic information systems read.

Needs the extra `geo` (rasterio, xarray, pyproj, h5netcdf): `pip install paperplay[geo]`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.files import atomic_path
from lib.flood.pooling import elevation_tensor
from lib.flood.terrain import real_dem
from lib.validation import finite_array, positive_integer, positive_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lib.flood.solver import FloodResult

__all__ = ["Dem", "coarse_profile", "read_dem", "sample_geotiff", "to_xarray", "write_depth"]

Profile = Mapping[str, Any]

#: Cells whose sides differ by less than this share count as square: transforms are stored rounded.
_SQUARE = 1e-6


class Dem(NamedTuple):
    """An elevation map from a file.

    Attributes
    ----------
    z
        Elevations (R, C) float64 [m], row 0 in the north.
    dx
        Side of a cell [m].
    profile
        Where it lies: what rasterio calls a profile, with `crs`, `transform`, `height` and `width` among its keys.
    """

    z: Tensor
    dx: float
    profile: dict[str, Any]


def _geo(name: str) -> Any:
    """Import a module of the extra, or say how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{name} is needed for GeoTIFF and NetCDF files and cannot be imported ({error}): "
            "install the extra geo, pip install 'paperplay[geo]'"
        ) from error


def read_dem(path: str | os.PathLike[str], *, fill: float | None = None) -> Dem:
    """Read an elevation map from a GeoTIFF, or from any other single-band raster that GDAL knows.

    Parameters
    ----------
    path
        The file.
    fill
        Elevation [m] of cells that have none (nodata, masked, NaN or infinite); without it they are an error. A fill
        far above the ground makes them a wall, one below a sink.

    Returns
    -------
    Dem
        `(z, dx, profile)`: elevations (R, C) float64 tensor [m], side of a cell [m], profile for `write_depth`.

    Raises
    ------
    ImportError
        If rasterio is not installed.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no raster or has several bands; if it has no coordinate reference system, or one in degrees or in
        units other than metres; if it is turned or upside down, or its cells are not square; or if cells have no
        elevation and `fill` is not given. The message says what to do.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     z, dx, profile = read_dem(sample_geotiff(Path(folder) / "dem.tif"))
    >>> z.dtype, dx, profile["crs"].to_epsg()
    (torch.float64, 90.0, 32616)
    """
    rasterio = _geo("rasterio")
    path = Path(path)
    if fill is not None and not np.isfinite(fill):
        raise ValueError(f"fill must be a finite elevation; it is {fill}")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    with warnings.catch_warnings():
        # said below, as an error that tells what to do
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            opened = rasterio.open(path)
        except rasterio.errors.RasterioIOError as error:
            raise ValueError(f"{path} is no raster that can be read: {error}") from error
    with opened as dataset:
        if dataset.count != 1:
            raise ValueError(
                f"{path} has {dataset.count} bands, an elevation map has one: pick it "
                "(gdal_translate -b 1 in.tif out.tif)"
            )
        profile = dict(dataset.profile)
        dx = _metric_grid(profile, str(path))
        try:
            stored = dataset.read(1, masked=True)
        except rasterio.errors.RasterioIOError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        nodata, scale, offset = dataset.nodata, dataset.scales[0], dataset.offsets[0]
    if stored.dtype.kind not in "iuf":
        raise ValueError(f"{path} must hold real numbers; it holds {stored.dtype}")
    elevation = np.ma.getdata(stored).astype(np.float64) * scale + offset
    missing = np.ma.getmaskarray(stored) | ~np.isfinite(elevation)
    if missing.any():
        if fill is None:
            raise ValueError(
                f"{missing.sum()} of the {missing.size} cells of {path} have no elevation (nodata value {nodata}): "
                "crop the map to a part without holes, or pass fill=<elevation in metres> for them"
            )
        elevation[missing] = fill
    return Dem(torch.from_numpy(elevation), dx, profile)


def _metric_grid(profile: Profile, name: str) -> float:
    """The side [m] of a profile's cells, after a check that they are north-up squares in metres."""
    crs, transform = profile.get("crs"), profile.get("transform")
    if transform is None or not crs:
        raise ValueError(
            f"{name} has no coordinate reference system, so the size of its cells is unknown: assign the one it was "
            "made in (gdal_edit.py -a_srs EPSG:<code> file.tif)"
        )
    warp = "gdalwarp -t_srs EPSG:<code of the UTM zone> -tr <metres> <metres> -r bilinear in.tif out.tif"
    if not crs.is_projected:
        raise ValueError(f"{name} has coordinates in degrees ({crs}), the solver needs metres: reproject it ({warp})")
    unit, metres = crs.linear_units_factor
    if metres != 1.0:
        raise ValueError(f"{name} has coordinates in units of {unit}, the solver needs metres: reproject it ({warp})")
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise ValueError(f"{name} must have north up and west left; it is turned or mirrored: straighten it ({warp})")
    if abs(transform.a + transform.e) > _SQUARE * transform.a:
        raise ValueError(
            f"{name} must have square cells; they are {transform.a:g} m by {-transform.e:g} m: resample it ({warp})"
        )
    return float(transform.a)


def coarse_profile(profile: Profile, factor: int) -> dict[str, Any]:
    """Give the profile of a map whose cells are `factor` times as wide, for depths that were found on pooled ground.

    Raises
    ------
    ValueError
        If a side is no multiple of the factor, or the profile is not that of a metric, north-up map of squares.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fine = read_dem(sample_geotiff(Path(folder) / "dem.tif", shape=(64, 96))).profile
    >>> coarse = coarse_profile(fine, 16)
    >>> coarse["height"], coarse["width"], coarse["transform"].a
    (4, 6, 1440.0)
    """
    factor = positive_integer("factor", factor)
    _metric_grid(profile, "profile")
    height, width = profile["height"], profile["width"]
    if height % factor or width % factor:
        raise ValueError(f"both sides of a map must be multiples of the factor {factor}; they are {height} x {width}")
    fine = profile["transform"]
    transform = type(fine)(fine.a * factor, 0, fine.c, 0, fine.e * factor, fine.f)
    return {**profile, "height": height // factor, "width": width // factor, "transform": transform}


def write_depth(path: str | os.PathLike[str], h: Tensor, profile: Profile) -> Path:
    """Write water depths as a GeoTIFF, whole or not at all.

    Parameters
    ----------
    path
        The file; an old one is replaced, missing folders are made.
    h
        Depths (R, C) [m], float32 or float64, which the file keeps; dry cells are 0, and there is no nodata value.
    profile
        From `read_dem`, or `coarse_profile` for a coarser map.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImportError
        If rasterio is not installed.
    TypeError
        If `h` is no floating-point tensor.
    ValueError
        If `h` is not finite or does not have the profile's shape, or the profile lacks a reference system in metres.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     z, dx, profile = read_dem(sample_geotiff(Path(folder) / "dem.tif"))
    ...     path = write_depth(Path(folder) / "depth.tif", torch.full_like(z, 0.25), profile)
    ...     read_dem(path).z.unique()
    tensor([0.2500], dtype=torch.float64)
    """
    _metric_grid(profile, "profile")
    depths = _depths("h", h, profile, axes=2)
    _write_metres(path, depths, "water depth", profile["crs"], profile["transform"])
    return Path(path)


def _write_metres(
    path: str | os.PathLike[str], values: NDArray[np.floating[Any]], name: str, crs: Any, transform: Any
) -> None:
    """One band of lengths, whole or not there."""
    settings: dict[str, Any] = {"dtype": values.dtype.name, "crs": crs, "transform": transform}
    settings |= {"height": values.shape[0], "width": values.shape[1], "count": 1}
    with (
        atomic_path(path) as temporary,
        _geo("rasterio").open(temporary, "w", driver="GTiff", compress="deflate", predictor=3, **settings) as dataset,
    ):
        dataset.write(values, 1)
        dataset.set_band_description(1, name)
        dataset.set_band_unit(1, "m")


def _depths(name: str, h: Tensor, profile: Profile, *, axes: int) -> NDArray[np.floating[Any]]:
    """Depths as an array (..., R, C) of the profile's size."""
    h = elevation_tensor(name, h).detach().cpu()
    if h.dtype not in (torch.float32, torch.float64):
        h = h.float()
    size = (profile["height"], profile["width"])
    if h.ndim != axes or h.shape[-2:] != size:
        wanted = ", ".join(["T"] * (axes - 2) + [str(side) for side in size])
        raise ValueError(f"{name} must have shape ({wanted}) like the profile; its shape is {tuple(h.shape)}")
    return np.asarray(h)


def to_xarray(
    depths: FloodResult | Tensor,
    profile: Profile,
    times: Sequence[float] | None = None,
    *,
    start: str = "2000-01-01",
) -> Any:
    """Put depths over time into a dataset after the NetCDF climate and forecast conventions (CF 1.11).

    Parameters
    ----------
    depths
        What `LocalInertialSolver.simulate` returns for one map: its `history`, or without one its last depths. Or a
        tensor of depths (T, R, C) or (R, C) [m].
    profile
        From `read_dem`, or `coarse_profile` for a coarser map.
    times
        Seconds since `start`, ascending, one for each map: the `save_times` of the run. May be left out for the last
        depths of a result.
    start
        Date and time at which the flood begins, as ISO 8601 writes them, in universal time. CF has no time without
        a date; the default says nothing about a real event.

    Returns
    -------
    xarray.Dataset
        Variable `depth` (time, y, x) [m] with the standard name `flood_water_thickness`; coordinates of the cells'
        centres [m]; the coordinate reference system in the variable `crs`, to which `grid_mapping` points.
        `to_netcdf(path)` writes it.

    Raises
    ------
    ImportError
        If xarray or pyproj is not installed.
    TypeError
        If `depths` is neither a result nor a floating-point tensor.
    ValueError
        If shapes do not fit together, times are missing, not ascending, or not as many as there are maps, `start` is
        no date, a depth is NaN or infinite, or the profile lacks a reference system in metres.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     z, dx, profile = read_dem(sample_geotiff(Path(folder) / "dem.tif", shape=(32, 48)))
    >>> flood = to_xarray(torch.zeros(2, 32, 48), profile, times=[0, 600])
    >>> dict(flood.depth.sizes), flood.depth.attrs["units"], flood.crs.attrs["grid_mapping_name"]
    ({'time': 2, 'y': 32, 'x': 48}, 'm', 'transverse_mercator')
    """
    xarray, pyproj = _geo("xarray"), _geo("pyproj")
    dx = _metric_grid(profile, "profile")
    maps, times = _frames(depths, times)
    values = _depths("depths", maps, profile, axes=3)
    seconds = finite_array("times", times, shape=(len(values),))
    if np.any(np.diff(seconds) <= 0):
        raise ValueError(f"times must ascend; they are {seconds.tolist()}")
    try:
        began = np.datetime64(start, "s")
    except (TypeError, ValueError) as error:
        raise ValueError(f"start must be a date as in 2000-01-31 or 2000-01-31T12:00; it is {start!r}") from error
    moments = began.astype("datetime64[ns]") + np.round(seconds * 1e9).astype("timedelta64[ns]")
    transform = profile["transform"]
    x = transform.c + dx * (np.arange(values.shape[2]) + 0.5)
    y = transform.f - dx * (np.arange(values.shape[1]) + 0.5)
    dataset = xarray.Dataset(
        {
            "depth": (
                ("time", "y", "x"),
                values,
                {
                    "standard_name": "flood_water_thickness",
                    "long_name": "water depth",
                    "units": "m",
                    "cell_methods": "time: point area: mean",
                    "grid_mapping": "crs",
                },
            ),
            "crs": ((), np.int32(0), pyproj.CRS.from_wkt(profile["crs"].to_wkt()).to_cf()),
        },
        {
            "time": ("time", moments, {"standard_name": "time", "long_name": "time", "axis": "T"}),
            "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "m", "axis": "Y"}),
            "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "m", "axis": "X"}),
        },
        {"Conventions": "CF-1.11", "title": "Water depths of a flood", "source": "paperplay, local-inertial solver"},
    )
    dataset.time.encoding = {
        "units": f"seconds since {began}",
        "dtype": "float64",
        "_FillValue": None,
    }
    # CF forbids missing coordinates, and no depth is missing
    for name in ("y", "x", "depth"):
        dataset[name].encoding = {"_FillValue": None}
    dataset.depth.encoding["zlib"] = True
    return dataset


def _frames(depths: FloodResult | Tensor, times: Sequence[float] | None) -> tuple[Tensor, Sequence[float]]:
    """Depths (T, R, C) and their times, from any of the three things that are accepted."""
    history = getattr(depths, "history", None)
    if isinstance(depths, Tensor):
        maps = depths[None] if depths.ndim == 2 else depths
    elif history is not None:
        maps = history
    elif hasattr(depths, "h") and hasattr(depths, "time"):
        maps = depths.h[None]
        if times is None and depths.h.ndim == 2:
            times = [float(torch.as_tensor(depths.time))]
    else:
        raise TypeError(f"depths must be a result of simulate or a tensor; it is {type(depths).__name__}")
    if times is None:
        raise ValueError(f"times must name the {len(maps)} maps' times in seconds: pass the save_times of the run")
    return maps, times


def sample_geotiff(path: str | os.PathLike[str], *, dx: float = 90.0, shape: tuple[int, int] | None = None) -> Path:
    """Write the real elevations of `real_dem` as a projected GeoTIFF, to try the functions of this module on.

    Parameters
    ----------
    path
        The file to write.
    dx
        Side of a cell [m].
    shape
        Rows and columns from the middle of the map; the largest map without holes if not given.

    Returns
    -------
    Path
        The file: float32 [m], in the Universal Transverse Mercator zone 16 north (EPSG 32616), the elevations
        interpolated linearly. Their datum is taken to be WGS 84.

    Raises
    ------
    ImportError
        If rasterio is not installed.
    ValueError
        If `dx` is not positive, or the map is smaller than `shape`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_dem(sample_geotiff(Path(folder) / "dem.tif", shape=(64, 64))).z.shape
    torch.Size([64, 64])
    """
    rasterio, warp = _geo("rasterio"), _geo("rasterio.warp")
    dx = positive_number("dx", dx)
    degrees, source = rasterio.Affine(1 / 1200, 0, _WEST, 0, -1 / 1200, _NORTH), real_dem().z.astype(np.float32)
    bounds = (_WEST, _NORTH - source.shape[0] / 1200, _WEST + source.shape[1] / 1200, _NORTH)
    utm = "EPSG:32616"
    west, south, east, north = warp.transform_bounds("EPSG:4326", utm, *bounds)
    height, width = int((north - south) / dx), int((east - west) / dx)
    transform = rasterio.Affine(dx, 0, west, 0, -dx, north)
    projected = np.full((height, width), np.nan, np.float32)
    warp.reproject(
        source,
        projected,
        src_transform=degrees,
        src_crs="EPSG:4326",
        dst_transform=transform,
        dst_crs=utm,
        dst_nodata=np.nan,
        resampling=warp.Resampling.bilinear,
    )
    top, bottom, left, right = _without_holes(np.isnan(projected))
    if shape is not None:
        rows, columns = (positive_integer("shape", side) for side in shape)
        if rows > bottom - top or columns > right - left:
            raise ValueError(f"shape must fit into {bottom - top} x {right - left} cells of {dx:g} m; it is {shape}")
        top, left = top + (bottom - top - rows) // 2, left + (right - left - columns) // 2
        bottom, right = top + rows, left + columns
    piece = projected[top:bottom, left:right]
    transform = rasterio.Affine(dx, 0, west + left * dx, 0, -dx, north - top * dx)
    _write_metres(path, piece.astype(np.float32), "elevation", utm, transform)
    return Path(path)


#: The north-western corner of the sample elevations [degrees].
_WEST, _NORTH = -84.41375, 36.73291666666667


def _without_holes(holes: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """A large window (top, bottom, left, right) without holes: the worst side is cut off until none is left."""
    top, bottom, left, right = 0, holes.shape[0], 0, holes.shape[1]
    while holes[top:bottom, left:right].any():
        inside = holes[top:bottom, left:right]
        shares = [inside[0].mean(), inside[-1].mean(), inside[:, 0].mean(), inside[:, -1].mean()]
        worst = int(np.argmax(shares))
        top, bottom, left, right = top + (worst == 0), bottom - (worst == 1), left + (worst == 2), right - (worst == 3)
    return top, bottom, left, right
