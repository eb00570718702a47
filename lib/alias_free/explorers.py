"""The live figures of chapter 06."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from lib.alias_free.attacks import BACKGROUND
from lib.alias_free.convnext import ConvNeXt, Mode
from lib.alias_free.experiment import trained_network
from lib.alias_free.layers import BlurPool2d, IdealDownsample2d
from lib.alias_free.polynomials import GELU_QUADRATIC, evaluate_polynomial, gelu
from lib.alias_free.resampling import fourier_shift, ideal_lowpass
from lib.alias_free.robustness import Kind, equivariance_error, translate
from lib.datasets import FASHION_CLASSES, FASHION_MEAN, FASHION_SPREAD, clothes
from lib.explorer import Choice, Data, Explorer, Slider
from lib.style import COLOURS, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["AliasMicroscope", "FilterShootOut", "FollowingFeatures", "MovingPicture"]

#: The networks, as the figures call them, and their colours.
_NETS: dict[str, Mode] = {"baseline": "baseline", "BlurPool": "blurpool", "APS": "aps", "AFC": "afc"}
_NET_COLOURS = dict(zip(_NETS, ("vermilion", "orange", "purple", "blue"), strict=True))
_GUIDE = {"color": COLOURS["grey"], "dash": "dash", "width": 1.5}
_HERE = {"color": COLOURS["black"], "size": 9}
#: Below this an error is nothing but rounding, and a logarithm would go wrong at zero.
_SMALLEST = 1e-17


def _arrange(figure: go.Figure, places: tuple[tuple[float, float, float, float], ...]) -> None:
    """Move panels out of their row to (left, right, bottom, top), each a part of the figure's sides."""
    for column, (left, right, bottom, top) in enumerate(places, start=1):
        figure.update_xaxes(domain=(left, right), row=1, col=column)
        figure.update_yaxes(domain=(bottom, top), row=1, col=column)
        figure.layout.annotations[column - 1].update(x=(left + right) / 2, y=top)


@lru_cache(maxsize=4)
def _network(name: str) -> ConvNeXt:
    return trained_network(_NETS[name]).model.requires_grad_(False)


_PICTURES = 100
_REACH = 3
_CURVE_SHIFTS = np.linspace(-_REACH, _REACH, 16 * _REACH + 1)
_KINDS: tuple[Kind, ...] = ("circular", "zero", "bilinear")
_PROBABILITY, _LOGIT = "probability", "logit"


@lru_cache(maxsize=1)
def _clothes() -> tuple[torch.Tensor, list[int]]:
    """Pictures (100, 1, 28, 28) and their classes."""
    images, labels = clothes("test", _PICTURES).tensors
    return images, labels.tolist()


@lru_cache(maxsize=2048)
def _mover(shift: float, kind: Kind) -> torch.Tensor:
    """The matrix (28, 28) that moves the rows of a picture, from a background of zero: each kind is linear."""
    side = _clothes()[0].shape[-1]
    return translate(torch.eye(side, dtype=torch.float64), (shift, 0.0), kind).float()


@lru_cache(maxsize=8)
def _movers_along(kind: Kind) -> torch.Tensor:
    """Matrices (49, 28, 28) for all shifts of the curve."""
    return torch.stack([_mover(_carried_out(float(shift), kind), kind) for shift in _CURVE_SHIFTS])


def _carried_out(shift: float, kind: Kind) -> float:
    """The shift that a kind can carry out: the nearest whole pixel for `"zero"`."""
    return float(math.floor(shift + 0.5)) if kind == "zero" else shift


def _moved(picture: int, down: float, kind: Kind, across: torch.Tensor) -> torch.Tensor:
    """A picture at places (..., 28, 28), one for each matrix in `across` (..., 28, 28)."""
    content = _clothes()[0][picture, 0] - BACKGROUND
    return _mover(down, kind) @ content @ across.mT + BACKGROUND


@lru_cache(maxsize=512)
def _curve(picture: int, down: float, kind: Kind) -> Array:
    """Logits (4, 49, 10) of the four networks along the shifts of the curve."""
    with torch.inference_mode():
        x = _moved(picture, down, kind, _movers_along(kind))[:, None]
        # half at a time: maps that stay in the processor's cache are faster
        parts = torch.split(x, len(x) // 2 + 1)
        return np.stack([torch.cat([_network(name)(part) for part in parts]).double().numpy() for name in _NETS])


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


class MovingPicture(Explorer):
    """What four trained networks say of a picture while it moves by parts of a pixel."""

    name = "moving_picture"
    title = "Four nets and a moving picture"
    caption = (
        "Top: a test picture, moved, and what each net gives to the right class (coloured) and to its strongest rival "
        "(grey); under each net stands its answer, and where grey is taller it is wrong. Bottom: the same for the "
        "right class at every place from 3 pixels left to 3 pixels right; the dots are now. Move dx slowly: the "
        "baseline's answer depends on the place, AFC's line is a ruler. Circular: what leaves on one side comes back "
        "on the other, which is the case that the theorem covers. Zero (background comes in, shifts are rounded to "
        "whole pixels) and bilinear (means of neighbours) it does not: look for pictures where AFC's line bends too, "
        "since content leaves the frame or is blurred."
    )
    declared = {
        "dx": Slider("dx: to the right (pixels)", -3.0, 3.0, 0.05, 1.25, format=".2f"),
        "dy": Slider("dy: down (pixels)", -3.0, 3.0, 0.05, 0.0, format=".2f"),
        "picture": Slider("test picture", 0, _PICTURES - 1, 1, 97),
        "kind": Choice("what comes in at the edge", _KINDS, "circular"),
        "curve": Choice("curve", (_PROBABILITY, _LOGIT), _PROBABILITY),
    }

    def build(self) -> go.Figure:
        """The picture, bars for its place, curves over all places."""
        figure = new_figure(3, titles=("picture", "classes", "curve"), height=640)
        figure.add_heatmap(
            colorscale=[[0, "#FFFFFF"], [1, "#000000"]],
            zmin=0,
            zmax=1,
            showscale=False,
            name="picture",
            hovertemplate="row %{y}, column %{x}: %{z:.2f}<extra></extra>",
            row=1,
            col=1,
        )
        place = {"width": 0.38, "row": 1, "col": 2}
        colours = [COLOURS[colour] for colour in _NET_COLOURS.values()]
        hover = "%{customdata}: %{y:.3f}<extra></extra>"
        figure.add_bar(marker={"color": colours}, name="right class", showlegend=False, hovertemplate=hover, **place)
        figure.add_bar(marker={"color": COLOURS["grey"]}, name="strongest rival", hovertemplate=hover, **place)
        for name, colour in _NET_COLOURS.items():
            width = 3.5 if name == "AFC" else 2
            figure.add_scatter(mode="lines", line={"color": COLOURS[colour], "width": width}, name=name, row=1, col=3)
        figure.add_scatter(mode="markers", marker=_HERE, name="now", row=1, col=3)
        figure.update_layout(barmode="overlay", margin={"b": 70})
        _arrange(figure, ((0.0, 0.32, 0.62, 1.0), (0.42, 1.0, 0.62, 1.0), (0.0, 1.0, 0.05, 0.42)))
        figure.update_xaxes(title="column [pixels]", range=[-0.5, 27.5], constrain="domain", row=1, col=1)
        figure.update_yaxes(title="row [pixels]", range=[27.5, -0.5], scaleanchor="x", row=1, col=1)
        figure.update_xaxes(
            title="net and its answer", range=[-0.55, 3.55], tickvals=[0, 1, 2, 3], tickangle=0, row=1, col=2
        )
        figure.update_yaxes(title="probability", range=[0, 1.02], row=1, col=2)
        figure.update_xaxes(range=[-3.1, 3.1], tickvals=[-3, -2, -1, 0, 1, 2, 3], row=1, col=3)
        return figure

    def compute(self, dx: float, dy: float, picture: int, kind: Kind, curve: str) -> Data:
        """A remembered curve for each picture, dy and kind; only the present place is classified anew."""
        right, down = (_carried_out(round(shift, 3), kind) for shift in (dx, dy))
        label = _clothes()[1][picture]
        with torch.inference_mode():
            moved = _moved(picture, down, kind, _mover(right, kind))
            logits = np.stack([_network(name)(moved[None, None])[0].double().numpy() for name in _NETS])
        along = _curve(picture, down, kind)
        chances = _softmax(logits)
        rivals = chances.copy()
        rivals[:, label] = -1.0
        shown, here = (_softmax(along), chances) if curve == _PROBABILITY else (along, logits)
        return {
            "picture": moved.double().numpy() * FASHION_SPREAD + FASHION_MEAN,
            "shift": np.array([right, down]),
            "label": label,
            "right": chances[:, label],
            "rival": rivals.max(axis=1),
            "rival_class": rivals.argmax(axis=1),
            "answer": chances.argmax(axis=1),
            "curves": shown[:, :, label],
            "here": here[:, label],
            "dx": dx,
            "kind": kind,
            "curve": curve,
        }

    def draw(self, data: Data) -> None:
        """Put picture, bars and curves in place."""
        image, right, rival, *curves, here = self.figure.data
        pixels = np.arange(data["picture"].shape[0])
        image.update(x=pixels, y=pixels, z=data["picture"])
        nets = np.arange(len(_NETS))
        label = FASHION_CLASSES[data["label"]]
        right.update(x=nets - 0.2, y=data["right"], customdata=[label] * len(nets))
        rivals = [FASHION_CLASSES[index] for index in data["rival_class"]]
        rival.update(x=nets + 0.2, y=data["rival"], customdata=rivals)
        for trace, values in zip(curves, data["curves"], strict=True):
            trace.update(x=_CURVE_SHIFTS, y=values)
        here.update(x=[data["dx"]] * len(nets), y=data["here"])
        answers = [f"{name}:<br>{FASHION_CLASSES[k]}" for name, k in zip(_NETS, data["answer"], strict=True)]
        self.figure.update_xaxes(ticktext=answers, row=1, col=2)
        rounded = ", rounded" if data["kind"] == "zero" else ""
        self.figure.update_xaxes(title=f"dx [pixels{rounded}]", row=1, col=3)
        if data["curve"] == _PROBABILITY:
            low, high, what = 0.0, 1.02, "probability"
        else:
            low, high = float(data["curves"].min()), float(data["curves"].max())
            low, high, what = low - 0.05 * (high - low) - 0.1, high + 0.05 * (high - low) + 0.1, "logit"
        self.figure.update_yaxes(title=what, range=[low, high], row=1, col=3)
        across, down = data["shift"]
        titles = self.figure.layout.annotations
        titles[0].text = f"dx {across:.2f}, dy {down:.2f}"
        titles[1].text = f"right class: {label}"
        titles[2].text = f"{what} of “{label}”"


_SAMPLES, _HIGHEST = 64, 31
_ONE_CYCLE = 2 * math.pi / _SAMPLES
_TONE_PHASES = np.array([0.4, 1.9, 3.1])
_ALL_SHIFTS = np.arange(-200, 201) / 100
_STILL = 200  # where no shift stands in `_ALL_SHIFTS`
#: The highest frequency that is drawn: a cubic's.
_WIDEST = 3 * _HIGHEST
#: Points of the lines, and how many of them are drawn.
_LINE, _LINE_SHOWN = 512, 24 * 8 + 1
_CUBIC = (0.0, 0.5, 0.3, 0.2)
_ACTIVATIONS = ("quadratic", "cubic", "ReLU", "GELU")


def _activated(values: Array, activation: str) -> Array:
    if activation == "ReLU":
        return np.maximum(values, 0.0)
    if activation == "GELU":
        return gelu(values)
    return np.asarray(evaluate_polynomial(values, GELU_QUADRATIC if activation == "quadratic" else _CUBIC))


def _tones(frequencies: Array, amplitudes: Array, points: int, shifts: Array) -> Array:
    """The sum of the tones, moved by each of the shifts, on a grid of so many points (shifts, points)."""
    places = np.arange(points) * (_SAMPLES / points)
    waves = amplitudes[:, None] * np.exp(1j * (_ONE_CYCLE * np.outer(frequencies, places) + _TONE_PHASES[:, None]))
    phases = np.exp(-1j * _ONE_CYCLE * np.outer(shifts, frequencies))
    return np.asarray((phases @ waves).real)


def _lines(values: Array) -> NDArray[np.complex128]:
    """Fourier coefficients (..., points // 2 + 1) of values on a grid, whatever its size."""
    return np.asarray(np.fft.rfft(values) / values.shape[-1])


def _heights(coefficients: NDArray[np.complex128]) -> Array:
    """Amplitudes of the cosines, from coefficients of the frequencies 0, 1, 2, ..."""
    return np.asarray(np.abs(coefficients) * np.append(1.0, np.full(coefficients.shape[-1] - 1, 2.0)))


def _sampled(coefficients: NDArray[np.complex128], points: int) -> Array:
    """The function with these coefficients on a grid that holds them."""
    return np.asarray(np.fft.irfft(coefficients * points, points))


class AliasMicroscope(Explorer):
    """Where the spectrum of an activation function goes on a grid that cannot hold it."""

    name = "alias_microscope"
    title = "Alias microscope: three tones, an activation function, and a grid"
    caption = (
        "A signal of 64 samples is brought to a finer grid (grid factor), goes through the activation function there, "
        "and back to 64 samples, which hold the frequencies up to 31. Top: the true spectrum of the result (blue; grey "
        "is cut off on the way back), and what the grid puts in wrong places: frequencies above half its points "
        "(dashed line) come back mirrored. What stays in the output of that is dark red. Try: for a quadratic it is "
        "gone at factor 1.5, for a cubic at 2, for ReLU and GELU never; where it is gone, it makes no difference "
        "whether the signal is moved before the activation or after (bottom). "
        "The trap: with GELU and factor 2 all looks perfect at a shift of 0.5, for half a pixel is a whole one of the "
        "finer grid; look at 0.37. The quadratic is the one nearest to GELU; the cubic is x/2 + 0.3 x² + 0.2 x³."
    )
    declared = {
        "f1": Slider("tone 1: frequency", 0, _HIGHEST, 1, 28),
        "a1": Slider("tone 1: amplitude", 0.0, 1.0, 0.05, 1.0, format=".2f"),
        "f2": Slider("tone 2: frequency", 0, _HIGHEST, 1, 9),
        "a2": Slider("tone 2: amplitude", 0.0, 1.0, 0.05, 0.6, format=".2f"),
        "f3": Slider("tone 3: frequency", 0, _HIGHEST, 1, 3),
        "a3": Slider("tone 3: amplitude", 0.0, 1.0, 0.05, 0.4, format=".2f"),
        "activation": Choice("activation function", _ACTIVATIONS, "quadratic"),
        "factor": Slider("grid factor", 1.0, 4.0, 0.25, 1.0, format=".2f"),
        "shift": Slider("shift (pixels)", -2.0, 2.0, 0.01, 0.37, format=".2f"),
    }

    def build(self) -> go.Figure:
        """The spectrum above, the signal and the error below."""
        figure = new_figure(3, titles=("spectrum", "signal", "error"), height=660)
        hover = "frequency %{x}: %{y:.2g}<extra></extra>"
        for name, colour, width in (
            ("true, kept", COLOURS["sky"], 0.9),
            ("true, cut off", "#CCCCCC", 0.9),
            ("folded, kept", COLOURS["vermilion"], 0.4),
            ("folded, cut off", "#EEB891", 0.4),
        ):
            figure.add_bar(width=width, marker={"color": colour}, name=name, hovertemplate=hover, row=1, col=1)
        black = {"color": COLOURS["black"], "width": 1.5}
        for name, dash in (("mirror: half the grid", "dash"), ("end of the output's band", "dot")):
            figure.add_scatter(mode="lines", line={**black, "dash": dash}, name=name, hoverinfo="skip", row=1, col=1)
        for name, line in (
            ("signal, moved", {"color": COLOURS["grey"], "width": 1.2}),
            ("moved first", {"color": COLOURS["blue"], "width": 4}),
            ("moved last", {"color": COLOURS["orange"], "width": 2, "dash": "dash"}),
        ):
            figure.add_scatter(mode="lines", line=line, name=name, row=1, col=2)
        figure.add_scatter(
            mode="lines", line={"color": COLOURS["green"], "width": 1.5}, name="error", showlegend=False, row=1, col=3
        )
        figure.add_scatter(mode="markers", marker=_HERE, name="this shift", row=1, col=3)
        figure.update_layout(barmode="overlay", bargap=0, margin={"b": 110})
        _arrange(figure, ((0.0, 1.0, 0.62, 1.0), (0.0, 0.52, 0.07, 0.42), (0.64, 1.0, 0.07, 0.42)))
        figure.update_xaxes(title="frequency [cycles per 64 pixels]", range=[-1, _WIDEST + 1], row=1, col=1)
        figure.update_yaxes(title="amplitude", type="log", dtick=1, range=[-7, 0.6], row=1, col=1)
        figure.update_xaxes(title="place [pixels]", range=[0, 24], row=1, col=2)
        figure.update_yaxes(title="value", row=1, col=2)
        figure.update_xaxes(title="shift [pixels]", range=[-2.05, 2.05], tickvals=[-2, -1, 0, 1, 2], row=1, col=3)
        figure.update_yaxes(title="error / largest value", type="log", dtick=4, range=[-17.3, 1], row=1, col=3)
        figure.update_yaxes(exponentformat="power")
        return figure

    def compute(
        self,
        *,
        f1: int,
        a1: float,
        f2: int,
        a2: float,
        f3: int,
        a3: float,
        activation: str,
        factor: float,
        shift: float,
    ) -> Data:
        """Spectra on the grid and on one that holds them; the error at every shift of the slider."""
        tones = np.array([f1, f2, f3], dtype=float), np.array([a1, a2, a3], dtype=float)
        points = round(factor * _SAMPLES)
        # polynomials are exact on any grid of more than 2 * _WIDEST points
        fine = 4 * _SAMPLES if activation in ("quadratic", "cubic") else 256 * _SAMPLES
        true = _lines(_activated(_tones(*tones, fine, np.zeros(1)), activation))[0]
        shifts = np.append(_ALL_SHIFTS, shift)
        on_grid = _lines(_activated(_tones(*tones, points, shifts), activation))
        held = points // 2  # the frequency of half the points has no sign of its own
        folded = np.zeros(_WIDEST + 1)
        seen = min(held, _WIDEST + 1)
        wrong = on_grid[_STILL, :seen] - true[:seen]
        folded[:seen] = _heights(wrong)
        output = on_grid[:, : _HIGHEST + 1]
        wanted = output[_STILL] * np.exp(-1j * _ONE_CYCLE * np.outer(shifts, np.arange(_HIGHEST + 1)))
        largest = float(np.abs(_sampled(output[_STILL], _SAMPLES)).max())
        errors = np.abs(_sampled(output - wanted, _SAMPLES)).max(axis=1) / max(largest, 1e-300)
        kept = slice(0, _HIGHEST + 1)
        energy = float((np.abs(true[kept]) ** 2).sum())
        share = float((np.abs(wrong[kept]) ** 2).sum()) / max(energy, 1e-300)
        shown = slice(0, _LINE_SHOWN)
        return {
            "true": np.maximum(_heights(true[: _WIDEST + 1]), _SMALLEST),
            "folded": np.maximum(folded, _SMALLEST),
            "folded_share": share,
            "points": points,
            "signal": _tones(*tones, _LINE, shifts[-1:])[0, shown],
            "moved_first": _sampled(output[-1], _LINE)[shown],
            "moved_last": _sampled(wanted[-1], _LINE)[shown],
            "errors": np.maximum(errors[:-1], _SMALLEST),
            "error": max(float(errors[-1]), _SMALLEST),
            "shift": shift,
            "activation": activation,
        }

    def draw(self, data: Data) -> None:
        """Put lines in place."""
        kept, cut, folded, folded_cut, mirror, end, signal, first, last, errors, here = self.figure.data
        k = np.arange(_WIDEST + 1)
        inside, outside = slice(0, _HIGHEST + 1), slice(_HIGHEST + 1, None)
        kept.update(x=k[inside], y=data["true"][inside])
        cut.update(x=k[outside], y=data["true"][outside])
        folded.update(x=k[inside], y=data["folded"][inside])
        folded_cut.update(x=k[outside], y=data["folded"][outside])
        mirror.update(x=[data["points"] / 2] * 2, y=[1e-7, 4.0])
        end.update(x=[_HIGHEST + 0.5] * 2, y=[1e-7, 4.0])
        places = np.arange(_LINE_SHOWN) * (_SAMPLES / _LINE)
        for trace, name in ((signal, "signal"), (first, "moved_first"), (last, "moved_last")):
            trace.update(x=places, y=data[name])
        errors.update(x=_ALL_SHIFTS, y=data["errors"])
        here.update(x=[data["shift"]], y=[data["error"]])
        titles = self.figure.layout.annotations
        share = data["folded_share"]
        said = "nothing" if share < 1e-24 else f"{share:.2g} of the energy"
        titles[
            0
        ].text = f"{data['activation']} on {data['points']} points for 64 samples: {said} in the output is an alias"
        titles[1].text = f"a third of the signal, moved by {data['shift']:.2f}"
        titles[2].text = f"error {data['error']:.2g} at {data['shift']:.2f}"


_MARGIN = 14
_SHOWN_CHANNELS = 16
_LAYERS = {"stem": 2, "first block": 2, "downsampling": 4, "last features": 4}
_DIVERGING = [[0, "#053061"], [0.25, "#4393C3"], [0.5, "#FFFFFF"], [0.75, "#E0704E"], [1, "#8A0F26"]]


@lru_cache(maxsize=1)
def _bag() -> torch.Tensor:
    """A bag in the middle of a wide background (1, 1, 56, 56): the network's torus has room for a walk."""
    images = clothes("test", 31, margin=_MARGIN).tensors[0]
    return images[30:31]


def _features(network: str, layer: str, x: torch.Tensor) -> torch.Tensor:
    """Features (C, H, W) of a picture (1, 1, H, W) behind a layer."""
    model = _network(network)
    with torch.inference_mode():
        x = model.stem(x)
        if layer != "stem":
            x = model.stages[0](x)
        if layer in ("downsampling", "last features"):
            x = model.downsamples[0](x)
        if layer == "last features":
            x = model.stages[1](x)
    return x[0]


@lru_cache(maxsize=len(_NETS) * len(_LAYERS))
def _still_features(network: str, layer: str) -> torch.Tensor:
    return _features(network, layer, _bag())


class FollowingFeatures(Explorer):
    """A feature map that moves with the picture, beside one that flickers."""

    name = "following_features"
    title = "Does the feature map follow the picture?"
    caption = (
        "A picture of a bag moves to the right. Left: one channel of the features of the moved picture. Middle: what "
        "it should be, the features of the picture at rest, moved by as many of their own (larger) pixels. Right: the "
        "difference, in parts of the largest feature of all channels, times the gain; e is its largest, in any "
        "channel, without the gain. Move the shift: behind the baseline's first stride the difference lights up at "
        "edges, and vanishes only where the shift is a multiple of the stride (2 pixels; 4 behind the downsampling). "
        "AFC's stays white until the gain reaches some hundred thousand, where float32 rounding shows. APS jumps from "
        "one grid of pixels to another as a whole."
    )
    declared = {
        "shift": Slider("shift to the right (pixels)", 0.0, 8.0, 0.1, 2.7, format=".1f"),
        "network": Choice("network", tuple(_NETS), "baseline"),
        "layer": Choice("layer", tuple(_LAYERS), "stem"),
        "channel": Slider("channel", 0, _SHOWN_CHANNELS - 1, 1, 0),
        "gain": Slider("gain of the difference", 0.0, 7.0, 0.5, 10**0.5, log=True),
    }

    def build(self) -> go.Figure:
        """Three maps."""
        figure = new_figure(3, titles=("moved", "wanted", "difference"), height=340)
        for column, name in enumerate(("moved", "wanted", "difference"), start=1):
            figure.add_heatmap(
                colorscale="Viridis" if column < 3 else _DIVERGING,
                showscale=False,
                name=name,
                hovertemplate="row %{y}, column %{x}: %{z:.3g}<extra></extra>",
                row=1,
                col=column,
            )
            figure.update_xaxes(constrain="domain", title="column [feature pixels]", row=1, col=column)
            anchor = f"x{column}" if column > 1 else "x"
            figure.update_yaxes(title="row [feature pixels]", scaleanchor=anchor, constrain="domain", row=1, col=column)
        figure.update_traces(zmin=-1, zmax=1, row=1, col=3)
        figure.update_layout(margin={"b": 60})
        return figure

    def compute(self, shift: float, network: str, layer: str, channel: int, gain: float) -> Data:
        """One pass of the moved picture through the layers; the picture at rest is remembered."""
        stride = _LAYERS[layer]
        moved = _features(network, layer, fourier_shift(_bag(), (0.0, shift))).double()
        plain = _still_features(network, layer).double()
        wanted = fourier_shift(plain, (0.0, shift / stride))
        difference = (moved - wanted) / plain.abs().max()
        return {
            "moved": moved[channel].numpy(),
            "wanted": wanted[channel].numpy(),
            "difference": (gain * difference[channel]).numpy(),
            "range": np.array([float(plain[channel].min()), float(plain[channel].max())]),
            "error": float(difference.abs().max()),
            "gain": gain,
            "shift": shift,
            "stride": stride,
        }

    def draw(self, data: Data) -> None:
        """Put maps in place."""
        low, high = data["range"]
        side = data["moved"].shape[0]
        pixels = np.arange(side)
        for trace, name in zip(self.figure.data, ("moved", "wanted"), strict=False):
            trace.update(x=pixels, y=pixels, z=data[name], zmin=low, zmax=high)
        self.figure.data[2].update(x=pixels, y=pixels, z=np.clip(data["difference"], -1.0, 1.0))
        ticks = list(range(0, side, side // 4))
        self.figure.update_xaxes(range=[-0.5, side - 0.5], tickvals=ticks)
        self.figure.update_yaxes(range=[side - 0.5, -0.5], tickvals=ticks)
        titles = self.figure.layout.annotations
        titles[0].text = f"picture moved by {data['shift']:.1f} pixels"
        titles[1].text = f"features moved by {data['shift'] / data['stride']:.3g} pixels"
        titles[2].text = f"gain {data['gain']:.2g}; e = {data['error']:.2g}"


_IDEAL = "ideal low-pass"
_FILTERS = ("no filter", *(f"BlurPool {size}" for size in range(2, 8)), _IDEAL)
_FILTER_COLOURS = ("grey", "sky", "blue", "purple", "orange", "vermilion", "black", "green")
_SWEEP_STEP = 0.025
_SWEEP = np.round(np.arange(101) * _SWEEP_STEP, 3)
_EDGE_AT = 24.0
_NOISE_SIDE = 32


def _layer(name: str) -> torch.nn.Module:
    """The down-sampling layer of one channel: a filter, and every second pixel."""
    if name == _IDEAL:
        return IdealDownsample2d(2)
    return BlurPool2d(1, 2, _taps(name))


@lru_cache(maxsize=1)
def _responses() -> Array:
    """What each filter leaves of the frequencies 0 ... 32 of 64 samples (8, 33)."""
    k = np.arange(_SAMPLES // 2 + 1)
    binomials = [np.cos(math.pi * k / _SAMPLES) ** (size - 1) for size in range(1, 8)]
    return np.array([*binomials, k < _SAMPLES // 4], dtype=np.float64)


@lru_cache(maxsize=1)
def _budget() -> tuple[Array, Array]:
    """Of white noise: the share of energy lost below a quarter of the samples, and that which is left above (8,)."""
    energy = _responses() ** 2
    k = np.arange(energy.shape[1])
    # a frequency and its negative, but for zero and half the samples
    weight = np.where((k == 0) | (k == k[-1]), 1.0, 2.0)
    below = weight * (k < _SAMPLES // 4)
    above = weight * (k >= _SAMPLES // 4)
    return 1 - energy @ below / below.sum(), energy @ above / above.sum()


@lru_cache(maxsize=1)
def _sweep_errors() -> Array:
    """Errors of the layers for noise, moved along its diagonal by every shift of the slider (8, 101)."""
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, _NOISE_SIDE, _NOISE_SIDE)))
    noise = fourier_shift(noise, (0.0, 0.0), nyquist="zero")
    layers = [_layer(name) for name in _FILTERS]
    return np.array([[equivariance_error(layer, noise, (s, s), stride=2) for s in _SWEEP.tolist()] for layer in layers])


def _edge(shift: float) -> Array:
    """A bar of light, 1 from pixel 24 + shift on and half the circle long; a pixel holds the mean over its width."""
    places = (np.arange(_SAMPLES) - _EDGE_AT - shift + _SAMPLES / 4) % _SAMPLES - _SAMPLES / 4
    return np.asarray(np.clip(places + 0.5, 0.0, 1.0) - np.clip(places - _SAMPLES / 2 + 0.5, 0.0, 1.0))


def _filtered(signal: Array, name: str) -> Array:
    """One row (64,) through a filter, every pixel kept."""
    row = torch.from_numpy(signal)[None, None, None]
    passed = ideal_lowpass(row, (1, _SAMPLES // 2)) if name == _IDEAL else BlurPool2d(1, 1, _taps(name))(row)
    return np.asarray(passed[0, 0, 0].numpy())


def _taps(name: str) -> int:
    return _FILTERS.index(name) + 1


class FilterShootOut(Explorer):
    """What filters in front of a stride lose, let through, and do to an edge."""

    name = "filter_shoot_out"
    title = "Which filter before a stride of two?"
    caption = (
        "A stride of two halves the grid: of 64 samples it can hold frequencies below 16, and what is left above folds "
        "onto them. Top left: how much of each frequency a filter passes; the chosen one is thick. Top right: the "
        "bargain of smoothing, energy of white noise lost below 16 against energy left above. Larger BlurPools go from "
        "one evil to the other; the ideal low-pass (diamond) has neither. Bottom left: the error of filter and stride "
        "for a shift of noise. Shifts by whole strides are exact whatever the filter; the ideal one's error is "
        "rounding everywhere. Its price is bottom right: at a sharp edge it rings, and overshoots by 5 to 10 % "
        "(Gibbs). Dots are the samples that the stride keeps; the shift moves the edge between them."
    )
    declared = {
        "shift": Slider("shift (pixels)", 0.0, 2.5, _SWEEP_STEP, 1.3, format=".3f"),
        "filter": Choice("filter", _FILTERS, "BlurPool 3"),
    }

    def build(self) -> go.Figure:
        """Responses, their budget, errors, and an edge."""
        figure = new_figure(4, titles=("response", "budget", "errors", "edge"), height=640)
        for column in (1, 3):
            for name, colour in zip(_FILTERS, _FILTER_COLOURS, strict=True):
                figure.add_scatter(
                    mode="lines",
                    line={"color": COLOURS[colour], "width": 1.2},
                    name=name,
                    showlegend=column == 1,
                    row=1,
                    col=column,
                )
        figure.add_scatter(mode="lines", line=_GUIDE, showlegend=False, name="half the band", row=1, col=1)
        figure.add_scatter(
            mode="lines+markers",
            line={"color": COLOURS["grey"], "width": 1},
            marker={"size": 7, "color": COLOURS["grey"]},
            showlegend=False,
            name="no filter, BlurPool 2 to 7",
            row=1,
            col=2,
        )
        for symbol, size, name in (("diamond", 10, _IDEAL), ("circle", 13, "chosen")):
            figure.add_scatter(
                mode="markers",
                marker={"size": size, "symbol": symbol, "color": COLOURS["green"]},
                showlegend=False,
                name=name,
                row=1,
                col=2,
            )
        figure.add_scatter(mode="markers", marker=_HERE, showlegend=False, name="this shift", row=1, col=3)
        figure.add_scatter(mode="lines", line={**_GUIDE, "dash": "solid"}, name="the edge", row=1, col=4)
        figure.add_scatter(mode="lines", line={"color": COLOURS["black"], "width": 2}, name="filtered", row=1, col=4)
        figure.add_scatter(mode="markers", marker={"size": 8}, name="kept by the stride", row=1, col=4)
        figure.update_layout(margin={"b": 100})
        _arrange(
            figure, ((0.0, 0.44, 0.64, 1.0), (0.56, 1.0, 0.64, 1.0), (0.0, 0.44, 0.08, 0.44), (0.56, 1.0, 0.08, 0.44))
        )
        figure.update_xaxes(title="frequency [cycles per 64 pixels]", range=[-0.5, 32.5], row=1, col=1)
        figure.update_yaxes(title="share of the amplitude", range=[-0.03, 1.05], row=1, col=1)
        figure.update_xaxes(title="energy lost below 16 [share]", range=[-0.04, 1.0], row=1, col=2)
        figure.update_yaxes(title="energy left above [share]", range=[-0.06, 1.08], row=1, col=2)
        figure.update_xaxes(
            title="shift [pixels]", range=[-0.05, 2.55], tickvals=[0, 0.5, 1, 1.5, 2, 2.5], row=1, col=3
        )
        figure.update_yaxes(title="error / largest value", type="log", dtick=4, range=[-17.3, 1.5], row=1, col=3)
        figure.update_yaxes(exponentformat="power", row=1, col=3)
        figure.update_xaxes(title="place [pixels]", range=[8, 40], row=1, col=4)
        figure.update_yaxes(title="brightness", range=[-0.25, 1.25], row=1, col=4)
        return figure

    def compute(self, shift: float, filter: str) -> Data:
        """Closed forms for the filters; the errors are measured once."""
        chosen = _FILTERS.index(filter)
        edge = _edge(shift)
        filtered = _filtered(edge, filter)
        lost, left = _budget()
        errors = np.maximum(_sweep_errors(), _SMALLEST)
        return {
            "chosen": chosen,
            "responses": _responses(),
            "lost": lost,
            "left": left,
            "errors": errors,
            "error": float(errors[chosen][round(shift / _SWEEP_STEP)]),
            "shift": shift,
            "edge": edge,
            "filtered": filtered,
            "overshoot": float(filtered.max() - 1.0),
        }

    def draw(self, data: Data) -> None:
        """Put curves and dots in place."""
        count = len(_FILTERS)
        responses, sweeps = self.figure.data[:count], self.figure.data[count : 2 * count]
        half, bargain, ideal, dot, here, edge, filtered, kept = self.figure.data[2 * count :]
        chosen = data["chosen"]
        for number in range(count):
            width = 5 if number == chosen else 1.2
            responses[number].update(x=np.arange(_SAMPLES // 2 + 1), y=data["responses"][number], line_width=width)
            sweeps[number].update(x=_SWEEP, y=data["errors"][number], line_width=width)
        half.update(x=[_SAMPLES / 4] * 2, y=[-0.03, 1.05])
        lost, left = data["lost"], data["left"]
        bargain.update(x=lost[:-1], y=left[:-1])
        ideal.update(x=lost[-1:], y=left[-1:])
        colour = COLOURS[_FILTER_COLOURS[chosen]]
        dot.update(x=lost[chosen : chosen + 1], y=left[chosen : chosen + 1], marker_color=colour)
        here.update(x=[data["shift"]], y=[data["error"]])
        places = np.arange(_SAMPLES)
        edge.update(x=places, y=data["edge"])
        filtered.update(x=places, y=data["filtered"], line_color=colour)
        kept.update(x=places[::2], y=data["filtered"][::2], marker_color=colour)
        titles = self.figure.layout.annotations
        titles[0].text = f"passed by: {_FILTERS[chosen]}"
        titles[1].text = f"{lost[chosen]:.0%} lost, {left[chosen]:.0%} left to fold"
        titles[2].text = f"error {data['error']:.2g} at a shift of {data['shift']:.3g}"
        overshoot = data["overshoot"]
        titles[3].text = f"an edge: overshoot {max(overshoot, 0.0):.0%}"
