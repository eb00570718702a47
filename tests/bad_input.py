"""One wrong argument at a time for every public name: calls taken from the docstrings' examples, and what comes of it.

`recorded_calls` runs a module's examples and keeps each public function's, class's and method's first call. `sweep`
repeats a call with one argument replaced, and sorts what happens into classes.
"""

import copy
import dataclasses
import doctest
import functools
import inspect
import io
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# an optimiser imports it late: a call that is stopped in the middle of that would leave it half done
import torch._dynamo

HANG_SECONDS = 10
# a call that takes longer is only given what must be refused before any work
QUICK_SECONDS = 0.1
SLOW_SECONDS = 2
_BEFORE_WORK = ("none", "text", "foreign")


class Foreign:
    """An object of a class that nobody has heard of."""


@dataclasses.dataclass
class Call:
    """One call that an example makes."""

    name: str
    function: Callable[..., Any]
    bound: inspect.BoundArguments

    def with_arguments(self, arguments: dict[str, Any]) -> Any:
        """Call again."""
        bound = copy.copy(self.bound)
        bound.arguments = arguments
        return self.function(*bound.args, **bound.kwargs)


class Enough(KeyboardInterrupt):
    """The call is known: the rest of the example need not run. (Everything else would be caught by doctest.)"""


def _public(module_name: str) -> dict[str, Any]:
    module = import_module(module_name)
    names = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    found = {name: getattr(module, name) for name in names if callable(getattr(module, name))}
    # what a context manager is given is looked at when its block begins
    return {name: each for name, each in found.items() if not inspect.isgeneratorfunction(inspect.unwrap(each))}


def recorded_calls(module_name: str) -> list[Call]:
    """The first call of each public callable of a module or wing, in the order of their names."""
    calls: dict[str, Call] = {}
    for name, value in sorted(_public(module_name).items()):
        for owner in [value, *(vars(value).values() if inspect.isclass(value) else ())]:
            text = inspect.getdoc(owner) or ""
            if ">>>" in text and getattr(value, "__module__", "").startswith("lib."):
                _run_example(name, value, text, calls)
    return [calls[name] for name in sorted(calls)]


def _run_example(name: str, value: Any, text: str, calls: dict[str, Call]) -> None:
    """Run one example in its module's names, with the public callable exchanged for one that remembers its call."""
    names = dict(vars(sys.modules[value.__module__]))
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)

    def remembering(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def remember(*args: Any, **kwargs: Any) -> Any:
            if label not in calls and sys._getframe(1).f_code.co_filename.startswith("<doctest"):
                kept = copy.deepcopy((args, kwargs))
                bound = inspect.signature(function).bind(*kept[0], **kept[1])
                bound.apply_defaults()
                calls[label] = Call(label, function, bound)
                if not inspect.isclass(value):
                    raise Enough
            return function(*args, **kwargs)

        return remember

    with pytest.MonkeyPatch.context() as patch, quietly(), suppress(Enough):
        if inspect.isclass(value):
            for attribute, member in list(vars(value).items()):
                public = not attribute.startswith("_") and attribute != "forward"
                # the constructor of a dataclass that checks nothing makes a record of results: nobody's door
                record = dataclasses.is_dataclass(value) and not hasattr(value, "__post_init__")
                if inspect.isfunction(member) and (public or (attribute == "__init__" and not record)):
                    patch.setattr(value, attribute, remembering(f"{name}.{attribute}", member))
        else:
            names[value.__name__] = remembering(name, value)
        patch.setattr(tempfile, "TemporaryDirectory", _kept_folder)
        test = doctest.DocTestParser().get_doctest(text, names, name, None, None)
        runner.run(test, out=lambda _: None, clear_globs=False)


@contextmanager
def _kept_folder(**_: Any) -> Iterator[str]:
    """A temporary folder that stays after its block, below the present folder: a call can be made again in it."""
    yield tempfile.mkdtemp(dir=Path.cwd())


def _wrong(value: Any) -> Iterator[tuple[str, Any]]:
    """What never is a valid value, by kind."""
    yield "none", None
    yield "text", "nonsense"
    yield "foreign", Foreign()
    yield "complex", 1 + 2j
    yield "ragged", [[1.0, 2.0], [3.0]]
    yield "nan", float("nan")
    yield "infinity", float("inf")
    if _is_number(value):
        yield "negative", -1 if isinstance(value, int) else -1.0
    if isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim and value.dtype not in (bool, torch.bool):
        real = value.dtype.kind == "f" if isinstance(value, np.ndarray) else value.is_floating_point()
        for kind, bad in (("nan", float("nan")), ("infinity", float("inf"))) if real and len(value) else ():
            spoilt = copy.deepcopy(value.detach() if isinstance(value, torch.Tensor) else value)
            spoilt.reshape(-1)[-1] = bad
            yield f"one {kind}", spoilt
        yield "empty", value[:0]
        yield "wrong rank", value[None, None]
        yield "negative", -abs(value)
        yield "complex array", value * (1 + 1j)
    elif isinstance(value, (list, tuple)) and value and all(_is_number(each) for each in value):
        yield "one nan", type(value)([*value[:-1], float("nan")])
        yield "empty", type(value)()


def _odd(value: Any) -> Iterator[tuple[str, Any]]:
    """What is as good as the value itself."""
    if isinstance(value, bool):
        yield "numpy scalar", np.bool_(value)
    elif isinstance(value, int):
        yield "numpy scalar", np.int64(value)
    elif isinstance(value, float):
        yield "numpy scalar", np.float64(value)
    elif isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "fiu":
        fixed = value.copy()
        fixed.flags.writeable = False
        yield "read-only", fixed
        yield "non-contiguous", np.repeat(value, 2, axis=-1)[..., ::2]
        if value.dtype.kind == "f":
            yield "float32", value.astype(np.float32)
    elif isinstance(value, torch.Tensor) and value.ndim:
        yield "non-contiguous", value.detach().repeat_interleave(2, -1)[..., ::2]
        if value.is_floating_point():
            yield "requires grad", value.detach().clone().requires_grad_()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def arrays_in(value: Any, depth: int = 0) -> Iterator[np.ndarray]:
    """All arrays of numbers in a value: in tensors, tuples, lists, dicts and dataclasses."""
    parts: Iterable[Any] = ()
    if isinstance(value, torch.Tensor):
        if not value.is_sparse and value.dtype != torch.bfloat16:
            yield value.detach().resolve_conj().numpy()
    elif isinstance(value, (np.ndarray, float, np.floating)):
        yield np.asarray(value)
    elif isinstance(value, (list, tuple, set)):
        parts = value
    elif isinstance(value, dict):
        parts = value.values()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    for part in parts if depth < 4 else ():
        yield from arrays_in(part, depth + 1)


def _finite(value: Any) -> bool:
    return all(np.isfinite(array).all() for array in arrays_in(value) if array.dtype.kind in "fc")


def _snapshot(value: Any) -> list[bytes]:
    return [array.tobytes() for array in arrays_in(value)]


class Hang(BaseException):
    """No answer in time."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise `Hang` where a block takes longer."""

    def stop(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _allows(parameter: inspect.Parameter, kind: str) -> bool:
    """Whether the annotation says that such a value is valid."""
    words = str(parameter.annotation)
    if parameter.annotation is inspect.Parameter.empty or "Any" in words or words == "object":
        return True
    if kind == "none":
        return "None" in words or parameter.default is None
    if kind == "text":
        return "str" in words or "Path" in words
    if kind == "foreign":
        return "object" in words
    return kind not in {"complex", "complex array", "ragged"}


def sweep(call: Call) -> Iterator[tuple[str, str, str]]:
    """(class, what was done, what came of it) for every replaced argument of one call."""
    start = time.perf_counter()
    plain = False
    arguments = copy.deepcopy(dict(call.bound.arguments))
    random_states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    try:
        with limit(SLOW_SECONDS), quietly():
            answer = call.with_arguments(arguments)
    except Hang:
        pass
    except Exception as error:
        if time.perf_counter() - start < SLOW_SECONDS:  # the file or folder that the example had made is gone
            yield "not repeatable", call.name, repr(error)[:100]
            return
        # else numba was stopped while it compiled, and has its own words for it
    else:
        plain = _finite(answer)
        seeded = any(arguments.get(name) is not None for name in ("seed", "generator", "rng"))
        if seeded and not _untouched(*random_states):
            yield "global random state moved", call.name, ""
        inside = list(arrays_in({name: value for name, value in arguments.items() if name != "self"}))
        if any(np.shares_memory(mine, yours) for mine in arrays_in(answer) for yours in inside):
            yield "shares memory", call.name, ""
    quick = time.perf_counter() - start < QUICK_SECONDS
    parameters = call.bound.signature.parameters
    for name, value in list(call.bound.arguments.items()):
        parameter = parameters[name]
        # `check` says whether a function looks at what it is given: where speed counts, not at `check` itself
        if name in ("self", "check") or parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        for valid, makers in ((False, _wrong(value)), (True, _odd(value))):
            for kind, replaced in makers:
                if not quick and (valid or kind not in _BEFORE_WORK or _allows(parameter, kind)):
                    continue
                arguments = copy.deepcopy({key: each for key, each in call.bound.arguments.items() if key != name})
                arguments = {key: replaced if key == name else arguments[key] for key in call.bound.arguments}
                what = f"{call.name}({name}={kind})"
                found, said = _outcome(call, arguments, name, valid=valid)
                if found == "right answer" and not valid:
                    spoilt = plain and said == "not finite"
                    found = "answer" if _allows(parameter, kind) and not spoilt else "silent"
                yield found, what, said


def _outcome(call: Call, arguments: dict[str, Any], name: str, *, valid: bool) -> tuple[str, str]:
    """The class of one call, and what was said or answered."""
    before = _snapshot({key: each for key, each in arguments.items() if key != "self"})
    try:
        with limit(HANG_SECONDS), quietly():
            answer = call.with_arguments(arguments)
    except Hang:
        return "hang", ""
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:150]
        if valid:
            return "valid input refused", said
        clear = isinstance(error, (ValueError, TypeError)) and name.strip("_").lower() in str(error).lower()
        return "clear refusal" if clear else "another kind of error", said
    if before != _snapshot({key: each for key, each in arguments.items() if key != "self"}):
        return "mutated argument", ""
    return "right answer", "finite" if _finite(answer) else "not finite"


def _untouched(torch_state: torch.Tensor, numpy_state: np.ndarray) -> bool:
    same = torch.equal(torch_state, torch.get_rng_state())
    return same and np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


@contextmanager
def quietly() -> Iterator[None]:
    """Nothing printed, no warnings."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def counted(module_name: str) -> tuple[Counter[str], list[tuple[str, str, str]]]:
    """The classes of all calls of a module or wing, and every outcome."""
    found = [outcome for call in recorded_calls(module_name) for outcome in sweep(call)]
    return Counter(kind for kind, _, _ in found), found
