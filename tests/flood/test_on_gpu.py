"""The solver and what is trained through it on a GPU: the water and the gradients of the processor."""

import copy

import numpy as np
import pytest
import torch

from lib.flood.boundaries import Boundary
from lib.flood.downsampler import Detour, Downsampler, FeatureDownsampler
from lib.flood.learning import CoarseModel, depth_gradient, mean_square_error, train_downsampler
from lib.flood.metrics import flood_metrics
from lib.flood.pooling import pool_dem
from lib.flood.scenarios import FloodDataset, Forcing
from lib.flood.solver import FloodResult, LocalInertialSolver
from tests.flood.test_physics import F64, hills, water_made
from tests.needs import needs_gpu

pytestmark = needs_gpu

FACTOR, COUNT, SIDE = 8, 4, 32
COARSE = LocalInertialSolver(dx=8.0 * FACTOR, h_cfl_min=0.05)


def close(ours: torch.Tensor, theirs: torch.Tensor, bound: float = 1e-9) -> bool:
    ours, theirs = ours.detach().cpu(), theirs.detach()
    return bool((ours - theirs).abs().max() <= bound * theirs.abs().max().clamp_min(1e-6))


def flooded(z: torch.Tensor, solver: LocalInertialSolver, **options) -> FloodResult:
    slope = torch.zeros(z.shape[-1], dtype=z.dtype)
    slope[3:9] = 0.01
    rain = 1e-5 * torch.rand(z.shape, generator=torch.Generator().manual_seed(1), dtype=F64).to(z)
    ends = torch.tensor([120.0, 90.0], dtype=F64)
    sides = Boundary({"west": 0.3}, {"east": 0.002, "south": slope})
    return solver.simulate(z, ends, 0.02, rain, sides, save_times=[0.0, 60.0], **options)


@pytest.mark.parametrize("settings", [{}, {"friction": "component", "edge": "mirror"}])
@pytest.mark.parametrize("backend", ["torch", "compiled"])
def test_the_water_is_that_of_the_processor(settings, backend) -> None:
    z, solver = hills((2, 20, 24), 3), LocalInertialSolver(dx=8.0, **settings)
    ours, theirs = flooded(z.to("cuda"), solver, backend=backend), flooded(z, solver)
    for name in ("h", "qx", "qy", "time", "volume_in", "volume_out", "history"):
        assert getattr(ours, name).device.type == "cuda"
        assert close(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.steps.cpu(), theirs.steps)
    assert bool((water_made(ours, 8.0, 0.02) < 1e-12).all())
    scores = flood_metrics(ours.h, theirs.h)
    assert scores["rmse"] < 1e-9
    assert scores["csi_0.1"] == 1


def test_float32_makes_no_water_and_knows_no_negative_depth() -> None:
    result = flooded(hills((2, 20, 24), 3).float().to("cuda"), LocalInertialSolver(dx=8.0))
    assert bool((water_made(result, 8.0, 0.02) < 1e-6).all())
    assert result.h.min() >= 0


@pytest.mark.parametrize("every", [0, 7])
def test_gradients_are_those_of_the_processor(every) -> None:
    z, solver, found = hills((12, 14), 5), LocalInertialSolver(dx=8.0), []
    q = torch.linspace(0.1, 0.3, 12, dtype=F64)
    for device in ("cuda", "cpu"):
        bed, inflow = (part.to(device, copy=True).requires_grad_() for part in (z, q))
        depth = torch.full((12, 14), 0.3, dtype=F64, device=device, requires_grad=True)
        sides = Boundary({"west": inflow}, {"east": 0.01})
        result = solver.simulate(bed, 15.0, depth, 1e-5, sides, checkpoint_every=every)
        assert result.steps > 10
        loss = result.h.square().sum() + result.volume_out
        found.append(torch.autograd.grad(loss, (bed, depth, inflow)))
    assert all(close(ours, theirs) and bool(theirs.any()) for ours, theirs in zip(*found, strict=True))
    ours, theirs = (depth_gradient(solver, z.to(device), 10.0, (5, 5), h0=0.3)[1] for device in ("cuda", "cpu"))
    assert close(ours, theirs)


@pytest.mark.parametrize("how", ["mean", "max", "median", "nearest", "bilateral"])
def test_pooling(how) -> None:
    z = hills((2, 32, 48), 2)
    assert close(pool_dem(z.to("cuda"), FACTOR, how), pool_dem(z, FACTOR, how), 1e-14)


def networks() -> list[Detour]:
    generator = torch.Generator().manual_seed(0)
    small = [Downsampler(16, (4, 4, 4, 4), generator=generator), FeatureDownsampler(16, 8, generator=generator)]
    for model in small:  # the last layer starts at zero
        torch.nn.init.uniform_(model.layers[-1].weight, -1, 1, generator=generator)
    return [*small, *(Downsampler.paper(norm, checkpointed=True, generator=generator) for norm in ("group", "batch"))]


def test_networks_give_the_maps_and_gradients_of_the_processor() -> None:
    z = hills((2, 64, 64), 4)[:, None]
    for model in networks():
        found = []
        for device in ("cuda", "cpu"):
            there = copy.deepcopy(model).to(device, F64)
            coarse = there(z.to(device))
            coarse.sin().sum().backward()
            state = [part for part in there.state_dict().values() if part.is_floating_point()]
            found.append([coarse, *(part.grad for part in there.parameters()), *state])
        assert all(close(ours, theirs.cpu()) for ours, theirs in zip(*found, strict=True)), type(model).__name__


def floods() -> FloodDataset:
    z = hills((COUNT, SIDE, SIDE), 6)
    forcing = Forcing.of_rain(COUNT, (SIDE, SIDE), 1e-4, 200.0)
    forcing.inflow[1::2, 0, :8], forcing.rain[1::2] = 0.5, 0.0
    h = forcing.simulate(LocalInertialSolver(dx=8.0, h_cfl_min=0.05), z.to("cuda")).cpu()
    return FloodDataset(z, h, forcing)


def test_training_learns_and_goes_on(tmp_path) -> None:
    data, options = floods(), {"batch": 4, "device": "cuda", "every": 2, "lr": 0.03, "augment": False}
    model = Downsampler(FACTOR, (4, 4, 4), generator=torch.Generator().manual_seed(0)).double()
    fresh = copy.deepcopy(model)
    run = train_downsampler(model, data, COARSE, epochs=20, test=data, folder=tmp_path, **options)
    assert next(model.parameters()).is_cuda
    assert run.losses[-4:].mean() < 0.8 * run.losses[:4].mean()
    assert run.scores[-1] < 0.8 * mean_square_error("mean", data, COARSE, factor=FACTOR)
    (tmp_path / "step_00000020.pt").unlink()
    again = train_downsampler(fresh, data, COARSE, epochs=20, test=data, folder=tmp_path, **options)
    # sums of gradients at the corners of a map come in any order
    np.testing.assert_allclose(again.losses, run.losses, rtol=1e-4)
    np.testing.assert_allclose(again.scores, run.scores, rtol=1e-4)


def test_water_stays_in_float32_under_autocast() -> None:
    double = floods()
    data = FloodDataset(double.z.float(), double.h.float(), double.forcing)
    model = Downsampler(FACTOR, (4, 4, 4), generator=torch.Generator().manual_seed(0))
    given = [part.to("cuda") for part in (data.z, *data.forcing.parts)]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        parts = CoarseModel(model.to("cuda"), COARSE, augment=True)(*given)
    assert {part.dtype for part in parts} == {torch.float32}
    run = train_downsampler(model, data, COARSE, epochs=2, batch=4, device="cuda", precision="bfloat16")
    assert np.isfinite(run.losses).all()
