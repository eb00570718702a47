"""What is no number, no tensor, not finite or of another kind is refused by name; what is kept cannot be changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lib.four_bit as fb

X = torch.tensor([64.0, -3.0, 0.25, 0.0])
BYTES = torch.tensor([33, 15], dtype=torch.uint8)
NET = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
SMALL = fb.FourBitPreset(count=256, epochs=1)
NAN, INF = float("nan"), float("inf")


def test_random_integers_out_of_range_are_refused() -> None:
    for wrong in (-1, 1 << 23):
        for call in (fb.luq_encode, fb.luq_fused):
            with pytest.raises(ValueError, match="rand must lie in"):
                call(X, rand=torch.full((4,), wrong, dtype=torch.int32))


def test_nothing_that_a_caller_holds_changes_what_is_kept() -> None:
    fb.captured_gradient().delta.zero_()
    fb.captured_gradient().inputs.zero_()
    assert float(fb.captured_gradient().delta.abs().sum()) > 0
    assert float(fb.captured_gradient().inputs.abs().sum()) > 0

    runs = fb.trained_runs()
    with pytest.raises(ValueError, match="read-only"):
        runs["mlp", "FP32"].scores[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        runs["mlp", "FP32"].losses[0] = 0
    runs.clear()
    assert fb.trained_runs()


def test_a_gradient_of_zeros_and_a_loss_that_is_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="gradient must make an update"):
        fb.update_error(fb.LayerGradient(torch.zeros(4, 2), torch.ones(4, 3)), fb.LUQConfig())
    with pytest.raises(ValueError, match="as many rows"):
        fb.update_error(fb.LayerGradient(torch.ones(4, 2), torch.ones(3, 3)), fb.LUQConfig())
    for delta in (torch.tensor([[NAN]]), torch.tensor([[INF]])):
        for backward in ("luq", "int4", "none"):
            with pytest.raises(ValueError, match="must be finite"):
                fb.update_error(fb.LayerGradient(delta, torch.ones(1, 1)), fb.LUQConfig(backward=backward))
    x, y = torch.ones(2, 3), torch.ones(2, 1)
    with pytest.raises(ValueError, match="loss must be finite; it is nan"):
        fb.capture_gradients(NET, lambda output, _: output.mean() * NAN, x, y)
    with pytest.raises(ValueError, match="loss must return a tensor of one number"):
        fb.capture_gradients(NET, lambda output, _: output, x, y)
    with pytest.raises(ValueError, match="model must call a linear layer"):
        fb.capture_gradients(nn.Sequential(nn.Conv1d(2, 2, 3)), lambda output, _: output.mean(), x, y)


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


def test_numbers_of_numpy_and_lists_are_taken(tmp_path: Path) -> None:
    assert torch.equal(fb.luq_fused(X, seed=np.int64(3)), fb.luq_fused(X, seed=3))
    codes, alpha = fb.luq_encode(X, fb.Rounding(np.int8(7), **fb.ROUNDINGS["naive"]), max_abs=np.float32(64))
    assert codes.tolist() == fb.luq_encode(X, fb.Rounding(**fb.ROUNDINGS["naive"]), max_abs=64)[0].tolist()
    assert fb.luq_decode(codes, np.float64(alpha)).shape == (4,)
    assert torch.equal(fb.unpack_nibbles(BYTES, [np.int64(3)]), fb.unpack_nibbles(BYTES, (3,)))
    rows = fb.luq_encode(torch.ones(2, 3), max_abs=torch.tensor([[1.0], [2.0]]))[1]
    assert rows.shape == (2, 1)
