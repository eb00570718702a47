r"""Translation and resampling of periodic, band-limited pictures: exact, for any real shift and any size.

A row of `N` samples stands for the trigonometric polynomial through them with the frequencies `|k| <= K = (N - 1) // 2`
(and, for even `N`, the cosine of frequency `N / 2`). It is that function that is shifted or sampled anew.

Small pictures are resampled by products with real matrices, derived here, large ones by real FFTs. All is computed in
the precision of the input, also under autocast: a matrix rounded to bfloat16 would leak aliases into float32 pictures.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from lib.validation import finite_number, finite_tensor, known_device, one_of, pair, positive_integer, true_or_false

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Nyquist", "fourier_shift", "ideal_lowpass", "ideal_resample", "resample_matrix"]

Nyquist = Literal["real", "zero"]

Picture = TypeVar("Picture", Tensor, "NDArray[np.floating]")

#: Sides, the larger of before and after, up to which matrix products are faster than FFTs on a CPU.
_MATRIX_SIDE = 256


def fourier_shift(x: Picture, shift: tuple[float, float], *, nyquist: Nyquist = "real") -> Picture:
    """Translate pictures on the torus by any real number of pixels.

    Args:
        x: Pictures (..., H, W), floating point, a tensor or an array; so is the result.
        shift: Rows and columns [pixels] by which the content moves, positive towards larger indices as in `torch.roll`.
            Shifts add up, and energy is kept, for odd sides and for pictures without the frequency `N / 2`.
        nyquist: What becomes of the frequency `N / 2` of an even side. `"real"`: it is multiplied by `cos(pi s)`, which
            is what sampling the shifted function gives. `"zero"`: it is removed.

    Examples:
        >>> x = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
        >>> half = fourier_shift(fourier_shift(x, (0, 0.5)), (0, 1.5))
        >>> bool(torch.allclose(half, x.roll(2, -1)))
        True
    """
    one_of("nyquist", nyquist, get_args(Nyquist))
    return shifted(finite_pictures("x", x), checked_shift(shift), nyquist=nyquist)


def shifted(x: Picture, shift: tuple[float, float], *, nyquist: Nyquist = "real") -> Picture:
    """`fourier_shift` without the look at each entry: for what a layer or a network gave."""
    down, right = shift

    def moved(pictures: Tensor) -> Tensor:
        if not pictures.numel():  # an empty batch has no FFT
            return pictures
        wide = full_precision(pictures)
        rows = _phases(wide.shape[-2], down, nyquist, wide)
        columns = _phases(wide.shape[-1], right, nyquist, wide)[: wide.shape[-1] // 2 + 1]
        spectrum = torch.fft.rfft2(wide) * rows[:, None] * columns
        result: Tensor = torch.fft.irfft2(spectrum, s=wide.shape[-2:]).to(pictures.dtype)
        return result

    return _on_tensors(x, moved)


def _phases(count: int, shift: float, nyquist: Nyquist, like: Tensor) -> Tensor:
    """What a shift multiplies each bin of a side by."""
    k = torch.fft.fftfreq(count, 1 / count, dtype=torch.float64)
    # whole turns are taken out while the precision is double
    turns = torch.remainder(k * shift / count, 1.0)
    phases = torch.polar(torch.ones_like(turns), -2 * math.pi * turns)
    if count % 2 == 0:
        phases[count // 2] = math.cos(math.pi * shift) if nyquist == "real" else 0.0
    return phases.to(device=like.device, dtype=torch.complex128 if like.dtype == torch.float64 else torch.complex64)


def full_precision(x: Tensor) -> Tensor:
    """Half precision as float32: FFTs exist for float32 and float64 on every device."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Products in the precision that tensors have; a device that knows no autocast, such as `meta`, needs nothing."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _on_tensors(x: Picture, function: Callable[[Tensor], Tensor], *, channels_last: bool = False) -> Picture:
    """Apply a function of tensors to tensors or arrays, in their own precision."""
    pictures = _as_tensor(x)
    rows, columns, axes = (-3, -2, "(..., H, W, C)") if channels_last else (-2, -1, "(..., H, W)")
    if pictures.ndim < -rows or not pictures.shape[rows] or not pictures.shape[columns]:
        raise ValueError(f"x must have the shape {axes} and hold pixels; its shape is {tuple(pictures.shape)}")
    with _without_autocast(pictures):
        result = function(pictures)
    return result.numpy() if isinstance(x, np.ndarray) else result


def _as_tensor(x: Picture) -> Tensor:
    """A tensor itself, or a copy of an array: torch shares no read-only, reversed or byte-swapped memory."""
    if isinstance(x, Tensor) and x.is_floating_point():
        return x
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.dtype.itemsize <= 8:
        return torch.from_numpy(x.astype(x.dtype.newbyteorder("="), order="C"))
    kind = getattr(x, "dtype", type(x).__name__)
    raise TypeError(f"x must be a floating-point tensor or array, of 64 bits at most; it is {kind}")


def finite_pictures(name: str, x: Picture) -> Picture:
    """Refuse NaN and infinity, at public doors; layers do without, since a look at each entry waits for the GPU."""
    if not torch.compiler.is_compiling():
        # under vmap and on the meta device there are no values to look at
        with suppress(RuntimeError):
            finite_tensor(name, _as_tensor(x))
    return x


def _new(result: Picture, x: Picture) -> Picture:
    """A copy where there was nothing to do: whoever writes into a result does not write into what was given."""
    return result.clone() if isinstance(result, Tensor) and result is x else result


def checked_shift(shift: tuple[float, float]) -> tuple[float, float]:
    """Two finite numbers, as floats."""
    down, right = (finite_number("shift", part) for part in pair("shift", shift))
    return down, right


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    height, width = (positive_integer("size", part) for part in pair("size", size))
    return height, width


def resample_matrix(
    n_in: int, n_out: int, *, dtype: torch.dtype = torch.float64, device: str | torch.device | None = None
) -> Tensor:
    """The matrix that samples the function through `n_in` values at `n_out` evenly spaced places.

    Args:
        n_in, n_out: Numbers of samples; the matrix is (n_out, n_in). Where there are fewer afterwards, frequencies
            above `(n_out - 1) // 2` are removed first; where there are at least as many, the frequency `n_in / 2` of an
            even side is a cosine.

    Examples:
        >>> x = torch.cos(2 * torch.pi * torch.arange(6, dtype=torch.float64) / 6)
        >>> wanted = torch.cos(2 * torch.pi * torch.arange(9, dtype=torch.float64) / 9)
        >>> bool(torch.allclose(resample_matrix(6, 9) @ x, wanted))
        True
    """
    n_in, n_out = positive_integer("n_in", n_in), positive_integer("n_out", n_out)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point dtype of torch; it is {dtype!r}")
    place = torch.device("cpu" if device is None else known_device(device))
    # the cached one is shared by all pictures of this size
    return _resample_matrix(n_in, n_out, dtype, place).clone()


@lru_cache(maxsize=256)
def _resample_matrix(
    n_in: int, n_out: int, dtype: torch.dtype, device: torch.device, keeps: int | None = None
) -> Tensor:
    """Of what both grids can hold, or of frequencies up to `keeps` alone."""
    places, samples = np.arange(n_out)[:, None], np.arange(n_in)[None]
    # places and samples both lie on a grid of this many points
    points = math.lcm(n_in, n_out)
    distances = (places * (points // n_out) - samples * (points // n_in)) % points
    # one period of `1 + 2 cos(t) + ... + 2 cos(highest t)`
    highest = (min(n_in, n_out) - 1) // 2 if keeps is None else keeps
    matrix = (np.fft.irfft(np.ones(highest + 1), points) * points)[distances]
    if n_in % 2 == 0 and n_out >= n_in and keeps is None:
        matrix += np.cos(np.pi * n_in * places / n_out) * np.cos(np.pi * samples)
    # made in inference mode, it could not be used in training afterwards
    with torch.inference_mode(False):
        return torch.from_numpy(matrix / n_in).to(dtype=dtype, device=device)


# `torch.compile` would trace how a matrix is made, anew in every call; as an operation of its own it stays a lookup.
@torch.library.custom_op("paperplay::resample_matrix", mutates_args=())
def _resample_operation(
    n_in: int, n_out: int, dtype: torch.dtype, device: torch.device, keeps: int | None = None
) -> Tensor:
    return _resample_matrix(n_in, n_out, dtype, device, keeps).clone()


@_resample_operation.register_fake
def _(n_in: int, n_out: int, dtype: torch.dtype, device: torch.device, keeps: int | None = None) -> Tensor:  # noqa: ARG001
    return torch.empty(n_out, n_in, dtype=dtype, device=device)


def ideal_resample(x: Picture, size: tuple[int, int], *, channels_last: bool = False) -> Picture:
    """Sample the function through a picture on a finer or coarser grid; what the new grid cannot hold is removed.

    Args:
        x: Pictures (..., H, W), or (..., H, W, C) with `channels_last`; floating point, a tensor or an array.
        size: The new height and width. Pixel 0 stays where it is.

    Examples:
        On a finer grid and back, all is as before but for the frequency `N / 2` of even sides:

        >>> x = torch.rand(2, 3, 7, 10, dtype=torch.float64)
        >>> back = ideal_resample(ideal_resample(x, (11, 15)), (7, 10))
        >>> bool(torch.allclose(back, fourier_shift(x, (0, 0), nyquist="zero")))
        True
    """
    true_or_false("channels_last", channels_last)
    return _new(resample(finite_pictures("x", x), checked_size(size), channels_last=channels_last), x)


def resample(x: Picture, size: tuple[int, int], *, channels_last: bool = False) -> Picture:
    """`ideal_resample` for layers: without the look at each entry; a tensor that has the size is returned itself."""
    height, width = size

    def resampled(pictures: Tensor) -> Tensor:
        rows, columns = (-3, -2) if channels_last else (-2, -1)
        return _along(_along(pictures, height, rows), width, columns)

    return _on_tensors(x, resampled, channels_last=channels_last)


def _along(x: Tensor, size: int, dim: int, keeps: int | None = None) -> Tensor:
    """Resample along one axis; on its own grid only to keep frequencies up to `keeps`."""
    before = x.shape[dim]
    if before == size and keeps is None:
        return x
    # an empty batch has no FFT
    if max(before, size) > _MATRIX_SIDE and x.numel():
        return _by_fft(x, size, dim, keeps)
    make = _resample_operation if torch.compiler.is_compiling() else _resample_matrix
    matrix = make(before, size, x.dtype, x.device, keeps)
    if dim == -1:
        return x @ matrix.T
    if dim == -2:
        return matrix @ x
    # the axes behind the resampled one are columns of one product
    return (matrix @ x.flatten(dim + 1)).reshape(*x.shape[:dim], size, *x.shape[dim + 1 :])


def _by_fft(x: Tensor, size: int, dim: int, keeps: int | None) -> Tensor:
    before = x.shape[dim]
    spectrum = torch.fft.rfft(full_precision(x), dim=dim)
    highest = (min(before, size) - 1) // 2 if keeps is None else keeps
    low = spectrum.narrow(dim, 0, highest + 1)
    if before % 2 == 0 and size > before:
        # the frequency of an even side's half is a cosine: half of it to either sign, of which rfft stores one
        low = torch.cat([low, spectrum.narrow(dim, before // 2, 1) / 2], dim)
    result: Tensor = torch.fft.irfft(low, n=size, dim=dim) * (size / before)
    return result.to(x.dtype)


def ideal_lowpass(x: Picture, size: tuple[int, int]) -> Picture:
    """Remove from pictures all that a grid of another size could not hold, and stay on the grid.

    Args:
        x: Pictures (..., H, W), floating point, a tensor or an array.
        size: The sides of the other grid: frequencies up to `(size - 1) // 2` are kept. A side that is even loses its
            frequency `N / 2` at its own size, and nothing at a larger one.

    Examples:
        >>> checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)
        >>> bool(ideal_lowpass(checks, (4, 4)).abs().max() < 1e-6)
        True
    """
    return _new(lowpass(finite_pictures("x", x), checked_size(size)), x)


def lowpass(x: Picture, size: tuple[int, int]) -> Picture:
    """`ideal_lowpass` for layers: without the look at each entry; a tensor with nothing to lose is returned itself."""
    height, width = size

    def filtered(pictures: Tensor) -> Tensor:
        return _lowpass_along(_lowpass_along(pictures, (height - 1) // 2, -2), (width - 1) // 2, -1)

    return _on_tensors(x, filtered)


def _lowpass_along(x: Tensor, keeps: int, dim: int) -> Tensor:
    side = x.shape[dim]
    return x if keeps >= side // 2 else _along(x, side, dim, keeps)
