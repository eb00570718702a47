"""Presets, and the paper's set-up from a folder of tiles on a small stand-in for it."""

from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from lib.checkpoints import checkpoint_steps, load_checkpoint
from lib.flood import learning
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
from lib.flood.learning import FloodLoss, train_downsampler
from lib.flood.pooling import pool_dem
from lib.flood.scenarios import RAIN, RIVER, FloodDataset, Forcing, TileFolder, flood_map
from lib.flood.solver import LocalInertialSolver
from lib.flood.terrain import make_terrain
from tests.interrupting import first_losses, interrupt_at

SMALL = replace(PRESETS["quick"], count=6, test_count=3, side=32, batch_size=3, epochs=2)
#: The paper's set-up but for the size of its tiles and of its cells, and the length of training.
STAND_IN = replace(PRESETS["paper"], dx=8.0, epochs=1, batch_size=2)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_trained(name) -> None:
    """Each of them, but with few and small maps, and no more than the first step."""
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


def test_the_papers_preset_is_the_papers() -> None:
    settings = PRESETS["paper"]
    assert (settings.dx, settings.factor, settings.epochs, settings.lr) == (1.0, 16, 50, 1e-3)
    assert (settings.fine_floor, settings.coarse_floor, settings.loss, settings.smoothness) == (0.01, 0.1, "mse", 0.0)
    assert (settings.warmup, settings.clip, settings.augment, settings.count) == (None, None, False, None)
    solver = coarse_solver("paper")
    assert (solver.theta, solver.manning, solver.dx) == (0.7, 0.05, 16.0)


def test_weights_and_maps_come_from_their_seeds() -> None:
    def task(**change):
        model, train, test = flood_task(replace(SMALL, **change))
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach(), train.z, test.z

    first, again, weights, maps = task(), task(), task(seed=1), task(data_seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], weights[0])
    assert torch.equal(first[1], weights[1])
    assert torch.equal(first[0], maps[0])
    assert not torch.equal(first[1], maps[1])
    assert not torch.equal(first[2], maps[2])
    assert len(first[1]) == 6
    assert len(first[2]) == 3


@pytest.fixture
def tiles(tmp_path):
    """Four tiles to train on and one to test on, 64 x 64 cells of 8 m."""
    for split, count in (("train", 4), ("test", 1)):
        (tmp_path / "tiles" / split).mkdir(parents=True)
        for index in range(count):
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
    assert (len(train), len(test)) == (4, 1)
    assert {bool(train[i][1] > 0) for i in range(4)} == {True, False}  # rain on some, rivers on others
    assert all(float(train[i][-1].max()) > 0.01 for i in range(4))
    stored = {path: path.stat().st_mtime_ns for path in tiles.rglob("*.flood.npz")}
    assert len(stored) == 5

    with interrupt_at(1, FloodLoss, "__call__"):
        train_flood(STAND_IN, out, data_path=tiles, every=1)
    assert checkpoint_steps(out) == [0, 1]
    again = train_flood(STAND_IN, out, data_path=tiles, every=1)
    whole = train_flood(STAND_IN, data_path=tiles)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert len(whole.losses) == 2
    assert len(whole.scores) == 1
    assert np.isfinite(whole.losses).all()
    assert whole.scores[0] > 0
    for key, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key
    # solved once
    assert {path: path.stat().st_mtime_ns for path in tiles.rglob("*.flood.npz")} == stored
    # the loss is in square metres, of the two tiles that the seed puts first
    order = np.random.default_rng((0, 0)).permutation(4)[:2]
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
    settings = replace(STAND_IN, architecture="features", batch_size=4, kind="rain")
    run = train_flood(settings, data_path=tiles)
    assert len(run.scores) == 0
    assert len(run.losses) == 1


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


def test_a_folder_holds_one_experiment(tmp_path) -> None:
    run = train_flood(SMALL, tmp_path)
    again = train_flood(SMALL, tmp_path)
    np.testing.assert_array_equal(again.losses, run.losses)
    np.testing.assert_array_equal(again.scores, run.scores)
    assert load_checkpoint(tmp_path, 4)["losses"] == run.losses.tolist()
    with pytest.raises(ValueError, match="hold the same experiment"):
        train_flood(replace(SMALL, lr=1e-3), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "paper", "factor": 8}, "factor must be 16 for the paper's network; it is 8"),
        ({"side": 40}, "side must be a multiple of the factor 16; it is 40"),
        ({"batch_size": 7}, "batch_size must be at most 6; it is 7"),
        ({"alpha": 1.5}, "alpha must lie between 0 and 1; it is 1.5"),
        ({"coarse_floor": 0.0}, "coarse_floor must be positive"),
    ],
)
def test_what_is_refused_does_not_take_the_folder(change, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        train_flood(replace(SMALL, **change), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "nonsense"}, "precision must be one of float32, bfloat16; it is 'nonsense'"),
        ({"jobs": -3}, "jobs must be at least 1"),
        ({"data_path": "/nope"}, "data_path must be None for maps that are drawn"),
    ],
)
def test_no_flood_is_solved_for_a_setting_that_is_refused(options, message, tmp_path, monkeypatch) -> None:
    def solved(*_):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("lib.flood.scenarios.flood_map", solved)
    with pytest.raises(ValueError, match=message):
        train_flood(SMALL, tmp_path, **options)
    assert not list(tmp_path.iterdir())


# --- networks that ship with the package


def test_a_stored_network_answers_as_the_trained_one(tmp_path) -> None:
    run = train_flood(SMALL)
    run.save(tmp_path / "network.npz")
    again = FloodRun.load(tmp_path / "network.npz")
    assert again.preset == run.preset
    z = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.model(z), run.model(z))


class Drawn(Dataset):
    """The maps that a preset trains on, each of them drawn and solved when it is asked for."""

    def __init__(self, preset) -> None:
        self.preset = preset

    def __len__(self) -> int:
        return self.preset.count

    def __getitem__(self, index: int):
        preset = self.preset
        fine = LocalInertialSolver(dx=preset.dx, alpha=preset.alpha, h_cfl_min=preset.fine_floor)
        return drawn_map(fine, preset.data_seed, index, preset.side, river=preset.kind == "mixed" and index % 2 == 1)


@cache
def drawn_map(fine: LocalInertialSolver, seed: int, index: int, side: int, *, river: bool):
    """A map of `draw_floods` by itself; presets that differ in other things share it."""
    rng = np.random.default_rng((seed, index))
    z = torch.from_numpy(make_terrain((side, side), "train", rng=rng))
    z = (z - z.mean()).float()
    forcing = Forcing.of_rain(1, (side, side), 0.0 if river else RAIN, 1800.0)
    if river:
        first = int(rng.integers(side - side // 4 + 1))
        forcing.inflow[0, 0, first : first + side // 4] = rng.uniform(*RIVER)
    return z, *(part[0] for part in forcing.parts), flood_map(fine, z[None], forcing)[0]


def losses_of(preset, steps: int) -> np.ndarray:
    """Losses of the first steps of a preset's training, on maps that are drawn one by one."""
    model = FloodRun.network(preset, {})
    return first_losses(
        steps, lambda: train_downsampler(model, Drawn(preset), coarse_solver(preset), preset), FloodLoss, "__call__"
    )


def test_maps_one_by_one_are_those_of_a_draw() -> None:
    """So that the next test can do without the other ones."""
    small = replace(PRESETS["laptop-mixed"], count=4, test_count=1, side=32, batch_size=2, epochs=2)
    _, train, _ = flood_task(small)
    assert isinstance(train, FloodDataset)
    for index in range(4):
        for part, wanted in zip(train[index], Drawn(small)[index], strict=True):
            torch.testing.assert_close(part, wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(losses_of(small, 3), train_flood(small).losses[:3], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_are_what_their_presets_make(name, monkeypatch) -> None:
    """A part of it again: the losses of the first two steps, with the maps of these two batches only."""
    preset, trained = SHIPPED[name], trained_network(name)
    assert trained.preset == preset
    assert not trained.model.training
    assert len(trained.losses) == preset.epochs * (preset.count // preset.batch_size)
    assert len(trained.scores) == preset.epochs
    assert np.isfinite(trained.losses).all()
    # where the loss is in units of all maps, their mean is not known here, but it is the same in both steps
    monkeypatch.setattr(learning, "_dry_loss", lambda *_: 1.0)
    losses = losses_of(preset, 2)
    stored = trained.losses[:2]
    if preset.unit == "map":
        np.testing.assert_allclose(losses, stored, rtol=1e-3)
    else:
        assert losses[1] / losses[0] == pytest.approx(stored[1] / stored[0], rel=1e-3)
    assert trained.losses[-10:].mean() < 0.9 * trained.losses[:10].mean()
    assert all(0 < float(part.detach().abs().max()) < 100 for part in islice(trained.model.parameters(), 4))
