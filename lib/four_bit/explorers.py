"""The live figures of chapter 04."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from lib.explorer import Choice, Data, Explorer, Key, Panel, Slider, axis, bars, dots, heatmap, line
from lib.four_bit.comparison import ROUNDINGS
from lib.four_bit.layers import LUQConfig
from lib.four_bit.logarithmic import Rounding, luq_decode, luq_encode, luq_mean, luq_variance, random_mantissas
from lib.four_bit.multiplier_free import mf_product
from lib.four_bit.two_layers import two_layer_errors
from lib.four_bit.weight_updates import captured_gradient, update_error
from lib.style import COLOURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["GradientHistogram", "MultiplierFree", "OneNumber", "WhereToBeUnbiased"]

_MODES = ("LUQ", "naive", "nearest", "stochastic rounding only", "stochastic underflow only")
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

    figure_layout = {"height": 440, "barmode": "overlay"}
    panels = (
        Panel(
            "sizes of gradients",
            axis("log₂ of size / largest", (-21.8, 1)),
            axis("part of all gradients", Key("part_range")),
            width=0.62,
        ),
        Panel(
            "bias {error[0]:.3f}, noise {error[1]:.3f}",
            axis("kind of error", (-0.6, 2.6), tickvals=[0, 1, 2], ticktext=["bias", "noise", "rms"]),
            axis("error / size of the update", Key("error_range")),
            width=0.38,
        ),
    )
    traces = (
        bars("before", "#BBBBBB", width=0.5, hoverinfo="y", x=(_BINS[1:] + _BINS[:-1]) / 2, y="before"),
        bars("after", "blue", width=0.22, hoverinfo="y", x="level", y="after"),
        bars("error", "vermilion", "green", "purple", width=0.6, legend=False, panel=2, x=(0, 1, 2), y="error"),
    )

    def compute(self, levels: int, clip: float, samples: int, mode: str) -> Data:
        """One draw for the histogram; mean and variance in closed form for the update."""
        delta, rand, largest, before = _real_gradient()
        config = LUQConfig(fmt=levels, samples=samples, **ROUNDINGS[mode])
        codes, _ = luq_encode(delta, config, rand=rand, max_abs=largest * 2**clip, check=False)
        counts = np.bincount((codes & (15 if levels == 8 else 7)).flatten().numpy(), minlength=levels + 1)
        zeros = counts[0] - int((delta == 0).sum())
        after = np.append(zeros, counts[1 : levels + 1]) / delta.numel()
        error = update_error(captured_gradient(), config, max_abs=largest * 2**clip)
        errors = np.array([error.bias, error.noise, error.rms])
        return {
            "before": before,
            "level": np.append(-21.0, clip + np.arange(1 - levels, 1)),
            "after": after,
            "part_range": (0.0, max(0.12, 1.08 * float(after.max()))),
            "error": errors,
            "error_range": (0.0, max(0.3, 1.08 * float(errors.max()))),
        }


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

    may_be_absent = ("up", "down")
    with_gaps = ("grid",)
    figure_layout = {"height": 440}
    panels = (
        Panel(
            "{x:.3f} → {high:.4g} with {chance:.0%}, {low:.4g} with {other_chance:.0%}",
            axis("x / largest", (0, 1.12)),
            axis("value after rounding / largest", (-0.04, 1.12)),
        ),
        Panel(
            "bias {errors[0]:.4f}, standard deviation {errors[1]:.4f}",
            axis("x / largest", (0, 1.12)),
            axis("error / largest"),
        ),
    )
    traces = (
        line("levels", "grey", width=1, xy="grid"),
        line("unbiased: the mean is x", "black", dash="dash", width=1.5, x=(0, 1.1), y=(0, 1.1)),
        line("mean", "blue", width=2.5, x=_ALL_X, y="mean"),
        dots("up", "vermilion", size=Key("up_size"), x="x", y="up"),
        dots("down", "orange", size=Key("down_size"), x="x", y="down"),
        line("rms error", "sky", width=5, panel=2, x=_ALL_X, y="rms"),
        line("standard deviation", "green", width=2, panel=2, x=_ALL_X, y="deviation"),
        line("bias", "vermilion", width=2, panel=2, x=_ALL_X, y="bias"),
        dots("at x", "black", size=8, legend=False, panel=2, x="x", y="errors"),
    )

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
        chance = min(max(chance, 0.0), 1.0)  # chances are the sizes of the dots
        bias = np.abs(mean - numbers.double().numpy())
        rms = np.hypot(bias, deviation)
        ends = np.array([0.0, 1.1, np.nan])
        return {
            "x": x,
            "grid": np.column_stack([np.tile(ends, len(grid)), np.repeat(grid, 3)]),
            "mean": mean[:-1],
            "low": low,
            "high": high,
            "chance": chance,
            "other_chance": 1 - chance,
            "up": high if chance > 0 else np.nan,
            "down": low if chance < 1 else np.nan,
            "up_size": 6 + 18 * chance,
            "down_size": 6 + 18 * (1 - chance),
            "rms": rms[:-1],
            "deviation": deviation[:-1],
            "bias": bias[:-1],
            "errors": np.array([bias[-1], deviation[-1], rms[-1]]),
        }


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

    figure_layout = {"height": 440, "barmode": "overlay"}
    panels = (
        Panel(
            "outputs: rms error {outputs_now:.2f}",
            axis("rounding of weights and activations", (-0.6, 1.6), tickvals=[0, 1], ticktext=list(_FORWARD)),
            axis("error / size of the outputs", (0, 0.5)),
            width=0.36,
        ),
        Panel(
            "gradient: bias {gradient_bias:.2f}, noise {gradient_noise:.2f} a pass",
            axis("averaged passes", (-0.1, 3.75), log=True, dtick=1),
            axis("error / size of the gradient", (-2.6, 0.7), log=True, dtick=1),
            width=0.64,
        ),
    )
    traces = (
        bars("rms error", "sky", width=0.5, x=(0, 1), y="rms"),
        bars("its bias", "vermilion", width=0.5, x=(0, 1), y="bias"),
        dots("chosen", "black", size=11, x="forward", y="over_chosen"),
        line("backward naive", "vermilion", width=2.5, panel=2, x=_PASSES, y="naive"),
        line("backward by chance: LUQ", "blue", width=2.5, panel=2, x=_PASSES, y="luq"),
        dots("here", "black", size=11, legend=False, panel=2, x="passes", y="here"),
    )

    def compute(self, log_passes: int, forward: str, backward: str, fmt: str, against: str) -> Data:
        """Remembered averages over 256 passes a setting; the rest follows from bias and noise."""
        name = "gradient" if against == "the same forward pass" else "whole_gradient"
        outputs = [two_layer_errors(way, "naive", fmt).outputs for way in _FORWARD]
        both = [getattr(two_layer_errors(forward, way, fmt), name) for way in _BACKWARD]
        naive, luq = ([max(each.after(passes), 1e-3) for passes in _PASSES] for each in both)
        chosen = _BACKWARD.index(backward)
        place = _FORWARD.index(forward)
        rms = np.array([each.after(1) for each in outputs])
        return {
            "rms": rms,
            "bias": np.array([each.bias for each in outputs]),
            "forward": place,
            "outputs_now": rms[place],
            "over_chosen": rms[place] + 0.03,
            "naive": np.array(naive),
            "luq": np.array(luq),
            "passes": 2.0**log_passes,
            "here": max(both[chosen].after(2.0**log_passes), 1e-3),
            "gradient_bias": both[chosen].bias,
            "gradient_noise": both[chosen].noise,
        }


#: Gates of the two ways, as remembered from the paper's Appendix A.8, not confirmed; the factor of five is the paper's.
#: Of a cast and a product: multiplexers of exponent and mantissa, multiplier, adder of exponents, sign, normalisation,
#: rounding, exponent. Of a shift: adder of exponents, multiplexer of the mantissa, sign.
_GATES = np.array([12 + 18 + 99 + 37 + 1 + 48 + 12 + 37, 30 + 18 + 1])
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
    declared = {"w": Slider("integer w (INT4)", -8, 7, 1, 5), "code": Slider("gradient's code (FP4)", 0, 15, 1, 10)}

    figure_layout = {"height": 420}
    panels = (
        Panel(
            "{w} × {g:g} = {product}   ({how})",
            axis(
                "place of the bit",
                tickvals=list(range(_BITS)),
                ticktext=[str(_BITS - 1 - i) for i in range(_BITS)],
                showgrid=False,
            ),
            axis("number", tickvals=list(range(len(_ROWS))), ticktext=list(reversed(_ROWS)), showgrid=False),
            width=0.62,
        ),
        Panel(
            "{ratio:.1f} times fewer gates",
            axis("way to multiply", (-0.6, 1.6), tickvals=[0, 1], ticktext=["cast and multiply", "shift"]),
            axis("gates", (0, 290)),
            width=0.38,
        ),
    )
    traces = (
        heatmap(
            "bits",
            [[0, "#FFFFFF"], [0.5, "#D3DFEA"], [1, COLOURS["blue"]]],
            -1,
            1,
            xgap=3,
            ygap=8,
            hover=False,
            x=np.arange(_BITS),
            y=np.arange(len(_ROWS)),
            z="bits",
        ),
        bars("gates", "grey", width=0.6, legend=False, panel=2, x=(0, 1), y="gates"),
    )

    def compute(self, w: int, code: int) -> Data:
        """Integers only."""
        product = int(mf_product(torch.tensor([w]), torch.tensor([code])))
        k = code & 7
        rows = [_bits(w, 4), _bits(abs(w), 4), _bits(code, 4), _bits(abs(product), 10), _bits(product, _BITS)]
        return {
            "w": w,
            "g": float(luq_decode(torch.tensor([code], dtype=torch.uint8), 1.0)),
            "how": f"shift by {k - 1}" if k else "zero",
            "product": product,
            "bits": np.array(rows[::-1]),
            "gates": _GATES,
            "ratio": _GATES[0] / _GATES[1],
        }
