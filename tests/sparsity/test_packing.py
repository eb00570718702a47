"""Values and 2-bit indices: nothing is lost, whatever the block holds."""

import pytest
import torch

from lib.sparsity import nm_mvue, pack_24, unpack_24


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("size", [4, 8, 12, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_packed_and_unpacked(dim: int, size: int, dtype: torch.dtype) -> None:
    shape = [5, 5, 5]
    shape[dim] = size
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype) * (torch.rand(shape, generator=generator) < 0.6)
    pruned = nm_mvue(x, dim=dim, generator=generator)
    values, indices = pack_24(pruned, dim)
    assert values.numel() * 2 == x.numel()
    assert indices.shape == (5, 5, (size + 7) // 8)
    assert torch.equal(unpack_24(values, indices, size, dim), pruned)


def test_nine_of_sixteen_bits() -> None:
    values, indices = pack_24(nm_mvue(torch.randn(64, 64).to(torch.bfloat16)))
    assert 8 * (values.nbytes + indices.nbytes) / 64**2 == 9


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must have at most two entries other than 0 in each block of 4"):
        pack_24(torch.ones(4))
    values, indices = pack_24(torch.tensor([1.0, 0, 0, 2]))
    with pytest.raises(ValueError, match=r"values must hold half of size = 8"):
        unpack_24(values, indices, 8)
    with pytest.raises(ValueError, match=r"indices must be uint8 of shape \(1,\)"):
        unpack_24(values, indices.int(), 4)
