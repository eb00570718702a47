"""The alias-free layers in their plain form: the slow way that follows the definitions word by word.

Pictures become finer by zeros between their pixels and a low-pass over the whole grid, twice the size as in Michaeli et
al. (CVPR 2023, arXiv 2303.08085); they become coarser by a low-pass over the whole grid of which most pixels are then
dropped; convolutions with a stride run at full resolution first. `lib.alias_free.layers` gives the same values and
gradients by other means, and is held against this form in tests and benchmarks: nothing is shared between the two
but the parameters.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.alias_free.layers import (
    AliasFreeActivation,
    AliasFreeMLP,
    CircularConv2d,
    CircularConvTranspose2d,
    IdealDownsample2d,
    IdealPixelShuffle,
    IdealResample2d,
    PolyActivation,
)
from lib.validation import instance_of, positive_integer

__all__ = ["plain_downsample", "plain_polynomial", "plain_upsample", "plain_version"]


def _band(count: int, side: int, edge: float) -> Tensor:
    """What each bin of `count` is multiplied by, for a band that `side` samples can hold.

    The frequency `side / 2` of an even side has no sign: it is multiplied by `edge`.
    """
    k = torch.fft.fftfreq(count, 1 / count, dtype=torch.float64).abs()
    inside = (2 * k < side).double()
    return torch.where(2 * k == side, edge, inside) if side < count else torch.ones_like(inside)


def _filtered(x: Tensor, size: tuple[int, int], edge: float) -> Tensor:
    """A low-pass on the whole grid (..., H, W)."""
    height, width = x.shape[-2:]
    rows, columns = _band(height, size[0], edge).to(x), _band(width, size[1], edge).to(x)
    spectrum = torch.fft.rfft2(x) * (rows[:, None] * columns[: width // 2 + 1])
    result: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return result


def plain_upsample(x: Tensor, factor: int = 2) -> Tensor:
    """Zeros between the pixels, then a low-pass on the finer grid.

    Parameters
    ----------
    x
        Pictures (..., H, W), float32 or float64.
    factor
        How much finer.

    Returns
    -------
    Tensor
        (..., factor H, factor W).

    Raises
    ------
    ValueError
        If the factor is below 1.

    Examples
    --------
    >>> from lib.alias_free import ideal_resample
    >>> x = torch.rand(1, 7, 10, dtype=torch.float64)
    >>> bool(torch.allclose(plain_upsample(x, 3), ideal_resample(x, (21, 30))))
    True
    """
    # among zeros a sample counts for one part in factor^2; half of an even side's middle frequency goes to either sign
    return factor**2 * _among_zeros(x, positive_integer("factor", factor), edge=0.5)


def _among_zeros(x: Tensor, factor: int, edge: float) -> Tensor:
    height, width = x.shape[-2:]
    stuffed = x.new_zeros(*x.shape[:-2], factor * height, factor * width)
    stuffed[..., ::factor, ::factor] = x
    return _filtered(stuffed, (height, width), edge)


def plain_downsample(x: Tensor, stride: int = 2) -> Tensor:
    """A low-pass on the whole grid, then every so many-th pixel.

    Parameters
    ----------
    x
        Pictures (..., H, W), float32 or float64.
    stride
        By how much coarser.

    Returns
    -------
    Tensor
        (..., H / stride, W / stride).

    Raises
    ------
    ValueError
        If a side is no multiple of the stride.

    Examples
    --------
    >>> from lib.alias_free import ideal_resample
    >>> x = torch.rand(1, 6, 12, dtype=torch.float64)
    >>> bool(torch.allclose(plain_downsample(x, 3), ideal_resample(x, (2, 4))))
    True
    """
    height, width = x.shape[-2:]
    if height % positive_integer("stride", stride) or width % stride:
        raise ValueError(f"H and W must be multiples of the stride {stride}; they are {height} and {width}")
    return _filtered(x, (height // stride, width // stride), edge=0.0)[..., ::stride, ::stride]


def plain_polynomial(x: Tensor, poly: PolyActivation) -> Tensor:
    """The polynomial of `PolyActivation`, power by power.

    Parameters
    ----------
    x
        (..., channels).
    poly
        Its coefficients and scales.

    Examples
    --------
    >>> poly = PolyActivation(1, coef=(1.0, 0.0, 2.0), in_scale=3.0)
    >>> plain_polynomial(torch.tensor([1.0]), poly).item()
    19.0
    """
    scaled = poly.in_scale * x
    total = torch.zeros_like(x)
    for j in range(poly.coef.shape[1]):
        total = total + poly.coef[:, j] * scaled**j
    return poly.out_scale * total


class _PlainActivation(AliasFreeActivation):
    def forward(self, x: Tensor) -> Tensor:
        factor = 2 if self.oversample is None else self.oversample
        fine = plain_upsample(x, factor)
        return plain_downsample(plain_polynomial(fine.movedim(1, -1), self.poly).movedim(-1, 1), factor)


class _PlainMLP(AliasFreeMLP):
    def forward(self, x: Tensor) -> Tensor:
        factor = 2 if self.oversample is None else self.oversample
        fine = plain_upsample(x.movedim(-1, 1), factor).movedim(1, -1)
        wide = plain_polynomial(self.pwconv1(fine), self.act)
        narrow: Tensor = self.pwconv2(wide)
        return plain_downsample(narrow.movedim(-1, 1), factor).movedim(1, -1)


class _PlainConv2d(CircularConv2d):
    def forward(self, x: Tensor) -> Tensor:
        stride, reach = self.stride[0], self.dilation[0] * (self.kernel_size[0] - 1)
        if not self.lowpass or stride == 1:
            return super().forward(x)
        wide = functional.pad(x, (reach // 2, reach - reach // 2) * 2, mode="circular")
        full = functional.conv2d(wide, self.weight, self.bias, dilation=self.dilation, groups=self.groups)
        return plain_downsample(full, stride)


class _PlainConvTranspose2d(CircularConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: ARG002
        stride, padding, reach = self.stride[0], int(self.padding[0]), self.dilation[0] * (self.kernel_size[0] - 1)
        fine = _among_zeros(x, stride, edge=0.0)
        wide = functional.pad(fine.roll((-padding, -padding), (-2, -1)), (reach, 0, reach, 0), mode="circular")
        return functional.conv_transpose2d(
            wide, self.weight, self.bias, padding=reach, dilation=self.dilation, groups=self.groups
        )


class _PlainPixelShuffle(IdealPixelShuffle):
    def forward(self, x: Tensor) -> Tensor:
        factor = self.upscale_factor
        fine = _among_zeros(x, factor, edge=0.0)
        parts = fine.reshape(len(x), -1, factor, factor, *fine.shape[-2:])
        places = [(i, j) for i in range(factor) for j in range(factor)]
        return torch.stack([parts[:, :, i, j].roll((i, j), (-2, -1)) for i, j in places]).sum(0)


class _PlainResample2d(IdealResample2d):
    def forward(self, x: Tensor) -> Tensor:
        height, width = super().forward(x[:1, :1]).shape[-2:]
        factor = max(height // x.shape[-2], 1)
        if (height, width) != (factor * x.shape[-2], factor * x.shape[-1]):
            raise ValueError(f"x must become finer by a whole factor; {tuple(x.shape[-2:])} become {(height, width)}")
        return plain_upsample(x, factor)


class _PlainDownsample2d(IdealDownsample2d):
    def forward(self, x: Tensor) -> Tensor:
        return plain_downsample(x, self.stride)


_PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    AliasFreeActivation: _PlainActivation,
    AliasFreeMLP: _PlainMLP,
    CircularConv2d: _PlainConv2d,
    CircularConvTranspose2d: _PlainConvTranspose2d,
    IdealDownsample2d: _PlainDownsample2d,
    IdealPixelShuffle: _PlainPixelShuffle,
    IdealResample2d: _PlainResample2d,
}


def plain_version(module: nn.Module) -> nn.Module:
    """A copy of a layer or network that computes the same in the plain form.

    Parameters
    ----------
    module
        Its alias-free layers, at any depth, are exchanged; the module itself is not changed. Activation functions of
        degree 2 run on a grid of twice the size, as published, unless `oversample` says otherwise.

    Returns
    -------
    Module
        With parameters of the same names and values, and the same `state_dict`.

    Raises
    ------
    ValueError
        If an activation function has a degree above 3 and no `oversample`: twice the grid would not hold it. In use,
        where `IdealResample2d` does not make pictures finer by one whole factor.

    Examples
    --------
    >>> from lib.alias_free import AliasFreeMLP
    >>> mlp, x = AliasFreeMLP(4).double(), torch.rand(1, 7, 6, 4, dtype=torch.float64)
    >>> bool(torch.allclose(plain_version(mlp)(x), mlp(x)))
    True
    """
    plain = copy.deepcopy(instance_of("module", module, nn.Module, "a torch module"))
    for part in plain.modules():
        if isinstance(part, (AliasFreeActivation, AliasFreeMLP)):
            degree = (part.poly if isinstance(part, AliasFreeActivation) else part.act).coef.shape[1] - 1
            if degree > 3 and part.oversample is None:
                raise ValueError(
                    f"module must hold polynomials of degree 3 at most without oversample; it has {degree}"
                )
        # the copies are ours alone: they keep their parameters and change what forward does
        part.__class__ = _PLAIN.get(type(part), type(part))
    return plain
