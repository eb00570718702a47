"""Masks on one thread of a CPU, compiled: the bits of the definition, for float32.

A tensor is seen as (outer, size, inner), with blocks along the middle. Lanes of blocks are worked on side by side,
one plain loop a step, so that the compiler can use vector instructions. Constants of other files stand here again,
because numba's cache does not see other files; tests compare the results with those of eager torch.
"""

from __future__ import annotations

import numpy as np

from lib.compiling import compiled

__all__ = ["greedy", "mvue"]

_FIRST, _SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_LARGE, _SMALL = np.float32(2.0**100), np.float32(2.0**-100)
_DOWN, _UP = np.float32(2.0**-16), np.float32(2.0**64)
_ZERO, _HALF, _UNIT = np.float32(0), np.float32(0.5), np.float32(1)
_NEVER, _STEP = np.float32(np.inf), np.float32(2.0**-24)
#: Blocks that are worked on side by side.
_LANES = 512


@compiled(forceinline=True)
def _round(word):
    word = np.uint32(word ^ (word >> np.uint32(16)))
    word = np.uint32(word * _FIRST)
    word = np.uint32(word ^ (word >> np.uint32(15)))
    return np.uint32(word * _SECOND)


@compiled(forceinline=True)
def _hashed(place, first, second):
    """The highest 24 bits of the random word at a place of the stream of two keys."""
    return np.int32(_round(np.uint32(_round(np.uint32(place ^ first)) + second)) >> np.uint32(8))


@compiled(forceinline=True)
def _scale(largest):
    return _DOWN if largest >= _LARGE else (_UP if largest < _SMALL else _UNIT)


@compiled(forceinline=True)
def _int(flag):
    return np.int32(1) if flag else np.int32(0)


@compiled(forceinline=True)
def _or_zero(flag, value):
    return value if flag else _ZERO


@compiled(error_model="numpy", fastmath=False)
def _draw(rand, keys, place, step, count, drawn):
    """The random numbers of some blocks in units of 2^-24: those given, from `place` on, or the hash."""
    if rand.size:
        for lane in range(count):
            drawn[lane] = np.int32(rand[place + lane * step] * np.float32(1 << 24))
    else:
        first, second, start, stride = keys[0], keys[1], np.uint32(place), np.uint32(step)
        for lane in range(count):
            drawn[lane] = _hashed(np.uint32(start + np.uint32(lane) * stride), first, second)


@compiled(forceinline=True)
def _first_tooth(drawn):
    """Where the first tooth of the comb is, in (0, 1]: 0 is 1, a turn later."""
    shift = np.float32(drawn) * _STEP
    return shift if shift > _ZERO else _UNIT


@compiled(error_model="numpy", fastmath=False)
def _two_of_four(r0, r1, r2, r3, drawn, count, kept):
    """2:4 blocks, a row of entries a place: all steps of `_n_of_m` at once, in registers.

    `kept` is flat, for rows at a distance that the compiler knows. Returns other than 0 where that is not enough:
    sums that are not finite, or too small or large to be exact, and entries that rounding gives two teeth of the comb.
    """
    wrong = np.int32(0)
    for lane in range(count):
        x0, x1, x2, x3 = r0[lane], r1[lane], r2[lane], r3[lane]
        a0, a1, a2, a3 = abs(x0), abs(x1), abs(x2), abs(x3)
        whole = ((a0 + a1) + a2) + a3
        # at least half of the sum: kept for sure
        s0, s1, s2, s3 = a0 + a0 >= whole, a1 + a1 >= whole, a2 + a2 >= whole, a3 + a3 >= whole
        one = s0 | s1 | s2 | s3
        c0 = _or_zero(not s0, a0)
        c1 = c0 + _or_zero(not s1, a1)
        c2 = c1 + _or_zero(not s2, a2)
        total = c2 + _or_zero(not s3, a3)
        level = total * (_UNIT if one else _HALF)
        shift = _first_tooth(drawn[lane])
        first = shift * level
        second = _NEVER if one else (shift + _UNIT) * level
        m0, m1, m2, m3 = c0 >= first, c1 >= first, c2 >= first, total >= first
        p0, p1, p2, p3 = c0 >= second, c1 >= second, c2 >= second, total >= second
        d1, d2, d3 = m1 ^ m0, m2 ^ m1, m3 ^ m2
        e1, e2, e3 = p1 ^ p0, p2 ^ p1, p3 ^ p2
        twice = (m0 & p0) | (d1 & e1) | (d2 & e2) | (d3 & e3)
        plain = (whole < _LARGE) & ((total >= _SMALL) | (total <= _ZERO))
        wrong = np.int32(wrong | _int(twice | (not plain)))
        kept[lane] = x0 if s0 else _or_zero(m0 | p0, -level if x0 < _ZERO else level)
        kept[_LANES + lane] = x1 if s1 else _or_zero(d1 | e1, -level if x1 < _ZERO else level)
        kept[2 * _LANES + lane] = x2 if s2 else _or_zero(d2 | e2, -level if x2 < _ZERO else level)
        kept[3 * _LANES + lane] = x3 if s3 else _or_zero(d3 | e3, -level if x3 < _ZERO else level)
    return wrong


@compiled(error_model="numpy", fastmath=False)
def _one_of_m(m, x, drawn, count, kept):
    """1:M blocks, a row of entries a place: one tooth, and the sum is the level. Returns as `_two_of_four`."""
    total, below, tooth = np.zeros(count, np.float32), np.zeros(count, np.float32), np.empty(count, np.float32)
    for i in range(m):
        row = x[i]
        for lane in range(count):
            total[lane] += abs(row[lane])
    wrong = np.int32(0)
    for lane in range(count):
        plain = (total[lane] < _LARGE) & ((total[lane] >= _SMALL) | (total[lane] <= _ZERO))
        wrong = np.int32(wrong | _int(not plain))
        tooth[lane] = _first_tooth(drawn[lane]) * total[lane]
    for i in range(m):
        row, result = x[i], kept[i]
        for lane in range(count):
            entry, before = row[lane], below[lane]
            end = before + abs(entry)
            signed = -total[lane] if entry < _ZERO else total[lane]
            result[lane] = _or_zero((end >= tooth[lane]) & (before < tooth[lane]), signed)
            below[lane] = end
    return wrong


@compiled(error_model="numpy", fastmath=False)
def _sums(x, free, m, count, scale, total):
    """The scale of the free magnitudes of some blocks, and their sums."""
    for lane in range(count):
        scale[lane] = total[lane] = _ZERO
    for i in range(m):
        row, chance = x[i], free[i]
        for lane in range(count):
            scale[lane] = max(scale[lane], _or_zero(chance[lane] > 0, abs(row[lane])))
    for lane in range(count):
        scale[lane] = _DOWN if scale[lane] >= _LARGE else (_UP if scale[lane] < _SMALL else _UNIT)
    for i in range(m):
        row, chance = x[i], free[i]
        for lane in range(count):
            total[lane] += _or_zero(chance[lane] > 0, abs(row[lane]) * scale[lane])


@compiled(error_model="numpy", fastmath=False)
def _filled(n, m, x, count, free, left, scale, total):
    """Which entries of some blocks are left to chance, how many of them are to be kept, and the sum of their sizes."""
    held, most = np.zeros(count, np.int32), np.int32(n)
    for i in range(m):
        row = x[i]
        for lane in range(count):
            held[lane] = np.int32(held[lane] + _int(abs(row[lane]) > _ZERO))
    for i in range(m):
        row, chance = x[i], free[i]
        for lane in range(count):
            chance[lane] = _int((abs(row[lane]) > _ZERO) & (held[lane] > most))
    for lane in range(count):
        left[lane] = np.float32(n)
    share = np.empty(count, np.float32)
    for _ in range(n - 1):
        _sums(x, free, m, count, scale, total)
        share[:] = left
        for i in range(m):
            row, chance = x[i], free[i]
            for lane in range(count):
                sure = (chance[lane] > 0) & (abs(row[lane]) * scale[lane] * share[lane] >= total[lane])
                chance[lane] = np.int32(0) if sure else chance[lane]
                left[lane] -= _UNIT if sure else _ZERO
    _sums(x, free, m, count, scale, total)


@compiled(error_model="numpy", fastmath=False)
def _teeth(n, m, x, drawn, count, free, left, scale, level, seen):
    """The number of teeth of the comb up to the end of each entry's part."""
    below, tooth = np.zeros((m, count), np.float32), np.empty(count, np.float32)
    for i in range(m):
        row = below[i]
        for lane in range(count):
            row[lane] = _or_zero(free[i, lane] > 0, abs(x[i, lane]) * scale[lane])
        if i > 0:
            for lane in range(count):
                row[lane] += below[i - 1, lane]
    for j in range(n):
        step = np.float32(j)
        for lane in range(count):
            shift = _first_tooth(drawn[lane])
            tooth[lane] = (shift + step) * level[lane] if left[lane] > step else _NEVER
        for i in range(m):
            row, total = below[i], seen[i]
            for lane in range(count):
                total[lane] = np.int32((total[lane] if j > 0 else 0) + _int(row[lane] >= tooth[lane]))


@compiled(error_model="numpy", fastmath=False)
def _n_of_m(n, m, x, drawn, count, free, seen, kept):
    """Blocks of any N:M, a row of entries a place; `free` and `seen` are room to work in."""
    left, scale, total = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count, np.float32)
    _filled(n, m, x, count, free, left, scale, total)
    level, before = np.empty(count, np.float32), np.zeros(count, np.int32)
    ahead, most = np.zeros(count, np.int32), np.empty(count, np.int32)
    for lane in range(count):
        level[lane] = total[lane] / max(left[lane], _UNIT)
        most[lane] = np.int32(left[lane])
    _teeth(n, m, x, drawn, count, free, left, scale, level, seen)
    for lane in range(count):
        level[lane] /= scale[lane]
    for i in range(m):
        for lane in range(count):
            ahead[lane] = np.int32(ahead[lane] + free[i, lane])
    for i in range(m):
        chance, teeth, entries, row = free[i], seen[i], x[i], kept[i]
        for lane in range(count):
            # an entry takes one tooth at most, and leaves those ahead as many as they can take
            ahead[lane] = np.int32(ahead[lane] - chance[lane])
            now = max(teeth[lane], np.int32(most[lane] - ahead[lane]))
            now = min(now, np.int32(before[lane] + np.int32(1)), most[lane])
            now = now if chance[lane] > 0 else before[lane]
            entry = entries[lane]
            signed = -level[lane] if entry < _ZERO else level[lane]
            row[lane] = _or_zero(now != before[lane], signed) if chance[lane] > 0 else entry
            before[lane] = now


@compiled(error_model="numpy", fastmath=False)
def _loaded(x, m, start, lane_step, entry_step, count, rows):
    """Some blocks with a row a place; whether all entries are finite."""
    if lane_step == 1:
        for i in range(m):
            here = x[start + i * entry_step : start + i * entry_step + count]
            for lane in range(count):
                rows[i, lane] = here[lane]
    elif m == 4:
        here = x[start : start + 4 * count]
        for lane in range(count):
            rows[0, lane], rows[1, lane] = here[4 * lane], here[4 * lane + 1]
            rows[2, lane], rows[3, lane] = here[4 * lane + 2], here[4 * lane + 3]
    else:
        here = x[start : start + m * count]
        for i in range(m):
            for lane in range(count):
                rows[i, lane] = here[lane * m + i]


@compiled(error_model="numpy", fastmath=False)
def _finite(rows, m, count):
    top = _ZERO
    for i in range(m):
        for lane in range(count):
            # NaN is no number, and goes on
            top += rows[i, lane] * _ZERO
    return top == _ZERO


@compiled(error_model="numpy", fastmath=False)
def _stored(rows, m, start, lane_step, entry_step, count, x):
    """Undo `_loaded`."""
    if lane_step == 1:
        for i in range(m):
            here, row = x[start + i * entry_step : start + i * entry_step + count], rows[i]
            for lane in range(count):
                here[lane] = row[lane]
    elif m == 4:
        here = x[start : start + 4 * count]
        for lane in range(count):
            here[4 * lane], here[4 * lane + 1] = rows[0, lane], rows[1, lane]
            here[4 * lane + 2], here[4 * lane + 3] = rows[2, lane], rows[3, lane]
    else:
        here = x[start : start + m * count]
        for i in range(m):
            for lane in range(count):
                here[lane * m + i] = rows[i, lane]


@compiled(error_model="numpy", fastmath=False)
def mvue(x, n, m, shape, rand, keys, result):
    """The kept values of blocks of a flat tensor of shape (outer, size, inner); False if an entry is not finite.

    Random numbers, one a block, are those of `rand`, (outer, inner, size / m) and flat, or of the stream of `keys`.
    """
    outer, size, inner = shape
    blocks, fast, finite = size // m, (n == 2) & (m == 4), True
    # neighbours in memory: along the inner axis, or blocks one after another where there is none
    many, lane_step, entry_step, rand_step = (blocks, m, 1, 1) if inner == 1 else (inner, 1, inner, blocks)
    rows, kept = np.empty((m, _LANES), np.float32), np.empty((m, _LANES), np.float32)
    free, seen = np.empty((m, _LANES), np.int32), np.empty((m, _LANES), np.int32)
    drawn = np.empty(_LANES, np.int32)
    for part in range(outer * (1 if inner == 1 else blocks)):
        o, b = (part, 0) if inner == 1 else (part // blocks, part % blocks)
        for lane in range(0, many, _LANES):
            count = min(_LANES, many - lane)
            start = o * size * inner + b * m * inner + lane * lane_step
            _draw(rand, keys, o * inner * blocks + b + lane * rand_step, rand_step, count, drawn)
            wrong = np.int32(1)
            if n == 1:
                _loaded(x, m, start, lane_step, entry_step, count, rows)
                wrong = _one_of_m(m, rows, drawn, count, kept)
            elif fast:
                if lane_step == 1:
                    wrong = _two_of_four(
                        x[start : start + count],
                        x[start + inner : start + inner + count],
                        x[start + 2 * inner : start + 2 * inner + count],
                        x[start + 3 * inner : start + 3 * inner + count],
                        drawn,
                        count,
                        kept.ravel(),
                    )
                else:
                    _loaded(x, m, start, lane_step, entry_step, count, rows)
                    wrong = _two_of_four(rows[0], rows[1], rows[2], rows[3], drawn, count, kept.ravel())
            if wrong != 0:
                _loaded(x, m, start, lane_step, entry_step, count, rows)
                finite &= _finite(rows, m, count)
                _n_of_m(n, m, rows, drawn, count, free, seen, kept)
            _stored(kept, m, start, lane_step, entry_step, count, result)
    return finite


@compiled(error_model="numpy", fastmath=False)
def greedy(x, n, m, shape, mask, result):
    """The `n` largest of each block, the first of equal ones, and their mask; as `mvue` otherwise."""
    outer, size, inner = shape
    blocks, finite = size // m, True
    many, lane_step, entry_step = (blocks, m, 1) if inner == 1 else (inner, 1, inner)
    rows, rank = np.empty((m, _LANES), np.float32), np.empty((m, _LANES), np.int32)
    for part in range(outer * (1 if inner == 1 else blocks)):
        o, b = (part, 0) if inner == 1 else (part // blocks, part % blocks)
        for lane in range(0, many, _LANES):
            count = min(_LANES, many - lane)
            start = o * size * inner + b * m * inner + lane * lane_step
            _loaded(x, m, start, lane_step, entry_step, count, rows)
            finite &= _finite(rows, m, count)
            for i in range(m):
                for k in range(count):
                    rank[i, k] = 0
                for j in range(i):
                    for k in range(count):
                        first = _int(abs(rows[i, k]) > abs(rows[j, k]))
                        rank[j, k] += first
                        rank[i, k] += np.int32(1) - first
            for i in range(m):
                for k in range(count):
                    rows[i, k] = _or_zero(rank[i, k] < n, rows[i, k])
            _stored(rows, m, start, lane_step, entry_step, count, result)
            if mask.size:
                for i in range(m):
                    for k in range(count):
                        mask[start + i * entry_step + k * lane_step] = rank[i, k] < n
    return finite
