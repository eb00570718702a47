"""The claims of chapter 04 about gradients of real networks and their training.

Trainings of full length ship with the package (`lib.four_bit.comparison`); claims about the mlp also train a smaller
one here and now, so that they fail when the implementation is broken. The convnet's trainings only ship.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lib.claims import Evidence, at_least, at_most, claim, combine, true_that, within
from lib.four_bit.comparison import ROUNDINGS, WAYS, trained_runs
from lib.four_bit.experiment import PRESETS, FourBitRun, train_four_bit
from lib.four_bit.layers import LUQConfig, LUQLinear, gradient_quantizer, quantize_model, reconfigure
from lib.four_bit.logarithmic import LOG_FORMATS
from lib.four_bit.weight_updates import captured_gradient, update_error
from lib.models import fully_connected

if TYPE_CHECKING:
    from collections.abc import Callable

_REPEATS = 300
_FORMATS = ("fp4", "reference", "printed", "fp3")
_SHIPPED = "10,000 images, 3 epochs, 3 seeds, shipped"
_LIVE = "5,000 images trained here"


def _bias_ratio(draws: Tensor, exact: Tensor) -> float:
    """Squared error of the mean of many draws, in units of what chance alone would leave of it: 1 without bias."""
    errors = draws.double() - exact.double()
    return float(errors.mean(dim=0).square().sum() / (errors.square().sum() / len(errors) ** 2))


def _updates(config: LUQConfig, repeats: int = _REPEATS) -> tuple[Tensor, Tensor]:
    """Updates of a real layer from quantised gradients, and the exact one."""
    gradient = captured_gradient()
    quantize = gradient_quantizer(config, generator=torch.Generator().manual_seed(0))
    draws = torch.stack([quantize(gradient.delta)[1].T @ gradient.inputs for _ in range(repeats)])
    return draws, gradient.delta.T @ gradient.inputs


@claim(
    source="Section 3.2, Eqs. 7-8; Section 4",
    statement="Of the logarithmic roundings only LUQ makes the update of a real layer right on average: if either the "
    "rounding or the underflow is not by chance, it is off, in every format.",
)
def update_is_unbiased_with_luq_alone() -> Evidence:
    full, *others = (
        [_bias_ratio(*_updates(LUQConfig(fmt=fmt, **ROUNDINGS[name]))) for fmt in _FORMATS]
        for name in ("LUQ", "stochastic rounding only", "stochastic underflow only")
    )
    return combine(
        at_most(full, 2, label="largest ratio for LUQ", shown="< 2"),
        at_least(full, 0.5, label="smallest"),
        at_least(others, 5, label="smallest ratio of the others"),
        remark=f"squared error of the mean of {_REPEATS} draws, over what chance leaves of it; second layer of four, "
        "batch 256, clothes",
    )


@claim(
    source="derived here",
    statement="Mean and variance of a quantiser, entry by entry, give bias and noise of the update without sampling; "
    "naive FP4 has a bias of a tenth, LUQ a noise of a seventh.",
)
def update_error_in_closed_form() -> Evidence:
    naive, luq = (update_error(captured_gradient(), WAYS[f"FP4 {name}"]) for name in ("naive", "LUQ"))
    errors = []
    for name in ("FP4 LUQ", "FP4 stochastic rounding only", "INT4 stochastic", "FP3 LUQ"):
        draws, exact = _updates(WAYS[name])
        sampled = float((draws - exact).square().sum(dim=(1, 2)).mean().sqrt() / exact.norm())
        errors.append(abs(sampled / update_error(captured_gradient(), WAYS[name]).rms - 1))
    return combine(
        within(naive.bias, 0.09, 0.12, label="bias of naive FP4"),
        within(luq.noise, 0.12, 0.15, label="noise of LUQ"),
        at_most(luq.bias, 1e-6, label="its bias"),
        at_most(errors, 0.02, label="sampled rms off by", shown="< 2%"),
        remark=f"relative to the size of the update; sampled: {_REPEATS} draws, four quantisers",
    )


@claim(
    source="Section 4 and Fig. 2",
    statement="Powers of two suit gradients better than equal steps: at 4 bits LUQ has less noise than unbiased INT4, "
    "and rounding INT4 to nearest has the largest bias of all.",
)
def powers_of_two_beat_equal_steps() -> Evidence:
    luq, uniform, nearest, naive = (
        update_error(captured_gradient(), WAYS[name])
        for name in ("FP4 LUQ", "INT4 stochastic", "INT4 nearest", "FP4 naive")
    )
    return combine(
        at_least(uniform.noise / luq.noise, 1.5, label="noise, INT4 / LUQ"),
        at_least(nearest.bias / naive.bias, 1.5, label="bias, INT4 to nearest / naive FP4"),
        at_most(uniform.bias, 1e-6, label="bias of INT4 by chance"),
        remark="one real gradient, exact mean and variance",
    )


@claim(
    source="Section 4, Eq. 11; derived here",
    statement="Of three readings of the format, with 7, 8 or 5 levels above zero, the first two are equally noisy and "
    "the third is a fifth noisier; the one of 8 does not fit into 4 bits.",
)
def readings_of_the_format() -> Evidence:
    noise = {
        name: update_error(captured_gradient(), replace(WAYS["FP4 LUQ"], fmt=name)).noise
        for name in ("fp4", "reference", "printed")
    }
    values = {name: 2 * LOG_FORMATS[name] + 1 for name in noise}
    return combine(
        within(noise["fp4"], 0.13, 0.14, label="noise of 7"),
        within(noise["reference"] / noise["fp4"], 0.97, 1.0, label="8 / 7"),
        within(noise["printed"] / noise["fp4"], 1.1, 1.3, label="5 / 7"),
        true_that("15, 17 and 11 values", list(values.values()) == [15, 17, 11]),
        remark="rms error of a real layer's update, relative",
    )


@claim(
    source="Section 5.1",
    statement="Averaging N independent quantisations (SMP) divides the variance of the update by N.",
    paper="variance / N",
)
def samples_divide_the_variance() -> Evidence:
    scaled = []
    for samples in (1, 2, 4, 16):
        draws, exact = _updates(LUQConfig(samples=samples), repeats=40)
        scaled.append(float((draws - exact).square().sum(dim=(1, 2)).mean().sqrt() / exact.norm()) * samples**0.5)
    return combine(
        at_most(np.max(scaled) / np.min(scaled) - 1, 0.05, label="rms × √N varies by", shown="< 5%"),
        within(np.mean(scaled), 0.13, 0.145, label="rms × √N"),
        remark="N = 1, 2, 4, 16; 40 draws each of a real layer's update",
    )


@claim(
    source="Section 3.2, Eq. 8 and the tower rule",
    statement="In a network of several 4-bit layers every layer's update is right on average: it is the gradient of "
    "the quantised forward pass, with the derivative of rounding taken for 1.",
)
def every_layers_update_is_unbiased() -> Evidence:
    generator = torch.Generator().manual_seed(0)
    model = fully_connected((32, 32, 32, 32, 4), activation="relu", generator=generator)
    x, y = torch.randn(64, 32, generator=generator), torch.randint(4, (64,), generator=generator)

    def bias_ratios(name: str) -> list[float]:
        config = LUQConfig(fmt="fp3", **ROUNDINGS[name])
        net = quantize_model(model, config, skip=(), generator=torch.Generator().manual_seed(1))
        weights = [layer.weight for layer in net.modules() if isinstance(layer, LUQLinear)]

        def gradients() -> tuple[Tensor, ...]:
            return torch.autograd.grad(nn.functional.cross_entropy(net(x), y), weights)

        many = [gradients() for _ in range(_REPEATS)]
        reconfigure(net, replace(config, backward="none"))
        return [
            _bias_ratio(torch.stack(draws), exact)
            for draws, exact in zip(zip(*many, strict=True), gradients(), strict=True)
        ]

    ratios, biased = bias_ratios("LUQ"), bias_ratios("naive")
    return combine(
        at_most(ratios, 2, label="largest ratio of four layers", shown="< 2"),
        at_least(biased, 5, label="smallest with naive rounding"),
        remark=f"FP3, INT4 forward, {_REPEATS} backward passes; as for the update of one layer",
    )


@lru_cache(maxsize=32)
def _trained(way: str, *, fine_tuning: int = 0, alone: bool = False) -> FourBitRun:
    """A training that takes a second or two; its averages may go to updates alone."""
    config = replace(WAYS[way], smp_backward=WAYS[way].smp_backward and not alone)
    return train_four_bit(replace(PRESETS["quick"], config=config, fine_tuning=fine_tuning))


def _live(way: str, *, alone: bool = False) -> float:
    return float(_trained(way, alone=alone).scores[-1])


def _shipped(way: str, network: str = "mlp", pick: Callable[[np.ndarray], float] = np.mean) -> float:
    """Test accuracy at the end of the shipped trainings."""
    return float(pick(trained_runs(network)[way].scores[:, 2]))


@claim(
    source="Section 4 and Fig. 2, at our size",
    statement="With 3-bit gradients a network trains with LUQ, and loses a fifth of its accuracy with naive rounding "
    "or with stochastic rounding alone: the chance of underflow decides.",
)
def three_bit_training_needs_luq() -> Evidence:
    luq = _shipped("FP3 LUQ", pick=np.min)
    others = ("FP3 naive", "FP3 stochastic rounding only")
    best = np.array([_shipped(way, pick=np.max) for way in others])
    live = [_live("FP3 LUQ") - _live(way) for way in others]
    return combine(
        at_least(luq - best, 0.05, label="LUQ ahead by"),
        at_most(_shipped("FP32") - _shipped("FP3 LUQ"), 0.06, label="behind FP32 by", shown="< 0.06"),
        at_least(_shipped("FP3 stochastic underflow only") - best, 0.05, label="underflow alone ahead by"),
        at_least(live, 0.05, label="trained here, ahead by"),
        remark=f"test accuracy; {_SHIPPED}, worst seed against best; {_LIVE}",
    )


@claim(
    source="Section 5.1 and its appendix, at our size",
    statement="With 2-bit gradients accuracy climbs back as more samples are averaged, from far below to that of FP32.",
    paper="ResNet-18 on CIFAR-100: full accuracy at N = 16",
)
def two_bit_training_recovers_with_samples() -> Evidence:
    means = [_shipped(f"FP2 LUQ, N = {samples}") for samples in (1, 2, 4, 16)]
    live = [_live(f"FP2 LUQ, N = {samples}") for samples in (1, 4)]
    return combine(
        at_least(np.diff(means), 0.02, label="each step up by"),
        at_most(_shipped("FP32") - means[-1], 0.03, label="N = 16 behind FP32 by", shown="< 0.03"),
        at_least(means[0] - _shipped("FP2 naive"), 0.02, label="N = 1 ahead of naive by"),
        at_least(live[1] - live[0], 0.05, label="trained here, N = 4 ahead of 1 by"),
        remark=f"test accuracy, N = 1, 2, 4, 16; {_SHIPPED}; {_LIVE}",
    )


@claim(
    source="derived here",
    statement="For that the average must also go to the layers before: averaged for the update alone, 16 samples are "
    "worth less than 4, since each layer passes on the noise of a single sample.",
)
def averages_must_reach_the_layers_before() -> Evidence:
    alone = _shipped("FP2 LUQ, N = 16 for updates alone")
    live = _live("FP2 LUQ, N = 4") - _live("FP2 LUQ, N = 4", alone=True)
    return combine(
        at_least(_shipped("FP2 LUQ, N = 4") - alone, 0.03, label="N = 4 ahead of 16 for updates alone by"),
        at_least(live, 0.03, label="trained here, N = 4 ahead of itself for updates alone by"),
        remark=f"test accuracy, six quantised layers; {_SHIPPED}; {_LIVE}",
    )


@claim(
    source="Table 2, at our size",
    statement="With 4-bit gradients, and with all products in 4 bits, LUQ trains to within a point of FP32.",
    paper="ResNet-50: 75.42 of 76.5",
)
def four_bit_training_matches_fp32() -> Evidence:
    gaps = [
        _shipped("FP32", network) - _shipped(way, network)
        for network in ("mlp", "convnet")
        for way in ("FP4 LUQ", "4 bits")
    ]
    return combine(
        at_most(gaps, 0.01, label="behind FP32 by", shown="< 0.01"),
        at_most(_live("FP32") - _live("4 bits"), 0.05, label="trained here, behind by", shown="< 0.05"),
        remark=f"test accuracy, two networks; {_SHIPPED}; {_LIVE}. At this size naive FP4 does not collapse either",
    )


@claim(
    source="Fig. 2, at our size",
    statement="On the convolutional network gradients in INT4, rounded to nearest, are the worst of all ways.",
    paper="INT4 diverges on ResNet-50",
)
def integer_gradients_are_the_worst_on_the_convnet() -> Evidence:
    worst = _shipped("INT4 nearest", "convnet")
    behind = [_shipped(way, "convnet") - worst for way in trained_runs("convnet") if way != "INT4 nearest"]
    naive = _shipped("FP32", "convnet") - _shipped("FP4 naive", "convnet")
    bias = update_error(captured_gradient(), WAYS["INT4 nearest"]).bias
    return combine(
        at_least(behind, 0.015, label="behind the next by"),
        within(naive, 0.0, 0.03, label="naive FP4 behind FP32 by", digits=1),
        at_least(bias, 0.2, label="bias of an update"),
        remark=f"test accuracy; {_SHIPPED}; the bias is that of the captured gradient",
    )


@claim(
    source="Section 7, Eq. 18",
    statement="A maximum guessed from earlier steps, which lets a kernel read the gradient once, costs nothing: hardly "
    "anything is clipped.",
)
def hindsight_costs_nothing() -> Evidence:
    gap = abs(_shipped("4 bits") - _shipped("4 bits, hindsight"))
    run = _trained("4 bits, hindsight")
    return combine(
        at_most(gap, 0.02, label="accuracies differ by", shown="< 0.02"),
        at_most(run.clipped, 0.01, label="clipped", shown="< 1%"),
        true_that("some are clipped", run.clipped > 0),
        at_most(abs(_live("4 bits") - float(run.scores[-1])), 0.05, label="trained here, by", shown="< 0.05"),
        remark=f"momentum 0.9; largest clipped part of a layer; {_SHIPPED}; {_LIVE}",
    )


@claim(
    source="Section 5.2, Eq. 17; Table 3, at our size",
    statement="An epoch of fine-tuning at the end, in high precision but for INT4 weights, does not cost accuracy and "
    "mostly brings some.",
    paper="ResNet-50: +0.26 to +0.55 points",
)
def fine_tuning_does_not_hurt() -> Evidence:
    scores = trained_runs("mlp")["3 bits"].scores
    gains = scores[:, 3] - scores[:, 2]
    run = _trained("3 bits", fine_tuning=1)
    return combine(
        at_least(gains, -0.01, label="least gain"),
        at_least(gains.mean(), 0.001, label="mean gain"),
        at_least(float(run.scores[-1]) - run.before_fine_tuning, -0.01, label="gain of the one trained here"),
        true_that("4 epochs were scored", len(run.scores) == 4),
        remark=f"3-bit gradients and INT4 forward before; {_SHIPPED}; {_LIVE}",
    )
