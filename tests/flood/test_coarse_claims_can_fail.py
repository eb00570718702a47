"""Every claim about coarse maps is seen to fail when the thing it speaks of is broken."""

from collections.abc import Callable, Iterator
from dataclasses import replace as with_settings
from functools import lru_cache
from importlib import import_module

import pytest
import torch

from lib.claims import Claim, ledger
from lib.flood import coarse_claims as claims_module
from lib.flood import downsampler, experiment, learning, solver_claims
from lib.flood.downsampler import Detour, Downsampler, ReliefScale
from lib.flood.experiment import FLOOD_PRESETS, trained_downsampler
from lib.flood.pooling import pool_dem
from lib.flood.scenarios import CELL, FloodDataset, Forcing, draw_floods
from lib.flood.solver import LocalInertialSolver
from tests.breaking import Break, edit, replace
from tests.flood.test_solver_claims_can_fail import MOMENTUM, SIMULATE

# the package has a function of this name too
leak = import_module("lib.flood.wall")

CLAIMS = {value.id: value for value in vars(claims_module).values() if isinstance(value, Claim)}
HELD_OUT = claims_module.held_out

SWAPPED = {"min": "max", "max": "min"}


@lru_cache(maxsize=3)
def all_floods(seed: int, split: str, kind: str) -> FloodDataset:
    """Fine floods are dear and no break touches them: they are solved once."""
    return draw_floods(48, seed=seed, split=split, kind=kind)


def remembered_floods(count, *, seed, split="train", kind="rain", **_):
    whole = all_floods(seed, split, kind)
    return FloodDataset(whole.z[:count], whole.h[:count], whole.forcing[:count])


@pytest.fixture(autouse=True)
def _floods_are_remembered_but_not_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The network that a claim trains is kept within a session: a break must not meet it, nor leave its own behind."""
    monkeypatch.setattr(claims_module, "draw_floods", remembered_floods)
    monkeypatch.setattr(experiment, "draw_floods", remembered_floods)
    trained = claims_module.trained_here
    trained.cache_clear()
    yield
    trained.cache_clear()


def always_the_mean(z, factor, how="mean"):
    return pool_dem(z, factor)


def maximum_for_minimum(z, factor, how="mean"):
    return pool_dem(z, factor, SWAPPED.get(how, how))


def with_weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Break:
    """The networks that ship with the package, with other weights in their last layer."""

    def broken(name):
        trained = trained_downsampler(name)
        with torch.no_grad():
            for part in trained.model.layers[-1].parameters():
                part.copy_(change(part))
        return trained

    return replace(claims_module, "trained_downsampler", broken)


def shipped_only(name: str) -> Break:
    """One network, whichever was asked for."""
    return replace(claims_module, "trained_downsampler", lambda _: trained_downsampler(name))


def fresh_network(name):
    """The weights were not loaded, and not all of them start at zero."""
    trained = trained_downsampler(name)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in trained.model.parameters():
            part.copy_(torch.randn(part.shape, generator=generator) / 10)
    return trained


def without_features(z, factor):
    """All blocks look alike."""
    rows, columns = z.shape[1:]
    return torch.zeros(len(z), 9, rows // factor, columns // factor)


def quick(**changed: object) -> Break:
    """The small preset, with other settings."""
    presets = {**FLOOD_PRESETS, "quick": with_settings(FLOOD_PRESETS["quick"], **changed)}
    return replace(claims_module, "FLOOD_PRESETS", presets)


def no_sides(self, shape):
    """All sides are walls: no river comes in."""


def solver_of_fine_cells(*, dx, **options):
    """A coarse map taken for a small one."""
    return LocalInertialSolver(dx=CELL, **options)


def same_steps(self, *arguments, **options):
    """Steps of a second on every map: fewer cells, but no longer steps."""
    return SIMULATE(self, *arguments, **{**options, "dt_max": 1.0})


CORRECTION_LOST = with_weights(torch.zeros_like)

BREAKS: dict[str, list[Break]] = {
    "averages-leak": [
        replace(leak, "pool_dem", always_the_mean),
        replace(leak, "pool_dem", maximum_for_minimum),
        edit(leak, "walled_plain", "+= _HEIGHT", "+= _HEIGHT / 30"),
        # a wall with a gap of one cell
        edit(leak, "walled_plain", "z[:, list(WALL)]", "z[1:, list(WALL)]"),
    ],
    "maximum-keeps-the-wall-at-a-price": [
        replace(leak, "pool_dem", always_the_mean),
        replace(leak, "pool_dem", maximum_for_minimum),
        edit(claims_module, "leak", "dx=_CELL * width", "dx=_CELL"),
        # the whole river through each coarse face
        edit(claims_module, "leak", ".mean(-1)", ".sum(-1)"),
    ],
    "best-pooling-depends-on-the-flood": [
        replace(learning, "pool_dem", always_the_mean),
        replace(learning, "pool_dem", maximum_for_minimum),
        edit(Forcing, "coarse", ".mean(-1)", ".sum(-1)"),
    ],
    "learnt-maps-win": [
        CORRECTION_LOST,
        with_weights(torch.neg),
        replace(claims_module, "trained_downsampler", fresh_network),
        replace(downsampler, "_UNIT", 1.0),
        edit(Downsampler, "correction", "above = z -", "above = 0 * z -"),
        edit(Detour, "forward", "pooled + self", "self"),
    ],
    "one-number-explains-most-of-it": [
        CORRECTION_LOST,
        shipped_only("mixed"),
        edit(ReliefScale, "correction", "(self.relief - 1)", "0 * self.relief"),
    ],
    "passes-and-quantiles-help": [
        quick(lr=1e-9, epochs=1),
        replace(downsampler, "block_features", without_features),
    ],
    "rain-does-not-carry-over-to-rivers": [
        CORRECTION_LOST,
        shipped_only("mixed"),
        # rain instead of rivers, and rivers that do not run
        replace(claims_module, "held_out", lambda _: HELD_OUT("rain")),
        replace(Forcing, "boundary", no_sides),
    ],
    "cost-falls-with-the-cube": [
        replace(LocalInertialSolver, "simulate", same_steps),
        replace(claims_module, "LocalInertialSolver", solver_of_fine_cells),
        edit(
            LocalInertialSolver,
            "_run_compiled",
            "float(self.dx), float(self.g)",
            "float(self.dx) ** 2 / 8, float(self.g)",
        ),
    ],
    "one-map-can-go-far": [
        edit(claims_module, "descend_coarse_maps", "error.sum().backward()", "(-error.sum()).backward()"),
        # the slope of the water drives it, but the gradient does not know
        edit(*MOMENTUM, "dt * depth * rise", "dt * depth * rise.detach()"),
    ],
    "training-on-both-serves-both": [
        CORRECTION_LOST,
        shipped_only("rain"),
        replace(claims_module, "trained_downsampler", fresh_network),
    ],
}


def test_every_claim_has_a_break() -> None:
    assert set(BREAKS) == set(CLAIMS)
    assert min(len(breaks) for breaks in BREAKS.values()) >= 2
    others = {value.id for value in vars(solver_claims).values() if isinstance(value, Claim)}
    assert set(ledger("flood").claims) == set(CLAIMS) | others


@pytest.mark.parametrize(
    ("claim_id", "number"), [(name, number) for name, breaks in BREAKS.items() for number in range(len(breaks))]
)
def test_a_broken_implementation_is_noticed(claim_id: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    BREAKS[claim_id][number](monkeypatch)
    assert not CLAIMS[claim_id].check().evidence.holds
