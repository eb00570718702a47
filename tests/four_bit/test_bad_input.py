"""What is no number, no tensor, not finite or of another kind is refused by name; what is kept cannot be changed."""

import numpy as np
import pytest
import torch
from torch import nn

import lib.four_bit as fb

X = torch.tensor([64.0, -3.0, 0.25, 0.0])
BYTES = torch.tensor([33, 15], dtype=torch.uint8)
SMALL = fb.FourBitPreset(count=256, epochs=1)


def test_nothing_that_a_caller_holds_changes_what_is_kept() -> None:
    runs = fb.trained_runs()
    for name, values in (("delta", "scores"), ("inputs", "losses")):
        getattr(fb.captured_gradient(), name).zero_()
        assert float(getattr(fb.captured_gradient(), name).abs().sum()) > 0
        with pytest.raises(ValueError, match="read-only"):
            getattr(runs["FP32"], values)[0] = 0
    runs.clear()
    assert fb.trained_runs()


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (torch.zeros(4, 2), "gradient must make an update"),
        (torch.ones(3, 2), "as many rows"),
        (torch.full((4, 2), float("inf")), "must be finite"),
    ],
)
def test_a_gradient_without_an_update_is_refused(delta, message) -> None:
    for backward in ("luq", "int4", "none"):
        with pytest.raises(ValueError, match=message):
            fb.update_error(fb.LayerGradient(delta, torch.ones(4, 3)), fb.LUQConfig(backward=backward))


@pytest.mark.parametrize(
    ("layer", "loss", "message"),
    [
        (nn.Linear(3, 1), lambda output: output.mean() * float("nan"), "loss must be finite; it is nan"),
        (nn.Linear(3, 1), lambda output: output, "loss must return a tensor of one number"),
        (nn.Conv1d(2, 2, 3), lambda output: output.mean(), "model must call a linear layer"),
    ],
)
def test_a_capture_without_a_gradient_is_refused(layer, loss, message) -> None:
    with pytest.raises(ValueError, match=message):
        fb.capture_gradients(nn.Sequential(layer), lambda output, _: loss(output), torch.ones(2, 3), torch.ones(2, 1))


def test_frozen_layers_have_gradients_too_and_unused_ones_zeros() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aside = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x):
            self.aside(x)
            return self.main(x)

    x, y = torch.ones(4, 3), torch.zeros(4, 1)
    model = Aside()
    with torch.no_grad():
        found = fb.capture_gradients(model, nn.functional.mse_loss, x, y)
        frozen = fb.capture_gradients(model.requires_grad_(False), nn.functional.mse_loss, x, y)
    assert float(found["main"].delta.abs().sum()) > 0
    assert float(found["aside"].delta.abs().sum()) == 0
    assert torch.equal(found["main"].delta, frozen["main"].delta)


def test_torchs_global_random_state_stays_where_it_was() -> None:
    generator = torch.Generator().manual_seed(0)
    config = fb.LUQConfig(forward_rounding="stochastic", samples=2)
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Dropout())
    before = torch.get_rng_state()
    model = fb.quantize_model(net, config, skip=(), generator=generator, example=torch.ones(2, 4)).eval()
    model(torch.ones(2, 4)).sum().backward()
    fb.four_bit_task(SMALL, generator=generator)
    first = fb.LUQLinear(4, 4, generator=torch.Generator().manual_seed(1)).weight
    assert torch.equal(first, fb.LUQLinear(4, 4, generator=torch.Generator().manual_seed(1)).weight)
    assert not torch.equal(first, fb.LUQLinear(4, 4, generator=torch.Generator().manual_seed(2)).weight)
    fb.LUQConv2d(1, 2, 3, generator=generator)
    fb.luq(X, samples=3, generator=generator)
    fb.luq_fused(X, seed=1)
    fb.luq_pack(X, seed=1)
    fb.int4_encode(X, rounding="stochastic", generator=generator)
    fb.random_mantissas((3,), generator=generator)
    fb.two_layer_errors("stochastic", "LUQ", passes=3, seed=5)
    fb.gradient_quantizer(config, generator=generator)(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_of_numpy_and_lists_are_taken() -> None:
    assert torch.equal(fb.luq_fused(X, seed=np.int64(3)), fb.luq_fused(X, seed=3))
    codes, alpha = fb.luq_encode(X, fb.Rounding(np.int8(7), rounding="down", underflow="flush"), max_abs=np.float32(64))
    assert fb.luq_decode(codes, np.float64(alpha)).tolist() == [64.0, -2.0, 0.0, 0.0]
    assert torch.equal(fb.unpack_nibbles(BYTES, [np.int64(3)]), fb.unpack_nibbles(BYTES, (3,)))
    assert fb.luq_encode(torch.ones(2, 3), max_abs=torch.tensor([[1.0], [2.0]]))[1].shape == (2, 1)
