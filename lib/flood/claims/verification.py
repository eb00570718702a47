"""Runs of the solver that are held against what is known exactly: waves, gradients, the bound of the time step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lib.flood.boundaries import Boundary
from lib.flood.exact import planar_wave
from lib.flood.faces import State
from lib.flood.solver import LocalInertialSolver

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WaveRun", "finite_difference_gradient", "two_cell_wave_growth", "wave_run"]

#: Only cells up to here [m] count: the front itself is a shock, which no grid can place better than to a cell.
BEHIND_THE_FRONT = 3000.0


@dataclass(frozen=True)
class WaveRun:
    """A wave over dry, level ground.

    Attributes:
        x: Middles of the cells [m] (C,).
        h, exact: Depths found, and as they should be [m] (C,).
    """

    x: NDArray[np.float64]
    h: NDArray[np.float64]
    exact: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Root mean square error [m] behind the front."""
        wrong = (self.h - self.exact)[~(self.x >= BEHIND_THE_FRONT)]
        return math.sqrt(np.mean(wrong**2))


def wave_run(
    dx: float, model: str = "local_inertial", *, u: float = 1.0, manning: float = 0.03, duration: float = 3600.0
) -> WaveRun:
    """Let a wave come in as a model has it, and hold the depths against that model at the end.

    Args:
        dx: Side of a cell [m].
        model: As in `planar_wave`.
        u, manning, duration: Velocity [m/s], roughness [s m^-1/3], seconds.

    Examples:
        >>> run = wave_run(100.0, duration=1800.0)
        >>> bool(run.error < 0.1)
        True
    """
    solver = LocalInertialSolver(dx=dx, manning=manning, theta=1.0, alpha=0.7)
    z = torch.zeros(1, round(5000 / dx), dtype=torch.float64)
    x = np.asarray((np.arange(z.shape[1]) + 0.5) * dx, dtype=np.float64)
    state, t = solver.initial_state(z), 0.0
    while t < duration:
        dt = min(float(solver.time_step(state.h)), duration - t)
        # what a step lets in is the mean over the step, so the middle of it is of second order
        depth = float(planar_wave(0.0, t + dt / 2, u, manning, model=model))
        state = solver.step(z, state, dt, boundary=Boundary({"west": u * depth}))
        t += dt
    exact = planar_wave(x, duration, u, manning, model=model)
    return WaveRun(x, state.h[0].numpy(), exact)


def two_cell_wave_growth(alpha: float, theta: float, *, plane: bool = True, steps: int = 60) -> float:
    """By what factor a wave of two cells has grown after so many steps over deep, all but frictionless water.

    Args:
        alpha, theta: As in `LocalInertialSolver`.
        plane: A chessboard; else stripes, all flow along one axis.
        steps: Number of steps.

    Examples:
        >>> two_cell_wave_growth(0.5, 0.7) < 5 < two_cell_wave_growth(0.7, 0.7)
        True
    """
    sign = (-1.0) ** torch.arange(16, dtype=torch.float64)
    pattern = sign[:, None] * sign if plane else sign[None]
    small = 1e-8
    solver = LocalInertialSolver(dx=10.0, manning=1e-6, theta=theta, alpha=alpha)
    z, h0 = torch.zeros_like(pattern), 1 + small * pattern
    result = solver.simulate(z, steps * float(solver.time_step(torch.ones(1, 1))), h0=h0, backend="compiled")
    return float((result.h - 1).abs().max()) / small


def finite_difference_gradient(
    solver: LocalInertialSolver,
    z: Tensor,
    duration: float,
    cell: tuple[int, int],
    *,
    step: float = 1e-6,
    **options: Any,
) -> Tensor:
    """`d h[cell] / d z` (R, C) by central differences, for comparison with `depth_gradient`.

    Args:
        solver, z, duration, cell, options: As in `depth_gradient`; `z` float64.
        step: By how much each elevation is moved [m].

    Examples:
        >>> z = torch.zeros(2, 2, dtype=torch.float64)
        >>> found = finite_difference_gradient(LocalInertialSolver(dx=10.0), z, 60.0, (0, 0), h0=0.5)
        >>> bool(found[0, 0] < 0)
        True
    """
    # all perturbed maps at once, as a batch; each takes its own time steps, as it would alone
    moves = step * torch.eye(z.numel(), dtype=z.dtype).reshape(-1, *z.shape)
    moved = torch.cat([z + moves, z - moves])
    h = solver.simulate(moved, duration, **options).h[:, cell[0], cell[1]]
    up, down = h.chunk(2)
    return ((up - down) / (2 * step)).reshape(z.shape)


def uniform_flow_state(solver: LocalInertialSolver, z: Tensor, depth: float, q: float) -> State:
    """Water of one depth [m] that runs to the east with one discharge [m^2/s].

    Examples:
        >>> uniform_flow_state(LocalInertialSolver(dx=1.0), torch.zeros(1, 2), 0.5, 1.0).qx
        tensor([[1., 1., 1.]])
    """
    still = solver.initial_state(z, depth)
    return still._replace(qx=torch.full_like(still.qx, q))
