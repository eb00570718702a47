"""`python -m lib simulate flood`: from a file of elevations to files of depths, and every input that it refuses."""

import inspect
import re
import sys
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import rasterio
import torch
import xarray
from typer.testing import CliRunner

from lib.__main__ import app
from lib.flood import commands
from lib.flood.boundaries import Boundary
from lib.flood.experiment import FloodRun, trained_network
from lib.flood.faces import State
from lib.flood.geo import coarse_profile, read_dem, sample_geotiff, to_xarray
from lib.flood.pooling import pool_dem
from lib.flood.solver import LocalInertialSolver

AREA = 90.0**2


@pytest.fixture(scope="module")
def dem(tmp_path_factory):
    return sample_geotiff(tmp_path_factory.mktemp("map") / "valley.tif", shape=(64, 96))


def write(path, values, **settings):
    """A raster of cells of 10 m."""
    values = np.asarray(values, dtype=np.float32)
    transform = rasterio.Affine(10, 0, 700000, 0, -10, 4000000)
    shape = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "float32"}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:32616", transform=transform, **shape, **settings
    ) as dataset:
        dataset.write(values, 1)
    return path


@pytest.fixture
def basin(tmp_path):
    """A level basin, 8 x 12 cells of 10 m, 300 m above the sea."""
    return write(tmp_path / "basin.tif", np.full((8, 12), 300))


def call(verb, *words):
    return CliRunner().invoke(app, [verb, "flood", *(str(word) for word in words)], env={"COLUMNS": "200"})


def run(*words):
    return call("simulate", *words)


def solve(tiles, *words):
    """For tiles of cells of 400 m."""
    return call("solve", "--tiles", tiles, "--dx", 400, "--kind", "rain", *words)


def said(done):
    """What a run printed, as one line without frames."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", done.output)


def flooded(*words):
    """A run that ends well."""
    done = run(*words)
    assert done.exit_code == 0, done.output
    return done


def refused(*words):
    """What a run says that is refused."""
    done = run(*words)
    assert done.exit_code == 2, done.output
    return said(done)


def line(done, name):
    return re.search(rf"^{name} +(.+)$", done.output, re.MULTILINE).group(1)


def amount(done, name):
    return float(line(done, name).split()[0])


def depths(path):
    """Depths [m] of a file, masked where there is no ground."""
    with rasterio.open(path) as dataset:
        return dataset.read(1, masked=True)


def test_rain_on_a_valley_becomes_three_files(dem, tmp_path):
    files = [tmp_path / name for name in ("new/depth.nc", "depth.tif", "depth.png")]
    done = flooded("--dem", dem, "--rain", 50, "--duration", 1800, "--out", files[0], "--out", files[1],
                   "--picture", files[2], "--frames", 4)  # fmt: skip
    assert [file.is_file() for file in files] == [True] * 3
    assert sorted(tmp_path.rglob(".*")) == []
    with xarray.open_dataset(files[0], engine="h5netcdf") as flood:
        assert dict(flood.sizes) == {"time": 4, "y": 64, "x": 96}
        assert flood.depth.attrs["units"] == "m"
        assert flood.depth.attrs["grid_mapping"] == "crs"
        assert flood.crs.attrs["projected_crs_name"].endswith("UTM zone 16N")
        assert "rain 50 mm/h" in flood.attrs["comment"]
        seconds = (flood.time - flood.time[0]) / np.timedelta64(1, "s")
        assert seconds.values.tolist() == [0, 600, 1200, 1800]
        volumes = flood.depth.sum(("y", "x")).values * AREA
        last = flood.depth[-1].values
        deepest = flood.depth[-1].where(flood.depth[-1] == flood.depth[-1].max(), drop=True)
        x, y = float(deepest.x[0]), float(deepest.y[0])
    np.testing.assert_allclose(volumes, np.arange(4) / 3 * 0.025 * 64 * 96 * AREA, rtol=1e-5)
    again = read_dem(files[1])
    assert np.array_equal(again.z.numpy(), last)
    assert again.profile["transform"] == read_dem(dem).profile["transform"]
    assert again.profile["dtype"] == "float32"
    assert line(done, "cells") == "6144 (64 x 96 of 90 m)"
    assert amount(done, "water in") == pytest.approx(0.025 * 6144 * AREA, rel=1e-6)
    assert amount(done, "water out") == 0
    assert abs(amount(done, "mass error")) < 1e-5
    assert line(done, "deepest") == f"{last.max():.3f} m at x = {x:.1f} m, y = {y:.1f} m"
    assert line(done, "flooded").startswith(f"{(last > 0.1).sum() * AREA:.0f} m^2")
    assert all(str(file) in line(done, "written") for file in files)


def test_the_depths_are_those_of_the_solver(basin, tmp_path):
    done = flooded("--dem", basin, "--inflow", "west=2@0:25", "--inflow", "west=1@70:80", "--inflow", "north=0.5",
                   "--outflow", "east=0.001", "--outflow", "west=0.002", "--duration", 300, "--precision", "float64",
                   "--h0", 0.1, "--out", tmp_path / "depth.tif", "--manning", 0.04, "--theta", 0.8,
                   "--alpha", 0.4)  # fmt: skip
    west = torch.tensor([0.08, 0.08, 0.04, 0, 0, 0, 0, 0.1], dtype=torch.float64)
    boundary = Boundary({"west": west, "north": 0.5 / 120}, {"east": 0.001, "west": (west == 0).double() * 0.002})
    solver = LocalInertialSolver(dx=10.0, manning=0.04, theta=0.8, alpha=0.4)
    # 100 pieces are asked for, and twelve intervals of nine are the next that fit
    pieces = [300 / 108 * i for i in range(1, 109)]
    expected = solver.simulate(
        torch.zeros(8, 12, dtype=torch.float64), 300.0, 0.1, boundary=boundary, save_times=pieces, backend="compiled"
    )
    torch.testing.assert_close(read_dem(tmp_path / "depth.tif").z, expected.h, rtol=0, atol=1e-13)
    assert amount(done, "water in") == pytest.approx(3.5 * 300, abs=0.06)
    assert amount(done, "water out") == pytest.approx(expected.volume_out.item(), abs=0.06)
    assert line(done, "water before") == "960.0 m^3"
    assert abs(amount(done, "mass error")) < 1e-12


def test_one_frame_is_the_last(basin, tmp_path):
    path = tmp_path / "depth.nc"
    flooded("--dem", basin, "--inflow", "south=3@20:50", "--duration", 120, "--frames", 1, "--out", path)
    with xarray.open_dataset(path, engine="h5netcdf") as flood:
        assert dict(flood.sizes) == {"time": 1, "y": 8, "x": 12}
        assert float(flood.depth.sum()) * 100 == pytest.approx(360)


def test_a_coarse_map_lies_where_the_fine_one_does(dem, tmp_path):
    path = tmp_path / "depth.tif"
    done = flooded("--dem", dem, "--rain", 50, "--duration", 600, "--out", path, "--factor", 8, "--pooling", "max")
    fine, coarse = read_dem(dem), read_dem(path)
    assert coarse.dx == 720
    assert coarse.profile["transform"] == coarse_profile(fine.profile, 8)["transform"]
    assert line(done, "cells") == "96 (8 x 12 of 720 m)"
    z = pool_dem(fine.z, 8, "max")
    expected = LocalInertialSolver(dx=720.0).simulate(z, 600.0, rain=50 / 3.6e6, dt_max=600 / 108)
    torch.testing.assert_close(coarse.z, expected.h, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("backend", ["torch", "compiled"])
def test_a_drizzle_on_deep_water_arrives_in_float32_and_is_what_the_balance_is_of(basin, tmp_path, backend):
    words = ("--dem", basin, "--h0", 20, "--duration", 60, "--out", tmp_path / "depth.tif", "--backend", backend)
    error, _, of = line(flooded(*words, "--rain", 1), "mass error").partition(" ")
    assert abs(float(error)) < 1e-4
    assert of == "of what came in"
    assert line(flooded(*words), "mass error") == "0.0e+00 of the water before"


def test_high_ground_costs_float32_no_digits(tmp_path):
    high = write(tmp_path / "high.tif", np.full((8, 12), 8000))
    flooded("--dem", high, "--h0", 0.01, "--rain", 1, "--duration", 60, "--out", tmp_path / "a.tif")
    np.testing.assert_allclose(depths(tmp_path / "a.tif"), 0.01 + 1 / 60000, rtol=1e-5)


def test_fast_flow_is_told(tmp_path, basin):
    words = ("--out", tmp_path / "a.tif", "--duration", 60, "--inflow", "west=40")
    assert "Warning" not in run("--dem", basin, *words, "--h0", 2).output
    steep = write(tmp_path / "steep.tif", np.tile(-2.0 * np.arange(12), (8, 1)))
    done = run("--dem", steep, *words)
    assert re.search(r"Warning: the flow was supercritical .* \d+ cells at a time, \d+% of the up to \d+", said(done))


def test_froude_numbers_are_those_of_their_definition():
    h = torch.tensor([[1.0, 1.0, 0.04, 0.0]])
    qx = torch.tensor([[3.0, 3.0, 3.2, 9.0, 0.0]])
    qy = torch.zeros(2, 4)
    # 3 / sqrt(9.8) < 1, 3.1 / sqrt(9.8) < 1
    assert commands._supercritical(State(h, qx, qy), 9.8) == (2, 0)
    # 3.1 m^2/s to the east and 1 to the south: sqrt(10.61 / 9.8) > 1
    qy[:, 1] = 1.0
    assert commands._supercritical(State(h, qx, qy), 9.8) == (2, 1)


def test_a_run_that_diverges_leaves_nothing(basin, tmp_path, monkeypatch):
    class Bursting(LocalInertialSolver):
        def simulate(self, *args, **kwargs):
            result = super().simulate(*args, **kwargs)
            return result if args[1] == 0 else replace(result, time=result.time * float("nan"))

    monkeypatch.setattr("lib.flood.solver.LocalInertialSolver", Bursting)
    done = run("--dem", basin, "--rain", 5, "--out", tmp_path / "a.nc")
    assert done.exit_code == 1
    assert "diverged and nothing was written" in done.output
    assert list(tmp_path.iterdir()) == [basin]


def test_the_defaults_are_the_solvers():
    options, solver = inspect.signature(commands.COMMANDS["simulate"]).parameters, LocalInertialSolver(dx=1.0)
    assert all(options[name].default == getattr(solver, name) for name in ("manning", "theta", "alpha"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dem", "nowhere.tif", "--rain", 5], "there is no file nowhere.tif"),
        (["--rain", -5], "--rain must be finite and at least 0; it is -5.0"),
        (["--rain", "inf"], "--rain must be finite"),
        (["--rain", 1e60], "rain must be finite"),
        (["--rain", "much"], "there is no file much"),
        (["--rain", 5, "--h0", -1], "--h0 must be finite and at least 0"),
        (["--rain", 5, "--h0", 1e39], "h0 must be finite"),
        ([], "there is no water: give --rain, --inflow or --h0"),
        (["--rain", 5, "--duration", 0], "--duration must be positive"),
        (["--rain", 5, "--frames", 0], "--frames must be at least 1"),
        (["--rain", 5, "--precision", "float16"], "--precision must be one of float32, float64; it is 'float16'"),
        (["--rain", 5, "--backend", "cuda"], "--backend must be one of compiled, torch; it is 'cuda'"),
        (["--rain", 5, "--pooling", "mode"], "--pooling must be one of mean, max"),
        (["--rain", 5, "--factor", 5], "multiples of the factor 5; this map has 8 x 12 cells: crop it to 5 x 10"),
        (["--rain", 5, "--fill", "inf"], "fill must be finite"),
        (["--rain", 5, "--crs", "EPSG:32617"], "crs must be that of"),
        (["--rain", 5, "--z-unit", "stones"], "z_unit must be one of length"),
        (["--rain", 5, "--network", "nowhere.npz"], "nowhere.npz"),
        (["--inflow", "up=3"], "--inflow must begin with west=, east=, north=, south=; it is 'up=3'"),
        (["--inflow", "west=much"], "--inflow must hold numbers behind the side; it is 'west=much'"),
        (["--inflow", "west=-3"], "--inflow must be a positive discharge; it is 'west=-3'"),
        (["--inflow", "west=3@40:20"], "--inflow must lie between 0 and 80 m"),
        (["--inflow", "west=3@5"], "--inflow must be SIDE=Q or SIDE=Q@FROM:TO; it is 'west=3@5'"),
        (["--rain", 5, "--outflow", "left=0.1"], "--outflow must begin with west="),
        (["--rain", 5, "--outflow", "west=0"], "--outflow must have a positive slope"),
        (["--rain", 5, "--outflow", "west=inf"], "outflow['west'] must be finite"),
        (["--rain", 5, "--outflow", "west=1", "--outflow", "west=2"], "--outflow must name a side once"),
        (["--inflow", "west=3", "--outflow", "west=1"], "a part of a side without inflow; 'west' has none"),
        (["--rain", 5, "--out", "depth.csv"], "--out must end in .nc or .tif or .tiff; it is depth.csv"),
        (["--rain", 5, "--out", "basin.tif"], "--out must not be the map itself"),
        (["--rain", 5, "--out", "basin.tif/a.tif"], "--out must lie in a folder"),
        (["--rain", 5, "--out", "folder.tif"], "--out must name a file"),
        (["--rain", 5, "--picture", "depth.jpg"], "--picture must end in .png; it is depth.jpg"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_the_run(basin, tmp_path, monkeypatch, words, message):
    def unwanted(*_args, **_kwargs):
        raise AssertionError("the run has started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "_run", unwanted)
    (tmp_path / "folder.tif").mkdir()
    before = sorted(tmp_path.iterdir())
    start = [] if "--dem" in words else ["--dem", basin.name]
    assert message in refused(*start, "--out", "depth.nc", *words)
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_package_is_named_before_the_run(tmp_path, basin, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5netcdf", None)
    done = run("--dem", basin, "--rain", 5, "--out", tmp_path / "a.nc")
    assert done.exit_code == 1
    assert "h5netcdf is needed for NetCDF files" in done.output
    flooded("--dem", basin, "--rain", 5, "--duration", 5, "--out", tmp_path / "a.tif")


def test_the_coarse_map_of_a_trained_network(dem, tmp_path):
    trained = trained_network("rain")
    fitting = replace(trained, preset=replace(trained.preset, dx=90.0))
    fitting.save(tmp_path / "network.npz")
    path, asked = tmp_path / "depth.tif", ("--rain", 50, "--duration", 600)
    done = flooded("--dem", dem, *asked, "--out", path, "--network", tmp_path / "network.npz")
    assert line(done, "cells") == "24 (4 x 6 of 1440 m)"
    found = read_dem(path)
    assert found.dx == 1440
    fine = read_dem(dem)
    with torch.no_grad():
        z = trained.model((fine.z - fine.z.mean()).float()[None, None])[0, 0]
    wanted = LocalInertialSolver(dx=1440.0).simulate(z, 600.0, rain=50 / 3.6e6, backend="compiled").h
    # the command runs in a hundred pieces, whose steps are shorter
    assert (found.z - wanted).abs().max() < 2e-3
    # for other cells, another factor, and from a file that holds no network
    trained.save(tmp_path / "small.npz")
    for words, message in (
        (["--network", tmp_path / "small.npz"], "--network was trained on cells of 8 m; the map's have 90 m"),
        (["--network", tmp_path / "network.npz", "--factor", 8], "--factor must be that of the network, 16; it is 8"),
        (["--network", dem], "holds no network that can be read"),
    ):
        assert message in refused("--dem", dem, *asked, "--out", tmp_path / "other.tif", *words)
    assert not (tmp_path / "other.tif").exists()


def test_training_and_solving_from_the_command_line(tmp_path):
    small = ["--count", 4, "--test-count", 1, "--side", 32, "--batch-size", 4, "--epochs", 1]
    done = call("train", *small, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "mean square error on the test maps" in done.output
    assert FloodRun.load(tmp_path / "run" / "network.npz").preset.count == 4
    assert call("train", "--preset", "huge", "--out", tmp_path / "x").exit_code == 2
    np.save(tmp_path / "a.npy", np.zeros((16, 16)))
    assert "1 tiles of 16 x 16 cells are solved" in solve(tmp_path).output
    assert (tmp_path / "a.flood.npz").exists()
    assert solve(tmp_path / "nowhere").exit_code == 2


# --- what a user's file hides


Y, X = np.mgrid[:48, :48]
#: Where the bowl has data, and how high it lies [m].
GROUND, HEIGHTS = np.hypot(Y - 24, X - 24) <= 18, 100 + 0.2 * np.hypot(Y - 24, X - 24)


@pytest.fixture
def bowl(tmp_path):
    """A bowl of 18 cells' radius, 48 x 48 cells of 10 m, in a square without data."""
    return write(tmp_path / "bowl.tif", np.where(GROUND, HEIGHTS, -9999), nodata=-9999)


@pytest.mark.parametrize(
    ("fill", "factor", "words"),
    [(104, 1, []), (104, 8, ["--pooling", "max"]), (8000, 4, []), (8000, 1, ["--precision", "float64"])],
)
def test_cells_without_data_are_walls(bowl, tmp_path, fill, factor, words):
    files = [tmp_path / name for name in ("h.tif", "h.nc", "h.png")]
    picture = ["--picture", files[2]] if fill == 104 else []
    done = flooded("--dem", bowl, "--fill", fill, "--rain", 50, "--duration", 300, "--h0", 0.01, "--frames", 2, "--out",
                   files[0], "--out", files[1], "--factor", factor, *picture, *words)  # fmt: skip
    share = GROUND.reshape(48 // factor, factor, 48 // factor, factor).mean((1, 3))
    h = depths(files[0])
    assert np.array_equal(h.mask, share == 0)
    area = (10 * factor) ** 2
    water = area * (0.01 * (share > 0).sum() + 0.05 / 12 * share.sum())
    assert h.sum(dtype=float) * area == pytest.approx(water, rel=1e-5)
    assert amount(done, "water in") == pytest.approx(GROUND.sum() * 100 * 0.05 / 12, rel=1e-4)
    assert abs(amount(done, "mass error")) < 1e-5
    with xarray.open_dataset(files[1], engine="h5netcdf") as flood:
        assert np.array_equal(np.isnan(flood.depth), np.stack([share == 0] * 2))
        assert np.array_equal(flood.depth[1].values[share > 0], h.data[share > 0])


def test_walls_are_above_all_ground_and_rivers_come_in_over_ground(bowl, tmp_path):
    words = ("--dem", bowl, "--fill", 1000, "--out", tmp_path / "h.tif")
    assert "--fill must lie above the highest ground, 103.6 m" in refused(*words, "--rain", 5, "--fill", 103)
    assert "--inflow must come in over ground" in refused(*words, "--inflow", "west=3")
    assert "--outflow must leave through ground" in refused(*words, "--rain", 5, "--outflow", "west=0.01")
    # cut such that ground lies at a side: the river keeps its discharge, none of it on the walls
    half = write(tmp_path / "half.tif", np.where(GROUND, HEIGHTS, -9999)[:, 24:], nodata=-9999)
    done = flooded(*words, "--dem", half, "--inflow", "west=3", "--duration", 100)
    assert amount(done, "water in") == pytest.approx(300, rel=1e-4)
    assert depths(tmp_path / "h.tif").sum() * 100 == pytest.approx(300, rel=1e-4)


def test_the_coarse_map_of_a_network_has_walls_too(bowl, tmp_path):
    trained = trained_network("rain")
    replace(trained, preset=replace(trained.preset, dx=10.0)).save(tmp_path / "n.npz")
    flooded("--dem", bowl, "--fill", 1000, "--rain", 50, "--duration", 60, "--out", tmp_path / "h.tif", "--network",
            tmp_path / "n.npz")  # fmt: skip
    h = depths(tmp_path / "h.tif")
    assert np.array_equal(h.mask, ~GROUND.reshape(3, 16, 3, 16).any((1, 3)))
    assert h.sum() * 160**2 == pytest.approx(GROUND.sum() * 100 * 0.05 / 60, rel=1e-4)


@pytest.mark.parametrize(("factor", "suffix"), [(1, ".tif"), (4, ".nc")])
def test_rain_from_a_file(basin, tmp_path, factor, suffix):
    rain = np.zeros((8, 12))
    rain[:, 8:] = 36.0
    path = tmp_path / f"rain{suffix}"
    if suffix == ".nc":
        field = to_xarray(torch.from_numpy(rain), read_dem(basin).profile, [0.0]).isel(time=0, drop=True)
        field.depth.attrs = {"units": "mm/h"}
        field.to_netcdf(path, engine="h5netcdf")
    else:
        write(path, rain)
    done = flooded("--dem", basin, "--rain", path, "--duration", 100, "--factor", factor, "--out", tmp_path / "h.tif")
    assert amount(done, "water in") == pytest.approx(8 * 4 * 100 * 1e-3, abs=0.06)
    h = depths(tmp_path / "h.tif")
    assert float(h.sum()) * (10 * factor) ** 2 == pytest.approx(3.2, rel=1e-4)
    assert h[:, -1].min() > 5e-4


def test_units_voids_and_systems_are_told_on_the_command_line(tmp_path):
    (tmp_path / "a.asc").write_text(
        "ncols 4\nnrows 2\nxllcorner 500000\nyllcorner 4000000\ncellsize 10\n9 9 9 9\n9 9 9 -999\n"
    )
    words = ["--dem", tmp_path / "a.asc", "--h0", 0.5, "--duration", 1, "--out", tmp_path / "h.tif"]
    for more, message in (
        (["--crs", "EPSG:32633"], "no coordinate reference system"),
        (["--nodata", -999], "1 of the 8 cells"),
        (["--fill", 20], "have no elevation"),
    ):
        assert message in refused(*words)
        words += more
    words += ["--z-unit", "ft"]
    done = flooded(*words)
    assert line(done, "water before") == "350.0 m^3"
    # 9 ft are 2.7432 m
    flooded(*words, "--fill", 2.75)
    assert "highest ground, 2.7432 m" in refused(*words, "--fill", 2.74)


def test_what_fails_after_the_checks_is_one_line(basin, tmp_path, monkeypatch):
    full, grown = OSError("no space left on device"), RuntimeError("a fine flood has grown beyond all bounds")
    monkeypatch.setattr("lib.flood.geo.write_depth", Mock(side_effect=full))
    done = run("--dem", basin, "--rain", 5, "--duration", 1, "--out", tmp_path / "a.tif")
    assert done.exit_code == 1
    assert "cannot be written: no space left on device" in said(done)
    monkeypatch.setattr("lib.flood.scenarios.flood_map", Mock(side_effect=grown))
    (tmp_path / "tiles").mkdir()
    np.save(tmp_path / "tiles" / "a.npy", np.zeros((16, 16)))
    done = solve(tmp_path / "tiles")
    assert done.exit_code == 1
    assert "grown beyond all bounds" in said(done)
    assert [path.name for path in (tmp_path / "tiles").iterdir()] == ["a.npy"]


def test_bad_calls_of_solve_are_one_line(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((16, 16)))
    for words, message in (
        (["--tiles", tmp_path / "a.npy"], "--tiles must be a folder"),
        (["--dx", 0], "dx must be positive"),
        (["--kind", "snow"], "kind must be one of"),
        (["--seed", -1], "--seed must be at least 0"),
        (["--jobs", 0], "jobs must be at least 1"),
    ):
        done = solve(tmp_path, *words)
        assert done.exit_code == 2, done.output
        assert message in said(done)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    (tmp_path / "a.flood.npz").write_bytes(b"half")
    done = solve(tmp_path)
    assert done.exit_code == 2
    assert "a.flood.npz is damaged" in said(done)
