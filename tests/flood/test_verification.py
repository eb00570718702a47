"""The runs that are held against exact knowledge, the wall that averages lose, and the algebra of the time step."""

import math

import numpy as np
import pytest
import sympy
import torch

from lib.flood import exact, symbolic
from lib.flood.boundaries import Boundary
from lib.flood.claims.verification import finite_difference_gradient, two_cell_wave_growth, uniform_flow_state
from lib.flood.exact import normal_depth, planar_wave, wave_run
from lib.flood.learning import depth_gradient
from lib.flood.pooling import pool_dem
from lib.flood.solver import LocalInertialSolver
from lib.flood.symbolic import two_cell_wave_bound, two_cell_wave_matrix
from lib.flood.wall import WALL, leak, walled_plain

TIMES = [600.0, 900.0, 1200.0, 1800.0]


# --- waves


def test_a_wave_is_measured_behind_its_front_only() -> None:
    run = wave_run(100.0, duration=3000.0)
    assert run.x.tolist() == [50.0 + 100 * i for i in range(50)]
    np.testing.assert_array_equal(run.exact, planar_wave(run.x, 3000.0, 1.0, 0.03, model="local_inertial"))
    behind = run.x < exact.BEHIND_THE_FRONT
    assert behind.sum() == 30
    assert run.error == pytest.approx(math.sqrt(((run.h - run.exact)[behind] ** 2).mean()), rel=1e-12)
    # the water that came in is there, but for what the rule of middles makes of the sudden start
    came = sum(planar_wave(0.0, t, 1.0, 0.03, model="local_inertial") for t in np.arange(0.5, 3000.0))
    assert run.h.sum() * 100 == pytest.approx(float(came), rel=5e-3)
    with pytest.raises(ValueError, match="model must be one of full, local_inertial"):
        wave_run(100.0, "diffusive")


def spectral_radius(alpha: float, theta: float, axes: int) -> float:
    """Of one step, from its matrix in numbers."""
    symbols = dict(zip(("alpha", "theta"), (alpha, theta), strict=True))
    matrix = two_cell_wave_matrix(axes)
    values = {symbol: symbols[symbol.name] for symbol in matrix.free_symbols}
    return float(np.abs(np.linalg.eigvals(np.array(matrix.subs(values), dtype=float))).max())


@pytest.mark.parametrize("theta", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("axes", [1, 2])
def test_waves_of_two_cells_grow_above_the_bound_only(theta, axes) -> None:
    """In numbers of the matrix, and in the solver itself."""
    bound = math.sqrt(theta / axes)
    assert spectral_radius(bound, theta, axes) == pytest.approx(1.0, abs=1e-6)
    for alpha in (0.2 * bound, 0.7 * bound, 0.97 * bound):
        assert spectral_radius(alpha, theta, axes) < 1
        assert two_cell_wave_growth(alpha, theta, plane=axes == 2) < 3
    for alpha in (1.04 * bound, min(1.0, 1.15 * bound)):
        assert spectral_radius(alpha, theta, axes) > 1
        assert two_cell_wave_growth(alpha, theta, plane=axes == 2) > 10


def test_growth_is_that_of_the_largest_eigenvalue() -> None:
    """But for the walls, beyond which the pattern does not go on."""
    short, long = (two_cell_wave_growth(0.65, 0.7, steps=steps) for steps in (16, 24))
    assert (long / short) ** (1 / 8) == pytest.approx(spectral_radius(0.65, 0.7, 2), rel=0.05)


def test_the_matrix_is_one_step_of_the_solver() -> None:
    """Depth and discharge of small waves of two cells, away from the sides, after one step without friction."""
    alpha, theta, g, dx, small = 0.4, 0.7, 9.80665, 10.0, 1e-6
    sign = (-1.0) ** torch.arange(12, dtype=torch.float64)
    board = sign[:, None] * sign
    solver = LocalInertialSolver(dx=dx, manning=1e-6, theta=theta, alpha=alpha)
    z = torch.zeros_like(board)
    speed = math.sqrt(g)
    before = np.array([1.0, 0.3, -0.2])
    state = solver.initial_state(z, 1 + small * before[0] * board)
    # the discharge out of a crest to the east, to the south: faces take the sign of the cell to their west or north
    qx, qy = torch.zeros_like(state.qx), torch.zeros_like(state.qy)
    qx[:, 1:], qy[1:] = small * speed * before[1] * board, small * speed * before[2] * board
    new = solver.step(z, state._replace(qx=qx, qy=qy), alpha * dx / speed)
    after = [
        (new.h - 1)[5, 5] / board[5, 5],
        new.qx[5, 6] / (speed * board[5, 5]),
        new.qy[6, 5] / (speed * board[5, 5]),
    ]
    matrix = two_cell_wave_matrix(2)
    numbers = np.array(matrix.subs({s: {"alpha": alpha, "theta": theta}[s.name] for s in matrix.free_symbols}), float)
    found = np.array([float(part) for part in after]) / small
    inward = np.diag([1.0, -1.0, -1.0])  # the matrix counts what flows into a crest
    np.testing.assert_allclose(found, inward @ numbers @ inward @ before, rtol=0, atol=1e-4)


# --- algebra


def test_the_bound_by_algebra_and_that_it_can_fail(monkeypatch) -> None:
    assert two_cell_wave_bound() is True
    right = two_cell_wave_matrix

    def wrong(entry):
        def matrix(axes: int) -> sympy.Matrix:
            broken = right(axes).copy()
            broken[entry] *= sympy.Rational(9, 10)
            return broken

        return matrix

    for entry in ((0, 0), (0, 1), (1, 0), (1, 1)):
        monkeypatch.setattr(symbolic, "two_cell_wave_matrix", wrong(entry))
        assert not two_cell_wave_bound(), entry


# --- gradients and uniform flow


@pytest.mark.parametrize("shape", [(4, 4), (3, 5)])
def test_finite_differences_one_elevation_at_a_time(shape) -> None:
    z = torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    solver, options = LocalInertialSolver(dx=10.0), {"h0": 0.6, "dt_max": 0.5, "boundary": Boundary({"north": 0.1})}
    found = finite_difference_gradient(solver, z, 10.0, (1, 2), step=1e-5, **options)
    for place in np.ndindex(shape):
        up, down = z.clone(), z.clone()
        up[place] += 1e-5
        down[place] -= 1e-5
        change = solver.simulate(up, 10.0, **options).h[1, 2] - solver.simulate(down, 10.0, **options).h[1, 2]
        assert float(found[place]) == pytest.approx(float(change) / 2e-5, rel=1e-6, abs=1e-9)
    _, exact = depth_gradient(solver, z, 10.0, (1, 2), **options)
    assert (found - exact).norm() < 1e-6 * exact.norm()
    assert abs(float(found.sum())) < 1e-7  # of a map that lies higher as a whole


def test_uniform_flow_stays() -> None:
    solver = LocalInertialSolver(dx=50.0, manning=0.03)
    z = -0.001 * 50 * torch.arange(20, dtype=torch.float64).repeat(2, 1)
    depth = normal_depth(1.0, 0.001, 0.03)
    state = uniform_flow_state(solver, z, depth, 1.0)
    assert state.h.unique().tolist() == [depth]
    assert state.qx.unique().tolist() == [1.0]
    assert not state.qy.any()
    later = solver.simulate(z, 3600.0, state=state, boundary=Boundary({"west": 1.0}, {"east": 0.001}))
    assert (later.h - depth).abs().max() < 1e-9


# --- the wall


def test_the_plain_has_a_watertight_wall_in_two_blocks() -> None:
    z = walled_plain()
    assert z.shape == (64, 64)
    fall = z[0, :-1] - z[0, 1:]
    assert fall[:30].tolist() == pytest.approx([0.004] * 30)
    assert float(fall[30]) == pytest.approx(0.004 - 3)
    assert float(fall[32]) == pytest.approx(0.004 + 3)
    assert bool((z == z[0]).all())
    assert {column // 8 for column in WALL} == {3, 4}
    assert float(pool_dem(z, 8)[0, 3] - pool_dem(z, 8)[0, 2]) == pytest.approx(3 / 8 - 0.032, abs=1e-9)


@pytest.mark.parametrize(
    ("rule", "shares"),
    [
        (None, [0, 0, 0, 0]),
        ("max", [0, 0, 0, 0]),
        ("mean", [0.095, 0.33, 0.45, 0.446]),
        ("min", [0.329, 0.425, 0.42, 0.40]),
    ],
)
def test_what_each_rule_lets_through(rule, shares) -> None:
    found = leak(rule, TIMES)
    side = 64 if rule is None else 8
    assert found.h.shape == (4, side, side)
    assert found.share.shape == (4,)
    if rule is not None:
        assert torch.equal(found.z, pool_dem(walled_plain(), 8, rule))
    assert found.share.tolist() == pytest.approx(shares, abs=0.04 if any(shares) else 1e-12)
    # the same river for all: half a square metre per second over 16 cells of 4 m
    volumes = found.h.sum((-2, -1)) * (256 / side) ** 2
    torch.testing.assert_close(volumes, 0.5 * 64 * torch.tensor(TIMES, dtype=torch.float64), rtol=1e-9, atol=0)


def test_shares_are_of_columns_wholly_east_of_the_wall() -> None:
    fine, coarse = leak(None, [1800.0]), leak("min", [1800.0], factor=4)
    assert torch.equal(fine.share, fine.h[..., 40:].sum((-2, -1)) / fine.h.sum((-2, -1)))
    # blocks of 4: the wall is in the eighth and ninth of them
    assert torch.equal(coarse.share, coarse.h[..., 9:].sum((-2, -1)) / coarse.h.sum((-2, -1)))


def test_leaks_that_cannot_be() -> None:
    for arguments, message in (
        (("mean", []), "times must be positive, and one at least"),
        (("mean", [600.0, 300.0]), "save_times"),
        (("mode", [600.0]), "how must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            leak(*arguments)
    with pytest.raises(ValueError, match="multiples of the factor 7"):
        leak("mean", [600.0], factor=7)
