"""A gradient flow as an ordinary differential equation, followed until the data are fitted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

__all__ = ["follow"]


class _OutOfStepsError(Exception):
    """The integrator has taken all steps that it may take."""


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
    from scipy.integrate import solve_ivp

    seen: list[tuple[float, Vector]] = []

    def event(time: float, state: Vector) -> float:
        # scipy asks after every step, and has no limit of its own to them
        if len(seen) > max_steps:
            raise _OutOfStepsError
        seen.append((time, state.copy()))
        return misfit(state)

    event.terminal = True  # type: ignore[attr-defined]  # scipy reads this attribute of the event
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a flow that leaves all bounds says so in its result
            run = solve_ivp(velocity, (0.0, t_max), first, method="LSODA", rtol=rtol, atol=rtol * 1e-3, events=event)
    except _OutOfStepsError:
        warnings.warn(
            f"the flow was given up after {max_steps} steps, at time {seen[-1][0]:.3g} of {t_max:g}",
            RuntimeWarning,
            stacklevel=3,
        )
        times, states = zip(*seen, strict=True)
        return np.array(times), np.array(states), False
    return run.t, run.y.T, run.status == 1
