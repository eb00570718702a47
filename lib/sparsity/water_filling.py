r"""The best probabilities with which to keep the entries of a block, and the variance that they leave.

An unbiased mask keeps entry i with probability P_i and gives it the value a_i / P_i (Horvitz and Thompson). Its
variance is the sum of a_i^2 (1 - P_i) / P_i, and the P with the sum N for which that is least is
P_i = min(1, c |a_i|): the largest entries are kept for sure, the others in proportion to their size. All that are
kept by chance then get the same magnitude, the *level* 1 / c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lib.sparsity.blocks import as_blocks, checked_pattern, computed_in, in_place_of
from lib.validation import floating_tensor, one_of

__all__ = ["Filled", "Mask", "filled", "nm_inclusion_probabilities", "nm_joint_probabilities", "nm_mvue_variance"]

#: What `nm_mvue_variance` gives the error of.
Mask = Literal["mvue", "approx", "greedy_mse", "uniform"]
#: Sums of larger magnitudes could overflow, ratios of smaller ones lose digits: these are scaled, by powers of two.
LARGE, SMALL = 2.0**100, 2.0**-100
DOWN, UP = 2.0**-16, 2.0**64


@dataclass(frozen=True)
class Filled:
    """What the best probabilities of blocks follow from; one tensor a place within the block in `free` and `below`.

    Attributes:
        free: Which entries are kept by chance. The others are kept for sure, or are zero.
        below: Sums of the scaled free magnitudes up to this entry and with it.
        total: The last of these sums; 0 where nothing is left to chance.
        left: How many of the free ones are to be kept.
        level: The scaled magnitude that a free entry gets where it is kept.
        scale: What magnitudes were multiplied by.
    """

    free: list[Tensor]
    below: list[Tensor]
    total: Tensor
    left: Tensor
    level: Tensor
    scale: Tensor


def _scale(sizes: list[Tensor]) -> Tensor:
    """A power of two by which the magnitudes of a block can be summed and divided."""
    largest = sizes[0]
    for size in sizes[1:]:
        largest = torch.maximum(largest, size)
    return torch.where(largest >= LARGE, DOWN, torch.where(largest < SMALL, UP, 1.0)).to(largest.dtype)


def _sums(magnitudes: list[Tensor], free: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The sums of the free magnitudes from the first on, one after another as any device has them; and their scale."""
    sizes = [torch.where(each, size, 0.0) for size, each in zip(magnitudes, free, strict=True)]
    scale = _scale(sizes)
    below = [sizes[0] * scale]
    for size in sizes[1:]:
        below.append(below[-1] + size * scale)
    return below, scale


def filled(magnitudes: list[Tensor], n: int) -> Filled:
    """Fill the blocks: magnitudes (one tensor a place in the block) and N in.

    A round keeps for sure what is at least an N-th of the sum, and goes on with the others. After N - 1 rounds
    nothing more can be that large.
    """
    held = sum((size > 0).to(torch.int32) for size in magnitudes)
    assert isinstance(held, Tensor)
    more = held > n
    free = [(size > 0) & more for size in magnitudes]
    left = torch.full_like(magnitudes[0], n)
    for _ in range(n - 1):
        below, scale = _sums(magnitudes, free)
        sure = [each & (size * scale * left >= below[-1]) for size, each in zip(magnitudes, free, strict=True)]
        if not any(bool(each.any()) for each in sure):
            break
        free = [each & ~now for each, now in zip(free, sure, strict=True)]
        for now in sure:
            left = left - now.to(left.dtype)
    below, scale = _sums(magnitudes, free)
    return Filled(free, below, below[-1], left, below[-1] / left.clamp(min=1), scale)


def _planes(x: Tensor, m: int, dim: int, dtype: torch.dtype) -> list[Tensor]:
    """The magnitudes at each place within a block."""
    return [each.to(dtype).abs().contiguous() for each in as_blocks(x, m, dim).unbind(-1)]


def _probabilities(magnitudes: list[Tensor], n: int) -> Tensor:
    """(…, m), in the dtype of the magnitudes."""
    state = filled(magnitudes, n)
    level = torch.where(state.level > 0, state.level / state.scale, 1.0)
    kept = [
        torch.where(free, (size / level).clamp(max=1.0), (size > 0).to(size.dtype))
        for size, free in zip(magnitudes, state.free, strict=True)
    ]
    # where two entries and nothing else fill the block, rounding can leave a third one without a chance
    none_left = (state.left < 1)[..., None]
    return torch.where(none_left & torch.stack(state.free, -1), 0.0, torch.stack(kept, -1))


def nm_inclusion_probabilities(x: Tensor, n: int, m: int, dim: int = -1) -> Tensor:
    """The probability with which each entry is kept, for the least variance; of the shape and dtype of `x`.

    In a block they add up to N, or to the number of entries other than 0 if that is smaller.

    Source: Chmiel et al. (arXiv 2203.10991) for 1:2 and 2:4; for any N:M derived here.

    Examples:
        >>> nm_inclusion_probabilities(torch.tensor([1.0, 2.0, 3.0, 2.0]), 2, 4)
        tensor([0.2500, 0.5000, 0.7500, 0.5000])
        >>> nm_inclusion_probabilities(torch.tensor([1.0, 2.0, 1.0, 12.0]), 2, 4)
        tensor([0.2500, 0.5000, 0.2500, 1.0000])
    """
    n, m = checked_pattern(n, m)
    found = _probabilities(_planes(x, m, dim, computed_in(floating_tensor("x", x))), n)
    return in_place_of(found, dim).to(x.dtype)


def nm_joint_probabilities(x: Tensor, n: int, m: int, dim: int = -1) -> Tensor:
    """The probability with which two entries of a block are both kept by `nm_mvue`: (*rest, size / m, m, m), float64.

    Entry i is kept if the random number lies on an arc of length P_i of a circle; the arcs of a block follow one
    another, N times around. Two entries are both kept where their arcs overlap.

    Examples:
        >>> nm_joint_probabilities(torch.tensor([1.0, 1.0, 1.0, 1.0]), 2, 4)[0, 0]
        tensor([0.5000, 0.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    n, m = checked_pattern(n, m)
    kept = _probabilities(_planes(x, m, dim, torch.float64), n)
    end = kept.cumsum(-1)
    start = end - kept
    # an arc begins within the first turn
    turns = start.floor()
    start, end = start - turns, end - turns
    overlap = torch.zeros(*kept.shape, m, dtype=torch.float64, device=kept.device)
    for turn in (-1.0, 0.0, 1.0):
        first = torch.maximum(start[..., :, None], start[..., None, :] + turn)
        last = torch.minimum(end[..., :, None], end[..., None, :] + turn)
        overlap += (last - first).clamp(min=0)
    return torch.minimum(overlap, torch.minimum(kept[..., :, None], kept[..., None, :]))


def nm_mvue_variance(x: Tensor, n: int, m: int, dim: int = -1, method: Mask = "mvue") -> Tensor:
    """The expected squared error of a block, exactly: (*rest, size / m), float64.

    Args:
        method: `"mvue"`, the least that an unbiased mask can have; `"approx"`, two draws without replacement (2:4
            only); `"uniform"`, every entry with the same probability; or `"greedy_mse"`, the squares that are dropped
            where the largest entries are kept, which is all bias.

    Examples:
        >>> x = torch.tensor([1.0, 2.0, 3.0, 3.5])
        >>> [nm_mvue_variance(x, 2, 4, method=name).item() for name in ("mvue", "uniform", "greedy_mse")]
        [18.875, 26.25, 5.0]
    """
    n, m = checked_pattern(n, m)
    one_of("method", method, ("mvue", "approx", "greedy_mse", "uniform"))
    if method == "approx" and (n, m) != (2, 4):
        raise ValueError(f"method approx is for 2:4; n and m are {n} and {m}")
    magnitudes = _planes(x, m, dim, torch.float64)
    sizes = torch.stack(magnitudes, -1)
    if method == "greedy_mse":
        return sizes.sort(-1).values[..., : m - n].square().sum(-1)
    if method == "uniform":
        return sizes.square().sum(-1) * (m - n) / n
    if method == "approx":
        kept, lost = approx_probabilities(sizes)
        return (sizes.square() * lost / torch.where(kept > 0, kept, 1.0)).sum(-1)
    state = filled(magnitudes, n)
    # a_i (level - a_i), not a difference of sums: it keeps its digits
    terms = [
        torch.where(free, size * (state.level / state.scale - size).clamp(min=0), 0.0)
        for size, free in zip(magnitudes, state.free, strict=True)
    ]
    return torch.stack(terms, -1).sum(-1)


def approx_probabilities(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Of two draws in proportion to magnitudes (…, 4), the second without the first: chances to be drawn and not to be.

    1 and 0 where at most two entries are not zero. Both are sums of positive terms: beside a large entry a difference
    would lose its digits.
    """
    held = (sizes > 0).sum(-1, keepdim=True)
    largest = sizes.amax(-1, keepdim=True)
    shares = (sizes / torch.where(largest > 0, largest, 1.0)).unbind(-1)
    total = shares[0] + shares[1] + shares[2] + shares[3]
    drawn, missed = [], []
    for i in range(4):
        others = [j for j in range(4) if j != i]
        hit, miss = shares[i], torch.zeros_like(total)
        for j in others:
            last = sum(shares[k] for k in others if k != j)
            without = last + shares[i]
            first = shares[j] / torch.where(without > 0, without, 1.0)
            hit, miss = hit + first * shares[i], miss + first * last
        drawn.append(hit / torch.where(total > 0, total, 1.0))
        missed.append(miss / torch.where(total > 0, total, 1.0))
    few = (sizes > 0).to(sizes.dtype)
    kept, lost = torch.stack(drawn, -1).clamp(max=1.0), torch.stack(missed, -1)
    return torch.where(held > 2, kept, few), torch.where(held > 2, lost, 1 - few)
