"""The largest eigenvalues of a loss's Hessian, from products of the Hessian with vectors, in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lib.validation import finite_array, instance_of, positive_integer, positive_number, torch_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["hessian_top_eigenvalue", "twice_differentiable"]


@contextmanager
def twice_differentiable(*, recurrent: bool = False) -> Iterator[None]:
    """Evaluate by kernels that have a second derivative: attention by its formula, recurrent layers without cuDNN."""
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if recurrent:
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def one_real_number(value: Any) -> Tensor:
    """Refuse what a loss must not return."""
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point():
        return value
    found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise ValueError(f"loss_fn must return one real number as a tensor; it returns {found}")


def hessian_top_eigenvalue(
    loss_fn: Callable[[], Tensor],
    params: Iterable[Tensor],
    *,
    k: int = 1,
    tol: float = 1e-3,
    v0: Array | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Array, Array]:
    """The k largest eigenvalues of the Hessian of a loss, by Lanczos iteration on Hessian-vector products.

    Args:
        loss_fn: Function of no arguments that returns the scalar loss at the present parameters. It is called where
            attention is computed by its formula, which alone has a second derivative.
        params: The parameters, tensors that require gradients; P numbers in all, at least k + 2.
        v0: Start vector (P,), such as the eigenvector of a neighbouring point; else a random one, by default of a
            fixed seed.

    Returns:
        values, vectors: Eigenvalues (k,), largest first, and eigenvectors (k, P), float64.

    Examples:
        >>> w = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
        >>> values, vectors = hessian_top_eigenvalue(lambda: (w**4).sum(), [w])
        >>> print(values.round(6))
        [108.]
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be a function of no arguments; it is {loss_fn!r}")
    given: Any = params
    one = isinstance(given, Tensor) or not hasattr(given, "__iter__")
    checked = [instance_of("params", each, Tensor, "a list of tensors") for each in ([given] if one else given)]
    tensors = [parameter for parameter in checked if parameter.requires_grad]
    size = sum(tensor.numel() for tensor in tensors)
    positive_integer("k", k)
    positive_number("tol", tol)
    torch_generator("generator", generator)
    if size < k + 2:
        raise ValueError(f"params must hold at least k + 2 = {k + 2} numbers that require gradients; they hold {size}")
    if v0 is not None:
        v0 = finite_array("v0", v0, shape=(size,))
    product = _hessian_product(loss_fn, tensors)
    # a small basis: a start that is nearly right converges before a large one is full
    basis = max(2 * k + 1, 8 if v0 is None else 4)
    if v0 is None:
        generator = generator or torch.Generator().manual_seed(0)
        v0 = torch.randn(size, dtype=torch.float64, generator=generator).numpy()
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    values, vectors = eigsh(operator, k=k, which="LA", tol=tol, v0=v0, ncv=min(size, basis))
    order = np.argsort(-values)
    return np.asarray(values[order]), np.ascontiguousarray(vectors[:, order].T)


def _hessian_product(loss_fn: Callable[[], Tensor], tensors: list[Tensor]) -> Callable[[Array], Array]:
    """The Hessian of the loss as a function of vectors (P,)."""
    with twice_differentiable():
        value = one_real_number(loss_fn())
    if not torch.isfinite(value):
        raise ValueError(f"the loss must be finite; it is {value.item()}")
    if not value.requires_grad:
        raise ValueError("loss_fn must depend on params through operations that torch can differentiate")
    slopes = torch.autograd.grad(value, tensors, create_graph=True, materialize_grads=True)
    # a slope that is constant does not bend, and torch would not differentiate it
    places = [i for i, slope in enumerate(slopes) if slope.requires_grad]
    bent = [slopes[i] for i in places]
    if not bent:
        raise ValueError("the loss must bend: its gradient does not depend on the parameters")
    first = tensors[0]

    def product(vector: Array) -> Array:
        flat = torch.as_tensor(vector.ravel(), dtype=first.dtype, device=first.device)
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        along = [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]
        try:
            # a parameter that the loss does not bend has no second derivative: its part is zero
            rows = torch.autograd.grad(
                bent, tensors, [along[i] for i in places], retain_graph=True, materialize_grads=True
            )
        except RuntimeError as error:  # a kernel of its own, such as cuDNN's recurrent layers
            raise ValueError(f"loss_fn must have a second derivative: {error}") from error
        image = torch.cat([row.detach().reshape(-1) for row in rows]).to("cpu", torch.float64).numpy()
        if not np.isfinite(image).all():
            raise ValueError("the loss must have finite second derivatives; some are NaN or infinite")
        return image

    return product
