"""What is no number, no tensor, not finite or of another kind is refused by name; what is kept cannot be changed."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lib.four_bit as fb
from lib.four_bit.fused_int4 import int4_pack, int4_unpack, relu_grad, relu_pack
from tests.bad_input import Call, sweep

X, TWO = torch.tensor([64.0, -3.0, 0.25, 0.0]), torch.ones(2)
CODES, RAND = torch.tensor([7, 13, 1, 0], dtype=torch.uint8), torch.zeros(4, dtype=torch.int32)
BYTES = torch.tensor([33, 15], dtype=torch.uint8)
NET = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
GRADIENT = fb.LayerGradient(torch.randn(8, 3), torch.randn(8, 2))
SMALL = fb.FourBitPreset(count=256, epochs=1)
NAN, INF = float("nan"), float("inf")

#: Name -> valid arguments, one of which is replaced at a time.
CALLS = {
    "Rounding": {"fmt": "fp4", "rounding": "nearest", "underflow": "flush", "pow2_alpha": False},
    "luq_encode": {"x": X, "rounding": fb.Rounding(), "max_abs": 64.0, "rand": RAND},
    "luq_decode": {"codes": CODES, "alpha": 1.0, "fmt": "fp4"},
    "luq": {"x": X, "rounding": fb.Rounding(7), "samples": 2, "generator": torch.Generator()},
    "luq_mean": {"x": X, "rounding": fb.Rounding("fp3", underflow="flush"), "max_abs": 64.0},
    "luq_variance": {"x": X, "rounding": fb.Rounding(), "max_abs": torch.tensor(64.0)},
    "round_nearest_power": {"v": X[:1]},
    "random_mantissas": {"shape": (3,), "generator": torch.Generator()},
    "counter_mantissas": {"shape": (3,), "seed": 1, "start": 2, "device": "cpu"},
    "luq_pack": {"x": X, "rounding": fb.Rounding(), "seed": 1, "max_abs": 64.0, "backend": "eager"},
    "luq_fused": {"x": X, "rounding": fb.Rounding(), "rand": RAND, "backend": "auto"},
    "luq_levels": {"x": X, "dtype": torch.float32, "seed": 1},
    "active_backend": {"device": "cpu", "backend": "auto"},
    "int4_encode": {"x": X.abs(), "clip": "sawb", "signed": False, "rounding": "stochastic", "rand": RAND},
    "int4_decode": {"codes": torch.tensor([-7, 3]), "scale": 0.5},
    "int4_mean_and_variance": {"x": X, "max_abs": 64.0, "stochastic": True},
    "sawb_clip": {"x": X, "coeffs": (12.1, 12.2)},
    "mf_product": {"int4": torch.tensor([-3, 5]), "fp4_codes": torch.tensor([3, 15])},
    "mf_matmul": {"int4": torch.tensor([[1, -2]]), "fp4_codes": torch.tensor([[1], [2]])},
    "pack_nibbles": {"codes": torch.tensor([1, 2, -1])},
    "unpack_nibbles": {"packed": BYTES, "shape": (3,), "signed": True},
    "pack_bits": {"mask": torch.tensor([True, False])},
    "unpack_bits": {"packed": BYTES, "shape": (12,)},
    "fnt_lr": {"t": 1, "T": 4, "lr_final": 0.1, "lr_base": 0.5},
    "fit_sawb": {"levels": 15},
    "two_layer_errors": {"forward": "nearest", "backward": "LUQ", "fmt": "fp4", "passes": 2, "seed": 0},
    "gradient_moments": {"delta": X, "config": fb.LUQConfig(), "max_abs": 64.0},
    "update_error": {"gradient": GRADIENT, "config": fb.LUQConfig(), "max_abs": 64.0},
    "capture_gradients": {
        "model": NET, "loss": nn.functional.mse_loss, "inputs": torch.ones(5, 3), "targets": torch.ones(5, 1)
    },
    "saved_for_backward": {"forward": lambda: NET(torch.ones(5, 3)), "parameters": [torch.ones(2)]},
    "HindsightMax": {"momentum": 0.9},
    "gradient_quantizer": {"config": fb.LUQConfig(), "generator": torch.Generator()},
    "four_bit_preset": {"preset": SMALL},
    "sweep_four_bit": {"preset": SMALL, "ways": ["FP32"], "seeds": (0,), "folder": None, "data_path": None, "jobs": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_what_is_replaced_by_something_bad_is_refused_by_name(name) -> None:
    """All arguments, where the docstrings' examples of tests/test_bad_input.py have some; and nothing silent."""
    function = getattr(fb, name)
    call = Call(name, function, inspect.signature(function).bind(**CALLS[name]))
    # where a shape is another one, the message may name what does not fit it
    found = [outcome for outcome in sweep(call) if not outcome[1].endswith(("=empty)", "=wrong rank)"))]
    assert len(found) > 2
    assert not [outcome for outcome in found if outcome[0] not in ("clear refusal", "right answer", "answer")]


def test_every_public_function_is_looked_at() -> None:
    elsewhere = {
        "quantize_model", "reconfigure", "quantizer_states", "exchange_report",  # test_layers, test_exchange
        "train_four_bit", "four_bit_task",  # test_experiment
        "captured_gradient", "trained_runs",  # no arguments
    }  # fmt: skip
    functions = {name for name in dir(fb) if inspect.isfunction(getattr(fb, name))}
    assert functions - elsewhere == set(CALLS) - {"HindsightMax", "Rounding"}


REFUSED = [
    (lambda: fb.luq(TWO, "fp3"), r"rounding must be a Rounding, such as Rounding\(fmt='fp3'\)"),
    (lambda: fb.luq_encode(TWO.long()), "x must be a floating-point tensor; it is torch.int64"),
    (lambda: fb.luq_encode(TWO, rand=torch.zeros(3)), "rand must be an int32 tensor"),
    (lambda: fb.luq(TWO, samples=2, rand=RAND[:2]), "leading axis of length 2"),
    (lambda: fb.round_nearest_power(-TWO), "positive normal"),
    (lambda: fb.luq_pack(TWO), "needs a seed"),
    (lambda: fb.luq_pack(TWO, seed=0, rand=RAND[:2]), "not both"),
    (lambda: fb.luq_pack(TWO, seed=0.5), "seed must be an integer"),
    (lambda: fb.luq_pack(TWO, fb.Rounding("reference"), seed=0), "must fit in 4 bits; 'reference' has 17 values"),
    (lambda: fb.luq_pack(TWO / 0, seed=0, max_abs=1.0), "x must be finite"),
    (lambda: fb.luq_pack(TWO, seed=0, max_abs=TWO), "max_abs must be one number"),
    *(
        (lambda code=code, fmt=fmt: fb.luq_decode(torch.tensor([code]), 1.0, fmt=fmt), "codes must be levels 0 to")
        for fmt, many in {"fp4": (16, -1), "printed": (6,), "fp3": (4,), "fp2": (10,), "reference": (32, 9)}.items()
        for code in many
    ),
    (lambda: fb.int4_decode(torch.tensor([-9]), 1.0), "codes must lie in -8 … 15; they run from -9 to -9"),
    (lambda: fb.int4_encode(TWO, clip=0.0), "clip must be positive"),
    (lambda: fb.int4_encode(-TWO, signed=False), "x must not be negative"),
    (lambda: fb.pack_nibbles(TWO), "codes must hold integers"),
    (lambda: fb.pack_nibbles(torch.tensor([16])), "codes must lie in"),
    (lambda: fb.unpack_nibbles(BYTES, (5,)), "packed must hold 3 bytes"),
    (lambda: fb.pack_bits(TWO), "mask must be boolean"),
    (lambda: fb.unpack_bits(BYTES, (5,)), "packed must hold 1 bytes"),
    (lambda: fb.mf_product(torch.tensor([8]), torch.tensor([0])), "int4 must lie in"),
    (lambda: fb.mf_product(torch.tensor([7]), torch.tensor([16])), "fp4_codes must lie in"),
    (lambda: fb.mf_product(TWO, torch.tensor([1])), "int4 must hold integers"),
    (lambda: fb.mf_matmul(torch.ones(2, 3).int(), torch.ones(2, 3).int()), "matrices that fit"),
    (lambda: fb.HindsightMax(1.0), "momentum must be"),
    (lambda: fb.fnt_lr(5, 4, 0.1, 0.1), "t must lie between"),
    (lambda: fb.two_layer_errors("nearest", "LUQ", passes=1), "passes must be at least 2"),
    (lambda: int4_pack(TWO.tolist()), "x must be a floating-point tensor; it is list"),
    (lambda: int4_pack(TWO, clip="none"), "clip must be one of sawb, max; it is 'none'"),
    (lambda: int4_pack(TWO, dtype=torch.int8), "dtype must be one of torch.float32, .*torch.int8"),
    (lambda: int4_pack(TWO, backend="cuda"), "backend must be one of"),
    (lambda: int4_pack(TWO).unpack(torch.int8), "dtype must be one of"),
    (lambda: int4_unpack(BYTES, (5,), torch.tensor(True)), "packed must hold 3 bytes"),
    (lambda: int4_unpack(BYTES, (3,), TWO.bool()), "signed must be a 0-d"),
    (lambda: int4_unpack(BYTES, (3,), torch.tensor(1)), "signed must be a 0-d"),
    (lambda: relu_pack(TWO.long()), "x must be a floating-point tensor"),
    (lambda: relu_grad(TWO, BYTES), "packed must hold 1 bytes"),
    (lambda: relu_grad(TWO.long(), BYTES[:1]), "grad must be a floating-point tensor"),
    *(
        (lambda call=call, wrong=wrong: call(X, rand=torch.full((4,), wrong, dtype=torch.int32)), "rand must lie in")
        for wrong in (-1, 1 << 23)
        for call in (fb.luq_encode, fb.luq_fused)
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "state must be a state_dict"),
        ({"estimate": None, "seen": 0}, "lacks clipped"),
        ({"estimate": torch.tensor(NAN), "clipped": 0, "seen": 1}, "estimate must be finite"),
        ({"estimate": torch.tensor(-1.0), "clipped": 0, "seen": 1}, "estimate must be at least 0"),
        ({"estimate": torch.ones(2), "clipped": 0, "seen": 1}, "estimate must have 0 axes"),
        ({"estimate": "1", "clipped": 0, "seen": 1}, "estimate must hold real numbers"),
        ({"estimate": None, "clipped": 2, "seen": 1}, "clipped must be at most"),
        ({"estimate": None, "clipped": NAN, "seen": 1}, "clipped must be an integer"),
        ({"estimate": None, "clipped": 0, "seen": -1}, "seen must be at least 0"),
    ],
)
def test_a_broken_state_is_refused_and_changes_nothing(state, message) -> None:
    estimate = fb.HindsightMax()
    estimate.update(X)
    before = estimate.state_dict()
    with pytest.raises((TypeError, ValueError), match=message):
        estimate.load_state_dict(state)
    assert estimate.state_dict() == before


def test_nothing_that_a_caller_holds_changes_what_is_kept() -> None:
    estimate = fb.HindsightMax()
    estimate.update(X)
    state = estimate.state_dict()
    state["estimate"].fill_(NAN)
    assert float(estimate.state_dict()["estimate"]) == 64.0
    given = {"estimate": torch.tensor(2.0), "clipped": 0, "seen": 4}
    estimate.load_state_dict(given)
    given["estimate"].fill_(NAN)
    assert float(estimate.update(X)) == 2.0

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
    fb.gradient_quantizer(config, generator)(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_of_numpy_and_lists_are_taken(tmp_path: Path) -> None:
    assert torch.equal(fb.luq_fused(X, seed=np.int64(3)), fb.luq_fused(X, seed=3))
    codes, alpha = fb.luq_encode(X, fb.Rounding(np.int8(7), **fb.ROUNDINGS["naive"]), max_abs=np.float32(64))
    assert codes.tolist() == fb.luq_encode(X, fb.Rounding(**fb.ROUNDINGS["naive"]), max_abs=64)[0].tolist()
    assert fb.luq_decode(codes, np.float64(alpha)).shape == (4,)
    assert torch.equal(fb.unpack_nibbles(BYTES, [np.int64(3)]), fb.unpack_nibbles(BYTES, (3,)))
    preset = fb.four_bit_preset(
        fb.FourBitPreset(count=np.int64(64), seed=np.int32(1), lr=np.float32(0.5), epochs=np.int8(2))
    )
    assert [type(value) for value in (preset.count, preset.seed, preset.lr, preset.epochs)] == [int, int, float, int]
    rows = fb.luq_encode(torch.ones(2, 3), max_abs=torch.tensor([[1.0], [2.0]]))[1]
    assert rows.shape == (2, 1)
