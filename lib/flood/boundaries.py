"""The four sides of a map: closed walls, prescribed inflow, outflow at normal depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from lib.validation import finite_array, instance_of, one_of

__all__ = ["SIDES", "Boundary", "Side", "fits", "open_sides", "outer_faces", "real_tensor"]

#: The names of the sides: row 0 is the north, column 0 the west.
SIDES = ("west", "east", "north", "south")


@dataclass(frozen=True)
class Boundary:
    """What passes the sides of a map; a side that is not named is a closed wall.

    Attributes:
        inflow: For each side the discharge per metre of width into the map [m^2/s], not negative: a number, or a tensor
            (..., L) along the side, from north to south or from west to east. A discharge of `Q` m^3/s over `k` faces
            is `Q / (k dx)`.
        outflow: For each side the slope [-] of the ground outside: water leaves at its normal depth,
            `q = h^(5/3) sqrt(S) / n`. A positive number, or a tensor (..., L) with zeros where the side is closed.

    Examples:
        >>> Boundary(inflow={"west": 0.5}, outflow={"east": 0.001}).inflow
        {'west': 0.5}
    """

    inflow: Mapping[str, float | torch.Tensor] = field(default_factory=dict)
    outflow: Mapping[str, float | torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("inflow", "outflow"):
            given = getattr(self, what)
            if not isinstance(given, Mapping):
                raise TypeError(f"{what} must map sides to numbers or tensors; it is {given!r}")
            for name in given:
                one_of(f"a side of {what}", name, SIDES)


class Side(NamedTuple):
    """A side that is not a wall, ready for the time loop: all (..., L).

    Attributes:
        inflow: Discharge per metre of width [m^2/s] into the map, or None.
        conveyance: `sqrt(S) / n` [m^(1/3)/s], zero where the side is closed, or None.
    """

    inflow: torch.Tensor | None
    conveyance: torch.Tensor | None


def open_sides(boundary: Boundary | None, z: torch.Tensor, manning: float) -> dict[str, Side]:
    """Check a boundary against the map `z` (..., R, C) [m] and prepare it, with the dtype and device of `z`.

    Examples:
        >>> sides = open_sides(Boundary(outflow={"east": 0.0001}), torch.zeros(2, 3), manning=0.05)
        >>> sides["east"].conveyance
        tensor([0.2000, 0.2000])
    """
    if boundary is None:
        return {}
    instance_of("boundary", boundary, Boundary, "a Boundary or None")
    sides = {}
    for name in SIDES:
        inflow = conveyance = None
        if name in boundary.inflow:
            inflow = _along(f"inflow[{name!r}]", boundary.inflow[name], z, name)
            if inflow.min() < 0:
                raise ValueError(f"inflow[{name!r}] must not be negative; its smallest entry is {inflow.min().item()}")
        if name in boundary.outflow:
            slope = _along(f"outflow[{name!r}]", boundary.outflow[name], z, name)
            closed = slope == 0
            if slope.min() < 0 or closed.all():
                raise ValueError(f"outflow[{name!r}] must be a positive slope; its smallest is {slope.min().item()}")
            conveyance = torch.where(closed, 0.0, torch.where(closed, 1.0, slope).sqrt() / manning)
        if inflow is not None and conveyance is not None and bool(((inflow > 0) & (conveyance > 0)).any()):
            raise ValueError(f"a face must have an inflow or an outflow; on the side {name!r} one has both")
        if inflow is not None or conveyance is not None:
            sides[name] = Side(inflow, conveyance)
    return sides


def real_tensor(
    name: str, value: float | torch.Tensor, z: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """A number, an array or a tensor as a finite tensor of the dtype (or another one) and on the device of `z`.

    Examples:
        >>> real_tensor("rain", 1e39, torch.zeros(2, 2))
        Traceback (most recent call last):
        ...
        ValueError: rain must be finite in torch.float32; an entry is NaN, infinite or too large
    """
    dtype = z.dtype if dtype is None else dtype
    if not isinstance(value, torch.Tensor):
        # a copy, without the steps backwards that an array may have
        value = torch.from_numpy(finite_array(name, value).copy())
    elif value.is_complex():
        raise TypeError(f"{name} must hold real numbers; it has dtype {value.dtype}")
    given = value.to(z.device, dtype)
    if not bool(torch.isfinite(given).all()):
        raise ValueError(f"{name} must be finite in {dtype}; an entry is NaN, infinite or too large")
    return given


def _along(name: str, value: float | torch.Tensor, z: torch.Tensor, side: str) -> torch.Tensor:
    """A number, or a tensor along a side, as a tensor (..., L)."""
    length = z.shape[-2] if side in ("west", "east") else z.shape[-1]
    given = real_tensor(name, value, z)
    if given.ndim == 0:
        return given.expand(length)
    if given.shape[-1] != length or not fits(given, (*z.shape[:-2], length)):
        shapes = f"{(*z.shape[:-2], length)} or {(length,)}"
        raise ValueError(f"{name} must have the shape {shapes}; it has {tuple(given.shape)}")
    return given


def fits(given: torch.Tensor, shape: Sequence[int]) -> bool:
    """Whether a tensor broadcasts to a shape; more or longer axes would silently make a larger batch of the result."""
    return given.ndim <= len(shape) and all(a in (1, b) for a, b in zip(given.shape[::-1], shape[::-1], strict=False))


def outer_faces(sides: dict[str, Side], name: str, h: torch.Tensor, h_dry: float) -> torch.Tensor:
    """Discharge [m^2/s] (..., L) through the outer faces of a side, positive INTO the map; zero through a wall.

    Examples:
        >>> h = torch.full((2, 2), 8.0)
        >>> outer_faces(open_sides(Boundary(outflow={"west": 0.0001}), h, 0.01), "west", h, 1e-5)
        tensor([-32., -32.])
    """
    dim, place = {"west": (-1, 0), "east": (-1, -1), "north": (-2, 0), "south": (-2, -1)}[name]
    depth = h.select(dim, place)
    inflow, conveyance = sides.get(name, (None, None))
    entering = torch.zeros_like(depth) if inflow is None else inflow.expand(depth.shape)
    if conveyance is None:
        return entering
    return entering - torch.where(depth > h_dry, depth.clamp_min(h_dry).pow(5 / 3) * conveyance, 0.0)
