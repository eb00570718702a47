"""The live figures of chapter 02."""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.edge_of_stability.flow_solution import gfs_sharpness, gradient_flow_solution
from lib.edge_of_stability.scalar_network import balances, loss, sharpness
from lib.edge_of_stability.trajectories import MONOTONE_LIMIT, gd_path, gfs_or_nan
from lib.explorer import Choice, Data, Explorer, Key, Panel, Slider, Try, axis, dots, heatmap, line, swatch
from lib.style import COLOURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["CobwebExplorer", "MonitorReplay", "PhaseMapExplorer", "ScalarLab"]

_EDGE: dict[str, Any] = {"color": "black", "dash": "dash", "width": 1.5}


def _weights(depth: int, imbalance: float, product: float) -> Array:
    """Weights evenly spaced in their logarithm, `exp(imbalance)` above and below the middle, with a given product."""
    spread = np.exp(imbalance * np.linspace(-1, 1, depth))
    return np.asarray(spread * (product / spread.prod()) ** (1 / depth))


class ScalarLab(Explorer):
    """One run of gradient descent on a scalar network, seen from three sides."""

    name = "scalar_lab"
    may_be_absent = ("gfs", "gfs_last")
    title = "The edge of stability in a product of a few numbers"
    caption = (
        "Left: the loss of gradient descent. Middle: the sharpness where it stands, times η. Right: the sharpness of "
        "the point that gradient flow would reach from there, times η. Dashed: 2, the edge of stability. "
        "Dotted: 2√2; from below it, with weights that stay positive, the right curve can only fall."
    )
    declared = {
        "eta_phi": Slider("step size: ηφ at the start", 0.5, 4.0, 0.02, 1.8, format=".2f"),
        "depth": Slider("number of weights D", 2, 10, 1, 4),
        "imbalance": Slider("imbalance of the weights", 0.0, 2.0, 0.05, 1.0, format=".2f"),
        "product": Slider("product at the start", 0.1, 1.5, 0.05, 0.9, format=".2f"),
        "steps": Slider("steps", 100, 3000, 100, 100),
    }

    panels = (
        Panel(
            "loss: {verdict}",
            axis("step", Key("ends")),
            axis("loss", (-12.5, 1.5), log=True, dtick=2, exponentformat="power"),
        ),
        Panel("η × sharpness", axis("step", Key("ends")), axis("η × sharpness", (0, 6))),
        Panel("η × φ: {landing}", axis("step", Key("ends")), axis("η × φ", (0, 4.2))),
    )
    traces = (
        line("loss", "blue", width=1.5, x="step", y="loss"),
        line("η × sharpness of the weights", "vermilion", width=1.5, panel=2, x="seen", y="sharpness"),
        line("η × φ, of the flow solution", "green", width=1.5, panel=3, x="step", y="gfs"),
        line("2: the edge", **_EDGE, legend=False, panel=2, x="ends", y=(2.0, 2.0)),
        line("2: the edge", **_EDGE, panel=3, x="ends", y=(2.0, 2.0)),
        line("2√2", "grey", dash="dot", width=1.5, panel=3, x="ends", y=(MONOTONE_LIMIT, MONOTONE_LIMIT)),
    )

    tries = (
        Try(
            "20 % too large",
            {"eta_phi": 2.4},
            "The loss rises {rises} times, ηφ falls at every step, from {gfs_first:.2f} to {gfs_last:.2f}, and descent "
            "comes to rest.",
            lambda data: data["rises"] > 10 and bool((np.diff(data["gfs"]) < 1e-9).all()) and data["gfs_last"] < 2,
            not_at={"eta_phi": 1.8},
        ),
        Try(
            "almost 2√2",
            {"eta_phi": 2.8, "steps": 200},
            "The loss rises {rises} times, η × sharpness bounces around 2, and ηφ glides from {gfs_first:.2f} to "
            "{gfs_last:.2f}.",
            lambda data: data["rises"] > 50 and data["gfs_last"] < 2,
            not_at={"eta_phi": 2.8, "imbalance": 0.0, "steps": 200},
        ),
        Try(
            "equal weights",
            {"eta_phi": 2.4, "imbalance": 0.0},
            "There is no flatter minimum to go to: ηφ stays at {gfs_last:.2f}, and the jumps never end.",
            lambda data: data["gfs_last"] > 2.39 and data["rises"] > 40,
            not_at={"eta_phi": 2.4},
        ),
        Try(
            "far too large",
            {"eta_phi": 3.9, "depth": 2, "product": 0.3},
            "Beyond 2√2 nothing is promised: φ goes up, and descent flies away.",
            lambda data: data["verdict"] == "diverged" and data["gfs_last"] > data["gfs_first"],
            not_at={"eta_phi": 2.8, "depth": 2, "product": 0.3},
        ),
    )

    def compute(self, eta_phi: float, depth: int, imbalance: float, product: float, steps: int) -> Data:
        """Plain floats for the run, one call for all flow solutions, eigenvalues at up to 200 steps."""
        start = _weights(depth, imbalance, product)
        eta = eta_phi / float(gfs_sharpness(start))
        path, diverged = gd_path(start, eta, steps)
        stride = max(1, steps // 200) | 1  # odd: a stride of two would hide a zig-zag of period two
        gfs = gfs_or_nan(path)  # a run that diverges may pass a point from which flow ends nowhere: a gap in the curve
        values = loss(path)
        rises = int((np.diff(values) > 1e-28).sum())
        return {
            "step": np.arange(steps + 1),
            "loss": np.maximum(values, 1e-17),
            "ends": np.array([0.0, steps]),
            "verdict": "diverged" if diverged else f"{rises} rises",
            "rises": rises,
            "seen": np.arange(0, steps + 1, stride),
            "sharpness": np.minimum(eta * sharpness(path[::stride]), 1e3),
            "gfs": eta * gfs,
            "gfs_first": eta * gfs[0],
            "gfs_last": eta * gfs[-1],
            "landing": f"{eta * gfs[0]:.2f} → " + (f"{eta * gfs[-1]:.2f}" if eta * gfs[-1] < 100 else "∞"),
            "converged": bool(values[-1] < 1e-12),
        }


_LARGEST = 3.0
_OUTCOME_COLOURS = (COLOURS["sky"], COLOURS["orange"], "#D9D9D9", COLOURS["black"], COLOURS["green"])
_OUTCOME_NAMES = ("converges, weights positive", "cycle of two", "a weight changes sign", "diverges", "still moving")


@lru_cache(maxsize=256)
def _map(eta: float, size: int) -> tuple[Array, NDArray[np.uint8]]:
    """Outcomes over the square of starts; `size` starts a side."""
    from lib.edge_of_stability.phase_map import phase_map

    axis = (np.arange(size) + 0.5) * _LARGEST / size
    w1, w2 = np.meshgrid(axis, axis)
    return axis, phase_map(w1, w2, eta)


def _hyperbolas(phi: float) -> Array:
    """Points (n, 2) where the flow solution has this sharpness: `|w1^2 - w2^2| = sqrt(phi^2 - 4)`, two branches."""
    x = np.linspace(0, _LARGEST, 60)
    if phi < 2:  # no minimum is that flat
        return np.full((3, 2), np.nan)
    far = np.sqrt(x**2 + math.sqrt(phi**2 - 4))
    gap = [np.nan]
    return np.column_stack([np.concatenate([x, gap, far]), np.concatenate([far, gap, x])])


def _outcome_scale() -> list[list[float | str]]:
    """Plotly's colour scale with one colour for each outcome."""
    levels = len(_OUTCOME_COLOURS)
    return [[(i + end) / levels, colour] for i, colour in enumerate(_OUTCOME_COLOURS) for end in (0, 1)]


_MINIMA_AT = np.linspace(1 / _LARGEST, _LARGEST, 60)


class PhaseMapExplorer(Explorer):
    """Where gradient descent ends from every start of the plane."""

    name = "phase_map"
    may_be_absent = ("edge", "limit")
    coarse_while_moving = True
    title = "Where does gradient descent end? Every point is a start (w₁, w₂)"
    caption = (
        "Colours: what 200 steps lead to. Black line: the minima w₁w₂ = 1. Dashed: ηφ = 2 and dotted: ηφ = 2√2; "
        "between the two branches of a line φ is smaller. White: the first 60 steps from the start that you choose "
        "by a click or by the sliders. The map is coarse while a slider moves and fine when it rests."
    )
    declared = {
        "eta": Slider("step size η", 0.1, 1.3, 0.01, 0.5, format=".2f"),
        "w1": Slider("start w₁", 0.05, 3.0, 0.05, 1.2, format=".2f"),
        "w2": Slider("start w₂", 0.05, 3.0, 0.05, 0.5, format=".2f"),
    }

    clicked = ("w1", "w2")
    figure_layout = {"height": 520, "margin": {"b": 130}}
    panels = (
        Panel(
            "outcome by start, 2/η = {two_over_eta:.2f}",
            axis("w<sub>1</sub>", (0, _LARGEST)),
            axis("w<sub>2</sub>", (0, _LARGEST)),
            width=0.55,
            equal=True,
        ),
        Panel(
            "the path, ηφ = {eta_phi:.2f} at its start",
            axis("step", (0, 60)),
            axis("product w<sub>1</sub>w<sub>2</sub>", (-0.5, 2.5)),
            width=0.45,
        ),
    )
    traces = (
        heatmap("outcome", _outcome_scale(), -0.5, len(_OUTCOME_NAMES) - 0.5, x="axis", y="axis", z="outcome"),
        line("minima w₁w₂ = 1", "black", width=3, hover=False, x=_MINIMA_AT, y=1 / _MINIMA_AT),
        line("ηφ = 2", "black", dash="dash", width=2, hover=False, xy="edge"),
        line("ηφ = 2√2", "black", dash="dot", width=2, hover=False, xy="limit"),
        line("descent", "white", mode="lines+markers", width=1.5, marker_size=5, legend=False, hover=False, xy="path"),
        dots("start", "vermilion", size=13, hover=False, xy="start"),
        line(
            "w₁w₂ along the path", "blue", mode="lines+markers", marker_size=5, panel=2, x=np.arange(61), y="products"
        ),
        *(swatch(name, colour) for name, colour in zip(_OUTCOME_NAMES, _OUTCOME_COLOURS, strict=True)),
    )

    tries = (
        Try(
            "η = 0.9",
            {"eta": 0.9},
            "{converging:.0f} % of the starts converge with positive weights; at η = 0.5 it was 44 %.",
            lambda data: 20 < data["converging"] < 35,
            not_at={"eta": 0.5},
        ),
        Try(
            "η = 1.1",
            {"eta": 1.1},
            "No start converges with positive weights: every minimum is too sharp. Cycles of two appear instead.",
            lambda data: data["converging"] == 0 and bool((data["outcome"] == 1).any()),
            not_at={"eta": 0.9},
        ),
        Try(
            "a sharp start",
            {"w1": 2.1, "w2": 0.4},
            "The path zig-zags inwards from outside of the dashed lines, ηφ = {eta_phi:.2f}, and comes to rest between "
            "them, ηφ = {eta_phi_last:.2f}.",
            lambda data: data["eta_phi"] > 2 > data["eta_phi_last"] and abs(data["products"][-1] - 1) < 1e-3,
            not_at={"w1": 1.2, "w2": 0.8},
        ),
    )

    def compute(self, eta: float, w1: float, w2: float, *, fine: bool = True) -> Data:
        """A remembered map, coarse while a slider moves; hyperbolas in closed form; one short run."""
        axis, outcome = _map(round(eta, 4), 200 if fine else 80)
        path, _ = gd_path([w1, w2], eta, 60)
        return {
            "axis": axis,
            "outcome": outcome,
            "edge": _hyperbolas(2 / eta),
            "limit": _hyperbolas(MONOTONE_LIMIT / eta),
            "path": path,
            "start": path[0],
            "products": np.clip(path.prod(axis=1), -10.0, 10.0),
            "two_over_eta": 2 / eta,
            "eta_phi": eta * float(np.hypot(w1**2 - w2**2, 2.0)),
            "eta_phi_last": eta * float(np.hypot(path[-1, 0] ** 2 - path[-1, 1] ** 2, 2.0)),
            "converging": 100 * float((outcome == 0).mean()),
        }


_LEVELS = np.linspace(1.5, 3.0, 151)
_HEIGHTS = np.linspace(0.0, 1.6, 101)


@lru_cache(maxsize=64)
def _frozen(depth: int, imbalance: float) -> tuple[Array, Array, float]:
    """Balances, a table of weights over the product, and the sharpness of the minimum, for frozen balances.

    The table runs over c, of which the product is a closed form; rows are (product, c).
    """
    minimum = gradient_flow_solution(_weights(depth, imbalance, 1.0))
    b = balances(minimum)
    c = np.logspace(-9, 2, 4000)
    table = np.stack([np.sqrt((c[:, None] + b).prod(axis=1)), c])
    return b, table, float(gfs_sharpness(minimum))


def _next_product(product: Array, eta: Array | float, b: Array, table: Array) -> Array:
    """One step of descent from weights with these products and the frozen balances; NaN once it is not positive."""
    c = np.exp(np.interp(np.log(product), np.log(table[0]), np.log(table[1])))
    pull = eta * (product - 1) * product
    result = np.ones_like(product)
    for each in b:
        weight = np.sqrt(c + each)
        result = result * (weight - pull / weight)
    return np.where(result > 0, result, np.nan)


@lru_cache(maxsize=64)
def _bifurcation(depth: int, imbalance: float) -> Array:
    """Where the product settles: how often each height was visited in the last 60 of 300 steps, for each step size."""
    b, table, phi = _frozen(depth, imbalance)
    product = np.full(len(_LEVELS), 0.9)
    visits = np.zeros((len(_HEIGHTS), len(_LEVELS)))
    for step in range(300):
        product = _next_product(product, _LEVELS / phi, b, table)
        if step >= 240:
            stays = np.flatnonzero(np.isfinite(product))
            rows = np.rint(product[stays] / _HEIGHTS[1]).astype(int).clip(0, len(_HEIGHTS) - 1)
            visits[rows, stays] += 1
    return np.asarray(np.minimum(visits / 4, 1.0))


class CobwebExplorer(Explorer):
    """Gradient descent with frozen balances: a map of the product alone."""

    name = "cobweb"
    title = "Freeze the balances, and descent is a map of one number"
    caption = (
        "Left: the product after a step over the product before it (blue), and sixty steps as a cobweb between the map "
        "and the diagonal; it ends where a product would not be positive. Right: where the product settles, over ηφ "
        "(darker: visited more often); the vertical line is the present ηφ. "
        "The slope at p = 1 is 1 − ηφ: below −1 the fixed point repels."
    )
    declared = {
        "eta_phi": Slider("ηφ", 1.5, 3.0, 0.01, 1.7, format=".2f"),
        "start": Slider("product at the start", 0.3, 1.4, 0.05, 0.8, format=".2f"),
        "depth": Slider("number of weights D", 2, 6, 1, 3),
        "imbalance": Slider("imbalance of the weights", 0.0, 1.2, 0.05, 0.35, format=".2f"),
    }

    figure_layout = {"height": 440}
    panels = (
        Panel(
            "the map, slope {slope:.2f} at p = 1{ending}", axis("product p", (0, 1.6)), axis("next product", (0, 1.6))
        ),
        Panel("where it settles", axis("ηφ", (1.5, 3.0)), axis("product p", (0, 1.6))),
    )
    traces = (
        line("next product", "blue", x="x", y="y"),
        line("no change", "grey", dash="dash", x=(0.0, 1.6), y=(0.0, 1.6)),
        line("sixty steps", "vermilion", width=1, xy="web"),
        dots("start", "vermilion", size=10, xy="start"),
        heatmap(
            "settled products",
            [[0, "#FFFFFF"], [1, COLOURS["blue"]]],
            0,
            1,
            panel=2,
            x=_LEVELS,
            y=_HEIGHTS,
            z="settled",
        ),
        line("here", **_EDGE, panel=2, x="eta_phi", y=(0.0, 1.6)),
    )

    tries = (
        Try(
            "ηφ = 1.9",
            {"eta_phi": 1.9},
            "The web winds into the fixed point.",
            lambda data: data["period"] == 1,
            not_at={"eta_phi": 2.1},
        ),
        Try(
            "ηφ = 2.3",
            {"eta_phi": 2.3},
            "The product jumps between two values.",
            lambda data: data["period"] == 2,
            not_at={"eta_phi": 1.9},
        ),
        Try(
            "ηφ = 2.6",
            {"eta_phi": 2.6},
            "Four values: the period has doubled again.",
            lambda data: data["period"] == 4,
            not_at={"eta_phi": 2.3},
        ),
    )

    def compute(self, eta_phi: float, start: float, depth: int, imbalance: float) -> Data:
        """A table of weights over products, remembered for each set of balances."""
        b, table, phi = _frozen(depth, round(imbalance, 3))
        eta = eta_phi / phi
        x = np.linspace(0.02, 1.6, 150)
        y = _next_product(x, eta, b, table)
        products = [start]
        while len(products) < 60:
            following = float(_next_product(np.array([products[-1]]), eta, b, table)[0])
            if not following > 0:
                break
            products.append(following)
        orbit = np.array(products)
        web = np.column_stack([np.repeat(orbit, 2)[:-1], np.repeat(orbit, 2)[1:]])
        web[0, 1] = 0.0 if len(orbit) == 1 else orbit[0]
        inside = np.isfinite(y)
        return {
            "x": x[inside],
            "y": y[inside],
            "web": web,
            "start": web[0],
            "settled": _bifurcation(depth, round(imbalance, 3)),
            "period": len(np.unique(orbit[-8:].round(2))),
            "slope": 1 - eta_phi,
            "eta_phi": eta_phi,
            "ending": "; it leaves the positive products" if len(orbit) < 60 else "",
        }


@lru_cache(maxsize=1)
def _recorded() -> dict[str, Array]:
    """Runs that ship with the package; `shipped.edge_runs` made them."""
    with as_file(files("lib") / "data" / "edge_runs.npz") as place, np.load(place) as stored:
        return {name: np.asarray(stored[name], dtype=np.float64) for name in stored.files}


_STEP_SIZES = {
    "ηφ = 1.8 at the start (stable)": "1.1",
    "ηφ = 2.2 at the start": "0.9",
    "ηφ = 2.7 at the start": "0.75",
    "ηφ = 3.3 at the start": "0.6",
}


class MonitorReplay(Explorer):
    """A network trained on real pictures, replayed: loss, both sharpnesses, and its outputs."""

    name = "monitor_replay"
    title = "A real network at the edge of stability, replayed"
    caption = (
        "Left: the loss of full-batch gradient descent. Middle: η × sharpness of the weights and η × φ; the dashed "
        "line is the edge, 2. Right: the network's outputs on its training pictures, sorted by their targets of −1 "
        "and 1. The dots mark the step that the slider chooses."
    )
    declared = {
        "moment": Slider("moment (× 10 steps)", 0, 40, 1, 8),
        "data": Choice("pictures", ("digits", "clothes"), "digits"),
        "level": Choice("step size", tuple(_STEP_SIZES), "ηφ = 2.7 at the start"),
    }

    panels = (
        Panel(
            "loss, step {step}",
            axis("step", (0, 400)),
            axis("loss", (-4, 0.5), log=True, dtick=1, exponentformat="power"),
            width=0.3,
        ),
        Panel("η × φ = {gfs_now:.2f}", axis("step", (0, 400)), axis("η × sharpness, η × φ", (0, 4)), width=0.38),
        Panel("outputs", axis("picture"), axis("output", (-2.5, 2.5)), width=0.32),
    )
    traces = (
        line("loss", "blue", width=1.5, x="loss_steps", y="losses"),
        line("η × sharpness of the weights", "vermilion", panel=2, x="steps", y="sharpness"),
        line("η × φ", "green", panel=2, x="steps", y="gfs"),
        line("2: the edge", **_EDGE, panel=2, x=(0.0, 400.0), y=(2.0, 2.0)),
        dots("target −1", "orange", size=6, panel=3, x="negative_at", y="negative"),
        dots("target 1", "sky", size=6, panel=3, x="positive_at", y="positive"),
        dots("now", "blue", size=11, legend=False, x="step", y="loss_now"),
        dots("now", "vermilion", size=11, legend=False, panel=2, x="step", y="sharpness_now"),
        dots("now", "green", size=11, legend=False, panel=2, x="step", y="gfs_now"),
    )

    tries = (
        Try(
            "clothes, ηφ = 3.3",
            {"moment": 40, "data": "clothes", "level": "ηφ = 3.3 at the start"},
            "η × sharpness stays at 2 for hundreds of steps, the loss rises {rises} times, and ηφ comes down to "
            "{gfs_now:.2f}.",
            lambda data: data["rises"] > 100 and bool((abs(data["sharpness"][5:] - 2) < 0.2).all()),
            not_at={"moment": 40, "data": "clothes", "level": "ηφ = 2.2 at the start"},
        ),
        Try(
            "clothes, stable",
            {"moment": 40, "data": "clothes", "level": "ηφ = 1.8 at the start (stable)"},
            "η × sharpness rises towards ηφ from below and never reaches 2; φ stays where it was.",
            lambda data: data["rises"] == 0 and data["sharpness"].max() < 2 and np.ptp(data["gfs"]) < 0.05,
            not_at={"moment": 40, "data": "clothes", "level": "ηφ = 3.3 at the start"},
        ),
        Try(
            "digits, ηφ = 2.7",
            {"moment": 6, "level": "ηφ = 2.7 at the start"},
            "One burst of {rises} rises near step 55; φ drops below the edge in it, and all is calm afterwards.",
            lambda data: 5 <= data["rises"] <= 20 and data["gfs"][-1] < 2,
            not_at={"level": "ηφ = 2.2 at the start"},
        ),
    )

    def compute(self, moment: int, data: str, level: str) -> Data:
        """Index into what was recorded."""
        start = f"{data}/{_STEP_SIZES[level]}/"
        run = {key.removeprefix(start): values for key, values in _recorded().items() if key.startswith(start)}
        first, outputs = run["targets"] < 0, run["outputs"][moment]
        current, flow = run["eta"] * run["sharpness"], run["eta"] * run["gfs_sharpness"]
        places = np.arange(len(first))
        return {
            "loss_steps": np.arange(len(run["losses"])),
            "losses": run["losses"],
            "steps": run["steps"],
            "sharpness": current,
            "gfs": flow,
            "rises": int((np.diff(run["losses"]) > 0).sum()),
            "step": int(run["steps"][moment]),
            "loss_now": run["loss"][moment],
            "sharpness_now": current[moment],
            "gfs_now": flow[moment],
            "negative_at": places[: first.sum()],
            "negative": np.sort(outputs[first]),
            "positive_at": places[first.sum() :],
            "positive": np.sort(outputs[~first]),
        }
