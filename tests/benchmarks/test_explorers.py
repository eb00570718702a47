"""Kernel time from a control's change to the message sent, and its bytes: the budget is 50 ms, the aim 10."""

import numpy as np
import pytest

from lib.explorer import all_explorers
from tests.wire import Wire

EXPLORERS = all_explorers()


@pytest.mark.parametrize("name", EXPLORERS)
@pytest.mark.parametrize("control", ["first", "any"])
def test_handler(benchmark, monkeypatch, name: str, control: str) -> None:
    wire = Wire(monkeypatch)
    explorer = EXPLORERS[name]()
    rng = np.random.default_rng(0)
    names = list(explorer.declared)[: 1 if control == "first" else None]
    benchmark.group = "explorers: kernel time of a control's change"
    benchmark.extra_info["label"] = f"{name}, {control} control"
    sent = []

    def values():
        sent.append(wire.bytes)
        chosen = names[int(rng.integers(len(names)))]
        return (), {chosen: explorer.declared[chosen].random(rng)}

    benchmark.pedantic(explorer.set, setup=values, rounds=60)
    kilobytes = np.diff([*sent, wire.bytes])[1:] / 1000
    slow = 1e3 * np.quantile(benchmark.stats.stats.data, 0.9)
    benchmark.extra_info["kilobytes"] = round(float(np.median(kilobytes)), 1)
    benchmark.extra_info["note"] = f"90 %: {slow:.1f} ms; {np.median(kilobytes):.1f} kB, at most {kilobytes.max():.1f}"
    assert not explorer.error
