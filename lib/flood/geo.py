"""Elevations and rain from GeoTIFF and other rasters, flood maps to GeoTIFF and NetCDF-CF.

Needs the extra `geo`: `pip install paperplay[geo]`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.files import AnyPath, atomic_path, known_path
from lib.flood.pooling import elevation_tensor
from lib.flood.solver import FloodResult
from lib.flood.terrain import real_dem
from lib.flood.units import EARTH, WEATHER, metres, millimetres_per_hour, refuse_voids
from lib.validation import finite_array, finite_number, instance_of, pair, positive_integer, positive_number

try:
    import pyproj
    import rasterio
    import xarray
    from pyproj.aoi import AreaOfInterest
    from pyproj.database import query_utm_crs_info
    from rasterio.warp import Resampling, reproject
except ImportError as error:
    raise ImportError(
        f"{error.name} is needed for GeoTIFF and NetCDF files and cannot be imported ({error}): "
        "install the extra geo, pip install 'paperplay[geo]'"
    ) from error

__all__ = ["Dem", "coarse_profile", "read_dem", "read_rain", "sample_geotiff", "to_xarray", "write_depth"]

Profile = Mapping[str, Any]

#: How far lengths on the map and on the ground may differ. UTM zones are within 0.1 %, national grids within 1 %, the
#: equal-area map of Europe (EPSG:3035) within 2 % from Cyprus to Iceland; Web Mercator is beyond it from 10 degrees on.
_TRUE = 0.02
#: What depth maps hold where there was no elevation.
_NO_DEPTH = -9999.0


class Dem(NamedTuple):
    """An elevation map from a file: elevations (R, C) float64 [m], row 0 in the north; side of a cell [m]; place.

    The place is what rasterio calls a profile, with `crs` (without heights), `transform`, `height` and `width` among
    its keys. Where cells had no elevation and were filled, `missing` (R, C) bool names them: depths there are written
    as "no data".
    """

    z: Tensor
    dx: float
    profile: dict[str, Any]


def read_dem(
    path: AnyPath, *, fill: float | None = None, nodata: float | None = None, z_unit: str | None = None, crs: Any = None
) -> Dem:
    """Read an elevation map from a GeoTIFF, or from any other single-band raster that GDAL knows.

    The file must hold what a solver in metres needs, else a ValueError says what to do: a projected reference system
    in metres that is true to the ground within 2 %, north up, square cells, heights of a known unit, an elevation in
    every cell.

    Args:
        path: The file, or a part of one in GDAL's words: `"netcdf:terrain.nc:height"`.
        fill: Elevation [m] of cells that have none (nodata, masked, NaN or infinite); without it they are an error. A
            fill far above the ground makes them a wall, one below a sink.
        nodata: Value, in the file's own numbers, of cells without elevation, where the file does not say it. NaN: no
            value is one, also none that looks like it, such as -9999 on dry land.
        z_unit: Unit of the heights, such as `"m"` or `"ft"`, where the file says none, or a wrong one. Without it the
            file's vertical axis decides, and feet become metres.
        crs: Reference system of a file that has none, as pyproj takes it: `"EPSG:32633"`.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     z, dx, profile = read_dem(sample_geotiff(Path(folder) / "dem.tif"))
        >>> z.dtype, dx, profile["crs"].to_epsg()
        (torch.float64, 90.0, 32616)
    """
    fill = None if fill is None else finite_number("fill", fill)
    trusted = isinstance(nodata, float) and math.isnan(nodata)
    if nodata is not None and not trusted:
        nodata = finite_number("nodata", nodata)
    stored, values, unit, profile = _read_band(path)
    if crs is not None:
        given = _reference(crs)
        if _reference(profile["crs"] or given) != given:
            raise ValueError(f"crs must be that of {path}, {profile['crs']}, which has one; it is {crs}")
        profile["crs"] = given
    dx = _metric_grid(profile, str(path))
    elevation = values * _height_unit(profile["crs"], unit, z_unit, str(path))
    missing = np.ma.getmaskarray(stored)
    if nodata is not None:
        missing |= np.isclose(stored.data, nodata, rtol=1e-6, atol=0)
    if not trusted:
        advice = "declare it with nodata={0} (--nodata {0}) if it stands for cells without data"
        refuse_voids(str(path), stored.data[~missing], elevation[~missing], EARTH, f"elevation: {advice}")
    profile["crs"] = rasterio.CRS.from_user_input(_reference(profile["crs"]).to_2d())
    if missing.any():
        holes = f"{missing.sum()} of the {missing.size} cells of {path} have no elevation"
        if missing.all():
            raise ValueError(f"{holes}: there is no ground")
        if fill is None:
            raise ValueError(
                f"{holes} (nodata value {profile['nodata'] if nodata is None else nodata}): "
                "crop the map to a part without holes, or pass fill=<elevation in metres> (--fill) for them"
            )
        elevation[missing] = fill
        profile["missing"] = missing
    return Dem(torch.from_numpy(elevation), dx, profile)


def read_rain(path: AnyPath, profile: Profile) -> Tensor:
    """Read rain (R, C) float64 [m/s], as `simulate` takes it, from a raster on the cells of a map.

    The file, such as a GeoTIFF or NetCDF, has one band in mm/h, or in another unit that it names (mm/day, m s-1,
    kg m-2 s-1); `profile` is from `read_dem`. Where the map has no elevation, no rain falls.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     z, dx, profile = read_dem(sample_geotiff(Path(folder) / "dem.tif", shape=(32, 48)))
        ...     with rasterio.open(Path(folder) / "rain.tif", "w", **profile) as file:
        ...         file.write(np.full((1, 32, 48), 36.0, np.float32))
        ...     read_rain(Path(folder) / "rain.tif", profile).unique()
        tensor([1.0000e-05], dtype=torch.float64)
    """
    dx = _metric_grid(profile, "profile")
    stored, values, unit, its = _read_band(path)
    its["crs"] = its["crs"] or profile["crs"]
    rain = values * millimetres_per_hour(str(path), unit)
    same_size = rain.shape == (profile["height"], profile["width"])
    same_place = its["transform"].almost_equals(profile["transform"], 1e-3 * dx)
    if not (same_size and same_place and _reference(its["crs"]).to_2d() == _reference(profile["crs"]).to_2d()):
        raise ValueError(f"{path} must lie on the cells of the map, {_cells(profile)}; it has {_cells(its)}")
    ground = ~np.asarray(profile.get("missing", np.zeros(rain.shape, bool)))
    holes = int((np.ma.getmaskarray(stored) & ground).sum())
    if holes:
        raise ValueError(f"{path} must have rain wherever the map has ground; {holes} cells have none")
    refuse_voids(str(path), stored.data[ground], rain[ground], WEATHER, "rain: write what fell there")
    return torch.from_numpy(np.where(ground, rain / 3.6e6, 0.0))


def _cells(profile: Profile) -> str:
    t = profile["transform"]
    return (
        f"{profile['height']} x {profile['width']} of {t.a:g} m from x = {t.c:.10g}, y = {t.f:.10g} in {profile['crs']}"
    )


def _read_band(path: AnyPath) -> tuple[np.ma.MaskedArray[Any, Any], NDArray[np.float64], str, dict[str, Any]]:
    """The only band of a raster: numbers as stored, scaled numbers, their unit, and the profile."""
    known_path("path", path)
    try:
        with warnings.catch_warnings():
            # a map without a place is refused later, with what to do
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                if dataset.count == 0 and dataset.subdatasets:
                    raise ValueError(f"{path} holds several maps: name one of them, {', '.join(dataset.subdatasets)}")
                if dataset.count != 1:
                    advice = "pick it (gdal_translate -b 1 in.tif out.tif)"
                    raise ValueError(f"{path} has {dataset.count} bands, a map of one quantity has one: {advice}")
                stored, profile = dataset.read(1, masked=True), dict(dataset.profile)
                scale, offset, unit = dataset.scales[0], dataset.offsets[0], dataset.units[0]
    except rasterio.errors.RasterioIOError as error:
        if not Path(path).exists():
            raise FileNotFoundError(f"there is no file {path}") from error
        raise ValueError(f"{path} is no raster that can be read, or is damaged: {error}") from error
    if stored.dtype.kind not in "iuf":
        raise ValueError(f"{path} must hold real numbers; it holds {stored.dtype}")
    stored = np.ma.masked_invalid(stored.astype(np.float64))
    return stored, stored.data * scale + offset, (unit or "").strip(), profile


def _reference(crs: Any) -> pyproj.CRS:
    """A reference system as pyproj's, from rasterio's or any other form."""
    try:
        return pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"crs must be a coordinate reference system such as EPSG:32633; it is {crs!r}") from error


def _height_unit(crs: Any, band: str, z_unit: str | None, name: str) -> float:
    """The unit [m] of a map's heights: as told, or by its vertical axis; the word of its band must not differ."""
    axes = [axis for axis in _reference(crs).axis_info if axis.direction in ("up", "down")]
    if any(axis.direction == "down" for axis in axes):
        raise ValueError(f"{name} counts depths downwards, an elevation map counts upwards: change their sign")
    if z_unit is not None:
        return metres("z_unit", z_unit)
    by_axis = float(axes[0].unit_conversion_factor) if axes else 1.0
    if band and abs(metres(f"the unit of {name}", band) / by_axis - 1) > 1e-5:
        raise ValueError(
            f"{name} has heights in {band} by its band and in {axes[0].unit_name if axes else 'no unit'} by its "
            "reference system; gdalwarp leaves the band's word also where it has turned heights into metres: say what "
            f"they are with z_unit='{band}' or z_unit='m' (--z-unit)"
        )
    return by_axis


def _metric_grid(profile: Profile, name: str) -> float:
    """The side [m] of a profile's cells, after a check that they are north-up squares in metres on the ground."""
    if not isinstance(profile, Mapping):
        raise TypeError(f"profile must be that of a map, from read_dem; it is {type(profile).__name__}")
    if not profile.get("crs") or not profile.get("transform"):
        raise ValueError(
            f"{name} has no coordinate reference system, so the size of its cells is unknown: give the one it was "
            "made in, crs='EPSG:<code>' (--crs EPSG:<code>)"
        )
    if not profile.get("height") or not profile.get("width"):
        raise ValueError(f"{name} must be that of a map; it has no {'width' if profile.get('height') else 'height'}")
    crs, transform = _reference(profile["crs"]).to_2d(), profile["transform"]
    unit, cell = crs.axis_info[0], transform.a
    longitude, latitude, lengths = _on_the_ground(crs, profile)
    if not crs.is_projected:
        fault = f"has coordinates in {unit.unit_name}s ({profile['crs']}), the solver needs metres"
    elif unit.unit_conversion_factor != 1.0:
        fault = f"has coordinates in units of {unit.unit_name}, the solver needs metres"
    elif transform.b or transform.d or cell <= 0 or transform.e >= 0:
        fault = "must have north up and west left; it is turned or mirrored"
    elif abs(cell + transform.e) > 1e-6 * cell:  # transforms are stored rounded
        fault = f"must have square cells; they are {cell:g} m by {-transform.e:g} m"
    elif not np.all(np.abs(lengths / cell - 1) < _TRUE):
        east, south = lengths[:2].mean(axis=1)
        fault = f"has cells of {cell:g} m in {crs.name} that are {east:.4g} m from west to east and {south:.4g} m from "
        fault += "north to south on the ground"
    else:
        return float(cell)
    here = AreaOfInterest(longitude, latitude, longitude, latitude)
    zone = next((utm.code for utm in query_utm_crs_info("WGS 84", here)), "<code of the UTM zone>")
    side = f"{lengths[:2].mean():.3g}" if np.isfinite(lengths).all() else "<metres>"
    heights = [axis.unit_name for axis in _reference(profile["crs"]).axis_info if axis.direction == "up"]
    then = "".join(f", then read it with z_unit='{unit}'" for unit in heights if unit != "metre")
    warp = f"gdalwarp -t_srs EPSG:{zone} -tr {side} {side} -r bilinear -novshift in.tif out.tif"
    raise ValueError(f"{name} {fault}: reproject it ({warp}){then}")


def _on_the_ground(crs: pyproj.CRS, profile: Profile) -> tuple[float, float, NDArray[np.float64]]:
    """Longitude and latitude of the middle, and lengths (4, 9) [m] in nine cells from corner to corner of the map.

    The lengths are those to the east, to the south, and along the two diagonals, these divided by sqrt(2).
    """
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
    column, row = np.meshgrid(*([0, (n - 1) / 2, n - 1] for n in (profile["width"], profile["height"])))
    corner, east, south, opposite = (
        to_degrees.transform(*(profile["transform"] @ (column.ravel() + right, row.ravel() + down)))
        for right, down in ((0, 0), (1, 0), (0, 1), (1, 1))
    )
    pairs = ((corner, east, 1.0), (corner, south, 1.0), (corner, opposite, math.sqrt(2)), (east, south, math.sqrt(2)))
    return corner[0][4], corner[1][4], np.array([geod.inv(*start, *end)[2] / side for start, end, side in pairs])


def coarse_profile(profile: Profile, factor: int) -> dict[str, Any]:
    """Give the profile of a map whose cells are `factor` times as wide, for depths that were found on pooled ground.

    A coarse cell is without data where all of its cells are.
    """
    factor = positive_integer("factor", factor)
    _metric_grid(profile, "profile")
    height, width = profile["height"], profile["width"]
    if height % factor or width % factor:
        raise ValueError(f"both sides of a map must be multiples of the factor {factor}; they are {height} x {width}")
    height, width = height // factor, width // factor
    transform = profile["transform"] @ rasterio.Affine.scale(factor)
    coarse = {**profile, "height": height, "width": width, "transform": transform}
    if "missing" in profile:
        coarse["missing"] = np.reshape(profile["missing"], (height, factor, width, factor)).all(axis=(1, 3))
    return coarse


def write_depth(path: AnyPath, h: Tensor, profile: Profile) -> Path:
    """Write depths `h` (R, C) [m], float32 or float64, as a GeoTIFF, whole or not at all.

    `profile` is from `read_dem`, or `coarse_profile` for a coarser map. Its `missing` cells are written as -9999,
    which the file then declares as its nodata value.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     z, dx, profile = read_dem(sample_geotiff(Path(folder) / "dem.tif"))
        ...     path = write_depth(Path(folder) / "depth.tif", torch.full_like(z, 0.25), profile)
        ...     read_dem(path).z.unique()
        tensor([0.2500], dtype=torch.float64)
    """
    _metric_grid(profile, "profile")
    depths = _depths("h", h, profile, missing=_NO_DEPTH)
    place = {"crs": _reference(profile["crs"]).to_2d(), "transform": profile["transform"]}
    return _write_metres(path, depths, "water depth", **place, nodata=_NO_DEPTH if "missing" in profile else None)


def _write_metres(path: AnyPath, values: NDArray[Any], name: str, **place: Any) -> Path:
    """One band of lengths, whole or not there."""
    place |= {"count": 1, "dtype": values.dtype.name, "height": values.shape[0], "width": values.shape[1]}
    form = {"driver": "GTiff", "compress": "deflate", "predictor": 3}
    with atomic_path(path) as temporary, rasterio.open(temporary, "w", **form, **place) as dataset:
        dataset.write(values, 1)
        dataset.set_band_description(1, name)
        dataset.set_band_unit(1, "m")
    return Path(path)


def _depths(name: str, h: Tensor, profile: Profile, missing: float, times: tuple[str, ...] = ()) -> NDArray[Any]:
    """Depths (*times, R, C) as an array of the profile's size, with a value where it has no elevation."""
    h = elevation_tensor(name, h).detach().cpu()
    size = (profile["height"], profile["width"])
    if h.ndim != len(times) + 2 or h.shape[-2:] != size:
        wanted = ", ".join(str(side) for side in (*times, *size))
        raise ValueError(f"{name} must have shape ({wanted}) like the profile; its shape is {tuple(h.shape)}")
    values = np.asarray(h if h.dtype in (torch.float32, torch.float64) else h.float())
    return np.where(profile["missing"], values.dtype.type(missing), values) if "missing" in profile else values


def to_xarray(
    depths: FloodResult | Tensor, profile: Profile, times: Sequence[float] | None = None, *, start: str = "2000-01-01"
) -> xarray.Dataset:
    """Put depths over time into a dataset after the NetCDF climate and forecast conventions (CF 1.11).

    Its `to_netcdf(path)` writes it. The variable `depth` (time, y, x) [m] is NaN where the profile has no elevation;
    `crs` is the reference system, where rioxarray finds it.

    Args:
        depths: A tensor (T, R, C) or (R, C) [m], or what `LocalInertialSolver.simulate` returns for one map: its
            `history`, or without one its last depths.
        profile: From `read_dem`, or `coarse_profile` for a coarser map.
        times: Seconds since `start`, ascending: the `save_times` of the run. Not needed for the last depths of a
            result.
        start: Date and time as ISO 8601 writes them, in universal time unless it names another zone, from the year 1 to
            9999 of the Gregorian calendar. CF has no time without a date; the default says nothing about a real event.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     z, dx, profile = read_dem(sample_geotiff(Path(folder) / "dem.tif", shape=(32, 48)))
        >>> flood = to_xarray(torch.zeros(2, 32, 48), profile, times=[0, 600])
        >>> dict(flood.depth.sizes), flood.depth.attrs["units"], flood.crs.attrs["grid_mapping_name"]
        ({'time': 2, 'y': 32, 'x': 48}, 'm', 'transverse_mercator')
    """
    _metric_grid(profile, "profile")
    if isinstance(depths, Tensor):
        maps = depths[None] if depths.ndim == 2 else depths
    else:
        result = instance_of("depths", depths, FloodResult, "a result of simulate or a tensor")
        maps = result.h[None] if result.history is None else result.history
        if times is None and result.history is None:
            times = result.time.reshape(-1).tolist()
    if times is None:
        raise ValueError(f"times must name the {len(maps)} maps' times in seconds: pass the save_times of the run")
    values = _depths("depths", maps, profile, missing=np.nan, times=("T",))
    began, moments = _dates(start, finite_array("times", times, shape=(len(values),)))
    x, _ = profile["transform"] @ (np.arange(values.shape[2]) + 0.5, 0)
    _, y = profile["transform"] @ (0, np.arange(values.shape[1]) + 0.5)
    depth = {"standard_name": "flood_water_thickness", "long_name": "water depth", "units": "m"}
    about = {"title": "Water depths of a flood", "source": "paperplay, local-inertial solver"}
    dataset = xarray.Dataset(
        {"depth": (("time", "y", "x"), values, {**depth, "cell_methods": "time: point area: mean"})},
        {
            "time": ("time", moments, {"standard_name": "time", "long_name": "time", "axis": "T"}),
            "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "m", "axis": "Y"}),
            "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "m", "axis": "X"}),
            "crs": ((), np.int32(0), _reference(profile["crs"]).to_2d().to_cf()),
        },
        # by `coordinates`, readers that are not told to look for the reference system find it as well
        {"Conventions": "CF-1.11", **about, "coordinates": "crs"},
    )
    # CF forbids missing coordinates
    dataset.x.encoding = dataset.y.encoding = {"_FillValue": None}
    since = f"seconds since {began.isoformat(timespec='seconds')}"
    dataset.time.encoding = {"units": since, "dtype": "float64", "_FillValue": None}
    hole = values.dtype.type(_NO_DEPTH) if "missing" in profile else None
    dataset.depth.encoding = {"zlib": True, "grid_mapping": "crs", "_FillValue": hole}
    return dataset


def _dates(start: str, seconds: NDArray[np.float64]) -> tuple[datetime, NDArray[np.datetime64]]:
    """The start in universal time, and the dates so many seconds later, to the microsecond.

    numpy's own reading of dates knows neither zones nor a range.
    """
    try:
        began = datetime.fromisoformat(str(start))
    except ValueError as error:
        allowed = "2000-01-31 or 2000-01-31T12:00, from the year 1 to 9999"
        raise ValueError(f"start must be a date as in {allowed}; it is {start!r}") from error
    if began.tzinfo is not None:
        began = began.astimezone(UTC).replace(tzinfo=None)
    try:
        moments = np.array([began + timedelta(seconds=second) for second in seconds.tolist()], "datetime64[us]")
    except OverflowError as error:
        longest = seconds[np.abs(seconds).argmax()]
        raise ValueError(f"times must lie in the years 1 to 9999; from {began} they go to {longest:g} s") from error
    if np.any(np.diff(moments) <= np.timedelta64(0)):
        raise ValueError(f"times must ascend, by a microsecond or more; they are {seconds.tolist()}")
    return began, moments


def sample_geotiff(path: AnyPath, *, dx: float = 90.0, shape: tuple[int, int] | None = None) -> Path:
    """Write the real elevations of `real_dem` as a projected GeoTIFF, to try the functions of this module on.

    It holds `shape` cells of side `dx` [m] from the middle of the map, or all without holes: float32 [m] in the
    Universal Transverse Mercator zone 16 north (EPSG:32616), interpolated linearly. Their datum is taken to be WGS 84.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_dem(sample_geotiff(Path(folder) / "dem.tif", shape=(64, 64))).z.shape
        torch.Size([64, 64])
    """
    dx, utm = positive_number("dx", dx), "EPSG:32616"
    # cells whose centres lie so many metres from the corner have no holes: the projection turns the map
    first, bottom, right = math.ceil(855 / dx - 0.5), int(31815 / dx + 0.5), int(30015 / dx + 0.5)
    most = (bottom - first, right - first)
    rows, columns = (positive_integer("shape", side) for side in pair("shape", most if shape is None else shape))
    if rows > most[0] or columns > most[1]:
        raise ValueError(f"shape must fit into {most[0]} x {most[1]} cells of {dx:g} m; it is {shape}")
    transform = rasterio.Affine(dx, 0, 730939.219465799, 0, -dx, 4069226.162225269)
    projected, _ = reproject(
        real_dem().z.astype(np.float32),
        np.empty((int(32671 / dx), int(30963 / dx)), np.float32),
        src_transform=rasterio.Affine(1 / 1200, 0, -84.41375, 0, -1 / 1200, 36.73291666666667),
        src_crs="EPSG:4326",
        dst_transform=transform,
        dst_crs=utm,
        resampling=Resampling.bilinear,
    )
    top, left = first + (most[0] - rows) // 2, first + (most[1] - columns) // 2
    corner = transform @ rasterio.Affine.translation(left, top)
    return _write_metres(
        path, projected[top : top + rows, left : left + columns], "elevation", crs=utm, transform=corner
    )
