"""Masks written as a product reads them, in one pass on a GPU: transposed, compressed, or in 3 bits an entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lib.counter import counter_keys, random_seed
from lib.four_bit.fused import PackedLUQ, floating_dtype, luq_pack
from lib.four_bit.logarithmic import LUQ, scale_of
from lib.sparsity import sampling
from lib.sparsity.blocks import checked_dim, checked_pattern
from lib.sparsity.packing import pack_24, unpack_24
from lib.sparsity.sampling import nm_greedy, nm_mvue
from lib.validation import finite_tensor, floating_tensor, one_of, torch_generator, true_or_false

if TYPE_CHECKING:
    from lib.sparsity.triton_kernels import Form

__all__ = ["PackedMVUE", "nm_mvue_luq", "nm_prune"]


def nm_prune(
    x: Tensor,
    n: int = 2,
    m: int = 4,
    dim: int = -1,
    *,
    method: Literal["mvue", "greedy"] = "mvue",
    form: Form = "dense",
    rand: Tensor | None = None,
    generator: torch.Generator | None = None,
    check: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """Prune by `nm_mvue` or `nm_greedy`, and write the result as the next step wants it; on a GPU in one pass.

    Args:
        method: `"mvue"` takes `rand` or `generator`, as `nm_mvue` does.
        form: `"dense"`, the shape of `x`; `"transposed"`, `dim` moved last and contiguous, so that of a gradient
            (batch, outputs) pruned along the batch the left operand of the product for the update is made; or
            `"compressed"`, values and indices of `pack_24`, for 2:4.
        check: Whether to refuse entries that are not finite, for which a GPU must be waited for.

    Examples:
        >>> x = torch.tensor([[1.0, 4.0], [-2.0, 3.0], [3.0, 2.0], [2.0, 1.0]])
        >>> nm_prune(x, dim=0, method="greedy", form="transposed")
        tensor([[ 0., -2.,  3.,  0.],
                [ 4.,  3.,  0.,  0.]])
        >>> nm_prune(x, dim=0, method="greedy", form="compressed")
        (tensor([[-2.,  3.],
                [ 4.,  3.]]), tensor([[9],
                [4]], dtype=torch.uint8))
    """
    one_of("method", method, ("mvue", "greedy"))
    one_of("form", form, ("dense", "transposed", "compressed"))
    n, m = checked_pattern(n, m)
    true_or_false("check", check)
    torch_generator("generator", generator)
    dim = checked_dim(floating_tensor("x", x), m, dim)
    if form == "compressed" and (n, m) != (2, 4):
        raise ValueError(f"form 'compressed' is for 2:4; n and m are {n} and {m}")
    if method == "greedy" and not (rand is None and generator is None):
        raise ValueError("rand and generator are for method 'mvue'; 'greedy' leaves nothing to chance")
    rest = (*x.shape[:dim], *x.shape[dim + 1 :])
    if sampling.takes_kernels(x, m):
        if check:
            finite_tensor("x", x)
        drawn = None if rand is None else sampling.checked_uniform(rand, (*rest, x.shape[dim] // m))
        seed = random_seed(generator) if method == "mvue" and rand is None else None
        values, indices = sampling.by_kernel(x, (n, m), dim, rand=drawn, seed=seed, method=method, form=form)
        if form == "compressed":
            size = x.shape[dim]
            return values.view(*rest, size // 2), indices.view(*rest, (size + 7) // 8)
        return values.view(*rest, x.shape[dim]) if form == "transposed" else values.view(x.shape)
    if method == "greedy":
        kept = nm_greedy(x, n, m, dim)
    else:
        kept = nm_mvue(x, n, m, dim, rand=rand, generator=generator, check=check)
    assert isinstance(kept, Tensor)
    if form == "compressed":
        return pack_24(kept, dim)
    return kept.movedim(dim, -1).contiguous() if form == "transposed" else kept


@dataclass(frozen=True, eq=False, repr=False)
class PackedMVUE:
    """A tensor pruned to 2:4 and quantised to FP4: 3 bits an entry.

    Attributes:
        values: The two kept values of each block, in 4 bits each.
        indices: Where they stand, of `pack_24`.
        size: Entries along `dim`.
    """

    values: PackedLUQ
    indices: Tensor
    size: int
    dim: int

    def decode(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dense tensor."""
        return unpack_24(self.values.decode(floating_dtype(dtype)), self.indices, self.size, self.dim)

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.values.nbytes + self.indices.nbytes

    def __repr__(self) -> str:
        return f"PackedMVUE(size={self.size}, dim={self.dim}, nbytes={self.nbytes}, backend={self.values.backend!r})"


def nm_mvue_luq(
    x: Tensor, dim: int = -1, *, generator: torch.Generator | None = None, check: bool = True
) -> PackedMVUE:
    """Prune 2:4 by `nm_mvue`, then quantise what is kept by `luq_pack`: two unbiased steps, so the mean is `x`.

    The levels have the scale of the largest value that is kept, whatever is drawn: on a GPU one pass finds it, and a
    second one draws the mask and the levels; no value is stored in between. The generator gives a seed for each.

    Args:
        check: Whether to refuse what is not finite, for which a GPU must be waited for; on a CPU it always is.

    Examples:
        >>> packed = nm_mvue_luq(torch.tensor([64.0, 0.0, -16.0, 0.0]))
        >>> packed.decode()
        tensor([ 64.,   0., -16.,   0.])
        >>> 8 * nm_mvue_luq(torch.ones(8, 4096)).indices.nbytes / (8 * 4096)  # bits of indices an entry
        1.0
    """
    torch_generator("generator", generator)
    true_or_false("check", check)
    dim = checked_dim(floating_tensor("x", x), 4, dim)
    if not sampling.takes_kernels(x, 4):
        kept, indices = pack_24(nm_mvue(x, dim=dim, generator=generator), dim)
        return PackedMVUE(luq_pack(kept, LUQ, seed=random_seed(generator)), indices, x.shape[dim], dim)
    from lib.sparsity import triton_kernels

    flat, shape = x.detach().contiguous().view(-1), sampling.outer_size_inner(x, dim)
    keys = [counter_keys(random_seed(generator)) for _ in range(2)]
    codes, indices, largest = triton_kernels.pruned_levels(flat, shape, *keys)
    if check and not bool(torch.isfinite(largest)):
        raise ValueError("x must be finite, and what is kept of it in its dtype; it holds NaN or infinities")
    alpha, lift = scale_of(largest, LUQ)
    rest, size = (*x.shape[:dim], *x.shape[dim + 1 :]), x.shape[dim]
    values = PackedLUQ(codes, alpha / lift, (*rest, size // 2), LUQ.fmt, "triton")
    return PackedMVUE(values, indices.view(*rest, (size + 7) // 8), size, dim)
