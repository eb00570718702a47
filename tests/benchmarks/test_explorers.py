"""Kernel time from a control's change to the message sent: the budget is 50 ms, the aim 10."""

import numpy as np
import pytest

from lib.explorer import all_explorers

EXPLORERS = all_explorers()


@pytest.mark.parametrize("name", EXPLORERS)
@pytest.mark.parametrize("control", ["first", "any"])
def test_handler(benchmark, name: str, control: str) -> None:
    explorer = EXPLORERS[name]()
    rng = np.random.default_rng(0)
    names = list(explorer.declared)[: 1 if control == "first" else None]
    benchmark.group = "explorers: kernel time of a control's change"
    benchmark.extra_info["label"] = f"{name}, {control} control"

    def values():
        chosen = names[int(rng.integers(len(names)))]
        return (), {chosen: explorer.declared[chosen].random(rng)}

    benchmark.pedantic(explorer.set, setup=values, rounds=60)
    benchmark.extra_info["note"] = f"90 %: {1e3 * np.quantile(benchmark.stats.stats.data, 0.9):.1f} ms"
    assert not explorer.error
