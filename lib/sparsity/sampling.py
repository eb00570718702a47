"""Masks by chance and by size: the minimum-variance unbiased one, its usual approximation, greedy and uniform ones.

The unbiased masks are drawn by systematic sampling (Madow 1949): the probabilities of a block are laid end to end,
and a comb whose teeth are 1 apart, shifted by one random number, falls on them; what a tooth falls on is kept.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from lib.counter import counter_keys, counter_uniform, random_seed
from lib.four_bit.fused import active_backend
from lib.sparsity.blocks import as_blocks, checked_dim, checked_pattern, computed_in, in_place_of
from lib.sparsity.water_filling import approx_probabilities, filled
from lib.validation import finite_tensor, floating_tensor, instance_of, torch_generator, true_or_false

__all__ = ["nm_approx_mvue", "nm_greedy", "nm_mvue", "nm_uniform"]

#: The compiled masks have room for blocks of this length, and whole numbers of 32 bits for that many kept entries.
_LONGEST, _MOST = 256, 64


def checked_uniform(rand: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return random numbers in [0, 1) of a shape, float32 or float64."""
    finite_tensor("rand", instance_of("rand", rand, Tensor, "a tensor of numbers in [0, 1), or None"), shape=shape)
    if rand.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"rand must be float32 or float64, since fewer digits round up to 1; it is {rand.dtype}")
    if rand.numel() and not (float(rand.min()) >= 0 and float(rand.max()) < 1):
        raise ValueError(f"rand must lie in [0, 1); it runs from {float(rand.min())} to {float(rand.max())}")
    return rand


def _first_tooth(rand: Tensor | None, blocks: Tensor, seed: int | None) -> Tensor:
    """Where the first tooth of the comb of each block is, in (0, 1]: 24 bits (53 for float64), and 1 for 0."""
    dtype = computed_in(blocks)
    if rand is None:
        assert seed is not None
        rand = counter_uniform(blocks.shape[:-1], seed, device=blocks.device)
        if dtype == torch.float64:  # more bits, from another stream
            rand = rand.double() + 2.0**-24 * counter_uniform(blocks.shape[:-1], seed + 1, device=blocks.device)
    bits = 53 if dtype == torch.float64 else 24
    rounded = (rand.to(blocks.device).double() * 2.0**bits).floor() * 2.0**-bits
    return torch.where(rounded > 0, rounded, 1.0).to(dtype)


def _eager(blocks: Tensor, n: int, rand: Tensor | None, seed: int | None) -> Tensor:
    """The kept values of blocks (…, m), on any device.

    Teeth are counted up to the end of each entry's part. Whatever is rounded, an entry takes one tooth at most and
    leaves those ahead as many as they can take, so that exactly N are kept.
    """
    planes = [each.to(computed_in(blocks)) for each in blocks.unbind(-1)]
    state = filled([each.abs() for each in planes], n)
    first, left = _first_tooth(rand, blocks, seed), state.left.to(torch.int32)
    teeth = [torch.where(state.left > j, (first + j) * state.level, torch.inf) for j in range(n)]
    ahead = torch.stack(state.free).sum(0, dtype=torch.int32)
    before, kept, level = torch.zeros_like(left), [], state.level / state.scale
    for x, free, below in zip(planes, state.free, state.below, strict=True):
        seen = torch.stack([below >= tooth for tooth in teeth]).sum(0, dtype=torch.int32)
        ahead = ahead - free.to(torch.int32)
        now = torch.minimum(torch.maximum(seen, left - ahead), torch.minimum(before + 1, left))
        now = torch.where(free, now, before)
        signed = torch.where(x < 0, -level, level)
        kept.append(torch.where(free, torch.where(now != before, signed, 0.0), x))
        before = now
    return torch.stack(kept, -1)


def outer_size_inner(x: Tensor, dim: int) -> tuple[int, int, int]:
    dim = dim % x.ndim
    return x.shape[:dim].numel(), x.shape[dim], x.shape[dim + 1 :].numel()


def _flat(x: Tensor, dim: int) -> tuple[Tensor, tuple[int, int, int]]:
    """A tensor as float32 in a row, and its shape with the axes before and after `dim` as one each."""
    return x.detach().to(torch.float32).contiguous().view(-1), outer_size_inner(x, dim)


def _is_compiled(x: Tensor, n: int, m: int) -> bool:
    """Whether the compiled masks take it: everything on a CPU but float64 and very long blocks."""
    return x.device.type == "cpu" and x.dtype != torch.float64 and n <= _MOST and m <= _LONGEST


def takes_kernels(x: Tensor, m: int) -> bool:
    """Whether the Triton kernels take it: on a GPU where triton is installed, of their dtypes and lengths."""
    half_or_single = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return half_or_single and m in (2, 4, 8, 16) and active_backend(x.device) == "triton"


def by_kernel(
    x: Tensor,
    pattern: tuple[int, int],
    dim: int,
    *,
    rand: Tensor | None = None,
    seed: int | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Values, flat, and indices from the Triton kernel."""
    from lib.sparsity import triton_kernels

    shape = outer_size_inner(x, dim)
    drawn = None if rand is None else _to_24_bits(rand).to(x.device).contiguous()
    keys = (0, 0) if seed is None else counter_keys(seed)
    flat = x.detach().contiguous().view(-1)
    found: tuple[Tensor, Tensor] = triton_kernels.pruned(flat, shape, pattern, rand=drawn, keys=keys, **options)
    return found


def _to_24_bits(rand: Tensor) -> Tensor:
    """Random numbers as float32, downwards."""
    rand = rand.detach()
    return (rand if rand.dtype == torch.float32 else (rand * 2**24).floor() / 2**24).to(torch.float32)


def _refuse_not_finite(x: Tensor, *, finite: bool) -> None:
    if not finite:
        finite_tensor("x", x)


@overload
def nm_mvue(
    x: Tensor,
    n: int = ...,
    m: int = ...,
    dim: int = ...,
    *,
    rand: Tensor | None = ...,
    generator: torch.Generator | None = ...,
    return_mask: Literal[False] = ...,
    check: bool = ...,
) -> Tensor: ...
@overload
def nm_mvue(
    x: Tensor,
    n: int = ...,
    m: int = ...,
    dim: int = ...,
    *,
    rand: Tensor | None = ...,
    generator: torch.Generator | None = ...,
    return_mask: Literal[True],
    check: bool = ...,
) -> tuple[Tensor, Tensor]: ...
def nm_mvue(
    x: Tensor,
    n: int = 2,
    m: int = 4,
    dim: int = -1,
    *,
    rand: Tensor | None = None,
    generator: torch.Generator | None = None,
    return_mask: bool = False,
    check: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """Prune at random so that the mean is `x` and the variance the least that N:M allows.

    Exactly N entries of a block are kept wherever N are not zero, and all of them where fewer are. The same random
    numbers give the same bits on every device.

    Source: Chmiel et al. (ICLR 2023, arXiv 2203.10991) for 1:2 and 2:4; for any N:M derived here.

    Args:
        x: Floating-point, any shape; what is computed is float32, or float64 for float64.
        dim: Along which blocks of `m` lie; for a product of matrices that over which it sums.
        rand: Uniform random numbers in [0, 1), one a block: (*rest, size / m), `dim` moved last. 24 bits of them are
            used (53 for float64), so that chances are multiples of 2^-24.
        generator: Source of a seed, from which the random numbers follow by place, where `rand` is None.
        return_mask: Whether to return also which entries were kept.
        check: Whether to refuse entries that are not finite; otherwise they stay as they are.

    Returns:
        The shape and dtype of `x`, without gradient; with `return_mask` also the mask, boolean.

    Examples:
        >>> x = torch.tensor([1.0, -2.0, 3.0, 2.0])
        >>> nm_mvue(x, 2, 4, rand=torch.tensor([0.5]))
        tensor([ 0., -4.,  4.,  0.])
        >>> mean = torch.stack([nm_mvue(x, generator=torch.Generator().manual_seed(i)) for i in range(2000)]).mean(0)
        >>> bool((mean - x).abs().max() < 0.2)
        True
    """
    n, m = checked_pattern(n, m)
    true_or_false("return_mask", return_mask)
    torch_generator("generator", generator)
    floating_tensor("x", x)
    dim = checked_dim(x, m, dim)
    if rand is not None:
        rand = checked_uniform(rand, (*x.shape[:dim], *x.shape[dim + 1 :], x.shape[dim] // m))
    seed = random_seed(generator) if rand is None else None
    if _is_compiled(x, n, m):
        kept = _compiled_mvue(x, (n, m), dim, rand, seed, check=check)
    elif takes_kernels(x, m):
        if check:
            finite_tensor("x", x)
        kept = by_kernel(x, (n, m), dim, rand=rand, seed=seed)[0].view(x.shape)
    else:
        kept = in_place_of(_eager(as_blocks(x, m, dim, check=check), n, rand, seed), dim)
    values = kept.to(x.dtype)
    return (values, kept != 0) if return_mask else values


def _compiled_mvue(
    x: Tensor, pattern: tuple[int, int], dim: int, rand: Tensor | None, seed: int | None, *, check: bool
) -> Tensor:
    from lib.sparsity import compiled

    flat, shape = _flat(x, dim)
    result = torch.empty_like(flat)
    given = torch.empty(0) if rand is None else _to_24_bits(rand.to("cpu")).contiguous().view(-1)
    keys = (0, 0) if seed is None else counter_keys(seed)
    words = np.array(keys, np.int32).view(np.uint32)
    finite = compiled.mvue(flat.numpy(), *pattern, shape, given.numpy(), words, result.numpy())
    if check:
        _refuse_not_finite(x, finite=finite)
    return result.view(x.shape)


@overload
def nm_greedy(x: Tensor, n: int = ..., m: int = ..., dim: int = ..., return_mask: Literal[False] = ...) -> Tensor: ...
@overload
def nm_greedy(
    x: Tensor, n: int = ..., m: int = ..., dim: int = ..., *, return_mask: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def nm_greedy(
    x: Tensor, n: int = 2, m: int = 4, dim: int = -1, return_mask: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Keep the N largest magnitudes of each block, the first of equal ones: the least squared error, but a bias.

    Returns:
        As `nm_mvue`; the mask has N entries in every block.

    Examples:
        >>> nm_greedy(torch.tensor([1.0, -2.0, 3.0, 2.0]))
        tensor([ 0., -2.,  3.,  0.])
    """
    n, m = checked_pattern(n, m)
    true_or_false("return_mask", return_mask)
    floating_tensor("x", x)
    dim = checked_dim(x, m, dim)
    if x.device.type == "cpu" and x.dtype != torch.float64 and m <= _LONGEST:
        from lib.sparsity import compiled

        flat, shape = _flat(x, dim)
        result, found = torch.empty_like(flat), torch.empty(flat.numel() if return_mask else 0, dtype=torch.bool)
        finite = compiled.greedy(flat.numpy(), n, m, shape, found.numpy(), result.numpy())
        _refuse_not_finite(x, finite=finite)
        values, mask = result.view(x.shape).to(x.dtype), found.view(x.shape if return_mask else 0)
    elif not return_mask and takes_kernels(x, m):
        finite_tensor("x", x)
        return by_kernel(x, (n, m), dim, method="greedy")[0].view(x.shape)
    else:
        blocks = as_blocks(x, m, dim)
        mask = in_place_of(_ranks(blocks.abs()) < n, dim)
        values = torch.where(mask, x.detach(), 0.0)
    return (values, mask) if return_mask else values


def _ranks(sizes: Tensor) -> Tensor:
    """The place of each entry of a block (…, m) from the largest on; of equal ones the first comes first."""
    order = sizes.sort(stable=True, dim=-1, descending=True).indices
    return torch.empty_like(order).scatter_(
        -1, order, torch.arange(sizes.shape[-1], device=sizes.device).expand_as(order)
    )


def nm_uniform(x: Tensor, n: int, m: int, dim: int = -1, *, generator: torch.Generator | None = None) -> Tensor:
    """Keep N entries of each block, any N with the same probability, times M / N: unbiased, and blind to their size.

    Examples:
        >>> nm_uniform(torch.ones(4), 2, 4).sum().item()
        4.0
    """
    n, m = checked_pattern(n, m)
    torch_generator("generator", generator)
    blocks = as_blocks(x, m, dim)
    keys = counter_uniform(blocks.shape, random_seed(generator), device=x.device)
    kept = torch.where(_ranks(keys) < n, blocks.to(computed_in(x)) * m / n, 0.0)
    return in_place_of(kept, dim).to(x.dtype)


def nm_approx_mvue(
    x: Tensor, dim: int = -1, *, rand: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """The usual approximation for 2:4: two draws in proportion to magnitudes, without replacement; unbiased.

    Its variance is up to twice the least one. Where at most two entries of a block are not zero, they are kept.

    Source: approx-MVUE of Chmiel et al. (arXiv 2203.10991); its limit 2 derived here.

    Args:
        rand: Uniform random numbers in [0, 1), two a block: (*rest, size / 4, 2), `dim` moved last.

    Examples:
        >>> nm_approx_mvue(torch.tensor([1.0, 1.0, 1.0, 1.0]), rand=torch.tensor([[0.1, 0.9]]))
        tensor([2., 0., 0., 2.])
    """
    torch_generator("generator", generator)
    blocks = as_blocks(x, 4, dim).to(computed_in(x))
    shape = (*blocks.shape[:-1], 2)
    if rand is None:
        rand = counter_uniform(shape, random_seed(generator), device=x.device)
    drawn = checked_uniform(rand, shape).to(blocks.device, blocks.dtype)
    sizes = blocks.abs()
    largest = sizes.amax(-1, keepdim=True)
    shares = sizes / torch.where(largest > 0, largest, 1.0)
    first = _drawn_entry(shares, drawn[..., 0])
    rest = shares.scatter(-1, first, 0.0)
    second = _drawn_entry(rest, drawn[..., 1])
    taken = torch.zeros_like(sizes, dtype=torch.bool).scatter(-1, first, True).scatter(-1, second, True)
    kept, _ = approx_probabilities(sizes)
    values = torch.where(taken & (kept > 0), blocks / torch.where(kept > 0, kept, 1.0), 0.0)
    return in_place_of(values, dim).to(x.dtype)


def _drawn_entry(shares: Tensor, drawn: Tensor) -> Tensor:
    """The number (…, 1) of an entry, drawn in proportion to its share; only where none has a share, one without."""
    below = shares.cumsum(-1)
    point = drawn[..., None] * below[..., -1:]
    # rounding may put the point on the end of all: the last entry with a share is meant
    last = ((shares > 0) * torch.arange(1, 5, device=shares.device)).amax(-1, keepdim=True) - 1
    return torch.minimum((below <= point).sum(-1, keepdim=True), last.clamp(min=0))
