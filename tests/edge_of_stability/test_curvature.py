"""The largest eigenvalues, against the dense Hessian."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lib.edge_of_stability import hessian_top_eigenvalue
from tests.edge_of_stability.nets import flat_loss, network


@pytest.mark.parametrize("outputs", [1, 3])
def test_top_eigenvalues_agree_with_the_dense_hessian(outputs: int) -> None:
    value, flat = flat_loss(*network(outputs))
    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, flat)).flip(0)
    leaf = flat.requires_grad_()
    values, vectors = hessian_top_eigenvalue(
        lambda: value(leaf), [leaf], k=2, tol=1e-8, generator=torch.Generator().manual_seed(1)
    )
    np.testing.assert_allclose(values, dense[:2].numpy(), rtol=1e-6)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(2), atol=1e-8)
    warm, _ = hessian_top_eigenvalue(lambda: value(leaf), [leaf], tol=1e-8, v0=vectors[0])
    assert warm[0] == pytest.approx(float(dense[0]), rel=1e-7)


def test_directions_without_curvature_are_zero() -> None:
    w, slope = torch.ones(3, dtype=torch.float64, requires_grad=True), torch.ones(4, requires_grad=True)
    unused = torch.ones(2, requires_grad=True)
    values, vectors = hessian_top_eigenvalue(
        lambda: (w**2 * torch.tensor([1.0, 2.0, 3.0])).sum() + slope.sum(), [w, slope, unused], tol=1e-10
    )
    assert values[0] == pytest.approx(6.0, rel=1e-6)
    np.testing.assert_allclose(vectors[0, 3:], 0.0, atol=1e-6)


def flash_attention(x: torch.Tensor) -> torch.Tensor:
    x = x.view(1, 1, 2, 4)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return (nn.functional.scaled_dot_product_attention(x, x, x) ** 2).sum()


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (lambda w: (w / 0).sum(), {}, "loss must be finite"),
        (lambda w: (w**2).sum(), {"k": 7}, r"at least k \+ 2"),
        (lambda w: (w**2).sum(), {"v0": np.ones(3)}, "v0 must have shape"),
        (lambda _: 0.0, {}, "loss_fn must return one"),
        (lambda _: torch.ones(()), {}, "loss_fn must depend on params"),
        (lambda w: w.sum(), {}, "must bend"),
        (flash_attention, {}, "loss_fn must have a second derivative"),
    ],
)
def test_losses_without_curvature_are_refused(loss, options, message) -> None:
    w = torch.ones(8, requires_grad=True)
    with pytest.raises(ValueError, match=message):
        hessian_top_eigenvalue(lambda: loss(w), [w], **options)
