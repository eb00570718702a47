"""The kernels on a GPU: bit for bit what the processor gives, and what a product of torch with a 2:4 operand takes."""

import pytest
import torch

from lib.sparsity import is_nm_sparse, nm_greedy, nm_mvue, nm_mvue_luq, nm_prune
from tests.needs import needs_gpu
from tests.sparsity import kernel_checks
from tests.sparsity.kernel_checks import CHECKS, DTYPES
from tests.sparsity.test_sampling import seeded

pytestmark = needs_gpu


@pytest.mark.parametrize("check", list(CHECKS))
def test_the_bits_of_the_definition(check: str) -> None:
    CHECKS[check]("cuda")


def test_every_pattern() -> None:
    patterns = ((1, 2), (1, 4), (3, 4), (2, 8), (4, 8), (8, 16), (15, 16))
    kernel_checks.check_every_pattern("cuda", patterns)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_gradient_has_the_bits_of_the_processor(dtype: torch.dtype) -> None:
    x = torch.randn(4096, 1024, generator=seeded()).to(dtype)
    for dim in (0, 1):
        there = x.to("cuda")
        assert torch.equal(nm_mvue(there, dim=dim, generator=seeded(1)).cpu(), nm_mvue(x, dim=dim, generator=seeded(1)))
        assert torch.equal(nm_greedy(there, dim=dim).cpu(), nm_greedy(x, dim=dim))
        ours, expected = (nm_mvue_luq(each, dim, generator=seeded(2)) for each in (there, x))
        assert torch.equal(ours.values.packed.cpu(), expected.values.packed)
        assert torch.equal(ours.indices.cpu(), expected.indices)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_update_as_a_product_with_a_sparse_operand(dtype: torch.dtype) -> None:
    """delta^T, pruned along the batch and transposed in one pass, times the inputs."""
    delta, inputs = (torch.randn(512, wide, generator=seeded(wide)).to("cuda", dtype) for wide in (256, 384))
    left = nm_prune(delta, dim=0, form="transposed")
    assert isinstance(left, torch.Tensor)
    assert is_nm_sparse(left, 2, 4, 1)
    found = torch.sparse.to_sparse_semi_structured(left) @ inputs
    exact = left.double() @ inputs.double()
    assert (found.double() - exact).norm() <= 0.01 * exact.norm()
