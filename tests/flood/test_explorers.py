"""The live figures of chapter 10: what they show is so."""

import numpy as np
import pytest
import torch

from lib.flood import Boundary, LocalInertialSolver, explorers
from lib.flood.explorers import BreakTheDike, GradientMap, ThreeSettings

PLANAR, RAIN, BASIN = ThreeSettings.declared["case"].options


def test_time_leafs_through_a_run_that_is_there() -> None:
    explorer = BreakTheDike()
    runs = explorers._dike_flood.cache_info().misses
    before = explorer.data["depth"]
    explorer.controls["time"].value = 3
    assert explorer.data["depth"].sum() != before.sum()
    assert explorers._dike_flood.cache_info().misses == runs


def test_a_whole_dike_keeps_the_village_dry() -> None:
    explorer = BreakTheDike(rain=0)
    leaks = []
    for width in (0, 3, 6, 12):
        explorer.set(width=width)
        assert explorer.data["village"][0] == 0
        leaks.append(explorer.data["share"][-1])
    assert leaks[0] == 0
    assert (np.diff(leaks) > 0).all()
    explorer.set(height=0.0)
    assert explorer.data["share"][-1] > leaks[-1]
    explorer.set(inflow=0.0)
    assert not explorer.data["share"].any()


def test_colours_tell_ground_wall_and_water_apart() -> None:
    explorer = BreakTheDike(rain=0, width=0)
    kind = explorer.data["map"] // 32
    depth = explorer.data["depth"]
    assert (kind[depth >= 0.05] >= 2).all()
    assert set(np.unique(kind[depth < 0.05])) == {0, 1}
    assert (kind == 1).sum() == 2 * 64
    edges = np.array(explorers._DEPTHS)
    assert (depth[kind == 3] >= edges[1]).all()
    assert (depth[kind == 3] < edges[2]).all()


@pytest.mark.parametrize("case", [PLANAR, BASIN])
@pytest.mark.parametrize("theta", [0.5, 0.7])
def test_waves_of_two_cells_grow_above_the_limit_only(case: str, theta: float) -> None:
    explorer = ThreeSettings(case=case, theta=theta)
    limit = np.sqrt(theta if case == PLANAR else theta / 2)
    assert explorer.data["limit"] == pytest.approx(limit)
    # just above the limit they grow too slowly to be seen in so short a run
    calm = explorer.data["errors"][explorer.data["setting"] < limit - 0.01]
    wild = explorer.data["errors"][explorer.data["setting"] > limit + 0.09]
    assert calm.max() < 0.02
    assert wild.min() > 5 * calm.max()


def test_own_loops_run_the_solvers_steps() -> None:
    explorer = ThreeSettings(alpha=0.5)
    assert explorer.data["error"] < 0.02
    few, many = explorer.data["steps"], ThreeSettings(alpha=0.1).data["steps"]
    assert many / few == pytest.approx(5, rel=0.1)


def test_a_small_floor_makes_a_long_first_step_and_negative_depths() -> None:
    explorer = ThreeSettings(case=RAIN, alpha=0.5, floor=1e-5)
    assert explorer.data["first_step"] == pytest.approx(0.5 * 30 / np.sqrt(9.80665e-5))
    assert explorer.data["steps"] < 20
    assert explorer.data["smallest"] < 0
    explorer.set(floor=0.1)
    assert explorer.data["smallest"] > 0
    assert explorer.data["error"] < 0.002
    # what leaves all bounds ends, and can be drawn
    explorer.set(alpha=1.0, floor=1e-4)
    assert explorer.data["steps"] < 200
    assert np.abs(explorer.data["depth"]).max() == 1e3


def test_the_gradient_agrees_with_a_difference_and_forgets_the_datum() -> None:
    explorer = GradientMap()
    gradient = explorer.data["gradient"]
    # the same water on ground that is higher everywhere
    assert abs(gradient.sum()) < 1e-9 * np.abs(gradient).sum()
    row, column = explorer.data["row"], explorer.data["column"]
    place = np.unravel_index(np.argmax(np.abs(gradient) * (np.arange(16) < column - 1)), gradient.shape)
    beds = np.stack([explorers._patch(0.75)[0]] * 2)
    beds[(0, *place)] += 1e-4
    beds[(1, *place)] -= 1e-4
    west = torch.zeros(16, dtype=torch.float64)
    west[4:8] = 0.6
    solver, sides = LocalInertialSolver(dx=50.0, h_cfl_min=0.05), Boundary({"west": west}, {"east": 0.002})
    h = solver.simulate(torch.from_numpy(beds), 900.0, boundary=sides, backend="compiled").h[:, row, column]
    change = float(h[0] - h[1]) / 2e-4
    # time steps are constants for the gradient, and not for the difference
    assert change == pytest.approx(gradient[place], rel=0.2)


def test_a_dry_village_has_no_gradient() -> None:
    explorer = GradientMap(row=0, column=15)
    assert not explorer.data["gradient"].any()
    assert "dry" in explorer.figure.layout.annotations[1].text
