"""The same network with those layers exchanged that break translation.

What comes out has to be trained, or fine-tuned: a polynomial is not the function that it stands for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.alias_free.auditing import LayerCall, calls_with, layer_calls
from lib.alias_free.layers import (
    AliasFreeActivation,
    CircularConv2d,
    CircularConvTranspose2d,
    IdealDownsample2d,
    IdealPixelShuffle,
    IdealResample2d,
)
from lib.alias_free.polynomials import fit_activation
from lib.exchange import give_class
from lib.validation import positive_integer, positive_number

__all__ = ["make_alias_free"]

_ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.GELU, nn.ReLU, nn.SiLU, nn.LeakyReLU, nn.ELU,
    nn.ReLU6, nn.SELU, nn.CELU, nn.Mish, nn.Hardswish, nn.Softplus, nn.Tanh, nn.Sigmoid,
)  # fmt: skip


def make_alias_free(model: nn.Module, x: Tensor, *, degree: int = 2, half_width: float = 2.0**0.5) -> nn.Module:
    """A copy of a convolutional network in which the layers that break translation are exchanged.

    Convolutions become circular, and behind an ideal low-pass where they have a stride (weights are kept); poolings
    with a stride become ideal ones. What makes pictures finer stays on the coarser one's frequencies: transposed
    convolutions (weights are kept) and `PixelShuffle` by a low-pass behind them, `Upsample` as the function through the
    pixels, whatever its mode was. Activation functions become polynomials on a grid that is fine enough, fitted to what
    they were and trained from there; on maps of one pixel, or of one value all over, they break nothing and stay. So
    does all else, also functions that `forward` calls without a layer: the lines of `audit` say what is not exact.

    Pictures must not hold the frequency `N / 2` of an even side where the first layer has no stride
    (`fourier_shift(x, (0, 0), nyquist="zero")` removes it).

    Args:
        x: Pictures (B, C, H, W) that it takes, from which the channels of its activation functions are read.
        degree, half_width: Of the polynomials, see `fit_activation`.

    Raises:
        ValueError: If a layer has no such version (kernels that are not square, sides that shrink or do not become a
            multiple, subclasses, pooling without a stride or with indices, `MaxUnpool2d`), an activation function works
            on three axes, or a side is no multiple of a stride; the message names the layer.

    Examples:
        >>> from lib.alias_free import fourier_shift
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, padding=1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> free = make_alias_free(net.double(), x)
        >>> bool(torch.allclose(free(x), free(fourier_shift(x, (0.3, 1.7)))))
        True
    """
    positive_integer("degree", degree)
    positive_number("half_width", half_width)
    calls = layer_calls(model, x)
    uses = _uses(calls, _constant(model, calls, x))
    free = copy.deepcopy(model)
    resized = set()
    for name, module in list(free.named_modules()):
        if isinstance(module, _ACTIVATIONS):
            other = uses[name].polynomial(copy.copy(module), degree, half_width) if name in uses else None
        else:
            other = _exchanged(name, module)
            resized.add(name)
        if other is not None:
            # the same object as another layer: whoever holds it, at whatever place, holds the new one
            give_class(module, type(other.to(x.device, x.dtype).train(module.training)))
            vars(module).clear()
            vars(module).update(vars(other))
    _check_sizes(free, x, [call for call in calls if call.name in resized])
    return free


@dataclass
class _Use:
    """How an activation function is called on pictures, and whether it is also called on what may stay."""

    channels_last: bool = False
    widths: set[int] = field(default_factory=set)
    elsewhere: bool = False

    def polynomial(self, module: nn.Module, degree: int, half_width: float) -> nn.Module | None:
        """What takes its place; None where it may stay."""
        if not self.widths:
            return None
        with torch.no_grad():
            # a copy: some overwrite what they are given
            coefficients = fit_activation(lambda t: module(torch.from_numpy(t.copy())).numpy(), degree, half_width)
        layers = {str(width): _activation(width, coefficients) for width in sorted(self.widths)}
        if len(layers) == 1 and not self.channels_last and not self.elsewhere:
            return next(iter(layers.values()))
        return _Activations(layers, channels_last=self.channels_last, elsewhere=module if self.elsewhere else None)


def _uses(calls: list[LayerCall], constant: set[int]) -> dict[str, _Use]:
    """The activation functions among the calls, by name."""
    uses: dict[str, _Use] = {}
    for k, call in enumerate(calls):
        if not isinstance(call.layer, _ACTIVATIONS):
            continue
        use = uses.setdefault(call.name, _Use())
        if call.given.ndim == 2 or call.one_pixel or k in constant:
            use.elsewhere = True
        elif call.given.ndim != 4:
            raise ValueError(f"{call.name} must work on pictures (B, C, H, W); it is given {tuple(call.given.shape)}")
        else:
            use.widths.add(call.given.shape[-1 if call.channels_last else 1])
            use.channels_last = call.channels_last
    return uses


def _constant(model: nn.Module, calls: list[LayerCall], x: Tensor) -> set[int]:
    """Which calls are given maps of one value all over, by construction: another value for another picture.

    Weights of zero make a map constant as well, but the same one for all pictures, and only until they are trained.
    """
    noise = torch.randn((2, *x.shape[1:]), generator=torch.Generator().manual_seed(0)).to(x)
    found: set[int] = set()
    # a network may take other batches no more than other sizes
    with suppress(ValueError):
        for k, (call, noisy) in enumerate(zip(calls, calls_with(model, noise), strict=True)):
            if noisy.given.ndim != 4 or len(noisy.given) != 2 or not noisy.given.is_floating_point():
                continue
            maps = noisy.given.flatten(1, 2) if call.channels_last else noisy.given.flatten(2).mT
            rounding = 100 * torch.finfo(maps.dtype).eps * maps.abs().max()
            alike = (maps - maps[:, :1]).abs().max() <= rounding
            if alike and (maps[0] - maps[1]).abs().max() > rounding:
                found.add(k)
    return found


class _Activations(nn.Module):
    """One alias-free activation for each number of channels that comes in; where no picture comes in, what it was."""

    def __init__(self, layers: dict[str, nn.Module], *, channels_last: bool, elsewhere: nn.Module | None) -> None:
        super().__init__()
        self.channels_last, self.layers, self.elsewhere = channels_last, nn.ModuleDict(layers), elsewhere

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), or (B, H, W, C), to the same shape."""
        pictures = x.movedim(-1, 1) if self.channels_last else x
        if self.elsewhere is not None and (pictures.ndim != 4 or pictures.shape[-2:].numel() == 1):
            plain: Tensor = self.elsewhere(x)
            return plain
        result: Tensor = self.layers[str(pictures.shape[1])](pictures)
        return result.movedim(1, -1) if self.channels_last else result


def _activation(channels: int, coefficients: np.ndarray[Any, Any]) -> nn.Module:
    layer = AliasFreeActivation(channels, coef=tuple(coefficients)).double()
    with torch.no_grad():  # in full precision, whatever the precision of the network
        layer.poly.coef.copy_(torch.from_numpy(coefficients))
    return layer


def _exchanged(name: str, module: nn.Module) -> nn.Module | None:
    """What takes the place of a layer that makes pictures coarser or finer; convolutions are changed themselves."""
    if isinstance(module, nn.MaxUnpool2d):
        raise ValueError(f"{name} must be another layer: there is no MaxUnpool2d without aliases")
    exact = isinstance(module, CircularConv2d) and (module.stride == (1, 1) or module.lowpass)
    if exact or isinstance(module, CircularConvTranspose2d):
        return None
    return next((exchange(name, module) for kind, exchange in _EXCHANGES if isinstance(module, kind)), None)


def _circular(name: str, conv: nn.Conv2d) -> None:
    _check_kind(name, conv, nn.Conv2d, CircularConv2d)
    kernel, stride, dilation = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
    reach = dilation * (kernel - 1)
    padding = {"same": (reach // 2,) * 2, "valid": (0, 0)}.get(str(conv.padding), conv.padding)
    same = padding in ((reach // 2,) * 2, (reach - reach // 2,) * 2) or kernel == stride
    if not same and not isinstance(conv, CircularConv2d):
        raise ValueError(f"{name} must keep sides, or divide them by its stride: {conv}")
    give_class(conv, CircularConv2d)
    vars(conv).update(padding=(0, 0), padding_mode="zeros", lowpass=stride > 1)


def _transposed(name: str, conv: nn.ConvTranspose2d) -> None:
    _check_kind(name, conv, nn.ConvTranspose2d)
    if len({*conv.padding}) != 1:
        raise ValueError(f"{name} must have one padding: {conv}")
    give_class(conv, CircularConvTranspose2d)


def _check_kind(name: str, conv: nn.Conv2d | nn.ConvTranspose2d, *kinds: type[nn.Module]) -> None:
    if type(conv) not in kinds:
        raise ValueError(f"{name} must be a {kinds[0].__name__} of torch itself; it is {type(conv).__name__}")
    if any(len({*both}) != 1 for both in (conv.kernel_size, conv.stride, conv.dilation)):
        raise ValueError(f"{name} must have a square kernel, one stride and one dilation: {conv}")


def _ideal_pool(name: str, pool: nn.MaxPool2d | nn.AvgPool2d) -> nn.Module:
    sizes = {pool.stride} if isinstance(pool.stride, int) else set(pool.stride)
    if len(sizes) != 1:
        raise ValueError(f"{name} must have one stride: {pool}")
    if getattr(pool, "return_indices", False):
        raise ValueError(f"{name} must give no indices: without aliases there is no largest pixel: {pool}")
    if sizes == {1}:
        raise ValueError(f"{name} must have a stride above 1: without one no low-pass takes its place: {pool}")
    return IdealDownsample2d(sizes.pop())


def _resampling(_: str, upsample: nn.Upsample) -> nn.Module | None:
    if upsample.mode in ("linear", "trilinear"):  # of no pictures
        return None
    return IdealResample2d(upsample.size, None if upsample.size is not None else upsample.scale_factor)


_EXCHANGES: tuple[tuple[type[nn.Module], Callable[[str, Any], nn.Module | None]], ...] = (
    (nn.Conv2d, _circular),
    (nn.ConvTranspose2d, _transposed),
    (nn.MaxPool2d, _ideal_pool),
    (nn.AvgPool2d, _ideal_pool),
    (nn.Upsample, _resampling),
    (nn.PixelShuffle, lambda _, shuffle: IdealPixelShuffle(shuffle.upscale_factor)),
)


def _check_sizes(free: nn.Module, x: Tensor, before: list[LayerCall]) -> None:
    """See that every layer that was exchanged gives sizes that it gave before."""
    seen: list[LayerCall] = []
    names = {call.name for call in before}
    failed: ValueError | None = None
    try:
        calls_with(free, x, seen)
    except ValueError as error:
        failed = error
    for was, now in zip(before, (call for call in seen if call.name in names), strict=False):
        if was.shape != now.shape:
            raise ValueError(
                f"{now.name} must keep sides: it gave {tuple(was.shape)}, without aliases {tuple(now.shape)}"
            )
    if failed:
        raise ValueError(f"without aliases {failed}") from failed
