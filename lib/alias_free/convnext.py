"""ConvNeXt on the torus in four versions that differ in what happens at strides and in activation functions.

The baseline is ConvNeXt (Liu et al. 2022, arXiv 2201.03545) with circular convolutions. `"blurpool"` and `"aps"`
replace its strides, `"afc"` all that does not commute with translation (Michaeli et al., CVPR 2023, arXiv 2303.08085).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.alias_free.layers import (
    AliasFreeLayerNorm,
    AliasFreeMLP,
    APSDownsample2d,
    BlurPool2d,
    CircularConv2d,
    DemodulatingStem,
    IdealDownsample2d,
    positive_integers,
)
from lib.validation import finite_number, one_of, positive_integer, positive_number, torch_generator, true_or_false

__all__ = ["ConvNeXt", "Mode"]

Mode = Literal["baseline", "blurpool", "aps", "afc"]


class _PixelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _GELUMLP(nn.Module):
    """The two 1 x 1 layers of a ConvNeXt block around GELU, on (B, H, W, C)."""

    def __init__(self, dim: int, expand: int = 4) -> None:
        super().__init__()
        self.pwconv1, self.pwconv2 = nn.Linear(dim, expand * dim), nn.Linear(expand * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.pwconv2(functional.gelu(self.pwconv1(x)))
        return result


def _strided(in_channels: int, out_channels: int, kernel: int, stride: int, mode: Mode) -> nn.Module:
    """A convolution whose result is coarser by the stride, in the way of the mode."""
    if mode in ("baseline", "afc") or stride == 1:
        return CircularConv2d(in_channels, out_channels, kernel, stride=stride, lowpass=mode == "afc")
    conv = CircularConv2d(in_channels, out_channels, kernel)
    if mode == "blurpool":
        return nn.Sequential(conv, BlurPool2d(out_channels, stride))
    # a stride of four is two of two, as far as that goes
    steps = [2] * (stride.bit_length() - 1) if stride & (stride - 1) == 0 else [stride]
    return nn.Sequential(conv, *(APSDownsample2d(step) for step in steps))


class _Block(nn.Module):
    """A depthwise convolution, a normalisation, two 1 x 1 layers, around which the input passes."""

    def __init__(self, dim: int, kernel: int, layer_scale: float, act_scale: float, mode: Mode) -> None:
        super().__init__()
        self.dwconv = CircularConv2d(dim, dim, kernel, groups=dim)
        self.norm: nn.Module = AliasFreeLayerNorm(dim) if mode == "afc" else _PixelNorm(dim, eps=1e-6)
        self.mlp: nn.Module = (
            AliasFreeMLP(dim, in_scale=act_scale, out_scale=act_scale) if mode == "afc" else _GELUMLP(dim)
        )
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mlp(self.norm(self.dwconv(x)).movedim(1, -1))
        return x + (self.gamma * y).movedim(-1, 1)


class ConvNeXt(nn.Module):
    """ConvNeXt on the torus.

    Args:
        depths, dims: Blocks and channels of each stage.
        mode: `"baseline"`: strided convolutions, GELU, normalisation of each pixel. `"blurpool"`, `"aps"`: the same
            with other strides. `"afc"`: no layer creates an alias, so that outputs are the same for every translation.
        patch, stem_kernel: Stride and kernel of the first convolution; those between stages have 2 and 2.
        kernel: That of the depthwise convolutions.
        layer_scale: What blocks are multiplied by at the start.
        init_std: Standard deviation of the weights, cut off at two of them, with zero biases; None: torch's own.
        act_scale: Scales of the polynomials, for `"afc"`.
        stem_activation: For `"afc"`: a quadratic term between the first convolution and its stride
            (`DemodulatingStem`), as in the paper's code; the convolution then runs at full resolution.
        generator: None: torch's own, global one.

    Examples:
        >>> from lib.alias_free import fourier_shift
        >>> net = ConvNeXt(depths=(1, 1), dims=(8, 16), layer_scale=1.0, init_std=None).double().eval()
        >>> x = torch.rand(1, 1, 20, 24, dtype=torch.float64)
        >>> bool(torch.allclose(net(x), net(fourier_shift(x, (0.3, -5.7)))))
        True
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        depths: Sequence[int] = (2, 2),
        dims: Sequence[int] = (24, 48),
        mode: Mode = "afc",
        *,
        patch: int = 2,
        stem_kernel: int = 4,
        kernel: int = 7,
        layer_scale: float = 1e-6,
        init_std: float | None = 0.02,
        act_scale: float = 7.0,
        stem_activation: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        one_of("mode", mode, get_args(Mode))
        positive_integers(in_channels=in_channels, num_classes=num_classes)
        positive_integers(patch=patch, stem_kernel=stem_kernel, kernel=kernel)
        depths, dims = _integers("depths", depths), _integers("dims", dims)
        if len(depths) != len(dims) or not len(dims):
            raise ValueError(f"depths and dims must be as long as each other; they are {depths} and {dims}")
        layer_scale, act_scale = finite_number("layer_scale", layer_scale), finite_number("act_scale", act_scale)
        if init_std is not None:
            positive_number("init_std", init_std)
        true_or_false("stem_activation", stem_activation)
        torch_generator("generator", generator)
        self.mode: Mode = mode
        self.in_channels = in_channels
        self.total_stride = patch * 2 ** (len(dims) - 1)
        if stem_activation and (mode != "afc" or patch == 1):
            raise ValueError(f"stem_activation needs the mode 'afc' and a stride; they are {mode!r} and {patch}")
        # torch's layers draw their first weights from its global state, which stays where it was
        with torch.random.fork_rng(devices=[], enabled=generator is not None):
            if generator is not None and init_std is None:
                seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
                torch.default_generator.manual_seed(int(seed))
            norm = AliasFreeLayerNorm if mode == "afc" else _PixelNorm
            first = [_strided(in_channels, dims[0], stem_kernel, patch, mode)]
            if stem_activation:
                quadratic = DemodulatingStem(dims[0], patch, in_scale=act_scale, out_scale=act_scale)
                first = [CircularConv2d(in_channels, dims[0], stem_kernel), quadratic, IdealDownsample2d(patch)]
            self.stem = nn.Sequential(*first, norm(dims[0], eps=1e-6))
            self.downsamples = nn.ModuleList(
                nn.Sequential(norm(before, eps=1e-6), _strided(before, after, 2, 2, mode))
                for before, after in pairwise(dims)
            )
            self.stages = nn.ModuleList(
                nn.Sequential(*(_Block(dim, kernel, layer_scale, act_scale, mode) for _ in range(depth)))
                for depth, dim in zip(depths, dims, strict=True)
            )
            self.norm, self.head = nn.LayerNorm(dims[-1], eps=1e-6), nn.Linear(dims[-1], num_classes)
        if init_std is not None:
            _draw(self, init_std, generator)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, dims[-1], H / total stride, W / total stride)."""
        if x.ndim != 4:
            raise ValueError(f"x must have the shape (B, C, H, W); it has {tuple(x.shape)}")
        if any(side % self.total_stride for side in x.shape[-2:]):
            sides = f"{x.shape[-2]} and {x.shape[-1]}"
            raise ValueError(f"H and W must be multiples of the total stride {self.total_stride}; they are {sides}")
        x = self.stages[0](self.stem(x))
        for downsample, stage in zip(self.downsamples, self.stages[1:], strict=True):
            x = stage(downsample(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, num_classes)."""
        logits: Tensor = self.head(self.norm(self.forward_features(x).mean((-2, -1))))
        return logits


def _integers(name: str, numbers: Sequence[int]) -> list[int]:
    try:
        return [positive_integer(name, number) for number in numbers]
    except TypeError as error:
        raise TypeError(f"{name} must be integers, one for each stage; it is {numbers!r}") from error


def _draw(network: nn.Module, std: float, generator: torch.Generator | None) -> None:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
