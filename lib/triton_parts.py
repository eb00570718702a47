"""What the Triton kernels of chapters share: random numbers by place, rounding to what is stored, the GPU to start on.

Importing this module imports triton; only modules of kernels do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
import triton
import triton.language as tl

from lib.counter import FIRST_MULTIPLIER, SECOND_MULTIPLIER

__all__ = ["INTERPRETED", "bits_at", "on_its_gpu", "stored"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_FIRST = tl.constexpr(FIRST_MULTIPLIER)
_SECOND = tl.constexpr(SECOND_MULTIPLIER)


@triton.jit
def _round(word):
    """One round of the hash, on uint32."""
    word = (word ^ (word >> 16)) * _FIRST
    return (word ^ (word >> 15)) * _SECOND


@triton.jit
def bits_at(index, first, second, BITS: tl.constexpr):
    """The highest bits of the random words at some places, int32; keys are int32, places uint32."""
    word = _round(index ^ first.to(tl.uint32, bitcast=True))
    word = _round(word + second.to(tl.uint32, bitcast=True))
    return (word >> (32 - BITS)).to(tl.int32)


@triton.jit
def stored(value, dtype: tl.constexpr):
    """A float32 as what is stored: to the nearest bfloat16, ties to even, where Triton's interpreter would cut off."""
    if dtype == tl.bfloat16:
        bits = value.to(tl.int32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        # NaN is left alone: a carry could take it to another number
        value = tl.where(value == value, rounded.to(tl.float32, bitcast=True), value)  # noqa: PLR0124
    return value.to(dtype)


#: Whether kernels run in Triton's interpreter, on the CPU: TRITON_INTERPRET=1 at triton's first import.
INTERPRETED = not isinstance(stored, triton.runtime.JITFunction)


def on_its_gpu(launch: Callable[_P, _R]) -> Callable[_P, _R]:
    """Kernels start on the current GPU: make it that of the first argument."""

    @functools.wraps(launch)
    def there(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with torch.cuda.device_of(args[0]):
            return launch(*args, **kwargs)

    return there
