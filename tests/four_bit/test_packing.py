"""Codes of four bits and marks of one, packed into bytes and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.four_bit import pack_bits, pack_nibbles, unpack_bits, unpack_nibbles


@given(st.lists(st.integers(-8, 7), max_size=40), st.booleans())
def test_nibbles_come_back(values: list[int], signed: bool) -> None:
    codes = torch.tensor(values if signed else [v + 8 for v in values], dtype=torch.int8)
    packed = pack_nibbles(codes)
    assert packed.numel() == (len(values) + 1) // 2
    assert unpack_nibbles(packed, (len(values),), signed=signed).tolist() == codes.tolist()


@given(st.lists(st.booleans(), max_size=40))
def test_bits_come_back(values: list[bool]) -> None:
    mask = torch.tensor(values, dtype=torch.bool)
    packed = pack_bits(mask)
    assert packed.numel() == (len(values) + 7) // 8
    assert torch.equal(unpack_bits(packed, mask.shape), mask)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pack_nibbles(torch.ones(2)), TypeError, "must hold integers"),
        (lambda: pack_nibbles(torch.tensor([16])), ValueError, "codes must lie in -8 … 15"),
        (lambda: unpack_nibbles(torch.zeros(2, dtype=torch.uint8), (5,)), ValueError, "must hold 3 bytes"),
        (lambda: pack_bits(torch.ones(2)), TypeError, "must be boolean"),
        (lambda: unpack_bits(torch.zeros(2, dtype=torch.uint8), (5,)), ValueError, "must hold 1 bytes"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
