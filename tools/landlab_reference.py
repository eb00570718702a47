"""Run landlab's OverlandFlow on the floods of lib.flood.claims.peer and write the depths that it finds (chapter 10).

    python tools/landlab_reference.py

Needs the bench extra. landlab is set up such that it solves what our solver does: no thin film is added to the
water, and a frame of closed nodes around the map makes walls. landlab would cut a step above its own CFL step, so all
given steps must be below that.
"""

from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
from landlab import RasterModelGrid
from landlab.components import OverlandFlow

from lib.files import atomic_path
from lib.flood.claims.peer import THETAS, Scene, SharedFlood, shared_flood

TARGET = Path(__file__).resolve().parent.parent / "lib" / "data" / "landlab_runs.npz"


def overland_flow(flood: SharedFlood, theta: float, alpha: float = 1.0) -> OverlandFlow:
    """landlab's component for a flood, at its start; `alpha` is the part of the CFL step that it may take."""
    rows, columns = flood.z.shape
    grid = RasterModelGrid((rows + 2, columns + 2), xy_spacing=flood.dx)
    grid.set_closed_boundaries_at_grid_edges(True, True, True, True)
    for name, values in (("topographic__elevation", flood.z), ("surface_water__depth", flood.h0)):
        grid.add_field(name, np.pad(values, 1).ravel(), at="node")
    return OverlandFlow(
        grid,
        h_init=0.0,
        alpha=alpha,
        mannings_n=flood.manning,
        g=flood.g,
        theta=theta,
        rainfall_intensity=flood.rain,
        steep_slopes=False,
    )


def inner_depths(component: OverlandFlow) -> np.ndarray:
    """Depths (R, C) [m] inside the frame."""
    return component.h.reshape(component.grid.shape)[1:-1, 1:-1].copy()


def landlab_depths(scene: Scene, theta: float) -> np.ndarray:
    """Depths (64, 64) [m] at the end of a flood."""
    flood = shared_flood(scene)
    component = overland_flow(flood, theta)
    for dt in flood.steps:
        if component.calc_time_step() < dt:
            raise RuntimeError(f"landlab would cut a step of {dt} s to {component.calc_time_step()} s")
        component.run_one_step(dt=dt)
    return inner_depths(component)


def main() -> None:
    """Write the file."""
    depths = {f"{scene}/{theta}": landlab_depths(scene, theta) for scene in get_args(Scene) for theta in THETAS}
    with atomic_path(TARGET) as temporary:
        np.savez_compressed(temporary, version=version("landlab"), steps=shared_flood("wet").steps, **depths)


if __name__ == "__main__":
    main()
