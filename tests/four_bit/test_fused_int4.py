"""INT4 operands and the packed ReLU, eager: the definition's bits, and nothing is read back."""

import math

import pytest
import torch

from lib.four_bit.fused_int4 import int4_pack, int4_unpack, relu_grad, relu_pack
from lib.four_bit.integers import int4_decode, int4_encode, sawb_clip
from lib.four_bit.packing import pack_bits, pack_nibbles, unpack_bits
from tests.four_bit.kernel_checks import check_nothing_is_looked_at, gaussian, inputs, same


def test_eager_is_the_definition() -> None:
    for x in inputs():
        for clip in ("sawb", "max"):
            signed = bool((x.float() < 0).any())
            codes, scale = int4_encode(x, clip=clip, signed=signed)
            operand = int4_pack(x, clip=clip, dtype=torch.bfloat16)
            assert same(operand.codes, codes.to(torch.bfloat16))
            assert same(operand.packed, pack_nibbles(codes))
            assert same(operand.scale, scale)
            assert bool(operand.signed) == signed
            assert same(operand.unpack(torch.bfloat16), operand.codes)
        value, bits = relu_pack(x)
        assert torch.equal(value, x.clamp(min=0))
        assert torch.equal(unpack_bits(bits, x.shape), x > 0)
        assert same(bits, pack_bits(x > 0))


def test_all_levels_come_back_and_a_value_is_code_times_scale() -> None:
    for x in (torch.arange(-7.0, 8.0), torch.arange(0.0, 16.0)):
        operand = int4_pack(x, clip="max")
        assert torch.equal(operand.codes, x)
        assert torch.equal(operand.unpack(), x)
    x = gaussian(10_000)
    operand = int4_pack(x)
    assert torch.equal(operand.codes * operand.scale, int4_decode(*int4_encode(x)))
    assert operand.scale == sawb_clip(x) / 7
    inside = x.abs() <= sawb_clip(x)
    assert float((operand.codes * operand.scale - x)[inside].abs().max()) <= float(operand.scale) / 2 * (1 + 1e-6)


def test_nothing_is_read_back() -> None:
    check_nothing_is_looked_at("eager")


def test_gradients_that_are_not_finite_come_through_only_where_they_may() -> None:
    grad = torch.tensor([math.inf, math.nan, math.inf, math.nan])
    found = relu_grad(grad, relu_pack(torch.tensor([-1.0, 0.0, 1.0, 2.0]))[1])
    assert found[:3].tolist() == [0.0, 0.0, math.inf]
    assert bool(found[3].isnan())


def test_what_is_kept() -> None:
    operand = int4_pack(gaussian(3, 5), keep=False, dtype=torch.bfloat16)
    assert operand.packed is None
    assert repr(operand) == "PackedInt4(shape=(3, 5), dtype=torch.bfloat16, kept=False)"
    with pytest.raises(ValueError, match="keep=False"):
        operand.unpack()
    assert int4_pack(gaussian(3, 5)).packed.nbytes == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: int4_pack(x, clip="none"), "clip must be one of sawb, max; it is 'none'"),
        (lambda x: int4_pack(x, dtype=torch.int8), "dtype must be one of torch.float32, .*torch.int8"),
        (lambda x: int4_unpack(int4_pack(x).packed, (5,), torch.tensor(True)), "must hold 3 bytes"),
        (lambda x: int4_unpack(int4_pack(x).packed, (2,), torch.tensor(1)), "signed must be a 0-d"),
        (lambda x: relu_grad(x, relu_pack(torch.ones(9))[1]), "packed must hold 1 bytes"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call(torch.ones(2))
