"""Layers, networks and training on a GPU: values and gradients of the processor, and the same invariance."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lib.alias_free.experiment import PRESETS, train_alias_free
from lib.alias_free.layers import (
    AliasFreeActivation,
    AliasFreeLayerNorm,
    AliasFreeMLP,
    APSDownsample2d,
    BlurPool2d,
    CircularConv2d,
    CircularConvTranspose2d,
    DemodulatingStem,
    IdealDownsample2d,
    IdealPixelShuffle,
    IdealResample2d,
)
from lib.alias_free.resampling import fourier_shift, ideal_lowpass, ideal_resample
from lib.alias_free.robustness import shift_robustness
from lib.datasets import clothes
from lib.training import reproducible
from tests.alias_free.pictures import noise
from tests.alias_free.test_convnext import network
from tests.alias_free.test_layers import drawn
from tests.interrupting import interrupt_at
from tests.needs import needs_gpu

pytestmark = needs_gpu

MODES = ("baseline", "blurpool", "aps", "afc")
SHORT = replace(PRESETS["quick"], count=320, batch_size=32, epochs=2, dims=(4, 8))
PRECISIONS = ((torch.float64, 1e-12), (torch.float32, 1e-4))
FUNCTIONS = {
    "shift": partial(fourier_shift, shift=(0.7182, -2.236)),
    "up": lambda x: ideal_resample(x, (x.shape[-2] * 3 // 2, x.shape[-1] + 7)),
    "down": lambda x: ideal_resample(x, (x.shape[-2] // 2, x.shape[-1] // 3)),
    "low-pass": lambda x: ideal_lowpass(x, (x.shape[-2] // 2, x.shape[-1] // 3)),
}
LAYERS = {
    "activation": AliasFreeActivation(4),
    "activation of degree 4": AliasFreeActivation(4, oversample=2, coef=(0.1, 0.5, 0.2, -0.1, 0.05)),
    "normalisation": AliasFreeLayerNorm(4),
    "perceptron": nn.Sequential(CircularConv2d(4, 4, 3), AliasFreeMLP(24)),
    "convolution": CircularConv2d(4, 6, 4, stride=2, lowpass=True),
    "ideal stride": IdealDownsample2d(4),
    "transposed convolution": CircularConvTranspose2d(4, 6, 4, stride=2, padding=1),
    "finer": IdealResample2d(scale_factor=2),
    "pixel shuffle": IdealPixelShuffle(2),
    "demodulating stem": DemodulatingStem(4, 2),
    "BlurPool": BlurPool2d(4),
    "APS": APSDownsample2d(),
}


@pytest.fixture(autouse=True)
def float32_products_in_float32() -> None:
    reproducible()


def found(function: Callable, x: torch.Tensor, device: str) -> list[torch.Tensor]:
    """Values, and gradients of a sum with weights."""
    there = copy.deepcopy(function).to(device) if isinstance(function, nn.Module) else function
    given = x.to(device).requires_grad_()
    values = there(given)
    weights = torch.arange(values.numel(), device=device, dtype=x.dtype).sin().view(values.shape)
    parts = tuple(there.parameters()) if isinstance(there, nn.Module) else ()
    results = [values, *torch.autograd.grad((values * weights).sum(), (given, *parts))]
    assert all(part.device.type == torch.device(device).type and part.dtype == x.dtype for part in results)
    return [part.detach().cpu() for part in results]


def alike(function: Callable, x: torch.Tensor, bound: float) -> None:
    ours, theirs = found(function, x, "cuda"), found(function, x, "cpu")
    largest = max(float(part.abs().max()) for part in theirs[1:])
    for one, other in zip(ours, theirs, strict=True):
        # a gradient that vanishes but for rounding is held against the others
        assert (one - other).abs().max() <= bound * max(float(other.abs().max()), 1e-2 * largest)


@pytest.mark.parametrize(("dtype", "bound"), PRECISIONS)
@pytest.mark.parametrize("size", [(12, 24), (13, 21), (300, 24), (24, 318)])
def test_functions_of_small_and_large_pictures(size, dtype, bound) -> None:
    for function in FUNCTIONS.values():
        alike(function, noise(2, 3, *size).to(dtype), bound)


@pytest.mark.parametrize(("dtype", "bound"), PRECISIONS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype, bound) -> None:
    for size in ((12, 24), (300, 24)):
        alike(drawn(copy.deepcopy(LAYERS[name])).to(dtype), noise(2, 4, *size).to(dtype), bound)


@pytest.mark.parametrize(("dtype", "bound"), PRECISIONS)
@pytest.mark.parametrize("mode", MODES)
def test_networks(mode, dtype, bound) -> None:
    for size in ((24, 32), (16, 264)):
        alike(network(mode).to(dtype), noise(2, 1, *size).to(dtype), bound)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_where_it_is(dtype) -> None:
    for side in (24, 300):
        x = noise(2, 3, side, 24).to("cuda", dtype)
        for function in FUNCTIONS.values():
            ours, wide = function(x), function(x.double())
            assert ours.dtype == dtype
            assert (ours - wide).abs().max() < 0.05 * wide.abs().max()


@pytest.mark.parametrize("mode", MODES)
def test_autocast(mode) -> None:
    net, x = network(mode).to("cuda"), noise(4, 1, 48, 48).to("cuda", torch.float32)
    whole = net(x)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        half = net(x)
        loss = nn.functional.cross_entropy(half, torch.arange(4, device="cuda"))
    loss.backward()
    assert half.dtype == torch.bfloat16
    assert all(bool(part.grad.isfinite().all()) and bool(part.grad.any()) for part in net.parameters())
    # APS may choose another grid
    assert (half - whole).abs().max() < (1 if mode == "aps" else 0.1) * whole.abs().max()


@pytest.mark.parametrize(("mode", "precision"), [("afc", "float32"), ("afc", "bfloat16"), ("aps", "float32")])
def test_training_goes_on_where_it_was_interrupted(mode, precision, tmp_path) -> None:
    settings, options = replace(SHORT, mode=mode), {"device": "cuda", "precision": precision, "every": 4}
    whole = train_alias_free(settings, **options)
    assert whole.losses[-3:].mean() < whole.losses[:3].mean()
    with interrupt_at(7):
        train_alias_free(settings, tmp_path, **options)
    again = train_alias_free(settings, tmp_path, **options)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.scores, whole.scores)
    if mode == "afc":
        images, classes = (part.to("cuda") for part in clothes("test", 40).tensors)
        robust = shift_robustness(again.model, images, classes, [(1, 2), (0.7182, -2.236)])
        assert robust.consistency == 1
        assert robust.max_relative_change < 2e-5
