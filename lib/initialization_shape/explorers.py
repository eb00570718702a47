"""The live figures of chapter 01."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import contourpy
import numpy as np

from lib.explorer import Data, Explorer, Panel, Slider, Toggle, axis, bars, dots, heatmap, line
from lib.initialization_shape.diagonal import DiagonalPotential
from lib.initialization_shape.dynamics import gradient_flow
from lib.initialization_shape.interpolation import minimize_potential
from lib.initialization_shape.neuron import NeuronPotential, conserved_delta, layer_norms, neuron_limit
from lib.initialization_shape.regression import SparseRegression, least_l2_interpolator, sparse_regression
from lib.initialization_shape.scale_shape import potential_scale, scale_shape_to_weights
from lib.style import COLOURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["NeuronPotentialExplorer", "ScaleShapeExplorer", "TimeWarpExplorer", "WhichRootExplorer"]


@lru_cache(maxsize=64)
def _problem(n: int, noise: float) -> tuple[SparseRegression, Array, Array]:
    """Data for d = 200 with a teacher of five weights, and the interpolators at both ends of k.

    The end at k = 1e-40 stands for the least L1 norm: the eye sees no difference, and a linear program is slower.
    """
    full = sparse_regression(200, 100, noise=0.0, n_test=1, rng=np.random.default_rng(1))
    X = full.X[:n]
    y = full.y[:n] + noise * np.random.default_rng(2).standard_normal(100)[:n]
    problem = SparseRegression(X, y, full.X_test, full.teacher)
    return problem, minimize_potential(DiagonalPotential(1e-40), X, y).w, least_l2_interpolator(X, y)


@lru_cache(maxsize=64)
def _error_curve(n: int, noise: float) -> tuple[Array, Array]:
    """Population error of the exact limit over the potential's scale k."""
    problem, _, _ = _problem(n, noise)
    scales = np.logspace(-8, 5, 18)
    limits = [minimize_potential(DiagonalPotential(k), problem.X, problem.y).w for k in scales]
    return scales, np.array([float(np.sum((w - problem.teacher) ** 2)) for w in limits])


def _stems(values: Array) -> Array:
    """Points of vertical lines from zero, separated by gaps (3 n, 2)."""
    x = np.repeat(np.arange(len(values), dtype=np.float64), 3)
    y = np.full(3 * len(values), np.nan)
    y[0::3], y[1::3] = 0.0, values
    return np.column_stack([x, y])


class ScaleShapeExplorer(Explorer):
    """Which interpolator training finds, as scale and shape of the initialization move."""

    name = "scale_shape"
    with_gaps = ("stems",)
    title = "Scale and shape decide which interpolator training finds"
    caption = (
        "Left: the learned weights (lines) and the teacher's (circles), teacher first. Right: the population error "
        "over k, with the present initialization as the large dot. Balanced and small is sparse; unbalanced is dense."
    )
    declared = {
        "alpha": Slider("scale α", -8, 2, 0.1, 1e-3, log=True, format=".1e"),
        "shape": Slider("shape s", -0.995, 0.995, 0.005, 0.0, format=".3f"),
        "examples": Slider("examples N", 10, 100, 5, 40),
        "noise": Slider("label noise", 0.0, 0.5, 0.05, 0.1, format=".2f"),
        "same_k": Toggle("keep k: let α follow the shape"),
    }

    panels = (
        Panel(
            "predictor at α = {alpha:.2g}, k = {k:.2g}",
            axis("coordinate, sorted by the teacher", (-2, 60)),
            axis("weight", (-0.35, 0.65)),
            width=0.6,
        ),
        Panel(
            "population error {error:.3f}",
            axis("k = 4α(1+s²)/(1−s²)", (-8, 5), log=True, exponentformat="power", dtick=3),
            axis("|w − w*|²", (0, 1.3)),
            width=0.4,
        ),
    )
    traces = (
        line("learned w", "blue", width=2.5, xy="stems"),
        dots("teacher w*", "vermilion", size=9, symbol="circle-open", xy="teacher"),
        line("error of the limit at k", "grey", panel=2, x="scales", y="errors"),
        line("least L1", "green", dash="dash", panel=2, x="ends", y="l1_error"),
        line("least L2", "orange", dash="dot", panel=2, x="ends", y="l2_error"),
        dots("you are here", "blue", size=14, panel=2, x="k", y="error"),
    )

    def compute(self, alpha: float, shape: float, examples: int, noise: float, same_k: bool) -> Data:
        """One dual-Newton solve; with `same_k`, k stays that of shape 0 at this scale."""
        problem, l1, l2 = _problem(examples, round(noise, 3))
        k = float(potential_scale(alpha, 0.0 if same_k else shape))
        limit = minimize_potential(DiagonalPotential(k), problem.X, problem.y)
        order = np.argsort(-problem.teacher, kind="stable")
        taught = problem.teacher[order][problem.teacher[order] > 0]
        scales, errors = _error_curve(examples, round(noise, 3))

        def error(w: Array) -> float:
            return float(np.sum((w - problem.teacher) ** 2))

        place = int(np.searchsorted(scales, k))  # the curve passes through where we are

        return {
            "stems": _stems(limit.w[order][:60]),
            "teacher": np.column_stack([np.arange(len(taught)), taught]),
            "w": limit.w,
            "k": k,
            "alpha": k / float(potential_scale(1.0, shape)),
            "error": error(limit.w),
            "scales": np.insert(scales, place, k),
            "errors": np.insert(errors, place, error(limit.w)),
            "ends": np.array([min(scales[0], k), max(scales[-1], k)]),
            "l1_error": error(l1),
            "l2_error": error(l2),
        }


# One training example in the plane: the interpolators are a line.
_X, _Y = np.array([[1.0, 2.0]]), np.array([2.0])
_AXIS = np.linspace(-1.0, 2.0, 100)
_GRID = np.stack(np.meshgrid(_AXIS, _AXIS), axis=-1)


def _contours(values: Array, count: int = 14) -> Array:
    """Level lines of a surface over the grid as one broken line (n, 2); denser near the minimum."""
    spread = (values - values.min()) / np.ptp(values)
    generator = contourpy.contour_generator(_AXIS, _AXIS, spread, line_type=contourpy.LineType.ChunkCombinedNan)
    lines = [generator.lines(level)[0][0] for level in np.linspace(0.03, 0.95, count) ** 2]
    kept = [line for line in lines if line is not None]
    gap = np.full((1, 2), np.nan)
    return np.concatenate([piece for line in kept for piece in (line, gap)])


def _start(alpha: float, shape: float, angle: float) -> tuple[float, Array]:
    """Output weight and input weights in the plane."""
    norm, size = scale_shape_to_weights(alpha, shape)
    return float(size), float(norm) * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])


_NORM = np.linspace(0, 2, 80)


class NeuronPotentialExplorer(Explorer):
    """The potential of a neuron in the plane, and the flow that runs to its lowest point on the line of solutions."""

    name = "neuron_potential"
    with_gaps = ("lines",)
    title = "The potential that a neuron minimises"
    caption = (
        "Grey: level lines of Q. Black: all weights that fit the one example. Blue: gradient flow from the start "
        "(circle) to where Q is lowest on the line (star, closed form). Unbalanced towards the output: circles around "
        "the start; balanced: sharper at zero, like |w| to the power 3/2."
    )
    declared = {
        "alpha": Slider("scale α", -2, 0, 0.05, 0.3, log=True, format=".2f"),
        "shape": Slider("shape s", 0.0, 0.95, 0.01, 0.0, format=".2f"),
        "angle": Slider("direction of the start (degrees)", -180, 180, 5, 150),
    }

    figure_layout = {"height": 440}
    panels = (
        Panel(
            "level lines of Q(w) at δ = {delta:.2f}",
            axis("w<sub>1</sub>", (-1, 2)),
            axis("w<sub>2</sub>", (-1, 2)),
            width=0.55,
            equal=True,
        ),
        Panel("radial part q along |w|", axis("|w|", (0, 2)), axis("potential, scaled", (0, 1.02)), width=0.45),
    )
    traces = (
        line("level lines of Q", "grey", width=1, xy="lines"),
        line("fits the data", "black", width=2, x=(-1.0, 2.0), y=(1.5, 0.0)),
        line("gradient flow", "blue", width=3, xy="path"),
        dots("start", "blue", size=10, symbol="circle-open", xy="start"),
        dots("closed form", "vermilion", size=14, symbol="star", xy="limit"),
        line("q(|w|), scaled to 1 at 2", "blue", panel=2, x=_NORM, y="rise"),
        line("|w| to the 3/2", "green", dash="dash", panel=2, x=_NORM, y=(_NORM / 2) ** 1.5),
        line("|w| squared", "orange", dash="dot", panel=2, x=_NORM, y=(_NORM / 2) ** 2),
    )

    def compute(self, alpha: float, shape: float, angle: int) -> Data:
        """A vectorised formula on a 100 x 100 grid, one small flow, one closed form."""
        a, u = _start(alpha, shape, angle)
        potential = NeuronPotential.from_weights(a, u)
        path = gradient_flow("neuron", _X, _Y, {"a": a, "u": u}, rtol=1e-6, tol=1e-4).path.w
        limit, _, _ = neuron_limit(_X, _Y, a, u)
        rise = potential.radial_rise(_NORM)
        return {
            "lines": _contours(potential(_GRID)),
            "path": path,
            "start": path[0],
            "limit": limit,
            "rise": rise / rise[-1],
            "delta": potential.delta,
        }


class TimeWarpExplorer(Explorer):
    """One path, two clocks: training time, and the warped time in which the flow is a mirror flow."""

    name = "time_warp"
    title = "The same path on two clocks"
    caption = (
        "Left: the path of gradient flow, with ticks at equal training times (circles) and at equal warped times "
        "(diamonds): one curve, two clocks. Middle: warped against training time. Right: how far the metric is from "
        "being a Hessian, before and after the warp."
    )
    declared = {
        "alpha": Slider("scale α", -3, 0, 0.1, 0.1, log=True, format=".2g"),
        "shape": Slider("shape s", 0.0, 0.95, 0.05, 0.0, format=".2f"),
        "angle": Slider("direction of the start (degrees)", -180, 180, 5, 150),
    }

    panels = (
        Panel("path", axis("w<sub>1</sub>", (-1.1, 1.1)), axis("w<sub>2</sub>", (-0.5, 1.6)), width=0.42, equal=True),
        Panel("clocks", axis("part of training time t", (0, 1)), axis("part of warped time τ", (0, 1)), width=0.33),
        Panel(
            "Hessian defect: {defect:.2g}, and 0",
            axis("", (-0.6, 1.6), tickvals=[0, 1], ticktext=["H", "a H"]),
            axis("size of defect", (-5, 5), log=True, dtick=2, exponentformat="power"),
            width=0.25,
        ),
    )
    traces = (
        line("path of w", "blue", xy="path"),
        dots("equal t", "blue", size=9, symbol="circle-open", xy="ticks_t"),
        dots("equal τ", "vermilion", size=8, symbol="diamond", xy="ticks_tau"),
        line("τ = ∫ a dt", "vermilion", panel=2, x="t", y="tau"),
        line("t", "grey", dash="dash", panel=2, x=(0.0, 1.0), y=(0.0, 1.0)),
        bars("defect", "grey", legend=False, panel=3, x=(0,), y="defect"),
    )

    def compute(self, alpha: float, shape: float, angle: int) -> Data:
        """One flow in the plane, interpolated at equal steps of either time."""
        a, u = _start(alpha, shape, angle)
        flow = gradient_flow("neuron", _X, _Y, {"a": a, "u": u}, rtol=1e-7, tol=1e-3)
        delta = conserved_delta(a, u)
        times, path = flow.path.t, flow.path.w
        _, output = layer_norms(np.linalg.norm(path, axis=1), delta)
        warped = np.concatenate([[0.0], np.cumsum(np.diff(times) * (output[1:] + output[:-1]) / 2)])

        def at(clock: Array) -> Array:
            ticks = np.linspace(0, clock[-1], 12)
            return np.stack([np.interp(ticks, clock, path[:, i]) for i in range(2)], axis=1)

        # halfway along the path, by its length
        travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        middle = float(np.interp(travelled[-1] / 2, travelled, np.linalg.norm(path, axis=1)))
        # the Hessian-map defect of the neuron's metric there, in closed form
        _, a_there = layer_norms(middle, delta)
        defect = float(middle / (2 * a_there**4 * np.hypot(middle, delta / 2)))
        return {
            "path": path,
            "ticks_t": at(times),
            "ticks_tau": at(warped),
            "t": times / times[-1],
            "tau": warped / warped[-1],
            "defect": defect,
        }


_ANGLES = np.linspace(-180, 180, 101)
_WEIGHTS = np.linspace(0.01, 1.0, 100)


@lru_cache(maxsize=32)
def _basin(norm: float, steps: int = 400, lr: float = 0.05) -> Array:
    """Final sign of the output weight over its start (rows) and the direction of u (columns), by gradient descent.

    Only the part of u along the one example moves, so a start is a pair of numbers.
    """
    length = float(np.linalg.norm(_X))
    along = np.radians(_ANGLES) - np.arctan2(_X[0, 1], _X[0, 0])
    p = np.repeat(norm * length * np.cos(along)[None, :], len(_WEIGHTS), axis=0)
    a = np.repeat(_WEIGHTS[:, None], len(_ANGLES), axis=1)
    for _ in range(steps):
        push = lr * (_Y[0] - a * p)
        a, p = a + push * p, p + length**2 * push * a
    return np.sign(a)


class WhichRootExplorer(Explorer):
    """For negative imbalance the output weight may change its sign on the way: which closed form applies."""

    name = "which_root"
    may_be_absent = ("flipped",)
    title = "Negative imbalance: which of the two roots?"
    caption = (
        "Left: the sign of the output weight at the end, over its start and the direction of the input weights "
        "(orange: it flipped). Above the dashed line δ ≥ 0 and it never flips. Right: the run from the marked start, "
        "and the two closed forms."
    )
    declared = {
        "weight": Slider("output weight a at the start", 0.01, 1.0, 0.01, 0.1, format=".2f"),
        "angle": Slider("direction of u (degrees)", -180, 180, 5, -60),
        "norm": Slider("norm of u", 0.1, 1.5, 0.1, 0.8, on_release=True, format=".1f"),
    }

    figure_layout = {"height": 420}
    panels = (
        Panel(
            "where the sign flips",
            axis("direction of u (degrees)", (-180, 180), dtick=90),
            axis("output weight a at the start", (0, 1)),
        ),
        Panel(
            "δ = {delta:.2f}: the sign {verdict}",
            axis("w<sub>1</sub>", (-1.6, 2.4)),
            axis("w<sub>2</sub>", (-0.8, 2.2)),
            equal=True,
        ),
    )
    traces = (
        heatmap("final sign", [[0, COLOURS["orange"]], [1, "#D6E6F2"]], -1, 1, x=_ANGLES, y=_WEIGHTS, z="basin"),
        line("δ = 0", "black", dash="dash", x=(-180.0, 180.0), y="norm"),
        dots("you are here", "blue", size=13, xy="start"),
        line("fits the data", "black", panel=2, x=(-1.6, 2.4), y=(1.8, -0.2)),
        line("gradient flow", "blue", panel=2, xy="path"),
        dots("sign kept", "green", size=14, symbol="star", panel=2, xy="kept"),
        dots("sign flipped", "vermilion", size=12, symbol="diamond", panel=2, xy="flipped"),
    )

    def compute(self, weight: float, angle: int, norm: float) -> Data:
        """The basin is remembered for each norm; a start costs one small flow."""
        u = norm * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        flow = gradient_flow("neuron", _X, _Y, {"a": weight, "u": u}, rtol=1e-6, tol=1e-4)
        delta = conserved_delta(weight, u)
        kept = neuron_limit(_X, _Y, weight, u, final_sign=1)[0]
        flipped = neuron_limit(_X, _Y, weight, u, final_sign=-1)[0] if delta < 0 else np.full(2, np.nan)
        return {
            "basin": _basin(round(norm, 3)),
            "start": np.array([angle, weight]),
            "norm": norm,
            "path": flow.path.w,
            "kept": kept,
            "flipped": flipped,
            "delta": delta,
            "verdict": "flips" if flow.params["a"] < 0 else "stays",
        }
