"""What is no number, no tensor, not finite or of another kind is refused by name; what is kept cannot be changed."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lib.four_bit as fb

X = torch.tensor([64.0, -3.0, 0.25, 0.0])
CODES, RAND = torch.tensor([7, 13, 1, 0], dtype=torch.uint8), torch.zeros(4, dtype=torch.int32)
BYTES = torch.tensor([33, 15], dtype=torch.uint8)
NET = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
GRADIENT = fb.LayerGradient(torch.randn(8, 3), torch.randn(8, 2))
SMALL = fb.FourBitPreset(count=256, epochs=1)

#: Name -> valid arguments, one of which is replaced at a time.
CALLS = {
    "luq_encode": {"x": X, "fmt": "fp4", "max_abs": 64.0, "rounding": "nearest", "rand": RAND, "pow2_alpha": False},
    "luq_decode": {"codes": CODES, "alpha": 1.0, "fmt": "fp4"},
    "luq": {"x": X, "samples": 2, "fmt": 7, "generator": torch.Generator()},
    "luq_mean": {"x": X, "fmt": "fp3", "max_abs": 64.0, "underflow": "flush"},
    "luq_variance": {"x": X, "max_abs": torch.tensor(64.0)},
    "round_nearest_power": {"v": X[:1]},
    "random_mantissas": {"shape": (3,), "generator": torch.Generator()},
    "counter_mantissas": {"shape": (3,), "seed": 1, "start": 2, "device": "cpu"},
    "luq_pack": {"x": X, "seed": 1, "fmt": "fp4", "max_abs": 64.0, "backend": "eager"},
    "luq_fused": {"x": X, "rand": RAND, "rounding": "stochastic", "backend": "auto"},
    "luq_levels": {"x": X, "dtype": torch.float32, "seed": 1},
    "active_backend": {"device": "cpu", "requested": "auto"},
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
    "sweep_four_bit": {
        "preset": SMALL, "ways": ["FP32"], "seeds": (0,), "folder": None, "data_path": None, "device": "cpu", "jobs": 1
    },
}  # fmt: skip
NAN, INF = float("nan"), float("inf")
BAD = {
    "None": None, "text": "abc", "number": NAN, "infinity": -INF, "complex": 1 + 2j, "ragged": [[1.0], [1.0, 2.0]],
    "object": object(), "dict": {"a": 1}, "complex tensor": torch.ones(4, dtype=torch.complex64),
    "broken tensor": torch.tensor([1.0, NAN, 2.0, INF]),
}  # fmt: skip
#: What may be left out, and is then no bad value.
NAMED = {"requested": "backend"}
OPTIONAL = {"rand", "max_abs", "generator", "seed", "device", "jobs", "folder", "data_path"}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_replaced_by_something_bad_is_refused_by_name(name) -> None:
    """Of ten bad values for each argument; no other kind of error, and nothing silent."""
    function, valid = getattr(fb, name), CALLS[name]
    if name != "sweep_four_bit":  # it would train
        function(**valid)
    wrong = []
    for argument in valid:
        for kind, value in BAD.items():
            if (value is None and argument in OPTIONAL) or (kind == "text" and argument in {"folder", "data_path"}):
                continue
            try:
                found = function(**{**valid, argument: value})
            except (TypeError, ValueError) as error:
                if not re.search(rf"\b{NAMED.get(argument, argument)}(\[.*\])? must", str(error)):
                    wrong.append(f"{argument}={kind}: {error}")
            except Exception as error:
                wrong.append(f"{argument}={kind}: {type(error).__name__}: {error}")
            else:
                wrong.append(f"{argument}={kind} gives {found!r}"[:200])
    assert not wrong, "\n".join(wrong)


def test_every_public_function_is_looked_at() -> None:
    elsewhere = {
        "quantize_model", "reconfigure", "quantizer_states", "exchange_report",  # test_layers, test_exchange
        "train_four_bit", "four_bit_task",  # test_experiment
        "captured_gradient", "trained_runs",  # no arguments
    }  # fmt: skip
    functions = {name for name in dir(fb) if inspect.isfunction(getattr(fb, name))}
    assert functions - elsewhere == set(CALLS) - {"HindsightMax"}


@pytest.mark.parametrize(
    ("codes", "fmt"),
    [
        ([16], "fp4"),
        ([-1], "fp4"),
        ([6], "printed"),
        ([4], "fp3"),
        ([10], "fp2"),
        ([32], "reference"),
        ([9], "reference"),
    ],
)
def test_codes_that_a_format_does_not_have_are_refused(codes, fmt) -> None:
    with pytest.raises(ValueError, match="codes must be levels 0 to"):
        fb.luq_decode(torch.tensor(codes), 1.0, fmt=fmt)
    for wrong in ([16], [-9]):
        with pytest.raises(ValueError, match="codes must fit in 4 bits"):
            fb.int4_decode(torch.tensor(wrong), 1.0)


@pytest.mark.parametrize("fmt", fb.LOG_FORMATS)
def test_every_code_of_a_format_is_decoded(fmt) -> None:
    levels, sign = fb.LOG_FORMATS[fmt], 16 if fmt == "reference" else 8
    k = torch.arange(levels + 1)
    expected = torch.where(k > 0, 2.0 ** (k - 1), 0.0)
    assert torch.equal(fb.luq_decode(k, 1.0, fmt=fmt), expected)
    assert torch.equal(fb.luq_decode(k + sign, 1.0, fmt=fmt), -expected)


def test_random_integers_out_of_range_are_refused() -> None:
    for wrong in (-1, 1 << 23):
        for call in (fb.luq_encode, fb.luq_fused):
            with pytest.raises(ValueError, match="rand must lie in"):
                call(X, rand=torch.full((4,), wrong, dtype=torch.int32))


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
    fb.gradient_quantizer(config, generator=generator)(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_of_numpy_and_lists_are_taken(tmp_path: Path) -> None:
    assert torch.equal(fb.luq_fused(X, seed=np.int64(3)), fb.luq_fused(X, seed=3))
    codes, alpha = fb.luq_encode(X, max_abs=np.float32(64), fmt=np.int8(7), rounding="nearest", underflow="flush")
    assert codes.tolist() == fb.luq_encode(X, max_abs=64, rounding="nearest", underflow="flush")[0].tolist()
    assert fb.luq_decode(codes, np.float64(alpha)).shape == (4,)
    assert torch.equal(fb.unpack_nibbles(BYTES, [np.int64(3)]), fb.unpack_nibbles(BYTES, (3,)))
    rows = fb.luq_encode(torch.ones(2, 3), max_abs=torch.tensor([[1.0], [2.0]]))[1]
    assert rows.shape == (2, 1)
