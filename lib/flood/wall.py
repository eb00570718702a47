"""A plain with a wall across it: what a rule for coarse maps does to the wall (the reason for the paper's Figure 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from lib.flood.boundaries import Boundary
from lib.flood.pooling import Pooling, pool_dem
from lib.flood.solver import LocalInertialSolver
from lib.validation import positive_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["WALL", "Leak", "leak", "walled_plain"]

_SIDE, _CELL, _SLOPE, _HEIGHT, _RIVER = 64, 4.0, 0.001, 3.0, 0.5

#: Columns of the fine map that the wall stands in.
WALL = (31, 32)


class Leak(NamedTuple):
    """A flood on one map of the plain.

    Attributes:
        z: The map (R, C) [m].
        h: Depths at the times asked for (T, R, C) [m].
        share: Part of all water that is in coarse columns wholly east of the wall (T,).
    """

    z: Tensor
    h: Tensor
    share: Tensor


def walled_plain() -> Tensor:
    """A map (64, 64) float64 [m] of cells of 4 m that falls by 1 in 1000 to the east, with a wall from north to south.

    The wall is 3 m high and 2 cells wide, and lies in two blocks of 8 x 8 cells.

    Examples:
        >>> z = walled_plain()
        >>> print(f"{(z[0, 31] - z[0, 30]).item():.3f}")
        2.996
    """
    z = (-_SLOPE * _CELL * torch.arange(_SIDE, dtype=torch.float64)).repeat(_SIDE, 1)
    z[:, list(WALL)] += _HEIGHT
    return z


def leak(rule: Pooling | None, times: Sequence[float] = (600.0, 900.0, 1200.0, 1800.0), *, factor: int = 8) -> Leak:
    """Flood `walled_plain`, on its fine map or on a coarse one, by a river through the middle of the western side.

    No water passes the wall on the fine map.

    Args:
        rule: How to pool; None for the fine map.
        times: Seconds, ascending.
        factor: Of the pooling; also says which columns count as east of the wall.

    Examples:
        >>> [round(float(leak(rule, [600.0]).share[0]), 1) for rule in (None, "max", "min")]
        [0.0, 0.0, 0.3]
    """
    if not positive_array("times", times).size:
        raise ValueError("times must hold one at least; it is empty")
    z = walled_plain()
    river = torch.zeros(_SIDE, dtype=torch.float64)
    river[24:40] = _RIVER
    width = 1
    if rule is not None:
        z, width = pool_dem(z, factor, rule), factor
        river = river.reshape(-1, factor).mean(-1)
    solver = LocalInertialSolver(dx=_CELL * width, h_cfl_min=0.05)
    sides = Boundary({"west": river})
    h = solver.simulate(z, times[-1], boundary=sides, save_times=times, backend="compiled").history
    assert h is not None
    first = (WALL[1] // factor + 1) * factor // width
    return Leak(z, h, h[..., first:].sum((-2, -1)) / h.sum((-2, -1)))
