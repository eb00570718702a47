"""What drives the water, drawn floods, and folders of tiles with their solutions."""

from dataclasses import replace

import numpy as np
import pooch
import pytest
import rasterio
import torch
from joblib import parallel_config

from lib.flood import scenarios
from lib.flood.pooling import blocks
from lib.flood.scenarios import (
    FloodDataset,
    Forcing,
    TileFolder,
    draw_floods,
    flood_map,
    solution_cache,
    solve_tiles,
    tile_forcing,
)
from lib.flood.solver import LocalInertialSolver
from lib.flood.terrain import REGIONS, make_terrain

KINDS = ("rain", "inflow", "mixed")
FINE = LocalInertialSolver(dx=40.0, h_cfl_min=0.05)


def driven(shape, *, seed=0, count=3) -> Forcing:
    """Random rain and sides of maps; nothing flows in where something flows out."""
    rng = torch.Generator().manual_seed(seed)
    side = max(shape)
    inflow, slope = (torch.rand(count, 4, side, generator=rng, dtype=torch.float64) for _ in range(2))
    inflow[:, 1::2], slope[:, ::2] = 0, 0
    slope[:, 1, : side // 3] = 0  # partly closed
    rain = torch.rand(count, generator=rng, dtype=torch.float64) * 1e-5
    return Forcing(rain, inflow, slope * 0.01, torch.full((count,), 600.0, dtype=torch.float64))


# --- what drives the water


@pytest.mark.parametrize(("shape", "factor"), [((24, 24), 1), ((24, 24), 4), ((16, 24), 8), ((24, 16), 4)])
def test_wider_cells_get_the_same_water(shape, factor) -> None:
    fine = driven(shape)
    coarse = fine.coarse(factor)
    wide = (shape[0] // factor, shape[1] // factor)
    assert coarse.inflow.shape == coarse.outflow.shape == (3, 4, max(wide))
    sides = fine.boundary(shape), coarse.boundary(wide)
    assert [set(each.inflow) for each in sides] == [{"west", "north"}] * 2
    assert [set(each.outflow) for each in sides] == [{"east", "south"}] * 2
    # m^3/s through each side, and what a depth lets out, up to Manning's roughness
    before, after = (
        torch.stack(
            [each.inflow[name].sum(-1) for name in ("west", "north")]
            + [each.outflow[name].sqrt().sum(-1) for name in ("east", "south")]
        )
        for each in sides
    )
    torch.testing.assert_close(factor * after, before, rtol=1e-13, atol=0)
    assert coarse.rain is fine.rain
    assert coarse.duration is fine.duration


def test_a_shorter_side_has_its_own_number_of_faces() -> None:
    sides = driven((8, 20)).boundary((8, 20))
    assert sides.inflow["west"].shape == (3, 8)
    assert sides.inflow["north"].shape == (3, 20)
    assert torch.equal(sides.inflow["west"], driven((8, 20)).inflow[:, 0, :8])
    assert Forcing.of_rain(2, (4, 6), 1e-5, 60.0).boundary((4, 6)) is None


def test_the_volume_of_a_river_and_of_rain() -> None:
    """What the solver counts, with narrow and wide cells, and each map with its own."""
    z = torch.zeros(2, 8, 12, dtype=torch.float64)
    sides = torch.zeros(2, 4, 12, dtype=torch.float64)
    sides[0, 2, 4:8] = 0.5
    zero = torch.zeros_like(sides)
    seconds = torch.tensor([300.0, 600.0], dtype=torch.float64)
    forcing = Forcing(torch.tensor([0.0, 1e-5], dtype=torch.float64), sides, zero, seconds)
    wanted = torch.tensor([0.5 * 4 * 10 * 300, 1e-5 * 600 * 96 * 100], dtype=torch.float64)
    for factor in (1, 4):
        coarse = forcing.coarse(factor)
        width = 10.0 * factor
        h = coarse.simulate(LocalInertialSolver(dx=width), blocks(z, factor).mean((-2, -1)), backend="compiled")
        torch.testing.assert_close(h.sum((-2, -1)) * width**2, wanted, rtol=1e-12, atol=0)


def test_forcing_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="the sides must be multiples of the factor 5; they have 8 faces"):
        Forcing.of_rain(1, (8, 4), 1e-5, 60.0).coarse(5)
    z, sides = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    with pytest.raises(ValueError, match="rain must"):
        Forcing.of_rain(1, (4, 4), float("nan"), 60.0).simulate(FINE, z)
    sides[0, 1, 2] = -1e-5
    for name in ("inflow", "outflow"):
        with pytest.raises(ValueError, match=rf"{name}\['east'\] must"):
            replace(Forcing.of_rain(1, (4, 4), 0.0, 60.0), **{name: sides}).simulate(FINE, z)


# --- floods in memory


def test_a_data_set_gives_back_what_it_was_given() -> None:
    rng = torch.Generator().manual_seed(0)
    z, h = (torch.rand(3, 4, 6, generator=rng, dtype=torch.float64) for _ in range(2))
    data = FloodDataset(z, h, driven((4, 6)))
    assert data.z is z
    assert data.h is h
    one, rain, inflow, outflow, duration, depth = data[1]
    assert torch.equal(one, z[1])
    assert torch.equal(depth, h[1])
    for part, whole in zip((rain, inflow, outflow, duration), data.forcing.parts, strict=True):
        assert torch.equal(part, whole[1])
    # one precision for all
    assert {part.dtype for part in FloodDataset(z.float(), h.float(), driven((4, 6))).tensors} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": torch.zeros(4, 6)}, r"z and h must have one shape \(B, R, C\)"),
        ({"z": torch.full((3, 4, 6), torch.nan)}, "z must be finite"),
        ({"h": torch.full((3, 4, 6), -1.0)}, "h must have the dtype of z and not be negative"),
        ({"rain": torch.zeros(2)}, r"forcing.rain must have the shape \(3,\); it has \(2,\)"),
        ({"inflow": torch.zeros(3, 4, 4)}, r"forcing.inflow must have the shape \(3, 4, 6\)"),
        ({"rain": torch.full((3,), torch.nan)}, "forcing.rain must be finite and not negative"),
    ],
)
def test_data_that_do_not_fit(change, message) -> None:
    parts = {"z": torch.zeros(3, 4, 6), "h": torch.zeros(3, 4, 6)} | {k: v for k, v in change.items() if k in "zh"}
    forcing = replace(Forcing.of_rain(3, (4, 6), 1e-5, 60.0), **{k: v for k, v in change.items() if k not in "zh"})
    with pytest.raises(ValueError, match=message):
        FloodDataset(parts["z"], parts["h"], forcing)


# --- drawn floods


def test_a_larger_draw_begins_with_a_smaller_one() -> None:
    small, large = (draw_floods(count, seed=3, kind="mixed", side=32) for count in (2, 5))
    for few, many in zip(small.tensors, large.tensors, strict=True):
        assert few.dtype == torch.float32
        assert torch.equal(few, many[:2])
    assert not torch.equal(draw_floods(2, seed=4, kind="mixed", side=32).z, small.z)
    assert large.z.mean((-2, -1)).abs().max() < 1e-5
    assert bool((large.h.amax((-2, -1)) > 0).all())


def test_a_mixed_draw_has_rain_and_rivers_by_turns_on_the_same_maps() -> None:
    rain, river, mixed = (draw_floods(4, seed=3, kind=kind, side=32) for kind in KINDS)
    assert torch.equal(rain.z, river.z)
    assert torch.equal(rain.z, mixed.z)
    for i in range(4):
        source = (rain, river)[i % 2]
        assert all(torch.equal(a, b) for a, b in zip(mixed[i], source[i], strict=True))
    torch.testing.assert_close(rain.forcing.rain, torch.full((4,), 0.1 / 3600))
    assert not rain.forcing.inflow.any()
    assert not river.forcing.rain.any()
    wet = river.forcing.inflow > 0
    assert wet.sum((-2, -1)).tolist() == [8] * 4
    assert not wet[:, 1:].any()
    assert ((river.forcing.inflow[wet] >= 0.3) & (river.forcing.inflow[wet] <= 1)).all()
    # one stretch each, of one discharge
    assert [len(each[each > 0].unique()) for each in river.forcing.inflow] == [1] * 4
    steps = torch.nn.functional.pad(wet[:, 0].int(), (1, 1)).diff()
    assert ((steps == 1).sum(-1) == 1).all()
    # nothing leaves: all the water is there
    volume = river.h.sum((-2, -1), dtype=torch.float64) * 8.0**2
    torch.testing.assert_close(volume, river.forcing.inflow.sum((-2, -1)).double() * 8 * 1800, rtol=1e-4, atol=0)


@pytest.mark.parametrize("split", REGIONS)
def test_maps_are_those_of_their_region(split) -> None:
    z = torch.from_numpy(make_terrain((32, 32), split, rng=np.random.default_rng((1, 0))))
    torch.testing.assert_close(draw_floods(1, seed=1, side=32, split=split).z[0], (z - z.mean()).float())


@pytest.mark.slow
def test_more_processes_draw_the_same_and_what_a_folder_holds_is_not_solved_again(tmp_path, monkeypatch) -> None:
    one = draw_floods(3, seed=1, kind="mixed", side=32)
    draw_floods(3, seed=1, kind="rain", side=32, jobs=2, folder=tmp_path)
    asked = []
    monkeypatch.setattr(scenarios, "flood_map", lambda *given: asked.append(given) or flood_map(*given))
    two = draw_floods(3, seed=1, kind="mixed", side=32, folder=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(one.tensors, two.tensors, strict=True))
    # rain on the first and the third map is known
    assert [bool(forcing.rain > 0) for _, _, forcing in asked] == [False]
    draw_floods(1, seed=1, side=32, solver=FINE, folder=tmp_path)
    assert len(asked) == 2


def test_the_cache_has_a_folder_for_each_state_of_the_code(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    folder = solution_cache()
    assert folder.parent == tmp_path / "paperplay" / "floods"
    assert solution_cache() == folder
    monkeypatch.setattr(np, "__version__", "another")
    assert solution_cache().parent == folder.parent
    assert solution_cache() != folder
    (tmp_path / "file").touch()
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "file" / name)
    assert solution_cache() is None


def test_sides_of_drawn_maps_are_multiples_of_four() -> None:
    with pytest.raises(ValueError, match="side must be a multiple of 4; it is 30"):
        draw_floods(1, seed=1, side=30)


def test_a_flood_beyond_all_bounds_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="beyond all bounds: take a smaller alpha"):
        flood_map(LocalInertialSolver(dx=8.0), torch.zeros(1, 4, 4), Forcing.of_rain(1, (4, 4), 1e38, 60.0))


# --- tiles


def geotiff(path, z, cell: float = 40.0) -> None:
    settings = {"driver": "GTiff", "count": 1, "dtype": "float32", "crs": "EPSG:32616"}
    transform = rasterio.Affine(cell, 0, 700000, 0, -cell, 4000000)
    rows, columns = z.shape
    with rasterio.open(path, "w", height=rows, width=columns, transform=transform, **settings) as dataset:
        dataset.write(z.astype(np.float32)[None])


@pytest.fixture
def folder(tmp_path):
    """Three tiles of 16 x 24 cells of 40 m, one of them a GeoTIFF."""
    rng = np.random.default_rng(0)
    z = 300 + 5 * rng.random((3, 16, 24))
    np.save(tmp_path / "b.npy", z[0])
    np.save(tmp_path / "n38.c.npy", z[1].astype(np.float32))
    geotiff(tmp_path / "a.tif", z[2])
    (tmp_path / "index.txt").write_text("three tiles")
    return tmp_path


def test_tiles_are_found_solved_and_read(folder) -> None:
    tiles = solve_tiles(folder, FINE, kind="mixed", seed=5)
    assert [path.name for path in tiles.tiles] == ["a.tif", "b.npy", "n38.c.npy"]
    assert len(tiles) == 3
    assert tiles.shape == (16, 24)
    assert tiles.solution(2).name == "n38.c.flood.npz"
    for index in range(3):
        z, *forcing, h = tiles[index]
        assert z.dtype == h.dtype == torch.float32
        assert abs(float(z.mean())) < 1e-5
        wanted = tile_forcing(z, 40.0, "mixed", tiles.tiles[index].stem, seed=5)
        assert all(torch.equal(a, b[0]) for a, b in zip(forcing, wanted.parts, strict=True))
        assert torch.equal(h, flood_map(FINE, z[None], wanted)[0])
    # they make a data set as they are
    z, *forcing, h = (torch.stack(part) for part in zip(*tiles, strict=True))
    assert len(FloodDataset(z, h, Forcing(*forcing))) == 3


@pytest.mark.slow
def test_two_processes_solve_the_same_and_a_surrounding_configuration_is_heard(folder) -> None:
    def solved() -> list[bytes]:
        tiles = TileFolder(folder, 40.0)
        found = [b"".join(part.numpy().tobytes() for part in tiles[i]) for i in range(3)]
        for index in range(3):
            tiles.solution(index).unlink()
        return found

    solve_tiles(folder, FINE)
    alone = solved()
    solve_tiles(folder, FINE, jobs=2)
    assert solved() == alone
    with parallel_config(backend="threading", n_jobs=2):
        solve_tiles(folder, FINE)
    assert solved() == alone


def test_only_what_is_missing_is_solved(folder, monkeypatch) -> None:
    tiles = solve_tiles(folder, FINE)
    paths = [tiles.solution(index) for index in range(3)]
    kept = [path.read_bytes() for path in paths]
    paths[1].unlink()
    with pytest.raises(ValueError, match=r"b.flood.npz is missing: solve the tiles first \(solve_tiles\)"):
        tiles[1]
    asked = []
    monkeypatch.setattr(
        scenarios, "flood_map", lambda solver, z, forcing: asked.append(z[0]) or flood_map(solver, z, forcing)
    )
    for _ in range(2):
        solve_tiles(folder, FINE)
        assert len(asked) == 1
    assert torch.equal(asked[0], tiles.elevations(1))
    assert [paths[0].read_bytes(), paths[2].read_bytes()] == kept[::2]
    assert paths[1].exists()


def test_solutions_of_other_settings_are_refused(folder) -> None:
    solve_tiles(folder, FINE)
    for change in ({"solver": replace(FINE, manning=0.03)}, {"kind": "rain"}, {"seed": 1}):
        with pytest.raises(ValueError, match=r"a.flood.npz was made with other settings, .*: move it away"):
            solve_tiles(folder, **{"solver": FINE, **change})


def test_damaged_solutions_are_named(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((16, 16)))
    tiles = solve_tiles(tmp_path, FINE, kind="rain")
    path = tiles.solution(0)
    path.write_bytes(path.read_bytes()[:200])
    for use in (lambda: solve_tiles(tmp_path, FINE, kind="rain"), lambda: tiles[0]):
        with pytest.raises(ValueError, match=r"a\.flood\.npz is damaged"):
            use()
    np.savez(path, rain=np.zeros(()))  # an archive of something else
    with pytest.raises(ValueError, match=r"a\.flood\.npz is damaged"):
        solve_tiles(tmp_path, FINE, kind="rain")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("z.npy", np.zeros((16, 16)), r"must have the shape \(16, 24\); it has \(16, 16\)"),
        ("z.npy", np.full((16, 24), np.nan), "must be finite; 384 of its 384 entries"),
        ("z.npy", b"no array", "is no array that can be read"),
        ("z.npy", np.full((16, 24), "a"), "is no array that can be read"),
        ("z.tiff", None, "has cells of 30 m; the others are said to have 40 m"),
        ("0.npy", np.zeros((2, 16, 24)), r"must have the shape \(R, C\); it has \(2, 16, 24\)"),
    ],
)
def test_tiles_that_do_not_fit(folder, name, content, message) -> None:
    if content is None:
        geotiff(folder / name, np.zeros((16, 24)), cell=30.0)
    elif isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        np.save(folder / name, content)
    with pytest.raises(ValueError, match=rf"{name} {message}"):
        TileFolder(folder, 40.0).elevations(3)


def test_tiles_with_voids_that_nobody_declared(folder) -> None:
    z = 300 + np.random.default_rng(1).random((16, 24))
    z[3, 3:5] = -9999
    np.save(folder / "z.npy", z)
    with pytest.raises(ValueError, match=r"2 of the 384 cells of .*z.npy that are not declared void hold"):
        solve_tiles(folder, FINE)


def test_folders_that_do_not_fit(folder, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("nowhere", "empty"):
        with pytest.raises(ValueError, match=rf"{place} must hold tiles, as \.npy or GeoTIFF; there is none"):
            TileFolder(tmp_path / place, 40.0)
    np.save(folder / "a.npy", np.zeros((16, 24)))
    with pytest.raises(ValueError, match="holds two tiles of one name"):
        TileFolder(folder, 40.0)
    assert not list(folder.glob("*.npz"))


@pytest.mark.parametrize(("shape", "dx"), [((100, 100), 8.0), ((60, 100), 8.0), ((100, 40), 5.0), ((12, 12), 400.0)])
def test_the_papers_river(shape, dx) -> None:
    z = torch.from_numpy(np.random.default_rng(1).random(shape)).float()
    rivers, lengths = set(), (shape[0], shape[0], shape[1], shape[1])
    edges = (z[:, 0], z[:, -1], z[0], z[-1])
    for index in range(20):
        forcing = tile_forcing(z, dx, "inflow", f"tile-{index}", seed=2)
        assert not forcing.rain.any()
        assert forcing.duration.tolist() == [3600.0]
        assert float(forcing.inflow.sum()) * dx == pytest.approx(200, rel=1e-5)
        (river,), (out,) = (part[0].any(-1).nonzero()[:, 0].tolist() for part in (forcing.inflow, forcing.outflow))
        assert river != out
        rivers.add(river)
        faces = (forcing.inflow[0, river] > 0).nonzero()[:, 0]
        assert len(faces) == min(lengths[river], max(1, round(400 / dx)))
        assert faces[-1] - faces[0] + 1 == len(faces)
        assert faces[-1] < lengths[river]
        # the lowest cell of the other three sides is where the water leaves
        lowest = min(float(edges[side].min()) for side in range(4) if side != river)
        assert float(edges[out].min()) == lowest
        open_faces = forcing.outflow[0, out]
        assert float(open_faces[int(edges[out].argmin())]) == pytest.approx(0.002)
        stretch = open_faces[: lengths[out]] > 0
        assert int(stretch.sum()) == min(lengths[out], len(faces))
        assert open_faces[open_faces > 0].unique().tolist() == pytest.approx([0.002])
        again = tile_forcing(z, dx, "inflow", f"tile-{index}", seed=2)
        assert torch.equal(again.inflow, forcing.inflow)
    assert rivers == {0, 1, 2, 3}


def test_the_papers_rain() -> None:
    z = torch.zeros(6, 8)
    rained = 0
    for name in "abcdefghijklmnopqrstuvwxyz":
        assert float(tile_forcing(z, 1.0, "rain", name).rain[0]) == pytest.approx(0.035 / 3600)
        forcing = tile_forcing(z, 1.0, "mixed", name)
        # rain or a river, never both
        assert bool(forcing.rain[0] > 0) != bool(forcing.inflow.any())
        assert (forcing.boundary((6, 8)) is None) == bool(forcing.rain[0] > 0)
        rained += int(forcing.rain[0] > 0)
    assert 6 <= rained <= 20
