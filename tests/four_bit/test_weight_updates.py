"""Bias and noise of updates in closed form, against sampling; and the capture of gradients."""

import pytest
import torch
from torch import nn

from lib.four_bit import LayerGradient, LUQConfig, capture_gradients, gradient_quantizer, two_layer_errors, update_error
from lib.four_bit.weight_updates import UpdateError


def gradient() -> LayerGradient:
    generator = torch.Generator().manual_seed(0)
    return LayerGradient(torch.randn(64, 6, generator=generator) ** 5, torch.randn(64, 5, generator=generator).relu())


@pytest.mark.parametrize(
    "config",
    [
        LUQConfig(),
        LUQConfig(fmt="fp3", samples=3),
        LUQConfig(fmt="fp3", underflow="flush"),
        LUQConfig(fmt=2, rounding="nearest"),
        LUQConfig(rounding="down", underflow="nearest"),
        LUQConfig(pow2_alpha=True),
        LUQConfig(backward="int4"),
        LUQConfig(backward="int4", rounding="nearest"),
        LUQConfig(backward="none"),
    ],
)
def test_closed_form_is_what_sampling_finds(config) -> None:
    data = gradient()
    quantize = gradient_quantizer(config, generator=torch.Generator().manual_seed(1))
    draws = (quantize(data.delta.expand(4000, -1, -1))[1].mT @ data.inputs).double()
    exact = (data.delta.T @ data.inputs).double()
    error = update_error(data, config)
    noise = float(draws.var(dim=0).sum().sqrt() / exact.norm())
    bias = float((draws.mean(dim=0) - exact).norm() / exact.norm())
    assert noise == pytest.approx(error.noise, rel=0.05, abs=1e-6)
    assert bias == pytest.approx(error.bias, abs=4 * error.noise / 4000**0.5 + 1e-6)
    cosine = torch.nn.functional.cosine_similarity(draws.mean(dim=0).flatten(), exact.flatten(), dim=0)
    assert float(cosine) == pytest.approx(error.cosine, abs=0.02)


def test_samples_for_a_target() -> None:
    error = UpdateError(bias=0.1, noise=0.4, cosine=0.9)
    assert error.rms == pytest.approx(0.17**0.5)
    assert error.samples_for(0.1) == 16
    assert error.samples_for(1.0) == 1


@pytest.mark.parametrize("inplace", [False, True])
def test_captured_gradients_give_the_updates_of_autograd(inplace) -> None:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=inplace), shared, nn.ReLU(inplace=inplace), shared)
    x, y = torch.randn(10, 4), torch.randn(10, 6)
    found = capture_gradients(model, nn.functional.mse_loss, x, y)
    nn.functional.mse_loss(model(x), y).backward()
    for name, layer in (("0", model[0]), ("2", shared)):
        update = found[name].delta.T @ found[name].inputs
        torch.testing.assert_close(update, layer.weight.grad)
    assert found["2"].delta.shape == (20, 6)
    assert not model[0]._forward_hooks


def test_two_layers_tell_bias_from_noise() -> None:
    exact, naive = (two_layer_errors("nearest", backward) for backward in ("LUQ", "naive"))
    assert exact.gradient.bias < 0.05 < naive.gradient.bias
    assert naive.gradient.noise < 1e-6 < exact.gradient.noise
    chance = two_layer_errors("stochastic", "LUQ")
    assert exact.outputs.noise < 1e-6 < chance.outputs.noise
    assert chance.outputs.after(1) > 1.2 * exact.outputs.after(1)
    assert chance.outputs.bias < exact.outputs.bias
