"""Maps from and to files: round trips, and every way in which a file can be unfit."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import torch
import xarray
from rioxarray.raster_dataset import RasterDataset

from lib.flood.geo import coarse_profile, read_dem, read_rain, sample_geotiff, to_xarray, write_depth
from lib.flood.solver import LocalInertialSolver
from lib.flood.terrain import real_dem
from tests.flood.test_units import relief

UTM = "EPSG:32616"


def write(
    path, values=None, *, crs=UTM, cell=(10.0, 10.0), turn=0.0, corner=(7e5, 4e6), scale=None, unit=None, **options
):
    """A raster with whatever faults are asked for; `values` (bands, R, C) or (R, C)."""
    values = np.arange(12.0, dtype=np.float32).reshape(3, 4) if values is None else values
    bands = values if values.ndim == 3 else values[None]
    options |= {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype.name}
    transform = rasterio.Affine(cell[0], turn, corner[0], turn, -cell[1], corner[1])
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **options) as dataset:
        # first, as GDAL forgets them after the numbers where the reference system has heights
        if scale:
            dataset.scales, dataset.offsets = (scale[0],), (scale[1],)
        if unit:
            dataset.units = (unit,)
        dataset.write(bands)
    return path


@pytest.fixture
def dem(tmp_path):
    return read_dem(sample_geotiff(tmp_path / "dem.tif", shape=(32, 48)))


@pytest.mark.parametrize(("dtype", "scale"), [(np.int16, (0.1, 100.0)), (np.uint8, None), (np.float32, None)])
def test_a_map_is_read_as_it_was_written(tmp_path, dtype, scale):
    values = np.random.default_rng(0).normal(50, 10, (5, 7)).astype(dtype)
    z, dx, profile = read_dem(write(tmp_path / "a.tif", values, cell=(2.5, 2.5), scale=scale))
    assert z.dtype == torch.float64
    assert np.array_equal(z.numpy(), values if scale is None else values.astype(float) * 0.1 + 100)
    assert dx == 2.5
    assert (profile["height"], profile["width"], profile["crs"].to_epsg()) == (5, 7, 32616)


@pytest.mark.parametrize(
    ("values", "nodata", "missing"),
    [
        (np.array([[1, -9999], [3, 4]], np.int16), -9999, (0, 1)),
        (np.array([[1, 2], [3, -3.4e38]], np.float32), np.float32(-3.4e38), (1, 1)),
        (np.array([[np.nan, 2], [3, 4]], np.float32), None, (0, 0)),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": None}, r"no coordinate reference system.*--crs"),
        ({"crs": "EPSG:4326", "cell": (0.001, 0.001)}, r"degrees \(EPSG:4326\).*gdalwarp"),
        ({"crs": "EPSG:2274"}, r"units of US survey foot.*gdalwarp"),
        ({"cell": (10.0, 12.0)}, r"square cells; they are 10 m by 12 m.*gdalwarp"),
        ({"turn": 1.0}, r"north up.*gdalwarp"),
        ({"cell": (10.0, -10.0)}, r"north up.*gdalwarp"),
        ({"values": np.zeros((2, 3, 4), np.float32)}, r"has 2 bands.*gdal_translate"),
        ({"crs": "EPSG:3035", "corner": (9e9, 9e9)}, r"on the ground: reproject it \(gdalwarp -t_srs EPSG:<code"),
        ({"crs": "EPSG:32616+5715"}, "counts depths downwards"),
        # a warp that is advised leaves no heights in feet unsaid
        ({"crs": "EPSG:2274+6360", "cell": (30.0, 30.0), "corner": (1.7e6, 6e5)},
         r"EPSG:32616 -tr 9\.\d+ 9\.\d+ .*-novshift .*read it with z_unit='US survey foot'"),
        ({"values": np.zeros((3, 4), np.complex64)}, "must hold real numbers"),
    ],
)  # fmt: skip
def test_unfit_maps_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read_dem(write(tmp_path / "a.tif", **options))


# --- heights in other units

#: A compound system whose horizontal part is bound to WGS 84, with heights in feet.
BOUND = pyproj.CRS(
    'COMPD_CS["a",PROJCS["NAD27 / UTM 16N",GEOGCS["NAD27",DATUM["North_American_Datum_1927",'
    'SPHEROID["Clarke 1866",6378206.4,294.978698213898],TOWGS84[-8,160,176,0,0,0,0]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],'
    'PARAMETER["central_meridian",-87],PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],'
    'PARAMETER["false_northing",0],UNIT["metre",1]],VERT_CS["NAVD88 height (ftUS)",'
    'VERT_DATUM["North American Vertical Datum 1988",2005,AUTHORITY["EPSG","5103"]],'
    'UNIT["US survey foot",0.304800609601219,AUTHORITY["EPSG","9003"]],AXIS["Up",UP],AUTHORITY["EPSG","6360"]]]'
).to_wkt("WKT1_GDAL")


@pytest.mark.parametrize(
    ("crs", "metres"),
    [
        ("EPSG:26916+6360", 1200 / 3937),
        ("EPSG:26916+8228", 0.3048),
        ("EPSG:26916+5703", 1.0),
        ("EPSG:7405", 1.0),
        (BOUND, 1200 / 3937),
        ("+proj=utm +zone=16 +datum=NAD83 +vunits=us-ft +type=crs", 1200 / 3937),
        (pyproj.CRS("EPSG:32616").to_3d().to_wkt(), 1.0),
    ],
)
@pytest.mark.parametrize("scale", [None, (0.5, 10.0)])
def test_heights_are_metres_by_their_axis_and_nothing_of_feet_is_written(tmp_path, crs, metres, scale):
    corner = (400000.0, 400000.0) if crs == "EPSG:7405" else (700000.0, 4000000.0)
    z, dx, profile = read_dem(write(tmp_path / "a.tif", crs=crs, corner=corner, scale=scale))
    stored = np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(z, metres * (stored if scale is None else 0.5 * stored + 10), rtol=1e-12)
    assert dx == 10.0
    with rasterio.open(write_depth(tmp_path / "h.tif", z, profile)) as written:
        system = pyproj.CRS(written.crs.to_wkt())
        assert written.units == ("m",)
        assert [axis.unit_name for axis in system.axis_info] == ["metre", "metre"]
        assert written.scales == (1.0,)
    assert torch.equal(read_dem(tmp_path / "h.tif").z, z)
    # also from a profile that still has heights
    tall = {**profile, "crs": rasterio.crs.CRS.from_user_input(crs)}
    with rasterio.open(write_depth(tmp_path / "h.tif", z, tall)) as written:
        assert len(pyproj.CRS(written.crs.to_wkt()).axis_info) == 2
    assert "foot" not in to_xarray(z, tall, [0.0]).crs.attrs["crs_wkt"]


@pytest.mark.parametrize(
    ("crs", "unit", "metres"),
    [
        # gdalwarp leaves the word when it has turned the numbers into metres, so the band alone is not believed
        *((UTM, unit, metres) for unit, metres in (("ft", 0.3048), ("US survey foot", 1200 / 3937), ("cm", 0.01))),
        ("EPSG:26916+5703", "US survey foot", 1200 / 3937),
        ("EPSG:26916+6360", "m", 1.0),
        (UTM, "furlongs", None),
    ],
)
def test_a_band_that_contradicts_its_axis_is_refused(tmp_path, crs, unit, metres):
    path = write(tmp_path / "a.tif", crs=crs, unit=unit)
    contradiction = rf"in {unit} by its band and in .* by its reference system.*z_unit"
    with pytest.raises(ValueError, match=contradiction if metres else r"unit of .*a\.tif must be .*furlongs.*--z-unit"):
        read_dem(path)
    for told, size in ((unit, metres), ("m", 1.0), ("cm", 0.01)):
        if size:
            assert read_dem(path, z_unit=told).z.max() == pytest.approx(11 * size)


# --- voids that the file does not declare


@pytest.mark.parametrize(
    ("void", "dtype"),
    [
        *((void, np.int16) for void in (-9999, -32768, 32767)),
        *((void, np.float32) for void in (-32767, -3.4028235e38, 1e20, -99999, 9999, -999)),
        *((65535, np.uint16), (-2147483648, np.int32), (-1e300, np.float64)),
    ],
)
@pytest.mark.parametrize("count", [1, 7])
def test_undeclared_voids_are_named(tmp_path, void, dtype, count):
    values = relief().astype(dtype)
    values.flat[5 : 5 + count] = void
    path = write(tmp_path / "a.tif", values)
    with pytest.raises(ValueError, match=rf"{count} of the 576 cells of .*nodata=(\S+) \(--nodata") as refused:
        read_dem(path)
    named = float(str(refused.value).split("nodata=")[1].split()[0])
    assert named == pytest.approx(float(dtype(void)))
    with pytest.raises(ValueError, match=f"{count} of the 576 cells .* have no elevation"):
        read_dem(path, nodata=named)
    z, _, profile = read_dem(path, nodata=named, fill=200.0)
    assert int((z == 200.0).sum()) == count
    assert profile["missing"].sum() == count


@pytest.mark.parametrize("options", [{"scale": (0.01, 0.0)}, {"crs": "EPSG:26916+6360"}, {"nodata": -32768}])
def test_voids_are_looked_for_in_the_numbers_of_the_file(tmp_path, options):
    values = relief(3000, 3100).astype(np.int16)
    values[2, 3:5] = -9999
    values[7, 7] = options.get("nodata", 3000)
    with pytest.raises(ValueError, match=r"2 of the 57[56] cells of .* hold -9999,"):
        read_dem(write(tmp_path / "a.tif", values, **options))


def test_a_value_that_looks_void_can_be_meant(tmp_path):
    values = np.full((4, 4), -999.0, np.float32)
    path = write(tmp_path / "a.tif", values)
    assert np.array_equal(read_dem(path, nodata=float("nan")).z, values)
    with pytest.raises(ValueError, match="have no elevation: there is no ground"):
        read_dem(path, nodata=-999, fill=5.0)


# --- lengths on the map and on the ground


@pytest.mark.parametrize(
    ("crs", "longitude", "latitude"),
    [
        *(("EPSG:3857", 3, 41), ("EPSG:3857", -70, -20), ("EPSG:3857", 3, 10), ("ESRI:102100", 3, 41)),
        ("+proj=merc +a=6378137 +b=6378137 +units=m +nadgrids=@null +type=crs", 10, 60),
        *(("EPSG:3395", 3, 41), ("EPSG:3395", 120, 15), ("EPSG:4087", 3, 41), ("EPSG:3413", -45, 50)),
        ("EPSG:6933", 3, 50),  # equal-area: 0.8 one way, 1.2 the other
        ("ESRI:54008", 40, 40),  # sinusoidal: sheared
        ("EPSG:32616", -60, 40),  # far outside of its zone
    ],
)
def test_maps_whose_cells_are_others_on_the_ground_are_refused(tmp_path, crs, longitude, latitude):
    corner = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    with pytest.raises(ValueError, match=r"has cells of 10 m in .* on the ground: reproject it \(gdalwarp") as refused:
        read_dem(write(tmp_path / "a.tif", crs=crs, corner=corner))
    east, north = (float(word) for word in re.findall(r"(\S+) m from \w+ to", str(refused.value)))
    # a degree has 111 km: how far a step on the map goes, by another way
    back = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    (a, b), *ends = (back.transform(corner[0] + x, corner[1] + y) for x, y in ((0, 0), (1000, 0), (0, 1000)))
    for length, (u, v) in zip((east, north), ends, strict=True):
        assert length == pytest.approx(1113.2 * np.hypot((u - a) * np.cos(np.radians(latitude)), v - b), rel=0.02)
    zone = (32600 if latitude > 0 else 32700) + int((longitude + 180) // 6) + 1
    assert f"EPSG:{zone}" in str(refused.value)


@pytest.mark.parametrize(
    ("crs", "longitude", "latitude"),
    [
        ("EPSG:32633", 12.001, 0.1),  # the widest of a zone
        *(("EPSG:32733", 17.9, -20), ("EPSG:32633", 15, 80), ("EPSG:3413", -45, 68), ("EPSG:3857", 3, 0.5)),
        *(("EPSG:3035", x, y) for x, y in ((-9, 38), (24, 35), (-19, 65), (26, 70))),  # the ends of Europe's map
        *(("EPSG:5070", -122, 47), ("EPSG:27700", -5, 50.3), ("EPSG:2154", 8, 42)),
        *(("EPSG:2056", 8, 47), ("EPSG:28992", 5, 52)),
    ],
)
def test_systems_of_surveys_are_true_enough(tmp_path, crs, longitude, latitude):
    corner = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    assert read_dem(write(tmp_path / "a.tif", crs=crs, corner=corner)).dx == 10.0


# --- cells without data, on the way out


def test_cells_without_data_have_no_depth_in_any_file(tmp_path):
    values = relief().astype(np.float32)
    values[:5] = -9999
    values[12, 12] = -9999
    profile = read_dem(write(tmp_path / "a.tif", values, nodata=-9999), fill=500.0).profile
    missing = values == -9999
    assert np.array_equal(profile["missing"], missing)
    for factor in (1, 4):
        coarse = coarse_profile(profile, factor)
        holes = missing.reshape(24 // factor, factor, 24 // factor, factor).all((1, 3))
        h = torch.rand(24 // factor, 24 // factor, generator=torch.Generator().manual_seed(0))
        with rasterio.open(write_depth(tmp_path / "h.tif", h, coarse)) as file:
            depths = file.read(1, masked=True)
            assert file.nodata == -9999
        assert np.array_equal(depths.mask, holes)
        assert np.array_equal(depths.data[~holes], h.numpy()[~holes])
        flood = to_xarray(torch.stack([h, 2 * h]), coarse, [0.0, 1.0])
        assert np.array_equal(np.isnan(flood.depth), np.stack([holes, holes]))
        flood.to_netcdf(tmp_path / "h.nc", engine="h5netcdf")
        with xarray.open_dataset(tmp_path / "h.nc", engine="h5netcdf") as back:
            assert np.array_equal(back.depth, flood.depth, equal_nan=True)
            assert back.depth.encoding["_FillValue"] == -9999
        with rasterio.open(f"netcdf:{tmp_path / 'h.nc'}:depth") as file:
            assert np.array_equal(file.read(2, masked=True).mask, holes)
    assert "missing" not in read_dem(write(tmp_path / "b.tif")).profile


# --- rain


@pytest.mark.parametrize(("unit", "rate"), [(None, 36.0), ("mm/day", 864.0), ("kg m-2 s-1", 0.01)])
@pytest.mark.parametrize("suffix", [".tif", ".nc"])
def test_rain_is_read_on_the_cells_of_the_map(tmp_path, dem, unit, rate, suffix):
    rain = np.full((32, 48), rate, np.float64)
    rain[3, 4] = 0
    path = tmp_path / f"rain{suffix}"
    transform = dem.profile["transform"]
    if suffix == ".nc":
        flood = to_xarray(torch.from_numpy(rain), dem.profile, [0.0]).isel(time=0, drop=True)
        flood.depth.attrs = {"units": unit} if unit else {}
        # from south to north, as most NetCDF files are
        flood.isel(y=slice(None, None, -1)).to_netcdf(path, engine="h5netcdf")
    else:
        write(path, rain, cell=(dem.dx, dem.dx), corner=(transform.c, transform.f), unit=unit)
    found = read_rain(path, dem.profile)
    np.testing.assert_allclose(found, 1e-5 * (rain > 0), rtol=1e-12)
    assert found.dtype == torch.float64
    # no rain where there is no ground
    missing = np.zeros((32, 48), bool)
    missing[:, :10] = True
    assert not read_rain(path, {**dem.profile, "missing": missing})[:, :10].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "mm"}, r"must hold rain in mm/h .*; its unit is 'mm'"),
        ({"unit": "inch/h"}, r"must hold rain in mm/h .*; its unit is 'inch/h'"),
        ({"crs": "EPSG:32617"}, r"must lie on the cells of the map.*EPSG:32616; it has .*EPSG:32617"),
        ({"corner": (5.0, 0.0)}, "must lie on the cells of the map"),
        ({"cell": (45.0, 45.0)}, "must lie on the cells of the map"),
        ({"values": np.ones((32, 47), np.float32)}, "must lie on the cells of the map, 32 x 48"),
        ({"values": np.full((32, 48), -1.0, np.float32)}, "1536 of the 1536 cells of .* hold -1, which is no rain"),
        ({"values": np.full((32, 48), 1e20, np.float32)}, r"hold 1e\+20, which is no rain"),
        ({"values": np.full((32, 48), 9999, np.int16)}, "hold 9999, which is no rain"),
        ({"values": np.full((32, 48), np.nan, np.float32)}, "wherever the map has ground; 1536 cells have none"),
        ({"nodata": 1.0}, "wherever the map has ground; 1536 cells have none"),
        ({"values": np.ones((2, 32, 48), np.float32)}, "has 2 bands"),
    ],
)
def test_rain_that_does_not_fit_is_refused(tmp_path, dem, change, message):
    transform = dem.profile["transform"]
    options = {"values": np.ones((32, 48), np.float32), "cell": (dem.dx, dem.dx)} | change
    off = options.pop("corner", (0.0, 0.0))
    path = write(tmp_path / "rain.tif", corner=(transform.c + off[0], transform.f + off[1]), **options)
    with pytest.raises(ValueError, match=message):
        read_rain(path, dem.profile)


# --- other files


def test_a_grid_without_a_reference_system_can_be_given_one(tmp_path):
    path = tmp_path / "a.asc"
    header = "ncols 3\nnrows 2\nxllcorner 500000\nyllcorner 4000000\ncellsize 10\nNODATA_value -9999\n"
    path.write_text(header + "1 2 3\n4 5 6\n")
    with pytest.raises(ValueError, match=r"no coordinate reference system.*crs='EPSG.*--crs"):
        read_dem(path)
    z, dx, profile = read_dem(path, crs="EPSG:32633")
    assert z.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (dx, profile["crs"].to_epsg()) == (10.0, 32633)
    assert read_dem(path, crs="EPSG:26916+6360").z[0, 0] == pytest.approx(1200 / 3937)
    with pytest.raises(ValueError, match=r"crs must be a coordinate reference system such as .*'nowhere'"):
        read_dem(path, crs="nowhere")
    with pytest.raises(ValueError, match="coordinates in degree"):
        read_dem(path, crs="EPSG:4326")
    own = write(tmp_path / "own.tif")
    assert read_dem(own, crs=32616).dx == 10.0
    with pytest.raises(ValueError, match=r"crs must be that of .*own.tif, EPSG:32616, which has one; it is EPSG:32633"):
        read_dem(own, crs="EPSG:32633")


def test_the_parts_of_a_file_of_several_maps_are_named_and_can_be_read(tmp_path, dem):
    both = to_xarray(dem.z, dem.profile, [0.0]).isel(time=0, drop=True)
    both["height"] = both.depth.copy()
    both.height.encoding = dict(both.depth.encoding)
    path = tmp_path / "two.nc"
    both.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=r"several maps: name one of them, .*two\.nc:depth, .*two\.nc:height") as told:
        read_dem(path)
    part = str(told.value).split()[-1]
    assert torch.equal(read_dem(part).z, dem.z)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: read_dem("a.tif", z_unit="m2"), "z_unit must be one of length .*m2"),
        (lambda _: read_dem("text.tif"), "no raster that can be read"),
        (lambda _: read_dem("half.tif"), r"is damaged|no raster"),
        (lambda _: read_dem("bare.pgm"), "no coordinate reference system"),
        (lambda dem: coarse_profile(dem.profile, 5), "multiples of the factor 5"),
        (lambda _: sample_geotiff("c.tif", shape=(1000, 10)), "shape must fit into"),
        (lambda dem: write_depth("d.tif", dem.z, {**dem.profile, "crs": None}), "profile has no coordinate"),
        (lambda dem: to_xarray(dem.z, {**dem.profile, "transform": None}, [0.0]), "profile has no coord"),
        (lambda dem: write_depth("d.tif", dem.z, {**dem.profile, "crs": "x"}), "crs must be a coordinate"),
        (lambda dem: read_rain("a.tif", {**dem.profile, "width": None}), "profile must .* no width"),
        (lambda dem: write_depth("d.tif", dem.z[:, 1:], dem.profile), r"h must have shape \(32, 48\)"),
        (lambda dem: write_depth("d.tif", dem.z[None], dem.profile), r"h must have shape \(32, 48\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, dem, monkeypatch, *, call, message):
    monkeypatch.chdir(tmp_path)
    write("a.tif")
    whole = write("half.tif", np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32), compress="deflate")
    Path(whole).write_bytes(Path(whole).read_bytes()[:100_000])
    Path("text.tif").write_text("no picture")
    Path("bare.pgm").write_bytes(b"P5 4 4 255\n" + bytes(range(16)))
    with pytest.raises(ValueError, match=message):
        call(dem)
    assert not Path("d.tif").exists()
    with pytest.raises(FileNotFoundError, match=r"there is no file b\.tif"):
        read_dem("b.tif")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_depths_come_back(tmp_path, dem, dtype):
    h = torch.rand(32, 48, generator=torch.Generator().manual_seed(0), dtype=dtype)
    path = write_depth(tmp_path / "new" / "depth.tif", h, dem.profile)
    assert [file.name for file in path.parent.iterdir()] == ["depth.tif"]
    back = read_dem(path)
    assert torch.equal(back.z.to(dtype), h)
    assert back.profile["transform"] == dem.profile["transform"]
    assert back.profile["crs"] == dem.profile["crs"]
    coarse = write_depth(tmp_path / "coarse.tif", h[::16, ::16], coarse_profile(dem.profile, 16))
    with rasterio.open(path) as dataset, rasterio.open(coarse) as wide:
        assert tuple(wide.bounds) == pytest.approx(tuple(dataset.bounds))
        assert wide.res == (16 * dem.dx, 16 * dem.dx)
        assert dataset.descriptions == ("water depth",)
        assert dataset.units == ("m",)
        assert dataset.dtypes == (str(dtype).removeprefix("torch."),)
        assert dataset.nodata is None


def test_a_failed_write_leaves_the_old_file(tmp_path, dem, monkeypatch):
    path = write_depth(tmp_path / "depth.tif", torch.ones(32, 48), dem.profile)
    before = sorted(tmp_path.iterdir())

    def full_disk(half, *_, **__):
        Path(half).write_text("half")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(rasterio, "open", full_disk)
        with pytest.raises(OSError, match="no space left"):
            write_depth(path, torch.zeros(32, 48), dem.profile)
    assert sorted(tmp_path.iterdir()) == before
    assert torch.equal(read_dem(path).z, torch.ones(32, 48).double())


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_a_netcdf_file_comes_back(tmp_path, dem, engine):
    h = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    written = to_xarray(h, dem.profile, [0.0, 0.5, 600.0], start="2021-07-14T20:00")
    assert list(written.data_vars) == ["depth"]
    path = tmp_path / "a.nc"
    written.to_netcdf(path, engine=engine)
    with xarray.open_dataset(path, engine=engine) as flood:
        assert flood.depth.dims == ("time", "y", "x")
        assert np.array_equal(flood.depth.values, h.numpy())
        assert flood.attrs["Conventions"] == "CF-1.11"
        assert flood.depth.attrs["units"] == flood.x.attrs["units"] == flood.y.attrs["units"] == "m"
        assert flood.depth.attrs["standard_name"] == "flood_water_thickness"
        assert flood.x.attrs["standard_name"] == "projection_x_coordinate"
        seconds = (flood.time.values - np.datetime64("2021-07-14T20:00")) / np.timedelta64(1, "s")
        assert seconds.tolist() == [0.0, 0.5, 600.0]
        # centres of the outermost cells, north first
        transform = dem.profile["transform"]
        np.testing.assert_allclose(flood.x, transform.c + dem.dx * (np.arange(48) + 0.5), rtol=1e-15)
        np.testing.assert_allclose(flood.y, transform.f - dem.dx * (np.arange(32) + 0.5), rtol=1e-15)
        # the reference system is a coordinate that the depths point to, also for who does not look for it
        assert "crs" in flood.depth.coords
        assert flood.depth.attrs["grid_mapping"] == "crs"
        assert flood.crs.attrs["grid_mapping_name"] == "transverse_mercator"
        assert pyproj.CRS.from_cf(flood.crs.attrs).to_epsg() == 32616
    with xarray.open_dataset(path, engine=engine, decode_coords="all") as flood:
        assert RasterDataset(flood).crs.to_epsg() == flood.depth.rio.crs.to_epsg() == 32616
    with xarray.open_dataset(path, engine=engine, decode_cf=False) as raw:
        assert raw.time.values.tolist() == [0.0, 0.5, 600.0]
        assert raw.time.attrs["units"] == "seconds since 2021-07-14T20:00:00"
        assert not any("_FillValue" in raw[name].attrs for name in ("time", "x", "y", "depth"))
        assert "coordinates" not in raw.depth.attrs
    written.isel(time=0).to_netcdf(path, engine=engine)
    with xarray.open_dataset(path, engine=engine) as flood:
        assert {"crs", "time"} <= set(flood.depth.coords)
    if engine == "h5netcdf":
        # the wheel of rasterio reads NetCDF: another program's reading of the file
        with rasterio.open(f"netcdf:{path}:depth") as dataset:
            assert dataset.crs.linear_units_factor == ("metre", 1.0)
            assert tuple(dataset.transform) == pytest.approx(tuple(dem.profile["transform"]))
            assert np.array_equal(dataset.read(1), h[0].numpy())


@pytest.mark.parametrize(
    ("start", "moment"),
    [
        ("2300-06-01T06:30", "2300-06-01T06:30:00"),
        ("0001-01-01", "0001-01-01T00:00:00"),
        ("9999-12-30", "9999-12-30T00:00:00"),
        ("2021-07-14T22:00+02:00", "2021-07-14T20:00:00"),
        (np.datetime64("2021-07-14"), "2021-07-14T00:00:00"),
    ],
)
def test_dates_are_right_in_any_century(tmp_path, dem, start, moment):
    flood = to_xarray(torch.zeros(3, 32, 48), dem.profile, [0.0, 0.25, 3600.0], start=start)
    expected = np.datetime64(moment, "us") + np.array([0, 250_000, 3_600_000_000], "timedelta64[us]")
    assert np.array_equal(flood.time.values, expected)
    flood.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    coder = xarray.coders.CFDatetimeCoder(time_unit="us")
    with xarray.open_dataset(tmp_path / "a.nc", engine="h5netcdf", decode_times=coder) as back:
        assert np.array_equal(back.time.values, expected)
        assert back.time.encoding["calendar"] == "proleptic_gregorian"
    with xarray.open_dataset(tmp_path / "a.nc", engine="h5netcdf", decode_cf=False) as raw:
        assert raw.time.values.tolist() == [0.0, 0.25, 3600.0]


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
    ("shape", "times", "start", "message"),
    [
        ((2, 32, 48), [0.0], "2000-01-01", r"times must have shape \(2,\)"),
        ((2, 32, 48), [5.0, 5.0], "2000-01-01", "times must ascend"),
        ((2, 32, 48), [0.0, 1e-8], "2000-01-01", "times must ascend"),
        ((2, 32, 48), None, "2000-01-01", "pass the save_times"),
        ((2, 32, 40), [0.0, 1.0], "2000-01-01", r"depths must have shape \(T, 32, 48\)"),
        ((2, 1, 32, 48), [0.0, 1.0], "2000-01-01", r"depths must have shape \(T, 32, 48\)"),
        ((32, 48), [86400.0], "9999-12-31", "times must lie in the years 1 to 9999"),
        ((32, 48), [-1.0], "0001-01-01", "times must lie in the years 1 to 9999"),
        ((32, 48), [1e300], "2000-01-01", "times must lie in the years 1 to 9999"),
        *(
            ((32, 48), [0.0], start, "start must be .* from the year 1 to 9999; it is")
            for start in ("NaT", "2021", "-0044-03-15", "2021-02-30", None)
        ),
    ],
)
def test_bad_series_are_refused(dem, *, shape, times, start, message):
    with pytest.raises(ValueError, match=message):
        to_xarray(torch.zeros(shape), dem.profile, times, start=start)


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


@pytest.mark.parametrize("missing", ["rasterio", "pyproj"])
def test_without_the_extra_the_error_names_it(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "lib.flood.geo")
    with pytest.raises(ImportError, match=rf"{missing} is needed .*paperplay\[geo\]"):
        importlib.import_module("lib.flood.geo")
