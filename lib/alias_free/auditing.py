"""Where does a network break translation? Any torch network, layer by layer, and as a whole."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lib.alias_free.convnext import _GELUMLP
from lib.alias_free.layers import AliasFreeActivation, AliasFreeMLP, check_pictures
from lib.alias_free.resampling import checked_shift, finite_pictures, shifted
from lib.alias_free.robustness import shift_error
from lib.training import evaluating
from lib.validation import instance_of

__all__ = ["LayerAudit", "LayerCall", "audit", "layer_calls"]

#: A shift that no grid of a few times the size makes whole.
GENERIC_SHIFT = (0.7182, -2.236)

#: Layers with layers inside that are looked at as one: what happens on their finer grid, or between, is their own.
_UNITS = (AliasFreeActivation, AliasFreeMLP, _GELUMLP)

#: Functions that make pictures finer: `forward` calls them without a layer, and they are looked at like one.
_FINER_FUNCTIONS = (functional.interpolate, functional.pixel_shuffle, functional.conv_transpose2d)


@dataclass(frozen=True)
class LayerAudit:
    """What a shift does to one layer.

    Attributes:
        name, kind: Its place in the network, and its class. The last line, without a name, is the network itself.
        stride: By how much coarser its result is, 1 / 2 for one that is twice as fine; the larger number where rows and
            columns differ, 0 for a network whose result is no picture.
        error: `max |f(T_s x) - T_(s / stride) f(x)| / max |f(x)|` for what comes into the layer; where no picture comes
            out, `max |f(T_s x) - f(x)| / max |f(x)|`.
    """

    name: str
    kind: str
    stride: float
    error: float


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer, or of a function that makes pictures finer.

    Attributes:
        given, shape: What came in, and the shape of what went out.
        again: The layer as a function of what comes in; its other arguments are those of the call.
        channels_last: Whether pictures are (B, H, W, C) there.
        one_pixel: Whether a picture has one pixel there, whatever the size of what comes into the network.
    """

    name: str
    layer: Callable[..., Any]
    given: Tensor
    shape: torch.Size
    again: Callable[[Tensor], Any]
    channels_last: bool = False
    one_pixel: bool = False

    def stride(self) -> float:
        """By how much coarser a picture goes out than came in; 0 where that makes no sense."""
        return _larger(self.strides() or (0, 0))

    def strides(self) -> tuple[float, float] | None:
        """The same for rows and for columns."""
        if self.given.ndim != 4 or len(self.shape) != 4 or not self.given.is_floating_point():
            return None
        # what lies at the sides may be lost or added: the sizes do not tell the stride of these
        if isinstance(self.layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.ConvTranspose2d)):
            stride = self.layer.stride
            down, right = (stride, stride) if isinstance(stride, int) else stride
            return (1 / down, 1 / right) if isinstance(self.layer, nn.ConvTranspose2d) else (down, right)
        return _coarser(self.given.shape, self.shape, _sides(self.channels_last))

    def error(self, shift: tuple[float, float]) -> float:
        """How far the layer is from commuting with a shift."""
        given = _without_nyquist(self.given.movedim(-1, 1) if self.channels_last else self.given)

        def result(pictures: Tensor) -> Tensor:
            # copies: layers may overwrite what they are given
            out: Tensor = self.again(pictures.movedim(1, -1) if self.channels_last else pictures.clone())
            return out.movedim(-1, 1) if self.channels_last else out

        return shift_error(result(shifted(given, shift)), result(given), _behind(shift, self.strides()))


def _sides(channels_last: bool) -> tuple[int, int]:
    return (1, 2) if channels_last else (2, 3)


def _coarser(before: Sequence[int], after: Sequence[int], sides: tuple[int, int]) -> tuple[float, float]:
    rows, columns = (before[side] / max(after[side], 1) for side in sides)
    return rows, columns


def _behind(shift: tuple[float, float], coarser: tuple[float, float] | None) -> tuple[float, float] | None:
    """By how much a coarser picture must move."""
    return coarser and (shift[0] / coarser[0], shift[1] / coarser[1])


def _larger(coarser: tuple[float, float]) -> float:
    stride = float(max(coarser))
    return int(stride) if stride.is_integer() else stride


def audit(model: nn.Module, x: Tensor, *, shift: tuple[float, float] = GENERIC_SHIFT) -> list[LayerAudit]:
    """Shift what comes into each layer of a network, and see whether what goes out is shifted.

    Args:
        model: It is looked at in evaluation mode, and left in the mode in which it came.
        x: Pictures (B, C, H, W) that it takes.
        shift: Rows and columns [pixels].

    Returns:
        One entry for each call of a layer that takes one picture and gives one, coarser, finer or of the same size; and
        one for the network itself, at the end, which names the worst of its results if it gives several. The frequency
        `N / 2` of even sides is removed from what comes in, since no layer can treat it exactly. Functions that
        `forward` calls without a layer have an entry if they make pictures finer (`functional.interpolate`); others,
        such as `functional.relu`, cannot be seen: if all layers are exact and the last line is not, look there.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.GELU(), nn.MaxPool2d(2))
        >>> x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> [(layer.kind, layer.stride, layer.error > 1e-6) for layer in audit(net.double(), x)]
        [('Conv2d', 1, False), ('GELU', 1, True), ('MaxPool2d', 2, True), ('Sequential', 2, True)]
    """
    shift = checked_shift(shift)
    calls = layer_calls(model, x)
    with evaluating(model), torch.no_grad():
        found = [
            LayerAudit(call.name, getattr(call.layer, "__name__", type(call.layer).__name__), stride, call.error(shift))
            for call in calls
            if (stride := call.stride())
        ]
        if not _is_unit(model):
            found += _whole(model, x, shift)
    return found


def _whole(model: nn.Module, x: Tensor, shift: tuple[float, float]) -> list[LayerAudit]:
    """The line of the network itself, if it gives numbers: that of its worst result."""
    x = _without_nyquist(x)
    lines = []
    for plain, moved in zip(_tensors(model(x.clone())), _tensors(model(shifted(x, shift))), strict=True):
        picture = plain.ndim == 4 or plain.shape[-2:] == x.shape[-2:]
        coarser = _coarser(x.shape, plain.shape, (-2, -1)) if picture else None
        error = shift_error(moved, plain, _behind(shift, coarser))
        lines.append(LayerAudit("", type(model).__name__, _larger(coarser or (0, 0)), error))
    # a NaN is worse than any number
    return sorted(lines, key=lambda line: (line.error != line.error, line.error))[-1:]


def _tensors(result: Any) -> list[Tensor]:
    """All floating-point tensors of what a network gives: one, or several in tuples, lists and dictionaries."""
    if isinstance(result, Tensor):
        return [result] if result.is_floating_point() and result.numel() else []
    if isinstance(result, Mapping):
        result = list(result.values())
    return [part for one in result for part in _tensors(one)] if isinstance(result, (tuple, list)) else []


def layer_calls(model: nn.Module, x: Tensor) -> list[LayerCall]:
    """All calls of layers with one tensor, in evaluation mode, in their order.

    Whether rows and columns are the second and third axis of a tensor or the last ones is seen from a second picture,
    twice as large. Where the network does not take one, it is seen from which of them have the ratio of the picture's
    own.
    """
    instance_of("model", model, nn.Module, "a module")
    check_pictures(x)
    if not x.numel():
        raise ValueError(f"x must not be empty; its shape is {tuple(x.shape)}")
    finite_pictures("x", x)
    calls = calls_with(model, x)
    larger: list[LayerCall] = []
    # Not every network takes every size, and it may say so in any way: what was seen before it ended is of use. It is
    # a copy that is asked, on the CPU: on a GPU an index out of range would end all work of this process.
    with suppress(Exception):
        calls_with(copy.deepcopy(model).cpu(), x[:1].cpu().repeat(1, 1, 2, 2), larger, values=False)
    return [
        _with_layout(call, larger[k].given.shape if k < len(larger) and larger[k].name == call.name else None, x.shape)
        for k, call in enumerate(calls)
    ]


def _with_layout(call: LayerCall, larger: torch.Size | None, picture: torch.Size) -> LayerCall:
    """The call with what was seen from the shape that comes in there if the picture is twice as large."""
    shape = call.given.shape
    if len(shape) != 4:
        return call
    if larger is None:
        as_picture = [shape[k] * picture[-1] == shape[k + 1] * picture[-2] for k in (1, 2)]
        last = as_picture == [True, False]
    else:
        last = [after > before for before, after in zip(shape[1:], larger[1:], strict=False)] == [True, True, False]
    one_pixel = all(held[side] == 1 for held in (shape, larger or shape) for side in _sides(last))
    return replace(call, channels_last=last, one_pixel=one_pixel)


class _FinerFunctions(TorchFunctionMode):
    """Sees the calls of functions that make pictures finer."""

    def __init__(self, see: Callable[[Callable[..., Any], Any, dict[str, Any], Any], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _FINER_FUNCTIONS:
            self.see(func, args, kwargs or {}, result)
        return result


def calls_with(
    model: nn.Module, x: Tensor, seen: list[LayerCall] | None = None, *, values: bool = True
) -> list[LayerCall]:
    """All calls for these pictures, as far as the network comes; without `values` only shapes are kept."""
    seen = [] if seen is None else seen
    # a layer that is used at several places is known by the first of its names
    names = {layer: name for name, layer in model.named_modules()}
    units = _units(model)
    within: list[nn.Module] = []
    waiting: list[tuple[Tensor, Callable[[Tensor], Any]] | None] = []

    def before(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        within.append(layer)
        waiting.append(_of_one_tensor(layer, inputs, named, values=values) if layer in units else None)

    def after(layer: nn.Module, _: Any, result: Any) -> None:
        within.pop()
        note(names[layer], layer, waiting.pop(), result)

    def called(function: Callable[..., Any], inputs: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        if within and not units.intersection(within):
            name = f"{names[within[-1]]}.{function.__name__}".lstrip(".")
            note(name, function, _of_one_tensor(function, inputs, named, values=values), result)

    def note(name: str, layer: Callable[..., Any], given: tuple[Tensor, Any] | None, result: Any) -> None:
        if given is not None and isinstance(result, Tensor):
            seen.append(LayerCall(name, layer, given[0], result.shape, given[1]))

    hooks = []
    for layer in names:
        hooks.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(layer.register_forward_hook(after))
    try:
        with evaluating(model), torch.no_grad(), _as_it_stands(), _FinerFunctions(called):
            model(x.detach().clone())
    except Exception as error:
        where = f"in its layer {names[within[-1]]!r}" if within and names[within[-1]] else "itself"
        raise ValueError(
            f"model must take x, of shape {tuple(x.shape)} and {x.dtype}; {where} it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _as_it_stands() -> AbstractContextManager[None]:
    """Compiled networks run without the compiler, which would compile what looks at the layers as well."""
    # who has not compiled does not wait for the compiler to be loaded
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _of_one_tensor(
    layer: Callable[..., Any], inputs: tuple[Any, ...], named: dict[str, Any], *, values: bool
) -> tuple[Tensor, Callable[[Tensor], Any]] | None:
    """The one tensor that comes in, and the layer as a function of it; None if there is another number of them."""
    arguments: dict[int | str, Any] = dict(enumerate(inputs))
    arguments.update(named)
    tensors = [place for place, value in arguments.items() if isinstance(value, Tensor)]
    # beside its picture a function may be given its weights
    if not tensors or (len(tensors) > 1 and layer not in _FINER_FUNCTIONS):
        return None
    place = tensors[0]
    given = arguments.pop(place)

    def again(x: Tensor) -> Any:
        held = {**arguments, place: x}
        return layer(*(held[k] for k in range(len(inputs))), **{name: held[name] for name in named})

    # a copy: layers may overwrite what they are given
    return (given.detach().clone() if values else torch.empty_like(given, device="meta")), again


def _is_unit(layer: nn.Module) -> bool:
    return isinstance(layer, _UNITS) or not list(layer.children())


def _units(model: nn.Module) -> set[nn.Module]:
    """Layers without layers inside, and those that are looked at as one."""
    return {model} if _is_unit(model) else set().union(*map(_units, model.children()))


def _without_nyquist(x: Tensor) -> Tensor:
    return shifted(x, (0, 0), nyquist="zero")
