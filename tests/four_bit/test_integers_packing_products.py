"""INT4, packing, products without a multiplier, the guessed maximum and the schedule, against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.four_bit import (
    HindsightMax,
    fnt_lr,
    int4_decode,
    int4_encode,
    luq_decode,
    mf_matmul,
    pack_bits,
    pack_nibbles,
    sawb_clip,
    unpack_bits,
    unpack_nibbles,
)


def test_clip_follows_the_formula_within_its_guards() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    formula = 12.1 * x.square().mean().sqrt() - 12.2 * x.abs().mean()
    assert sawb_clip(x).item() == pytest.approx(formula.item(), rel=1e-5)
    assert sawb_clip(torch.full((5,), -3.0)).item() == 3.0
    sparse = torch.zeros(1000)
    sparse[0] = 1.0
    assert sawb_clip(sparse).item() <= 1.0


def test_int4_is_the_nearest_level() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    codes, scale = int4_encode(x, clip="max")
    levels = torch.arange(-7, 8) * scale
    nearest = (x[:, None] - levels).abs().argmin(dim=1) - 7
    assert torch.equal(codes.long(), nearest)
    np.testing.assert_allclose(int4_decode(codes, scale), x, atol=float(scale) / 2 + 1e-6)
    positive, scale = int4_encode(x.abs(), clip=2.0, signed=False)
    assert scale.item() == pytest.approx(2 / 15)
    assert (int(positive.min()), int(positive.max())) == (0, 15)
    assert int4_encode(torch.zeros(3))[0].tolist() == [0, 0, 0]


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


def test_a_matrix_product_in_parts_is_exact(monkeypatch) -> None:
    import sys

    generator = torch.Generator().manual_seed(0)
    w = torch.randint(-8, 8, (64, 96), generator=generator)
    codes = torch.randint(0, 16, (96, 80), generator=generator)
    real = w.double() @ luq_decode(codes.to(torch.uint8), 1.0).double()
    monkeypatch.setattr(sys.modules["lib.four_bit.multiplier_free"], "_PART", 64 * 80 * 7)
    assert torch.equal(mf_matmul(w, codes).double(), real)


def test_the_guess_uses_the_past_only() -> None:
    estimate = HindsightMax(0.9)
    values = [float(estimate.update(torch.tensor([-peak, 0.5]))) for peak in (1.0, 2.0, 2.0)]
    assert values == pytest.approx([1.0, 1.0, 1.1])
    assert estimate.clipped_fraction == pytest.approx(2 / 6)
    assert "HindsightMax(momentum=0.9" in repr(estimate)


def test_the_schedule_is_a_triangle() -> None:
    rates = [fnt_lr(t, 100, 0.001, 0.1) for t in range(101)]
    assert rates[0] == 0.001
    assert rates[50] == max(rates) == pytest.approx(0.1)
    assert rates[100] == 0.0
    np.testing.assert_allclose(np.diff(rates[:51]), (0.1 - 0.001) / 50)
    np.testing.assert_allclose(np.diff(rates[50:]), -0.1 / 50)
