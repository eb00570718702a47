"""Runs of the solver that are held against what is known: the bound of the time step, and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lib.flood.solver import LocalInertialSolver


def two_cell_wave_growth(alpha: float, theta: float, *, plane: bool = True, steps: int = 60) -> float:
    """By what factor a wave of two cells has grown after so many steps over deep, all but frictionless water.

    The wave is a chessboard or, without `plane`, stripes, all flow along one axis.

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
