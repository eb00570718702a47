"""The alias-free layers in their plain form: slow, word by word as they are defined.

Pictures become finer by zeros between their pixels and a low-pass over the whole grid, twice the size as in Michaeli et
al. (CVPR 2023, arXiv 2303.08085); they become coarser by a low-pass of which most pixels are then dropped. Nothing but
the parameters is shared with `lib.alias_free.layers`, which is held against this form here, in tests and benchmarks.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.alias_free.layers import AliasFreeActivation, AliasFreeMLP, CircularConv2d, IdealDownsample2d, PolyActivation


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
    """Zeros between the pixels, then a low-pass on the finer grid: (..., H, W) to (..., factor H, factor W)."""
    height, width = x.shape[-2:]
    stuffed = x.new_zeros(*x.shape[:-2], factor * height, factor * width)
    stuffed[..., ::factor, ::factor] = x
    # the zeros take all but one in factor^2 of the mean; half of an even side's middle frequency goes to either sign
    return factor**2 * _filtered(stuffed, (height, width), edge=0.5)


def plain_downsample(x: Tensor, stride: int = 2) -> Tensor:
    """A low-pass on the whole grid, then every `stride`-th pixel: (..., H, W) to (..., H / stride, W / stride)."""
    height, width = x.shape[-2:]
    return _filtered(x, (height // stride, width // stride), edge=0.0)[..., ::stride, ::stride]


def _polynomial(x: Tensor, poly: PolyActivation) -> Tensor:
    """The polynomial of (..., channels), power by power."""
    scaled = poly.in_scale * x
    total = torch.zeros_like(x)
    for j in range(poly.coef.shape[1]):
        total = total + poly.coef[:, j] * scaled**j
    return poly.out_scale * total


class _PlainActivation(AliasFreeActivation):
    def forward(self, x: Tensor) -> Tensor:
        factor = self.oversample or 2
        fine = plain_upsample(x, factor)
        return plain_downsample(_polynomial(fine.movedim(1, -1), self.poly).movedim(-1, 1), factor)


class _PlainMLP(AliasFreeMLP):
    def forward(self, x: Tensor) -> Tensor:
        factor = self.oversample or 2
        fine = plain_upsample(x.movedim(-1, 1), factor).movedim(1, -1)
        narrow: Tensor = self.pwconv2(_polynomial(self.pwconv1(fine), self.act))
        return plain_downsample(narrow.movedim(-1, 1), factor).movedim(1, -1)


class _PlainConv2d(CircularConv2d):
    def forward(self, x: Tensor) -> Tensor:
        stride, reach = self.stride[0], self.dilation[0] * (self.kernel_size[0] - 1)
        if not self.lowpass or stride == 1:
            return super().forward(x)
        wide = functional.pad(x, (reach // 2, reach - reach // 2) * 2, mode="circular")
        full = functional.conv2d(wide, self.weight, self.bias, dilation=self.dilation, groups=self.groups)
        return plain_downsample(full, stride)


class _PlainDownsample2d(IdealDownsample2d):
    def forward(self, x: Tensor) -> Tensor:
        return plain_downsample(x, self.stride)


_PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    AliasFreeActivation: _PlainActivation,
    AliasFreeMLP: _PlainMLP,
    CircularConv2d: _PlainConv2d,
    IdealDownsample2d: _PlainDownsample2d,
}


def plain_version(module: nn.Module) -> nn.Module:
    """A copy of a layer or network that computes the same in the plain form, with the same `state_dict`.

    Activation functions run on a grid of twice the size, as published, unless their `oversample` says otherwise:
    enough for degree 3.

    Examples:
        >>> mlp, x = AliasFreeMLP(4).double(), torch.rand(1, 7, 6, 4, dtype=torch.float64)
        >>> bool(torch.allclose(plain_version(mlp)(x), mlp(x)))
        True
    """
    plain = copy.deepcopy(module)
    for part in plain.modules():
        # the copies are ours alone: they keep their parameters and change what forward does
        part.__class__ = _PLAIN.get(type(part), type(part))
    return plain
