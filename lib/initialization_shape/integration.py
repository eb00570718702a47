"""A gradient flow as an ordinary differential equation, followed until the data are fitted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.integrate import LSODA

    Vector = NDArray[np.float64]

__all__ = ["follow"]


def follow(
    velocity: Callable[[float, Vector], Vector],
    first: Vector,
    misfit: Callable[[Vector], float],
    *,
    t_max: float,
    rtol: float,
    max_steps: int,
) -> tuple[Vector, Vector, bool]:
    """Integrate by LSODA until `misfit` is zero.

    Args:
        velocity: Right-hand side, a function of time and state (P,).
        misfit: Function of the state, positive at the start.
        t_max, max_steps: Time and number of steps at which to give up, the latter with a warning.
        rtol: Relative tolerance; the absolute one is a thousandth of it.

    Returns:
        times, states, arrived: (T,), (T, P), and whether the misfit came to zero.

    Examples:
        >>> times, states, arrived = follow(
        ...     lambda t, x: -x, np.ones(1), lambda x: float(x[0]) - 0.5, t_max=9.0, rtol=1e-9, max_steps=1000
        ... )
        >>> print(arrived, times[-1].round(6), states[-1].round(6))
        True 0.693147 [0.5]
    """
    from scipy.integrate import LSODA

    solver = LSODA(velocity, 0.0, first, t_max, rtol=rtol, atol=rtol * 1e-3)
    times, states = [0.0], [first]
    with np.errstate(over="ignore", invalid="ignore"):  # a flow that leaves all bounds says so in its result
        while solver.status == "running":
            if len(times) > max_steps:
                warnings.warn(
                    f"the flow was given up after {max_steps} steps, at time {times[-1]:.3g} of {t_max:g}",
                    RuntimeWarning,
                    stacklevel=3,
                )
                break
            solver.step()
            if solver.status == "failed":
                break
            if misfit(solver.y) <= 0:
                time, state = _crossing(solver, misfit)
                return np.array([*times, time]), np.array([*states, state]), True
            times.append(solver.t)
            states.append(solver.y)
    return np.array(times), np.array(states), False


def _crossing(solver: LSODA, misfit: Callable[[Vector], float]) -> tuple[float, Vector]:
    """Time and state within the last step where the misfit is zero."""
    from scipy.optimize import brentq

    between, near = solver.dense_output(), 4 * np.finfo(float).eps
    time = brentq(lambda t: misfit(between(t)), solver.t_old, solver.t, xtol=near, rtol=near)
    return time, between(time)
