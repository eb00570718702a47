"""The live figures of chapter 06."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from scipy.special import softmax

from lib.alias_free.attacks import BACKGROUND
from lib.alias_free.convnext import ConvNeXt, Mode
from lib.alias_free.experiment import trained_network
from lib.alias_free.layers import BlurPool2d, IdealDownsample2d
from lib.alias_free.polynomials import GELU_QUADRATIC, evaluate_polynomial, gelu
from lib.alias_free.resampling import fourier_shift, ideal_lowpass
from lib.alias_free.robustness import Kind, equivariance_error, translate
from lib.datasets import FASHION_CLASSES, FASHION_MEAN, FASHION_SPREAD, clothes
from lib.explorer import Choice, Data, Explorer, Key, Panel, Slider, Trace, axis, bars, dots, heatmap, line
from lib.style import COLOURS, DIVERGING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["AliasMicroscope", "FilterShootOut", "FollowingFeatures", "MovingPicture"]

#: The networks, as the figures call them, and their colours.
_NETS: dict[str, Mode] = {"baseline": "baseline", "BlurPool": "blurpool", "APS": "aps", "AFC": "afc"}
_NET_COLOURS = dict(zip(_NETS, ("vermilion", "orange", "purple", "blue"), strict=True))
#: Below this an error is nothing but rounding, and a logarithm would go wrong at zero.
_SMALLEST = 1e-17


@lru_cache(maxsize=4)
def _network(name: str) -> ConvNeXt:
    return trained_network(_NETS[name]).model.requires_grad_(False)


_PICTURES = 100
_PIXELS = np.arange(28)
_REACH = 3
_CURVE_SHIFTS = np.linspace(-_REACH, _REACH, 16 * _REACH + 1)
_GREYS = [[0, "#FFFFFF"], [1, "#000000"]]
_BESIDE = np.arange(len(_NETS))
_BARS: dict[str, Any] = {"width": 0.38, "hover": "%{customdata}: %{y:.3f}", "panel": 2}
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
        movers = torch.stack([_mover(_carried_out(float(shift), kind), kind) for shift in _CURVE_SHIFTS])
        x = _moved(picture, down, kind, movers)[:, None]
        # half at a time: maps that stay in the processor's cache are faster
        parts = torch.split(x, len(x) // 2 + 1)
        return np.stack([torch.cat([_network(name)(part) for part in parts]).double().numpy() for name in _NETS])


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
        "kind": Choice("what comes in at the edge", get_args(Kind), "circular"),
        "curve": Choice("curve", (_PROBABILITY, _LOGIT), _PROBABILITY),
    }

    figure_layout = {"height": 640, "barmode": "overlay", "margin": {"b": 70}}
    panels = (
        Panel(
            "dx {right_shift:.2f}, dy {down_shift:.2f}",
            axis("column [pixels]", (-0.5, 27.5)),
            axis("row [pixels]", (27.5, -0.5)),
            place=(0.0, 0.32, 0.62, 1.0),
            equal=True,
        ),
        Panel(
            "right class: {label}",
            axis("net and its answer", (-0.55, 3.55), tickvals=[0, 1, 2, 3], ticktext=Key("answers"), tickangle=0),
            axis("probability", (0, 1.02)),
            place=(0.42, 1.0, 0.62, 1.0),
        ),
        Panel(
            "{what} of “{label}”",
            axis("dx [pixels{rounded}]", (-3.1, 3.1), tickvals=[-3, -2, -1, 0, 1, 2, 3]),
            axis("{what}", Key("curve_range")),
            place=(0.0, 1.0, 0.05, 0.42),
        ),
    )
    traces = (
        heatmap("picture", _GREYS, 0, 1, hover="row %{y}, column %{x}: %{z:.2f}", x=_PIXELS, y=_PIXELS, z="picture"),
        bars(
            "right class", *_NET_COLOURS.values(), legend=False, x=_BESIDE - 0.2, y="right", customdata="label", **_BARS
        ),
        bars("strongest rival", "grey", x=_BESIDE + 0.2, y="rival", customdata="rivals", **_BARS),
        *(
            line(net, colour, width=3.5 if net == "AFC" else 2, panel=3, x=_CURVE_SHIFTS, y=net)
            for net, colour in _NET_COLOURS.items()
        ),
        dots("now", "black", size=9, panel=3, x="dx", y="here"),
    )

    def compute(self, dx: float, dy: float, picture: int, kind: Kind, curve: str) -> Data:
        """A remembered curve for each picture, dy and kind; only the present place is classified anew."""
        right, down = (_carried_out(round(shift, 3), kind) for shift in (dx, dy))
        right_class = _clothes()[1][picture]
        with torch.inference_mode():
            moved = _moved(picture, down, kind, _mover(right, kind))
            logits = np.stack([_network(name)(moved[None, None])[0].double().numpy() for name in _NETS])
        along = _curve(picture, down, kind)
        chances = softmax(logits, axis=-1)
        rivals = chances.copy()
        rivals[:, right_class] = -1.0
        shown, here = (softmax(along, axis=-1), chances) if curve == _PROBABILITY else (along, logits)
        curves = shown[:, :, right_class]
        low, high = float(curves.min()), float(curves.max())
        margin = 0.05 * (high - low) + 0.1
        answers = [FASHION_CLASSES[k] for k in chances.argmax(axis=1)]
        return {
            "picture": moved.double().numpy() * FASHION_SPREAD + FASHION_MEAN,
            "right_shift": right,
            "down_shift": down,
            "rounded": ", rounded" if kind == "zero" else "",
            "label": FASHION_CLASSES[right_class],
            "right": chances[:, right_class],
            "rival": rivals.max(axis=1),
            "rivals": [FASHION_CLASSES[k] for k in rivals.argmax(axis=1)],
            "answers": [f"{name}:<br>{answer}" for name, answer in zip(_NETS, answers, strict=True)],
            **dict(zip(_NETS, curves, strict=True)),
            "curve_range": (0.0, 1.02) if curve == _PROBABILITY else (low - margin, high + margin),
            "here": here[:, right_class],
            "dx": dx,
            "what": curve,
        }


_SAMPLES, _HIGHEST = 64, 31
_ONE_CYCLE = 2 * math.pi / _SAMPLES
_TONE_PHASES = np.array([0.4, 1.9, 3.1])
_ALL_SHIFTS = np.arange(-200, 201) / 100
_STILL = 200  # where no shift stands in `_ALL_SHIFTS`
#: The highest frequency that is drawn: a cubic's.
_WIDEST = 3 * _HIGHEST
_BAND_END = (_HIGHEST + 0.5, _HIGHEST + 0.5)
#: Points of the lines, and how many of them are drawn.
_LINE, _LINE_SHOWN = 512, 24 * 8 + 1
_LINE_PLACES = np.arange(_LINE_SHOWN) * (_SAMPLES / _LINE)
#: Frequencies that the way back to 64 samples keeps, and those that it cuts off.
_KEPT, _CUT = np.arange(_HIGHEST + 1), np.arange(_HIGHEST + 1, _WIDEST + 1)
_LINE_HOVER = "frequency %{x}: %{y:.2g}"
_POLYNOMIALS = {"quadratic": GELU_QUADRATIC, "cubic": (0.0, 0.5, 0.3, 0.2)}


def _activated(values: Array, activation: str) -> Array:
    if activation in _POLYNOMIALS:
        return np.asarray(evaluate_polynomial(values, _POLYNOMIALS[activation]))
    return np.maximum(values, 0.0) if activation == "ReLU" else gelu(values)


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
        "activation": Choice("activation function", (*_POLYNOMIALS, "ReLU", "GELU"), "quadratic"),
        "factor": Slider("grid factor", 1.0, 4.0, 0.25, 1.0, format=".2f"),
        "shift": Slider("shift (pixels)", -2.0, 2.0, 0.01, 0.37, format=".2f"),
    }

    figure_layout = {"height": 660, "barmode": "overlay", "bargap": 0, "margin": {"b": 110}}
    panels = (
        Panel(
            "{activation} on {points} points for 64 samples: {said} in the output is an alias",
            axis("frequency [cycles per 64 pixels]", (-1, _WIDEST + 1)),
            axis("amplitude", (-7, 0.6), log=True, dtick=1, exponentformat="power"),
            place=(0.0, 1.0, 0.62, 1.0),
        ),
        Panel(
            "a third of the signal, moved by {shift:.2f}",
            axis("place [pixels]", (0, 24)),
            axis("value", exponentformat="power"),
            place=(0.0, 0.52, 0.07, 0.42),
        ),
        Panel(
            "error {error:.2g} at {shift:.2f}",
            axis("shift [pixels]", (-2.05, 2.05), tickvals=[-2, -1, 0, 1, 2]),
            axis("error / largest value", (-17.3, 1), log=True, dtick=4, exponentformat="power"),
            place=(0.64, 1.0, 0.07, 0.42),
        ),
    )
    traces = (
        bars("true, kept", "sky", width=0.9, hover=_LINE_HOVER, x=_KEPT, y="true_kept"),
        bars("true, cut off", "#CCCCCC", width=0.9, hover=_LINE_HOVER, x=_CUT, y="true_cut"),
        bars("folded, kept", "vermilion", width=0.4, hover=_LINE_HOVER, x=_KEPT, y="folded_kept"),
        bars("folded, cut off", "#EEB891", width=0.4, hover=_LINE_HOVER, x=_CUT, y="folded_cut"),
        line("mirror: half the grid", "black", dash="dash", width=1.5, hover=False, x="mirror", y=(1e-7, 4.0)),
        line("end of the output's band", "black", dash="dot", width=1.5, hover=False, x=_BAND_END, y=(1e-7, 4.0)),
        line("signal, moved", "grey", width=1.2, panel=2, x=_LINE_PLACES, y="signal"),
        line("moved first", "blue", width=4, panel=2, x=_LINE_PLACES, y="moved_first"),
        line("moved last", "orange", width=2, dash="dash", panel=2, x=_LINE_PLACES, y="moved_last"),
        line("error", "green", width=1.5, legend=False, panel=3, x=_ALL_SHIFTS, y="errors"),
        dots("this shift", "black", size=9, panel=3, x="shift", y="error"),
    )

    def compute(self, *, activation: str, factor: float, shift: float, **tone: float) -> Data:
        """Spectra on the grid and on one that holds them; the error at every shift of the slider."""
        tones = np.array([tone[f"f{k}"] for k in (1, 2, 3)]), np.array([tone[f"a{k}"] for k in (1, 2, 3)])
        points = round(factor * _SAMPLES)
        # polynomials are exact on any grid of more than 2 * _WIDEST points
        fine = 4 * _SAMPLES if activation in _POLYNOMIALS else 256 * _SAMPLES
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
        energies = [float((np.abs(each[: _HIGHEST + 1]) ** 2).sum()) for each in (wrong, true)]
        share = energies[0] / max(energies[1], 1e-300)
        drawn = np.maximum([_heights(true[: _WIDEST + 1]), folded], _SMALLEST)
        (true_kept, folded_kept), (true_cut, folded_cut) = np.split(drawn, [_HIGHEST + 1], axis=1)
        return {
            "true_kept": true_kept,
            "true_cut": true_cut,
            "folded_kept": folded_kept,
            "folded_cut": folded_cut,
            "folded_share": share,
            "said": "nothing" if share < 1e-24 else f"{share:.2g} of the energy",
            "points": points,
            "mirror": points / 2,
            "signal": _tones(*tones, _LINE, shifts[-1:])[0, :_LINE_SHOWN],
            "moved_first": _sampled(output[-1], _LINE)[:_LINE_SHOWN],
            "moved_last": _sampled(wanted[-1], _LINE)[:_LINE_SHOWN],
            "errors": np.maximum(errors[:-1], _SMALLEST),
            "error": max(float(errors[-1]), _SMALLEST),
            "shift": shift,
            "activation": activation,
        }


_MARGIN = 14
_SHOWN_CHANNELS = 16
_LAYERS = {"stem": 2, "first block": 2, "downsampling": 4, "last features": 4}


@lru_cache(maxsize=1)
def _bag() -> torch.Tensor:
    """A bag in the middle of a wide background (1, 1, 56, 56): the network's torus has room for a walk."""
    images = clothes("test", 31, margin=_MARGIN).tensors[0]
    return images[30:31]


def _features(network: str, layer: str, x: torch.Tensor) -> torch.Tensor:
    """Features (C, H, W) of a picture (1, 1, H, W) behind a layer."""
    model = _network(network)
    parts = (model.stem, model.stages[0], model.downsamples[0], model.stages[1])
    with torch.inference_mode():
        for part in parts[: list(_LAYERS).index(layer) + 1]:
            x = part(x)
    return x[0]


@lru_cache(maxsize=len(_NETS) * len(_LAYERS))
def _still_features(network: str, layer: str) -> torch.Tensor:
    return _features(network, layer, _bag())


def _feature_map(panel: int, name: str, colors: Any, low: float | Key, high: float | Key) -> Trace:
    hover = "row %{y}, column %{x}: %{z:.3g}"
    return heatmap(name, colors, low, high, hover=hover, panel=panel, x="pixels", y="pixels", z=name)


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

    figure_layout = {"height": 340, "margin": {"b": 60}}
    panels = tuple(
        Panel(
            title,
            axis("column [feature pixels]", Key("columns"), tickvals=Key("ticks")),
            axis("row [feature pixels]", Key("rows"), tickvals=Key("ticks")),
            equal=True,
        )
        for title in (
            "picture moved by {shift:.1f} pixels",
            "features moved by {feature_shift:.3g} pixels",
            "gain {gain:.2g}; e = {error:.2g}",
        )
    )
    traces = (
        _feature_map(1, "moved", "Viridis", Key("low"), Key("high")),
        _feature_map(2, "wanted", "Viridis", Key("low"), Key("high")),
        _feature_map(3, "difference", DIVERGING, -1, 1),
    )

    def compute(self, shift: float, network: str, layer: str, channel: int, gain: float) -> Data:
        """One pass of the moved picture through the layers; the picture at rest is remembered."""
        stride = _LAYERS[layer]
        moved = _features(network, layer, fourier_shift(_bag(), (0.0, shift))).double()
        plain = _still_features(network, layer).double()
        wanted = fourier_shift(plain, (0.0, shift / stride))
        difference = (moved - wanted) / plain.abs().max()
        side = moved.shape[-1]
        return {
            "moved": moved[channel].numpy(),
            "wanted": wanted[channel].numpy(),
            "difference": (gain * difference[channel]).clip(-1.0, 1.0).numpy(),
            "low": float(plain[channel].min()),
            "high": float(plain[channel].max()),
            "error": float(difference.abs().max()),
            "gain": gain,
            "shift": shift,
            "feature_shift": shift / stride,
            "pixels": np.arange(side),
            "columns": (-0.5, side - 0.5),
            "rows": (side - 0.5, -0.5),
            "ticks": list(range(0, side, side // 4)),
        }


_IDEAL = "ideal low-pass"
_FILTERS = ("no filter", *(f"BlurPool {size}" for size in range(2, 8)), _IDEAL)
_FILTER_COLOURS = ("grey", "sky", "blue", "purple", "orange", "vermilion", "black", "green")
_SWEEP_STEP = 0.025
_SWEEP = np.round(np.arange(101) * _SWEEP_STEP, 3)
_HALF_BAND = (_SAMPLES / 4, _SAMPLES / 4)
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

    figure_layout = {"height": 640, "margin": {"b": 100}}
    panels = (
        Panel(
            "passed by: {filter}",
            axis("frequency [cycles per 64 pixels]", (-0.5, 32.5)),
            axis("share of the amplitude", (-0.03, 1.05)),
            place=(0.0, 0.44, 0.64, 1.0),
        ),
        Panel(
            "{lost_here:.0%} lost, {left_here:.0%} left to fold",
            axis("energy lost below 16 [share]", (-0.04, 1.0)),
            axis("energy left above [share]", (-0.06, 1.08)),
            place=(0.56, 1.0, 0.64, 1.0),
        ),
        Panel(
            "error {error:.2g} at a shift of {shift:.3g}",
            axis("shift [pixels]", (-0.05, 2.55), tickvals=[0, 0.5, 1, 1.5, 2, 2.5]),
            axis("error / largest value", (-17.3, 1.5), log=True, dtick=4, exponentformat="power"),
            place=(0.0, 0.44, 0.08, 0.44),
        ),
        Panel(
            "an edge: overshoot {overshoot:.0%}",
            axis("place [pixels]", (8, 40)),
            axis("brightness", (-0.25, 1.25)),
            place=(0.56, 1.0, 0.08, 0.44),
        ),
    )
    traces = (
        *(
            line(name, colour, width=Key(f"width of {name}"), x=np.arange(_SAMPLES // 2 + 1), y=f"response of {name}")
            for name, colour in zip(_FILTERS, _FILTER_COLOURS, strict=True)
        ),
        *(
            line(name, colour, width=Key(f"width of {name}"), legend=False, panel=3, x=_SWEEP, y=f"errors of {name}")
            for name, colour in zip(_FILTERS, _FILTER_COLOURS, strict=True)
        ),
        line("half the band", "grey", dash="dash", width=1.5, legend=False, x=_HALF_BAND, y=(-0.03, 1.05)),
        line(
            "no filter, BlurPool 2 to 7",
            "grey",
            mode="lines+markers",
            width=1,
            marker_size=7,
            legend=False,
            panel=2,
            xy="binomials",
        ),
        dots(_IDEAL, "green", size=10, symbol="diamond", legend=False, panel=2, xy="ideal"),
        dots("chosen", Key("colour"), size=13, symbol="circle", legend=False, panel=2, x="lost_here", y="left_here"),
        dots("this shift", "black", size=9, legend=False, panel=3, x="shift", y="error"),
        line("the edge", "grey", dash="solid", width=1.5, panel=4, x=np.arange(_SAMPLES), y="edge"),
        line("filtered", Key("colour"), width=2, panel=4, x=np.arange(_SAMPLES), y="filtered"),
        dots("kept by the stride", Key("colour"), size=8, panel=4, x=np.arange(0, _SAMPLES, 2), y="kept"),
    )

    def compute(self, shift: float, filter: str) -> Data:
        """Closed forms for the filters; the errors are measured once."""
        chosen = _FILTERS.index(filter)
        edge = _edge(shift)
        filtered = _filtered(edge, filter)
        lost, left = _budget()
        budget = np.column_stack([lost, left])
        errors = np.maximum(_sweep_errors(), _SMALLEST)
        return {
            "filter": filter,
            "colour": COLOURS[_FILTER_COLOURS[chosen]],
            **{f"width of {name}": 5.0 if name == filter else 1.2 for name in _FILTERS},
            **{f"response of {name}": each for name, each in zip(_FILTERS, _responses(), strict=True)},
            **{f"errors of {name}": each for name, each in zip(_FILTERS, errors, strict=True)},
            "binomials": budget[:-1],
            "ideal": budget[-1],
            "lost_here": lost[chosen],
            "left_here": left[chosen],
            "error": float(errors[chosen][round(shift / _SWEEP_STEP)]),
            "shift": shift,
            "edge": edge,
            "filtered": filtered,
            "kept": filtered[::2],
            "overshoot": max(float(filtered.max() - 1.0), 0.0),
        }
