"""Every claim about the solver is seen to fail when the thing it speaks of is broken."""

from dataclasses import replace as with_settings

import pytest

from lib.claims import Claim
from lib.flood import faces, peer, solver, symbolic, verification
from lib.flood import solver_claims as claims_module
from lib.flood.solver import LocalInertialSolver
from tests.breaking import Break, both, edit, replace

CLAIMS = {value.id: value for value in vars(claims_module).values() if isinstance(value, Claim)}
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
        edit(claims_module, "normal_depth", "** 0.6", "** 0.5"),
        edit(solver, "outer_faces", "pow(5 / 3)", "pow(2 / 3)"),
        edit(solver, "open_sides", "slope).sqrt()", "slope)"),
        edit(*COMPILED, "float(self.manning)", "float(self.manning) * 1.001"),
    ],
    "converges-to-its-own-wave": [
        edit(verification, "planar_wave", 'if model == "full"', "if model"),
        SHALLOWER_FRICTION,
        edit(verification, "planar_wave", "speed**2 / gravity", "2 * speed**2 / gravity"),
    ],
    "not-to-hunters-wave": [
        edit(verification, "planar_wave", 'if model == "full"', "if not model"),
        edit(verification, "planar_wave", "(7 / 3 * fall)", "(5 / 3 * fall)"),
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
        edit(*COMPILED, "float(self.theta)", "1.0"),
        edit(*COMPILED, "float(self.alpha)", "float(self.alpha) / 2"),
        both(
            replace(LocalInertialSolver, "simulate", in_torch),
            edit(*MOMENTUM, "(g / dx) * dt", "(g / dx) * dt / 2"),
        ),
    ],
}


def test_every_claim_has_a_break() -> None:
    assert set(BREAKS) == set(CLAIMS)
    assert min(len(breaks) for breaks in BREAKS.values()) >= 2


@pytest.mark.parametrize(
    ("claim_id", "number"), [(name, number) for name, breaks in BREAKS.items() for number in range(len(breaks))]
)
def test_a_broken_implementation_is_noticed(claim_id: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    BREAKS[claim_id][number](monkeypatch)
    assert not CLAIMS[claim_id].check().evidence.holds
