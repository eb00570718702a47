"""The live figures of chapter 02."""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.edge_of_stability.flow_solution import gfs_sharpness, gradient_flow_solution
from lib.edge_of_stability.scalar_network import balances, loss, sharpness
from lib.edge_of_stability.trajectories import MONOTONE_LIMIT, gd_path
from lib.explorer import Choice, Data, Explorer, Slider
from lib.style import COLOURS, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["CobwebExplorer", "MonitorReplay", "PhaseMapExplorer", "ScalarLab"]

_EDGE = {"color": COLOURS["black"], "dash": "dash", "width": 1.5}
_LIMIT = {"color": COLOURS["grey"], "dash": "dot", "width": 1.5}


def _weights(depth: int, imbalance: float, product: float) -> Array:
    """Weights evenly spaced in their logarithm, `exp(imbalance)` above and below the middle, with a given product."""
    spread = np.exp(imbalance * np.linspace(-1, 1, depth))
    return np.asarray(spread * (product / spread.prod()) ** (1 / depth))


class ScalarLab(Explorer):
    """One run of gradient descent on a scalar network, seen from three sides."""

    name = "scalar_lab"
    may_be_absent = ("gfs",)
    title = "The edge of stability in a product of a few numbers"
    caption = (
        "Left: the loss of gradient descent. Middle: the sharpness where it stands, times η. Right: the sharpness of "
        "the point that gradient flow would reach from there, times η. Dashed: 2, the edge of stability. "
        "Dotted: 2√2; from below it, with weights that stay positive, the right curve can only fall."
    )
    declared = {
        "eta_phi": Slider("step size: ηφ at the start", 0.5, 4.0, 0.02, 2.4, format=".2f"),
        "depth": Slider("number of weights D", 2, 10, 1, 4),
        "imbalance": Slider("imbalance of the weights", 0.0, 2.0, 0.05, 0.6, format=".2f"),
        "product": Slider("product at the start", 0.1, 1.5, 0.05, 0.9, format=".2f"),
        "steps": Slider("steps", 100, 3000, 100, 100),
    }

    def build(self) -> go.Figure:
        """Three panels over the step."""
        figure = new_figure(3, titles=("loss", "η × sharpness", "η × φ"))
        for column, (colour, name) in enumerate(
            (("blue", "loss"), ("vermilion", "η × sharpness of the weights"), ("green", "η × φ, of the flow solution")),
            start=1,
        ):
            figure.add_scatter(
                mode="lines", line={"color": COLOURS[colour], "width": 1.5}, name=name, row=1, col=column
            )
        for column in (2, 3):
            shown = column == 3
            figure.add_scatter(mode="lines", line=_EDGE, name="2: the edge", showlegend=shown, row=1, col=column)
        figure.add_scatter(mode="lines", line=_LIMIT, name="2√2", row=1, col=3)
        figure.update_xaxes(title="step")
        figure.update_yaxes(title="loss", type="log", range=[-12.5, 1.5], dtick=2, exponentformat="power", row=1, col=1)
        figure.update_yaxes(title="η × sharpness", range=[0, 6], row=1, col=2)
        figure.update_yaxes(title="η × φ", range=[0, 4.2], row=1, col=3)
        return figure

    def compute(self, eta_phi: float, depth: int, imbalance: float, product: float, steps: int) -> Data:
        """Plain floats for the run, one call for all flow solutions, eigenvalues at up to 200 steps."""
        start = _weights(depth, imbalance, product)
        eta = eta_phi / float(gfs_sharpness(start))
        path, diverged = gd_path(start, eta, steps)
        stride = max(1, steps // 200) | 1  # odd: a stride of two would hide a zig-zag of period two
        # a run that diverges may pass a point from which flow ends nowhere: NaN there, a gap in the curve
        sizes = np.sort(np.abs(path), axis=1)
        exists = (path.prod(axis=1) > 0) | (sizes[:, 0] != sizes[:, 1])
        gfs = np.full(len(path), np.nan)
        gfs[exists] = gfs_sharpness(path[exists])
        values = loss(path)
        return {
            "step": np.arange(steps + 1),
            "loss": np.maximum(values, 1e-17),
            "rises": int((np.diff(values) > 1e-28).sum()),
            "seen": np.arange(0, steps + 1, stride),
            "sharpness": eta * sharpness(path[::stride]),
            "gfs": eta * gfs,
            "diverged": diverged,
            "eta": eta,
            "converged": bool(values[-1] < 1e-12),
        }

    def draw(self, data: Data) -> None:
        """Put the three curves in place."""
        value, current, flow, edge_2, edge_3, limit = self.figure.data
        end = [0.0, float(data["step"][-1])]
        value.update(x=data["step"], y=data["loss"])
        current.update(x=data["seen"], y=np.minimum(data["sharpness"], 1e3))
        flow.update(x=data["step"], y=data["gfs"])
        edge_2.update(x=end, y=[2.0, 2.0])
        edge_3.update(x=end, y=[2.0, 2.0])
        limit.update(x=end, y=[MONOTONE_LIMIT] * 2)
        for column in (1, 2, 3):
            self.figure.update_xaxes(range=end, row=1, col=column)
        verdict = "diverged" if data["diverged"] else f"{data['rises']} rises"
        self.figure.layout.annotations[0].text = f"loss: {verdict}"
        self.figure.layout.annotations[2].text = f"η × φ: {data['gfs'][0]:.2f} → {data['gfs'][-1]:.2f}"


_LARGEST = 3.0
_OUTCOME_COLOURS = (COLOURS["sky"], COLOURS["orange"], "#D9D9D9", COLOURS["black"], COLOURS["green"])
_OUTCOME_NAMES = ("converges", "cycle of two", "a weight changes sign", "diverges", "still moving")


@lru_cache(maxsize=256)
def _map(eta: float, size: int) -> tuple[Array, NDArray[np.uint8]]:
    """Outcomes over the square of starts; `size` starts a side."""
    from lib.edge_of_stability.phase_map import phase_map

    axis = (np.arange(size) + 0.5) * _LARGEST / size
    w1, w2 = np.meshgrid(axis, axis)
    return axis, phase_map(w1, w2, eta)


def _hyperbolas(phi: float) -> tuple[Array, Array]:
    """Where the flow solution has this sharpness: `|w1^2 - w2^2| = sqrt(phi^2 - 4)`, two branches with a gap."""
    x = np.linspace(0, _LARGEST, 60)
    if phi < 2:  # no minimum is that flat
        return np.full(3, np.nan), np.full(3, np.nan)
    far = np.sqrt(x**2 + math.sqrt(phi**2 - 4))
    gap = [np.nan]
    return np.concatenate([x, gap, far]), np.concatenate([far, gap, x])


class PhaseMapExplorer(Explorer):
    """Where gradient descent ends from every start of the plane."""

    name = "phase_map"
    may_be_absent = ("edge_x", "edge_y", "limit_x", "limit_y")
    coarse_while_moving = True
    title = "Where does gradient descent end? Every point is a start (w₁, w₂)"
    caption = (
        "Colours: what 200 steps lead to. Black line: the minima w₁w₂ = 1. Dashed: ηφ = 2 and dotted: ηφ = 2√2; "
        "between the two branches of a line φ is smaller. White: the first 60 steps from the start that you choose "
        "by a click or by the sliders. The map is coarse while a slider moves and fine when it rests."
    )
    declared = {
        "eta": Slider("step size η", 0.1, 1.3, 0.01, 0.5, format=".2f"),
        "w1": Slider("start w₁", 0.05, 3.0, 0.05, 2.1, format=".2f"),
        "w2": Slider("start w₂", 0.05, 3.0, 0.05, 0.4, format=".2f"),
    }

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.figure.data[0].on_click(self._start_here)

    def _start_here(self, _: Any, points: Any, __: Any) -> None:
        """A click on the map chooses the start."""
        if points.xs:
            w1, w2 = (float(np.clip(value, 0.05, _LARGEST)) for value in (points.xs[0], points.ys[0]))
            self.set(w1=round(w1, 2), w2=round(w2, 2))

    def build(self) -> go.Figure:
        """The plane, and the product along the path."""
        figure = new_figure(2, titles=("outcome by start", "the path"), widths=(0.55, 0.45), height=520)
        levels = len(_OUTCOME_COLOURS)
        scale = [[(i + end) / levels, colour] for i, colour in enumerate(_OUTCOME_COLOURS) for end in (0, 1)]
        figure.add_heatmap(
            colorscale=scale, zmin=-0.5, zmax=levels - 0.5, showscale=False, name="outcome", row=1, col=1
        )
        lines = (
            ("minima w₁w₂ = 1", {"color": COLOURS["black"], "width": 3}),
            ("ηφ = 2", {"color": COLOURS["black"], "dash": "dash", "width": 2}),
            ("ηφ = 2√2", {"color": COLOURS["black"], "dash": "dot", "width": 2}),
        )
        for name, line in lines:
            figure.add_scatter(mode="lines", line=line, name=name, hoverinfo="skip", row=1, col=1)
        figure.add_scatter(
            mode="lines+markers",
            line={"color": "white", "width": 1.5},
            marker={"color": "white", "size": 5},
            name="descent",
            showlegend=False,
            hoverinfo="skip",
            row=1,
            col=1,
        )
        figure.add_scatter(
            mode="markers",
            marker={"color": COLOURS["vermilion"], "size": 13},
            name="start",
            hoverinfo="skip",
            row=1,
            col=1,
        )
        figure.add_scatter(
            mode="lines+markers",
            line={"color": COLOURS["blue"]},
            marker={"color": COLOURS["blue"], "size": 5},
            name="w₁w₂ along the path",
            row=1,
            col=2,
        )
        for name, colour in zip(_OUTCOME_NAMES, _OUTCOME_COLOURS, strict=True):
            figure.add_scatter(
                x=[None], y=[None], mode="markers", marker={"color": colour, "size": 12, "symbol": "square"}, name=name
            )
        for axis, title in ((figure.update_xaxes, "w<sub>1</sub>"), (figure.update_yaxes, "w<sub>2</sub>")):
            axis(title=title, range=[0, _LARGEST], constrain="domain", row=1, col=1)
        figure.update_yaxes(scaleanchor="x", row=1, col=1)
        figure.update_xaxes(title="step", range=[0, 60], row=1, col=2)
        figure.update_yaxes(title="product w<sub>1</sub>w<sub>2</sub>", range=[-0.5, 2.5], row=1, col=2)
        figure.update_layout(margin={"b": 130})
        return figure

    def compute(self, eta: float, w1: float, w2: float, *, fine: bool = True) -> Data:
        """A remembered map, coarse while a slider moves; hyperbolas in closed form; one short run."""
        axis, outcome = _map(round(eta, 4), 200 if fine else 80)
        path, _ = gd_path([w1, w2], eta, 60)
        edge, limit = _hyperbolas(2 / eta), _hyperbolas(MONOTONE_LIMIT / eta)
        return {
            "axis": axis,
            "outcome": outcome,
            "edge_x": edge[0],
            "edge_y": edge[1],
            "limit_x": limit[0],
            "limit_y": limit[1],
            "path": path,
            "eta": eta,
            "eta_phi": eta * float(np.hypot(w1**2 - w2**2, 2.0)),
        }

    def draw(self, data: Data) -> None:
        """Put map, lines and path in place."""
        outcome, minima, edge, limit, path, start, product = self.figure.data[:7]
        if data["outcome"] is not self.data.get("outcome"):
            outcome.update(x=data["axis"], y=data["axis"], z=data["outcome"])
        x = np.linspace(1 / _LARGEST, _LARGEST, 60)
        minima.update(x=x, y=1 / x)
        edge.update(x=data["edge_x"], y=data["edge_y"])
        limit.update(x=data["limit_x"], y=data["limit_y"])
        path.update(x=data["path"][:, 0], y=data["path"][:, 1])
        start.update(x=data["path"][:1, 0], y=data["path"][:1, 1])
        product.update(x=np.arange(len(data["path"])), y=np.clip(data["path"].prod(axis=1), -10.0, 10.0))
        self.figure.layout.annotations[0].text = f"outcome by start, 2/η = {2 / data['eta']:.2f}"
        self.figure.layout.annotations[1].text = f"the path, ηφ = {data['eta_phi']:.2f} at its start"


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
        "The slope at π = 1 is 1 − ηφ: below −1 the fixed point repels."
    )
    declared = {
        "eta_phi": Slider("ηφ", 1.5, 3.0, 0.01, 2.1, format=".2f"),
        "start": Slider("product at the start", 0.3, 1.4, 0.05, 0.8, format=".2f"),
        "depth": Slider("number of weights D", 2, 6, 1, 3),
        "imbalance": Slider("imbalance of the weights", 0.0, 1.2, 0.05, 0.35, format=".2f"),
    }

    def build(self) -> go.Figure:
        """Map and bifurcation diagram."""
        figure = new_figure(2, titles=("the map", "where it settles"), height=440)
        figure.add_scatter(mode="lines", line={"color": COLOURS["blue"]}, name="next product", row=1, col=1)
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["grey"], "dash": "dash"}, name="no change", row=1, col=1
        )
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["vermilion"], "width": 1}, name="sixty steps", row=1, col=1
        )
        figure.add_scatter(
            mode="markers", marker={"color": COLOURS["vermilion"], "size": 10}, name="start", row=1, col=1
        )
        figure.add_heatmap(
            colorscale=[[0, "#FFFFFF"], [1, COLOURS["blue"]]],
            zmin=0,
            zmax=1,
            showscale=False,
            name="settled products",
            row=1,
            col=2,
        )
        figure.add_scatter(mode="lines", line=_EDGE, name="here", row=1, col=2)
        figure.update_xaxes(title="product π", range=[0, 1.6], row=1, col=1)
        figure.update_yaxes(title="next product", range=[0, 1.6], row=1, col=1)
        figure.update_xaxes(title="ηφ", range=[1.5, 3.0], row=1, col=2)
        figure.update_yaxes(title="product π", range=[0, 1.6], row=1, col=2)
        return figure

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
        web_x, web_y = np.repeat(orbit, 2)[:-1], np.repeat(orbit, 2)[1:]
        web_y[0] = 0.0 if len(orbit) == 1 else orbit[0]
        inside = np.isfinite(y)
        return {
            "x": x[inside],
            "y": y[inside],
            "web_x": web_x,
            "web_y": web_y,
            "settled": _bifurcation(depth, round(imbalance, 3)),
            "slope": 1 - eta_phi,
            "eta_phi": eta_phi,
            "left": len(orbit) < 60,
        }

    def draw(self, data: Data) -> None:
        """Put map, cobweb and diagram in place."""
        curve, diagonal, web, start, settled, here = self.figure.data
        curve.update(x=data["x"], y=data["y"])
        diagonal.update(x=[0.0, 1.6], y=[0.0, 1.6])
        web.update(x=data["web_x"], y=data["web_y"])
        start.update(x=data["web_x"][:1], y=data["web_y"][:1])
        if data["settled"] is not self.data.get("settled"):
            settled.update(x=_LEVELS, y=_HEIGHTS, z=data["settled"])
        here.update(x=[data["eta_phi"]] * 2, y=[0.0, 1.6])
        ending = "; it leaves the positive products" if data["left"] else ""
        self.figure.layout.annotations[0].text = f"the map, slope {data['slope']:.2f} at π = 1{ending}"


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

    def build(self) -> go.Figure:
        """Loss, sharpnesses, outputs."""
        figure = new_figure(3, titles=("loss", "η × sharpness", "outputs"), widths=(0.3, 0.38, 0.32))
        figure.add_scatter(mode="lines", line={"color": COLOURS["blue"], "width": 1.5}, name="loss", row=1, col=1)
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["vermilion"]}, name="η × sharpness of the weights", row=1, col=2
        )
        figure.add_scatter(mode="lines", line={"color": COLOURS["green"]}, name="η × φ", row=1, col=2)
        figure.add_scatter(mode="lines", line=_EDGE, name="2: the edge", row=1, col=2)
        for colour, name in (("vermilion", "target −1"), ("blue", "target 1")):
            figure.add_scatter(mode="markers", marker={"color": COLOURS[colour], "size": 6}, name=name, row=1, col=3)
        for column, colour in ((1, "blue"), (2, "vermilion"), (2, "green")):
            figure.add_scatter(
                mode="markers",
                marker={"color": COLOURS[colour], "size": 11},
                name="now",
                showlegend=False,
                row=1,
                col=column,
            )
        figure.update_xaxes(title="step", range=[0, 400], row=1, col=1)
        figure.update_xaxes(title="step", range=[0, 400], row=1, col=2)
        figure.update_xaxes(title="picture", row=1, col=3)
        figure.update_yaxes(title="loss", type="log", range=[-4, 0.5], dtick=1, exponentformat="power", row=1, col=1)
        figure.update_yaxes(title="η × sharpness", range=[0, 4], row=1, col=2)
        figure.update_yaxes(title="output", range=[-2.5, 2.5], row=1, col=3)
        return figure

    def compute(self, moment: int, data: str, level: str) -> Data:
        """Index into what was recorded."""
        run = f"{data}/{_STEP_SIZES[level]}"
        column = {name: _recorded()[f"{run}/{name}"] for name in ("losses", "steps", "loss", "targets", "outputs")}
        eta = float(_recorded()[f"{run}/eta"])
        first = column["targets"] < 0
        outputs = column["outputs"][moment]
        return {
            "losses": column["losses"],
            "steps": column["steps"],
            "loss": column["loss"],
            "sharpness": eta * _recorded()[f"{run}/sharpness"],
            "gfs": eta * _recorded()[f"{run}/gfs_sharpness"],
            "moment": moment,
            "negative": np.sort(outputs[first]),
            "positive": np.sort(outputs[~first]),
        }

    def draw(self, data: Data) -> None:
        """Put curves, outputs and dots in place."""
        losses, current, flow, edge, negative, positive, *now = self.figure.data
        if data["losses"] is not self.data.get("losses"):
            losses.update(x=np.arange(len(data["losses"])), y=data["losses"])
            current.update(x=data["steps"], y=data["sharpness"])
            flow.update(x=data["steps"], y=data["gfs"])
            edge.update(x=[0.0, 400.0], y=[2.0, 2.0])
        count = len(data["negative"])
        negative.update(x=np.arange(count), y=data["negative"])
        positive.update(x=count + np.arange(len(data["positive"])), y=data["positive"])
        moment = data["moment"]
        for dot, values in zip(now, (data["loss"], data["sharpness"], data["gfs"]), strict=True):
            dot.update(x=data["steps"][moment : moment + 1], y=values[moment : moment + 1])
        self.figure.layout.annotations[0].text = f"loss, step {int(data['steps'][moment])}"
        self.figure.layout.annotations[1].text = f"η × φ = {data['gfs'][moment]:.2f}"
