"""The runs that are held against exact knowledge, the wall that averages lose, and the algebra of the time step."""

import math

import numpy as np
import pytest
import torch

from lib.flood.claims.verification import two_cell_wave_growth
from lib.flood.exact import BEHIND_THE_FRONT, planar_wave, wave_run
from lib.flood.pooling import pool_dem
from lib.flood.solver import LocalInertialSolver
from lib.flood.symbolic import two_cell_wave_matrix
from lib.flood.wall import WALL, leak, walled_plain

# --- waves


def test_a_wave_is_measured_behind_its_front_only() -> None:
    run = wave_run(100.0, duration=3000.0)
    assert run.x.tolist() == [50.0 + 100 * i for i in range(50)]
    np.testing.assert_array_equal(run.exact, planar_wave(run.x, 3000.0, 1.0, 0.03, model="local_inertial"))
    behind = run.x < BEHIND_THE_FRONT
    assert behind.sum() == 30
    assert run.error == pytest.approx(math.sqrt(((run.h - run.exact)[behind] ** 2).mean()), rel=1e-12)
    # the water that came in is there, but for what the rule of middles makes of the sudden start
    came = sum(planar_wave(0.0, t, 1.0, 0.03, model="local_inertial") for t in np.arange(0.5, 3000.0))
    assert run.h.sum() * 100 == pytest.approx(float(came), rel=5e-3)


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
    assert spectral_radius(0.97 * bound, theta, axes) < 1 < spectral_radius(1.04 * bound, theta, axes)
    below, above = (two_cell_wave_growth(part * bound, theta, plane=axes == 2) for part in (0.97, 1.04))
    assert below < 3
    assert above > 10


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


@pytest.mark.parametrize(("rule", "side"), [(None, 64), ("mean", 8)])
def test_all_rules_get_the_same_river(rule, side) -> None:
    found, times = leak(rule, [600.0, 1200.0]), torch.tensor([600.0, 1200.0], dtype=torch.float64)
    assert found.h.shape == (2, side, side)
    assert torch.equal(found.z, walled_plain() if rule is None else pool_dem(walled_plain(), 8, rule))
    # half a square metre per second over 16 cells of 4 m
    torch.testing.assert_close(found.h.sum((-2, -1)) * (256 / side) ** 2, 0.5 * 64 * times, rtol=1e-9, atol=0)


def test_shares_are_of_columns_wholly_east_of_the_wall() -> None:
    fine, coarse = leak(None, [1800.0]), leak("min", [1800.0], factor=4)
    assert torch.equal(fine.share, fine.h[..., 40:].sum((-2, -1)) / fine.h.sum((-2, -1)))
    # blocks of 4: the wall is in the eighth and ninth of them
    assert torch.equal(coarse.share, coarse.h[..., 9:].sum((-2, -1)) / coarse.h.sum((-2, -1)))


def test_runs_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="dx must be at most 1000 m"):
        wave_run(2000.0)
    with pytest.raises(ValueError, match="times must hold one at least"):
        leak("mean", [])
