"""Where does a network break translation, and the same network with those layers exchanged.

`audit` looks at any torch network, layer by layer; `make_alias_free` exchanges strides, poolings, paddings and
activation functions by layers that commute with translation. What comes out has to be trained, or fine-tuned: a
polynomial is not the function that it stands for.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lib.alias_free.layers import AliasFreeActivation, CircularConv2d, IdealDownsample2d
from lib.alias_free.polynomials import fit_activation
from lib.alias_free.resampling import fourier_shift
from lib.alias_free.robustness import equivariance_error
from lib.training import evaluating

__all__ = ["LayerAudit", "audit", "make_alias_free"]

#: A shift that no grid of a few times the size makes whole.
GENERIC_SHIFT = (0.7182, -2.236)

_ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.GELU, nn.ReLU, nn.SiLU, nn.LeakyReLU, nn.ELU)


class LayerAudit(NamedTuple):
    """What a shift does to one layer.

    Attributes
    ----------
    name, kind
        Where it is in the network, and its class.
    stride
        By how much coarser its result is.
    error
        `max |f(T_s x) - T_(s / stride) f(x)| / max |f(x)|` for what comes into the layer.
    """

    name: str
    kind: str
    stride: int
    error: float


def audit(model: nn.Module, x: Tensor, *, shift: tuple[float, float] = GENERIC_SHIFT) -> list[LayerAudit]:
    """Shift what comes into each layer of a network, and see whether what goes out is shifted.

    Parameters
    ----------
    model
        The network; it is left in the mode in which it came, and looked at in evaluation mode.
    x
        Pictures (B, C, H, W) that it takes.
    shift
        Rows and columns.

    Returns
    -------
    list
        One entry for each call of a layer without layers inside that takes a picture (B, C, H, W) and gives one whose
        sides divide those that come in. The frequency `N / 2` of even sides is removed from what comes in, since no
        layer could do right by it.

    Raises
    ------
    ValueError
        If `x` has another shape.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.MaxPool2d(2))
    >>> x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> [(layer.kind, layer.stride, layer.error > 1e-6) for layer in audit(net.double(), x)]
    [('Conv2d', 1, False), ('ReLU', 1, True), ('MaxPool2d', 2, True)]
    """
    if x.ndim != 4:
        raise ValueError(f"x must have the shape (B, C, H, W); it has {tuple(x.shape)}")
    seen: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(
            lambda layer, inputs, output, name=name: seen.append((name, layer, inputs[0].detach(), output))
        )
        for name, module in _layers(model)
    ]
    with evaluating(model), torch.no_grad():
        try:
            model(x)
        finally:
            for hook in hooks:
                hook.remove()
        return [
            LayerAudit(name, type(layer).__name__, stride, _error(layer, given, shift, stride))
            for name, layer, given, result in seen
            if (stride := _stride(given, result))
        ]


def _layers(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Layers without layers inside; an alias-free activation is one, what happens on its finer grid is its own."""
    children = list(model.named_children())
    if not children or isinstance(model, AliasFreeActivation):
        yield name, model
        return
    for part, child in children:
        yield from _layers(child, f"{name}.{part}" if name else part)


def _stride(given: Any, result: Any) -> int:
    """By how much coarser a picture is than another one; 0 where that makes no sense."""
    if not all(isinstance(part, Tensor) and part.ndim == 4 for part in (given, result)):
        return 0
    (height, width), (rows, columns) = given.shape[-2:], result.shape[-2:]
    fits = (
        rows > 0 and columns > 0 and height % rows == 0 and width % columns == 0 and height // rows == width // columns
    )
    return height // rows if fits else 0


def _error(layer: nn.Module, given: Tensor, shift: tuple[float, float], stride: int) -> float:
    return equivariance_error(layer, fourier_shift(given, (0, 0), nyquist="zero"), shift, stride)


def make_alias_free(model: nn.Module, x: Tensor, *, degree: int = 2, half_width: float = 2.0**0.5) -> nn.Module:
    """A copy of a convolutional network whose layers commute with translation.

    Pictures must not hold the frequency `N / 2` of an even side where the first layer has no stride
    (`fourier_shift(x, (0, 0), nyquist="zero")` removes it).

    Convolutions become circular, and behind an ideal low-pass where they have a stride (weights are kept); poolings
    become ideal ones; activation functions become polynomials on a grid that is fine enough, fitted to what they were
    and trained from there. Other layers stay: look at `audit` for what they do.

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
    ValueError
        If a convolution or pooling is of a kind that has no such version (kernels that are not square, dilation,
        sides that shrink), or an activation function works on something else than pictures (B, C, H, W).

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> free = make_alias_free(net.double(), x)
    >>> bool(torch.allclose(free(x), free(fourier_shift(x, (0.3, 1.7)))))
    True
    """
    channels: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            if inputs[0].ndim != 4:
                raise ValueError(f"{name} must work on pictures (B, C, H, W); it is given {tuple(inputs[0].shape)}")
            channels[name] = inputs[0].shape[1]

        return hook

    free = copy.deepcopy(model)
    places = {name: module for name, module in free.named_modules() if isinstance(module, _ACTIVATIONS)}
    hooks = [module.register_forward_hook(note(name)) for name, module in places.items()]
    try:
        with evaluating(free), torch.no_grad():
            free(x)
    finally:
        for hook in hooks:
            hook.remove()
    for name, module in list(free.named_modules()):
        if isinstance(module, _ACTIVATIONS) and name in channels:
            coefficients = fit_activation(_as_function(module), degree, half_width)
            other: nn.Module = AliasFreeActivation(channels[name], coef=tuple(coefficients)).to(x)
        elif isinstance(module, nn.Conv2d) and not isinstance(module, CircularConv2d):
            other = _circular(name, module)
        elif isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            other = _ideal_pool(name, module)
        else:
            continue
        if not name:
            return other
        parent, _, leaf = name.rpartition(".")
        setattr(free.get_submodule(parent), leaf, other)
    return free


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
    return other


def _ideal_pool(name: str, pool: nn.MaxPool2d | nn.AvgPool2d) -> nn.Module:
    sizes = {pool.stride} if isinstance(pool.stride, int) else set(pool.stride)
    if len(sizes) != 1:
        raise ValueError(f"{name} must have one stride: {pool}")
    return IdealDownsample2d(sizes.pop())
