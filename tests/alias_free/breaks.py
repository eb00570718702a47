"""What makes each claim of chapter 06 fail."""

from dataclasses import replace as with_settings
from functools import lru_cache, partial

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lib.alias_free import layers, resampling, robustness, symbolic, tables
from lib.alias_free.claims import layers as layer_claims
from lib.alias_free.claims import networks as network_claims
from lib.alias_free.experiment import alias_free_task
from lib.alias_free.layers import AliasFreeLayerNorm, APSDownsample2d, DemodulatingStem, IdealDownsample2d
from tests.breaking import Break, both, edit, replace

SHIPPED = network_claims.trained_network
SHIPPED_CLOTHES = network_claims.clothes
#: What shifts do to networks as they are: measured once.
ATTACKED = lru_cache(network_claims.attacked)


def remembered(mode, attack, preset="laptop"):
    return ATTACKED(mode, attack, preset)


def attacked_anew(broken: Break) -> Break:
    """With a break in what is attacked, or in the attacks."""
    return both(broken, replace(network_claims, "attacked", ATTACKED.__wrapped__))


ON_ITS_OWN_GRID = edit(layers, "_fine_size", "dealias_size(side, max(degree, 1))", "side")
ON_TWICE_THE_GRID = edit(layers, "_fine_size", "dealias_size(side, max(degree, 1))", "2 * side")
NO_LOWPASS = replace(layers, "_low", lambda x, _: x)
KEEPS_NYQUIST = edit(resampling, "_resample_matrix", "(min(n_in, n_out) - 1) // 2", "min(n_in, n_out) // 2")
DEVIATION_OF_EACH_PIXEL = edit(AliasFreeLayerNorm, "forward", "mean((1, 2, 3), keepdim=True)", "mean(1, keepdim=True)")


def a_quadratic(x):
    return 0.5 * x + 0.3 * x * x


def instead(modes: dict) -> Break:
    """Other networks in the place of those that were trained."""

    def other(name):
        mode, *canvas = name.split("-")
        return SHIPPED("-".join([modes.get(mode, mode), *canvas]))

    def attacked(mode, attack, preset="laptop"):
        return remembered(modes.get(mode, mode), attack, preset)

    return both(replace(network_claims, "trained_network", other), replace(network_claims, "attacked", attacked))


def untrained(name):
    run = SHIPPED(name)
    settings = with_settings(run.preset, count=200)
    return with_settings(run, model=alias_free_task(settings)[0].eval())


def few_clothes(split, wrong=0):
    x, y = SHIPPED_CLOTHES(split, 300).tensors
    return TensorDataset(x, (y + wrong) % 10)


#: Few and small pictures are enough to see that something is wrong.
SETTING = both(
    replace(network_claims, "COUNT", 30),
    replace(network_claims, "SIDE", 96),
    replace(network_claims, "clothes", few_clothes),
    replace(network_claims, "attacked", remembered),
)
FORGET = (resampling._resample_matrix, tables.attacked)
BREAKS: dict[str, list[Break]] = {
    "convolution-commutes": [
        edit(layers, "_wrapped", 'mode="circular"', 'mode="constant"'),
        edit(layers, "_wrapped", 'mode="circular"', 'mode="replicate"'),
    ],
    "ideal-downsampling-is-exact": [
        KEEPS_NYQUIST,
        edit(resampling, "_resample_matrix", "(min(n_in, n_out) - 1) // 2", "(n_in - 1) // 2"),
    ],
    "usual-downsampling-aliases": [
        replace(layer_claims, "BlurPool2d", lambda _, **__: IdealDownsample2d()),
        replace(layer_claims, "APSDownsample2d", IdealDownsample2d),
        replace(nn, "MaxPool2d", IdealDownsample2d),
    ],
    "degree-bounds-the-band": [
        edit(symbolic, "tone_spectrum", "x**j", "x ** max(j - 1, 0)"),
        replace(layer_claims, "evaluate_polynomial", lambda x, _: np.abs(x)),
    ],
    "smallest-exact-grid": [
        edit(layer_claims, "dealias_size", "(n - 1) // 2 + 1\n", "(n - 1) // 2\n"),
        edit(layer_claims, "dealias_size", "(n - 1) // 2 + 1\n", "(n - 1) // 2 + 2\n"),
        edit(resampling, "_resample_matrix", "n_in % 2 == 0 and n_out >= n_in", "n_in == n_out"),
        edit(symbolic, "grid_sizes", "(d + 1) * m + 1", "(d + 1) * m"),
    ],
    "no-grid-makes-gelu-exact": [
        ON_ITS_OWN_GRID,
        replace(nn.functional, "gelu", a_quadratic),
        replace(torch, "relu", a_quadratic),
    ],
    "half-pixels-hide-aliases": [
        replace(nn.functional, "gelu", a_quadratic),
        edit(layer_claims, "on_grid", "factor * height, factor * width", "factor * height + 1, factor * width + 1"),
    ],
    "quadratic-is-a-fit-of-gelu": [
        edit(layer_claims, "fit_activation", "n_points: int = 200", "n_points: int = 201"),
        edit(layer_claims, "fit_activation", "half_width: float = math.sqrt(2)", "half_width: float = 1.414"),
        edit(symbolic, "_gelu", "/ 2", "/ 3"),
    ],
    "one-deviation-for-the-picture": [
        DEVIATION_OF_EACH_PIXEL,
        edit(layer_claims, "noise", 'nyquist="zero"', 'nyquist="real"'),
    ],
    "low-pass-may-come-first": [NO_LOWPASS, edit(layers, "lowpass", "(height - 1) // 2", "height // 2")],
    "demodulating-stem-is-exact": [
        edit(DemodulatingStem, "forward", "x.shape[-2] - rows,", "x.shape[-2] - rows + 6,"),
        replace(layer_claims, "ideal_lowpass", lambda y, size: resampling.ideal_lowpass(y, (size[0] - 6, size[1] - 6))),
    ],
    "fast-form-is-the-same-function": [
        ON_TWICE_THE_GRID,
        ON_ITS_OWN_GRID,
        edit(layers._Quadratic, "backward", "value=2", "value=1"),
        edit(layers._Quadratic, "backward", "first = weighted.sum(axes", "first = g.sum(axes"),
    ],
    "untrained-network-is-invariant": [ON_ITS_OWN_GRID, DEVIATION_OF_EACH_PIXEL, NO_LOWPASS],
    "features-are-equivariant": [
        ON_ITS_OWN_GRID,
        NO_LOWPASS,
        edit(DemodulatingStem, "forward", "x.shape[-2] - rows,", "x.shape[-2] - rows + 6,"),
    ],
    "paper-size-network-is-invariant": [ON_ITS_OWN_GRID, NO_LOWPASS, DEVIATION_OF_EACH_PIXEL],
    "aps-is-exact-for-whole-pixels": [
        attacked_anew(edit(APSDownsample2d, "forward", "argmax(1)", "argmax(1) * 0")),
        attacked_anew(edit(APSDownsample2d, "forward", "best % stride]", "best * 0]")),
        instead({"aps": "baseline"}),
        instead({"aps": "afc"}),
    ],
    "trained-network-stands-still": [
        attacked_anew(ON_ITS_OWN_GRID),
        instead({"afc": "baseline"}),
        instead({"afc": "aps"}),
    ],
    "baseline-wavers": [
        instead({"baseline": "afc"}),
        instead({"blurpool": "aps"}),
        attacked_anew(edit(robustness, "shift_counts", "always &= found == y", "always |= found == y")),
    ],
    "more-robust-than-the-others": [
        instead({"afc": "aps"}),
        attacked_anew(edit(robustness, "shift_counts", "shift=shift, kind", "shift=(0.0, 0.0), kind")),
    ],
    "price-in-accuracy": [
        replace(network_claims, "trained_network", untrained),
        replace(network_claims, "clothes", partial(few_clothes, wrong=1)),
    ],
    "beyond-the-torus": [
        instead({"afc": "baseline"}),
        attacked_anew(edit(robustness, "translate", 'if kind == "circular":', "if True:")),
    ],
    "wide-canvas-makes-it-exact": [
        attacked_anew(edit(tables, "_pictures", "margin=4", "margin=0")),
        attacked_anew(edit(tables, "attacked", "fill=chosen.fill", "fill=0.0")),
        instead({"baseline": "afc"}),
    ],
    "photograph-moves-smoothly": [ON_ITS_OWN_GRID, instead({"blurpool": "afc"}), instead({"aps": "afc"})],
}
