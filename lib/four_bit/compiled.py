"""The quantiser for one thread of a CPU, compiled: float32 in, the bits of the definition out.

Random numbers are given, or are the hash of `lib.counter`, whose constants stand here again because numba's
cache does not see other files; a test compares the two. Nothing may be reassociated: the bits are the definition's.
"""

from __future__ import annotations

import numpy as np

from lib.compiling import compiled

__all__ = ["encode_packed", "quantised"]

_FIRST, _SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_ONE, _MANTISSAS = np.float32(1), np.uint32(0x7FFFFF)


@compiled(forceinline=True)
def _round(word):
    word = np.uint32(word ^ (word >> np.uint32(16)))
    word = np.uint32(word * _FIRST)
    word = np.uint32(word ^ (word >> np.uint32(15)))
    return np.uint32(word * _SECOND)


@compiled(forceinline=True)
def _hashed(place, first, second):
    """The random number at a place of the stream of two keys."""
    return np.int32((_round(np.uint32(_round(np.uint32(place ^ first)) + second)) >> np.uint32(9)) & _MANTISSAS)


@compiled(forceinline=True)
def _level(x, drawn, alpha, lift, inside, below, flush, levels):
    """The level of one number; where `inside` or `below` is negative, the random number is added in its place."""
    y = abs(x) * lift / alpha
    small = y < _ONE
    wide = np.float32(y + (_ONE if small else y))
    fixed = below if small else inside
    bits = np.int32(wide.view(np.int32) + (drawn if fixed < 0 else fixed))
    k = min(np.int32((bits >> np.int32(23)) - np.int32(127)), levels)
    return np.int32(0) if flush and small else np.int32(k)


@compiled(error_model="numpy", fastmath=False)
def _levels(x, rand, keys, start, alpha, lift, inside, below, flush, levels, result):
    """Levels of a part of a tensor; without random numbers given, they follow from the keys."""
    if rand.size:
        for i in range(x.size):
            result[i] = _level(x[i], rand[i], alpha, lift, inside, below, flush, levels)
    else:
        first, second = keys
        for i in range(x.size):
            drawn = _hashed(np.uint32(start + i), first, second)
            result[i] = _level(x[i], drawn, alpha, lift, inside, below, flush, levels)


@compiled(error_model="numpy", fastmath=False)
def encode_packed(x, rand, keys, alpha, lift, inside, below, flush, levels, sign, packed):
    """Two codes a byte, the first in its low half; `sign` is the bit of the sign."""
    part = np.empty(1 << 13, np.int32)
    for start in range(0, x.size, part.size):
        size = min(part.size, x.size - start)
        drawn = rand[start : start + size]
        here = x[start : start + size]
        _levels(here, drawn, keys, np.uint32(start), alpha, lift, inside, below, flush, levels, part[:size])
        for i in range(size):
            part[i] |= sign if here[i] < 0 and part[i] > 0 else np.int32(0)
        bytes_here = packed[start // 2 : (start + size + 1) // 2]
        for i in range(size // 2):
            bytes_here[i] = np.uint8(part[2 * i] | (part[2 * i + 1] << np.int32(4)))
        if size % 2:
            bytes_here[size // 2] = np.uint8(part[size - 1])


@compiled(error_model="numpy", fastmath=False)
def quantised(x, rand, keys, alpha, lift, inside, below, flush, levels, unit, result):
    """The values, as numbers of times `unit`."""
    part = np.empty(1 << 13, np.int32)
    for start in range(0, x.size, part.size):
        size = min(part.size, x.size - start)
        here, values = x[start : start + size], result[start : start + size]
        drawn = rand[start : start + size]
        _levels(here, drawn, keys, np.uint32(start), alpha, lift, inside, below, flush, levels, part[:size])
        for i in range(size):
            magnitude = (np.int32(1) << part[i]) >> np.int32(1)
            values[i] = np.float32(-magnitude if here[i] < 0 else magnitude) * unit
