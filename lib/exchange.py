"""Layers of a network exchanged for others, with a report of what was exchanged, what was not, and why.

A layer gets another class and stays the same object, as `torch.nn.utils.parametrize` does it: whoever holds it, in a
list, a tuple or a second place of the network, then holds the new one. A layer can also be bypassed, by torch's fast
path for transformers or by a function that takes only its weights; an example shows which layers are called.
"""

from __future__ import annotations

import copy
import functools
import types
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from lib.validation import instance_of

__all__ = ["Example", "ExchangeReport", "Skip", "copied", "exchange_layers", "exchange_report", "give_class"]

#: Which layers stay: `"first"`, `"last"`, both or none of them, or a function of name and layer.
Skip = Sequence[str] | Callable[[str, nn.Module], bool]
#: An input of a network: a tensor, a tuple of positional arguments, or a dict of named ones.
Example = Tensor | tuple[Any, ...] | dict[str, Any]

_EVERY_MODULE_HAS = frozenset(vars(nn.Module()))
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class ExchangeReport:
    """By the names of layers: the class that they have now; for those with weights that stay, why."""

    exchanged: dict[str, str]
    kept: dict[str, str]

    def __str__(self) -> str:
        lines = [f"exchanged for {kind}: {names}" for kind, names in _grouped(self.exchanged)]
        lines += [f"not exchanged, {reason}: {names}" for reason, names in _grouped(self.kept)]
        return "\n".join(lines) or "there is no layer with weights"


def _grouped(named: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each value with its names in words."""
    groups: dict[str, list[str]] = {}
    for name, value in named.items():
        groups.setdefault(value, []).append(name or "the model itself")
    for value, names in groups.items():
        more = len(names) - _NAMES_SHOWN
        yield value, ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def exchange_report(model: nn.Module) -> ExchangeReport:
    """What the last exchange did to a network.

    Examples:
        >>> class Rounded(nn.Linear):
        ...     def forward(self, x):
        ...         return super().forward(x).round()
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2))
        >>> _ = exchange_layers(net, {nn.Linear: Rounded})
        >>> print(exchange_report(net))
        exchanged for Rounded: 0
        not exchanged, there is no exchange for GRU: 1
    """
    found = vars(instance_of("model", model, nn.Module, "a torch module")).get("_exchange_report")
    if not isinstance(found, ExchangeReport):
        raise ValueError(f"model must be a network whose layers were exchanged; it is a {type(model).__name__}")
    return found


def copied(model: nn.Module) -> nn.Module:
    """A copy whose layers can be exchanged, with a warning where it would go on calling the original's."""
    other = _copy(model)
    originals = {id(module) for module in model.modules()}
    places = [place for place, held in _held_outside(other) if isinstance(held, nn.Module) and id(held) in originals]
    if places:
        warnings.warn(
            f"{', '.join(dict.fromkeys(places))} of the copy still refers to layers of the original, which stay as "
            "they are; inplace=True changes those",
            stacklevel=3,
        )
    return other


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"model cannot be copied; inplace=True changes it as it is: {error}") from error


def _held_outside(model: nn.Module) -> Iterator[tuple[str, object]]:
    """What modules hold in attributes that torch does not know as parts, with the attribute's name."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in _EVERY_MODULE_HAS:
                for held in _reached(value, {}):
                    yield f"{name}.{key}".lstrip("."), held


def _reached(value: object, seen: dict[int, object]) -> Iterator[object]:
    """An object, and through containers and functions what it refers to."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    yield value
    for part in _parts(value):
        yield from _reached(part, seen)


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.FunctionType):
        return [_content(cell) for cell in value.__closure__ or ()] + list(value.__defaults__ or ())
    if isinstance(value, weakref.ref):
        return [value()]
    return []


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def give_class(layer: nn.Module, kind: type[nn.Module]) -> None:
    """Make an object of another class of a layer; its parametrizations stay."""
    if is_parametrized(layer):
        # torch keeps the properties that compute the weights in a class made for this layer alone
        own = {name: part for name, part in vars(type(layer)).items() if name not in ("__dict__", "__weakref__")}
        kind = type(f"Parametrized{kind.__name__}", (kind,), own)
    layer.__class__ = kind


def exchange_layers(
    model: nn.Module,
    kinds: Mapping[type[nn.Module], type[nn.Module]],
    *,
    skip: Skip = (),
    example: Example | None = None,
    finish: Callable[[nn.Module], None] = lambda _: None,
) -> ExchangeReport:
    """Give layers another class, in place, and say which; warn if no layer with weights is among them.

    Args:
        kinds: Class of a layer -> the class that it gets. Subclasses stay, since they may compute something else.
        skip: Which layers with weights stay. First and last are meant in the order of calls where there is an example,
            otherwise in the order in which the network names its layers.
        example: An input, to exchange only what is called on it, with gradients and without: run four times, on a copy.
        finish: Called with every exchanged layer.

    Returns:
        Also what `exchange_report` returns from now on.
    """
    if not callable(skip) and (isinstance(skip, str) or not set(skip) <= {"first", "last"}):
        raise ValueError(f"skip must hold first, last or both, or be a function; it is {skip!r}")
    kept = _out_of_reach(model, kinds)
    layers = dict(model.named_modules())
    found = {
        name: layer
        for name, layer in layers.items()
        if type_before_parametrizations(layer) in kinds and name not in kept and not _computes_weights(name)
    }
    if example is not None:
        order, missed = _calls(model, list(found), example)
        kept.update(missed)
        found = {name: layers[name] for name in order if name not in missed}
    weighted = [name for name, layer in found.items() if _has_matrix(layer)]
    if callable(skip):
        kept.update({name: "skip says so" for name in weighted if skip(name, layers[name])})
    else:
        ends = {"first": weighted[:1], "last": weighted[-1:]}
        kept.update({name: f"the {word} layer" for word in skip for name in ends[word]})
    changed = {name: layer for name, layer in layers.items() if name in found and name not in kept}
    for layer in changed.values():
        give_class(layer, kinds[type_before_parametrizations(layer)])
        finish(layer)
    _leave_fast_paths(model, changed.values())
    exchanged = {name: type(layer).__name__ for name, layer in changed.items()}
    report = ExchangeReport(exchanged, {name: kept[name] for name in layers if name in kept})
    vars(model)["_exchange_report"] = report
    if not any(name in exchanged for name in weighted):
        warnings.warn(f"no layer with weights was exchanged\n{report}", stacklevel=3)
    return report


def _computes_weights(name: str) -> bool:
    """Whether it is a part of a parametrization, which computes weights of a layer, or is in one."""
    return "parametrizations" in name.split(".")


def _has_matrix(layer: nn.Module) -> bool:
    """Whether a layer has weights of its own with which it multiplies, not only offsets and factors."""
    own = list(layer.parameters(recurse=False))
    if is_parametrized(layer):
        own += list(layer.get_submodule("parametrizations").parameters())
    return isinstance(layer, LazyModuleMixin) or any(parameter.ndim > 1 for parameter in own)


def _out_of_reach(model: nn.Module, kinds: Mapping[type[nn.Module], type[nn.Module]]) -> dict[str, str]:
    """Layers with weights that cannot be exchanged, by name, and why."""
    inside = {
        id(part)
        for outer in model.modules()
        if isinstance(outer, nn.MultiheadAttention)
        for part in outer.modules()
        if part is not outer
    }
    methods = {
        id(held.__self__): place
        for place, held in _held_outside(model)
        if isinstance(held, types.MethodType) and held.__name__ == "forward"
    }
    kept = {}
    for name, layer in model.named_modules():
        if not _has_matrix(layer) or _computes_weights(name):
            continue
        kind = type_before_parametrizations(layer)
        if id(layer) in inside:
            kept[name] = "MultiheadAttention takes its weights and never calls it"
        elif isinstance(layer, LazyModuleMixin):
            kept[name] = "its shape is not known yet: call the model once before"
        elif kind in kinds.values():
            kept[name] = f"it is a {kind.__name__} already"
        elif kind not in kinds:
            kept[name] = f"there is no exchange for {kind.__name__}"
        elif "forward" in vars(layer):
            kept[name] = "its own attribute forward would be called instead"
        elif id(layer) in methods:
            kept[name] = f"{methods[id(layer)]} holds its former method forward"
    return kept


def _leave_fast_paths(model: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Have torch's transformer layers call their parts in evaluation, too, where one of these layers is among them.

    Without gradients they otherwise hand the weights of their linear layers to one fused function. No other network
    is affected: `torch.backends.mha.set_fastpath_enabled` would be for all.
    """
    wanted = {id(layer) for layer in layers}
    for module in model.modules():
        if not isinstance(module, (nn.TransformerEncoder, nn.TransformerEncoderLayer)):
            continue
        if any(id(part) in wanted for part in module.modules()):
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False  # nested tensors are for the fast path alone
            else:
                module.activation_relu_or_gelu = 0  # the fast path knows no other activation; nothing else reads it


def _calls(model: nn.Module, names: list[str], example: Example) -> tuple[list[str], dict[str, str]]:
    """Which layers are called on an example, in the order of their first calls; the others, and why they stay."""
    probe = _copy(model)
    layers = {name: probe.get_submodule(name) for name in names}
    _leave_fast_paths(probe, layers.values())
    called: list[str] = []
    for name, layer in layers.items():
        # no hook: torch takes the fast path only where there is none
        layer.forward = functools.partial(_counted, called, name, layer.forward)
    args: tuple[Any, ...] = example if isinstance(example, tuple) else () if isinstance(example, dict) else (example,)
    named: dict[str, Any] = example if isinstance(example, dict) else {}
    devices = sorted({tensor.device.index for tensor in model.parameters() if tensor.is_cuda})
    seen: dict[tuple[bool, bool], list[str]] = {}
    with torch.random.fork_rng(devices=devices):
        state = torch.get_rng_state()
        for training in (False, True):
            for gradients in (True, False):
                torch.set_rng_state(state)  # a network that leaves out layers at random leaves out the same ones
                called.clear()
                try:
                    with torch.set_grad_enabled(gradients):
                        probe.train(training)(*args, **named)
                except Exception as error:
                    raise ValueError(f"example must be an input of the model, which raised: {error}") from error
                seen[training, gradients] = list(dict.fromkeys(called))
    missed = {}
    for name in names:
        modes = {mode for mode, found in seen.items() if name in found}
        if not modes:
            missed[name] = "it is never called on the example"
        elif any(((training, True) in modes) != ((training, False) in modes) for training in (False, True)):
            missed[name] = "it is called only with gradients, or only without"
    return list(dict.fromkeys(name for found in seen.values() for name in found)), missed


def _counted(called: list[str], name: str, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
    called.append(name)
    return forward(*args, **named)
