"""Elevation maps from GeoTIFF, flood maps to GeoTIFF and NetCDF-CF: what geographic information systems read.

Needs the extra `geo` (rasterio, xarray, pyproj, h5netcdf): `pip install paperplay[geo]`.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.files import atomic_path
from lib.flood.pooling import elevation_tensor
from lib.flood.terrain import real_dem
from lib.validation import finite_array, finite_number, instance_of, pair, positive_integer, positive_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lib.flood.solver import FloodResult

__all__ = ["Dem", "coarse_profile", "read_dem", "read_rain", "sample_geotiff", "to_xarray", "write_depth"]

Profile = Mapping[str, Any]

#: Cells whose sides differ by less than this share count as square: transforms are stored rounded.
_SQUARE = 1e-6
#: How far lengths on the map and on the ground may differ. UTM zones are within 0.1 %, national grids within 1 %, the
#: equal-area map of Europe (EPSG:3035) within 2 % from Cyprus to Iceland; Web Mercator is beyond it from 11 degrees on.
_TRUE = 0.02
#: Elevations [m] that the Earth has, and rain [mm/h] that has fallen on it, with some room.
_EARTH, _RAIN = (-11_500.0, 9_000.0), (0.0, 2_500.0)
#: Values that often stand for "no data" in files that do not say so.
_VOIDS = (-9999, 9999, -99999, 99999, -999, -99, -9998, -8888, -7777, -32768, -32767, 32767, 65535)
#: What depth maps hold where there was no elevation.
_NO_DEPTH = -9999.0
#: Units of length [m] in small letters, without spaces, points, brackets and the plural's s; more are in PROJ's table.
_LENGTHS = {
    **dict.fromkeys(("m", "metre", "meter", "masl"), 1.0),
    **dict.fromkeys(("ft", "foot", "feet", "internationalfoot", "internationalfeet", "footintl", "ftintl"), 0.3048),
    **dict.fromkeys(("ftus", "footus", "usft", "usfoot", "usfeet", "surveyfoot", "surveyfeet"), 1200 / 3937),
    **dict.fromkeys(("ussurveyfoot", "ussurveyfeet", "ussurveyft"), 1200 / 3937),
    **dict.fromkeys(("dm", "decimetre", "decimeter"), 0.1),  # which PROJ's table has wrong
    **dict.fromkeys(("cm", "centimetre", "centimeter"), 0.01),
    **dict.fromkeys(("mm", "millimetre", "millimeter"), 0.001),
    **dict.fromkeys(("km", "kilometre", "kilometer"), 1000.0),
}
#: Units of rain [mm/h], without spaces and powers' signs.
_RATES = {
    **dict.fromkeys(("", "mm/h", "mmh-1", "mm/hr", "mmhr-1", "mm/hour", "mmhour-1"), 1.0),
    **dict.fromkeys(("mm/d", "mmd-1", "mm/day", "mmday-1"), 1 / 24),
    **dict.fromkeys(("mm/s", "mms-1", "kg/m2/s", "kgm-2s-1"), 3600.0),
    **dict.fromkeys(("m/s", "ms-1"), 3.6e6),
}


class Dem(NamedTuple):
    """An elevation map from a file.

    Attributes
    ----------
    z
        Elevations (R, C) float64 [m], row 0 in the north.
    dx
        Side of a cell [m].
    profile
        Where it lies: what rasterio calls a profile, with `crs` (without heights), `transform`, `height` and `width`
        among its keys. Where cells had no elevation and were filled, `missing` (R, C) bool names them: depths there
        are written as "no data".
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


def read_dem(
    path: str | os.PathLike[str],
    *,
    fill: float | None = None,
    nodata: float | None = None,
    z_unit: str | None = None,
    crs: Any = None,
) -> Dem:
    """Read an elevation map from a GeoTIFF, or from any other single-band raster that GDAL knows.

    Parameters
    ----------
    path
        The file, or a part of one in GDAL's words: `"netcdf:terrain.nc:height"`.
    fill
        Elevation [m] of cells that have none (nodata, masked, NaN or infinite); without it they are an error. A fill
        far above the ground makes them a wall, one below a sink.
    nodata
        Value, in the file's own numbers, of cells without elevation, where the file does not say it. NaN: no value is
        one, also none that looks like it, such as -9999 on dry land.
    z_unit
        Unit of the heights, such as `"m"` or `"ft"`, where the file says none, or a wrong one. Without it the file's
        vertical axis decides, and feet become metres.
    crs
        Reference system of a file that has none, as pyproj takes it: `"EPSG:32633"`.

    Returns
    -------
    Dem
        `(z, dx, profile)`: elevations (R, C) float64 tensor [m], side of a cell [m], profile for `write_depth`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no raster, or what it holds is not what a solver in metres needs: one band, a projected
        reference system in metres that is true to the ground within 2 %, north up, square cells, heights of a known
        unit, an elevation in every cell. The message says what to do.

    Examples
    --------
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
    band = _read_band(path, crs)
    dx = _metric_grid(band.profile, str(path))
    elevation = band.values * _height_unit(band, z_unit, str(path))
    missing = band.missing if nodata is None else band.missing | np.isclose(band.raw, nodata, rtol=1e-6, atol=0)
    if not trusted:
        advice = "declare it with nodata={0} (--nodata {0}) if it stands for cells without data"
        refuse_voids(str(path), band.raw[~missing], elevation[~missing], _EARTH, f"elevation: {advice}")
    profile = {**band.profile, "crs": _geo("rasterio.crs").CRS.from_user_input(_horizontal(band.profile["crs"]))}
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


def read_rain(path: str | os.PathLike[str], profile: Profile) -> Tensor:
    """Read rain from a GeoTIFF, a NetCDF file or another raster, on the cells of a map.

    Parameters
    ----------
    path
        The file: one band in mm/h, or in another unit that it names (mm/day, m s-1, kg m-2 s-1).
    profile
        From `read_dem`: the file must have the same cells.

    Returns
    -------
    Tensor
        (R, C) float64 [m/s], as `simulate` takes it; 0 where the map has no elevation.

    Examples
    --------
    >>> import rasterio, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     z, dx, profile = read_dem(sample_geotiff(Path(folder) / "dem.tif", shape=(32, 48)))
    ...     with rasterio.open(Path(folder) / "rain.tif", "w", **profile) as file:
    ...         file.write(np.full((1, 32, 48), 36.0, np.float32))
    ...     read_rain(Path(folder) / "rain.tif", profile).unique()
    tensor([1.0000e-05], dtype=torch.float64)
    """
    _metric_grid(profile, "profile")
    band = _read_band(path, profile["crs"], needed=False)
    name, unit = str(path), band.unit
    rate = _RATES.get("".join(unit.lower().translate(str.maketrans("", "", " .*^")).split()))
    if rate is None:
        raise ValueError(f"{name} must hold rain in mm/h (or mm/day, m s-1, kg m-2 s-1); its unit is {unit!r}")
    here, there = profile["transform"], band.profile["transform"]
    shapes = [(grid["height"], grid["width"]) for grid in (profile, band.profile)]
    apart = max(abs(a - b) for a, b in zip(here, there, strict=True)) > 1e-3 * here.a
    if shapes[0] != shapes[1] or apart or _horizontal(band.profile["crs"]) != _horizontal(profile["crs"]):
        raise ValueError(
            f"{name} must lie on the cells of the map, {shapes[0][0]} x {shapes[0][1]} of {here.a:g} m from x = "
            f"{here.c:.10g}, y = {here.f:.10g} in {profile['crs']}; it has {shapes[1][0]} x {shapes[1][1]} of "
            f"{there.a:g} m from x = {there.c:.10g}, y = {there.f:.10g} in {band.profile['crs']}"
        )
    ground = ~np.asarray(profile.get("missing", np.zeros(shapes[0], bool)))
    holes = int((band.missing & ground).sum())
    if holes:
        raise ValueError(f"{name} must have rain wherever the map has ground; {holes} cells have none")
    rain = band.values * rate
    refuse_voids(name, band.raw[ground], rain[ground], _RAIN, "rain: write what fell there")
    return torch.from_numpy(np.where(ground, rain / 3.6e6, 0.0))


class _Band(NamedTuple):
    """One band of a file: numbers as stored, where there are none, scaled numbers, their unit, and the place."""

    raw: NDArray[np.float64]
    missing: NDArray[np.bool_]
    values: NDArray[np.float64]
    unit: str
    profile: dict[str, Any]


def _read_band(path: str | os.PathLike[str], crs: Any, *, needed: bool = True) -> _Band:
    """The only band of a raster; `crs` is the reference system of a file without one (and else must be its own)."""
    rasterio = _geo("rasterio")
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the name of a file; it is {path!r}")
    with warnings.catch_warnings():
        # said below, as an error that tells what to do
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            opened = rasterio.open(path)
        except rasterio.errors.RasterioIOError as error:
            if not Path(path).exists():
                raise FileNotFoundError(f"there is no file {path}") from error
            raise ValueError(f"{path} is no raster that can be read: {error}") from error
    with opened as dataset:
        if dataset.count == 0 and dataset.subdatasets:
            raise ValueError(f"{path} holds several maps: name one of them, {', '.join(dataset.subdatasets)}")
        if dataset.count != 1:
            raise ValueError(
                f"{path} has {dataset.count} bands, a map of one quantity has one: pick it "
                "(gdal_translate -b 1 in.tif out.tif)"
            )
        try:
            stored = dataset.read(1, masked=True)
        except rasterio.errors.RasterioIOError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        scale, offset, unit, profile = dataset.scales[0], dataset.offsets[0], dataset.units[0], dict(dataset.profile)
    if stored.dtype.kind not in "iuf":
        raise ValueError(f"{path} must hold real numbers; it holds {stored.dtype}")
    if crs is not None:
        given = _reference("crs", crs)
        if not profile["crs"]:
            profile["crs"] = rasterio.crs.CRS.from_user_input(given)
        elif needed and _reference("crs", profile["crs"]) != given:
            raise ValueError(f"crs must be that of {path}, {profile['crs']}, which has one; it is {crs}")
    raw = np.ma.getdata(stored).astype(np.float64)
    missing = np.ma.getmaskarray(stored) | ~np.isfinite(raw)
    return _Band(raw, missing, raw * scale + offset, (unit or "").strip(), profile)


def refuse_voids(
    name: str,
    raw: NDArray[np.float64],
    values: NDArray[np.float64],
    bounds: tuple[float, float] = _EARTH,
    what: str = "elevation: cut these cells off or fill them",
) -> None:
    """Refuse numbers that no ground or rain has, and usual voids that stand apart from all others."""
    outside = raw[(values < bounds[0]) | (values > bounds[1])]
    if outside.size:
        found, counts = np.unique(outside, return_counts=True)
        suspects = [(float(found[counts.argmax()]), int(counts.max()))]
    else:
        suspects = []
        for void in np.unique(raw[np.isin(raw, _VOIDS)]):
            same = raw == void
            near = (np.abs(values - values[same][0]) < 50.0) & ~same
            # ground is continuous; a few cells between it and a void are what a warp has blended
            if same.sum() > 10 * near.sum():
                suspects.append((float(void), int(same.sum())))
    for void, count in suspects:
        found_there = f"{count} of the {raw.size} cells of {name} that are not declared void hold {void:.7g}"
        raise ValueError(f"{found_there}, which is no {what.format(f'{void:.7g}')}")


def _reference(name: str, crs: Any) -> Any:
    """A reference system as pyproj's, from rasterio's or any other form."""
    pyproj = _geo("pyproj")
    try:
        return pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"{name} must be a coordinate reference system such as EPSG:32633; it is {crs!r}") from error


def _horizontal(crs: Any) -> Any:
    """A reference system without its heights."""
    return _reference("crs", crs).to_2d()


def _length(name: str, unit: str) -> float:
    """A unit of length [m]."""
    known = {
        word: entry.conv_factor for word, entry in _geo("pyproj.database").get_units_map(category="linear").items()
    }
    word = "".join(instance_of(name, unit, str, "the name of a unit").lower().translate(_NOISE).split())
    metres = _LENGTHS.get(word) or _LENGTHS.get(word.removesuffix("s")) or known.get(unit)
    if metres is None:
        raise ValueError(f"{name} must be one of length such as m or ft; it is {unit!r}: say it with z_unit (--z-unit)")
    return float(metres)


_NOISE = str.maketrans("", "", "._-()[]")


def _height_unit(band: _Band, z_unit: str | None, name: str) -> float:
    """The unit [m] of a map's heights: as told, or by its vertical axis; its band must not say otherwise."""
    axes = [axis for axis in _reference("crs", band.profile["crs"]).axis_info if axis.direction in ("up", "down")]
    if any(axis.direction == "down" for axis in axes):
        raise ValueError(f"{name} counts depths downwards, an elevation map counts upwards: change their sign")
    if z_unit is not None:
        return _length("z_unit", z_unit)
    by_axis = axes[0].unit_conversion_factor if axes else 1.0
    by_band = _length(f"the unit of {name}", band.unit) if band.unit else by_axis
    if abs(by_band / by_axis - 1) > 1e-5:
        by = f"{axes[0].unit_name} by its reference system" if axes else "no unit by its reference system"
        raise ValueError(
            f"{name} has heights in {band.unit} by its band and in {by}; gdalwarp leaves the band's word also where it "
            f"has turned heights into metres: say what they are with z_unit='{band.unit}' or z_unit='m' (--z-unit)"
        )
    return float(by_axis)


def _metric_grid(profile: Profile, name: str) -> float:
    """The side [m] of a profile's cells, after a check that they are north-up squares in metres on the ground."""
    if not isinstance(profile, Mapping):
        raise TypeError(f"profile must be that of a map, from read_dem; it is {type(profile).__name__}")
    lacking = [key for key in ("crs", "transform", "height", "width") if not profile.get(key)]
    if "crs" in lacking or "transform" in lacking:
        raise ValueError(
            f"{name} has no coordinate reference system, so the size of its cells is unknown: give the one it was "
            "made in, crs='EPSG:<code>' (--crs EPSG:<code>)"
        )
    if lacking:
        raise ValueError(f"{name} must be that of a map; it has no {' and '.join(lacking)}")
    crs, transform = _horizontal(profile["crs"]), profile["transform"]
    unit = crs.axis_info[0]
    longitude, latitude, lengths = _on_the_ground(profile)
    if not crs.is_projected:
        fault = f"has coordinates in {unit.unit_name}s ({profile['crs']}), the solver needs metres"
    elif unit.unit_conversion_factor != 1.0:
        fault = f"has coordinates in units of {unit.unit_name}, the solver needs metres"
    elif transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        fault = "must have north up and west left; it is turned or mirrored"
    elif abs(transform.a + transform.e) > _SQUARE * transform.a:
        fault = f"must have square cells; they are {transform.a:g} m by {-transform.e:g} m"
    elif not np.all(np.abs(lengths / transform.a - 1) < _TRUE):
        fault = (
            f"has cells of {transform.a:g} m in {crs.name} that are {lengths[0].mean():.4g} m from west to east and "
            f"{lengths[1].mean():.4g} m from north to south on the ground"
        )
    else:
        return float(transform.a)
    code, cell = "<code of the UTM zone>", "<metres>"
    if np.isfinite(lengths).all() and abs(longitude) <= 180 and abs(latitude) <= 84:
        code = str((32600 if latitude >= 0 else 32700) + min(int((longitude + 180) // 6), 59) + 1)
        cell = f"{lengths[:2].mean():.3g}"
    heights = [axis for axis in _reference("crs", profile["crs"]).axis_info if axis.direction == "up"]
    then = "".join(f", then read it with z_unit='{axis.unit_name}'" for axis in heights if axis.unit_name != "metre")
    raise ValueError(
        f"{name} {fault}: reproject it (gdalwarp -t_srs EPSG:{code} -tr {cell} {cell} -r bilinear -novshift in.tif "
        f"out.tif){then}"
    )


def _on_the_ground(profile: Profile) -> tuple[float, float, NDArray[np.float64]]:
    """Longitude and latitude of the middle, and lengths (4, 9) [m] in nine cells from corner to corner of the map.

    The lengths are those to the east, to the south, and along the two diagonals, these divided by sqrt(2).
    """
    crs, t = _horizontal(profile["crs"]), profile["transform"]
    globe = crs.geodetic_crs
    to_degrees = _geo("pyproj").Transformer.from_crs(crs, globe, always_xy=True)
    column, row = np.meshgrid(*([0, (n - 1) / 2, n - 1] for n in (profile["width"], profile["height"])))

    def corner(right: int, down: int) -> Any:
        x, y = column.ravel() + right, row.ravel() + down
        return to_degrees.transform(t.c + t.a * x + t.b * y, t.f + t.d * x + t.e * y)

    def length(start: Any, end: Any) -> Any:
        return globe.get_geod().inv(*start, *end)[2]

    origin, east, south, opposite = corner(0, 0), corner(1, 0), corner(0, 1), corner(1, 1)
    diagonals = np.array([length(origin, opposite), length(east, south)]) / math.sqrt(2)
    return origin[0][4], origin[1][4], np.vstack([length(origin, east), length(origin, south), diagonals])


def coarse_profile(profile: Profile, factor: int) -> dict[str, Any]:
    """Give the profile of a map whose cells are `factor` times as wide, for depths that were found on pooled ground.

    A coarse cell is without data where all of its cells are.

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
    coarse = {**profile, "height": height // factor, "width": width // factor, "transform": transform}
    if "missing" in profile:
        blocks = np.reshape(profile["missing"], (height // factor, factor, width // factor, factor))
        coarse["missing"] = blocks.all(axis=(1, 3))
    return coarse


def write_depth(path: str | os.PathLike[str], h: Tensor, profile: Profile) -> Path:
    """Write water depths as a GeoTIFF, whole or not at all.

    Parameters
    ----------
    path
        The file; an old one is replaced, missing folders are made.
    h
        Depths (R, C) [m], float32 or float64, which the file keeps; dry cells are 0.
    profile
        From `read_dem`, or `coarse_profile` for a coarser map. Its `missing` cells are written as -9999, which the
        file then declares as its nodata value.

    Returns
    -------
    Path
        The file.

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
    depths = _depths("h", h, profile, axes=2, missing=_NO_DEPTH)
    crs = _geo("rasterio.crs").CRS.from_user_input(_horizontal(profile["crs"]))
    nodata = _NO_DEPTH if "missing" in profile else None
    _write_metres(path, depths, "water depth", crs, profile["transform"], nodata=nodata)
    return Path(path)


def _write_metres(
    path: str | os.PathLike[str],
    values: NDArray[np.floating[Any]],
    name: str,
    crs: Any,
    transform: Any,
    *,
    nodata: float | None = None,
) -> None:
    """One band of lengths, whole or not there."""
    settings: dict[str, Any] = {"dtype": values.dtype.name, "crs": crs, "transform": transform, "nodata": nodata}
    settings |= {"height": values.shape[0], "width": values.shape[1], "count": 1}
    with (
        atomic_path(path) as temporary,
        _geo("rasterio").open(temporary, "w", driver="GTiff", compress="deflate", predictor=3, **settings) as dataset,
    ):
        dataset.write(values, 1)
        dataset.set_band_description(1, name)
        dataset.set_band_unit(1, "m")


def _depths(name: str, h: Tensor, profile: Profile, *, axes: int, missing: float) -> NDArray[np.floating[Any]]:
    """Depths as an array (..., R, C) of the profile's size, with a value where it has no elevation."""
    h = elevation_tensor(name, h).detach().cpu()
    if h.dtype not in (torch.float32, torch.float64):
        h = h.float()
    size = (profile["height"], profile["width"])
    if h.ndim != axes or h.shape[-2:] != size:
        wanted = ", ".join(["T"] * (axes - 2) + [str(side) for side in size])
        raise ValueError(f"{name} must have shape ({wanted}) like the profile; its shape is {tuple(h.shape)}")
    values = np.asarray(h)
    return np.where(profile["missing"], values.dtype.type(missing), values) if "missing" in profile else values


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
        Date and time at which the flood begins, as ISO 8601 writes them, in universal time unless it names another
        zone; from the year 1 to 9999 of the Gregorian calendar. CF has no time without a date; the default says
        nothing about a real event.

    Returns
    -------
    xarray.Dataset
        Variable `depth` (time, y, x) [m] with the standard name `flood_water_thickness`, NaN where the profile has no
        elevation; coordinates of the cells' centres [m] and the reference system `crs`, where rioxarray finds it.
        `to_netcdf(path)` writes it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     z, dx, profile = read_dem(sample_geotiff(Path(folder) / "dem.tif", shape=(32, 48)))
    >>> flood = to_xarray(torch.zeros(2, 32, 48), profile, times=[0, 600])
    >>> dict(flood.depth.sizes), flood.depth.attrs["units"], flood.crs.attrs["grid_mapping_name"]
    ({'time': 2, 'y': 32, 'x': 48}, 'm', 'transverse_mercator')
    """
    xarray = _geo("xarray")
    dx = _metric_grid(profile, "profile")
    maps, times = _frames(depths, times)
    values = _depths("depths", maps, profile, axes=3, missing=np.nan)
    seconds = finite_array("times", times, shape=(len(values),))
    began = _date("start", start)
    first, last = ((limit - began) / np.timedelta64(1, "s") for limit in _CALENDAR)
    if seconds.size and not first <= seconds.min() <= seconds.max() < last:
        raise ValueError(f"times must lie in the years 1 to 9999; from {began} they go to {seconds.max():g} s")
    moments = began + np.round(seconds * 1e6).astype("timedelta64[us]")
    if np.any(np.diff(moments) <= np.timedelta64(0)):
        raise ValueError(f"times must ascend, by a microsecond or more; they are {seconds.tolist()}")
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
                },
            ),
        },
        {
            "time": ("time", moments, {"standard_name": "time", "long_name": "time", "axis": "T"}),
            "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "m", "axis": "Y"}),
            "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "m", "axis": "X"}),
            "crs": ((), np.int32(0), _horizontal(profile["crs"]).to_cf()),
        },
        {"Conventions": "CF-1.11", "title": "Water depths of a flood", "source": "paperplay, local-inertial solver"},
    )
    # with this attribute readers that are not told to look for it find the reference system as well
    dataset.attrs["coordinates"] = "crs"
    dataset.time.encoding = {"units": f"seconds since {began.astype('datetime64[s]')}", "dtype": "float64"}
    # CF forbids missing coordinates
    for name in ("time", "y", "x"):
        dataset[name].encoding["_FillValue"] = None
    hole = values.dtype.type(_NO_DEPTH) if "missing" in profile else None
    dataset.depth.encoding = {"zlib": True, "grid_mapping": "crs", "_FillValue": hole}
    return dataset


#: From the first to after the last moment with a year of four digits.
_CALENDAR = (np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59", "us"))


def _date(name: str, text: str) -> np.datetime64:
    """A moment in universal time, to the microsecond: numpy's own reading knows neither zones nor a range."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise ValueError(
            f"{name} must be a date as in 2000-01-31 or 2000-01-31T12:00, from the year 1 to 9999; it is {text!r}"
        ) from error
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "us")


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
        rows, columns = (positive_integer("shape", side) for side in pair("shape", shape))
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
