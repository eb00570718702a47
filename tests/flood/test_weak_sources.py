"""In float32 a drizzle on deep water arrives: in both backends, through states and gradients, and as it is reported."""

import pytest
import torch

from lib.flood import Boundary, FloodResult, LocalInertialSolver, State
from tests.flood.test_physics import BACKENDS, F64, hills

DEPTHS = torch.tensor([0.01, 0.1, 1.0, 5.0, 20.0, 100.0])
MM_PER_HOUR = torch.tensor([0.1, 1.0, 10.0, 100.0])
DRIZZLE = 1 / 3.6e6  # [m/s]


def gained(result: FloodResult, solver: LocalInertialSolver, h0: torch.Tensor) -> torch.Tensor:
    """Water [m^3] that came to a map, from its depths alone."""
    depth = result.h.double() + result.carry.double()
    return solver.dx**2 * (depth - h0.double()).sum(dim=(-2, -1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dx", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_rain_arrives_on_still_and_on_moving_water(backend: str, dx: float, tilt: float) -> None:
    solver = LocalInertialSolver(dx=dx)
    h0 = (DEPTHS[:, None, None, None] * (1 + tilt * torch.linspace(-1, 1, 5))).expand(6, 4, 3, 5)
    rain = (MM_PER_HOUR / 3.6e6)[:, None, None].expand(6, 4, 1, 1)
    seconds = 60 * solver.time_step(h0)
    result = solver.simulate(torch.zeros(6, 4, 3, 5), seconds, h0=h0, rain=rain, backend=backend)
    rained = seconds * rain[..., 0, 0].double() * 15 * dx**2
    assert (gained(result, solver, h0) / rained - 1).abs().max() < 1e-3
    assert (result.volume_in / rained - 1).abs().max() < 1e-6
    assert result.mass_error.abs().max() < 1e-3
    assert (result.carry.abs() <= torch.finfo(torch.float32).eps * result.h).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trickle_through_a_side_arrives(backend: str) -> None:
    solver, h0 = LocalInertialSolver(dx=10.0), torch.full((4, 6), 50.0)
    q = 1e-6  # [m^2/s]: 40 cm^3 every second
    result = solver.simulate(torch.zeros(4, 6), 100.0, h0, boundary=Boundary({"west": q}), backend=backend)
    assert (gained(result, solver, h0) / (q * 40 * 100)).item() == pytest.approx(1, abs=1e-3)
    through = Boundary({"west": q}, {"east": 1e-6})
    assert solver.simulate(torch.zeros(4, 6), 100.0, h0, boundary=through, backend=backend).mass_error.abs() < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_two_halves_are_the_whole_bit_for_bit(backend: str, dtype: torch.dtype) -> None:
    z, solver = hills((6, 7), 3).to(dtype), LocalInertialSolver(dx=10.0)
    options = {"rain": DRIZZLE, "boundary": Boundary({"west": 1e-5}), "dt_max": 0.25, "backend": backend}
    whole = solver.simulate(z, 20.0, h0=9.0, **options)
    first = solver.simulate(z, 10.0, h0=9.0, **options)
    second = solver.simulate(z, 10.0, state=first.state, **options)
    for name in State._fields:
        a, b = getattr(whole.state, name), getattr(second.state, name)
        assert (a is None) == (b is None) == (name == "carry" and dtype == F64)
        assert a is None or torch.equal(a, b)
    assert torch.equal(first.volume_after, second.volume_before)
    if dtype == torch.float32:
        assert not torch.equal(first.carry, torch.zeros_like(z))
        without = solver.simulate(z, 10.0, state=first.state._replace(carry=None), **options)
        assert not torch.equal(without.carry, whole.carry)


def test_single_steps_carry_too_and_states_change_their_precision() -> None:
    solver, z = LocalInertialSolver(dx=10.0), torch.zeros(3, 4)
    run = solver.simulate(z, 25.0, h0=5.0, rain=DRIZZLE, dt_max=0.25)
    state = solver.initial_state(z, 5.0)
    for _ in range(100):
        state = solver.step(z, state, 0.25, rain=DRIZZLE)
    assert torch.equal(state.carry, run.carry)
    assert (run.h == 5.0).sum() < 12 or run.carry.abs().max() > 0
    exact = State(*(part.double() for part in state))
    for backend in BACKENDS:
        later = solver.simulate(z.double(), 0.0, state=exact, backend=backend)
        assert torch.equal(later.h, exact.h + exact.carry)
        assert later.carry is None


def test_the_gradient_of_the_volume_is_the_rain_that_fell() -> None:
    solver, z = LocalInertialSolver(dx=10.0), hills((2, 4, 5), 1, relief=0.5).float()
    rain = torch.full((2, 4, 5), DRIZZLE, requires_grad=True)
    q = torch.tensor(1e-6, requires_grad=True)
    seconds = torch.tensor([10.0, 25.0], dtype=F64)
    result = solver.simulate(z, seconds, 20.0, rain, Boundary({"west": q}), checkpoint_every=7)
    volume = result.volume_after.sum()
    per_rain, per_inflow = torch.autograd.grad(volume, (rain, q), retain_graph=True)
    assert per_rain[0].sum().item() == pytest.approx(10.0 * 20 * 100, rel=1e-3)
    assert per_rain[1].sum().item() == pytest.approx(25.0 * 20 * 100, rel=1e-3)
    assert per_inflow.item() == pytest.approx(35.0 * 4 * 10, rel=1e-3)
    # the same from the depths, as before
    (direct,) = torch.autograd.grad(100 * result.h.sum(), rain)
    torch.testing.assert_close(direct, per_rain, rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_falls_dry_in_float32_keeps_its_water_and_its_sign(backend: str) -> None:
    solver, sides = LocalInertialSolver(dx=8.0), Boundary({"west": 0.3}, {"east": 0.01, "south": 0.05})
    result = solver.simulate(hills((4, 9, 8), 2).float(), 300.0, 0.05, 1e-5, sides, backend=backend)
    assert (result.h < 1e-3).any()
    assert torch.minimum(result.h, result.h + result.carry).min() >= 0
    assert result.mass_error.abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_balance_is_relative_to_what_came_in(backend: str) -> None:
    solver, z = LocalInertialSolver(dx=10.0), torch.zeros(3, 4, dtype=F64)
    rainy, broken, dry = (
        solver.simulate(z, 10.0, h0=h0, rain=rain, backend=backend)
        for h0, rain in ((100.0, DRIZZLE), (5 + hills((3, 4), 1), None), (None, None))
    )
    assert rainy.volume_before == 100.0 * 1200
    assert rainy.volume_after - rainy.volume_before == pytest.approx(10 * DRIZZLE * 1200, rel=1e-6)
    # a litre too much
    more = FloodResult(**{**vars(rainy), "volume_after": rainy.volume_after + 1e-3})
    assert more.mass_error == pytest.approx(1e-3 / (10 * DRIZZLE * 1200), rel=1e-4)
    before = broken.volume_before
    wrong = FloodResult(**{**vars(broken), "volume_after": 0.9 * before})
    assert wrong.mass_error == pytest.approx(-0.1)
    assert broken.mass_error.abs() < 1e-14
    assert dry.mass_error == 0
