"""What the claims of this chapter measure with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def end_of_flow(velocity: Callable[[Array], Array], start: Array) -> Array:
    """Where an ODE solver comes to in a long time."""
    from scipy.integrate import solve_ivp

    run = solve_ivp(lambda _, s: velocity(s), (0, 1e4), start, method="LSODA", rtol=1e-11, atol=1e-13)
    return np.asarray(run.y[:, -1])


def positive_part(x: Array) -> Array:
    """1 where a number is positive, 0 where it is not, and NaN where it is NaN: no comparison would tell."""
    return np.heaviside(x, 0.0)
