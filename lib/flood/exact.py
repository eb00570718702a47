r"""Exact solutions that a flood solver can be held against.

Uniform flow down a slope, and waves that run over dry, level ground at a constant speed `u`. With `q = u h` the full
shallow water equations have Hunter's wave (Hunter et al. 2005). The local inertial equations (Bates, Horritt,
Fewtrell 2010) have another one (derived here): their momentum equation becomes, in `xi = x - u t`,

.. math:: (g h - u^2)\, h' = -g n^2 u^2 h^{-1/3}
   \quad\Rightarrow\quad \tfrac37 g h^{7/3} - \tfrac34 u^2 h^{4/3} = C - g n^2 u^2 \xi .

It ends in a shock against the dry ground; the jump conditions `s [h] = [q]`, `s [q] = [g h^2 / 2]` give the depth
`2 u^2 / g` there, and so `C`. Where `u^2 / (g h)` is small the two waves agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lib.flood.boundaries import Boundary
from lib.flood.solver import LocalInertialSolver
from lib.validation import finite_array, finite_number, one_of, positive_array, positive_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["WaveRun", "normal_depth", "planar_wave", "wave_run"]


def normal_depth(q: ArrayLike, slope: ArrayLike, manning: ArrayLike) -> NDArray[np.float64]:
    """Depth [m] of uniform flow, at which friction balances the slope (Manning): `(n q / sqrt(S)) ** (3 / 5)`.

    Args:
        q: Discharge per metre of width [m^2/s], not negative, of any shape.
        slope: Slope of the bed [-], positive.
        manning: Manning's roughness [s m^-1/3], positive.

    Examples:
        >>> print(f"{normal_depth(1.0, 0.001, 0.03):.8f}")
        0.96888616
    """
    discharge = finite_array("q", q)
    if discharge.size and discharge.min() < 0:
        raise ValueError(f"q must not be negative; its smallest entry is {discharge.min()}")
    depth: NDArray[np.float64] = (
        positive_array("manning", manning) * discharge / np.sqrt(positive_array("slope", slope))
    ) ** 0.6
    return depth


def planar_wave(
    x: ArrayLike, t: float, u: float, manning: float, g: float = 9.80665, *, model: str = "full"
) -> NDArray[np.float64]:
    """Depth of a wave that runs over dry, level ground with the velocity `u`; its front is at `x = u t`.

    Args:
        x: Places [m], of any shape.
        t: Time [s].
        u: Velocity [m/s].
        manning: Manning's roughness [s m^-1/3].
        g: Gravity [m/s^2].
        model: `"full"`: shallow water equations (Hunter et al. 2005). `"local_inertial"`: without the two advection
            terms (derived here); its front has the depth `2 u^2 / g`.

    Returns:
        Depth [m] of the shape of `x`, zero ahead of the front. The discharge is `u` times it.

    Examples:
        >>> planar_wave([0.0, 3000.0, 4000.0], 3600.0, 1.0, 0.03, model="local_inertial").round(3)
        array([2.458, 1.185, 0.   ])
    """
    places = finite_array("x", x)
    speed, roughness, gravity = positive_number("u", u), positive_number("manning", manning), positive_number("g", g)
    one_of("model", model, ("full", "local_inertial"))
    front = speed * finite_number("t", t)
    behind = np.maximum(front - places, 0.0)
    fall = roughness**2 * speed**2 * behind
    if model == "full":
        hunter: NDArray[np.float64] = (7 / 3 * fall) ** (3 / 7)
        return hunter
    wave = _above_the_shock(fall, speed**2 / gravity)
    return np.where(places <= front, wave, 0.0)


def _above_the_shock(fall: NDArray[np.float64], critical: float) -> NDArray[np.float64]:
    """The `h >= 2 c` with `F(h) = F(2 c) + fall` for `F(h) = 3/7 h^(7/3) - 3/4 c h^(4/3)`, `c` the critical depth."""
    front = 2 * critical
    goal = 3 / 7 * front ** (7 / 3) - 3 / 4 * critical * front ** (4 / 3) + fall
    # F is convex and rises from the front on, and F(front + d) - F(front) >= 3/7 d^(7/3): from this start, which is
    # too deep, Newton's method comes down to the root and never passes it.
    depth: NDArray[np.float64] = front + (7 / 3 * fall) ** (3 / 7)
    for _ in range(60):
        root = np.cbrt(depth)
        step = (3 / 7 * depth**2 * root - 3 / 4 * critical * depth * root - goal) / (root * (depth - critical))
        depth = depth - step
        if np.all(np.abs(step) <= 4e-16 * depth):
            break
    return np.maximum(depth, front)


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


def wave_run(dx: float, model: str = "local_inertial", *, duration: float = 3600.0) -> WaveRun:
    """Let a wave of 1 m/s run over 5 km of rough, dry ground, and hold the depths at the end against its model.

    Args:
        dx: Side of a cell [m].
        model: As in `planar_wave`.
        duration: Seconds.

    Examples:
        >>> bool(wave_run(50.0, duration=1800.0).error < wave_run(100.0, duration=1800.0).error)
        True
    """
    one_of("model", model, ("full", "local_inertial"))
    if positive_number("dx", dx) > 1000:
        raise ValueError(f"dx must be at most 1000 m, a fifth of the way; it is {dx}")
    positive_number("duration", duration)
    u, manning = 1.0, 0.03
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
