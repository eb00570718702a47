"""Layers that commute with every translation of the torus, by whole pixels or fractions, and those that do not.

The ideal ones follow Michaeli et al. (CVPR 2023, arXiv 2303.08085). They are compared with BlurPool (Zhang 2019, arXiv
1904.11486) and adaptive polyphase sampling (Chaman and Dokmanic 2021, arXiv 2011.14214).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.alias_free.polynomials import GELU_QUADRATIC, dealias_size, horner
from lib.alias_free.resampling import full_precision, lowpass, resample
from lib.validation import (
    finite_array,
    finite_number,
    integer_at_least,
    pair,
    positive_integer,
    positive_number,
    true_or_false,
)

__all__ = [
    "APSDownsample2d",
    "AliasFreeActivation",
    "AliasFreeLayerNorm",
    "AliasFreeMLP",
    "BlurPool2d",
    "CircularConv2d",
    "CircularConvTranspose2d",
    "DemodulatingStem",
    "IdealDownsample2d",
    "IdealPixelShuffle",
    "IdealResample2d",
    "PolyActivation",
]

T = TypeVar("T")


def check_pictures(x: Tensor, channels: int | None = None, *, channels_last: bool = False) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor; it is {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 4:
        shape = "(B, H, W, C)" if channels_last else "(B, C, H, W)"
        raise ValueError(f"x must have the shape {shape}; it has {tuple(x.shape)}")
    found = x.shape[-1 if channels_last else 1]
    if channels is not None and found != channels:
        raise ValueError(f"x must have {channels} channels; it has {found}, in the shape {tuple(x.shape)}")


def positive_integers(**values: int) -> dict[str, Any]:
    return {name: positive_integer(name, value) for name, value in values.items()}


def _coarse_size(x: Tensor, stride: int) -> tuple[int, int]:
    """The sides after a stride, which must divide them: other samples would not lie evenly on the circle."""
    height, width = x.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(f"H and W must be multiples of the stride {stride}; they are {height} and {width}")
    return height // stride, width // stride


def _resampled(x: Tensor, size: tuple[int, int], *, channels_last: bool = False) -> Tensor:
    """`resample` in float32 at least: rounded to bfloat16 its matrices leak aliases."""
    return resample(full_precision(x), size, channels_last=channels_last).to(x.dtype)


def _low(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`lowpass`, in float32 at least."""
    return lowpass(full_precision(x), size).to(x.dtype)


class CircularConv2d(nn.Conv2d):
    """A convolution on the torus; with a stride, behind an ideal low-pass if asked for.

    The low-pass commutes with the convolution, so it comes first: on the channels that come in, which are mostly
    fewer, and the convolution runs with its stride instead of at full resolution (derived here).

    An even kernel is padded by `(k - 1) // 2` before and `k // 2` behind.

    Examples:
        >>> from lib.alias_free import fourier_shift
        >>> x = torch.rand(1, 3, 12, 8, dtype=torch.float64)
        >>> layer = CircularConv2d(3, 5, 4, stride=2, lowpass=True).double()
        >>> moved = layer(fourier_shift(x, (0.3, 1.7)))
        >>> bool(torch.allclose(moved, fourier_shift(layer(x), (0.15, 0.85))))
        True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        lowpass: bool = False,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        sizes = positive_integers(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        options = positive_integers(stride=stride, dilation=dilation, groups=groups)
        super().__init__(**sizes, **options, bias=true_or_false("bias", bias))
        self.lowpass = true_or_false("lowpass", lowpass)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_channels, H / stride, W / stride)."""
        check_pictures(x, self.in_channels)
        stride, reach = self.stride[0], self.dilation[0] * (self.kernel_size[0] - 1)
        size = _coarse_size(x, stride)
        if self.lowpass and stride > 1:
            x = _low(x, size)
        return super().forward(_wrapped(x, reach // 2, reach - reach // 2))


def _wrapped(x: Tensor, before: int, behind: int) -> Tensor:
    """Pad on the torus, by more than a whole side where a kernel is larger than the picture."""
    height, width = x.shape[-2:]
    if max(before, behind) <= min(height, width):
        return functional.pad(x, (before, behind, before, behind), mode="circular")
    rows, columns = (torch.arange(-before, side + behind, device=x.device) % side for side in (height, width))
    return x[..., rows[:, None], columns]


class IdealDownsample2d(nn.Module):
    """Keep what a grid that is coarser by `stride` can hold, and sample it there.

    Examples:
        >>> IdealDownsample2d(3)(torch.ones(1, 2, 9, 6)).shape
        torch.Size([1, 2, 3, 2])
    """

    def __init__(self, stride: int = 2) -> None:
        super().__init__()
        self.stride = positive_integer("stride", stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / stride, W / stride)."""
        check_pictures(x)
        return _resampled(x, _coarse_size(x, self.stride))


class CircularConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution on the torus, behind it a low-pass: `stride` times as fine, without aliases.

    A transposed convolution puts zeros between the pixels, which repeats the spectrum of the picture over the finer
    grid, and convolves. The low-pass takes the repetitions away; it commutes with the convolution, which thus runs on
    the pixels alone (derived here).

    Args:
        padding: Pixels of the finer grid by which the result is moved to the upper left.

    Examples:
        >>> from lib.alias_free import fourier_shift
        >>> x = torch.rand(1, 3, 6, 4, dtype=torch.float64)
        >>> layer = CircularConvTranspose2d(3, 5, 4, stride=2, padding=1).double()
        >>> smooth = fourier_shift(x, (0, 0), nyquist="zero")
        >>> moved = layer(fourier_shift(smooth, (0.3, 1.7)))
        >>> bool(torch.allclose(moved, fourier_shift(layer(smooth), (0.6, 3.4))))
        True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        sizes = positive_integers(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        options = positive_integers(stride=stride, dilation=dilation, groups=groups)
        padding = integer_at_least("padding", padding, 0)
        super().__init__(**sizes, **options, padding=padding, bias=true_or_false("bias", bias))

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, H, W) to (B, out_channels, stride H, stride W); no other `output_size` can be asked for."""
        check_pictures(x, self.in_channels)
        stride, padding, dilation = self.stride[0], int(self.padding[0]), self.dilation[0]
        height, width = stride * x.shape[-2], stride * x.shape[-1]
        if output_size is not None and tuple(output_size)[-2:] != (height, width):
            raise ValueError(f"output_size must be {(height, width)}; it is {tuple(output_size)}")
        # pixels from beyond the sides that reach the first ones
        before = max(-(-(dilation * (self.kernel_size[0] - 1) - padding) // stride), 0)
        wide = functional.conv_transpose2d(
            _wrapped(x, before, -(-padding // stride) + 1),
            self.weight,
            self.bias,
            stride=self.stride,
            groups=self.groups,
            dilation=self.dilation,
        )
        first = before * stride + padding
        fine = wide[..., first : first + height, first : first + width]
        return fine if stride == 1 else _low(fine, (x.shape[-2], x.shape[-1]))


class IdealResample2d(nn.Module):
    """Sample the function through a picture on another grid, mostly a finer one: `torch.nn.Upsample` without aliases.

    Args:
        size, scale_factor: Sides of the result, or how many times as fine it is: one number, or one for rows and one
            for columns.

    Examples:
        >>> IdealResample2d((9, 5))(torch.ones(1, 2, 6, 6)).shape
        torch.Size([1, 2, 9, 5])
    """

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if (size is None) == (scale_factor is None):
            raise ValueError(f"one of size and scale_factor must be given; they are {size!r} and {scale_factor!r}")
        self.size = None if size is None else _pair("size", size, positive_integer)
        self.scale_factor = None if scale_factor is None else _pair("scale_factor", scale_factor, positive_number)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, size), or to the sides times the factor, rounded down."""
        check_pictures(x)
        if self.size is not None:
            return _resampled(x, self.size)
        rows, columns = self.scale_factor or (1.0, 1.0)
        return _resampled(x, (max(int(x.shape[-2] * rows), 1), max(int(x.shape[-1] * columns), 1)))

    def extra_repr(self) -> str:
        """The arguments it was made with."""
        return f"scale_factor={self.scale_factor}" if self.size is None else f"size={self.size}"


def _pair(name: str, value: T | Sequence[T], check: Callable[[str, T], T]) -> tuple[T, T]:
    """One number for rows and one for columns."""
    rows, columns = pair(name, value) if isinstance(value, (tuple, list)) else (cast(T, value), cast(T, value))
    return check(name, rows), check(name, columns)


class IdealPixelShuffle(nn.Module):
    """`torch.nn.PixelShuffle` with a low-pass behind: channels become pixels of a finer grid, without aliases.

    Examples:
        >>> IdealPixelShuffle(2)(torch.ones(1, 8, 6, 4)).shape
        torch.Size([1, 2, 12, 8])
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = positive_integer("upscale_factor", upscale_factor)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C r^2, H, W) to (B, C, r H, r W)."""
        check_pictures(x)
        if x.shape[1] % self.upscale_factor**2:
            raise ValueError(f"x must have a multiple of {self.upscale_factor**2} channels; it has {x.shape[1]}")
        return _low(functional.pixel_shuffle(x, self.upscale_factor), (x.shape[-2], x.shape[-1]))


class BlurPool2d(nn.Module):
    """Smooth by a binomial filter of 1 to 7 taps on the torus, then keep every `stride`-th pixel (Zhang 2019).

    Examples:
        >>> BlurPool2d(1)(torch.ones(1, 1, 4, 4)).flatten().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    taps: Tensor

    def __init__(self, channels: int, stride: int = 2, kernel_size: int = 3) -> None:
        super().__init__()
        self.channels, self.stride = positive_integer("channels", channels), positive_integer("stride", stride)
        if positive_integer("kernel_size", kernel_size) > 7:
            raise ValueError(f"kernel_size must be 1 to 7; it is {kernel_size}")
        row = torch.tensor([float(math.comb(kernel_size - 1, i)) for i in range(kernel_size)])
        self.register_buffer("taps", torch.outer(row, row) / row.sum() ** 2, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / stride, W / stride)."""
        check_pictures(x, self.channels)
        _coarse_size(x, self.stride)
        size = self.taps.shape[0]
        wide = _wrapped(x, (size - 1) // 2, size // 2)
        weight = self.taps.to(x.dtype).expand(self.channels, 1, size, size)
        return functional.conv2d(wide, weight, stride=self.stride, groups=self.channels)


class APSDownsample2d(nn.Module):
    """Of the grids of every `stride`-th pixel, keep the one of the largest `p`-norm (Chaman and Dokmanic 2021).

    A shift of the input by whole pixels permutes these grids and rolls them, so the result is rolled: exact unless two
    norms are equal. Shifts by fractions of a pixel have no such rule.

    Examples:
        >>> x = torch.tensor([[1.0, 0.0, 1.0, 0.0], [5.0, 0.0, 6.0, 0.0]]).reshape(1, 1, 2, 4)
        >>> APSDownsample2d()(x).flatten().tolist()
        [5.0, 6.0]
    """

    def __init__(self, stride: int = 2, p: float = 2) -> None:
        super().__init__()
        self.stride, self.p = positive_integer("stride", stride), positive_number("p", p)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / stride, W / stride)."""
        check_pictures(x)
        stride = self.stride
        height, width = _coarse_size(x, stride)
        # pixel (i, j) of every block; only the chosen ones are copied
        grids = x.view(*x.shape[:2], height, stride, width, stride)
        with torch.no_grad():
            norms = full_precision(grids).abs().pow(self.p).sum((1, 2, 4))
            best = norms.flatten(1).argmax(1)
        batch = torch.arange(len(x), device=x.device)
        chosen: Tensor = grids.permute(0, 3, 5, 1, 2, 4)[batch, best // stride, best % stride]
        return chosen


class _Quadratic(torch.autograd.Function):
    """`c1 x + c2 x^2` with coefficients for each channel of the last axis; keeps the input alone for backward.

    Coefficients have the precision of the input or a higher one, in which their gradients are summed. Backward consists
    of differentiable operations, so that it has a derivative as well. With a `jvp` `torch.compile` could not follow.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
        return torch.addcmul(c1.to(x.dtype), x, c2.to(x.dtype)).mul_(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, c1, c2 = ctx.saved_tensors
        (g,) = gradients
        slope = torch.addcmul(c1.to(x.dtype), x, c2.to(x.dtype), value=2)
        axes = tuple(range(x.ndim - 1))
        weighted = g * x
        first = weighted.sum(axes, dtype=c1.dtype)
        # these maps are the largest of a network: each is used again rather than allocated anew
        return slope.mul_(g), first, weighted.mul_(x).sum(axes, dtype=c2.dtype)


class PolyActivation(nn.Module):
    """A polynomial for each channel, `out_scale * p(in_scale * x)`, with trained coefficients and scales.

    Args:
        coef: Coefficients at the start, constant first; as a parameter (channels, degree + 1).

    Examples:
        >>> square = PolyActivation(3, coef=(0.0, 0.0, 1.0))
        >>> square(torch.full((1, 3, 1, 1), -2.0)).flatten().tolist()
        [4.0, 4.0, 4.0]
    """

    def __init__(
        self, channels: int, coef: Sequence[float] = GELU_QUADRATIC, in_scale: float = 1.0, out_scale: float = 1.0
    ) -> None:
        super().__init__()
        values = torch.from_numpy(finite_array("coef", coef, ndim=1).copy())
        if not len(values):
            raise ValueError("coef must hold one number at least; it is empty")
        start = values.to(torch.get_default_dtype()).repeat(positive_integer("channels", channels), 1)
        self.coef = nn.Parameter(start)
        self.in_scale = nn.Parameter(torch.tensor([finite_number("in_scale", in_scale)]))
        self.out_scale = nn.Parameter(torch.tensor([finite_number("out_scale", out_scale)]))

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return self.coef.shape[1] - 1

    def folded(self) -> tuple[Tensor, ...]:
        """Coefficients (channels,) of the powers of the input itself: the scales are in them."""
        powers = torch.cat([self.in_scale**j for j in range(self.degree + 1)])
        return (self.coef * powers * self.out_scale).unbind(1)

    def without_constant(self, x: Tensor) -> Tensor:
        """All terms but the constant, which is the same in every pixel, on (pixels, ..., channels)."""
        _, *coefficients = self.folded()
        if self.degree == 2:
            result: Tensor = _Quadratic.apply(x, *coefficients)  # type: ignore[no-untyped-call]
            return result
        return horner(x, [0.0, *(part.to(x.dtype) for part in coefficients)]) if coefficients else torch.zeros_like(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape, point by point."""
        check_pictures(x, self.coef.shape[0])
        return (self.without_constant(x.movedim(1, -1)) + self.folded()[0].to(x.dtype)).movedim(-1, 1)


class AliasFreeActivation(nn.Module):
    """A polynomial on a grid that holds its spectrum: a drop-in for GELU that commutes with every translation.

    Args:
        oversample: How many times finer the grid is (the paper: 2). None: the smallest that is exact (`dealias_size`),
            one and a half times for a quadratic.
        poly: Arguments of `PolyActivation`.

    Examples:
        >>> from lib.alias_free import fourier_shift
        >>> x = fourier_shift(torch.rand(1, 2, 9, 8, dtype=torch.float64), (0, 0), nyquist="zero")
        >>> layer = AliasFreeActivation(2).double()
        >>> bool(torch.allclose(layer(fourier_shift(x, (0.7, 0.2))), fourier_shift(layer(x), (0.7, 0.2))))
        True
    """

    def __init__(self, channels: int, oversample: int | None = None, **poly: Any) -> None:
        super().__init__()
        self.oversample = None if oversample is None else positive_integer("oversample", oversample)
        self.poly = PolyActivation(channels, **poly)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        check_pictures(x, self.poly.coef.shape[0])
        fine = _resampled(x, _fine_size(x.shape[-2:], self.oversample, self.poly.degree))
        values = self.poly.without_constant(fine.movedim(1, -1)).movedim(-1, 1)
        # the constant passes every low-pass as it is
        return _resampled(values, (x.shape[-2], x.shape[-1])) + self.poly.folded()[0].to(x.dtype)[:, None, None]


def _fine_size(size: Sequence[int], oversample: int | None, degree: int) -> tuple[int, int]:
    height, width = (dealias_size(side, max(degree, 1)) if oversample is None else oversample * side for side in size)
    return height, width


class DemodulatingStem(nn.Module):
    """A quadratic term before a stride, `x + g q(x)`, that needs no finer grid although it aliases.

    `q(x) = s_out (c0 + c1 y + c2 y L(y))` with `y = s_in x` and `L` an ideal low-pass that keeps a fraction `1 - 1 / r`
    of the frequencies, `r` the stride that follows. The product's aliases then lie outside of what the stride keeps
    (derived here; a larger fraction would let them in). It brings high frequencies down into the band that is kept,
    which a linear layer before a low-pass cannot. At the start `g` is zero.

    Args:
        stride: That of the `IdealDownsample2d` that must follow, above 1.

    Examples:
        >>> x = torch.rand(1, 2, 8, 8)
        >>> bool((DemodulatingStem(2, 4)(x) == x).all())
        True
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        coef: Sequence[float] = GELU_QUADRATIC,
        *,
        in_scale: float = 1.0,
        out_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.poly = PolyActivation(channels, coef, in_scale, out_scale)
        if self.poly.degree != 2:
            raise ValueError(f"coef must hold three numbers; it is {tuple(coef)}")
        self.stride = positive_integer("stride", stride)
        if stride == 1:
            raise ValueError("stride must be above 1: without one there is nothing that takes the aliases away")
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        check_pictures(x, self.poly.coef.shape[0])
        rows, columns = _coarse_size(x, self.stride)
        low = _low(x, (x.shape[-2] - rows, x.shape[-1] - columns))
        c0, c1, c2 = (part.to(x.dtype)[:, None, None] for part in self.poly.folded())
        return x + self.gain * (c0 + x * (c1 + c2 * low))


class AliasFreeLayerNorm(nn.Module):
    """Subtract each pixel's mean over channels, divide by one standard deviation for the whole picture.

    The mean over channels is linear, and by Parseval's theorem the variance over the picture depends on the sizes of
    its frequencies alone: both commute with translation. A variance for each pixel would not.

    Examples:
        >>> out = AliasFreeLayerNorm(4)(torch.rand(2, 4, 5, 5))
        >>> bool((out.mean(1).abs() < 1e-6).all())
        True
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = positive_number("eps", eps)
        self.weight = nn.Parameter(torch.ones(positive_integer("channels", channels)))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        check_pictures(x, len(self.weight))
        full = full_precision(x)
        centred = full - full.mean(1, keepdim=True)
        scale = (centred.square().mean((1, 2, 3), keepdim=True) + self.eps).rsqrt()
        weight, bias = (part[:, None, None] for part in (self.weight, self.bias))
        return torch.addcmul(bias, centred, scale * weight).to(x.dtype)


class AliasFreeMLP(nn.Module):
    """The two 1 x 1 layers of a ConvNeXt block around a polynomial, on a grid that holds its spectrum.

    Layers of 1 x 1 pixels commute with resampling. So the picture is resampled where it has few channels, before the
    first and behind the second of them, and both run on the finer grid, that of `AliasFreeActivation`.

    Examples:
        >>> AliasFreeMLP(4)(torch.rand(1, 6, 7, 4)).shape
        torch.Size([1, 6, 7, 4])
    """

    def __init__(
        self, dim: int, expand: int = 4, in_scale: float = 7.0, out_scale: float = 7.0, oversample: int | None = None
    ) -> None:
        super().__init__()
        wide = positive_integer("dim", dim) * positive_integer("expand", expand)
        self.oversample = None if oversample is None else positive_integer("oversample", oversample)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, wide), nn.Linear(wide, dim)
        self.act = PolyActivation(wide, in_scale=in_scale, out_scale=out_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) to the same shape."""
        check_pictures(x, self.pwconv1.in_features, channels_last=True)
        size = (x.shape[-3], x.shape[-2])
        fine = _resampled(x, _fine_size(size, self.oversample, self.act.degree), channels_last=True)
        wide = self.act.without_constant(self.pwconv1(fine))
        # the constant of the polynomial is a bias of what follows
        weight = self.pwconv2.weight
        bias = functional.linear(self.act.folded()[0], weight, self.pwconv2.bias)
        return _resampled(functional.linear(wide, weight, bias), size, channels_last=True)
