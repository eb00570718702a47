"""A claim measured once on tape, and again from the tape with one result NaN in one place.

The tape keeps what every function and method of `lib` returned that a claim called by the names of its module, its
module's own helpers among them. Played again, calls return what they returned, so that a claim whose work takes
minutes is asked what it makes of a NaN in milliseconds. A call that is given a NaN is made in earnest.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import sys
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from lib.claims import Claim, Evidence
from lib.flood.solver import LocalInertialSolver
from lib.four_bit.layers import LUQConfig

#: Calls of one function from one place, more than which are not kept: they are made in earnest again.
MANY = 300
_CACHED = type(functools.lru_cache(lambda: None))


@dataclasses.dataclass(eq=False)
class Call:
    """A call that was made, what it returned, and the calls that were made inside it."""

    name: str
    result: Any = None
    can_be_copied: bool = True
    randomness: list[Any] = dataclasses.field(default_factory=list)
    calls: list[Call] = dataclasses.field(default_factory=list)
    count: Counter[str] = dataclasses.field(default_factory=Counter)

    def leads_to(self, other: Call | None) -> bool:
        return other is not None and any(call is other or call.leads_to(other) for call in self.calls)

    def paths(self, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Call]]:
        for call in self.calls:
            path = (*above, call.name)
            yield path, call
            yield from call.paths(path)


class Tape:
    """One measurement of a claim."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.start = Call(claim.id)
        self._spoilt: Call | None = None
        with _listening(claim, self._record):
            self._inside = self.start
            self.result = claim.check()

    def places(self) -> dict[str, Call]:
        """For each function, by the way to it, the call in the middle of those whose result can be NaN."""
        found: dict[str, list[Call]] = {}
        for path, call in self.start.paths():
            if spoil(call.result) is not None:
                found.setdefault(" > ".join(path), []).append(call)
        return {path: calls[len(calls) // 2] for path, calls in found.items()}

    def again(self, spoilt: Call | None = None) -> Evidence | None:
        """Measure from the tape, with one entry of one result NaN; None where that raises an error."""
        self._spoilt, self._reached = spoilt, False
        self._inside, self._next = self.start, iter(self.start.calls)
        with _listening(self.claim, self._play), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                evidence = self.claim.measure()
            except Exception:
                if spoilt is None:
                    raise
                evidence = None
        assert self._reached or spoilt is None, "the call was not made again"
        return evidence

    def _record(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        outer, call = self._inside, Call(name)
        self._inside = call
        try:
            result = function(*args, **options)
        finally:
            self._inside = outer
        outer.count[name] += 1
        if outer.count[name] > MANY:
            outer.calls = [each for each in outer.calls if each.name != name]
            return result
        outer.calls.append(call)
        try:
            call.result = copy.deepcopy(result)
        except (TypeError, RuntimeError):  # iterators, and tensors inside a graph
            call.can_be_copied = False
        call.randomness = [copy.deepcopy(_state(each)) for each in _generators(args, options)]
        return result

    def _play(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        function = getattr(function, "__wrapped__", function)  # nothing spoilt may be remembered by a cache
        call = None if self._inside.count[name] > MANY else next(self._next, None)
        if call is None or call.name != name or (call is not self._spoilt and _has_nan((args, options))):
            return self._in_earnest(Call(name), function, args, options)  # nothing on the tape fits inside it
        spoilt = call is self._spoilt
        if not spoilt and (not call.can_be_copied or call.leads_to(self._spoilt)):
            return self._in_earnest(call, function, args, options)
        for generator, state in zip(_generators(args, options), call.randomness, strict=True):
            _set_state(generator, state)
        self._reached |= spoilt
        return spoil(call.result) if spoilt else copy.deepcopy(call.result)

    def _in_earnest(
        self, call: Call, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        outer = self._inside, self._next
        self._inside, self._next = call, iter(call.calls)
        try:
            return function(*args, **options)
        finally:
            self._inside, self._next = outer


@contextmanager
def _listening(claim: Claim, hear: Callable[..., Any]) -> Iterator[None]:
    """While this lasts, calls by the names of a claim's module go through `hear`."""
    names = vars(sys.modules[claim.measure.__module__])

    def heard(name: str, function: Callable[..., Any], *, inner: bool) -> Callable[..., Any]:
        @functools.wraps(function)
        def listened_to(*args: Any, **options: Any) -> Any:
            # a method is heard where the claim calls it, not where the library calls itself
            if not inner and sys._getframe(1).f_globals is not names:
                return function(*args, **options)
            return hear(name, function, args, options)

        listened_to.heard = True  # type: ignore[attr-defined]
        return listened_to

    with pytest.MonkeyPatch.context() as patch:
        for name, value in list(names.items()):
            home = getattr(value, "__module__", "")
            # checks at the door give back what they were given
            if not home.startswith("lib.") or home in ("lib.claims", "lib.validation"):
                continue
            if isinstance(value, (types.FunctionType, _CACHED)) and not inspect.isgeneratorfunction(value):
                patch.setitem(names, name, heard(name, value, inner=True))
            for owner, method, member, function in _methods(value) if isinstance(value, type) else ():
                if not hasattr(function, "heard"):
                    replaced = heard(f"{owner.__name__}.{method}", function, inner=False)
                    patch.setattr(owner, method, type(member)(replaced) if member is not function else replaced)
        yield


def _methods(kind: type) -> Iterator[tuple[type, str, Any, types.FunctionType]]:
    """The methods of a class of ours: where each stands, its name, what stands there, and the function in it."""
    for owner in kind.__mro__:
        for name, member in list(vars(owner).items()) if owner.__module__.startswith("lib.") else ():
            function = getattr(member, "__func__", member)
            if isinstance(function, types.FunctionType) and (name[:2] != "__" or name == "__call__"):
                yield owner, name, member, function


def spoil(value: Any) -> Any:
    """A copy in which every number is NaN, every array in its middle entry; None where there is no number."""
    for kinds in ("fc", "iu"):  # counts only where there is nothing else
        spoilt = _spoil(value, kinds)
        if spoilt is not None:
            return spoilt
    return None


def _spoil(value: Any, kinds: str) -> Any:
    if isinstance(value, (bool, np.bool_, str, LocalInertialSolver, LUQConfig, Evidence)):
        return None  # settings are no measurements
    if isinstance(value, torch.Tensor):
        spoilt = _spoil(value.detach().numpy(), kinds)
        return None if spoilt is None else torch.from_numpy(spoilt)
    if isinstance(value, (int, float, np.number, np.ndarray)):
        return _spoil_numbers(value, kinds)
    parts = {name: new for name, part in _parts(value).items() if (new := _spoil(part, kinds)) is not None}
    return _exchange(value, parts) if parts else None


def _spoil_numbers(value: Any, kinds: str) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in kinds or not array.size:
        return None
    if not isinstance(value, np.ndarray):
        return float("nan")
    spoilt = array.astype(float) if array.dtype.kind in "iu" else array.copy()
    spoilt.flat[spoilt.size // 2] = np.nan
    return spoilt


def _parts(value: Any) -> dict[Any, Any]:
    """What a result is made of: entries, the attributes of an object of ours, the first parameter of a network."""
    if isinstance(value, torch.nn.Module):
        return dict(list(value.named_parameters())[:1])
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    return vars(value) if type(value).__module__.startswith("lib.") and hasattr(value, "__dict__") else {}


def _exchange(value: Any, parts: dict[Any, Any]) -> Any:
    """A copy with other parts."""
    if isinstance(value, torch.nn.Module):
        network = copy.deepcopy(value)
        with torch.no_grad():
            for name, part in parts.items():
                network.get_parameter(name).copy_(part)
        return network
    if isinstance(value, dict):
        return {**value, **parts}
    if isinstance(value, (list, tuple)):
        whole = [parts.get(number, part) for number, part in enumerate(value)]
        return type(value)(*whole) if hasattr(value, "_fields") else type(value)(whole)
    changed = copy.copy(value)
    for name, part in parts.items():
        object.__setattr__(changed, name, part)
    return changed


def _has_nan(value: Any, depth: int = 6) -> bool:
    """Whether there is a NaN in what a call was given, in the cells of a function that it was given, too."""
    if isinstance(value, torch.Tensor):
        return bool(value.isnan().any())
    if isinstance(value, (float, np.ndarray, np.generic)):
        return np.asarray(value).dtype.kind in "fc" and bool(np.isnan(value).any())
    return depth > 0 and any(_has_nan(part, depth - 1) for part in _held(value))


def _held(value: Any) -> Iterable[Any]:
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, torch.nn.Module):
        return value.parameters()
    if isinstance(value, types.FunctionType):
        return [*(cell.cell_contents for cell in value.__closure__ or ()), *(value.__defaults__ or ())]
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    inside = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return () if isinstance(value, (type, types.ModuleType)) else inside.values()


def _generators(args: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
    kinds = (np.random.Generator, torch.Generator)
    return [each for each in (*args, *options.values()) if isinstance(each, kinds)]


def _state(generator: Any) -> Any:
    return generator.get_state() if isinstance(generator, torch.Generator) else generator.bit_generator.state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state
