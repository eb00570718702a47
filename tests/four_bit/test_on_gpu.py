"""The kernels on a GPU: bit for bit what eager torch gives there and on the processor; nothing waits; it trains."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lib.counter import counter_mantissas
from lib.four_bit.experiment import PRESETS, train_four_bit
from lib.four_bit.fused import luq_fused, luq_pack
from lib.four_bit.fused_int4 import int4_pack, relu_grad, relu_pack
from lib.four_bit.integers import SAWB, int4_encode
from lib.four_bit.layers import LUQConfig, LUQConv2d, LUQLinear, PackedReLU
from lib.four_bit.logarithmic import luq_encode
from lib.four_bit.packing import pack_nibbles
from lib.training import reproducible
from tests.four_bit import kernel_checks
from tests.four_bit.kernel_checks import (
    CHECKS,
    DTYPES,
    cases,
    check_luq,
    check_ties,
    gaussian,
    same,
    same_bits,
)
from tests.interrupting import interrupt_at
from tests.needs import needs_gpu

pytestmark = needs_gpu

TINY = replace(PRESETS["quick"], count=1024, batch_size=64, epochs=2, config=LUQConfig(hindsight=0.9))
BEYOND = (1 << 31) + 4101


def large(count: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(0)
    return torch.empty(count, dtype=dtype, device="cuda").normal_(generator=generator)


def test_luq_is_eager_bit_for_bit_there_and_on_the_processor() -> None:
    check_luq("triton", "cuda")
    for x, options in cases():
        given = {name: each.to("cuda") if isinstance(each, torch.Tensor) else each for name, each in options.items()}
        ours, reference = luq_pack(x.to("cuda"), **given), luq_pack(x, backend="eager", **options)
        assert ours.backend == "triton"
        assert torch.equal(ours.packed.cpu(), reference.packed), options
        assert torch.equal(ours.alpha.cpu(), reference.alpha), options
        assert torch.equal(luq_fused(x.to("cuda"), **given).cpu(), luq_fused(x, backend="eager", **options)), options


@pytest.mark.parametrize("check", [name for name in CHECKS if name not in ("check_luq", "check_scales", "check_ties")])
def test_int4_and_relu_are_eager_bit_for_bit(check: str, monkeypatch) -> None:
    def drawn(*shape: int, **options) -> torch.Tensor:
        with torch.device("cpu"):
            return gaussian(*shape, **options).to("cuda")

    monkeypatch.setattr(kernel_checks, "gaussian", drawn)
    with torch.device("cuda"):
        CHECKS[check]()


def test_ties_go_to_even() -> None:
    check_ties("cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_tensors(dtype: torch.dtype) -> None:
    x = large((1 << 24) + 5, dtype)
    same_bits(x, "triton", seed=1)
    found, eager = (int4_pack(x, clip="max", dtype=dtype, backend=way) for way in ("auto", "eager"))
    assert all(same(getattr(found, name), getattr(eager, name)) for name in ("codes", "packed", "scale", "signed"))
    assert same(found.unpack(dtype), found.codes)
    wide, one, again = x.double(), int4_pack(x), int4_pack(x)
    size = SAWB[0] * wide.square().mean().sqrt()
    assert abs(one.scale * 7 - (size - SAWB[1] * wide.abs().mean())) <= 1e-6 * size
    assert same(one.scale, again.scale)
    assert same(one.packed, again.packed)
    (value, bits), (expected, wanted) = (relu_pack(x, backend=way) for way in ("auto", "eager"))
    assert torch.equal(value, expected)
    assert same(bits, wanted)
    assert same(relu_grad(x, bits), relu_grad(x, wanted, backend="eager"))


def test_more_than_two_to_the_31_entries() -> None:
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("not enough memory on this GPU")
    x, start = large(BEYOND, torch.bfloat16), BEYOND - 8197
    tail, largest = x[start:], torch.stack(torch.aminmax(x)).abs().max().float()
    codes, alpha = luq_encode(tail, max_abs=largest, rand=counter_mantissas(tail.shape, 5, start=start, device="cuda"))
    packed = luq_pack(x, seed=5, check=False)
    assert torch.equal(packed.alpha, alpha)
    assert torch.equal(packed.packed[start // 2 :], pack_nibbles(codes))
    codes, scale = int4_encode(tail, clip=largest)
    operand = int4_pack(x, clip="max", dtype=torch.bfloat16)
    assert same(operand.scale, scale)
    assert torch.equal(operand.codes[start:], codes.bfloat16())
    assert torch.equal(operand.packed[start // 2 :], pack_nibbles(codes))
    assert torch.equal(operand.unpack(torch.bfloat16)[start:], operand.codes[start:])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_nothing_waits_for_the_gpu() -> None:
    network = nn.Sequential(
        LUQConv2d(2, 8, 3, padding=1, config=LUQConfig(samples=2)), PackedReLU(), nn.Flatten(),
        LUQLinear(512, 16, config=LUQConfig(hindsight=0.9)),
    ).to("cuda")  # fmt: skip
    x = gaussian(4, 2, 8, 8).to("cuda")

    def work() -> None:
        luq_pack(x, seed=0, check=False).decode()
        luq_fused(x, seed=0, max_abs=x.abs().max(), check=False)
        int4_pack(x).unpack()
        for half in (False, True):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
                network(x).square().sum().backward()

    work()  # compiles the kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(bool(part.grad.isfinite().all()) for part in network.parameters())


@pytest.mark.parametrize("half", [False, True])
def test_a_layer_gives_the_same_bits_by_kernels_and_by_eager_torch(half: bool) -> None:
    reproducible()
    linear, convolution = partial(LUQLinear, 48, 33), partial(LUQConv2d, 3, 5, 3, padding=1)
    for make, x in ((linear, gaussian(21, 48)), (convolution, gaussian(2, 3, 9, 7))):
        found, state = [], None
        for way in ("triton", "eager"):
            config = LUQConfig(clip="max", samples=2, backend=way)
            layer = make(config=config, generator=torch.Generator().manual_seed(4)).to("cuda")
            state = layer.state_dict() if state is None else state
            layer.load_state_dict(state)
            there = x.to("cuda").requires_grad_()
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
                out = layer(there)
            out.float().sin().sum().backward()
            found.append((out.detach(), there.grad, layer.weight.grad))
        assert all(same(ours, theirs) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns_and_goes_on_where_it_was_interrupted(precision: str, tmp_path) -> None:
    whole = train_four_bit(TINY, device="cuda", precision=precision)
    assert whole.losses[-3:].mean() < 0.7 * whole.losses[:3].mean()
    with interrupt_at(7):
        train_four_bit(TINY, tmp_path, device="cuda", precision=precision, every=4)
    again = train_four_bit(TINY, tmp_path, device="cuda", precision=precision, every=4)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.scores, whole.scores)


def test_the_processor_can_train_after_the_gpu() -> None:
    small = replace(TINY, count=128, epochs=1)
    for device in ("cuda", "cpu", "cuda"):
        assert len(train_four_bit(small, device=device).losses) == 2
