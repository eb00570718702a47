"""The live figures of chapter 10."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.colors import to_rgb
from scipy import ndimage

from lib.explorer import (
    Choice,
    Data,
    Explorer,
    Key,
    Panel,
    Slider,
    Toggle,
    Trace,
    axis,
    bars,
    dots,
    heatmap,
    line,
    swatch,
)
from lib.flood.boundaries import Boundary
from lib.flood.compiled import run
from lib.flood.exact import planar_wave
from lib.flood.experiment import SHIPPED, trained_network
from lib.flood.faces import BOUNDS
from lib.flood.learning import coarse_floods
from lib.flood.maps import hillshade
from lib.flood.metrics import flood_metrics
from lib.flood.scenarios import CELL, FloodDataset, Kind, draw_floods, solution_cache
from lib.flood.solver import LocalInertialSolver
from lib.flood.terrain import real_dem
from lib.style import COLOURS, DIVERGING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["BreakTheDike", "GradientMap", "SameFlood", "ThreeSettings"]

_MM_PER_HOUR = 1e-3 / 3600
_NOW: dict[str, Any] = {"color": "black", "dash": "dash", "width": 1.5}

#: Depths [m] at which a new colour begins; less than the first is drawn as ground.
_DEPTHS = (0.05, 0.2, 0.5, 1.0, 1.5, 2.5)
_WATER = ("#C6E2F2", "#8CC5E5", COLOURS["sky"], "#1F86C4", "#005A94", "#00345C")
_GROUND, _WALL = "#D5D6B8", "#B4763A"

#: Tones from shadow to light of the ground, the wall and each class of depth: together all values of a byte.
_TONES = 32


def _painted(
    shade: Array, wall: NDArray[np.bool_], depth: NDArray[np.floating], classes: tuple[float, ...] = _DEPTHS
) -> NDArray[np.uint8]:
    """Ground, wall or class of depth (quotient by 32), and how bright the sun makes it (rest), for `_painted_map`."""
    water = np.searchsorted(classes, depth, side="right")
    kind = np.where(water > 0, 1 + water, wall)
    return np.asarray(_TONES * kind + np.rint((_TONES - 1) * shade), dtype=np.uint8)


def _painted_scale() -> list[list[Any]]:
    """A colour scale that runs from shadow to light for the ground, the wall and each class of depth."""
    colours = (_GROUND, _WALL, *_WATER)
    scale: list[list[Any]] = []
    for kind, colour in enumerate(colours):
        rgb = np.array(to_rgb(colour))
        relief = 0.4 if kind < 2 else 0.2  # water hides some of it
        for end, tone in ((0, rgb * (1 - relief)), (_TONES - 1, rgb + (1 - rgb) * relief)):
            red, green, blue = (round(255 * part) for part in tone.tolist())
            scale.append([(_TONES * kind + end) / (_TONES * len(colours) - 1), f"rgb({red}, {green}, {blue})"])
    return scale


def _painted_map(name: str, place: str, **where: Any) -> Trace:
    """A map of what `_painted` gives; `customdata` is the depth that a pointer is told, behind the place."""
    highest = _TONES * (2 + len(_WATER)) - 1
    return heatmap(name, _painted_scale(), 0, highest, hover=f"{place}%{{customdata:.2f}} m of water", **where)


def _class_names(classes: tuple[float, ...]) -> list[str]:
    """What the legend says of the colours of water."""
    below = [f"{low:g}–{high:g} m" for low, high in itertools.pairwise(classes)]
    return [*below, f"over {classes[-1]:g} m"]


_SIDE, _DX = 64, 24.0
_MINUTES = 20
_ON_VALLEY = {axis: (np.arange(_SIDE) + 0.5) * _DX for axis in "xy"}
_MINUTES_AT = np.arange(_MINUTES + 1)
_DIKE, _INLET, _VILLAGE = slice(22, 24), slice(24, 40), (34, 34)
#: Metres to the north of the inlet's ends, to the east and to the north of the village.
_INLET_ENDS = ((_SIDE - _INLET.stop) * _DX, (_SIDE - _INLET.start) * _DX)
_VILLAGE_AT = ((_VILLAGE[1] + 0.5) * _DX, (_SIDE - _VILLAGE[0] - 0.5) * _DX)
_TIME_AXIS = axis("time [minutes]", (0, _MINUTES + 0.4), tickvals=[0, 5, 10, 15, 20])


@lru_cache(maxsize=1)
def _valley() -> tuple[Array, Array]:
    """A valley that falls gently to the east, with a metre of real relief (64, 64) [m], and its shade."""
    row, column = np.mgrid[:_SIDE, :_SIDE]
    relief = ndimage.gaussian_filter(real_dem().z[100:164, 20:84], 1.5)
    relief = (relief - relief.min()) / np.ptp(relief)
    across = (row - (_SIDE - 1) / 2) / (_SIDE / 2)
    z = 1.2 * relief + 3.5 * across**2 - 0.0015 * _DX * column
    return z, hillshade(z, _DX)


@lru_cache(maxsize=128)
def _dike_flood(
    width: int, height: float, position: int, rain: float, inflow: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Depths (21, 64, 64) [m], one per minute, and where the dike stands (64, 64)."""
    wall = np.zeros((_SIDE, _SIDE), dtype=bool)
    wall[:, _DIKE] = height > 0
    first = position - width // 2
    wall[max(first, 0) : max(first + width, 0), _DIKE] = False
    z = _valley()[0] + height * wall
    west = torch.zeros(_SIDE)
    west[_INLET] = inflow
    result = LocalInertialSolver(dx=_DX, manning=0.035).simulate(
        torch.from_numpy(z - z.mean()).float(),
        60.0 * _MINUTES,
        rain=rain * _MM_PER_HOUR,
        boundary=Boundary({"west": west}, {"east": 0.001}),
        save_times=[60.0 * minute for minute in range(_MINUTES + 1)],
        backend="compiled",
    )
    assert result.history is not None
    return result.history.numpy(), wall


class BreakTheDike(Explorer):
    """A flood against a dike with a breach: a real run for each setting, and its film."""

    name = "break_the_dike"
    title = "A dike across a valley, and a gap in it"
    caption = (
        "Left: water comes in along the blue line in the west and as rain; what passes the dike (brown) reaches the "
        "village (red) and leaves in the east. Blue: depth of water, from 5 cm. Middle: depth in the village. Right: "
        "how much of the water on the map is east of the dike. Each setting is a new run of the solver on 64 x 64 "
        "cells of 24 m; time only leafs through it, and the play button does so by itself."
    )
    declared = {
        "width": Slider("breach width (cells)", 0, 12, 1, 5),
        "height": Slider("height of the dike (m)", 0.0, 4.0, 0.25, 2.5, format=".2f"),
        "position": Slider("breach position (row)", 6, 57, 1, 28),
        "rain": Slider("rain (mm/h)", 0, 150, 5, 30),
        "inflow": Slider("inflow (m²/s)", 0.0, 2.0, 0.1, 1.0, format=".1f"),
        "time": Slider("time (minutes)", 0, _MINUTES, 1, 17),
    }
    played = "time"

    figure_layout = {"height": 480, "margin": {"b": 120}}
    panels = (
        Panel(
            "after {time} minutes",
            axis("metres to the east", (0, _SIDE * _DX)),
            axis("metres to the north", (0, _SIDE * _DX)),
            width=0.56,
            equal=True,
        ),
        Panel("village: {village_now:.2f} m", _TIME_AXIS, axis("depth [m]", Key("depths")), width=0.22),
        Panel("east: {share_now:.0%}", _TIME_AXIS, axis("share of the water", (0, 1)), width=0.22),
    )
    traces = (
        _painted_map("map", "%{x:.0f} m east, %{y:.0f} m north: ", z="map", customdata="shown_depth", **_ON_VALLEY),
        line("inflow", "blue", width=6, legend=False, hover=False, x=(4.0, 4.0), y=_INLET_ENDS),
        dots("village", "vermilion", size=12, symbol="diamond", hover=False, x=_VILLAGE_AT[:1], y=_VILLAGE_AT[1:]),
        line("village", "vermilion", legend=False, panel=2, x=_MINUTES_AT, y="village"),
        line("now", **_NOW, panel=2, x="time", y="depths"),
        line("east", "green", legend=False, panel=3, x=_MINUTES_AT, y="share"),
        line("now", **_NOW, legend=False, panel=3, x="time", y=(0, 1)),
        *(swatch(name, colour) for name, colour in zip(_class_names(_DEPTHS), _WATER, strict=True)),
    )

    def compute(self, *, width: int, height: float, position: int, rain: int, inflow: float, time: int) -> Data:
        """A remembered run, of which the time chooses a frame."""
        frames, wall = _dike_flood(width, round(height, 3), position, rain, round(inflow, 3))
        total = frames.sum(axis=(1, 2), dtype=np.float64)
        east = frames[:, :, _DIKE.stop :].sum(axis=(1, 2), dtype=np.float64)
        village = frames[:, *_VILLAGE].astype(np.float64)
        share = np.divide(east, total, out=np.zeros_like(east), where=total > 0)
        return {
            "map": _painted(_valley()[1], wall, frames[time])[::-1],
            "depth": frames[time][::-1],
            "shown_depth": frames[time][::-1].round(2),
            "village": village,
            "village_now": village[time],
            "depths": np.array([0.0, max(0.5, 1.1 * float(village.max()))]),
            "share": share,
            "share_now": share[time],
            "time": time,
        }


# below 0.3 nothing happens, and runs are long
_ALPHAS = np.linspace(0.3, 1.0, 15).round(2)
_FLOORS = 10.0 ** np.linspace(-5, -1, 17)
_PLANAR, _RAIN, _BASIN = "planar wave", "rain on dry land", "two-cell waves in deep water"
_CELLS, _CELL = 100, 30.0
_UNBOUNDED = 1e3


def _planar_case(alpha: float, theta: float, floor: float) -> tuple[Array, int]:
    """Depths [m] (100,) of a wave that runs over level ground for half an hour, and the number of steps."""
    minute, speed, manning, h_dry, g = 60.0, 1.0, 0.03, 1e-5, 9.80665
    h, qx, qy = np.zeros((1, _CELLS)), np.zeros((1, _CELLS + 1)), np.zeros((2, _CELLS))
    still, dry, sides = np.zeros((1, _CELLS)), np.zeros((1, _CELLS)), np.zeros((4, 2, _CELLS))
    flags = (True, False, True, True)  # friction by the vector, edges replicated, limiter, open sides
    settings = (_CELL, g, manning, theta, h_dry, alpha, floor, np.inf, 0.0)
    steps = 0
    # the inflow grows from minute to minute; `simulate` would look at all its inputs anew for each
    for start in range(30):
        west = planar_wave(0.0, minute * (start + 0.5), speed, manning, model="local_inertial")
        sides[0, 0, 0] = speed * west
        done, time, qx, qy = run(
            still, h, qx, qy, None, dry, sides, flags, settings, BOUNDS,
            np.array([minute]), np.empty((1, 1, _CELLS)), np.zeros(2),
        )  # fmt: skip
        steps += done
        if np.isnan(time):
            break
    return h[0], steps


@lru_cache(maxsize=64)
def _rain_case(alpha: float, theta: float, floor: float, *, limiter: bool = False) -> tuple[Array, int]:
    """Depths [m] (100,) after half an hour of rain on a dry hillside 5 m high, and the number of steps."""
    z = ndimage.gaussian_filter1d(real_dem().z[120, 20:120], 8)
    hillside = torch.from_numpy((z - z.min()) * (5.0 / np.ptp(z)))[None]
    solver = LocalInertialSolver(dx=_CELL, alpha=alpha, theta=theta, h_cfl_min=floor, limiter=limiter)
    result = solver.simulate(hillside, 1800.0, rain=20 * _MM_PER_HOUR, backend="compiled")
    return result.h[0].numpy(), int(result.steps)


def _basin_case(alpha: float, theta: float, floor: float) -> tuple[Array, int]:
    """Depths [m] (24, 24) after about thirty steps from water of 20 m with a millimetre of noise, and the steps."""
    depth, cell = 20.0, 10.0
    noise = torch.from_numpy(np.random.default_rng(0).uniform(-1e-3, 1e-3, (24, 24)))
    solver = LocalInertialSolver(dx=cell, manning=0.03, alpha=alpha, theta=theta, h_cfl_min=floor)
    # half a step less: noise makes the first steps a little shorter
    duration = 29.5 * alpha * cell / float(np.sqrt(solver.g * depth))
    result = solver.simulate(torch.zeros(24, 24, dtype=torch.float64), duration, h0=depth + noise, backend="compiled")
    return result.h.numpy(), int(result.steps)


@lru_cache(maxsize=1024)
def _case(case: str, alpha: float, theta: float, floor: float) -> dict[str, Any]:
    """The end of a run: depths [m] along a line, what they should be, the largest error, the smallest depth, steps."""
    run_case = _planar_case if case == _PLANAR else _rain_case if case == _RAIN else _basin_case
    found, steps = run_case(alpha, theta, floor)
    # where a run has left all bounds a kilometre of water is drawn
    depth = np.nan_to_num(found, nan=_UNBOUNDED).clip(-_UNBOUNDED, _UNBOUNDED)
    if case == _PLANAR:
        centres = (np.arange(_CELLS) + 0.5) * _CELL
        shown, exact = depth, planar_wave(centres, 1800.0, 1.0, 0.03, model="local_inertial")
        # the front itself is a jump, which no grid of cells can follow
        wrong = (depth - exact)[centres < 1500]
        heights = [-0.5, 3.0]
    elif case == _RAIN:
        shown, exact = depth, _rain_case(0.1, 0.7, 0.1, limiter=True)[0]  # by steps that are short enough
        wrong = depth - exact
        heights = [np.clip(1.1 * depth.min(), -1.0, -0.02), np.clip(1.1 * depth.max(), 0.05, 1.0)]
    else:
        wrong = depth - depth.mean()
        shown, exact = wrong[12], np.zeros(24)
        top = np.clip(1.1 * np.abs(shown).max(), 0.02, 20.0)
        heights = [-top, top]
    return {
        "depth": shown,
        "exact": exact,
        "error": float(np.abs(wrong).max()),
        "smallest": float(depth.min()),
        "steps": steps,
        "heights": [float(height) for height in heights],
    }


class ThreeSettings(Explorer):
    """The settings of the scheme, and where each of them breaks it."""

    name = "theta_alpha_floor"
    title = "Three settings of the solver, and three ways to break it"
    caption = (
        "Left: depth at the end of a run (blue) and as it should be (dashed). Right: the largest error for every "
        "value of the setting that matters in this case, and the present one (dot). Waves of two cells grow to the "
        "right of the dotted line: at α = √θ where all flow is along one axis, at √(θ/2) on a map. Time steps "
        "follow from the largest depth, but no less than the floor: with a small one the first steps of rain on dry "
        "land, which runs without the limiter here, are so long that cells give more water than they have."
    )
    declared = {
        "alpha": Slider("α: part of the CFL step", 0.1, 1.0, 0.05, 0.8, format=".2f"),
        "theta": Slider("θ: weight of a face", 0.5, 1.0, 0.05, 0.7, format=".2f"),
        "floor": Slider("depth floor (m)", -5, -1, 0.25, 0.01, log=True),
        "case": Choice("case", (_PLANAR, _RAIN, _BASIN), _PLANAR),
    }
    may_be_absent = ("limit", "limit_ends")

    figure_layout = {"height": 440}
    panels = (
        Panel("{what}", axis("distance [m]", Key("places")), axis("{height}", Key("heights")), width=0.55),
        Panel(
            "{verdict}",
            axis("{setting_name}", Key("settings"), type=Key("setting_scale")),
            axis("largest error [m]", Key("error_range"), log=True, dtick=1, exponentformat="power"),
            width=0.45,
        ),
    )
    traces = (
        line("solver", "blue", x="x", y="depth"),
        line("as it should be", **_NOW, x="x", y="exact"),
        line("largest error", "vermilion", mode="lines+markers", marker_size=5, panel=2, x="setting", y="errors"),
        line("limit of α", "grey", dash="dot", width=2, panel=2, x="limit", y="limit_ends"),
        dots("here", "black", size=11, legend=False, panel=2, x="here", y="error"),
    )

    def compute(self, alpha: float, theta: float, floor: float, case: str) -> Data:
        """A few milliseconds of solver for each point of the right curve, remembered."""
        alpha, theta = round(alpha, 2), round(theta, 2)
        floor = float(10 ** (round(4 * math.log10(floor)) / 4))
        found, rain = _case(case, alpha, theta, floor), case == _RAIN
        count, cell = len(found["depth"]), 10.0 if case == _BASIN else _CELL
        unbounded = np.abs(found["depth"]).max() == _UNBOUNDED
        low, high = {_PLANAR: (-2.5, 2), _RAIN: (-4, 0), _BASIN: (-4, 2)}[case]
        setting = _FLOORS if rain else _ALPHAS
        around = [_case(case, *((alpha, theta, each) if rain else (each, theta, floor))) for each in setting.tolist()]
        first_step = alpha * _CELL / float(np.sqrt(9.80665 * floor))
        limit = float(np.sqrt(theta if case == _PLANAR else theta / 2))
        side, name = "above" if alpha > limit else "below", "√θ" if case == _PLANAR else "√(θ/2)"
        return found | {
            "x": (np.arange(count) + 0.5) * cell,
            "places": (0.0, count * cell),
            "height": "depth less its mean [m]" if case == _BASIN else "depth [m]",
            "what": f"{found['steps']} steps"
            + (": the depths have left all bounds" if unbounded else f", smallest depth {found['smallest']:.3g} m"),
            "setting": setting,
            "setting_name": "depth floor in the CFL step [m]" if rain else "α",
            "setting_scale": "log" if rain else "linear",
            "settings": (-5.2, -0.8) if rain else (0.05, 1.05),
            "errors": np.array([each["error"] for each in around]),
            "error_range": (low, high),
            "here": floor if rain else alpha,
            "limit": np.nan if rain else limit,
            "limit_ends": np.full(2, np.nan) if rain else 10.0 ** np.array([low, high]),
            "first_step": first_step,
            "verdict": f"first step {first_step:.0f} s"
            if rain
            else f"α = {alpha:.2f}: {side} the limit {name} = {limit:.2f}",
        }


_PATCH, _PATCH_DX, _PATCH_TIME = 16, 50.0, 900.0
_BANK, _GAP, _CANAL, _PATCH_INLET = 8, slice(9, 11), 5, slice(4, 8)
_PATCH_CELLS = {"x": np.arange(_PATCH), "y": np.arange(_PATCH)}
_FORCINGS = ("inflow from the west", "rain")


def _patch(height: float) -> tuple[Array, NDArray[np.bool_]]:
    """Ground that falls to the east, with a canal, and an embankment with a gap (16, 16) [m]; where that stands."""
    row, column = np.mgrid[:_PATCH, :_PATCH]
    bank = np.zeros((_PATCH, _PATCH), dtype=bool)
    bank[:, _BANK] = height > 0
    bank[_GAP, _BANK] = False
    ground = 0.02 * (row - 7.5) ** 2 - 0.003 * _PATCH_DX * column
    ground[_CANAL, :_BANK] -= 0.6
    return ground + height * bank, bank


@lru_cache(maxsize=8)
def _patch_flood(height: float, forcing: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Bed and depth at the end (16, 16), tied by a graph through all time steps, and their number."""
    z = torch.from_numpy(_patch(height)[0]).requires_grad_()
    west = torch.zeros(_PATCH, dtype=torch.float64)
    west[_PATCH_INLET] = 0.6
    inflow = forcing == _FORCINGS[0]
    result = LocalInertialSolver(dx=_PATCH_DX, h_cfl_min=0.05).simulate(
        z,
        _PATCH_TIME,
        rain=None if inflow else 100 * _MM_PER_HOUR,
        boundary=Boundary({"west": west} if inflow else {}, {"east": 0.002}),
    )
    return z, result.h, int(result.steps)


@lru_cache(maxsize=512)
def _patch_gradient(row: int, column: int, height: float, forcing: str) -> Array:
    """Gradient of the depth at the end in one cell by the bed in every cell (16, 16) [m/m]."""
    z, h, _ = _patch_flood(height, forcing)
    (gradient,) = torch.autograd.grad(h[row, column], z, retain_graph=True)
    return gradient.numpy()


def _patch_marks(panel: int) -> tuple[Trace, ...]:
    """The lines that stand on both maps, and the village."""
    where: dict[str, Any] = {"panel": panel, "legend": panel == 2, "hover": False}
    return (
        line("embankment", _WALL, width=2.5, x="bank_x", y="bank_y", **where),
        line("canal", "black", width=2, dash="dot", x=(-0.5, _BANK - 0.5), y=(_CANAL, _CANAL), **where),
        line("inlet", "blue", width=6, x=(-0.45, -0.45), y="inlet", **where),
        dots("village", "green", size=14, symbol="diamond", x="column", y="row", **where),
    )


class GradientMap(Explorer):
    """Which ground decides how deep the water is in one place: a gradient through the whole flood."""

    name = "gradient_map"
    title = "Where would a little more earth help the village?"
    caption = (
        "Left: the flood after 15 minutes on 16 x 16 cells of 50 m, with an embankment (brown) and its gap, a canal "
        "along the dotted line, and water that enters at the blue line. Right: how much deeper the water in the "
        "village would be for each metre that a cell were higher, by automatic differentiation through every time "
        "step. Red: deeper, blue: shallower, white: no difference. The village's own cell may leave the range of the "
        "colours. A click on a map moves the village."
    )
    declared = {
        "row": Slider("village row", 0, _PATCH - 1, 1, 8, on_release=True),
        "column": Slider("village column", 0, _PATCH - 1, 1, 10, on_release=True),
        "height": Slider("embankment (m)", 0.0, 2.0, 0.25, 0.75, on_release=True, format=".2f"),
        "forcing": Choice("water", _FORCINGS, _FORCINGS[0]),
    }

    may_be_absent = ("bank_x", "bank_y", "inlet")
    clicked = ("column", "row")
    figure_layout = {"height": 430}
    panels = tuple(
        Panel(
            title,
            axis("column, to the east", (-0.5, _PATCH - 0.5), tickvals=[0, 5, 10, 15]),
            axis("row, to the south", (_PATCH - 0.5, -0.5), tickvals=[0, 5, 10, 15]),
            equal=True,
        )
        for title in ("{steps} steps; village {village_depth:.2f} m deep", "{verdict}")
    )
    traces = (
        _painted_map("flood", "row %{y}, column %{x}: ", z="flood", customdata="depth", **_PATCH_CELLS),
        heatmap(
            "gradient",
            DIVERGING,
            -1,
            1,
            hover="row %{y}, column %{x}: %{customdata:.4f} m per m",
            panel=2,
            z="shown",
            customdata="gradient",
            **_PATCH_CELLS,
        ),
        *_patch_marks(1),
        *_patch_marks(2),
    )

    def compute(self, row: int, column: int, height: float, forcing: str) -> Data:
        """One run for each flood and one pass backward for each village, remembered."""
        height = round(height, 3)
        z, bank = _patch(height)
        _, h, steps = _patch_flood(height, forcing)
        depth = h.detach().numpy()
        gradient = _patch_gradient(row, column, height, forcing)
        others = np.abs(gradient)
        others[row, column] = 0.0
        scale = float(others.max()) or 1.0
        west, east, gap = _BANK - 0.5, _BANK + 0.5, np.nan
        boxes = [(-0.5, _GAP.start - 0.5), (_GAP.stop - 0.5, _PATCH - 0.5)]
        bank_y = [place for top, low in boxes for place in (top, top, low, low, top, gap)]
        wet = depth[row, column] > 0
        return {
            "flood": _painted(hillshade(z, _PATCH_DX), bank, depth),
            "depth": depth,
            "gradient": gradient,
            "shown": np.clip(gradient / scale, -1.0, 1.0),
            "row": row,
            "column": column,
            "village_depth": depth[row, column],
            "bank_x": np.array([west, east, east, west, west, gap] * len(boxes)),
            "bank_y": np.array(bank_y) if height > 0 else np.full(len(bank_y), np.nan),
            "inlet": np.array([_PATCH_INLET.start, _PATCH_INLET.stop]) - (0.5 if forcing == _FORCINGS[0] else np.nan),
            "steps": steps,
            "verdict": f"full colour: {scale:.2g} m of water per m of earth"
            if wet
            else "the village is dry: no gradient",
        }


_MAPS = 6
#: Depths [m] at which a new colour begins: blocks of rain water are shallow, rivers deep.
_SHALLOW, _DEEP = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3), _DEPTHS
#: Parts of the figure's width that the three maps and the bars take.
_PLACES = ((0.0, 0.26), (0.295, 0.555), (0.59, 0.85), (0.93, 1.0))
_RAIN_FLOOD, _RIVER_FLOOD = "rain", "river"
_FROM_RAIN, _FROM_BOTH = "rain", "rain and rivers"
_trained = lru_cache(maxsize=4)(trained_network)


@lru_cache(maxsize=2)
def _floods(kind: str) -> FloodDataset:
    """A few floods of the region that no network was trained on."""
    of: Kind = "rain" if kind == _RAIN_FLOOD else "inflow"
    return draw_floods(_MAPS, seed=2, split="test", kind=of, folder=solution_cache())


@lru_cache(maxsize=512)
def _coarse_flood(kind: str, index: int, rule: str, factor: int, relief: float) -> tuple[Array, Array, float, float]:
    """Depths on a coarse map and what they should be [m], the rms error [m], and the success index at 0.1 m.

    `rule` is a pooling, whose relief is multiplied, or the name of a network that ships with the package.
    """
    one = _floods(kind).part(slice(index, index + 1))
    # the map's mean level is zero, so to multiply its heights is to multiply its relief
    flattened = FloodDataset(relief * one.z, one.h, one.forcing)
    how: Any = _trained(rule).model if rule in SHIPPED else rule
    found = coarse_floods(how, flattened, LocalInertialSolver(dx=CELL * factor, h_cfl_min=0.05), factor=factor)
    scores = flood_metrics(found.h, found.truth, thresholds=(0.1,))
    return found.h[0].numpy(), found.truth[0].numpy(), scores["rmse"], scores["csi_0.1"]


@lru_cache(maxsize=12)
def _shaded_plain(kind: str, index: int) -> Array:
    return hillshade(_floods(kind).z[index].numpy(), CELL)


class SameFlood(Explorer):
    """One flood on the fine map, on a pooled one and on a learnt one."""

    name = "same_flood"
    title = "The same flood on three maps"
    caption = (
        "Left: the water on the fine map of 128 x 128 cells, or its mean in each block. Then the water that the same "
        "solver finds on coarse maps: pooled (and, if you like, flattened), and drawn by a network that was trained "
        "through the solver on another region. Right: root mean square error of the depth for this flood (shorter is "
        "better); success is how well the flooded area agrees (critical success index at 0.1 m, 1 is perfect)."
    )
    declared = {
        "relief": Slider("relief of the pooled map", 0.0, 1.2, 0.05, 1.0, format=".2f"),
        "index": Slider("map", 0, _MAPS - 1, 1, 2),
        "flood": Choice("flood", (_RAIN_FLOOD, _RIVER_FLOOD), _RAIN_FLOOD),
        "factor": Choice("factor", ("8", "16"), "16"),
        "pooling": Choice("pooling", ("mean", "max", "min", "median", "nearest"), "mean"),
        "learnt": Choice("learnt from (factor 16)", (_FROM_RAIN, _FROM_BOTH), _FROM_RAIN),
        "means": Toggle("show block means on the left"),
    }

    def __init__(self, **values: Any) -> None:
        for kind in (_RAIN_FLOOD, _RIVER_FLOOD):
            _floods(kind)  # a second or two, once, and not when a control moves
        super().__init__(**values)

    figure_layout = {"height": 430}
    panels = (
        *(
            Panel(
                title,
                axis("metres", (0, 128 * CELL), tickvals=[0, 400, 800]),
                axis("", (0, 128 * CELL), tickvals=[0, 400, 800], showticklabels=not number),
                place=(*_PLACES[number], 0.0, 1.0),
                equal=True,
            )
            for number, title in enumerate(
                ("{left}", "{pooling}: success {success[0]:.2f}", "learnt: success {success[1]:.2f}")
            )
        ),
        Panel(
            "error {change:+.0%}",
            axis("map", tickangle=90),
            axis("rms error [m]", rangemode="tozero", nticks=5),
            place=(*_PLACES[3], 0.0, 1.0),
        ),
    )
    traces = (
        *(
            _painted_map(
                "map", "", panel=number, x=f"{name}_centres", y=f"{name}_centres", z=name, customdata=f"{name}_depth"
            )
            for number, name in enumerate(("fine", "pooled", "drawn"), start=1)
        ),
        bars("error", "grey", "blue", legend=False, panel=4, x="names", y="errors"),
        *(swatch(f"{{class_names[{number}]}}", colour) for number, colour in enumerate(_WATER)),
    )

    def compute(
        self, *, index: int, flood: str, factor: str, pooling: str, relief: float, learnt: str, means: bool
    ) -> Data:
        """The fine flood is there already; the coarse ones take a few milliseconds."""
        width = int(factor)
        name = "rain-factor8" if width == 8 else ("rain" if learnt == _FROM_RAIN else "mixed")
        pooled, truth, pooled_error, pooled_index = _coarse_flood(flood, index, pooling, width, round(relief, 3))
        drawn, _, drawn_error, drawn_index = _coarse_flood(flood, index, name, width, 1.0)
        fine = truth if means else _floods(flood).h[index].numpy()
        classes = _SHALLOW if flood == _RAIN_FLOOD else _DEEP
        data: dict[str, Any] = {}
        for map_name, depth in (("fine", fine), ("pooled", pooled), ("drawn", drawn)):
            side = len(depth)
            shade = _shaded_plain(flood, index) if side == 128 else np.full(depth.shape, 0.7)
            data |= {
                map_name: _painted(shade, np.zeros(depth.shape, dtype=bool), depth, classes)[::-1],
                f"{map_name}_depth": depth[::-1].round(2),
                f"{map_name}_centres": (np.arange(side) + 0.5) * 128 * CELL / side,
            }
        return data | {
            "left": "fine, block means" if means else "fine",
            "pooling": pooling,
            "names": (pooling, "net"),
            "errors": np.array([pooled_error, drawn_error]),
            "change": drawn_error / pooled_error - 1,
            "success": np.array([pooled_index, drawn_index]),
            "class_names": _class_names(classes),
        }
