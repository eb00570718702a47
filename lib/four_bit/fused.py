"""One quantiser, three ways to run it, the same bits: eager torch, torch.compile, and Triton kernels.

`luq_encode` with the random numbers of `counter_mantissas` is the definition. The compiled loop and the kernels draw
those numbers inside, read a tensor once, and write half a byte an entry: with the largest magnitude known, a little
more than a copy. What is returned names the way that was taken.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lib.four_bit.counter import counter_keys, counter_mantissas, mantissas_at
from lib.four_bit.logarithmic import (
    Rounding,
    Underflow,
    check_modes,
    checked_mantissas,
    checked_max_abs,
    in_units,
    largest_magnitude,
    level_numbers,
    log_levels,
    luq_decode,
    luq_encode,
    scale_of,
    signed_codes,
)
from lib.four_bit.packing import pack_nibbles, unpack_nibbles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Backend", "PackedLUQ", "active_backend", "luq_fused", "luq_levels", "luq_pack"]

Backend = Literal["auto", "eager", "compiled", "triton"]

# The compiled loop runs over rows of this many entries: the places in a row are then a small table in the cache,
# where counting them would cost more than the hash.
_ROW = 4096
# What the eager way takes at a time on the processor.
_PART = 1 << 16


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def active_backend(device: torch.device | str, requested: str = "auto") -> str:
    """The way that a request comes to on a device.

    Parameters
    ----------
    device
        Where the tensors are.
    requested
        `"eager"`; `"compiled"`, on the processor; `"triton"`, on a GPU (on the processor only in Triton's
        interpreter); or `"auto"`: triton on a GPU where it is installed, otherwise eager.

    Raises
    ------
    ValueError
        If what is requested cannot run there.

    Examples
    --------
    >>> active_backend("cpu"), active_backend("cpu", "compiled")
    ('eager', 'compiled')
    """
    kind = torch.device(device).type
    if requested not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}; it is {requested!r}")
    if requested == "auto":
        return "triton" if kind == "cuda" and _has_triton() else "eager"
    if requested == "compiled" and kind != "cpu":
        raise ValueError(f"backend 'compiled' is for the processor, not for {kind}: there, use 'triton' or 'auto'")
    if requested == "triton":
        if not _has_triton():
            raise ValueError(
                "backend 'triton' needs triton, which the extra gpu installs: pip install 'paperplay[gpu]'"
            )
        if kind != "cuda" and not (kind == "cpu" and _kernels().INTERPRETED):
            raise ValueError(
                f"backend 'triton' needs a GPU, and the tensor is on {kind}; to try the kernels on the processor, "
                "set TRITON_INTERPRET=1 in the environment before triton is first imported"
            )
    return requested


def _kernels() -> Any:
    """The module of the kernels; nothing else imports triton."""
    from lib.four_bit import triton_kernels

    return triton_kernels


@dataclass(frozen=True, eq=False, repr=False)
class PackedLUQ:
    """A tensor in 4 bits an entry.

    Attributes
    ----------
    packed
        uint8 of ceil(n / 2), the first entry in the low half of a byte.
    alpha
        The smallest level, 0-d float32.
    shape
        Of the tensor.
    fmt
        Its format.
    backend
        The way it was made: `"eager"`, `"compiled"` or `"triton"`.
    """

    packed: Tensor
    alpha: Tensor
    shape: tuple[int, ...]
    fmt: str | int
    backend: str

    def decode(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values."""
        return luq_decode(unpack_nibbles(self.packed, self.shape), self.alpha, fmt=self.fmt).to(dtype)

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.packed.nbytes + self.alpha.nbytes

    def __repr__(self) -> str:
        return f"PackedLUQ(shape={self.shape}, fmt={self.fmt!r}, nbytes={self.nbytes}, backend={self.backend!r})"


class _Task(NamedTuple):
    """One call, its arguments checked."""

    flat: Tensor
    seed: int | None
    rand: Tensor | None
    largest: Tensor
    fmt: str | int
    rounding: Rounding
    underflow: Underflow
    pow2: bool
    backend: str

    @property
    def keys(self) -> tuple[int, int]:
        return (0, 0) if self.seed is None else counter_keys(self.seed)

    @property
    def kernel_options(self) -> dict[str, Any]:
        modes = {"rounding": self.rounding, "underflow": self.underflow, "pow2": self.pow2}
        return {"levels": log_levels(self.fmt), **modes}

    def encoded(self, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Codes and alpha by the definition, from a place on: on the processor in parts that stay in its cache."""
        size = _PART if self.flat.device.type == "cpu" else max(self.flat.numel(), 1)
        for first in range(start, max(self.flat.numel(), start + 1), size):
            part = self.flat[first : first + size]
            rand = None if self.rand is None else self.rand[first : first + size]
            if self.seed is not None:
                rand = counter_mantissas(part.shape, self.seed, start=first, device=part.device)
            yield luq_encode(
                part,
                fmt=self.fmt,
                max_abs=self.largest,
                rounding=self.rounding,
                underflow=self.underflow,
                rand=rand,
                pow2_alpha=self.pow2,
                check=False,
            )

    def packed(self, start: int = 0) -> tuple[Tensor, Tensor]:
        """Bytes and alpha by the definition."""
        codes, alphas = zip(*self.encoded(start), strict=True)
        return pack_nibbles(torch.cat(codes), check=False), alphas[0]

    def value(self, dtype: torch.dtype, *, units: bool, start: int = 0) -> Tensor:
        """Quantised and decoded again by the definition; in units of alpha, or times it."""
        parts = self.encoded(start)
        return torch.cat([luq_decode(codes, 1.0 if units else alpha, fmt=self.fmt).to(dtype) for codes, alpha in parts])

    def alpha(self) -> Tensor:
        """The smallest level."""
        alpha, lift = scale_of(self.largest, log_levels(self.fmt), pow2=self.pow2)
        return alpha / lift


def _current(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Kernels start on the current GPU: make it the tensor's."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def _largest(flat: Tensor, way: str) -> Tensor:
    if way != "triton":
        return largest_magnitude(flat).float()
    with _current(flat):
        found: Tensor = _kernels().largest_magnitude(flat)
    return found


def _task(
    x: Tensor,
    *,
    seed: int | None,
    rand: Tensor | None,
    fmt: str | int,
    max_abs: Tensor | float | None,
    rounding: Rounding,
    underflow: Underflow,
    pow2_alpha: bool,
    backend: Backend,
    check: bool,
) -> _Task:
    log_levels(fmt)
    check_modes(rounding, underflow)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor; it is {x.dtype if isinstance(x, Tensor) else type(x)}")
    way = active_backend(x.device, backend)
    if seed is not None and rand is not None:
        raise ValueError("give a seed or rand, not both")
    if "stochastic" not in (rounding, underflow):
        seed = None
    elif seed is None and rand is None:
        raise ValueError("stochastic rounding needs a seed, another one for every call, or rand")
    if rand is not None:
        rand = checked_mantissas(rand, x, None).contiguous().view(-1)
    values = x.detach()
    if values.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        values = values.to(torch.float32)
    flat = values.contiguous().view(-1)
    largest = _largest(flat, way) if max_abs is None or check else None
    if check and largest is not None and not bool(torch.isfinite(largest)):
        raise ValueError("x must be finite in float32; it holds NaN or infinities")
    given = checked_max_abs(flat, largest if max_abs is None else max_abs, check=check and max_abs is not None)
    if given.ndim:
        raise ValueError(f"max_abs must be one number; its shape is {tuple(given.shape)}, which luq_encode takes")
    return _Task(flat, seed, rand, given, fmt, rounding, underflow, pow2_alpha, way)


@functools.cache
def _compiled(packs: bool, rounding: str, underflow: str, given: bool) -> Callable[..., Tensor]:
    """The loop over rows, compiled: `numbers` are random numbers where `given`, otherwise the two keys."""

    def rows(x: Tensor, numbers: Tensor, lanes: Tensor, scales: tuple[Tensor, ...]) -> Tensor:
        alpha, lift, unit, levels = scales
        # the shape of a row is made in here, so that the compiler knows it
        x = x.view(-1, _ROW)
        starts = torch.arange(len(x), dtype=torch.int32)[:, None] * _ROW

        def part(first: int, step: int) -> tuple[Tensor, Tensor]:
            values = x[:, first::step].to(torch.float32)
            if given:
                drawn = numbers.view(-1, _ROW)[:, first::step]
            else:
                drawn = mantissas_at(starts + first + lanes, numbers[0], numbers[1])
            return values, level_numbers(in_units(values, alpha, lift), drawn, levels, rounding, underflow)

        if packs:
            return (signed_codes(*part(0, 2), 3) | (signed_codes(*part(1, 2), 3) << 4)).to(torch.uint8)
        values, k = part(0, 1)
        magnitude = (torch.ones_like(k) << k) >> 1
        return (torch.where(values < 0, -magnitude, magnitude).to(torch.float32) * unit).to(x.dtype)

    # torch.compile keeps what it compiled, and counts it, by code object: each mode gets one of its own
    name = f"luq_{'pack' if packs else 'value'}_{rounding}_{underflow}_{'given' if given else 'counter'}"
    code = rows.__code__.replace(co_name=name)
    mode = types.FunctionType(code, rows.__globals__, name, None, rows.__closure__)
    return torch.compile(mode, dynamic=True, fullgraph=True)


@functools.cache
def _lanes(step: int) -> Tensor:
    return torch.arange(0, _ROW, step, dtype=torch.int32)


def _run_compiled(task: _Task, packs: bool, *, units: bool = False) -> tuple[Tensor, Tensor, int]:
    """Whole rows through the compiled loop: their bytes or values, alpha, and how many entries they held."""
    levels = log_levels(task.fmt)
    alpha, lift = scale_of(task.largest, levels, pow2=task.pow2)
    unit = alpha / lift
    # a single row would be compiled once more, for it alone
    count = task.flat.numel() // _ROW * _ROW if task.flat.numel() >= 2 * _ROW else 0
    if not count:
        return torch.empty(0, dtype=torch.uint8 if packs else task.flat.dtype), unit, 0
    loop = _compiled(packs, task.rounding, task.underflow, task.rand is not None)
    keys = torch.tensor(task.keys, dtype=torch.int32)
    # .data, since the compiler also looks at what a tensor is a view of, and another shape of that is compiled again
    numbers = keys if task.rand is None else task.rand[:count].data
    scales = (alpha, lift, torch.ones(()) if units else unit, torch.tensor(levels, dtype=torch.int32))
    with torch.no_grad():
        return loop(task.flat[:count].data, numbers, _lanes(2 if packs else 1), scales).view(-1), unit, count


def _joined(head: Tensor, tail: Tensor) -> Tensor:
    """Two parts as one, without a copy where there is only one."""
    return torch.cat([head, tail]) if head.numel() and tail.numel() else head if head.numel() else tail


def luq_pack(
    x: Tensor,
    *,
    seed: int | None = None,
    rand: Tensor | None = None,
    fmt: str | int = "fp4",
    max_abs: Tensor | float | None = None,
    rounding: Rounding = "stochastic",
    underflow: Underflow = "stochastic",
    pow2_alpha: bool = False,
    backend: Backend = "auto",
    check: bool = True,
) -> PackedLUQ:
    """Quantise to signed powers of two and pack two codes in a byte, in one pass where compiled or on a GPU.

    Parameters
    ----------
    x
        Floating-point tensor of any shape.
    seed
        Of the random numbers: another one for every call, or the rounding is no longer right on average. Needed
        where something is stochastic, unless `rand` is given.
    rand
        As for `luq_encode`.
    fmt
        A name in `LOG_FORMATS`, or a number of magnitudes, that fits in 4 bits.
    max_abs, rounding, underflow, pow2_alpha
        As for `luq_encode`; `max_abs` is one number.
    backend
        As for `active_backend`.
    check
        Refuse NaN, infinities and a bad `max_abs`. Off, nothing waits for a GPU, if `max_abs` is None or on it.

    Returns
    -------
    PackedLUQ

    Raises
    ------
    TypeError
        If `x` is no floating-point tensor.
    ValueError
        If something else is not as above, or the backend cannot run here.

    Examples
    --------
    >>> packed = luq_pack(torch.tensor([64.0, -16.0, 1.0]), seed=0)
    >>> packed
    PackedLUQ(shape=(3,), fmt='fp4', nbytes=6, backend='eager')
    >>> packed.decode()
    tensor([ 64., -16.,   1.])
    """
    if log_levels(fmt) > 7:
        raise ValueError(f"fmt must fit in 4 bits; {fmt!r} has {2 * log_levels(fmt) + 1} values")
    task = _task(
        x,
        seed=seed,
        rand=rand,
        fmt=fmt,
        max_abs=max_abs,
        rounding=rounding,
        underflow=underflow,
        pow2_alpha=pow2_alpha,
        backend=backend,
        check=check,
    )
    if task.backend == "triton":
        with _current(task.flat):
            packed, alpha = _kernels().encode_packed(
                task.flat, task.largest, task.keys, task.rand, **task.kernel_options
            )
    elif task.backend == "compiled":
        head, alpha, done = _run_compiled(task, packs=True)
        packed = _joined(head, task.packed(done)[0])
    else:
        packed, alpha = task.packed()
    return PackedLUQ(packed, alpha, tuple(x.shape), fmt, task.backend)


def luq_fused(
    x: Tensor,
    *,
    seed: int | None = None,
    rand: Tensor | None = None,
    fmt: str | int = "fp4",
    max_abs: Tensor | float | None = None,
    rounding: Rounding = "stochastic",
    underflow: Underflow = "stochastic",
    pow2_alpha: bool = False,
    backend: Backend = "auto",
    check: bool = True,
) -> Tensor:
    """Quantise and decode again, in one pass where compiled or on a GPU: the values of `luq_pack`, bit for bit.

    Parameters
    ----------
    x
        Floating-point tensor of any shape.
    seed, rand, max_abs, rounding, underflow, pow2_alpha, backend, check
        As for `luq_pack`.
    fmt
        As for `luq_encode`: also the format of 17 values.

    Returns
    -------
    Tensor of the dtype and shape of `x`, without a gradient: `luq` has one

    Raises
    ------
    TypeError, ValueError
        As for `luq_pack`.

    Examples
    --------
    >>> x = torch.tensor([64.0, -3.0, 0.25])
    >>> torch.equal(luq_fused(x, seed=5), luq_pack(x, seed=5).decode())
    True
    """
    task = _task(
        x,
        seed=seed,
        rand=rand,
        fmt=fmt,
        max_abs=max_abs,
        rounding=rounding,
        underflow=underflow,
        pow2_alpha=pow2_alpha,
        backend=backend,
        check=check,
    )
    return _values(task, task.flat.dtype, units=False).view(x.shape).to(x.dtype)


def luq_levels(
    x: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int | None = None,
    rand: Tensor | None = None,
    fmt: str | int = "fp4",
    max_abs: Tensor | float | None = None,
    rounding: Rounding = "stochastic",
    underflow: Underflow = "stochastic",
    pow2_alpha: bool = False,
    backend: Backend = "auto",
    check: bool = True,
) -> tuple[Tensor, Tensor]:
    """Quantise to signed powers of two and zero in units of alpha: exact numbers in float32 and in bfloat16.

    What a product of matrices takes: alpha is multiplied in afterwards.

    Parameters
    ----------
    x
        Floating-point tensor of any shape.
    dtype
        Of the levels.
    seed, rand, fmt, max_abs, rounding, underflow, pow2_alpha, backend, check
        As for `luq_fused`.

    Returns
    -------
    levels
        0 and +-2^(k-1), of the shape of `x`.
    alpha
        Their unit, 0-d float32.

    Examples
    --------
    >>> luq_levels(torch.tensor([6.4, -1.6, 0.0]), seed=0)
    (tensor([ 64., -16.,   0.]), tensor(0.1000))
    """
    task = _task(
        x,
        seed=seed,
        rand=rand,
        fmt=fmt,
        max_abs=max_abs,
        rounding=rounding,
        underflow=underflow,
        pow2_alpha=pow2_alpha,
        backend=backend,
        check=check,
    )
    return _values(task, dtype, units=True).view(x.shape), task.alpha()


def _values(task: _Task, dtype: torch.dtype, *, units: bool) -> Tensor:
    """Quantised and decoded again, flat."""
    if task.backend == "triton":
        with _current(task.flat):
            found: Tensor = _kernels().quantised(
                task.flat, task.largest, task.keys, task.rand, dtype=dtype, units=units, **task.kernel_options
            )
        return found
    if task.backend == "compiled":
        head, _, done = _run_compiled(task, packs=False, units=units)
        return _joined(head.to(dtype), task.value(dtype, units=units, start=done))
    return task.value(dtype, units=units)
