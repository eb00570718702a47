"""The same network with those layers exchanged that break translation.

What comes out has to be trained, or fine-tuned: a polynomial is not the function that it stands for.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.alias_free.auditing import layer_calls
from lib.alias_free.layers import AliasFreeActivation, CircularConv2d, IdealDownsample2d
from lib.alias_free.polynomials import fit_activation
from lib.training import evaluating

__all__ = ["make_alias_free"]

_ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.GELU, nn.ReLU, nn.SiLU, nn.LeakyReLU, nn.ELU,
    nn.ReLU6, nn.SELU, nn.CELU, nn.Mish, nn.Hardswish, nn.Softplus, nn.Tanh, nn.Sigmoid,
)  # fmt: skip


def make_alias_free(model: nn.Module, x: Tensor, *, degree: int = 2, half_width: float = 2.0**0.5) -> nn.Module:
    """A copy of a convolutional network in which the layers that break translation are exchanged.

    Convolutions become circular, and behind an ideal low-pass where they have a stride (weights are kept); poolings
    with a stride become ideal ones; activation functions become polynomials on a grid that is fine enough, fitted to
    what they were and trained from there. All else stays, also functions that `forward` calls without a layer: the
    last line of `audit` says whether the whole is exact.

    Pictures must not hold the frequency `N / 2` of an even side where the first layer has no stride
    (`fourier_shift(x, (0, 0), nyquist="zero")` removes it).

    Parameters
    ----------
    model
        The network; it is not changed.
    x
        Pictures (B, C, H, W) that it takes, from which the channels of its activation functions are read.
    degree, half_width
        Of the polynomials, as in `fit_activation`.

    Raises
    ------
    TypeError
        If the model is no module, or `x` not floating point.
    ValueError
        If a convolution or pooling is of a kind that has no such version (kernels that are not square, dilation,
        sides that shrink, subclasses, pooling without a stride), an activation function works on three axes, or a
        side is no multiple of a stride.

    Examples
    --------
    >>> from lib.alias_free import fourier_shift
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> free = make_alias_free(net.double(), x)
    >>> bool(torch.allclose(free(x), free(fourier_shift(x, (0.3, 1.7)))))
    True
    """
    calls = layer_calls(model, x)
    shapes: dict[str, list[torch.Size]] = {}
    widths: dict[str, set[int]] = {}
    channels_last: dict[str, bool] = {}
    for call in calls:
        shapes.setdefault(call.name, []).append(call.shape)
        if not isinstance(call.layer, _ACTIVATIONS) or call.given.ndim == 2:
            continue
        if call.given.ndim != 4:
            raise ValueError(f"{call.name} must work on pictures (B, C, H, W); it is given {tuple(call.given.shape)}")
        widths.setdefault(call.name, set()).add(call.given.shape[-1 if call.channels_last else 1])
        channels_last[call.name] = call.channels_last
    free = copy.deepcopy(model)
    made: dict[nn.Module, nn.Module] = {}
    changed: dict[str, nn.Module] = {}
    for name, module in list(free.named_modules(remove_duplicate=False)):
        if module not in made:
            other = _exchanged(name, module)
            if isinstance(module, _ACTIVATIONS) and name in widths:
                coefficients = fit_activation(_as_function(module), degree, half_width)
                other = _Activations(coefficients, sorted(widths[name]), channels_last=channels_last[name]).single()
            if other is None:
                continue
            made[module] = changed[name] = other.to(x.device, x.dtype).train(module.training)
        if not name:
            return made[module]
        parent, _, leaf = name.rpartition(".")
        setattr(free.get_submodule(parent), leaf, made[module])
    _check_sizes(free, x, changed, shapes)
    return free


class _Activations(nn.Module):
    """One alias-free activation for each number of channels that comes in."""

    def __init__(self, coefficients: np.ndarray[Any, Any], widths: list[int], *, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.layers = nn.ModuleDict({str(width): _activation(width, coefficients) for width in widths})

    def single(self) -> nn.Module:
        """The layer itself where there is one, on (B, C, H, W)."""
        return self if self.channels_last or len(self.layers) > 1 else next(iter(self.layers.values()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), or (B, H, W, C), to the same shape."""
        pictures = x.movedim(-1, 1) if self.channels_last else x
        result: Tensor = self.layers[str(pictures.shape[1])](pictures)
        return result.movedim(1, -1) if self.channels_last else result


def _activation(channels: int, coefficients: np.ndarray[Any, Any]) -> AliasFreeActivation:
    layer = AliasFreeActivation(channels, coef=tuple(coefficients)).double()
    with torch.no_grad():  # in full precision, whatever the precision of the network
        layer.poly.coef.copy_(torch.from_numpy(coefficients))
    return layer


def _exchanged(name: str, module: nn.Module) -> nn.Module | None:
    """What takes the place of a convolution or a pooling; None where it may stay."""
    if isinstance(module, CircularConv2d):
        return None if module.stride == (1, 1) or module.lowpass else _circular(name, module)
    if isinstance(module, nn.Conv2d):
        if type(module) is not nn.Conv2d:
            raise ValueError(f"{name} must be a Conv2d of torch itself; it is {type(module).__name__}")
        return _circular(name, module)
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        return _ideal_pool(name, module)
    return None


def _as_function(module: nn.Module) -> Any:
    """An activation function on arrays."""

    def function(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        with torch.no_grad():
            # some overwrite what they are given
            result: Tensor = module(torch.from_numpy(values.copy()))
        return result.numpy()

    return function


def _circular(name: str, conv: nn.Conv2d) -> CircularConv2d:
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    same = conv.padding in (((kernel - 1) // 2,) * 2, (kernel // 2,) * 2, "same") or kernel == stride
    same = same or isinstance(conv, CircularConv2d)
    if conv.kernel_size != (kernel, kernel) or conv.stride != (stride, stride) or conv.dilation != (1, 1) or not same:
        raise ValueError(f"{name} must have a square kernel, one stride, no dilation, and keep sides: {conv}")
    other = CircularConv2d(
        conv.in_channels,
        conv.out_channels,
        kernel,
        stride=stride,
        lowpass=stride > 1,
        groups=conv.groups,
        bias=conv.bias is not None,
    ).to(conv.weight)
    other.load_state_dict(conv.state_dict())
    for part, before in zip(other.parameters(), conv.parameters(), strict=True):
        part.requires_grad_(before.requires_grad)
    return other


def _ideal_pool(name: str, pool: nn.MaxPool2d | nn.AvgPool2d) -> nn.Module:
    sizes = {pool.stride} if isinstance(pool.stride, int) else set(pool.stride)
    if len(sizes) != 1:
        raise ValueError(f"{name} must have one stride: {pool}")
    if sizes == {1}:
        raise ValueError(f"{name} must have a stride above 1: without one no low-pass takes its place: {pool}")
    return IdealDownsample2d(sizes.pop())


def _check_sizes(
    free: nn.Module, x: Tensor, changed: dict[str, nn.Module], shapes: dict[str, list[torch.Size]]
) -> None:
    """See that every layer that was exchanged gives what it gave before."""
    entered: list[str] = []
    found: dict[str, list[torch.Size]] = {name: [] for name in changed}
    hooks = []
    for name, layer in changed.items():
        hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: entered.append(name)))
        hooks.append(layer.register_forward_hook(lambda *held, name=name: found[name].append(held[-1].shape)))
    try:
        with evaluating(free), torch.no_grad():
            free(x.detach().clone())
    except ValueError as error:
        raise ValueError(f"{entered[-1] if entered else 'x'}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    for name, sizes in found.items():
        for before, now in zip(shapes.get(name, []), sizes, strict=False):
            if before != now:
                raise ValueError(f"{name} must keep sides: it gave {tuple(before)}, without aliases {tuple(now)}")
