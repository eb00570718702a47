"""Training through the solver: what the loss measures, what the network sees, and that a run can be cut."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.checkpoints import checkpoint_steps
from lib.flood import learning
from lib.flood.boundaries import Boundary
from lib.flood.claims.verification import finite_difference_gradient
from lib.flood.downsampler import Detour, Downsampler, FeatureDownsampler
from lib.flood.learning import (
    CoarseModel,
    DownsamplerTraining,
    FloodLoss,
    _loss,
    _turn,
    coarse_floods,
    depth_gradient,
    descend_coarse_maps,
    mean_square_error,
    train_downsampler,
)
from lib.flood.metrics import downsample_loss
from lib.flood.pooling import pool_dem
from lib.flood.scenarios import FloodDataset, draw_floods
from lib.flood.solver import LocalInertialSolver
from tests.interrupting import interrupt_at

FACTOR = 8
COARSE = LocalInertialSolver(dx=8.0 * FACTOR, h_cfl_min=0.05)


@cache
def floods(count: int = 8, kind: str = "mixed", *, seed: int = 1, short: bool = True) -> FloodDataset:
    """Floods on maps of 32 x 32 cells; short ones make training fast."""
    data = draw_floods(count, seed=seed, kind=kind, side=32)
    if not short:
        return data
    forcing = replace(data.forcing, duration=torch.full((count,), 300.0))
    h = forcing.simulate(LocalInertialSolver(dx=8.0, h_cfl_min=0.05), data.z, backend="compiled")
    return FloodDataset(data.z, h, forcing)


def network(seed: int = 0) -> Downsampler:
    return Downsampler(FACTOR, (4, 4, 4), generator=torch.Generator().manual_seed(seed))


def as_double(data: FloodDataset) -> FloodDataset:
    return FloodDataset(data.z.double(), data.h.double(), data.forcing)


class Raised(Detour):
    """The block means, some of which are raised: the same cells however the map is turned."""

    def __init__(self, factor: int) -> None:
        super().__init__(factor)
        self.height = torch.nn.Parameter(torch.tensor(0.5))

    def correction(self, z: torch.Tensor) -> torch.Tensor:
        pooled = pool_dem(z, self.factor)
        return self.height * (pooled > 0).to(z.dtype)


# --- what the network sees


@pytest.mark.parametrize(("shape", "count"), [((4, 4), 8), ((3, 5), 4)])
def test_each_symmetry_can_be_turned_back(shape, count) -> None:
    z = torch.arange(float(np.prod(shape))).reshape(shape)
    turned = [_turn(z, symmetry) for symmetry in range(count)]
    assert all(torch.equal(_turn(each, symmetry, back=True), z) for symmetry, each in enumerate(turned))
    assert len({tuple(each.flatten().tolist()) for each in turned}) == count


@pytest.mark.parametrize(("rows", "build"), [(32, Raised), (24, lambda factor: FeatureDownsampler(factor, 4))])
def test_a_network_that_knows_no_directions_does_not_notice_augmentation(rows, build) -> None:
    data = as_double(floods())
    whole = CoarseModel(build(FACTOR).double(), COARSE, augment=True)
    with torch.no_grad():
        seen = whole.train()(data.z[:, :rows], *data.forcing.parts)
        plain = whole.eval()(data.z[:, :rows], *data.forcing.parts)
    for turned, straight in zip(seen, plain, strict=True):
        torch.testing.assert_close(turned, straight, rtol=0, atol=1e-9)


def test_augmentation_turns_each_map_and_only_while_training() -> None:
    class Watched(Raised):
        def forward(self, z):
            self.seen = z[:, 0].clone()
            return super().forward(z)

    data = floods(8)
    whole = CoarseModel(Watched(FACTOR), COARSE, augment=True)
    found = set()
    for seed in range(4):
        torch.manual_seed(seed)
        whole.train()(data.z, *data.forcing.parts)
        for seen, z in zip(whole.downsampler.seen, data.z, strict=True):
            (which,) = (symmetry for symmetry in range(8) if torch.equal(_turn(z, symmetry), seen))
            found.add(which)
    assert found == set(range(8))
    whole.eval()(data.z, *data.forcing.parts)
    assert torch.equal(whole.downsampler.seen, data.z)
    CoarseModel(whole.downsampler, COARSE).train()(data.z, *data.forcing.parts)
    assert torch.equal(whole.downsampler.seen, data.z)


def test_a_coarse_flood_is_the_networks_map_and_the_water_on_it() -> None:
    data = floods(4)
    model = Raised(FACTOR)
    h, coarse, pooled = CoarseModel(model, COARSE)(data.z, *data.forcing.parts)
    assert torch.equal(pooled, pool_dem(data.z, FACTOR))
    assert torch.equal(coarse, model(data.z[:, None])[:, 0])
    assert torch.equal(h, data.forcing.coarse(FACTOR).simulate(COARSE, coarse.detach()))
    assert h.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = CoarseModel(network(), COARSE)(data.z, *data.forcing.parts)
    assert {part.dtype for part in half} == {torch.float32}


# --- the loss


def test_units_of_the_loss() -> None:
    rng = torch.Generator().manual_seed(0)
    h_fine = torch.rand(3, 4, 6, generator=rng, dtype=torch.float64) * torch.tensor([0.1, 1.0, 5.0]).reshape(3, 1, 1)
    h = torch.rand(3, 2, 3, generator=rng, dtype=torch.float64)
    truth = h_fine.reshape(3, 2, 2, 3, 2).mean((2, 4))
    outputs = (h, h, h)
    mse = ((h - truth) ** 2).mean((1, 2))
    assert float(FloodLoss(2)(outputs, h_fine)) == pytest.approx(float(mse.mean()), rel=1e-12)
    assert float(FloodLoss(2, unit=0.25)(outputs, h_fine)) == pytest.approx(4 * float(mse.mean()), rel=1e-12)
    each = mse / (truth**2).mean((1, 2))
    assert float(FloodLoss(2, unit=None)(outputs, h_fine)) == pytest.approx(float(each.mean()), rel=1e-12)
    off = (h - truth).abs()
    huber = torch.where(off < 0.3, off**2 / 0.6, off - 0.15)
    found = FloodLoss(2, "huber", 0.3)(outputs, h_fine)
    assert float(found) == pytest.approx(float(huber.mean()), rel=1e-12)
    dry = torch.where(truth < 0.3, truth**2 / 0.6, truth - 0.15)
    found = FloodLoss(2, "huber", 0.3, unit=None)(outputs, h_fine)
    assert float(found) == pytest.approx(float((huber.mean((1, 2)) / dry.mean((1, 2))).mean()), rel=1e-12)


def test_the_regularizer_by_hand() -> None:
    """The mean of each cell and those to its west, north and north-west, against the block means."""
    coarse = torch.tensor([[[1.0, 5.0], [3.0, 9.0]]], dtype=torch.float64)
    pooled = torch.tensor([[[1.25, 2.0], [2.0, 7.5]]], dtype=torch.float64)
    # (1, 3; 2, 4.5) are the averages; off by -0.25, 1, 0, -3
    wanted = (0.25**2 / 2 + 0.5 + 0 + 2.5) / 4
    h = torch.zeros(1, 2, 2, dtype=torch.float64)
    for weight in (0.0, 0.5, 2.0):
        found = FloodLoss(1, smoothness=weight)((h, coarse, pooled), h)
        assert float(found) == pytest.approx(weight * wanted, rel=1e-12)


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_maps_that_stay_dry_cost_one_but_in_metres_their_depth(kind) -> None:
    data = floods(4, "rain", short=False)
    assert float(pool_dem(data.h, FACTOR).square().mean((1, 2)).min()) > 1e-4  # all deeper than what hardly is a flood
    dry = torch.zeros(4, 4, 4)
    metres = float(downsample_loss(dry, data.h, FACTOR, kind, 0.1))
    for unit, wanted in (("data", 1.0), ("map", 1.0), ("metres", metres)):
        measured = _loss(DownsamplerTraining(unit=unit, loss=kind, beta=0.1), FACTOR, data)
        assert float(measured((dry, dry, dry), data.h)) == pytest.approx(wanted, rel=1e-4)


# --- training


def train(model, data, *, test=None, folder=None, every=None, device="cpu", precision="float32", **training):
    options = {"test": test, "folder": folder, "every": every, "device": device, "precision": precision}
    return train_downsampler(model, data, COARSE, DownsamplerTraining(**training), **options)


def test_training_lowers_the_loss_to_what_the_score_says() -> None:
    data = floods(4, "rain", short=False)
    model = network()
    # float32 rounding alone moves the end by some percent: gradients through floods are steep
    run = train(model, data, test=data, epochs=6, batch_size=4, lr=3e-2, augment=False)
    assert run.losses.shape == run.scores.shape == (6,)
    assert not run.diverged
    assert run.scores[-1] < 0.8 * mean_square_error("mean", data, COARSE, factor=FACTOR)
    assert run.scores[-1] == mean_square_error(model, data, COARSE)
    # at the end the rate is all but zero: the last loss is the score of the network that it ends with
    unit = float(pool_dem(data.h, FACTOR).square().mean())
    assert run.losses[-1] * unit == pytest.approx(run.scores[-1], rel=5e-3)


def test_a_run_as_the_paper_has_it() -> None:
    """Gradient descent with momentum, a constant rate, the regularizer, gradients of any length, segments."""
    settings = {"optimizer": "sgd", "warmup": None, "clip": None, "unit": "metres", "augment": False, "epochs": 1}
    settings |= {"batch_size": 2, "lr": 0.1}
    changes = ({}, {"checkpoint_every": 5}, {"optimizer": "adam"}, {"warmup": 0.5}, {"smoothness": 0.5})
    runs = [train(network(), floods(4), **{**settings, **change}).losses for change in changes]
    plain, segments, adam, cycle, smooth = runs
    np.testing.assert_allclose(segments, plain, rtol=1e-5)
    # the first loss is that of mean pooling, and of its roughness
    assert plain[0] == adam[0] == cycle[0] < smooth[0]
    assert len({plain[1], adam[1], cycle[1]}) == 3


def train_small(folder: Path | None = None, **change):
    settings = {"epochs": 2, "batch_size": 4, "lr": 1e-2, "seed": 3, "unit": "map", "test": floods(4, seed=2), **change}
    model = network()
    return train(model, floods(8), folder=folder, **settings), model


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path) -> None:
    whole, model = train_small()
    with interrupt_at(3, FloodLoss, "__call__"):
        train_small(tmp_path, every=1)
    assert checkpoint_steps(tmp_path) == [2, 3]
    again, other = train_small(tmp_path, every=1)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert len(whole.losses) == 4
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    # it is the seed that orders and turns the maps
    assert (train_small(seed=4)[0].losses != whole.losses).any()
    assert (train_small(augment=False)[0].losses[1:] != whole.losses[1:]).any()


def train_together(folder: Path | None) -> learning.TrainingRun:
    """A run that does not depend on how its batches are shared: each process turns its own maps."""
    return train_small(folder, augment=False, clip=0.5)[0]


def test_data_without_a_flood_are_refused() -> None:
    data = floods(2)
    dry = FloodDataset(data.z, torch.zeros_like(data.h), data.forcing)
    with pytest.raises(ValueError, match="data must hold floods; all maps stay dry"):
        train(network(), dry, epochs=1, batch_size=2)
    with pytest.raises(ValueError, match="multiples of the factor 12"):
        train(FeatureDownsampler(12), data, epochs=1, batch_size=2)


# --- coarse floods


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_water_on_a_pooled_map(rule) -> None:
    data = floods(4)
    found = coarse_floods(rule, data, COARSE, factor=FACTOR)
    z = pool_dem(data.z, FACTOR, rule)
    river = data.forcing.inflow[:, 0].reshape(4, 4, FACTOR).mean(-1)
    sides, rain = Boundary({"west": river}), data.forcing.rain[:, None, None]
    h = COARSE.simulate(z, data.forcing.duration, rain=rain, boundary=sides, backend="compiled").h
    assert torch.equal(found.z, z)
    assert torch.equal(found.h, h)
    assert torch.equal(found.truth, pool_dem(data.h, FACTOR))


def test_a_fresh_network_floods_as_the_mean_does_and_stays_as_it_is() -> None:
    data = floods(4)
    model = network().train()
    found, mean = coarse_floods(model, data, COARSE), coarse_floods("mean", data, COARSE, factor=FACTOR)
    assert all(torch.equal(getattr(found, part), getattr(mean, part)) for part in ("h", "truth", "z"))
    assert model.training
    assert not found.h.requires_grad
    coarse_floods(model.eval(), data, COARSE, factor=FACTOR)
    assert not model.training
    with pytest.raises(ValueError, match="factor must be that of the network, 8; it is 4"):
        coarse_floods(model, data, COARSE, factor=4)
    with pytest.raises(ValueError, match="factor must be given for the pooling 'mean'"):
        coarse_floods("mean", data, COARSE)


def test_the_mean_square_error_does_not_depend_on_batches() -> None:
    data = floods(8)
    found = coarse_floods("max", data, COARSE, factor=FACTOR)
    wanted = pytest.approx(float(((found.h - found.truth).double() ** 2).mean()), rel=1e-6)
    for batch in (3, 100):
        assert mean_square_error("max", data, COARSE, factor=FACTOR, batch_size=batch) == wanted


def test_descent_keeps_the_best_map_of_each_flood() -> None:
    data = floods(3)
    # steps so large that it gets worse again
    found = descend_coarse_maps(data, COARSE, factor=FACTOR, iterations=12, lr=0.1)
    assert found.errors.shape == (13, 3)
    best = found.errors.amin(0)
    assert bool((best < 0.9 * found.errors[0]).all())
    assert bool((found.errors[-1] > best).any())
    truth = pool_dem(data.h, FACTOR)
    again = data.forcing.coarse(FACTOR).simulate(COARSE, found.z)
    torch.testing.assert_close((again - truth).square().mean((-2, -1)), best, rtol=1e-5, atol=0)
    mean = coarse_floods("mean", data, COARSE, factor=FACTOR)
    torch.testing.assert_close((mean.h - truth).square().mean((-2, -1)), found.errors[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize("cell", [(2, 3), (4, 5)])
def test_the_gradient_of_a_depth_is_that_of_finite_differences(cell) -> None:
    z = torch.rand(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    solver = LocalInertialSolver(dx=10.0)
    options = {"h0": 0.8, "rain": 1e-4, "dt_max": 0.5, "boundary": Boundary({"west": 0.2}, {"east": 0.01})}
    h, gradient = depth_gradient(solver, z, 15.0, cell, **options)
    wanted = finite_difference_gradient(solver, z, 15.0, cell, **options)
    assert (gradient - wanted).norm() < 1e-6 * wanted.norm()
    assert torch.equal(h, solver.simulate(z, 15.0, **options).h)
    assert not h.requires_grad
    segments = depth_gradient(solver, z, 15.0, cell, checkpoint_every=7, **options)
    assert torch.equal(segments[1], gradient)


def test_cells_that_are_not_there() -> None:
    for shape, cell, message in (
        ((3, 4), (3, 0), r"cell must lie on the map of 3 x 4 cells; it is \(3, 0\)"),
        ((3, 4), (0, 4), "cell must lie on the map"),
        ((2, 3, 4), (0, 0), r"z must be one map \(R, C\); its shape is \(2, 3, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            depth_gradient(COARSE, torch.zeros(shape), 60.0, cell)
