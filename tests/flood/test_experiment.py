"""Presets, and the paper's set-up from a folder of tiles on a small stand-in for it."""

from dataclasses import replace
from itertools import count, islice

import numpy as np
import pytest
import torch

from lib.checkpoints import checkpoint_steps, load_checkpoint
from lib.experiment import Pieces
from lib.flood import learning, scenarios
from lib.flood.downsampler import Downsampler, FeatureDownsampler, PaperDownsampler
from lib.flood.experiment import (
    PRESETS,
    SHIPPED,
    FloodRun,
    coarse_solver,
    flood_task,
    train_flood,
    trained_network,
)
from lib.flood.learning import FloodLoss
from lib.flood.pooling import pool_dem
from lib.flood.scenarios import Forcing, TileFolder, solution_cache
from lib.flood.terrain import make_terrain
from tests.interrupting import first_losses, interrupt_at

SMALL = replace(PRESETS["quick"], count=6, test_count=3, side=32, batch_size=3, epochs=2)
#: The paper's set-up but for the size of its tiles and of its cells, and the length of training.
STAND_IN = replace(PRESETS["paper"], dx=32.0, epochs=2, batch_size=2)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_trained(name) -> None:
    """Each of them, but with few and small maps, and only one step."""
    settings = PRESETS[name]
    solver = coarse_solver(name)
    assert solver.dx == settings.dx * settings.factor
    assert (solver.alpha, solver.h_cfl_min) == (settings.alpha, settings.coarse_floor)
    model = FloodRun.network(settings, {})
    kinds = {"convolutional": Downsampler, "features": FeatureDownsampler, "paper": PaperDownsampler}
    assert type(model) is kinds[settings.architecture]
    assert model.factor == settings.factor
    if settings.count is not None:
        assert settings.batch_size <= settings.count
        small = replace(settings, count=2, test_count=1, side=32, batch_size=2, epochs=1)
        run = train_flood(small)
        assert np.isfinite(run.losses).all()
        assert len(run.losses) == len(run.scores) == 1
        assert not run.model.training


def test_weights_and_maps_come_from_their_seeds() -> None:
    def task(**change):
        model, train, test = flood_task(replace(SMALL, count=2, test_count=1, **change))
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach(), train.z, test.z

    def same(one, other):
        return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]

    first = task()
    assert [len(first[1]), len(first[2])] == [2, 1]
    assert same(first, task()) == [True, True, True]
    assert same(first, task(seed=1)) == [False, True, True]
    assert same(first, task(data_seed=2)) == [True, False, False]


@pytest.fixture
def tiles(tmp_path):
    """Two tiles to train on and one to test on, 64 x 64 cells of 32 m."""
    for split, number in (("train", 2), ("test", 1)):
        (tmp_path / "tiles" / split).mkdir(parents=True)
        for index in range(number):
            z = 400 + make_terrain((64, 64), split, rng=np.random.default_rng((3, index)))
            np.save(tmp_path / "tiles" / split / f"tile_{index}.npy", z)
    return tmp_path / "tiles"


@pytest.mark.slow
def test_the_papers_setup_from_a_folder_of_tiles(tiles, tmp_path) -> None:
    out = tmp_path / "out"
    model, train, test = flood_task(STAND_IN, tiles)
    assert isinstance(model, PaperDownsampler)
    assert model.checkpointed
    assert isinstance(train, TileFolder)
    assert (len(train), len(test)) == (2, 1)
    assert [bool(train[i][1] > 0) for i in range(2)] == [True, False]  # rain on one, a river on the other
    assert all(float(train[i][-1].max()) > 0.01 for i in range(2))
    stored = {path: path.stat().st_mtime_ns for path in tiles.rglob("*.flood.npz")}
    assert len(stored) == 3

    with interrupt_at(1, FloodLoss, "__call__"):
        train_flood(STAND_IN, out, data_path=tiles, every=1)
    assert checkpoint_steps(out) == [0, 1]
    again = train_flood(STAND_IN, out, data_path=tiles, every=1)
    whole = train_flood(STAND_IN, data_path=tiles)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert len(whole.losses) == len(whole.scores) == 2
    assert np.isfinite(whole.losses).all()
    assert whole.scores[0] > 0
    for key, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key
    # solved once
    assert {path: path.stat().st_mtime_ns for path in tiles.rglob("*.flood.npz")} == stored
    # the loss is in square metres, of the two tiles in the order that the seed gives
    order = np.random.default_rng((0, 0)).permutation(2)
    z, *forcing, h = (torch.stack(part) for part in zip(*(train[i] for i in order), strict=True))
    coarse = model.train()(z[:, None])[:, 0].detach()
    found = Forcing(*forcing).coarse(16).simulate(coarse_solver(STAND_IN), coarse)
    assert whole.losses[0] == pytest.approx(float((found - pool_dem(h, 16)).square().mean()), rel=1e-5)


def test_tiles_without_any_to_test_on(tiles) -> None:
    for path in (tiles / "test").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="test must hold tiles"):
        flood_task(STAND_IN, tiles)
    (tiles / "test").rmdir()
    run = train_flood(replace(STAND_IN, architecture="features", kind="rain"), data_path=tiles)
    assert [len(run.losses), len(run.scores)] == [2, 0]


def test_folders_of_tiles_that_do_not_fit_are_refused_before_they_are_solved(tiles, tmp_path) -> None:
    with pytest.raises(ValueError, match="data_path must name the folder of the tiles"):
        flood_task(STAND_IN)
    for place in (tmp_path / "nowhere", tiles / "train"):
        with pytest.raises(ValueError, match=r"data_path must hold a folder 'train' with tiles; .*train is not"):
            flood_task(STAND_IN, place)
    with pytest.raises(ValueError, match="multiples of the factor 24"):
        flood_task(replace(STAND_IN, architecture="features", factor=24), tiles)
    for path in (tiles / "test").iterdir():
        np.save(path, np.zeros((60, 64)))
    with pytest.raises(ValueError, match="multiples of the factor 16"):
        flood_task(STAND_IN, tiles)
    assert not list(tiles.rglob("*.npz"))


def test_a_folder_holds_one_experiment_and_a_file_its_network(tmp_path) -> None:
    folder = tmp_path / "run"
    run = train_flood(SMALL, folder)
    again = train_flood(SMALL, folder)
    np.testing.assert_array_equal(again.losses, run.losses)
    np.testing.assert_array_equal(again.scores, run.scores)
    assert load_checkpoint(folder, 4)["losses"] == run.losses.tolist()
    with pytest.raises(ValueError, match="hold the same experiment"):
        train_flood(replace(SMALL, lr=1e-3), folder)
    run.save(tmp_path / "network.npz")
    stored = FloodRun.load(tmp_path / "network.npz")
    assert stored.preset == run.preset
    z = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stored.model(z), run.model(z))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "paper", "factor": 8}, "factor must be 16 for the paper's network; it is 8"),
        ({"side": 40}, "side must be a multiple of the factor 16; it is 40"),
        ({"batch_size": 7}, "batch_size must be at most 6; it is 7"),
        ({"alpha": 1.5}, "alpha must lie between 0 and 1; it is 1.5"),
        ({"jobs": -3}, "jobs must be at least 1"),
        ({"data_path": "/nope"}, "data_path must be None for maps that are drawn"),
    ],
)
def test_what_is_refused_solves_no_flood_and_takes_no_folder(change, message, tmp_path, monkeypatch) -> None:
    def solved(*_):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("lib.flood.scenarios.flood_map", solved)
    options = {name: change[name] for name in ("jobs", "data_path") if name in change}
    with pytest.raises(ValueError, match=message):
        train_flood(replace(SMALL, **{} if options else change), tmp_path, **options)
    assert not list(tmp_path.iterdir())


# --- networks that ship with the package


def first_steps(preset, steps, monkeypatch) -> np.ndarray:
    """Losses of the first steps of a training; only the fine floods that they see are solved."""
    order = np.random.default_rng((preset.seed, 0)).permutation(preset.count)
    seen, places, solve = set(order[: steps * preset.batch_size].tolist()), count(), scenarios._solved

    def solved(*flood):
        if next(places) not in seen:
            return {"h": np.zeros(flood[1].shape, np.float32)}
        return Pieces(solution_cache()).compute(solve, [scenarios._piece(*flood)], "fine floods")[0]

    monkeypatch.setattr(scenarios, "_solved", solved)
    return first_losses(steps, lambda: train_flood(replace(preset, test_count=1)), FloodLoss, "__call__")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_are_what_their_presets_make(name, monkeypatch) -> None:
    """A part of it again: the losses of the first steps."""
    preset, trained = SHIPPED[name], trained_network(name)
    assert trained.preset == preset
    assert not trained.model.training
    assert len(trained.losses) == preset.epochs * (preset.count // preset.batch_size)
    assert len(trained.scores) == preset.epochs
    assert np.isfinite(trained.losses).all()
    assert trained.losses[-10:].mean() < 0.9 * trained.losses[:10].mean()
    assert all(0 < float(part.detach().abs().max()) < 100 for part in islice(trained.model.parameters(), 4))
    # where the loss is in units of all maps, their mean is not known here, but it is the same in both steps
    monkeypatch.setattr(learning, "_dry_loss", lambda *_: 1.0)
    if preset.unit == "map":
        assert first_steps(preset, 1, monkeypatch)[0] == pytest.approx(trained.losses[0], rel=1e-3)
    else:
        first, second = first_steps(preset, 2, monkeypatch)
        assert second / first == pytest.approx(trained.losses[1] / trained.losses[0], rel=1e-3)
