"""One quantiser, three ways to run it, the same bits: eager torch, a compiled loop on the CPU, Triton kernels on a GPU.

`luq_encode` with the random numbers of `counter_mantissas` is the definition. The others draw those numbers inside,
read a tensor once, and write half a byte per entry: on a GPU, with the largest magnitude known, a little more than a
copy.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from lib.counter import checked_device, counter_keys, counter_mantissas
from lib.four_bit.logarithmic import (
    LUQ,
    Rounding,
    addends,
    checked_mantissas,
    checked_max_abs,
    checked_rounding,
    largest_magnitude,
    luq_decode,
    luq_encode,
    scale_of,
    sign_shift,
)
from lib.four_bit.packing import pack_nibbles, unpack_nibbles
from lib.validation import floating_tensor, one_of, true_or_false

__all__ = ["Backend", "PackedLUQ", "active_backend", "luq_fused", "luq_levels", "luq_pack"]

Backend = Literal["auto", "eager", "compiled", "triton"]
_Way = Literal["eager", "compiled", "triton"]
_Form = Literal["packed", "values", "units"]

# What the eager way takes at a time on the CPU.
_PART = 1 << 16
# From so many entries on a compiled loop is worth its call.
_LARGE = 1 << 10


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def active_backend(device: torch.device | str, backend: str = "auto", *, count: int = _LARGE) -> _Way:
    """The way that a request comes to on a device.

    Args:
        backend: `"eager"`; `"compiled"`, on the CPU; `"triton"`, on a GPU (on the CPU only in Triton's interpreter); or
            `"auto"`: triton on a GPU where it is installed, compiled on the CPU for tensors that are not small, and
            otherwise, or where torch itself compiles, eager.
        count: Entries of the tensor.

    Examples:
        >>> active_backend("cpu"), active_backend("cpu", count=10), active_backend("cpu", "eager")
        ('compiled', 'eager', 'eager')
    """
    if device is None:
        raise TypeError("device must be a name such as cpu or cuda; it is None")
    kind = checked_device(device).type
    one_of("backend", backend, get_args(Backend))
    if backend == "auto":
        if kind == "cpu" and count >= _LARGE and not torch.compiler.is_compiling():
            return "compiled"
        return "triton" if kind == "cuda" and _has_triton() else "eager"
    if backend == "compiled" and kind != "cpu":
        raise ValueError(f"backend 'compiled' is for the CPU, and the tensor is on {kind}")
    if backend == "triton":
        if not _has_triton():
            raise ValueError("backend 'triton' needs triton, of the extra gpu: pip install 'paperplay[gpu]'")
        if kind != "cuda" and not (kind == "cpu" and _kernels().INTERPRETED):
            there = "to try it on the CPU set TRITON_INTERPRET=1 before triton is first imported"
            raise ValueError(f"backend 'triton' needs a GPU, and the tensor is on {kind}; {there}")
    return cast("_Way", backend)


def _kernels() -> Any:
    # imports triton
    from lib.four_bit import triton_kernels

    return triton_kernels


def floating_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return `dtype` if it is one of floating-point numbers."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point dtype of torch; it is {dtype!r}")
    return dtype


@dataclass(frozen=True, eq=False, repr=False)
class PackedLUQ:
    """A tensor in 4 bits per entry.

    Attributes:
        packed: uint8 of ceil(n / 2), the first entry in the low half of a byte.
        alpha: The smallest level, 0-d float32.
        backend: The way it was made: `"eager"`, `"compiled"` or `"triton"`.
    """

    packed: Tensor
    alpha: Tensor
    shape: tuple[int, ...]
    fmt: str | int
    backend: str

    def decode(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values."""
        codes = unpack_nibbles(self.packed, self.shape)
        return luq_decode(codes, self.alpha, fmt=self.fmt, check=False).to(floating_dtype(dtype))

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.packed.nbytes + self.alpha.nbytes

    def __repr__(self) -> str:
        return f"PackedLUQ(shape={self.shape}, fmt={self.fmt!r}, nbytes={self.nbytes}, backend={self.backend!r})"


@dataclass(frozen=True, eq=False)
class _Task:
    """One call, its arguments checked: a flat tensor, and where its random numbers come from."""

    flat: Tensor
    rounding: Rounding
    seed: int | None
    rand: Tensor | None
    largest: Tensor
    backend: str

    def made(self, form: _Form, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Packed codes, or what these stand for as numbers of `dtype`, in units of alpha or not; and alpha."""
        keys = (0, 0) if self.seed is None else counter_keys(self.seed)
        if self.backend == "triton":
            given = self.flat, self.rounding, self.largest, keys, self.rand
            found: tuple[Tensor, Tensor] = _kernels().quantised(*given, form=form, dtype=dtype)
            return found
        alpha, lift = scale_of(self.largest, self.rounding)
        unit = alpha / lift
        if self.backend == "compiled":
            return self.looped(form, keys, alpha, lift).to(torch.uint8 if form == "packed" else dtype), unit
        if form == "packed":
            return pack_nibbles(torch.cat(list(self.encoded())), check=False), unit
        scale, fmt = 1.0 if form == "units" else unit, self.rounding.fmt
        return torch.cat([luq_decode(part, scale, fmt=fmt, check=False).to(dtype) for part in self.encoded()]), unit

    def encoded(self) -> Iterator[Tensor]:
        """Codes by the definition: on the CPU in parts that stay in its cache."""
        size = _PART if self.flat.device.type == "cpu" else max(self.flat.numel(), 1)
        for first in range(0, max(self.flat.numel(), 1), size):
            part = self.flat[first : first + size]
            rand = None if self.rand is None else self.rand[first : first + size]
            if self.seed is not None:
                rand = counter_mantissas(part.shape, self.seed, start=first, device=part.device)
            yield luq_encode(part, self.rounding, max_abs=self.largest, rand=rand, check=False)[0]

    def looped(self, form: _Form, keys: tuple[int, int], alpha: Tensor, lift: Tensor) -> Tensor:
        """Bytes, or values in float32, from the compiled loop."""
        from lib.four_bit import compiled

        count = len(self.flat)
        loop, result = compiled.quantised, torch.empty(count)
        last: np.number[Any] = np.float32(1.0 if form == "units" else float(alpha / lift))
        if form == "packed":
            loop, result = compiled.encode_packed, torch.empty((count + 1) // 2, dtype=torch.uint8)
            last = np.int32(1 << sign_shift(self.rounding.fmt))
        inside, below = addends(self.rounding, -1)  # a negative number stands for the random one
        rand = torch.empty(0, dtype=torch.int32) if self.rand is None else self.rand
        loop(
            self.flat.float().numpy(),
            rand.numpy(),
            tuple(np.uint32(key & 0xFFFFFFFF) for key in keys),
            np.float32(float(alpha) or 1.0),
            np.float32(float(lift)),
            np.int32(inside),
            np.int32(below),
            self.rounding.underflow == "flush",
            np.int32(self.rounding.levels),
            last,
            result.numpy(),
        )
        return result


def _task(
    x: Tensor,
    rounding: Rounding,
    *,
    seed: int | None,
    rand: Tensor | None,
    max_abs: Tensor | float | None,
    backend: Backend,
    check: bool,
) -> _Task:
    checked_rounding(rounding)
    true_or_false("check", check)
    way = active_backend(floating_tensor("x", x).device, backend, count=x.numel())
    if seed is not None and rand is not None:
        raise ValueError("give a seed or rand, not both")
    if seed is not None:
        counter_keys(seed)
    if not rounding.random:
        seed = None
    elif seed is None and rand is None:
        raise ValueError("stochastic rounding needs a seed, another one for every call, or rand")
    if rand is not None:
        rand = checked_mantissas(rand, x, None, check=check).contiguous().view(-1)
    values = x.detach()
    if values.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        values = values.to(torch.float32)
    flat = values.contiguous().view(-1)
    largest = None
    if max_abs is None or check:
        largest = _kernels().largest_magnitude(flat) if way == "triton" else largest_magnitude(flat).float()
        if check and not bool(torch.isfinite(largest)):
            raise ValueError("x must be finite in float32; it holds NaN or infinities")
    given = checked_max_abs(flat, largest if max_abs is None else max_abs, check=check and max_abs is not None)
    if given.ndim:
        raise ValueError(f"max_abs must be one number; its shape is {tuple(given.shape)}, which luq_encode takes")
    return _Task(flat, rounding, seed, rand, given, way)


def luq_pack(
    x: Tensor,
    rounding: Rounding = LUQ,
    *,
    seed: int | None = None,
    rand: Tensor | None = None,
    max_abs: Tensor | float | None = None,
    backend: Backend = "auto",
    check: bool = True,
) -> PackedLUQ:
    """Quantise to signed powers of two and pack two codes in a byte, in one pass on a GPU.

    Args:
        x: Floating-point tensor of any shape.
        rounding: Of a format that fits in 4 bits.
        seed: Of the random numbers: another one for every call, or the rounding is no longer right on average. Needed
            where something is stochastic, unless `rand` is given.
        rand: Random integers, of `luq_encode`.
        max_abs: What the largest level stands for, one number; the largest magnitude of `x` by default.
        backend: A request to `active_backend`.
        check: Refuse NaN, infinities and a bad `max_abs`. Off, nothing waits for a GPU, if `max_abs` is None or on it.

    Examples:
        >>> luq_pack(torch.tensor([64.0, -16.0, 1.0]), seed=0).decode()
        tensor([ 64., -16.,   1.])
    """
    if checked_rounding(rounding).levels > 7:
        raise ValueError(f"rounding.fmt must fit in 4 bits; {rounding.fmt!r} has {2 * rounding.levels + 1} values")
    task = _task(x, rounding, seed=seed, rand=rand, max_abs=max_abs, backend=backend, check=check)
    return PackedLUQ(*task.made("packed"), tuple(x.shape), rounding.fmt, task.backend)


def luq_fused(
    x: Tensor,
    rounding: Rounding = LUQ,
    *,
    seed: int | None = None,
    rand: Tensor | None = None,
    max_abs: Tensor | float | None = None,
    backend: Backend = "auto",
    check: bool = True,
) -> Tensor:
    """Quantise and decode again, in one pass on a GPU: the values of `luq_pack`, bit for bit, and its arguments.

    Formats may have 17 values. The result has the dtype and shape of `x`, and no gradient: that of `luq` has one.

    Examples:
        >>> x = torch.tensor([64.0, -3.0, 0.25])
        >>> torch.equal(luq_fused(x, seed=5), luq_pack(x, seed=5).decode())
        True
    """
    task = _task(x, rounding, seed=seed, rand=rand, max_abs=max_abs, backend=backend, check=check)
    return task.made("values", task.flat.dtype)[0].view(x.shape).to(x.dtype)


def luq_levels(
    x: Tensor,
    rounding: Rounding = LUQ,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int | None = None,
    rand: Tensor | None = None,
    max_abs: Tensor | float | None = None,
    backend: Backend = "auto",
    check: bool = True,
) -> tuple[Tensor, Tensor]:
    """The levels of `luq_fused`, 0 and +-2^(k-1), as numbers of `dtype`, and their unit alpha, 0-d float32.

    What a product of matrices takes: levels are exact also in bfloat16, and alpha is multiplied in afterwards.

    Examples:
        >>> luq_levels(torch.tensor([6.4, -1.6, 0.0]), seed=0)
        (tensor([ 64., -16.,   0.]), tensor(0.1000))
    """
    floating_dtype(dtype)
    task = _task(x, rounding, seed=seed, rand=rand, max_abs=max_abs, backend=backend, check=check)
    levels, alpha = task.made("units", dtype)
    return levels.view(x.shape), alpha
