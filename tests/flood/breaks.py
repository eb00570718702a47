"""What makes each claim of chapter 10 fail."""

from collections.abc import Callable
from dataclasses import replace as with_settings
from importlib import import_module

import pytest
import torch

from lib.flood import downsampler, exact, faces, learning, solver, symbolic
from lib.flood.claims import coarse_maps, peer
from lib.flood.claims import solver as solver_claims
from lib.flood.downsampler import Detour, Downsampler, ReliefScale
from lib.flood.experiment import PRESETS, trained_network
from lib.flood.pooling import pool_dem
from lib.flood.scenarios import CELL, Forcing
from lib.flood.solver import LocalInertialSolver
from tests.breaking import Break, both, edit, replace

# the package has a function of this name too
leak = import_module("lib.flood.wall")
STEP = LocalInertialSolver._step
SIMULATE = LocalInertialSolver.simulate


def with_clamped_depths(self, *arguments):
    """The well-known mistake: depths below zero are cut off after the step, which makes water."""
    state = STEP(with_settings(self, limiter=False), *arguments)
    return state._replace(h=state.h.clamp_min(0))


def without_limiter(self, *arguments):
    return STEP(with_settings(self, limiter=False), *arguments)


def with_limiter(self, *arguments):
    return STEP(with_settings(self, limiter=True), *arguments)


def in_torch(self, *arguments, **options):
    """What the compiled loop would do if it had been written with the same mistake as the tensor operations."""
    return SIMULATE(self, *arguments, **{**options, "backend": "torch"})


MOMENTUM = (solver, "new_discharge")
SEGMENT = (LocalInertialSolver, "_segment")
COMPILED = (LocalInertialSolver, "_run_compiled")

SHALLOWER_FRICTION = edit(*MOMENTUM, "pow(-7 / 3)", "pow(-4 / 3)")
LEVELS_IN_SINGLE_PRECISION = edit(*MOMENTUM, "level = z + h", "level = (z + h).float().double()")
DEPTH_OF_THE_WESTERN_CELL = edit(
    *MOMENTUM, "torch.maximum(_first(z, dim), _second(z, dim))", "torch.maximum(_first(z, dim), _first(z, dim))"
)

HELD_OUT = coarse_maps.held_out

SWAPPED = {"min": "max", "max": "min"}


#: Fine floods are dear and no break touches them: they are solved before anything is broken, and kept.
KEEP = (coarse_maps.held_out, coarse_maps.training_maps, coarse_maps.best_relief, peer.landlab_reference)


def BEFORE() -> None:
    for kind in ("rain", "inflow"):
        coarse_maps.held_out(kind)
    for factor in (8, 16):
        coarse_maps.best_relief(factor)


#: The cost is much the same on all maps.
SETTING = replace(coarse_maps, "_COUNTED", 2)


def always_the_mean(z, factor, how="mean"):
    return pool_dem(z, factor)


def maximum_for_minimum(z, factor, how="mean"):
    return pool_dem(z, factor, SWAPPED.get(how, how))


def with_weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Break:
    """The networks that ship with the package, with other weights in their last layer."""

    def broken(name):
        trained = trained_network(name)
        with torch.no_grad():
            for part in trained.model.layers[-1].parameters():
                part.copy_(change(part))
        return trained

    return replace(coarse_maps, "trained_network", broken)


def shipped_only(name: str) -> Break:
    """One network, whichever was asked for."""
    return replace(coarse_maps, "trained_network", lambda _: trained_network(name))


def fresh_network(name):
    """The weights were not loaded, and not all of them start at zero."""
    trained = trained_network(name)
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
    presets = {**PRESETS, "quick": with_settings(PRESETS["quick"], **changed)}
    return replace(coarse_maps, "PRESETS", presets)


def no_sides(self, shape):
    """All sides are walls: no river comes in."""


def solver_of_fine_cells(*, dx, **options):
    """A coarse map taken for a small one."""
    return LocalInertialSolver(dx=CELL, **options)


def same_steps(self, *arguments, **options):
    """Steps of a second on every map: fewer cells, but no longer steps."""
    return SIMULATE(self, *arguments, **{**options, "dt_max": 1.0})


def in_six_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A descent of fewer and longer steps, which leaves half of the error where nothing is broken."""
    descend = coarse_maps.descend_coarse_maps
    monkeypatch.setattr(
        coarse_maps, "descend_coarse_maps", lambda *given, **how: descend(*given, **how | {"iterations": 6, "lr": 0.05})
    )


CORRECTION_LOST = with_weights(torch.zeros_like)
BREAKS: dict[str, list[Break]] = {
    "lake-at-rest": [
        # the slope of the depth, not of the level
        edit(*MOMENTUM, "rise = _second(level, dim) - _first(level, dim)", "rise = _second(h, dim) - _first(h, dim)"),
        # a side that nobody opened lets water out
        edit(solver, "open_sides", "return {}", 'boundary = Boundary(outflow={"east": 0.001})'),
        # a film on dry land, so that nothing is divided by zero
        edit(LocalInertialSolver, "initial_state", "z).expand(z.shape)", "z).clamp_min(self.h_dry).expand(z.shape)"),
    ],
    "water-is-conserved": [
        edit(solver, "limit_to_donors", "qx * torch.where(qx > 0, from_west, from_east)", "qx * from_west"),
        edit(solver, "limit_to_donors", "share = torch.where(short, may", "share = torch.where(short, 1.01 * may"),
        replace(LocalInertialSolver, "_step", with_clamped_depths),
        replace(LocalInertialSolver, "_step", without_limiter),
        # the limiter does not see what leaves to the north and the south
        edit(solver, "limit_to_donors", "_second(qy, -2).clamp_min(0) - _first(qy, -2).clamp_max(0)", "0"),
        edit(LocalInertialSolver, "_volumes", "inward.clamp_max(0)", "inward.clamp_max(0).div(2)"),
        edit(solver, "net_outflow", "_first(qy, -2)", "_first(qy, -2) * 0.999"),
    ],
    "floor-and-limiter-are-needed": [
        edit(LocalInertialSolver, "time_step", "clamp_min(self.h_cfl_min)", "clamp_min(0.01)"),
        replace(LocalInertialSolver, "_step", with_limiter),
        replace(LocalInertialSolver, "_step", without_limiter),
        replace(LocalInertialSolver, "_step", with_clamped_depths),
    ],
    "uniform-flow": [
        SHALLOWER_FRICTION,
        edit(solver_claims, "normal_depth", "** 0.6", "** 0.5"),
        edit(solver, "outer_faces", "pow(5 / 3)", "pow(2 / 3)"),
        edit(solver, "open_sides", "slope).sqrt()", "slope)"),
        edit(*COMPILED, "self.g, self.manning,", "self.g, self.manning * 1.001,"),
    ],
    "converges-to-its-own-wave": [
        edit(exact, "planar_wave", 'if model == "full"', "if model"),
        SHALLOWER_FRICTION,
        edit(exact, "planar_wave", "speed**2 / gravity", "2 * speed**2 / gravity"),
    ],
    "not-to-hunters-wave": [
        edit(exact, "planar_wave", 'if model == "full"', "if not model"),
        edit(exact, "planar_wave", "(7 / 3 * fall)", "(5 / 3 * fall)"),
        SHALLOWER_FRICTION,
    ],
    "symmetries-of-the-square": [
        DEPTH_OF_THE_WESTERN_CELL,
        LEVELS_IN_SINGLE_PRECISION,
        # only the western of two neighbours counts
        edit(faces, "_weighted", "(1 - theta) / 2 * (left + right)", "(1 - theta) * left"),
        # friction feels the other component on one side of the face alone
        edit(*MOMENTUM, "(_first(around, dim) + _second(around, dim)) / 4", "_first(around, dim) / 2"),
    ],
    "agrees-with-landlab": [
        edit(peer, "solver_like_landlab", 'friction="component"', 'friction="vector"'),
        edit(peer, "solver_like_landlab", 'edge="mirror"', 'edge="replicate"'),
        edit(peer, "solver_like_landlab", "g=flood.g", "g=9.8"),
        SHALLOWER_FRICTION,
    ],
    "gradient-through-time": [
        # the water does not remember its way here
        edit(*SEGMENT, "_Run(new,", "_Run(State(new.h, new.qx.detach(), new.qy.detach()),"),
        edit(*MOMENTUM, "dt * speed * depth", "dt * speed.detach() * depth"),
        # the bed under a face counts for its depth, but not for the gradient
        edit(*MOMENTUM, "torch.maximum(_first(z, dim)", "torch.maximum(_first(z.detach(), dim)"),
    ],
    "time-steps-are-left-out": [
        # steps that the gradient goes through: then nothing is left out
        both(
            edit(*SEGMENT, "with torch.no_grad()", "with torch.enable_grad()"),
            edit(LocalInertialSolver, "time_step", "deepest = h.detach()", "deepest = h"),
        ),
        # steps that do not follow the depth
        edit(LocalInertialSolver, "time_step", "clamp_min(self.h_cfl_min)", "clamp(10.0, 10.0)"),
        edit(*SEGMENT, "_Run(new,", "_Run(State(new.h, new.qx.detach(), new.qy.detach()),"),
    ],
    "two-cell-waves-set-the-bound": [
        edit(symbolic, "two_cell_wave_matrix", "own = 2 * theta - 1", "own = theta"),
        edit(symbolic, "two_cell_wave_matrix", "1 + 2 * alpha", "1 + alpha"),
        edit(*COMPILED, "self.theta, self.h_dry, self.alpha", "1.0, self.h_dry, self.alpha"),
        edit(*COMPILED, "self.alpha, self.h_cfl_min", "self.alpha / 2, self.h_cfl_min"),
        both(
            replace(LocalInertialSolver, "simulate", in_torch),
            edit(*MOMENTUM, "(g / dx) * dt", "(g / dx) * dt / 2"),
        ),
    ],
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
        edit(coarse_maps, "leak", "dx=_CELL * width", "dx=_CELL"),
        # the whole river through each coarse face
        edit(coarse_maps, "leak", ".mean(-1)", ".sum(-1)"),
    ],
    "best-pooling-depends-on-the-flood": [
        replace(learning, "pool_dem", always_the_mean),
        replace(learning, "pool_dem", maximum_for_minimum),
        edit(Forcing, "coarse", ".mean(-1)", ".sum(-1)"),
    ],
    "learnt-maps-win": [
        CORRECTION_LOST,
        with_weights(torch.neg),
        replace(coarse_maps, "trained_network", fresh_network),
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
        replace(coarse_maps, "held_out", lambda _: HELD_OUT("rain")),
        replace(Forcing, "boundary", no_sides),
    ],
    "cost-falls-with-the-cube": [
        replace(LocalInertialSolver, "simulate", same_steps),
        replace(coarse_maps, "LocalInertialSolver", solver_of_fine_cells),
        edit(*COMPILED, "self.dx, self.g,", "self.dx**2 / 8, self.g,"),
    ],
    "one-map-can-go-far": [
        both(edit(coarse_maps, "descend_coarse_maps", "error.sum().back", "(-error.sum()).back"), in_six_steps),
        # the slope of the water drives it, but the gradient does not know
        both(edit(*MOMENTUM, "dt * depth * rise", "dt * depth * rise.detach()"), in_six_steps),
    ],
    "training-on-both-serves-both": [
        CORRECTION_LOST,
        shipped_only("rain"),
        replace(coarse_maps, "trained_network", fresh_network),
    ],
}
