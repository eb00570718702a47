"""The live figures of chapter 04."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from lib.explorer import Choice, Data, Explorer, Slider
from lib.four_bit.comparison import ROUNDINGS
from lib.four_bit.layers import LUQConfig
from lib.four_bit.logarithmic import Rounding, luq_decode, luq_encode, luq_mean, luq_variance, random_mantissas
from lib.four_bit.multiplier_free import mf_product
from lib.four_bit.two_layers import two_layer_errors
from lib.four_bit.weight_updates import captured_gradient, update_error
from lib.style import COLOURS, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["GradientHistogram", "MultiplierFree", "OneNumber", "WhereToBeUnbiased"]

_MODES = ("LUQ", "naive", "nearest", "stochastic rounding only", "stochastic underflow only")
_GUIDE = {"color": COLOURS["black"], "dash": "dash", "width": 1.5}
_BINS = np.arange(-20.0, 0.51, 0.5)


@lru_cache(maxsize=1)
def _real_gradient() -> tuple[torch.Tensor, torch.Tensor, float, Array]:
    """The gradient, random integers for it, its largest magnitude, and its histogram over the binary logarithm."""
    delta = captured_gradient().delta
    rand = random_mantissas(delta.shape, generator=torch.Generator().manual_seed(0))
    size = delta.abs().double().numpy()
    largest = float(size.max())
    counts, _ = np.histogram(np.log2(size[size > 0] / largest), _BINS)
    return delta, rand, largest, counts / delta.numel()


class GradientHistogram(Explorer):
    """A real gradient before and after it is quantised, and what that does to the update of the weights."""

    name = "gradient_histogram"
    title = "A real gradient in a few bits: what survives, and how wrong is the update of the weights?"
    caption = (
        "Left: 32,768 gradients of a layer that is being trained on pictures of clothes, by size "
        "(grey), and the levels that they become (blue; the bar at -21: those that become zero, beside the 58 % that "
        "were zero). Right: errors of the layer's update dW = δᵀa relative to its size, exact, without sampling. "
        "Averaging N samples shrinks the noise; only unbiased rounding without clipping has no bias."
    )
    declared = {
        "levels": Slider("levels K above zero (7: 4 bits)", 1, 8, 1, 7),
        "clip": Slider("scale: log₂(top level / max)", -3.0, 0.0, 0.25, 0.0, format=".2f"),
        "samples": Slider("averaged samples N", 1, 32, 1, 1),
        "mode": Choice("rounding", _MODES, "naive"),
    }

    def build(self) -> go.Figure:
        """Histogram and bars."""
        figure = new_figure(2, titles=("sizes of gradients", "error of the update"), widths=(0.62, 0.38), height=440)
        middle = (_BINS[1:] + _BINS[:-1]) / 2
        figure.add_bar(
            width=0.5, marker={"color": "#BBBBBB"}, name="before", customdata=middle, hoverinfo="y", row=1, col=1
        )
        figure.add_bar(width=0.22, marker={"color": COLOURS["blue"]}, name="after", hoverinfo="y", row=1, col=1)
        figure.add_bar(
            marker={"color": [COLOURS["vermilion"], COLOURS["green"], COLOURS["purple"]]},
            width=0.6,
            name="error",
            showlegend=False,
            row=1,
            col=2,
        )
        figure.update_layout(barmode="overlay")
        figure.update_xaxes(title="log₂ of size / largest", range=[-21.8, 1], row=1, col=1)
        figure.update_yaxes(title="part of all gradients", range=[0, 0.3], row=1, col=1)
        figure.update_xaxes(
            title="kind of error",
            tickvals=[0, 1, 2],
            ticktext=["bias", "noise", "rms"],
            range=[-0.6, 2.6],
            row=1,
            col=2,
        )
        figure.update_yaxes(title="error / size of the update", range=[0, 1.05], row=1, col=2)
        return figure

    def compute(self, levels: int, clip: float, samples: int, mode: str) -> Data:
        """One draw for the histogram; mean and variance in closed form for the update."""
        delta, rand, largest, before = _real_gradient()
        config = LUQConfig(fmt=levels, samples=samples, **ROUNDINGS[mode])
        codes, _ = luq_encode(delta, config, rand=rand, max_abs=largest * 2**clip, check=False)
        counts = np.bincount((codes & (15 if levels == 8 else 7)).flatten().numpy(), minlength=levels + 1)
        zeros = counts[0] - int((delta == 0).sum())
        error = update_error(captured_gradient(), config, max_abs=largest * 2**clip)
        return {
            "before": before,
            "level": np.append(-21.0, clip + np.arange(1 - levels, 1)),
            "after": np.append(zeros, counts[1 : levels + 1]) / delta.numel(),
            "error": np.array([error.bias, error.noise, error.rms]),
            "cosine": error.cosine,
        }

    def draw(self, data: Data) -> None:
        """Put bars in place."""
        before, after, error = self.figure.data
        before.update(x=(_BINS[1:] + _BINS[:-1]) / 2, y=data["before"])
        after.update(x=data["level"], y=data["after"])
        error.update(x=[0, 1, 2], y=data["error"])
        self.figure.update_yaxes(range=[0, max(0.12, 1.08 * float(data["after"].max()))], row=1, col=1)
        self.figure.update_yaxes(range=[0, max(0.3, 1.08 * float(data["error"].max()))], row=1, col=2)
        bias, noise, _ = data["error"]
        self.figure.layout.annotations[1].text = f"bias {bias:.3f}, noise {noise:.3f}"


_ALL_X = np.linspace(0.0, 1.1, 441)


class OneNumber(Explorer):
    """What becomes of a single number: two outcomes, their chances, and the error on average."""

    name = "one_number"
    title = "One number, rounded to a power of two: where can it go, and what does it become on average?"
    caption = (
        "Left: the levels (grey), the two that x can become (large dots: the likelier), and the mean of it "
        "(blue), which LUQ puts on the dashed line. Right: bias, standard deviation and root mean squared error at "
        "every x. x is in units of the largest number; above 1 it is clipped. Naive: to the nearest power, and to zero "
        "below the smallest."
    )
    declared = {
        "x": Slider("x", 0.0, 1.1, 0.005, 0.35, format=".3f"),
        "levels": Choice("levels K above zero", ("1", "3", "5", "7", "8"), "3"),
        "mode": Choice("rounding", _MODES, "LUQ"),
    }

    def build(self) -> go.Figure:
        """The map of numbers, and the errors along it."""
        figure = new_figure(2, titles=("what x becomes", "error"), height=440)
        first = {"row": 1, "col": 1}
        figure.add_scatter(mode="lines", line={"color": COLOURS["grey"], "width": 1}, name="levels", **first)
        figure.add_scatter(mode="lines", line=_GUIDE, name="unbiased: the mean is x", **first)
        figure.add_scatter(mode="lines", line={"color": COLOURS["blue"], "width": 2.5}, name="mean", **first)
        for colour, name in (("vermilion", "up"), ("orange", "down")):
            figure.add_scatter(mode="markers", marker={"color": COLOURS[colour], "size": 10}, name=name, **first)
        second = {"row": 1, "col": 2}
        for colour, width, name in (
            ("sky", 5, "rms error"),
            ("green", 2, "standard deviation"),
            ("vermilion", 2, "bias"),
        ):
            figure.add_scatter(mode="lines", line={"color": COLOURS[colour], "width": width}, name=name, **second)
        figure.add_scatter(
            mode="markers", marker={"color": COLOURS["black"], "size": 8}, name="at x", showlegend=False, **second
        )
        figure.update_xaxes(title="x / largest", range=[0, 1.12], row=1, col=1)
        figure.update_yaxes(title="value after rounding / largest", range=[-0.04, 1.12], row=1, col=1)
        figure.update_xaxes(title="x / largest", range=[0, 1.12], row=1, col=2)
        figure.update_yaxes(title="error / largest", row=1, col=2)
        return figure

    def compute(self, x: float, levels: str, mode: str) -> Data:
        """Mean and variance in closed form, on a grid and at x."""
        rounding = Rounding(int(levels), **ROUNDINGS[mode])
        numbers = torch.from_numpy(np.append(_ALL_X, x)).float()
        mean = luq_mean(numbers, rounding, max_abs=1.0).numpy()
        deviation = np.sqrt(luq_variance(numbers, rounding, max_abs=1.0).numpy())
        grid = np.append(0.0, 2.0 ** np.arange(1 - int(levels), 1))
        place = min(x, 1.0)
        below = int(np.searchsorted(grid, place, side="right")) - 1
        low, high = grid[below], grid[min(below + 1, len(grid) - 1)]
        chance = 1.0 if high == low else float((mean[-1] - low) / (high - low))
        return {
            "x": x,
            "grid": grid,
            "mean": mean[:-1],
            "bias": np.abs(mean - numbers.double().numpy()),
            "deviation": deviation,
            "low": low,
            "high": high,
            "chance": min(max(chance, 0.0), 1.0),
        }

    def draw(self, data: Data) -> None:
        """Put everything in place; chances are the sizes of the dots."""
        levels, line, mean, up, down, rms, deviation, bias, here = self.figure.data
        grid, chance = data["grid"], data["chance"]
        gap = [None]
        levels.update(
            x=np.concatenate([[0, 1.1, np.nan]] * len(grid)), y=np.concatenate([[g, g, np.nan] for g in grid])
        )
        line.update(x=[0, 1.1], y=[0, 1.1])
        mean.update(x=_ALL_X, y=data["mean"])
        for trace, height, part in ((up, data["high"], chance), (down, data["low"], 1 - chance)):
            shown = part > 0
            trace.update(x=[data["x"]] if shown else gap, y=[height] if shown else gap, marker_size=6 + 18 * part)
        total = np.hypot(data["bias"], data["deviation"])
        for trace, values in ((bias, data["bias"]), (deviation, data["deviation"]), (rms, total)):
            trace.update(x=_ALL_X, y=values[:-1])
        here.update(x=[data["x"]] * 3, y=[data["bias"][-1], data["deviation"][-1], total[-1]])
        self.figure.layout.annotations[
            0
        ].text = f"{data['x']:.3f} → {data['high']:.4g} with {chance:.0%}, {data['low']:.4g} with {1 - chance:.0%}"
        self.figure.layout.annotations[
            1
        ].text = f"bias {data['bias'][-1]:.4f}, standard deviation {data['deviation'][-1]:.4f}"


_FORWARD, _BACKWARD = ("nearest", "stochastic"), ("naive", "LUQ")
_PASSES = 2.0 ** np.arange(0, 13)


class WhereToBeUnbiased(Explorer):
    """Rounding by chance in the forward pass, or in the backward pass: what it costs and what it brings."""

    name = "where_to_be_unbiased"
    title = "Where should rounding be a matter of chance: forward, backward, or both?"
    caption = (
        "A network of two layers. Left: the error of its outputs in one forward pass, weights and activations in INT4; "
        "the filled part is bias. Right: the error of the first layer's gradient when the gradients of so many passes "
        "are averaged, as training does: noise averages out, bias stays. It is measured against the gradient of the "
        "same quantised forward pass, or against the network without quantisation."
    )
    declared = {
        "log_passes": Slider("log₂ of averaged passes", 0, 12, 1, 6),
        "forward": Choice("forward", _FORWARD, "nearest"),
        "backward": Choice("backward", _BACKWARD, "naive"),
        "fmt": Choice("gradients", ("fp4", "fp3", "fp2"), "fp4"),
        "against": Choice(
            "gradient compared with", ("the same forward pass", "no quantisation"), "the same forward pass"
        ),
    }

    def build(self) -> go.Figure:
        """Bars for the forward pass, curves for the backward pass."""
        figure = new_figure(2, titles=("outputs", "gradient"), widths=(0.36, 0.64), height=440)
        for colour, name in (("sky", "rms error"), ("vermilion", "its bias")):
            figure.add_bar(marker={"color": COLOURS[colour]}, width=0.5, name=name, row=1, col=1)
        figure.add_scatter(mode="markers", marker={"color": COLOURS["black"], "size": 11}, name="chosen", row=1, col=1)
        for colour, name in (("vermilion", "backward naive"), ("blue", "backward by chance: LUQ")):
            figure.add_scatter(mode="lines", line={"color": COLOURS[colour], "width": 2.5}, name=name, row=1, col=2)
        figure.add_scatter(
            mode="markers", marker={"color": COLOURS["black"], "size": 11}, showlegend=False, name="here", row=1, col=2
        )
        figure.update_layout(barmode="overlay")
        figure.update_xaxes(
            title="rounding of weights and activations",
            tickvals=[0, 1],
            ticktext=list(_FORWARD),
            range=[-0.6, 1.6],
            row=1,
            col=1,
        )
        figure.update_yaxes(title="error / size of the outputs", range=[0, 0.5], row=1, col=1)
        figure.update_xaxes(title="averaged passes", type="log", dtick=1, range=[-0.1, 3.75], row=1, col=2)
        figure.update_yaxes(title="error / size of the gradient", type="log", dtick=1, range=[-2.6, 0.7], row=1, col=2)
        return figure

    def compute(self, log_passes: int, forward: str, backward: str, fmt: str, against: str) -> Data:
        """Remembered averages over 256 passes a setting; the rest follows from bias and noise."""
        name = "gradient" if against == "the same forward pass" else "whole_gradient"
        outputs = [two_layer_errors(way, "naive", fmt).outputs for way in _FORWARD]
        both = [getattr(two_layer_errors(forward, way, fmt), name) for way in _BACKWARD]
        curves = np.array([[each.after(passes) for passes in _PASSES] for each in both])
        chosen = _BACKWARD.index(backward)
        return {
            "rms": np.array([each.after(1) for each in outputs]),
            "bias": np.array([each.bias for each in outputs]),
            "forward": _FORWARD.index(forward),
            "curves": np.maximum(curves, 1e-3),
            "passes": 2.0**log_passes,
            "here": max(both[chosen].after(2.0**log_passes), 1e-3),
            "gradient_bias": both[chosen].bias,
            "gradient_noise": both[chosen].noise,
        }

    def draw(self, data: Data) -> None:
        """Put bars and curves in place."""
        rms, bias, chosen, nearest, stochastic, here = self.figure.data
        rms.update(x=[0, 1], y=data["rms"])
        bias.update(x=[0, 1], y=data["bias"])
        chosen.update(x=[data["forward"]], y=[data["rms"][data["forward"]] + 0.03])
        nearest.update(x=_PASSES, y=data["curves"][0])
        stochastic.update(x=_PASSES, y=data["curves"][1])
        here.update(x=[data["passes"]], y=[data["here"]])
        self.figure.layout.annotations[0].text = f"outputs: rms error {data['rms'][data['forward']]:.2f}"
        self.figure.layout.annotations[
            1
        ].text = f"gradient: bias {data['gradient_bias']:.2f}, noise {data['gradient_noise']:.2f} a pass"


#: Gates of the two ways, as remembered from the paper's Appendix A.8, not confirmed; the factor of five is the paper's.
_STANDARD = (
    ("exponent mux", 12),
    ("mantissa mux", 18),
    ("mantissa multiplier", 99),
    ("exponent adder", 37),
    ("sign", 1),
    ("normalisation", 48),
    ("rounding adder", 12),
    ("exponent fix", 37),
)
_MULTIPLIER_FREE = (("exponent adder", 30), ("mantissa mux", 18), ("sign", 1))
_ROWS = ("w", "|w|", "code", "shifted", "product")
_BITS = 11


def _bits(value: int, width: int) -> Array:
    """Two's complement bits, highest first, behind -1 (no bit) up to the figure's width."""
    bits = np.full(_BITS, -1.0)
    bits[_BITS - width :] = [(value >> place) & 1 for place in reversed(range(width))]
    return bits


class MultiplierFree(Explorer):
    """An integer times a power of two: a shift of bits and an exclusive or of signs."""

    name = "multiplier_free"
    title = "INT4 times FP4 without a multiplier"
    caption = (
        "Left: the bits (dark: 1, light: 0). The FP4 code, a sign and k, stands for ±2^(k-1), and for 0 at k = 0. The "
        "magnitude of w moves k - 1 places to the left; the product is negative if one of the two signs is. "
        "Right: gates of a multiplier that first casts both to seven bits, and of the one that shifts; the items are "
        "unconfirmed, the factor of about five is the paper's."
    )
    declared = {
        "w": Slider("integer w (INT4)", -8, 7, 1, 5),
        "code": Slider("gradient's code (FP4)", 0, 15, 1, 10),
    }

    def build(self) -> go.Figure:
        """A lattice of bits, and piles of gates."""
        figure = new_figure(2, titles=("bits", "gates"), widths=(0.62, 0.38), height=420)
        figure.add_heatmap(
            colorscale=[[0, "#FFFFFF"], [0.5, "#D3DFEA"], [1, COLOURS["blue"]]],
            zmin=-1,
            zmax=1,
            showscale=False,
            xgap=3,
            ygap=8,
            hoverinfo="skip",
            name="bits",
            row=1,
            col=1,
        )
        figure.add_bar(marker={"color": COLOURS["grey"]}, width=0.6, name="gates", showlegend=False, row=1, col=2)
        figure.update_xaxes(
            title="place of the bit",
            tickvals=list(range(_BITS)),
            ticktext=[str(_BITS - 1 - i) for i in range(_BITS)],
            row=1,
            col=1,
        )
        figure.update_yaxes(
            title="number", tickvals=list(range(len(_ROWS))), ticktext=list(reversed(_ROWS)), row=1, col=1
        )
        figure.update_xaxes(showgrid=False, row=1, col=1)
        figure.update_yaxes(showgrid=False, row=1, col=1)
        figure.update_xaxes(
            title="way to multiply",
            tickvals=[0, 1],
            ticktext=["cast and multiply", "shift"],
            range=[-0.6, 1.6],
            row=1,
            col=2,
        )
        figure.update_yaxes(title="gates", range=[0, 290], row=1, col=2)
        return figure

    def compute(self, w: int, code: int) -> Data:
        """Integers only."""
        product = int(mf_product(torch.tensor([w]), torch.tensor([code])))
        k = code & 7
        rows = [_bits(w, 4), _bits(abs(w), 4), _bits(code, 4), _bits(abs(product), 10), _bits(product, _BITS)]
        return {
            "w": w,
            "g": float(luq_decode(torch.tensor([code], dtype=torch.uint8), 1.0)),
            "k": k,
            "product": product,
            "bits": np.array(rows[::-1]),
            "gates": np.array([sum(gates for _, gates in way) for way in (_STANDARD, _MULTIPLIER_FREE)]),
        }

    def draw(self, data: Data) -> None:
        """Put bits in place."""
        bits, gates = self.figure.data
        bits.update(x=np.arange(_BITS), y=np.arange(len(_ROWS)), z=data["bits"])
        gates.update(x=[0, 1], y=data["gates"])
        how = "zero" if data["k"] == 0 else f"shift by {data['k'] - 1}"
        self.figure.layout.annotations[0].text = f"{data['w']} × {data['g']:g} = {data['product']}   ({how})"
        ratio = data["gates"][0] / data["gates"][1]
        self.figure.layout.annotations[1].text = f"{ratio:.1f} times fewer gates"
