"""The live figures of chapter 01."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import contourpy
import numpy as np

from lib.explorer import Data, Explorer, Slider, Toggle
from lib.initialization_shape.diagonal import DiagonalPotential
from lib.initialization_shape.dynamics import gradient_flow
from lib.initialization_shape.interpolation import minimize_potential
from lib.initialization_shape.neuron import NeuronPotential, conserved_delta, layer_norms, neuron_limit
from lib.initialization_shape.regression import (
    SparseRegression,
    least_l2_interpolator,
    sparse_regression,
)
from lib.initialization_shape.scale_shape import potential_scale, scale_shape_to_weights
from lib.style import COLOURS, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go
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


def _stems(values: Array) -> tuple[Array, Array]:
    """Vertical lines from zero, separated by gaps."""
    x = np.repeat(np.arange(len(values), dtype=np.float64), 3)
    y = np.full(3 * len(values), np.nan)
    y[0::3], y[1::3] = 0.0, values
    return x, y


class ScaleShapeExplorer(Explorer):
    """Which interpolator training finds, as scale and shape of the initialization move."""

    name = "scale_shape"
    with_gaps = ("stems_y",)
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

    def build(self) -> go.Figure:
        """Stems of the weights, and the error curve."""
        figure = new_figure(2, titles=("predictor", "population error"), widths=(0.6, 0.4))
        figure.add_scatter(mode="lines", line={"color": COLOURS["blue"], "width": 2.5}, name="learned w", row=1, col=1)
        figure.add_scatter(
            mode="markers",
            marker={"color": COLOURS["vermilion"], "symbol": "circle-open", "size": 9},
            name="teacher w*",
            row=1,
            col=1,
        )
        figure.add_scatter(mode="lines", line={"color": COLOURS["grey"]}, name="error of the limit at k", row=1, col=2)
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["green"], "dash": "dash"}, name="least L1", row=1, col=2
        )
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["orange"], "dash": "dot"}, name="least L2", row=1, col=2
        )
        figure.add_scatter(
            mode="markers", marker={"color": COLOURS["blue"], "size": 14}, name="you are here", row=1, col=2
        )
        figure.update_xaxes(title="coordinate, sorted by the teacher", range=[-2, 60], row=1, col=1)
        figure.update_yaxes(title="weight", range=[-0.35, 0.65], row=1, col=1)
        figure.update_xaxes(
            title="k = 4α(1+s²)/(1−s²)", type="log", range=[-8, 5], row=1, col=2, exponentformat="power", dtick=3
        )
        figure.update_yaxes(title="|w − w*|²", range=[0, 1.3], row=1, col=2)
        return figure

    def compute(self, alpha: float, shape: float, examples: int, noise: float, same_k: bool) -> Data:
        """One dual-Newton solve; with `same_k`, k stays that of shape 0 at this scale."""
        problem, l1, l2 = _problem(examples, round(noise, 3))
        k = float(potential_scale(alpha, 0.0 if same_k else shape))
        limit = minimize_potential(DiagonalPotential(k), problem.X, problem.y)
        order = np.argsort(-problem.teacher, kind="stable")
        stems_x, stems_y = _stems(limit.w[order][:60])
        scales, errors = _error_curve(examples, round(noise, 3))

        def error(w: Array) -> float:
            return float(np.sum((w - problem.teacher) ** 2))

        place = int(np.searchsorted(scales, k))  # the curve passes through where we are

        return {
            "stems_x": stems_x,
            "stems_y": stems_y,
            "teacher": problem.teacher[order][:60],
            "w": limit.w,
            "k": k,
            "alpha": k / float(potential_scale(1.0, shape)),
            "error": error(limit.w),
            "scales": np.insert(scales, place, k),
            "errors": np.insert(errors, place, error(limit.w)),
            "l1_error": error(l1),
            "l2_error": error(l2),
        }

    def draw(self, data: Data) -> None:
        """Put the weights, the curve and the dot in place."""
        stems, teacher, curve, l1, l2, here = self.figure.data
        stems.update(x=data["stems_x"], y=data["stems_y"])
        teacher.update(x=np.arange(60), y=np.where(data["teacher"] > 0, data["teacher"], np.nan))
        curve.update(x=data["scales"], y=data["errors"])
        ends = data["scales"][[0, -1]]
        l1.update(x=ends, y=np.full(2, data["l1_error"]))
        l2.update(x=ends, y=np.full(2, data["l2_error"]))
        here.update(x=[data["k"]], y=[data["error"]])
        self.figure.layout.annotations[0].text = f"predictor at α = {data['alpha']:.2g}, k = {data['k']:.2g}"
        self.figure.layout.annotations[1].text = f"population error {data['error']:.3f}"


# One training example in the plane: the interpolators are a line.
_X, _Y = np.array([[1.0, 2.0]]), np.array([2.0])
_AXIS = np.linspace(-1.0, 2.0, 100)
_GRID = np.stack(np.meshgrid(_AXIS, _AXIS), axis=-1)


def _contours(values: Array, count: int = 14) -> tuple[Array, Array]:
    """Level lines of a surface over the grid as one broken line; denser near the minimum."""
    spread = (values - values.min()) / np.ptp(values)
    generator = contourpy.contour_generator(_AXIS, _AXIS, spread, line_type=contourpy.LineType.ChunkCombinedNan)
    lines = [generator.lines(level)[0][0] for level in np.linspace(0.03, 0.95, count) ** 2]
    kept = [line for line in lines if line is not None]
    gap = np.full((1, 2), np.nan)
    joined = np.concatenate([piece for line in kept for piece in (line, gap)])
    return joined[:, 0], joined[:, 1]


def _start(alpha: float, shape: float, angle: float) -> tuple[float, Array]:
    """Output weight and input weights in the plane."""
    norm, size = scale_shape_to_weights(alpha, shape)
    return float(size), float(norm) * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])


def _same_scale(figure: go.Figure, column: int) -> None:
    """A panel of the plane, in which circles look like circles."""
    axis = f"x{column}" if column > 1 else "x"
    figure.update_xaxes(constrain="domain", row=1, col=column)
    figure.update_yaxes(scaleanchor=axis, constrain="domain", row=1, col=column)


class NeuronPotentialExplorer(Explorer):
    """The potential of a neuron in the plane, and the flow that runs to its lowest point on the line of solutions."""

    name = "neuron_potential"
    with_gaps = ("lines_x", "lines_y")
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

    def build(self) -> go.Figure:
        """The plane, and a cut through the radial part."""
        figure = new_figure(
            2, titles=("level lines of Q(w)", "radial part q along |w|"), widths=(0.55, 0.45), height=440
        )
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["grey"], "width": 1}, name="level lines of Q", row=1, col=1
        )
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["black"], "width": 2}, name="fits the data", row=1, col=1
        )
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["blue"], "width": 3}, name="gradient flow", row=1, col=1
        )
        figure.add_scatter(
            mode="markers",
            marker={"size": 10, "color": COLOURS["blue"], "symbol": "circle-open"},
            name="start",
            row=1,
            col=1,
        )
        figure.add_scatter(
            mode="markers",
            marker={"size": 14, "color": COLOURS["vermilion"], "symbol": "star"},
            name="closed form",
            row=1,
            col=1,
        )
        figure.add_scatter(mode="lines", line={"color": COLOURS["blue"]}, name="q(|w|), scaled to 1 at 2", row=1, col=2)
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["green"], "dash": "dash"}, name="|w| to the 3/2", row=1, col=2
        )
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["orange"], "dash": "dot"}, name="|w| squared", row=1, col=2
        )
        figure.update_xaxes(title="w<sub>1</sub>", range=[-1, 2], row=1, col=1)
        figure.update_yaxes(title="w<sub>2</sub>", range=[-1, 2], row=1, col=1)
        _same_scale(figure, 1)
        figure.update_xaxes(title="|w|", range=[0, 2], row=1, col=2)
        figure.update_yaxes(title="potential, scaled", range=[0, 1.02], row=1, col=2)
        return figure

    def compute(self, alpha: float, shape: float, angle: int) -> Data:
        """A vectorised formula on a 100 x 100 grid, one small flow, one closed form."""
        a, u = _start(alpha, shape, angle)
        potential = NeuronPotential.from_weights(a, u)
        lines = _contours(potential(_GRID))
        path = gradient_flow("neuron", _X, _Y, {"a": a, "u": u}, rtol=1e-6, tol=1e-4).path.w
        limit, _, _ = neuron_limit(_X, _Y, a, u)
        norm = np.linspace(0, 2, 80)
        rise = potential.radial_rise(norm)
        return {
            "lines_x": lines[0],
            "lines_y": lines[1],
            "path": path,
            "limit": limit,
            "norm": norm,
            "rise": rise / rise[-1],
            "delta": potential.delta,
        }

    def draw(self, data: Data) -> None:
        """Put level lines, path and cut in place."""
        lines, fits, flow, start, star, rise, three_halves, square = self.figure.data
        lines.update(x=data["lines_x"], y=data["lines_y"])
        fits.update(x=[-1.0, 2.0], y=[(2.0 + 1.0) / 2, 0.0])
        flow.update(x=data["path"][:, 0], y=data["path"][:, 1])
        start.update(x=data["path"][:1, 0], y=data["path"][:1, 1])
        star.update(x=data["limit"][:1], y=data["limit"][1:])
        rise.update(x=data["norm"], y=data["rise"])
        three_halves.update(x=data["norm"], y=(data["norm"] / 2) ** 1.5)
        square.update(x=data["norm"], y=(data["norm"] / 2) ** 2)
        self.figure.layout.annotations[0].text = f"level lines of Q(w) at δ = {data['delta']:.2f}"


def _metric_defect(x: float, delta: float) -> float:
    """Size of the Hessian-map defect of the neuron's metric where the predictor has norm x, in closed form."""
    _, a = layer_norms(x, delta)
    return float(x / (2 * a**4 * np.hypot(x, delta / 2)))


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

    def build(self) -> go.Figure:
        """Path, clocks and defects."""
        figure = new_figure(3, titles=("path", "clocks", "Hessian defect"), widths=(0.42, 0.33, 0.25))
        figure.add_scatter(mode="lines", line={"color": COLOURS["blue"]}, name="path of w", row=1, col=1)
        figure.add_scatter(
            mode="markers",
            marker={"color": COLOURS["blue"], "size": 9, "symbol": "circle-open"},
            name="equal t",
            row=1,
            col=1,
        )
        figure.add_scatter(
            mode="markers",
            marker={"color": COLOURS["vermilion"], "size": 8, "symbol": "diamond"},
            name="equal τ",
            row=1,
            col=1,
        )
        figure.add_scatter(mode="lines", line={"color": COLOURS["vermilion"]}, name="τ = ∫ a dt", row=1, col=2)
        figure.add_scatter(mode="lines", line={"color": COLOURS["grey"], "dash": "dash"}, name="t", row=1, col=2)
        figure.add_bar(marker={"color": COLOURS["grey"]}, name="defect", showlegend=False, row=1, col=3)
        figure.update_xaxes(title="w<sub>1</sub>", range=[-1.1, 1.1], row=1, col=1)
        figure.update_yaxes(title="w<sub>2</sub>", range=[-0.5, 1.6], row=1, col=1)
        _same_scale(figure, 1)
        figure.update_xaxes(title="part of training time t", range=[0, 1], row=1, col=2)
        figure.update_yaxes(title="part of warped time τ", range=[0, 1], row=1, col=2)
        figure.update_xaxes(tickvals=[0, 1], ticktext=["H", "a H"], range=[-0.6, 1.6], row=1, col=3)
        figure.update_yaxes(
            title="size of defect", type="log", range=[-5, 5], dtick=2, exponentformat="power", row=1, col=3
        )
        return figure

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
        return {
            "path": path,
            "ticks_t": at(times),
            "ticks_tau": at(warped),
            "t": times / times[-1],
            "tau": warped / warped[-1],
            "defect": _metric_defect(middle, delta),
        }

    def draw(self, data: Data) -> None:
        """Put path, clocks and bars in place."""
        path, equal_t, equal_tau, tau, t, bars = self.figure.data
        path.update(x=data["path"][:, 0], y=data["path"][:, 1])
        equal_t.update(x=data["ticks_t"][:, 0], y=data["ticks_t"][:, 1])
        equal_tau.update(x=data["ticks_tau"][:, 0], y=data["ticks_tau"][:, 1])
        tau.update(x=data["t"], y=data["tau"])
        t.update(x=[0.0, 1.0], y=[0.0, 1.0])
        bars.update(x=[0], y=[data["defect"]])
        self.figure.layout.annotations[2].text = f"Hessian defect: {data['defect']:.2g}, and 0"


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

    def build(self) -> go.Figure:
        """The basin map and the plane."""
        figure = new_figure(2, titles=("where the sign flips", "the run"), height=420)
        figure.add_heatmap(
            colorscale=[[0, COLOURS["orange"]], [1, "#D6E6F2"]],
            zmin=-1,
            zmax=1,
            showscale=False,
            name="final sign",
            row=1,
            col=1,
        )
        figure.add_scatter(mode="lines", line={"color": COLOURS["black"], "dash": "dash"}, name="δ = 0", row=1, col=1)
        figure.add_scatter(
            mode="markers", marker={"size": 13, "color": COLOURS["blue"]}, name="you are here", row=1, col=1
        )
        figure.add_scatter(mode="lines", line={"color": COLOURS["black"]}, name="fits the data", row=1, col=2)
        figure.add_scatter(mode="lines", line={"color": COLOURS["blue"]}, name="gradient flow", row=1, col=2)
        figure.add_scatter(
            mode="markers",
            marker={"size": 14, "color": COLOURS["green"], "symbol": "star"},
            name="sign kept",
            row=1,
            col=2,
        )
        figure.add_scatter(
            mode="markers",
            marker={"size": 12, "color": COLOURS["vermilion"], "symbol": "diamond"},
            name="sign flipped",
            row=1,
            col=2,
        )
        figure.update_xaxes(title="direction of u (degrees)", range=[-180, 180], dtick=90, row=1, col=1)
        figure.update_yaxes(title="output weight a at the start", range=[0, 1], row=1, col=1)
        figure.update_xaxes(title="w<sub>1</sub>", range=[-1.6, 2.4], row=1, col=2)
        figure.update_yaxes(title="w<sub>2</sub>", range=[-0.8, 2.2], row=1, col=2)
        _same_scale(figure, 2)
        return figure

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
            "flips": bool(flow.params["a"] < 0),
        }

    def draw(self, data: Data) -> None:
        """Put map, run and roots in place."""
        basin, boundary, here, fits, path, kept, flipped = self.figure.data
        if data["basin"] is not self.data.get("basin"):
            basin.update(x=_ANGLES, y=_WEIGHTS, z=data["basin"])
        boundary.update(x=[-180.0, 180.0], y=[data["norm"]] * 2)
        here.update(x=data["start"][:1], y=data["start"][1:])
        fits.update(x=[-1.6, 2.4], y=[1.8, -0.2])
        path.update(x=data["path"][:, 0], y=data["path"][:, 1])
        kept.update(x=data["kept"][:1], y=data["kept"][1:])
        flipped.update(x=data["flipped"][:1], y=data["flipped"][1:])
        verdict = "the sign flips" if data["flips"] else "the sign stays"
        self.figure.layout.annotations[1].text = f"δ = {data['delta']:.2f}: {verdict}"
