"""4-bit layers: the same as float layers where nothing is quantised, unbiased where something is, small in memory."""

import copy

import pytest
import torch
from torch import nn

from lib import four_bit
from lib.four_bit import HindsightMax, LUQConfig, LUQConv2d, LUQLinear, PackedReLU, quantize_model, saved_for_backward

EXACT = LUQConfig(forward="none", backward="none")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    leaf = x.clone().requires_grad_()
    (model(leaf) ** 2).sum().backward()
    return [leaf.grad, *(parameter.grad.clone() for parameter in model.parameters())]


LAYERS = [
    ("Linear", {}, (2, 3, 4)),
    ("Conv1d", {"padding": 1, "stride": 2}, (2, 4, 9)),
    ("Conv1d", {"padding": "same", "padding_mode": "reflect"}, (4, 9)),
    ("Conv2d", {"padding": 1}, (2, 4, 9, 8)),
    ("Conv2d", {"padding": "same", "dilation": 2}, (2, 4, 9, 8)),
    ("Conv2d", {"stride": 2, "padding": (2, 1), "bias": False}, (2, 4, 9, 8)),
    ("Conv2d", {"groups": 2, "padding": 1, "padding_mode": "circular"}, (2, 4, 9, 8)),
    ("Conv3d", {"padding": (1, 0, 1), "groups": 2}, (2, 4, 4, 5, 4)),
    ("ConvTranspose1d", {"stride": 2, "output_padding": 1}, (2, 4, 5)),
    ("ConvTranspose2d", {"stride": 2, "padding": 1, "groups": 2}, (2, 4, 5, 4)),
    ("ConvTranspose2d", {"dilation": 2, "bias": False}, (4, 5, 4)),
    ("ConvTranspose3d", {"stride": (1, 2, 1)}, (2, 4, 3, 2, 3)),
]


@pytest.mark.parametrize(("kind", "settings", "shape"), LAYERS)
def test_every_layer_has_a_form_in_four_bits(kind, settings, shape) -> None:
    """Without quantisation it is torch's, of one picture or several; with it, close to that, and right on average."""
    torch.manual_seed(0)
    plain = nn.Linear(4, 6) if kind == "Linear" else getattr(nn, kind)(4, 6, 3, **settings)
    ours = getattr(four_bit, f"LUQ{kind}").from_float(plain, EXACT)
    x = torch.randn(shape, generator=seeded())
    torch.testing.assert_close(ours(x), plain(x))
    for mine, theirs in zip(gradients(ours, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    quantised = quantize_model(plain, skip=(), generator=seeded())
    assert type(quantised) is getattr(four_bit, f"LUQ{kind}")
    with torch.no_grad():
        assert 0 < float((quantised(x) - plain(x)).norm() / plain(x).norm()) < 0.5
    exact = gradients(type(ours).from_float(plain, LUQConfig(backward="none")), x)
    draws = [gradients(quantised, x) for _ in range(100)]
    for place, expected in enumerate(exact):
        mean = torch.stack([draw[place] for draw in draws]).mean(0)
        assert float((mean - expected).norm() / expected.norm()) < 0.08


def test_a_transposed_convolution_takes_the_size_of_its_output() -> None:
    layer = four_bit.LUQConvTranspose2d(1, 1, 3, stride=2)
    assert layer(torch.ones(1, 1, 4, 4), output_size=[10, 9]).shape == (1, 1, 10, 9)


def test_samples_divide_the_variance_of_the_update_only() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(32, 16)
    x = torch.randn(64, 32, generator=seeded())
    spread = {}
    for samples, backward in ((1, False), (4, False), (4, True)):
        layer = LUQLinear.from_float(plain, LUQConfig(samples=samples, smp_backward=backward), seeded(2))
        draws = [gradients(layer, x) for _ in range(100)]
        spread[samples, backward] = [float(torch.stack([d[i] for d in draws]).std(0).mean()) for i in (0, 1)]
    assert spread[4, False][1] / spread[1, False][1] == pytest.approx(0.5, rel=0.15)
    assert spread[4, False][0] / spread[1, False][0] == pytest.approx(1.0, rel=0.15)
    assert spread[4, True][0] / spread[1, False][0] == pytest.approx(0.5, rel=0.15)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def test_quantize_model_keeps_state_names_and_the_original() -> None:
    net = network()
    quantized = quantize_model(net)
    assert [type(layer).__name__ for layer in quantized[1:]] == ["PackedReLU", "LUQLinear", "PackedReLU", "Linear"]
    assert type(net[2]) is nn.Linear
    quantized.load_state_dict(net.state_dict())
    assert all(type(layer) is not nn.Linear for layer in quantize_model(net, skip=()))
    with pytest.warns(UserWarning, match="it is a LUQLinear already"):
        quantize_model(quantize_model(net, skip=()))


def test_nothing_is_kept_without_gradients() -> None:
    net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    ours, x = quantize_model(net, skip=()), torch.rand(2, 1, 28, 28, generator=seeded())
    with torch.no_grad():
        assert saved_for_backward(lambda: ours(x)).total == 0


def test_packed_relu_is_relu() -> None:
    x = torch.randn(3, 5, 7, generator=seeded(), requires_grad=True)
    ours, theirs = PackedReLU()(x), torch.relu(x)
    assert torch.equal(ours, theirs)
    slopes = [torch.autograd.grad(each.square().sum(), x)[0] for each in (ours, theirs)]
    assert torch.equal(*slopes)


REFUSED = [
    (lambda: LUQConfig(fmt="fp5"), "fmt must be one of"),
    (lambda: LUQConfig(fmt=[]), "fmt must be one of"),
    (lambda: LUQConfig(backward="int4", samples=2), "takes one sample"),
    (lambda: LUQConfig(backward="int4", rounding="down"), "takes one sample"),
    (lambda: LUQConfig(process_group="local"), "process_group must be world"),
    (lambda: LUQConfig(backend="numba"), "backend must be one of auto, eager, compiled, triton"),
    (lambda: LUQConfig(hindsight=1.0), "hindsight must be at least 0 and below 1"),
    (lambda: quantize_model(network(), "fp4"), "config must be a LUQConfig"),
    (lambda: LUQLinear(4, 2)(torch.ones(2, 4, dtype=torch.int64)), "x must be"),
    # (4, 8) was taken for (8, 4), and failed only where the result had another size
    *(
        (lambda shape=shape: LUQLinear(4, 4)(torch.ones(shape)), "4 entries on its last axis")
        for shape in [(), (3,), (2, 8)]
    ),
    (lambda: LUQConv2d(1, 2, 3)([[1.0]]), "x must be"),
    (lambda: LUQConv2d(1, 2, 3)(torch.ones(1, 2, 8, 8)), r"x must be \(N, 1, H, W\)"),
    (lambda: LUQConv2d(1, 2, 3)(torch.ones(8, 8)), r"x must be .* or \(1, H, W\); its shape is \(8, 8\)"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.parametrize("settings", [{}, {"hindsight": 0.9}, {"backward": "int4"}, {"samples": 2}])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_broken_gradients_stay_broken_and_are_forgotten(settings, bad) -> None:
    """A loss scaler must see them, and a running maximum must not keep them."""
    layer = LUQLinear(4, 2, config=LUQConfig(**settings))
    other = copy.deepcopy(layer)
    for one, factors in ((layer, (1.0, bad, 1.0)), (other, (bad, 1.0))):
        for factor in factors:
            one.zero_grad()
            (one(torch.ones(3, 4)) * torch.tensor([1.0, factor])).sum().backward()
            assert bool(torch.isfinite(one.weight.grad).all()) == (factor == 1.0)


@pytest.mark.parametrize("settings", [{}, {"samples": 2}, {"samples": 16, "smp_backward": True}, {"backward": "int4"}])
def test_levels_are_exact_in_bfloat16(settings) -> None:
    grad = torch.randn(64, 32, generator=seeded()) ** 3

    def levels(config: LUQConfig, dtype: torch.dtype):
        return LUQLinear(2, 2, config=config, generator=seeded(1)).quantizer.levels(grad, dtype)

    found = [levels(LUQConfig(**settings), dtype) for dtype in (torch.float32, torch.bfloat16)]
    for (wide, unit), (narrow, other) in zip(*found, strict=True):
        assert narrow.dtype == torch.bfloat16
        assert torch.equal(wide, narrow.float())
        assert unit == other
        assert float(wide.abs().max()) >= 7
    # a sum of 200 levels has more bits than bfloat16 can hold
    (first, _), (total, _) = levels(LUQConfig(samples=200), torch.bfloat16)
    assert (first.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert not torch.equal(total.bfloat16().float(), total)


@pytest.mark.parametrize("config", [LUQConfig(), LUQConfig(samples=16), LUQConfig(forward="weights", backward="none")])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_autocast_to_bfloat16_multiplies_the_same_whole_numbers(kind, config) -> None:
    """Only the results of products are rounded to bfloat16: everything agrees with float32 to its precision."""
    results = []
    for enabled in (False, True):
        noise = seeded(2)
        torch.manual_seed(0)
        if kind == "linear":
            layer, x = LUQLinear(48, 32, config=config, generator=noise), torch.randn(64, 48)
        else:
            layer, x = LUQConv2d(3, 8, 3, padding=1, config=config, generator=noise), torch.randn(4, 3, 12, 12)
        x.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = layer(x)
        assert out.dtype == (torch.bfloat16 if enabled else torch.float32)
        # a gradient that bfloat16 holds exactly, so that both are given the same
        slope = torch.randn(out.shape, generator=seeded(3)).bfloat16().to(out.dtype)
        out.backward(slope)
        assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
        results.append([out.detach().float(), x.grad, layer.weight.grad, layer.bias.grad])
    for one, other in zip(*results, strict=True):
        assert float((one - other).norm() / one.norm()) < 6e-3
    assert not torch.equal(results[0][0], results[1][0])


def test_bfloat16_inputs_and_float64_inputs() -> None:
    layer = LUQLinear(8, 4)
    assert layer(torch.ones(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer(torch.ones(2, 8, dtype=torch.float16)).dtype == torch.float16
    assert layer.double()(torch.ones(2, 8, dtype=torch.float64)).dtype == torch.float64


def test_copies_share_their_generator_and_one_process_needs_no_group() -> None:
    layer = LUQLinear(4, 2, config=LUQConfig(process_group="world", hindsight=0.9), generator=torch.Generator())
    layer(torch.ones(3, 4)).sum().backward()
    other = copy.deepcopy(layer)
    assert other.quantizer.generator is layer.quantizer.generator
    assert other.quantizer.hindsight is not layer.quantizer.hindsight
    assert other.quantizer.hindsight.state_dict() == layer.quantizer.hindsight.state_dict()


def test_a_first_gradient_of_zeros_is_no_estimate() -> None:
    estimate = HindsightMax(0.9)
    estimate.update(torch.zeros(3))
    assert float(estimate.update(torch.tensor([2.0, -1.0]))) == 2.0
    assert estimate.clipped_fraction == 0


def test_second_derivatives_are_refused() -> None:
    layer, x = LUQLinear(4, 2), torch.ones(3, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_backward_under_autocast_is_that_of_the_forward_pass() -> None:
    grads = []
    for enabled in (False, True):
        layer = LUQLinear(32, 16, config=LUQConfig(backward="none"))
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(-1, 1, 512).view(16, 32))
            layer.bias.zero_()
        out = layer(torch.linspace(0, 1, 64 * 32).view(64, 32)).sin().sum()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out.backward()
        grads.append(layer.weight.grad)
    assert torch.equal(*grads)
