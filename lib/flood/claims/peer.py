"""The same floods by another code: landlab's `OverlandFlow` (Adams et al. 2017, Geosci. Model Dev. 10:1645).

landlab solves the equations of de Almeida et al. 2012 with the friction of a face's own discharge and no limiter. Where
all cells stay wet the depths agree to rounding. Where cells fall dry the codes differ by design: landlab stops the flow
through a face below 1e-6 m of water, we below `h_dry`; landlab takes the discharge of a face that has just dried for
zero in the averages of its neighbours, we only in the next step; and landlab's depths fall below zero. With these three
made alike the depths agree again. The depths that ship were written by `python tools/landlab_reference.py`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch

from lib.flood.solver import LocalInertialSolver
from lib.flood.terrain import real_dem
from lib.validation import one_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Scene = Literal["wet", "drying"]

#: The weights of a face's own discharge for which depths are stored.
THETAS = (1.0, 0.8)


class SharedFlood(NamedTuple):
    """What both codes are given, in m and s: `z` and `h0` (64, 64), `steps` (200,), float64; closed walls."""

    z: NDArray[np.float64]
    h0: NDArray[np.float64]
    rain: float
    steps: NDArray[np.float64]
    dx: float = 30.0
    manning: float = 0.05
    g: float = 9.80665


class LandlabReference(NamedTuple):
    """What landlab found: depths (64, 64) float64 [m] by scene and `theta`, after its time steps (200,) float64 [s]."""

    version: str
    steps: NDArray[np.float64]
    depths: Mapping[tuple[str, float], NDArray[np.float64]]


def shared_flood(scene: Scene) -> SharedFlood:
    """A flood for both codes, on 64 x 64 real elevations that are scaled to a few metres.

    Args:
        scene: `"wet"`: 1 m of water on hills of 0.5 m, and 50 mm of rain an hour; the least depth is 0.7 m. `"drying"`:
            on hills of 5 m, a lake whose level rises by 3.8 m from west to east is let go, so that its east falls dry.

    Examples:
        >>> flood = shared_flood("wet")
        >>> flood.z.shape, float(np.ptp(flood.z)), float(flood.h0.min())
        ((64, 64), 0.5, 1.0)
    """
    one_of("scene", scene, get_args(Scene))
    crop = real_dem().z[100:164, 100:164]
    relief = 0.5 if scene == "wet" else 5.0
    z = (crop - crop.min()) * (relief / np.ptp(crop))
    steps = np.linspace(1.0, 3.0, 200)
    if scene == "wet":
        return SharedFlood(z, np.ones_like(z), 0.05 / 3600, steps)
    level = relief / 3 + 0.06 * (np.arange(64) - 31.5)
    return SharedFlood(z, np.maximum(level - z, 0.0), 0.0, steps)


def solver_like_landlab(theta: float) -> LocalInertialSolver:
    """The solver of this chapter with the choices that landlab made."""
    flood = shared_flood("wet")
    return LocalInertialSolver(
        dx=flood.dx, manning=flood.manning, g=flood.g, theta=theta, friction="component", edge="mirror", limiter=False
    )


@lru_cache(maxsize=1)
def landlab_reference() -> LandlabReference:
    """The depths that ship with the package.

    Examples:
        >>> reference = landlab_reference()
        >>> reference.version, len(reference.steps), sorted(reference.depths)
        ('2.11.0', 200, [('drying', 0.8), ('drying', 1.0), ('wet', 0.8), ('wet', 1.0)])
    """
    with as_file(files("lib") / "data" / "landlab_runs.npz") as place, np.load(place) as stored:
        depths = {(scene, theta): stored[f"{scene}/{theta}"] for scene in get_args(Scene) for theta in THETAS}
        return LandlabReference(str(stored["version"]), stored["steps"], depths)


def compare_with_landlab(
    reference: LandlabReference, theta: float, scene: Scene = "wet", *, solver: LocalInertialSolver | None = None
) -> float:
    """Largest difference [m] between landlab's depths and ours after the same time steps, in float64.

    Args:
        reference: Stored or fresh depths of landlab.
        theta, scene: One of the pairs in the reference.
        solver: Another than `solver_like_landlab(theta)`, to see how far a change takes it from landlab.

    Examples:
        >>> reference = landlab_reference()
        >>> compare_with_landlab(reference, 0.8) < 1e-12
        True
    """
    if (scene, theta) not in reference.depths:
        known = ", ".join(f"{name!r} with {value}" for name, value in reference.depths)
        raise ValueError(f"scene and theta must be among {known}; they are {scene!r} with {theta}")
    solver = solver_like_landlab(theta) if solver is None else solver
    flood = shared_flood(scene)
    z = torch.from_numpy(flood.z)
    state = solver.initial_state(z, torch.from_numpy(flood.h0))
    for dt in reference.steps:
        state = solver.step(z, state, float(dt), rain=flood.rain)
    return float((state.h - torch.from_numpy(reference.depths[scene, theta])).abs().max())
