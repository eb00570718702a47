"""Products without a multiplier, against real ones."""

import pytest
import torch

from lib.four_bit import luq_decode, mf_matmul, mf_product, multiplier_free


def test_a_matrix_product_in_parts_is_exact(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randint(-8, 8, (64, 96), generator=generator)
    codes = torch.randint(0, 16, (96, 80), generator=generator)
    real = w.double() @ luq_decode(codes.to(torch.uint8), 1.0).double()
    monkeypatch.setattr(multiplier_free, "_PART", 64 * 80 * 7)
    assert torch.equal(mf_matmul(w, codes).double(), real)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mf_product(torch.tensor([8]), torch.tensor([0])), ValueError, "int4 must lie in"),
        (lambda: mf_product(torch.tensor([7]), torch.tensor([16])), ValueError, "fp4_codes must lie in"),
        (lambda: mf_matmul(torch.ones(2, 3).int(), torch.ones(2, 3).int()), ValueError, "matrices that fit"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
