"""The live figures of chapter 05."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from lib.explorer import Choice, Data, Explorer, Key, Panel, Slider, Try, axis, bars, dots, heatmap, line, swatch
from lib.sparsity.pairs import PAIRS, mvue24_pair_probabilities
from lib.sparsity.races import NOISES, SEEDS, races
from lib.sparsity.water_filling import Mask, nm_inclusion_probabilities, nm_joint_probabilities, nm_mvue_variance

__all__ = ["OneBlock", "RatioLandscape", "TailCost", "WrongPoint"]

Array = NDArray[np.float64]

_LEFT, _RIGHT = (0.0, 0.41), (0.58, 1.0)
_UPPER, _LOWER = (0.63, 1.0), (0.0, 0.33)
_ENTRIES = np.arange(1, 5)
_PAIR_NAMES = [f"{i + 1}{j + 1}" for i, j in PAIRS]
_PATTERNS = {"1:4": (1, 4), "2:4": (2, 4), "3:4": (3, 4)}
_ERRORS = ("best<br>unbiased", "two<br>draws", "all<br>alike", "greedy")


def _entry(label: str, value: float) -> Slider:
    return Slider(label, -5.0, 5.0, 0.05, value, format=".2f")


class OneBlock(Explorer):
    """Four numbers, and the best way to keep some of them at random."""

    name = "one_block"
    may_be_absent = ("level", "closed")
    with_gaps = ("errors",)
    title = "One block: which entries are kept, how often, and with what value"
    caption = (
        "Top left: the entries (blue), and the value that each gets when it is kept (orange). All that are kept by "
        "chance get the same magnitude, the water level (dotted); what reaches above it is kept for sure, as it is. "
        "Top right: the probability that an entry is kept. Bottom left: the probability that two entries are kept "
        "together, with the comb of section 3 (blue) and in a closed form for 2:4 (rings). Bottom right: "
        "the expected squared error of the best unbiased mask, of two draws one after another (2:4 only), of a mask "
        "that keeps all entries alike, and of the greedy one, which is not unbiased."
    )
    declared = {
        "a1": _entry("entry 1", 1.0),
        "a2": _entry("entry 2", 2.0),
        "a3": _entry("entry 3", 3.0),
        "a4": _entry("entry 4", 3.5),
        "pattern": Choice("pattern", tuple(_PATTERNS), "2:4"),
    }

    figure_layout = {"height": 660, "margin": {"b": 100}, "barmode": "overlay"}
    panels = (
        Panel(
            "the block",
            axis("entry", (0.4, 4.6), tickvals=[1, 2, 3, 4]),
            axis("value", Key("values")),
            place=(*_LEFT, *_UPPER),
        ),
        Panel(
            "chances add up to {total:.3g}",
            axis("entry", (0.4, 4.6), tickvals=[1, 2, 3, 4]),
            axis("probability", (0, 1.08)),
            place=(*_RIGHT, *_UPPER),
        ),
        Panel(
            "pairs kept together",
            axis("pair of entries", (-0.6, 5.6), tickvals=list(range(6)), ticktext=_PAIR_NAMES),
            axis("probability", (0, 1.08)),
            place=(*_LEFT, *_LOWER),
        ),
        Panel(
            "expected squared error",
            axis("mask", (-0.6, 3.6), tickvals=list(range(4)), ticktext=list(_ERRORS)),
            axis("squared error", Key("worst")),
            place=(*_RIGHT, *_LOWER),
        ),
    )
    traces = (
        bars("entry", "blue", width=0.6, x=_ENTRIES, y="block"),
        dots("value when kept", "orange", size=11, x=_ENTRIES, y="kept"),
        line("water level", "black", dash="dot", width=1.5, x=(0.4, 4.6), y="level"),
        line("", "black", dash="dot", width=1.5, legend=False, hover=False, x=(0.4, 4.6), y="minus"),
        bars("probability", "green", width=0.6, legend=False, panel=2, x=_ENTRIES, y="chances"),
        bars("with the comb", "sky", width=0.6, panel=3, x=np.arange(6), y="pairs"),
        dots("closed form", "black", size=11, symbol="circle-open", panel=3, x=np.arange(6), y="closed"),
        bars(
            "squared error",
            "purple",
            "purple",
            "purple",
            "grey",
            width=0.6,
            legend=False,
            panel=4,
            x=np.arange(4),
            y="errors",
        ),
    )

    tries = (
        Try(
            "the last one as large as the others together",
            {"a1": 1.0, "a2": 1.0, "a3": 1.0, "a4": 3.0},
            "The probability of entry 4 has just reached {last:.2g}: from here on it is always kept, as it is. The "
            "best mask has variance {best:.3g}, a mask that keeps all alike {alike:.3g}.",
            lambda data: data["last"] == 1 and data["level"] == 3,
            not_at={"a1": 1.0, "a2": 1.0, "a3": 1.0, "a4": 2.5},
        ),
        Try(
            "one much larger",
            {"a1": 1.0, "a2": 1.0, "a3": 1.0, "a4": 5.0},
            "Entry 4 grows, and the noise does not: the variance is still {best:.3g}. With all alike it is "
            "{alike:.3g}, and two draws cost {ratio:.2f} times the best.",
            lambda data: abs(data["best"] - 6) < 1e-9 and data["alike"] > 25 and data["ratio"] > 1.3,
            not_at={"a1": 1.0, "a2": 1.0, "a3": 1.0, "a4": 2.0},
        ),
        Try(
            "all the same",
            {"a1": 2.0, "a2": -2.0, "a3": 2.0, "a4": 2.0},
            "Every entry is kept half of the time: here the best mask is the one that keeps all alike, and both have "
            "{best:.3g}. The sign stays with the entry.",
            lambda data: abs(data["best"] - data["alike"]) < 1e-9 and min(data["kept"]) == -4,
            not_at={},
        ),
        Try(
            "two of them zero",
            {"a1": 0.0, "a2": 2.0, "a3": 0.0, "a4": 1.0},
            "Nothing has to be dropped: both entries are kept, and the error is {best:.3g}. Behind a ReLU such blocks "
            "are frequent.",
            lambda data: data["best"] == 0 and data["total"] == 2,
            not_at={"a1": 0.5, "a2": 2.0, "a3": 0.0, "a4": 1.0},
        ),
    )

    def compute(self, a1: float, a2: float, a3: float, a4: float, pattern: str) -> Data:
        """Closed forms."""
        n, m = _PATTERNS[pattern]
        block = np.array([a1, a2, a3, a4])
        x = torch.from_numpy(block)
        chances = nm_inclusion_probabilities(x, n, m).numpy()
        kept = np.divide(block, chances, out=np.zeros(4), where=chances > 0)
        by_chance = np.abs(kept[(chances > 0) & (chances < 1)])
        # where nothing is left to chance there is no level; at the border it is the entry itself
        level = by_chance.max() if by_chance.size else np.nan
        joint = nm_joint_probabilities(x, n, m)[0].numpy()
        two_of_four = pattern == "2:4"
        ways: list[Mask | None] = ["mvue", "approx" if two_of_four else None, "uniform", "greedy_mse"]
        errors = [float(nm_mvue_variance(x, n, m, method=way)) if way else np.nan for way in ways]
        reach = max(float(np.abs(kept).max()), 1.0) * 1.1
        return {
            "block": block,
            "kept": kept,
            "level": level,
            "minus": -level,
            "values": (-reach if block.min() < 0 else -0.05 * reach, reach if block.max() > 0 else 0.05 * reach),
            "chances": chances,
            "total": float(chances.sum()),
            "last": float(chances[3]),
            "pairs": np.array([joint[pair] for pair in PAIRS]),
            "closed": mvue24_pair_probabilities(block) if two_of_four else np.full(6, np.nan),
            "errors": np.array(errors),
            "worst": (0, max(float(np.nanmax(errors)), 0.5) * 1.1),
            "best": errors[0],
            "alike": errors[2],
            "greedy": errors[3],
            "ratio": errors[1] / errors[0] if two_of_four and errors[0] > 0 else 1.0,
        }


_STEPS = np.linspace(0, 6, 120)
_SHADES = ("#EDF1F5", "#B9D3EA", "#5B9BD0", "#1F5FA8", "#08264D")


def _ratios(smallest: Array, step2: Array, step3: Array) -> Array:
    """Variance of two draws over the least, for blocks of magnitudes whose powers of ten are 0 and these steps."""
    powers = np.stack(np.broadcast_arrays(-smallest, 0.0, step2, step2 + step3), axis=-1)
    x = torch.from_numpy(10.0 ** np.ascontiguousarray(powers))
    return np.asarray((nm_mvue_variance(x, 2, 4, method="approx") / nm_mvue_variance(x, 2, 4))[..., 0])


class RatioLandscape(Explorer):
    """What the usual approximation costs, over all shapes of a block."""

    name = "ratio_landscape"
    title = "Two draws one after another: variance over the least possible"
    caption = (
        "A 2:4 block of magnitudes a₁ ≤ a₂ ≤ a₃ ≤ a₄ has a shape of three ratios. Left: two of them as powers of ten, "
        "the third on a slider; the colour is the variance of two draws in proportion to size, the second without the "
        "first, over the least variance of an unbiased mask. A click moves the dot. Right: the row of the map through "
        "the dot."
    )
    declared = {
        "last": Slider("a₄ / a₃, power of ten", 0.0, 6.0, 0.05, 0.5, format=".2f"),
        "middle": Slider("a₃ / a₂, power of ten", 0.0, 6.0, 0.05, 0.5, format=".2f"),
        "first": Slider("a₂ / a₁, power of ten", 0.0, 6.0, 0.1, 0.0, format=".1f"),
    }

    clicked = ("last", "middle")
    figure_layout = {"height": 460, "margin": {"b": 110}}
    panels = (
        Panel(
            "ratio {ratio:.6f}",
            axis("a₄ / a₃, power of ten", (0, 6)),
            axis("a₃ / a₂, power of ten", (0, 6)),
            place=(*_LEFT, 0.0, 1.0),
        ),
        Panel(
            "the row through the dot",
            axis("a₄ / a₃, power of ten", (0, 6)),
            axis("variance over the least", (0.95, 2.05)),
            place=(*_RIGHT, 0.0, 1.0),
        ),
    )
    traces = (
        heatmap("ratio", _SHADES, 1, 2, x=_STEPS, y=_STEPS, z="map", hover="%{x:.2f}, %{y:.2f}: %{z:.2f}"),
        dots("here", "vermilion", size=12, cliponaxis=False, x="last", y="middle"),
        line("ratio", "blue", width=3, legend=False, panel=2, x=_STEPS, y="row"),
        line("2", "black", dash="dot", width=1.5, panel=2, hover=False, x=(0.0, 6.0), y=(2.0, 2.0)),
        dots("here", "vermilion", size=12, legend=False, panel=2, cliponaxis=False, x="last", y="ratio"),
        *(swatch(f"{1 + number / 4:g}", colour) for number, colour in enumerate(_SHADES)),
    )

    tries = (
        Try(
            "four equal entries",
            {"last": 0.0, "middle": 0.0, "first": 0.0},
            "Both masks keep any pair alike: the ratio is {ratio:.3f}.",
            lambda data: abs(data["ratio"] - 1) < 1e-9,
            not_at={"last": 1.0, "middle": 0.0, "first": 0.0},
        ),
        Try(
            "one ten times as large",
            {"last": 1.0, "middle": 0.0, "first": 0.0},
            "(1, 1, 1, 10): the ratio is {ratio:.3f}.",
            lambda data: abs(data["ratio"] - 1.611) < 1e-3,
            not_at={"last": 0.0, "middle": 0.0, "first": 0.0},
        ),
        Try(
            "one a million times as large",
            {"last": 6.0, "middle": 0.0, "first": 0.0},
            "The ratio is {ratio:.6f}: near 2, and below it, as everywhere on the right of the map.",
            lambda data: 1.99999 < data["ratio"] < 2 and data["highest"] < 2,
            not_at={"last": 1.0, "middle": 0.0, "first": 0.0},
        ),
    )

    def compute(self, last: float, middle: float, first: float) -> Data:
        """The whole map in one go."""
        ratios = _ratios(np.array(first), _STEPS[:, None], _STEPS[None, :])
        row = _ratios(np.array(first), np.array([middle]), _STEPS)
        return {
            # two digits are what a colour shows, and pack well
            "map": ratios.round(2),
            "row": row.round(4),
            "last": last,
            "middle": middle,
            "ratio": float(_ratios(np.array(first), np.array([middle]), np.array([last]))[0]),
            "highest": float(ratios.max()),
        }


_RACES = {"1:2": (1, 2), "2:4": (2, 4), "1:4": (1, 4), "1:8": (1, 8)}
_EPOCHS = np.arange(61)
_LOSS = "training loss"


class WrongPoint(Explorer):
    """Softmax regression with pruned gradients: where it ends."""

    name = "wrong_point"
    title = "Descent with pruned gradients, and where it comes to rest"
    caption = (
        "Softmax regression on 4,096 pictures of clothes, batches of 512; the learning rate falls to zero in 60 "
        "epochs. Of N:M entries of the gradient of the logits, along the batch, the largest are kept (greedy), or some "
        "at random without bias. Left: training loss, or the part of 2,000 test pictures that is classified correctly. "
        "Right: how far the loss is from where dense training ends, on a logarithmic axis; what is nearer than 0.0001 "
        "is drawn there. Trained beforehand."
    )
    declared = {
        "noise": Slider("fraction of random labels", NOISES[0], NOISES[-1], 0.2, 0.2, format=".1f"),
        "pattern": Choice("pattern", tuple(_RACES), "2:4"),
        "seed": Slider("seed", SEEDS[0], SEEDS[-1], 1, 0),
        "left": Choice("left", (_LOSS, "test accuracy"), _LOSS),
    }

    figure_layout = {"height": 460, "margin": {"b": 100}}
    panels = (
        Panel(
            "{left}",
            axis("epoch", (0, 60)),
            axis("{left_words}", Key("left_range")),
            place=(*_LEFT, 0.0, 1.0),
        ),
        Panel(
            "greedy {far:.4f} off, unbiased {near:.4f}",
            axis("epoch", (0, 60)),
            axis(
                "distance from the dense end",
                (-4.1, 0.4),
                log=True,
                tickvals=[1e-4, 1e-3, 1e-2, 0.1, 1],
                ticktext=["≤10<sup>-4</sup>", "10<sup>-3</sup>", "0.01", "0.1", "1"],
            ),
            place=(*_RIGHT, 0.0, 1.0),
        ),
    )
    traces = (
        line("dense", "black", width=4, x=_EPOCHS, y="dense"),
        line("greedy", "vermilion", width=2.5, x=_EPOCHS, y="greedy"),
        line("unbiased", "sky", width=2.5, x=_EPOCHS, y="unbiased"),
        line("greedy", "vermilion", width=2.5, legend=False, panel=2, x=_EPOCHS, y="greedy_gap"),
        line("unbiased", "sky", width=2.5, legend=False, panel=2, x=_EPOCHS, y="unbiased_gap"),
    )

    tries = (
        Try(
            "1 of 8",
            {"pattern": "1:8", "noise": 0.0},
            "Greedy comes to rest {far:.2f} above the loss of dense training; on the test pictures it has "
            "{greedy_right:.1%}, against {right:.1%} for the unbiased mask, which ends {near:.4f} from the dense loss.",
            lambda data: data["far"] > 0.1 and data["near"] < 0.005 and data["right"] > data["greedy_right"] + 0.02,
            not_at={"pattern": "2:4", "noise": 0.0},
        ),
        Try(
            "2 of 4",
            {"pattern": "2:4", "noise": 0.0},
            "Here greedy is only {far:.4f} off: a small bias can be harmless. The unbiased mask is {near:.4f} off.",
            lambda data: data["far"] < 0.002 and data["near"] < 0.001,
            not_at={"pattern": "1:4", "noise": 0.0},
        ),
        Try(
            "1 of 8, and 20% random labels",
            {"pattern": "1:8", "noise": 0.2},
            "The loss of greedy rises again, by {risen:.2f}, and ends {far:.2f} above dense training; without random "
            "labels it is {clean:.2f}. With 60% of them the loss cannot fall far, and the gap is smaller again.",
            lambda data: data["far"] > 2 * data["clean"] and data["risen"] > 0.1 and data["near"] < 0.005,
            not_at={"pattern": "1:8", "noise": 0.6},
        ),
    )

    def compute(self, noise: float, pattern: str, seed: int, left: str) -> Data:
        """Looked up."""
        n, m = _RACES[pattern]
        noise = min(NOISES, key=lambda each: abs(each - noise))
        found = races()
        dense, greedy, unbiased = found["dense", 1, 2, noise], found["greedy", n, m, noise], found["mvue", n, m, noise]
        end = dense.loss[seed, -1]
        gaps = [np.maximum(np.abs(run.loss[seed] - end), 1e-4) for run in (greedy, unbiased)]
        show_loss = left == _LOSS
        curves = [(run.loss if show_loss else run.accuracy)[seed] for run in (dense, greedy, unbiased)]
        return {
            **dict(zip(("dense", "greedy", "unbiased"), curves, strict=True)),
            "left": left,
            "left_words": "cross entropy" if show_loss else "correct",
            "left_range": (float(end) - 0.05, float(greedy.loss[seed, 1]) + 0.1) if show_loss else (0.5, 0.85),
            "greedy_gap": gaps[0],
            "unbiased_gap": gaps[1],
            "far": float(greedy.loss[seed, -1] - end),
            "near": float(abs(unbiased.loss[seed, -1] - end)),
            "clean": float(found["greedy", n, m, 0.0].loss[seed, -1] - found["dense", 1, 2, 0.0].loss[seed, -1]),
            "risen": float(greedy.loss[seed, -1] - greedy.loss[seed].min()),
            "right": float(unbiased.accuracy[seed, -1]),
            "greedy_right": float(greedy.accuracy[seed, -1]),
        }


_SIGMAS = np.linspace(0, 3, 13)
_TAILS = {"1:2": (1, 2), "2:4": (2, 4), "1:4": (1, 4), "4:8": (4, 8)}


@cache
def _normal() -> Array:
    return np.random.default_rng(0).standard_normal((2_500, 8))


def _cost(sigma: float, pattern: str, method: Mask) -> float:
    """Expected squared error over the squared size, of lognormal entries."""
    n, m = _TAILS[pattern]
    x = torch.from_numpy(np.exp(sigma * _normal()))
    return float(nm_mvue_variance(x, n, m, method=method).sum() / x.square().sum())


@cache
def _costs(pattern: str, method: Mask) -> Array:
    return np.array([_cost(sigma, pattern, method) for sigma in _SIGMAS])


class TailCost(Explorer):
    """What being unbiased costs, by how heavy the tails are."""

    name = "tail_cost"
    may_be_absent = ("approx",)
    title = "What being unbiased costs, by how uneven the entries are"
    caption = (
        "Entries are exp(σ z) with z normal: all 1 at σ = 0, and a few much larger than the others at σ = 3. Left: the "
        "sizes of forty of them at this σ, sorted, over the largest. Right: the expected squared error of a mask over "
        "the squared size, exactly, for 20,000 such entries. A few of them decide where σ is large: of 200 other "
        "samples nine in ten lie within a factor of 6 for 2:4 at σ = 2, and of 100 at σ = 3; their medians are 0.004 "
        "and 0.00004."
    )
    declared = {
        "sigma": Slider("σ of log entries", 0.0, 3.0, 0.05, 0.5, format=".2f"),
        "pattern": Choice("pattern", tuple(_TAILS), "2:4"),
    }

    figure_layout = {"height": 440, "margin": {"b": 100}}
    panels = (
        Panel(
            "forty entries", axis("rank", (0, 41)), axis("size over the largest", (0, 1.05)), place=(*_LEFT, 0.0, 1.0)
        ),
        Panel(
            "unbiased {best:.3g}, greedy {greedy_here:.2g}",
            axis("σ of log entries", (0, 3)),
            axis(
                "relative squared error",
                (-5.1, 0.7),
                log=True,
                tickvals=[1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1],
                ticktext=["≤10<sup>-5</sup>", "10<sup>-4</sup>", "10<sup>-3</sup>", "0.01", "0.1", "1"],
            ),
            place=(*_RIGHT, 0.0, 1.0),
        ),
    )
    traces = (
        bars("size", "blue", width=0.7, legend=False, x=np.arange(1, 41), y="sizes"),
        line("all alike", "grey", dash="dash", panel=2, x=_SIGMAS, y="uniform"),
        line("two draws", "orange", panel=2, x=_SIGMAS, y="approx"),
        line("best unbiased", "blue", width=3, panel=2, x=_SIGMAS, y="mvue"),
        line("greedy, a bias", "vermilion", panel=2, x=_SIGMAS, y="greedy"),
        dots("here", "black", size=11, panel=2, cliponaxis=False, x="sigma", y="best"),
    )

    tries = (
        Try(
            "all the same",
            {"sigma": 0.0},
            "The best mask is the one that keeps all alike, and its error is {best:.2f} of the squared size.",
            lambda data: abs(data["best"] - 1) < 1e-9,
            not_at={"sigma": 1.0},
        ),
        Try(
            "σ = 1",
            {"sigma": 1.0},
            "The error is down to {best:.2f}; two draws would cost {draws:.2f}.",
            lambda data: abs(data["best"] - 0.203) < 0.015 and data["draws"] > 1.1 * data["best"],
            not_at={"sigma": 0.0},
        ),
        Try(
            "σ = 2",
            {"sigma": 2.0},
            "{best:.4f} of the squared size: being unbiased costs next to nothing, although greedy has still less.",
            lambda data: data["best"] < 0.01,
            not_at={"sigma": 1.0},
        ),
    )

    def compute(self, sigma: float, pattern: str) -> Data:
        """Expected errors of a fixed sample."""
        sizes = np.exp(sigma * np.sort(_normal()[0:5].ravel())[::-1])
        n, m = _TAILS[pattern]
        two_of_four = pattern == "2:4"
        best, greedy = _cost(sigma, pattern, "mvue"), _cost(sigma, pattern, "greedy_mse")
        return {
            "sizes": sizes / sizes[0],
            "sigma": sigma,
            "best": best,
            "greedy_here": greedy,
            "draws": _cost(sigma, pattern, "approx") if two_of_four else best,
            "mvue": _costs(pattern, "mvue"),
            "uniform": m / n - 1,
            "approx": _costs(pattern, "approx") if two_of_four else np.full(len(_SIGMAS), np.nan),
            "greedy": np.maximum(_costs(pattern, "greedy_mse"), 1e-5),
        }
