"""Random numbers that are a function of a place and a seed: drawn inside a kernel, the same ones on every device.

A hash of the flat index takes the place of a tensor of random numbers, which would cost more to make and to read
than the quantiser itself. Its two rounds are Wellons' `lowbias32` (xor with a shift, multiply, twice) without the
last xor, which would only reach the low half of the word. Each round has its own key: with one key only, the
numbers of one seed would be those of another in another order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.validation import integer_at_least

__all__ = [
    "FIRST_MULTIPLIER",
    "SECOND_MULTIPLIER",
    "counter_keys",
    "counter_mantissas",
    "counter_uniform",
    "random_seed",
]

#: The two odd factors of a round, as uint32; eager torch takes them, and everything else, as int32.
FIRST_MULTIPLIER, SECOND_MULTIPLIER = 0x7FEB352D, 0x846CA68B
_WORD, _LONG = (1 << 32) - 1, (1 << 64) - 1
# so many numbers at a time stay in the cache of a core
_BLOCK = 1 << 15


def _signed(word: int) -> int:
    """The int32 with the bits of a uint32."""
    return word - (1 << 32) if word >> 31 else word


def counter_keys(seed: int) -> tuple[int, int]:
    """Two int32 keys from a seed: the halves of one output of splitmix64, so that no two seeds share both.

    Seeds are integers from -2^64 on, and count modulo 2^64.
    """
    z = (integer_at_least("seed", seed, -1 - _LONG) + 0x9E3779B97F4A7C15) & _LONG
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _LONG
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _LONG
    z ^= z >> 31
    return _signed(z & _WORD), _signed(z >> 32)


def checked_sizes(shape: tuple[int, ...] | torch.Size) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"shape must be a tuple of sizes; it is {shape!r}")
    return tuple(integer_at_least("shape", size, 0) for size in shape)


def checked_device(device: torch.device | str | None) -> torch.device:
    """Any device that torch knows the name of; the CPU for None."""
    if not isinstance(device, (str, torch.device, type(None))):
        raise TypeError(f"device must be a name such as cpu or cuda; it is {device!r}")
    try:
        return torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise ValueError(f"device must be a name such as cpu or cuda; it is {device!r}") from error


def _round(word: Tensor) -> Tensor:
    """One round, in place where torch runs eagerly; the mask makes an arithmetic shift a logical one."""
    word ^= (word >> 16) & 0xFFFF
    word *= FIRST_MULTIPLIER
    word ^= (word >> 15) & 0x1FFFF
    word *= _signed(SECOND_MULTIPLIER)
    return word


def _words_at(index: Tensor, first: int | Tensor, second: int | Tensor) -> Tensor:
    """The random words at some places: int32 indices and keys in, int32 out."""
    return _round(_round(index ^ first) + second)


def random_seed(generator: torch.Generator | None) -> int:
    """A seed for the functions below, from a generator or torch's own."""
    device = None if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def _words(
    shape: tuple[int, ...] | torch.Size, seed: int, start: int, device: torch.device | str | None, bits: int
) -> Tensor:
    """The highest bits of the words of a stream, int32."""
    keys, sizes, device = counter_keys(seed), checked_sizes(shape), checked_device(device)
    count, start = math.prod(sizes), integer_at_least("start", start, 0)
    drawn = torch.empty(count, dtype=torch.int32, device=device)
    block = _BLOCK if drawn.device.type == "cpu" else 1 << 30
    for first in range(0, count, block):
        part = drawn[first : first + block]
        places = torch.arange(len(part), dtype=torch.int32, device=device)
        words = _words_at(places + _signed((start + first) & _WORD), *keys)
        part.copy_((words >> (32 - bits)) & ((1 << bits) - 1))
    return drawn.view(sizes)


def counter_mantissas(
    shape: tuple[int, ...] | torch.Size, seed: int, *, start: int = 0, device: torch.device | str | None = None
) -> Tensor:
    """Uniform random integers in [0, 2^23) by place and seed: for `rand` of `luq_encode`.

    Args:
        shape: Any shape; after 2^32 places the numbers repeat.
        start: The place of the first number in the stream of this seed.
        device: Where to make them: the numbers do not depend on it.

    Examples:
        >>> counter_mantissas((4,), seed=0)
        tensor([3144821,  439144, 6000026, 5701928], dtype=torch.int32)
    """
    return _words(shape, seed, start, device, 23)


def counter_uniform(
    shape: tuple[int, ...] | torch.Size, seed: int, *, start: int = 0, device: torch.device | str | None = None
) -> Tensor:
    """Uniform random numbers in [0, 1), multiples of 2^-24, float32, by place and seed: for `rand` of `nm_mvue`.

    The arguments are those of `counter_mantissas`, and so are all bits but the last.

    Examples:
        >>> counter_uniform((2,), seed=0)
        tensor([0.3749, 0.0524])
    """
    return _words(shape, seed, start, device, 24) * 2.0**-24
