"""Ways to break an implementation, so that a test can see the claims about it fail."""

import __future__

import inspect
import textwrap
from collections.abc import Callable

import pytest

Break = Callable[[pytest.MonkeyPatch], None]


def replace(target: object, name: str, value: object) -> Break:
    return lambda monkeypatch: monkeypatch.setattr(target, name, value)


def edit(target: object, name: str, old: str, new: str) -> Break:
    """The same function but for one place in its source, where `target` looks it up."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        function = getattr(target, name)
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(old) == 1, f"{name} has {source.count(old)} times {old!r}: adapt the break"
        # annotations stay text, as in the module: some of their names are imported for type checkers alone
        flags = __future__.annotations.compiler_flag
        code = compile(source.replace(old, new), f"<{name}, edited>", "exec", flags, dont_inherit=True)
        namespace = dict(inspect.unwrap(function).__globals__)
        exec(code, namespace)
        monkeypatch.setattr(target, name, namespace[function.__name__])

    return apply


def both(*breaks: Break) -> Break:
    """What is wrong in more than one place."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        for each in breaks:
            each(monkeypatch)

    return apply
