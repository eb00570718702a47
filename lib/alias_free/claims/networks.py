"""Whole networks under translation: before training, after it, and beyond what the theorem covers."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from lib.alias_free import tables
from lib.alias_free.attacks import any_shifts
from lib.alias_free.claims.layers import drawn
from lib.alias_free.convnext import ConvNeXt, Mode
from lib.alias_free.experiment import trained_network
from lib.alias_free.layers import APSDownsample2d
from lib.alias_free.resampling import fourier_shift
from lib.alias_free.robustness import ShiftRobustness, equivariance_error
from lib.claims import Evidence, at_least, at_most, claim, combine, true_that, within
from lib.datasets import clothes, photograph
from lib.validation import finite_number, finite_tensor

F64 = torch.float64
#: The first so many test pictures; `python -m lib attack alias-free` takes all of them.
COUNT = 100
#: Of the paper's pictures.
SIDE = 224
#: Changes of an output, over the largest output, that float32 explains.
ROUNDING = 2e-5
_SETTING = f"four networks of 15 000 weights, 10 000 training pictures of clothes, {COUNT} test pictures"
_ON_THE_TORUS = ("whole pixels", "half pixels", "any shift")


def attacked(mode: Mode, attack: str, preset: str = "laptop") -> ShiftRobustness:
    """What shifts of up to three pixels do to a network that ships with the package."""
    found = tables.attacked(mode, attack, preset, COUNT)
    # an output that is NaN has a class too, which may be the right one
    finite_number(f"change of an output of {mode}", found.max_relative_change)
    return found


def _change(model: torch.nn.Module, x: Tensor, shifts: list[tuple[float, float]]) -> list[float]:
    """Largest change of an output over the largest output, for each shift."""
    with torch.no_grad():
        still = model(x)
        return [float((model(fourier_shift(x, shift)) - still).abs().max() / still.abs().max()) for shift in shifts]


def _three_stages(mode: Mode = "afc", **options: Any) -> ConvNeXt:
    start: dict[str, Any] = {"layer_scale": 1.0, "init_std": None, "act_scale": 1.0}
    return drawn(partial(ConvNeXt, 1, 10, (1, 1, 1), (8, 16, 32), mode, **start, **options)).eval()


@claim(
    source="the paper's main theorem, second part",
    statement="The alias-free network gives the same output for every translation of its input, by whole pixels or "
    "parts of them, whatever its weights. The same network with strides and GELU does not.",
)
def untrained_network_is_invariant() -> Evidence:
    x = torch.randn(1, 1, 48, 48, generator=torch.Generator().manual_seed(0), dtype=F64)
    shifts = any_shifts(24, 20)
    free, usual = _three_stages("afc"), _three_stages("baseline")
    double, changed = _change(free, x, shifts), _change(usual, x, shifts)
    single = _change(free.float(), x.float(), shifts)
    return combine(
        at_most(double, 1e-11, label="float64"),
        at_most(single, ROUNDING, label="float32", shown=f"< {ROUNDING:g}"),
        at_least(float(np.median(changed)), 0.01, label="strides and GELU"),
        remark="weights drawn at random, three stages, white noise of 48 x 48 pixels, 20 shifts of up to 24",
    )


@claim(
    source="the paper's main theorem, first part",
    statement="Its features are equivariant: shift the input by s, and the features of the last layer, 16 times "
    "coarser, shift by s / 16.",
)
def features_are_equivariant() -> Evidence:
    x = torch.randn(1, 1, 48, 64, generator=torch.Generator().manual_seed(0), dtype=F64)
    stem = _three_stages(patch=4, stem_activation=True)
    with torch.no_grad():
        stem.get_parameter("stem.1.gain").fill_(0.5)
    free, quadratic, usual = (
        [equivariance_error(net.forward_features, x, shift, 16) for shift in any_shifts(24, 10)]
        for net in (_three_stages(patch=4), stem, _three_stages("baseline", patch=4))
    )
    return combine(
        at_most(free, 1e-11, label="alias-free"),
        at_most(quadratic, 1e-11, label="with the quadratic stem"),
        at_least(usual, 1e-2, label="strides and GELU"),
        remark="weights drawn at random, float64, white noise of 48 x 64 pixels, 10 shifts",
    )


@claim(
    source="the paper's network, at its size",
    statement="ConvNeXt-Tiny in its alias-free version, 28 million weights, is invariant at 224 x 224 pixels to the "
    "precision of float32.",
)
def paper_size_network_is_invariant() -> Evidence:
    # at the paper's own layer scale of 1e-6 blocks would add nothing, and their aliases could not be seen
    make = partial(ConvNeXt, 3, 1000, (3, 3, 9, 3), (96, 192, 384, 768), patch=4, layer_scale=0.1)
    net = drawn(make).float().eval()
    x = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    changes = _change(net, x, [(0.5, 0.5), (1.3, -2.7), (17.123, 3.5)])
    weights = sum(part.numel() for part in net.parameters())
    return combine(
        at_most(changes, ROUNDING, label="change", shown=f"< {ROUNDING:g}"),
        within(weights / 1e6, 28, 29.5, label="million weights", digits=3),
        remark="weights as drawn at the start, white noise, shifts (0.5, 0.5), (1.3, -2.7), (17.123, 3.5)",
    )


@claim(
    source="Chaman and Dokmanic 2021, in the paper's comparison",
    statement="Adaptive polyphase sampling is exact for whole pixels, where its result is a roll, and not for parts of "
    "one.",
    paper="82.11 % clean and on the integer grid, 79.68 % on half pixels, 76.31 % on fractions (ImageNet)",
)
def aps_is_exact_for_whole_pixels() -> Evidence:
    x = torch.randn(4, 3, 12, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    layer = APSDownsample2d()
    rolls = [_nearest_roll(layer(x.roll((down, right), (-2, -1))), layer(x)) for down in range(4) for right in range(4)]
    whole, parts = attacked("aps", "whole pixels"), attacked("aps", "any shift")
    return combine(
        at_most(rolls, 0.0, label="layer against a roll", shown="0"),
        at_most(whole.max_relative_change, ROUNDING, label="network, whole", shown=f"< {ROUNDING:g}"),
        at_least(parts.max_relative_change, 0.05, label="parts"),
        true_that("accuracy is lost", parts.adversarial_accuracy < whole.adversarial_accuracy == whole.clean_accuracy),
        remark=_SETTING,
    )


def _nearest_roll(found: Tensor, start: Tensor) -> float:
    """Largest over pictures of the distance to the nearest roll of what there was."""
    height, width = start.shape[-2:]
    rolled = torch.stack([start.roll((i, j), (-2, -1)) for i in range(height) for j in range(width)])
    return float((rolled - found).abs().amax((2, 3, 4)).amin(0).max())


@claim(
    source="the paper's table of circular shifts, in our setting",
    statement="After training too: the worst of 117 shifts, by whole pixels, half pixels or any part, costs the "
    "alias-free network not one picture, and no output moves by more than rounding.",
    paper="81.04 % clean, and on the integer, half-pixel and fractional grids (ImageNet)",
)
def trained_network_stands_still() -> Evidence:
    results = [attacked("afc", attack) for attack in _ON_THE_TORUS]
    return combine(
        *(
            at_most(part.clean_accuracy - part.adversarial_accuracy, 0.0, label=f"lost, {name}", shown="0")
            for name, part in zip(_ON_THE_TORUS, results, strict=True)
        ),
        at_least([part.consistency for part in results], 1.0, label="consistency"),
        at_most([part.max_relative_change for part in results], ROUNDING, shown=f"< {ROUNDING:g}"),
        remark=_SETTING,
    )


@claim(
    source="the paper's table of circular shifts, in our setting",
    statement="The same network with strides and GELU, also on the torus, loses a large part of its accuracy to the "
    "worst of 49 shifts by up to three whole pixels. BlurPool loses less, and some.",
    paper="baseline: 82.12 % clean, 76.63 % on the integer grid, 77.82 % on the fractional one (ImageNet)",
)
def baseline_wavers() -> Evidence:
    baseline, blurred = attacked("baseline", "whole pixels"), attacked("blurpool", "whole pixels")
    return combine(
        at_least(baseline.clean_accuracy - baseline.adversarial_accuracy, 0.2, label="baseline loses"),
        at_most(baseline.consistency, 0.9, label="its consistency", shown="< 0.9"),
        at_least(blurred.clean_accuracy - blurred.adversarial_accuracy, 0.01, label="BlurPool loses"),
        true_that("less than the baseline", blurred.adversarial_accuracy > baseline.adversarial_accuracy),
        remark=_SETTING,
    )


@claim(
    source="the paper's abstract, in our setting",
    statement="In the worst of 32 shifts by any part of a pixel the alias-free network keeps more accuracy than "
    "BlurPool and APS, which were made against shifts too.",
    paper="fractional grid: 81.04 %, APS 76.31 %, baseline 77.82 % (ImageNet)",
)
def more_robust_than_the_others() -> Evidence:
    kept = {mode: attacked(mode, "any shift").adversarial_accuracy for mode in get_args(Mode)}
    return combine(
        *(
            at_least(100 * (kept["afc"] - kept[mode]), 2.0, label=f"points over {mode}")
            for mode in kept
            if mode != "afc"
        ),
        remark=_SETTING,
    )


@claim(
    source="the paper's clean accuracies, in our setting",
    statement="The price in accuracy is small: on unmoved pictures the alias-free network is within five points of the "
    "baseline.",
    paper="81.04 % against 82.12 % (ImageNet)",
)
def price_in_accuracy() -> Evidence:
    x, y = clothes("test").tensors
    scores = {}
    for mode in ("baseline", "afc"):
        model = trained_network(mode).model
        with torch.no_grad():
            scores[mode] = float((finite_tensor("outputs", model(x)).argmax(1) == y).double().mean())
    return combine(
        within(100 * scores["baseline"], 70, 90, label="baseline, %", digits=4),
        within(100 * scores["afc"], 70, 90, label="alias-free, %", digits=4),
        at_most(100 * (scores["baseline"] - scores["afc"]), 5.0, label="points lost", shown="< 5"),
        remark=f"{len(x)} test pictures of clothes, one training each",
    )


_WITH_BACKGROUND = ("background, whole", "background, any")


@claim(
    source="the paper's figures of non-circular shifts, in our setting",
    statement="Beyond the theorem, where the picture leaves the frame and background comes in, no network is exact. "
    "The alias-free one still keeps more of its accuracy in the worst case than the baseline.",
    paper="zero-filled bilinear shifts, grid size 8: 78.0 against 74.5 % (ImageNet)",
)
def beyond_the_torus() -> Evidence:
    free = {attack: attacked("afc", attack) for attack in _WITH_BACKGROUND}
    usual = {attack: attacked("baseline", attack) for attack in _WITH_BACKGROUND}
    gains = [free[a].adversarial_accuracy - usual[a].adversarial_accuracy for a in _WITH_BACKGROUND]
    return combine(
        at_least([part.max_relative_change for part in free.values()], 0.01, label="alias-free, change of an output"),
        at_least(gains, 0.05, label="its worst case over the baseline's"),
        true_that("it loses too", [part.adversarial_accuracy < part.clean_accuracy for part in free.values()]),
        remark=f"{_SETTING}; shifts by up to three pixels, whole ones and bilinear ones",
    )


@claim(
    source="derived here",
    statement="With a margin of background at least as wide as the shift, filling with background is a shift on the "
    "torus: the alias-free network is exact again for whole pixels. Bilinear shifts, which change the picture, stay "
    "inexact.",
)
def wide_canvas_makes_it_exact() -> Evidence:
    whole = attacked("afc", "background, whole", "canvas")
    usual = attacked("baseline", "background, whole", "canvas")
    bilinear = attacked("afc", "background, any", "canvas")
    return combine(
        at_most(whole.max_relative_change, ROUNDING, label="alias-free", shown=f"< {ROUNDING:g}"),
        true_that("not one picture lost", whole.adversarial_accuracy == whole.clean_accuracy),
        at_least(usual.clean_accuracy - usual.adversarial_accuracy, 0.05, label="baseline loses"),
        at_least(bilinear.max_relative_change, 0.01, label="alias-free, bilinear"),
        remark=f"networks trained on 36 x 36 pixels, four of them background on each side; {COUNT} test pictures",
    )


@claim(
    source="the paper's figure of features after half a pixel, in our setting",
    statement="On a photograph the features of the alias-free network move with the picture; those of the others "
    "flicker by a large part of their size.",
    paper="change at half a pixel: 0.00 in all four stages; baseline 0.48 to 0.51, APS 0.60 to 0.68 (ImageNet)",
)
def photograph_moves_smoothly() -> Evidence:
    shifts = [(0.5, 0.5), (0.2, -0.7), (3.3, 1.1)]
    picture, errors = photograph(), {}
    for mode in ("afc", "baseline", "blurpool", "aps"):
        features = trained_network(mode).model.forward_features
        errors[mode] = [equivariance_error(features, picture, shift, 4) for shift in shifts]
    return combine(
        at_most(errors.pop("afc"), 1e-4, label="alias-free", shown="< 1e-4"),
        *(at_least(each, 1e-2, label=mode) for mode, each in errors.items()),
        remark="networks trained on clothes, a photograph of 256 x 256 pixels; shifts (.5, .5), (.2, -.7), (3.3, 1.1)",
    )
