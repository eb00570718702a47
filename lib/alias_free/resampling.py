r"""Translation and resampling of periodic, band-limited pictures: exact, for any real shift and any size.

A row of `N` samples stands for the trigonometric polynomial through them with the frequencies `|k| <= K = (N - 1) // 2`
(and, for even `N`, the cosine of frequency `N / 2`). It is that function that is shifted or sampled anew (Michaeli et
al., CVPR 2023, arXiv 2303.08085, speak of equivariance in the continuous domain). Rows and columns are treated one
after the other.

Small pictures are resampled by two products with real matrices, derived here, which is faster than FFTs of pictures
that are mostly zeros, and works in every precision; large ones by real FFTs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from lib.validation import positive_integer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Nyquist", "fourier_shift", "ideal_lowpass", "ideal_resample", "resample_matrix"]

Nyquist = Literal["real", "zero"]

Picture = TypeVar("Picture", Tensor, "NDArray[np.floating]")

#: Sides up to which matrix products are faster than FFTs.
_MATRIX_SIDE = 128


def fourier_shift(x: Picture, shift: tuple[float, float], *, nyquist: Nyquist = "real") -> Picture:
    """Translate pictures on the torus by any real number of pixels.

    Parameters
    ----------
    x
        Pictures (..., H, W), floating point, a tensor or an array.
    shift
        Rows and columns by which the content moves, positive towards larger indices as in `torch.roll`.
    nyquist
        What becomes of the frequency `N / 2` of an even side. `"real"`: it is multiplied by `cos(pi s)`, which is what
        sampling the shifted function gives. `"zero"`: it is removed.

    Returns
    -------
    tensor or array
        Of the shape, dtype and device of `x`. Whole shifts are rolls, to rounding. Shifts add up, and energy is kept,
        for odd sides and for pictures without the frequency `N / 2`.

    Raises
    ------
    TypeError
        If `x` is not floating point.
    ValueError
        If `x` has fewer than two axes, the shift is not a pair of finite numbers, or `nyquist` is unknown.

    Examples
    --------
    >>> x = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    >>> bool(torch.allclose(fourier_shift(x, (0, 2)), x.roll(2, -1)))
    True
    >>> half = fourier_shift(fourier_shift(x, (0, 0.5)), (0, 1.5))
    >>> bool(torch.allclose(half, x.roll(2, -1)))
    True
    """
    if len(shift) != 2 or not all(math.isfinite(part) for part in shift):
        raise ValueError(f"shift must be two finite numbers; it is {shift}")
    if nyquist not in get_args(Nyquist):
        raise ValueError(f"nyquist must be 'real' or 'zero'; it is {nyquist!r}")
    down, right = (float(part) for part in shift)

    def moved(pictures: Tensor) -> Tensor:
        wide = _transformable(pictures)
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


def _transformable(x: Tensor) -> Tensor:
    """FFTs exist for float32 and float64 on every device."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _on_tensors(x: Picture, function: Callable[[Tensor], Tensor]) -> Picture:
    """Apply a function of tensors to tensors or arrays."""
    pictures = torch.from_numpy(x) if isinstance(x, np.ndarray) else x
    if not isinstance(pictures, Tensor) or not pictures.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor or array; it is {getattr(x, 'dtype', type(x).__name__)}")
    if pictures.ndim < 2 or not pictures.shape[-1] or not pictures.shape[-2]:
        raise ValueError(f"x must have the shape (..., H, W) and hold pixels; its shape is {tuple(pictures.shape)}")
    result = function(pictures)
    return result.numpy() if isinstance(x, np.ndarray) else result


@lru_cache(maxsize=256)
def resample_matrix(
    n_in: int, n_out: int, *, dtype: torch.dtype = torch.float64, device: str | torch.device | None = None
) -> Tensor:
    """The matrix that samples the function through `n_in` values at `n_out` evenly spaced places.

    Parameters
    ----------
    n_in, n_out
        Numbers of samples, at least 1. Where there are fewer afterwards, frequencies above `(n_out - 1) // 2` are
        removed first; where there are at least as many, the frequency `n_in / 2` of an even side is a cosine.
    dtype, device
        Of the result.

    Returns
    -------
    Tensor
        (n_out, n_in); shared between calls, not to be changed.

    Raises
    ------
    ValueError
        If a number is below 1.

    Examples
    --------
    >>> x = torch.cos(2 * torch.pi * torch.arange(6, dtype=torch.float64) / 6)
    >>> wanted = torch.cos(2 * torch.pi * torch.arange(9, dtype=torch.float64) / 9)
    >>> bool(torch.allclose(resample_matrix(6, 9) @ x, wanted))
    True
    """
    positive_integer("n_in", n_in)
    positive_integer("n_out", n_out)
    places, samples = np.arange(n_out)[:, None], np.arange(n_in)[None]
    # the distance n / n_in - m / n_out in whole parts of 1 / (n_in n_out): cosines of large arguments stay exact
    parts = n_in * n_out
    distance = (places * n_in - samples * n_out) % parts
    matrix = np.ones((n_out, n_in))
    for k in range(1, (min(n_in, n_out) - 1) // 2 + 1):
        matrix += 2 * np.cos(2 * np.pi * ((k * distance) % parts) / parts)
    if n_in % 2 == 0 and n_out >= n_in:
        matrix += np.cos(np.pi * n_in * places / n_out) * np.cos(np.pi * samples)
    return torch.from_numpy(matrix / n_in).to(dtype=dtype, device=device)


def ideal_resample(x: Picture, size: tuple[int, int], *, channels_last: bool = False) -> Picture:
    """Sample the function through a picture on a finer or coarser grid; what the new grid cannot hold is removed.

    Parameters
    ----------
    x
        Pictures (..., H, W), or (..., H, W, C) with `channels_last`; floating point, a tensor or an array.
    size
        The new height and width, at least 1.
    channels_last
        Where the channels are.

    Returns
    -------
    tensor or array
        (..., size) or (..., size, C), of the dtype and on the device of `x`. Pixel 0 stays where it is.

    Raises
    ------
    TypeError
        If `x` is not floating point, or a size no integer.
    ValueError
        If `x` has too few axes or a size is below 1.

    Examples
    --------
    On a finer grid and back, all is as before but for the frequency `N / 2` of even sides:

    >>> x = torch.rand(2, 3, 7, 10, dtype=torch.float64)
    >>> back = ideal_resample(ideal_resample(x, (11, 15)), (7, 10))
    >>> bool(torch.allclose(back, fourier_shift(x, (0, 0), nyquist="zero")))
    True
    """
    height, width = (positive_integer("size", side) for side in size)
    if channels_last and getattr(x, "ndim", 3) < 3:
        raise ValueError(f"x must have the shape (..., H, W, C); its shape is {tuple(x.shape)}")

    def resampled(pictures: Tensor) -> Tensor:
        rows, columns = (-3, -2) if channels_last else (-2, -1)
        return _along(_along(pictures, height, rows), width, columns)

    return _on_tensors(x, resampled)


def _along(x: Tensor, size: int, dim: int) -> Tensor:
    """Resample along one axis."""
    before = x.shape[dim]
    if before == size:
        return x
    if max(before, size) > _MATRIX_SIDE:
        return _by_fft(x, size, dim)
    matrix = resample_matrix(before, size, dtype=x.dtype, device=x.device)
    if dim == -1:
        return x @ matrix.T
    if dim == -2:
        return matrix @ x
    # the axes behind the resampled one are columns of one product
    flat = matrix @ x.flatten(dim + 1)
    return flat.reshape(*x.shape[:dim], size, *x.shape[dim + 1 :])


def _by_fft(x: Tensor, size: int, dim: int) -> Tensor:
    before = x.shape[dim]
    spectrum = torch.fft.rfft(_transformable(x), dim=dim)
    kept = min((min(before, size) - 1) // 2 + 1, spectrum.shape[dim])
    low = spectrum.narrow(dim, 0, kept)
    if before % 2 == 0 and size > before:
        # the frequency of an even side's half is a cosine: half of it to either sign, of which rfft stores one
        low = torch.cat([low, spectrum.narrow(dim, before // 2, 1) / 2], dim)
    result: Tensor = torch.fft.irfft(low, n=size, dim=dim) * (size / before)
    return result.to(x.dtype)


def ideal_lowpass(x: Picture, size: tuple[int, int]) -> Picture:
    """Remove from pictures all that a grid of another size could not hold, and stay on the grid.

    Parameters
    ----------
    x
        Pictures (..., H, W), floating point, a tensor or an array.
    size
        The sides of the other grid: frequencies up to `(size - 1) // 2` are kept.

    Raises
    ------
    TypeError
        If `x` is not floating point, or a size no integer.
    ValueError
        If `x` has fewer than two axes or a size is below 1.

    Examples
    --------
    >>> checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)
    >>> bool(ideal_lowpass(checks, (4, 4)).abs().max() < 1e-6)
    True
    """
    height, width = (positive_integer("size", side) for side in size)

    def filtered(pictures: Tensor) -> Tensor:
        for dim, side in ((-2, height), (-1, width)):
            here = pictures.shape[dim]
            keeps = (side - 1) // 2
            if keeps >= here // 2:
                continue
            if here > _MATRIX_SIDE:
                spectrum = torch.fft.rfft(_transformable(pictures), dim=dim)
                low = spectrum.narrow(dim, 0, keeps + 1)
                pictures = torch.fft.irfft(low, n=here, dim=dim).to(pictures.dtype)
                continue
            matrix = _lowpass_matrix(here, keeps, dtype=pictures.dtype, device=pictures.device)
            pictures = pictures @ matrix if dim == -1 else matrix @ pictures
        return pictures

    return _on_tensors(x, filtered)


@lru_cache(maxsize=256)
def _lowpass_matrix(count: int, keeps: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The symmetric, circulant matrix that keeps frequencies up to `keeps`."""
    distance = (np.arange(count)[:, None] - np.arange(count)[None]) % count
    matrix = np.ones((count, count))
    for k in range(1, keeps + 1):
        matrix += 2 * np.cos(2 * np.pi * ((k * distance) % count) / count)
    return torch.from_numpy(matrix / count).to(dtype=dtype, device=device)
