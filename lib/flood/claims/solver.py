"""What the solver conserves, what it converges to, and where its limits are."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch

from lib.claims import Evidence, at_least, at_most, claim, combine, none, true_that, within
from lib.flood.boundaries import Boundary
from lib.flood.claims.peer import THETAS, compare_with_landlab, landlab_reference
from lib.flood.claims.verification import finite_difference_gradient, two_cell_wave_growth
from lib.flood.exact import normal_depth, wave_run
from lib.flood.learning import depth_gradient
from lib.flood.solver import LocalInertialSolver
from lib.flood.symbolic import two_cell_wave_bound
from lib.flood.terrain import make_terrain, real_dem

F64 = torch.float64


def _crop(rows: int, columns: int, relief: float, seed: int = 0) -> torch.Tensor:
    """A piece of the real elevations with a relief of so many metres, in whole 64ths of a metre."""
    z = real_dem().z
    rng = np.random.default_rng(seed)
    top, left = rng.integers(z.shape[0] - rows), rng.integers(z.shape[1] - columns)
    part = z[top : top + rows, left : left + columns]
    part = (part - part.min()) * relief / np.ptp(part)
    return torch.from_numpy(np.round(64 * part) / 64)


@claim(
    source="derived here, from the scheme of Bates et al. 2010",
    statement="A lake at rest with dry islands stays at rest, exactly: not one bit of a depth or a discharge changes.",
)
def lake_at_rest() -> Evidence:
    moved, flow, island = [], [], []
    for dtype in (torch.float32, F64):
        z = _crop(64, 64, 8.0).to(dtype)
        h0 = (3.0 - z).clamp_min(0)
        island.append(float((h0 == 0).double().mean()))
        result = LocalInertialSolver(dx=30.0).simulate(z, 600.0, h0=h0)
        moved.append((result.h - h0).abs())
        flow += [result.qx.abs(), result.qy.abs()]
    return combine(
        at_most(moved, 0.0, label="largest change", shown="0"),
        at_most(flow, 0.0, label="largest discharge", shown="0"),
        true_that("both land and water are there", [0.05 < part < 0.95 for part in island]),
        remark="a real 64 x 64 crop, ten minutes, float32 and float64",
    )


@claim(
    source="derived here (donor limiter)",
    statement="Water is neither made nor lost, with rain, rivers and outflow over any terrain, and no depth is ever "
    "negative.",
)
def water_is_conserved() -> Evidence:
    errors, negative = [], []
    solver, every = LocalInertialSolver(dx=8.0), [4.0 * i for i in range(1, 61)]
    z = torch.from_numpy(np.stack([make_terrain((32, 40), rng=np.random.default_rng(seed)) for seed in range(5)]))
    for rain, boundary in ((1e-4, None), (1e-5, Boundary({"west": 0.4}, {"east": 0.005}))):
        result = solver.simulate(z, 240.0, rain=rain, boundary=boundary, save_times=every)
        assert result.history is not None
        volume = result.h.sum((1, 2)) * solver.dx**2
        errors.append(((volume - result.volume_in + result.volume_out) / result.volume_in).abs())
        negative.append(~(result.history >= 0))
    return combine(
        at_most(errors, 1e-12, label="error of the balance"),
        none(negative, "negative depths"),
        remark="10 floods of 4 minutes over 5 terrains, looked at every 4 seconds, float64",
    )


@claim(
    source="pitfalls of the scheme (derived here)",
    statement="Without a floor under the depth in the time step, a storm on dry land is taken in one step; without the "
    "limiter, depths become negative though the balance of water is perfect.",
)
def floor_and_limiter_are_needed() -> Evidence:
    z = torch.from_numpy(make_terrain((48, 48), rng=np.random.default_rng(0)))
    storm = {"rain": 0.1 / 3600}
    rash = LocalInertialSolver(dx=30.0, h_cfl_min=1e-5, limiter=False)
    first = float(rash.time_step(torch.zeros(1, 1)))
    cautious = LocalInertialSolver(dx=8.0, limiter=False).simulate(z, 600.0, **storm)  # type: ignore[arg-type]
    volume = cautious.h.sum() * 64
    balance = abs(float(volume / cautious.volume_in - 1))
    limited = LocalInertialSolver(dx=8.0).simulate(z, 600.0, **storm)  # type: ignore[arg-type]
    return combine(
        at_least(first, 1000.0, label="first step of a cell of 30 m [s]"),
        at_most(cautious.h.min(), -0.005, label="least depth without limiter [m]", shown="< -0.005"),
        at_most(balance, 1e-12, label="error of its balance"),
        true_that("with the limiter no depth is negative", limited.h >= 0),
        remark="rain of 100 mm/h on dry land",
    )


@claim(
    source="Manning's equation",
    statement="Down a slope, water comes to the depth at which friction balances gravity, and stays there.",
)
def uniform_flow() -> Evidence:
    depth = float(normal_depth(1.0, 0.001, 0.03))
    z = -0.001 * 50 * torch.arange(40, dtype=F64).repeat(3, 1)
    solver = LocalInertialSolver(dx=50.0, manning=0.03)
    sides = Boundary({"west": 1.0}, {"east": 0.001})
    still = solver.initial_state(z, depth)
    kept = solver.simulate(z, 1800.0, state=still._replace(qx=torch.ones_like(still.qx)), boundary=sides)
    reached = solver.simulate(z, 4 * 3600.0, h0=depth, boundary=sides, backend="compiled")
    return combine(
        at_most((kept.h - depth).abs(), 1e-12, label="moved from there [m]"),
        at_most((reached.h - depth).abs(), 1e-9, label="reached from rest to [m]"),
        within(depth, 0.968886, 0.968887, label="depth [m]", digits=5),
        remark="1 m^2/s, slope 0.001, n = 0.03",
    )


@claim(
    source="derived here",
    statement="The solver converges to the travelling wave of the local inertial equations, h* = 2u²/g deep at its "
    "front, with an order near one.",
)
def converges_to_its_own_wave() -> Evidence:
    errors = [wave_run(dx).error for dx in (50.0, 25.0, 12.5)]
    return combine(
        at_least([math.log2(a / b) for a, b in pairwise(errors)], 0.8, label="order"),
        at_most(errors[-1], 0.005, label="error at 12.5 m [m]", shown="< 0.005"),
        remark="u = 1 m/s, n = 0.03, one hour, 2.4 m deep, cells of 50, 25 and 12.5 m",
    )


@claim(
    source="derived here; the wave is that of Hunter et al. 2005",
    statement="It does not converge to the wave of the full equations, against which such codes are usually tested: "
    "there the error grows as the grid is refined.",
)
def not_to_hunters_wave() -> Evidence:
    errors = [wave_run(dx, "full").error for dx in (50.0, 25.0, 12.5)]
    return combine(
        at_least([b / a for a, b in pairwise(errors)], 1.1, label="error grows by"),
        at_most(errors[-1], 0.025, label="error at 12.5 m [m]", shown="< 0.025"),
        remark="the same wave with the inflow of the full equations",
    )


@claim(
    source="derived here",
    statement="The solver commutes with the eight symmetries of the square, and heights have no origin.",
)
def symmetries_of_the_square() -> Evidence:
    z = _crop(21, 21, 2.0)
    h0 = torch.zeros_like(z)
    h0[4:9, 6:12] = 3.0
    solver = LocalInertialSolver(dx=10.0)

    def turned(a: torch.Tensor) -> torch.Tensor:
        """In the eight positions, the first as it is."""
        return torch.stack([torch.rot90(b, turns) for b in (a, a.flip(1)) for turns in range(4)])

    found = solver.simulate(turned(z), 100.0, h0=turned(h0)).h
    apart = (found - turned(found[0])).abs()
    shifted = solver.simulate(z + 64, 100.0, h0=h0).h
    return combine(
        at_most(apart, 1e-12, label="turned and mirrored [m]"),
        at_most((shifted - found[0]).abs(), 1e-10, label="64 m higher [m]"),
        remark="a dam break on a real 21 x 21 crop, float64",
    )


@claim(
    source="Adams et al. 2017 (landlab)",
    statement="Where all cells stay wet, landlab's OverlandFlow, set up alike, finds the same depths.",
)
def agrees_with_landlab() -> Evidence:
    reference = landlab_reference()
    parts = [at_most(compare_with_landlab(reference, theta), 1e-10, label=f"θ = {theta:g} [m]") for theta in THETAS]
    apart = compare_with_landlab(reference, THETAS[1], scene="drying")
    return combine(
        *parts,
        at_least(apart, 1e-4, label="where cells fall dry [m]"),
        remark="200 steps, 64 x 64 cells, component friction, no limiter; landlab's depths ship with the package",
    )


@claim(
    source="Section 3 of the paper (training through the solver)",
    statement="Gradients through all time steps are right, and those of a map as a whole cancel: its height does not "
    "matter.",
)
def gradient_through_time() -> Evidence:
    z = _crop(8, 8, 1.0, seed=1) + torch.rand(8, 8, generator=torch.Generator().manual_seed(0), dtype=F64) / 10
    solver = LocalInertialSolver(dx=10.0)
    fixed = {"h0": 0.5, "dt_max": 1.0}
    _, gradient = depth_gradient(solver, z, 40.0, (4, 4), **fixed)
    other = finite_difference_gradient(solver, z, 40.0, (4, 4), **fixed)
    return combine(
        at_most((gradient - other).norm() / other.norm(), 1e-6, label="relative error"),
        at_most(gradient.sum().abs(), 1e-12, label="sum over the map"),
        at_least(gradient.abs().max(), 0.1, label="largest entry"),
        remark="8 x 8 cells, 40 equal steps, against central differences",
    )


@claim(
    source="Section 3 of the paper (time steps are constants of the gradient)",
    statement="Where steps follow the depth, as the paper's do, leaving that out of the gradient changes it, by a "
    "per cent on this run.",
)
def time_steps_are_left_out() -> Evidence:
    z = torch.rand(8, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    solver = LocalInertialSolver(dx=10.0)
    _, gradient = depth_gradient(solver, z, 20.0, (4, 4), h0=0.5)
    total = finite_difference_gradient(solver, z, 20.0, (4, 4), h0=0.5)
    return within(
        (gradient - total).norm() / total.norm(),
        0.003,
        0.1,
        label="relative difference",
        digits=1,
        remark="8 x 8 cells, 20 s in 13 steps, against the total derivative by central differences",
    )


@claim(
    source="derived here",
    statement="Waves of two cells grow where α² > θ/2 in two dimensions and α² > θ in one, for steps of αΔx/√(gh): "
    "α = θ = 0.7 is beyond that bound.",
)
def two_cell_waves_set_the_bound() -> Evidence:
    calm, wild = [], []
    for theta in (0.7, 0.8, 1.0):
        for plane in (True, False):
            bound = math.sqrt(theta / (2 if plane else 1))
            calm.append(two_cell_wave_growth(0.95 * bound, theta, plane=plane))
            if 1.1 * bound <= 1:
                wild.append(two_cell_wave_growth(1.1 * bound, theta, plane=plane))
    return combine(
        true_that("the characteristic polynomial says so (sympy)", two_cell_wave_bound()),
        at_most(calm, 10.0, label="growth at 0.95 of the bound", shown="< 10"),
        at_least(wild, 1000.0, label="at 1.1 of it"),
        at_least(two_cell_wave_growth(0.7, 0.7), 1000.0, label="at α = θ = 0.7"),
        remark="60 steps over deep water with next to no friction",
    )
