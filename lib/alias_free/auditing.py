"""Where does a network break translation? Any torch network, layer by layer, and as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.alias_free.convnext import _GELUMLP
from lib.alias_free.layers import AliasFreeActivation, AliasFreeMLP, check_pictures
from lib.alias_free.resampling import fourier_shift
from lib.alias_free.robustness import equivariance_error
from lib.training import evaluating

__all__ = ["LayerAudit", "LayerCall", "audit", "layer_calls"]

#: A shift that no grid of a few times the size makes whole.
GENERIC_SHIFT = (0.7182, -2.236)

#: Layers with layers inside that are looked at as one: what happens on their finer grid, or between, is their own.
_UNITS = (AliasFreeActivation, AliasFreeMLP, _GELUMLP)


class LayerAudit(NamedTuple):
    """What a shift does to one layer.

    Attributes
    ----------
    name, kind
        Where it is in the network, and its class. The last line, without a name, is the network itself.
    stride
        By how much coarser its result is; 0 for a network whose result is no picture.
    error
        `max |f(T_s x) - T_(s / stride) f(x)| / max |f(x)|` for what comes into the layer; where no picture comes out,
        `max |f(T_s x) - f(x)| / max |f(x)|`.
    """

    name: str
    kind: str
    stride: int
    error: float


class LayerCall(NamedTuple):
    """One call of a layer.

    Attributes
    ----------
    name, layer
        Where it is in the network.
    given
        What came in.
    shape
        Of what went out.
    channels_last
        Whether pictures are (B, H, W, C) there.
    """

    name: str
    layer: nn.Module
    given: Tensor
    shape: torch.Size
    channels_last: bool

    def stride(self) -> int:
        """By how much coarser a picture goes out than came in; 0 where that makes no sense."""
        if self.given.ndim != 4 or len(self.shape) != 4:
            return 0
        rows, columns = (1, 2) if self.channels_last else (2, 3)
        found = {self.given.shape[axis] / max(self.shape[axis], 1) for axis in (rows, columns)}
        return int(max(found)) if len(found) == 1 and max(found).is_integer() else 0

    def error(self, shift: tuple[float, float]) -> float:
        """How far the layer is from commuting with a shift."""
        if not self.channels_last:
            return equivariance_error(self.layer, _without_nyquist(self.given), shift, self.stride())

        def layer(x: Tensor) -> Tensor:
            result: Tensor = self.layer(x.movedim(1, -1)).movedim(-1, 1)
            return result

        return equivariance_error(layer, _without_nyquist(self.given.movedim(-1, 1)), shift, self.stride())


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
        One entry for each call of a layer that takes one picture and gives one, coarser by the same whole factor along
        both sides; and one for the network itself, at the end. The frequency `N / 2` of even sides is removed from
        what comes in, since no layer could do right by it. Functions that are called within `forward` without being
        layers, such as `functional.relu`, cannot be seen: if all layers are exact and the last line is not, look there.

    Raises
    ------
    TypeError
        If the model is no module, or `x` not floating point.
    ValueError
        If `x` has another shape.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.GELU(), nn.MaxPool2d(2))
    >>> x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> [(layer.kind, layer.stride, layer.error > 1e-6) for layer in audit(net.double(), x)]
    [('Conv2d', 1, False), ('GELU', 1, True), ('MaxPool2d', 2, True), ('Sequential', 2, True)]
    """
    calls = layer_calls(model, x)
    with evaluating(model), torch.no_grad():
        found = [
            LayerAudit(call.name, type(call.layer).__name__, stride, call.error(shift))
            for call in calls
            if (stride := call.stride())
        ]
        if not _is_unit(model):
            found += _whole(model, x, shift)
    return found


def _whole(model: nn.Module, x: Tensor, shift: tuple[float, float]) -> list[LayerAudit]:
    """The line of the network itself, if it gives a tensor."""
    x = _without_nyquist(x)
    still = model(x.clone())
    if not isinstance(still, Tensor):
        return []
    call = LayerCall("", model, x, still.shape, channels_last=False)
    if stride := call.stride():
        return [LayerAudit("", type(model).__name__, stride, call.error(shift))]
    change = (model(fourier_shift(x, shift)) - still).abs().max() / still.abs().max()
    return [LayerAudit("", type(model).__name__, 0, float(change))]


def layer_calls(model: nn.Module, x: Tensor) -> list[LayerCall]:
    """All calls of layers with one tensor, in evaluation mode, in their order.

    Whether rows and columns are the second and third axis of a tensor or the last ones is seen from a second picture,
    twice as large.

    Parameters and errors are those of `audit`.

    Examples
    --------
    >>> call, = layer_calls(nn.Sequential(nn.MaxPool2d(2)), torch.rand(1, 3, 8, 8))
    >>> call.name, tuple(call.given.shape), tuple(call.shape), call.stride()
    ('0', (1, 3, 8, 8), (1, 3, 4, 4), 2)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a module; it is {type(model).__name__}")
    check_pictures(x)
    calls = _calls(model, x.detach())
    larger: list[LayerCall] = []
    # it may end early: not every network takes every size
    with suppress(RuntimeError, ValueError):
        _calls(model, x.detach()[:1].repeat(1, 1, 2, 2), larger)
    return [
        call._replace(channels_last=k < len(larger) and _grows(call.given, larger[k].given) == [True, True, False])
        for k, call in enumerate(calls)
    ]


def _grows(small: Tensor, large: Tensor) -> list[bool]:
    return [b > a for a, b in zip(small.shape[1:], large.shape[1:], strict=False)]


def _calls(model: nn.Module, x: Tensor, seen: list[LayerCall] | None = None) -> list[LayerCall]:
    seen = [] if seen is None else seen
    waiting: dict[nn.Module, Tensor | None] = {}

    def before(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = [*inputs, *named.values()]
        alone = len(given) == 1 and isinstance(given[0], Tensor)
        # a copy: layers may overwrite what they are given
        waiting[layer] = given[0].detach().clone() if alone else None

    def after(layer: nn.Module, _: Any, result: Any, *, name: str) -> None:
        given = waiting.pop(layer, None)
        if given is not None and isinstance(result, Tensor):
            seen.append(LayerCall(name, layer, given, result.shape, channels_last=False))

    # a layer that is used at several places is known by the first of its names
    names = {layer: name for name, layer in reversed(list(_layers(model)))}
    hooks = []
    for layer, name in names.items():
        hooks.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(layer.register_forward_hook(partial(after, name=name)))
    try:
        with evaluating(model), torch.no_grad():
            model(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _is_unit(layer: nn.Module) -> bool:
    return isinstance(layer, _UNITS) or not list(layer.children())


def _layers(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Layers without layers inside, and those that are looked at as one."""
    if _is_unit(model):
        yield name, model
        return
    for part, child in model.named_children():
        yield from _layers(child, f"{name}.{part}" if name else part)


def _without_nyquist(x: Tensor) -> Tensor:
    return fourier_shift(x, (0, 0), nyquist="zero")
