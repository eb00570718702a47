"""Maps from and to files: round trips, and every way in which a file can be unfit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import torch
import xarray

from lib.flood.geo import coarse_profile, read_dem, sample_geotiff, to_xarray, write_depth
from lib.flood.pooling import pool_dem
from lib.flood.solver import LocalInertialSolver
from lib.flood.terrain import real_dem

UTM = "EPSG:32616"


def write(path, values=None, *, crs=UTM, cell=(10.0, 10.0), turn=0.0, **options):
    """A raster with whatever faults are asked for; `values` (bands, R, C) or (R, C)."""
    values = np.arange(12.0, dtype=np.float32).reshape(3, 4) if values is None else np.asarray(values)
    bands = values if values.ndim == 3 else values[None]
    scale = options.pop("scale", None)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=bands.shape[1],
        width=bands.shape[2],
        count=len(bands),
        dtype=bands.dtype.name,
        crs=crs,
        transform=rasterio.Affine(cell[0], turn, 700000.0, turn, -cell[1], 4000000.0),
        **options,
    ) as dataset:
        dataset.write(bands)
        if scale:
            dataset.scales, dataset.offsets = (scale[0],), (scale[1],)
    return path


@pytest.fixture
def dem(tmp_path):
    return read_dem(sample_geotiff(tmp_path / "dem.tif", shape=(32, 48)))


def test_a_map_is_read_as_it_was_written(tmp_path):
    values = np.random.default_rng(0).normal(300, 20, (5, 7)).astype(np.float32)
    z, dx, profile = read_dem(write(tmp_path / "a.tif", values, cell=(2.5, 2.5)))
    assert z.dtype == torch.float64
    assert np.array_equal(z.numpy(), values)
    assert dx == 2.5
    assert (profile["height"], profile["width"], profile["crs"].to_epsg()) == (5, 7, 32616)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64])
def test_other_types_become_doubles(tmp_path, dtype):
    values = np.arange(12, dtype=dtype).reshape(3, 4)
    assert torch.equal(read_dem(write(tmp_path / "a.tif", values)).z, torch.arange(12.0).double().reshape(3, 4))


def test_a_scale_in_the_file_is_applied(tmp_path):
    z = read_dem(write(tmp_path / "a.tif", np.array([[0, 10]], np.int16), scale=(0.1, 100.0))).z
    torch.testing.assert_close(z, torch.tensor([[100.0, 101.0]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("values", "nodata", "missing"),
    [
        (np.array([[1, -9999], [3, 4]], np.int16), -9999, (0, 1)),
        (np.array([[1, 2], [3, -3.4e38]], np.float32), np.float32(-3.4e38), (1, 1)),
        (np.array([[np.nan, 2], [3, 4]], np.float32), None, (0, 0)),
        (np.array([[np.nan, 2], [3, 4]], np.float32), np.nan, (0, 0)),
        (np.array([[1, 2], [np.inf, 4]], np.float64), -1.0, (1, 0)),
    ],
)
def test_holes_are_an_error_or_filled(tmp_path, values, nodata, missing):
    path = write(tmp_path / "a.tif", values, nodata=nodata)
    with pytest.raises(ValueError, match=r"1 of the 4 cells of .* have no elevation .*crop .* or pass fill"):
        read_dem(path)
    z = read_dem(path, fill=50.0).z
    whole = values.astype(float)
    whole[missing] = 50.0
    assert np.array_equal(z.numpy(), whole)


def test_a_fill_must_be_finite(tmp_path):
    with pytest.raises(ValueError, match="fill must be a finite elevation"):
        read_dem(write(tmp_path / "a.tif"), fill=float("nan"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": None}, r"no coordinate reference system.*gdal_edit"),
        ({"crs": "EPSG:4326", "cell": (0.001, 0.001)}, r"degrees \(EPSG:4326\).*gdalwarp"),
        ({"crs": "EPSG:2274"}, r"units of US survey foot.*gdalwarp"),
        ({"cell": (10.0, 12.0)}, r"square cells; they are 10 m by 12 m.*gdalwarp"),
        ({"turn": 1.0}, r"north up.*gdalwarp"),
        ({"cell": (10.0, -10.0)}, r"north up.*gdalwarp"),
        ({"values": np.zeros((2, 3, 4), np.float32)}, r"has 2 bands.*gdal_translate"),
        ({"values": np.zeros((3, 4), np.complex64)}, "must hold real numbers"),
    ],
)
def test_unfit_maps_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read_dem(write(tmp_path / "a.tif", **options))


def test_a_file_without_any_georeference_is_refused(tmp_path):
    """GDAL would warn; the reader gets one clear error instead."""
    np.random.default_rng(0).integers(0, 9, (4, 4), dtype=np.uint8).tofile(tmp_path / "x.bin")
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 4 4 255\n" + (tmp_path / "x.bin").read_bytes())
    with pytest.raises(ValueError, match="no coordinate reference system"):
        read_dem(path)


def test_no_raster_and_no_file(tmp_path):
    (tmp_path / "a.tif").write_text("no picture")
    with pytest.raises(ValueError, match="no raster that can be read"):
        read_dem(tmp_path / "a.tif")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*b\.tif"):
        read_dem(tmp_path / "b.tif")


def test_a_file_that_breaks_off_is_refused(tmp_path):
    values = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    path = write(tmp_path / "a.tif", values, compress="deflate")
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"is damaged|no raster"):
        read_dem(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_depths_come_back(tmp_path, dem, dtype):
    h = torch.rand(32, 48, generator=torch.Generator().manual_seed(0), dtype=dtype)
    path = write_depth(tmp_path / "new" / "depth.tif", h, dem.profile)
    assert [file.name for file in path.parent.iterdir()] == ["depth.tif"]
    back = read_dem(path)
    assert torch.equal(back.z.to(dtype), h)
    assert back.profile["transform"] == dem.profile["transform"]
    assert back.profile["crs"] == dem.profile["crs"]
    with rasterio.open(path) as dataset:
        assert dataset.descriptions == ("water depth",)
        assert dataset.units == ("m",)
        assert dataset.dtypes == (str(dtype).removeprefix("torch."),)
        assert dataset.nodata is None


class FullDisk:
    """In place of rasterio's writer: leaves half a file."""

    def __init__(self, path, *_, **__):
        Path(path).write_text("half")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def write(self, *_):
        raise OSError("no space left")


def test_a_failed_write_leaves_the_old_file(tmp_path, dem, monkeypatch):
    path = write_depth(tmp_path / "depth.tif", torch.ones(32, 48), dem.profile)
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(rasterio, "open", FullDisk)
        with pytest.raises(OSError, match="no space left"):
            write_depth(path, torch.zeros(32, 48), dem.profile)
    assert sorted(tmp_path.iterdir()) == before
    assert torch.equal(read_dem(path).z, torch.ones(32, 48).double())


@pytest.mark.parametrize(
    ("h", "error", "message"),
    [
        (torch.zeros(32, 47), ValueError, r"shape \(32, 48\)"),
        (torch.zeros(1, 32, 48), ValueError, r"shape \(32, 48\)"),
        (torch.full((32, 48), torch.nan), ValueError, "finite"),
        (np.zeros((32, 48)), TypeError, "floating-point tensor"),
    ],
)
def test_bad_depths_are_not_written(tmp_path, dem, h, error, message):
    with pytest.raises(error, match=message):
        write_depth(tmp_path / "depth.tif", h, dem.profile)
    assert not (tmp_path / "depth.tif").exists()


@pytest.mark.parametrize("lacking", [{"crs": None}, {"transform": None}])
def test_a_profile_without_a_place_is_refused(tmp_path, dem, lacking):
    with pytest.raises(ValueError, match="profile has no coordinate reference system"):
        write_depth(tmp_path / "depth.tif", torch.zeros(32, 48), {**dem.profile, **lacking})
    with pytest.raises(ValueError, match="profile has no coordinate reference system"):
        to_xarray(torch.zeros(32, 48), {**dem.profile, **lacking}, [0.0])


def test_a_coarse_map_lies_on_the_fine_one(tmp_path, dem):
    coarse = coarse_profile(dem.profile, 16)
    path = write_depth(tmp_path / "coarse.tif", pool_dem(dem.z, 16), coarse)
    with rasterio.open(path) as dataset, rasterio.open(tmp_path / "dem.tif") as fine:
        assert tuple(dataset.bounds) == pytest.approx(tuple(fine.bounds))
        assert dataset.res == (16 * dem.dx, 16 * dem.dx)
    with pytest.raises(ValueError, match="multiples of the factor 5"):
        coarse_profile(dem.profile, 5)


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_a_netcdf_file_comes_back(tmp_path, dem, engine):
    h = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    written = to_xarray(h, dem.profile, [0.0, 0.5, 600.0], start="2021-07-14T20:00")
    written.to_netcdf(tmp_path / "a.nc", engine=engine)
    with xarray.open_dataset(tmp_path / "a.nc", engine=engine) as flood:
        assert flood.depth.dims == ("time", "y", "x")
        assert np.array_equal(flood.depth.values, h.numpy())
        assert flood.attrs["Conventions"] == "CF-1.11"
        assert flood.depth.attrs["units"] == "m"
        assert flood.depth.attrs["standard_name"] == "flood_water_thickness"
        assert list(flood.time.values.astype("datetime64[ms]").astype(str)) == [
            "2021-07-14T20:00:00.000",
            "2021-07-14T20:00:00.500",
            "2021-07-14T20:10:00.000",
        ]
        mapping = flood[flood.depth.attrs.get("grid_mapping", flood.depth.encoding.get("grid_mapping"))]
        assert pyproj.CRS.from_cf(mapping.attrs).to_epsg() == 32616
        assert mapping.attrs["grid_mapping_name"] == "transverse_mercator"
        # centres of the outermost cells, north first
        transform = dem.profile["transform"]
        assert flood.x.values[0] == transform.c + dem.dx / 2
        assert flood.y.values[0] == transform.f - dem.dx / 2
        assert flood.y.values[-1] == pytest.approx(transform.f - 31.5 * dem.dx)
        assert flood.x.values[-1] == pytest.approx(transform.c + 47.5 * dem.dx)
        assert flood.x.attrs["standard_name"] == "projection_x_coordinate"
        assert flood.y.attrs["units"] == "m"
    with xarray.open_dataset(tmp_path / "a.nc", engine=engine, decode_cf=False) as raw:
        assert raw.time.values.tolist() == [0.0, 0.5, 600.0]
        assert raw.time.attrs["units"] == "seconds since 2021-07-14T20:00:00"
        assert not any("_FillValue" in raw[name].attrs for name in ("time", "x", "y", "depth"))


def test_gdal_finds_the_place_in_the_netcdf_file(tmp_path, dem):
    """The wheel of rasterio reads NetCDF: another program's reading of the file."""
    to_xarray(dem.z, dem.profile, [0.0]).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with rasterio.open(f"netcdf:{tmp_path / 'a.nc'}:depth") as dataset:
        assert dataset.crs.linear_units_factor == ("metre", 1.0)
        assert tuple(dataset.transform) == pytest.approx(tuple(dem.profile["transform"]))
        assert np.array_equal(dataset.read(1), dem.z.numpy())


def test_results_of_the_solver_are_accepted(dem):
    solver = LocalInertialSolver(dx=dem.dx)
    rain = 0.1 / 3600
    kept = solver.simulate(dem.z, 90.0, rain=rain, save_times=[30.0, 90.0])
    flood = to_xarray(kept, dem.profile, [30.0, 90.0])
    assert np.array_equal(flood.depth, kept.history)
    assert flood.depth.max() > 0
    result = solver.simulate(dem.z, 90.0, rain=rain)
    last = to_xarray(result, dem.profile)
    assert np.array_equal(last.depth[0], result.h)
    assert last.time.values[0] == np.datetime64("2000-01-01T00:01:30")
    batch = solver.simulate(dem.z.expand(2, 32, 48), 1.0)
    with pytest.raises(ValueError, match="depths must have shape"):
        to_xarray(batch, dem.profile, [0.0, 1.0])


@pytest.mark.parametrize(
    ("depths", "times", "options", "error", "message"),
    [
        (torch.zeros(2, 32, 48), [0.0], {}, ValueError, r"times must have shape \(2,\)"),
        (torch.zeros(2, 32, 48), [5.0, 5.0], {}, ValueError, "times must ascend"),
        (torch.zeros(2, 32, 48), [0.0, float("nan")], {}, ValueError, "times must be finite"),
        (torch.zeros(2, 32, 48), None, {}, ValueError, "pass the save_times"),
        (torch.zeros(2, 32, 40), [0.0, 1.0], {}, ValueError, r"depths must have shape \(T, 32, 48\)"),
        (torch.zeros(2, 1, 32, 48), [0.0, 1.0], {}, ValueError, r"depths must have shape \(T, 32, 48\)"),
        (torch.full((1, 32, 48), torch.inf), [0.0], {}, ValueError, "depths must be finite"),
        (torch.zeros(1, 32, 48), [0.0], {"start": "yesterday"}, ValueError, "start must be a date"),
        ([[0.0]], [0.0], {}, TypeError, "must be a result of simulate or a tensor; it is list"),
    ],
)
def test_bad_series_are_refused(dem, *, depths, times, options, error, message):
    with pytest.raises(error, match=message):
        to_xarray(depths, dem.profile, times, **options)


def test_the_sample_is_the_real_map(tmp_path):
    z, dx, profile = read_dem(sample_geotiff(tmp_path / "a.tif"))
    real = real_dem()
    assert dx == 90.0
    assert z.shape[0] * dx == pytest.approx(real.z.shape[0] * real.dy, rel=0.1)
    assert z.shape[1] * dx == pytest.approx(real.z.shape[1] * real.dx, rel=0.1)
    # pyproj's own coordinates of some cells, looked up in the original
    to_degrees = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    for i, j in [(20, 30), (150, 200), (z.shape[0] - 5, 10)]:
        longitude, latitude = to_degrees.transform(*(profile["transform"] @ (j + 0.5, i + 0.5)))
        row, column = int((36.73291666666667 - latitude) * 1200), int((longitude + 84.41375) * 1200)
        around = real.z[row - 1 : row + 2, column - 1 : column + 2]
        assert around.min() <= z[i, j] <= around.max()
    coarse = read_dem(sample_geotiff(tmp_path / "b.tif", dx=300.0, shape=(40, 40)))
    assert coarse.dx == 300.0
    assert coarse.z.shape == (40, 40)
    with pytest.raises(ValueError, match="shape must fit into"):
        sample_geotiff(tmp_path / "c.tif", shape=(1000, 10))
    with pytest.raises(ValueError, match="dx must be positive"):
        sample_geotiff(tmp_path / "c.tif", dx=-1.0)


@pytest.mark.parametrize("missing", ["rasterio", "xarray", "pyproj"])
def test_without_the_extra_the_error_names_it(tmp_path, dem, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    calls = [lambda: to_xarray(dem.z, dem.profile, [0.0])]
    if missing == "rasterio":
        calls = [
            lambda: read_dem(tmp_path / "dem.tif"),
            lambda: write_depth(tmp_path / "a.tif", dem.z, dem.profile),
            lambda: sample_geotiff(tmp_path / "a.tif"),
        ]
    for call in calls:
        with pytest.raises(ImportError, match=rf"{missing} is needed .*paperplay\[geo\]"):
            call()


def test_importing_the_module_imports_none_of_them():
    code = (
        "import sys, lib.flood.geo; print(*[n for n in ('rasterio', 'xarray', 'pyproj', 'pandas') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
