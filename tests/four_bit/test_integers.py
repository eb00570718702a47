"""INT4 and its clip, against brute force."""

import numpy as np
import pytest
import torch

from lib.four_bit import int4_decode, int4_encode, sawb_clip


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


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        int4_encode(-torch.ones(2), signed=False)
    with pytest.raises(ValueError, match="codes must lie in -8 … 15; they run from -9 to -9"):
        int4_decode(torch.tensor([-9]), 1.0)
