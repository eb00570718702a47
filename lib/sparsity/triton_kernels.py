"""N:M masks on a GPU: a Triton kernel with the bits of the definition, for float32, bfloat16 and float16.

A tensor is read once, its random numbers are drawn inside, and the result is written once: dense where it was, with
the pruned dimension moved last (the transpose that a product over the batch needs), or compressed. Of a tile of
blocks each place within a block is one tensor, a *plane*. Importing this module imports triton.
"""

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from lib.four_bit.triton_kernels import level_numbers, scale
from lib.triton_parts import bits_at, on_its_gpu, stored

__all__ = ["Form", "pruned", "pruned_levels"]

Form = Literal["dense", "transposed", "compressed"]

# Entries of a tile.
_TILE = 4096


@triton.jit
def _split(x, ROWS: tl.constexpr, BLOCKS: tl.constexpr, M: tl.constexpr):
    """The planes of (ROWS, BLOCKS, M)."""
    if M == 1:
        return (tl.reshape(x, (ROWS, BLOCKS)),)
    else:
        even, odd = tl.split(tl.reshape(x, (ROWS, BLOCKS, M // 2, 2)))
        evens, odds = _split(even, ROWS, BLOCKS, M // 2), _split(odd, ROWS, BLOCKS, M // 2)
        planes = ()
        for i in tl.static_range(M // 2):
            planes = planes + (evens[i], odds[i])
        return planes


@triton.jit
def _joined(planes, ROWS: tl.constexpr, BLOCKS: tl.constexpr, M: tl.constexpr):
    """Undo `_split`: (ROWS, BLOCKS * M)."""
    if M == 1:
        return planes[0]
    else:
        evens, odds = (), ()
        for i in tl.static_range(M // 2):
            evens = evens + (planes[2 * i],)
            odds = odds + (planes[2 * i + 1],)
        even, odd = _joined(evens, ROWS, BLOCKS, M // 2), _joined(odds, ROWS, BLOCKS, M // 2)
        return tl.reshape(tl.join(even, odd), (ROWS, BLOCKS * M))


@triton.jit
def _sums(x, free, M: tl.constexpr):
    """Sums of the scaled magnitudes that are left to chance, one after another, and the power of two of the scale."""
    largest = tl.where(free[0], tl.abs(x[0]), 0.0)
    for i in tl.static_range(1, M):
        largest = tl.maximum(largest, tl.where(free[i], tl.abs(x[i]), 0.0))
    factor = tl.where(largest >= 2.0**100, 2.0**-16, tl.where(largest < 2.0**-100, 2.0**64, 1.0))
    total = tl.where(free[0], tl.abs(x[0]), 0.0) * factor
    below = (total,)
    for i in tl.static_range(1, M):
        total = total + tl.where(free[i], tl.abs(x[i]), 0.0) * factor
        below = below + (total,)
    return below, total, factor


@triton.jit
def _mvue(x, drawn, N: tl.constexpr, M: tl.constexpr):
    """The kept values of planes; `drawn` in units of 2^-24. Step by step as `sampling` has them in eager torch."""
    held = (tl.abs(x[0]) > 0).to(tl.int32)
    for i in tl.static_range(1, M):
        held = held + (tl.abs(x[i]) > 0).to(tl.int32)
    free = ()
    for i in tl.static_range(M):
        free = free + ((tl.abs(x[i]) > 0) & (held > N),)
    left = tl.full(drawn.shape, N, tl.float32)
    for _ in tl.static_range(N - 1):
        below, total, factor = _sums(x, free, M)
        chance, share = (), left
        for i in tl.static_range(M):
            sure = free[i] & (tl.abs(x[i]) * factor * share >= total)
            chance = chance + (free[i] ^ sure,)
            left = left - sure.to(tl.float32)
        free = chance
    below, total, factor = _sums(x, free, M)
    # exactly rounded: by 3 the division of a GPU is not
    level = tl.div_rn(total, tl.maximum(left, 1.0))
    shift = drawn.to(tl.float32) * 2.0**-24
    shift = tl.where(shift > 0, shift, 1.0)
    most, before = left.to(tl.int32), tl.zeros(drawn.shape, tl.int32)
    ahead = tl.zeros(drawn.shape, tl.int32)
    for i in tl.static_range(M):
        ahead = ahead + free[i].to(tl.int32)
    # by powers of two
    magnitude = level * tl.where(factor == 1.0, 1.0, tl.where(factor < 1.0, 2.0**16, 2.0**-64))
    kept = ()
    for i in tl.static_range(M):
        teeth = tl.zeros(drawn.shape, tl.int32)
        for j in tl.static_range(N):
            teeth += ((left > j) & (below[i] >= (shift + j) * level)).to(tl.int32)
        ahead = ahead - free[i].to(tl.int32)
        now = tl.minimum(tl.maximum(teeth, most - ahead), tl.minimum(before + 1, most))
        now = tl.where(free[i], now, before)
        signed = tl.where(x[i] < 0, -magnitude, magnitude)
        kept = kept + (tl.where(free[i], tl.where(now != before, signed, 0.0), x[i]),)
        before = now
    return kept


@triton.jit
def _greedy(x, N: tl.constexpr, M: tl.constexpr):
    """The `N` largest of planes, the first of equal ones."""
    kept = ()
    for i in tl.static_range(M):
        rank = tl.zeros(x[i].shape, tl.int32)
        for j in tl.static_range(M):
            if j < i:
                rank += (tl.abs(x[j]) >= tl.abs(x[i])).to(tl.int32)
            if j > i:
                rank += (tl.abs(x[j]) > tl.abs(x[i])).to(tl.int32)
        kept = kept + (tl.where(rank < N, x[i], 0.0),)
    return kept


@triton.jit
def _pair(kept):
    """What `pack_24` stores of four planes: two values, and their places in 4 bits."""
    room = tl.full(kept[0].shape, 2, tl.int32)
    for i in tl.static_range(4):
        room = room - (kept[i] != 0).to(tl.int32)
    taken = ()
    for i in tl.static_range(4):
        # zeros fill the block up, the first ones first
        fills = (kept[i] == 0) & (room > 0)
        room = room - fills.to(tl.int32)
        taken = taken + ((kept[i] != 0) | fills,)
    first = tl.where(taken[0], 0, tl.where(taken[1], 1, 2))
    second = tl.where(taken[3], 3, tl.where(taken[2], 2, 1))
    low = tl.where(taken[0], kept[0], tl.where(taken[1], kept[1], kept[2]))
    high = tl.where(taken[3], kept[3], tl.where(taken[2], kept[2], kept[1]))
    return low, high, first | (second << 2)


@triton.jit
def _magnitude_bits(found, M: tl.constexpr):
    """The largest magnitude of planes: without its sign a float is ordered as the integer of its bits, NaN last."""
    largest = found[0].to(tl.float32).to(tl.int32, bitcast=True) & 0x7FFFFFFF
    for i in tl.static_range(1, M):
        largest = tl.maximum(largest, found[i].to(tl.float32).to(tl.int32, bitcast=True) & 0x7FFFFFFF)
    return tl.max(tl.max(largest, axis=1), axis=0)


@triton.jit
def _code(value, place, largest, first, second):
    """FP4 of kept values, as `luq_encode` has it."""
    alpha, lift, _ = scale(largest, 7, False)
    x = value.to(tl.float32)
    k = level_numbers(x, bits_at(place.to(tl.uint32), first, second, 23), alpha, lift, 7, "stochastic", "stochastic")
    return tl.where((x < 0) & (k > 0), k | 8, k)


@triton.jit
def _write_places(index_ptr, nibble, row, r, rows, start, blocks, ROWS: tl.constexpr, BLOCKS: tl.constexpr):
    """A byte holds the places of two blocks; a row ends with a whole byte."""
    even, odd = tl.split(tl.reshape(nibble, (ROWS, BLOCKS // 2, 2)))
    bytes_ = (blocks + 1) // 2
    at = start // 2 + tl.arange(0, BLOCKS // 2)[None, :]
    tl.store(index_ptr + row * bytes_ + at, (even | (odd << 4)).to(tl.uint8), mask=(r < rows) & (at < bytes_))


@triton.jit
def _kept(planes, rand_ptr, place, inside, first, second, N: tl.constexpr, M: tl.constexpr, METHOD: tl.constexpr):
    if METHOD == "greedy":
        return _greedy(planes, N, M)
    elif METHOD == "given":
        return _mvue(planes, (tl.load(rand_ptr + place, mask=inside, other=0.0) * 16777216.0).to(tl.int32), N, M)
    else:
        return _mvue(planes, bits_at(place.to(tl.uint32), first, second, 24), N, M)


@triton.jit(do_not_specialize=["first", "second", "luq_first", "luq_second"])
def _prune_kernel(
    x_ptr,
    rand_ptr,
    out_ptr,
    index_ptr,
    largest_ptr,
    rows,
    blocks,
    size,
    first,
    second,
    luq_first,
    luq_second,
    N: tl.constexpr,
    M: tl.constexpr,
    ALONG: tl.constexpr,
    METHOD: tl.constexpr,
    FORM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """A tile of blocks. Of the rows, with the pruned dimension last, either the blocks or the rows are neighbours."""
    # one axis of programs: the others hold 65,535 at most
    program, across, down = tl.program_id(0), tl.cdiv(rows, ROWS), tl.cdiv(blocks, BLOCKS)
    outer = (program // (across * down)).to(tl.int64)
    r = (program % across).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    start = program // across % down * BLOCKS
    b = start + tl.arange(0, BLOCKS)[None, :]
    inside = (r < rows) & (b < blocks)
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    wide = start * M + tl.arange(0, BLOCKS * M)[None, :]
    row = outer * rows + r
    if ALONG:
        x = _split(tl.load(x_ptr + row * size + wide, mask=(r < rows) & (wide < size), other=0.0), ROWS, BLOCKS, M)
    else:
        x = ()
        corner = outer * rows * size + r
        for i in tl.static_range(M):
            x = x + (tl.load(x_ptr + corner + (b * M + i).to(tl.int64) * rows, mask=inside, other=0.0),)
    planes = ()
    for i in tl.static_range(M):
        planes = planes + (x[i].to(tl.float32),)
    place = row * blocks + b
    kept = _kept(planes, rand_ptr, place, inside, first, second, N, M, METHOD)
    found = ()
    for i in tl.static_range(M):
        found = found + (stored(kept[i], dtype),)
    if FORM == "dense" and not ALONG:
        for i in tl.static_range(M):
            tl.store(out_ptr + corner + (b * M + i).to(tl.int64) * rows, found[i], mask=inside)
    elif FORM == "transposed" or FORM == "dense":
        tl.store(out_ptr + row * size + wide, _joined(found, ROWS, BLOCKS, M), mask=(r < rows) & (wide < size))
    elif FORM == "largest":
        tl.atomic_max(largest_ptr, _magnitude_bits(found, M))
    else:
        low, high, nibble = _pair(found)
        if FORM == "levels":
            largest = tl.load(largest_ptr)
            low_code = _code(low, place * 2, largest, luq_first, luq_second)
            high_code = _code(high, place * 2 + 1, largest, luq_first, luq_second)
            tl.store(out_ptr + place, (low_code | (high_code << 4)).to(tl.uint8), mask=inside)
        else:
            pair = start * 2 + tl.arange(0, BLOCKS * 2)[None, :]
            both = tl.reshape(tl.join(low, high), (ROWS, BLOCKS * 2))
            tl.store(out_ptr + row * (2 * blocks) + pair, both, mask=(r < rows) & (pair < 2 * blocks))
        _write_places(index_ptr, tl.where(inside, nibble, 0), row, r, rows, start, blocks, ROWS, BLOCKS)


def _launch(
    x: Tensor,
    shape: tuple[int, int, int],
    pattern: tuple[int, int],
    method: str,
    form: str,
    *,
    out: Tensor,
    indices: Tensor | None = None,
    largest: Tensor | None = None,
    rand: Tensor | None = None,
    keys: tuple[int, int] = (0, 0),
    luq_keys: tuple[int, int] = (0, 0),
) -> None:
    outer, size, inner = shape
    n, m = pattern
    along = inner == 1
    # blocks that are neighbours in memory lie in one row: then all rows are of one kind
    rows, outer = (outer, 1) if along else (inner, outer)
    if not x.numel():
        return
    lanes = _TILE // m
    # with the other layout both what is read and what is written is to be 64 neighbours at least
    wide = 1 if form == "dense" else max(64 // m, 2)
    if along:
        wide = min(max(triton.next_power_of_2(size // m), 2), lanes)
    grid = (triton.cdiv(rows, lanes // wide) * triton.cdiv(size // m, wide) * outer,)
    _prune_kernel[grid](
        x,
        x if rand is None else rand,
        out,
        out if indices is None else indices,
        out if largest is None else largest,
        rows,
        size // m,
        size,
        *keys,
        *luq_keys,
        N=n,
        M=m,
        ALONG=along,
        METHOD="given" if rand is not None and method == "mvue" else method,
        FORM=form,
        ROWS=lanes // wide,
        BLOCKS=wide,
        enable_fp_fusion=False,
    )


@on_its_gpu
def pruned(
    x: Tensor,
    shape: tuple[int, int, int],
    pattern: tuple[int, int],
    *,
    method: str = "mvue",
    form: Form = "dense",
    rand: Tensor | None = None,
    keys: tuple[int, int] = (0, 0),
) -> tuple[Tensor, Tensor]:
    """A contiguous tensor, seen as (outer, size, inner) with blocks along the middle, pruned to N:M.

    Args:
        rand: One float32 in [0, 1) a block, contiguous, (outer, inner, size / M); otherwise those of the stream of
            `keys`.

    Returns:
        Flat values in the dtype of `x`, and the indices of `pack_24`, none unless compressed.
    """
    outer, size, inner = shape
    packs = form == "compressed"
    out = torch.empty(x.numel() // 2 if packs else x.numel(), dtype=x.dtype, device=x.device)
    indices = torch.empty(outer * inner * ((size + 7) // 8) if packs else 0, dtype=torch.uint8, device=x.device)
    _launch(x, shape, pattern, method, form, out=out, indices=indices, rand=rand, keys=keys)
    return out, indices


@on_its_gpu
def pruned_levels(
    x: Tensor, shape: tuple[int, int, int], keys: tuple[int, int], luq_keys: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """2:4, then LUQ in FP4 of the kept values: codes, a byte a block; indices of `pack_24`; the largest kept value.

    Two passes, since levels have the scale of the largest kept value. It does not depend on what is drawn: in each
    block all that is left to chance is kept with one magnitude.
    """
    outer, size, inner = shape
    bits = torch.zeros((), dtype=torch.int32, device=x.device)
    codes = torch.empty(x.numel() // 4, dtype=torch.uint8, device=x.device)
    indices = torch.empty(outer * inner * ((size + 7) // 8), dtype=torch.uint8, device=x.device)
    _launch(x, shape, (2, 4), "mvue", "largest", out=codes, largest=bits)
    largest = bits.view(torch.float32)
    operands = {"out": codes, "indices": indices, "largest": largest}
    _launch(x, shape, (2, 4), "mvue", "levels", **operands, keys=keys, luq_keys=luq_keys)
    return codes, indices, largest
