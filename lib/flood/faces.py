"""One step of the local inertial equations on a staggered grid, as differentiable tensor operations.

Cells (R, C) carry the bed `z` and the depth `h`; faces carry the discharge per metre of width: `qx` (R, C + 1) through
west and east sides, `qy` (R + 1, C) through north and south sides, the outer faces included. The scheme: Bates et al.
2010 (J. Hydrology 387:33); its `theta`: de Almeida et al. 2012 (Water Resources Research 48, W05528). Every base of a
power is clamped first and masked after: a mask alone would multiply an infinite slope by zero in the gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

__all__ = ["BOUNDS", "DEPTH_LIMIT", "State", "limit_to_donors", "net_outflow", "new_discharge", "two_floats"]

#: Added to the square of a discharge before the root is taken: far below any flow, and its slope at zero is finite.
SPEED_FLOOR = 1e-20

#: A cell may give away all its water but this many units of rounding: depths are then never negative, exactly.
ROUNDING_ROOM = 8

#: A depth of this many metres, above ground or below, has left all bounds: a run that reaches it ends.
DEPTH_LIMIT = 1e5

#: The three as the compiled loop takes them: numba's cache would not see that a constant of another file has changed.
BOUNDS = (float(SPEED_FLOOR), float(ROUNDING_ROOM), float(DEPTH_LIMIT))


class State(NamedTuple):
    """Water on a map: depths in cells and discharges through faces.

    Attributes:
        h: Depth [m] (..., R, C).
        qx: Discharge per metre of width [m^2/s] (..., R, C + 1), positive to the east (growing column).
        qy: Discharge per metre of width [m^2/s] (..., R + 1, C), positive to the south (growing row).
        carry: What lies below the last digit of `h` [m] (..., R, C) in float32, where a drizzle on deep water would be
            lost without it; None: nothing, as in float64.

    Examples:
        >>> State(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(3, 3)).qx.shape
        torch.Size([2, 4])
    """

    h: torch.Tensor
    qx: torch.Tensor
    qy: torch.Tensor
    carry: torch.Tensor | None = None


def _first(a: torch.Tensor, dim: int) -> torch.Tensor:
    """All but the last along an axis: the western (northern) of two neighbours."""
    return a.narrow(dim, 0, a.shape[dim] - 1)


def _second(a: torch.Tensor, dim: int) -> torch.Tensor:
    """All but the first along an axis: the eastern (southern) of two neighbours."""
    return a.narrow(dim, 1, a.shape[dim] - 1)


def _weighted(q: torch.Tensor, theta: float, dim: int, edge: str) -> torch.Tensor:
    """`theta q_i + (1 - theta) / 2 (q_(i-1) + q_(i+1))` over inner faces."""
    count = q.shape[dim]
    if theta == 1 or count < 2:
        return q
    # a missing neighbour is the face itself, or the other neighbour
    before, after = (0, count - 1) if edge == "replicate" else (1, count - 2)
    left = torch.cat([q.narrow(dim, before, 1), _first(q, dim)], dim)
    right = torch.cat([_second(q, dim), q.narrow(dim, after, 1)], dim)
    return theta * q + (1 - theta) / 2 * (left + right)


def new_discharge(
    z: torch.Tensor,
    h: torch.Tensor,
    along: torch.Tensor,
    across: torch.Tensor,
    dt: torch.Tensor,
    *,
    dim: int,
    dx: float,
    manning: float,
    theta: float,
    g: float,
    h_dry: float,
    friction: str,
    edge: str,
) -> torch.Tensor:
    """Discharge through the inner faces along one axis after one step; friction is semi-implicit.

    `q = (q~ - g h_f dt S) / (1 + g dt n^2 |q| / h_f^(7/3))` with the depth at the face `h_f = max(w_L, w_R) -
    max(z_L, z_R)` and the slope `S = (w_R - w_L) / dx` of the level `w = z + h`; 0 where `h_f <= h_dry`.

    Args:
        z, h: Bed and depth [m] (..., R, C).
        along, across: Discharges [m^2/s] through all faces along the axis and along the other one.
        dt: Time step [s], of a shape that broadcasts to (..., 1, 1).
        dim: -1: `along` is `qx`. -2: it is `qy`.
        dx, manning, theta, g, h_dry, friction, edge: Of a `LocalInertialSolver`.

    Returns:
        (..., R, C - 1) or (..., R - 1, C) [m^2/s].

    Examples:
        >>> z, h = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> rest = torch.zeros(1, 3), torch.zeros(2, 2)
        >>> settings = {"dx": 10.0, "manning": 0.05, "theta": 1.0, "g": 9.8, "h_dry": 1e-5}
        >>> new_discharge(z, h, *rest, torch.tensor(0.5), dim=-1, **settings, friction="vector", edge="replicate")
        tensor([[0.4900]])
    """
    other = -3 - dim
    inner = along.narrow(dim, 1, along.shape[dim] - 2)
    if not inner.shape[dim]:  # a map of one row has no faces across it
        return inner
    level = z + h
    depth = torch.maximum(_first(level, dim), _second(level, dim)) - torch.maximum(_first(z, dim), _second(z, dim))
    rise = _second(level, dim) - _first(level, dim)
    if friction == "vector":
        around = _first(across, other) + _second(across, other)
        transverse = (_first(around, dim) + _second(around, dim)) / 4
        speed = (inner.square() + transverse.square() + SPEED_FLOOR).sqrt()
    else:
        speed = inner.abs()
    wet = depth > h_dry
    depth = depth.clamp_min(h_dry)
    drag = (g * manning**2) * dt * speed * depth.pow(-7 / 3)
    pushed = _weighted(inner, theta, dim, edge) - (g / dx) * dt * depth * rise
    return torch.where(wet, pushed / (1 + drag), 0.0)


def net_outflow(qx: torch.Tensor, qy: torch.Tensor) -> torch.Tensor:
    """What leaves each cell less what enters it [m^2/s], (..., R, C); over `dx` it is the divergence of the flow.

    Examples:
        >>> net_outflow(torch.tensor([[0.0, 1.0, 0.0]]), torch.zeros(2, 2))
        tensor([[ 1., -1.]])
    """
    return (_second(qx, -1) - _first(qx, -1)) + (_second(qy, -2) - _first(qy, -2))


def limit_to_donors(
    available: torch.Tensor, qx: torch.Tensor, qy: torch.Tensor, ratio: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale the discharges out of each cell such that it gives no more than it has (derived here).

    Every face is scaled once, by the cell that it takes from, so no water is made or lost.

    Args:
        available: Depth [m] (..., R, C) that a cell may give away in this step: its own and the rain's, not negative.
        qx, qy: Discharges [m^2/s] through all faces.
        ratio: `dt / dx` [s/m], of a shape that broadcasts to (..., 1, 1).

    Examples:
        >>> qx, _ = limit_to_donors(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 4.0, 0.0]]),
        ...                         torch.zeros(2, 2), torch.tensor(1.0))
        >>> [round(q, 4) for q in qx.flatten().tolist()]
        [0.0, 1.0, 0.0]
    """
    leaving = ratio * (
        (_second(qx, -1).clamp_min(0) - _first(qx, -1).clamp_max(0))
        + (_second(qy, -2).clamp_min(0) - _first(qy, -2).clamp_max(0))
    )
    may = available * (1 - ROUNDING_ROOM * torch.finfo(available.dtype).eps)
    short = leaving > may
    share = torch.where(short, may / torch.where(short, leaving.clamp_min(1e-30), 1.0), 1.0)
    # outside the map lies as much water as is asked for
    sides = ((1, 0), (0, 1), (0, 0, 1, 0), (0, 0, 0, 1))
    from_west, from_east, from_north, from_south = (functional.pad(share, side, value=1.0) for side in sides)
    return qx * torch.where(qx > 0, from_west, from_east), qy * torch.where(qy > 0, from_north, from_south)


def two_floats(depth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A depth [m] in float64 as `h + carry` in float32: the nearest number, and what it leaves out.

    `h` alone has the gradient of both, since a carry is a constant.

    Examples:
        >>> h, carry = two_floats(torch.tensor(16 + 1e-7, dtype=torch.float64))
        >>> h.item(), round(carry.item(), 9)
        (16.0, 1e-07)
    """
    h = depth.float()
    with torch.no_grad():
        carry = (depth - h).float()
    return h, carry
