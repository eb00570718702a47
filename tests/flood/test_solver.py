"""The solver's contract: gradients, batches, saved times, both backends alike, and what bad input gets."""

import numpy as np
import pytest
import torch

from lib.flood import Boundary, LocalInertialSolver
from lib.flood.compiled import inverse_seven_thirds
from tests.flood.test_physics import BACKENDS, F64, hills

SIDES = Boundary({"west": 0.3}, {"east": 0.01})


@pytest.mark.parametrize("friction", ["vector", "component"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_gradients_are_finite_on_dry_land_and_know_no_origin(friction: str, dtype: torch.dtype) -> None:
    z = hills((9, 11), 5).to(dtype).requires_grad_()
    h0 = torch.zeros_like(z, requires_grad=True)
    slope = torch.zeros(11, dtype=dtype)
    slope[3:6] = 0.01
    slope.requires_grad_()
    q = torch.full((9,), 0.2, dtype=dtype, requires_grad=True)
    result = LocalInertialSolver(dx=10.0, friction=friction).simulate(
        z, 100.0, h0=h0, rain=1e-5, boundary=Boundary({"west": q}, {"south": slope})
    )
    loss = result.h.square().sum() + result.volume_out.sum()
    gradients = torch.autograd.grad(loss, (z, h0, q, slope))
    assert all(bool(torch.isfinite(part).all()) for part in gradients)
    assert all(bool((part != 0).any()) for part in gradients)
    assert gradients[0].sum().abs() < (1e-12 if dtype == F64 else 1e-4) * gradients[0].abs().sum()


def test_checkpointing_changes_nothing() -> None:
    z = hills((2, 7, 9), 6)
    solver, found = LocalInertialSolver(dx=10.0), []
    for every in (0, 7, 1000):
        bed = z.clone().requires_grad_()
        result = solver.simulate(
            bed, torch.tensor([60.0, 90.0], dtype=F64), rain=1e-4, boundary=SIDES, checkpoint_every=every,
            save_times=[30.0],
        )  # fmt: skip
        assert result.history is not None
        loss = result.h.square().sum() + result.history.sum() + result.volume_out.sum()
        found.append((torch.autograd.grad(loss, bed)[0], result.h.detach(), result.steps))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_is_its_maps_one_by_one_with_their_own_ends(backend: str) -> None:
    z = hills((2, 3, 8, 9), 7)
    ends = torch.tensor([[0.0, 40.0, 200.0], [33.0, 100.0, 7.0]], dtype=F64)
    q = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(1), dtype=F64)
    rain = 1e-5 * torch.arange(6, dtype=F64).reshape(2, 3, 1, 1)
    solver = LocalInertialSolver(dx=10.0)
    saved = [0.0, 20.0, 100.0]
    together = solver.simulate(
        z, ends, 0.01, rain, Boundary({"west": q}, {"east": 0.01}), save_times=saved, backend=backend
    )
    assert torch.equal(together.time, ends)
    assert together.history is not None
    for k in np.ndindex(2, 3):
        end = ends[k].item()
        sides = Boundary({"west": q[k]}, {"east": 0.01})
        own = [t for t in saved if t <= end]
        single = solver.simulate(z[k], end, 0.01, rain[k], sides, save_times=own, backend=backend)
        for name in ("h", "qx", "qy", "volume_in", "volume_out"):
            torch.testing.assert_close(getattr(together, name)[k], getattr(single, name), rtol=1e-12, atol=1e-12)
        assert together.steps[k] == single.steps
        torch.testing.assert_close(together.history[: len(own), *k], single.history, rtol=1e-12, atol=1e-12)
        for late in range(len(own), 3):
            assert torch.equal(together.history[late, *k], together.h[k])


@pytest.mark.parametrize("backend", BACKENDS)
def test_saved_depths_are_those_of_shorter_runs(backend: str) -> None:
    z, solver = hills((8, 9), 8), LocalInertialSolver(dx=10.0)
    result = solver.simulate(z, 100.0, rain=1e-4, save_times=[0.0, 30.0, 100.0], backend=backend)
    assert result.history is not None
    assert result.history.shape == (3, 8, 9)
    assert result.history[0].abs().max() == 0
    assert torch.equal(result.history[1], solver.simulate(z, 30.0, rain=1e-4, backend=backend).h)
    assert torch.equal(result.history[2], result.h)
    assert solver.simulate(z, 10.0, backend=backend).history is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_time_no_change_and_long_steps_are_cut(backend: str) -> None:
    z, solver = hills((4, 5), 9), LocalInertialSolver(dx=10.0)
    result = solver.simulate(z, 0.0, h0=z.abs(), rain=1.0, boundary=SIDES, backend=backend)
    assert torch.equal(result.h, z.abs())
    assert result.steps == result.time == result.volume_in == result.volume_out == 0
    assert solver.simulate(z, 10.0, dt_max=0.3, backend=backend).steps == 34


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-11), (torch.float32, 1e-4)])
@pytest.mark.parametrize("settings", [{}, {"friction": "component", "edge": "mirror", "theta": 0.8}, {"theta": 1.0}])
@pytest.mark.parametrize("shape", [(17, 23), (1, 9), (9, 1), (1, 1), (2, 2), (3, 3)])
def test_compiled_is_the_same_to_rounding(shape, settings, dtype: torch.dtype, tolerance: float) -> None:
    z = hills(shape, 10).to(dtype)
    rain = (1e-4 * hills(shape, 11).abs()).to(dtype)
    solver = LocalInertialSolver(dx=10.0, **settings)
    sides = Boundary({"west": 0.3, "south": 0.05}, {"north": 0.01, "east": 0.02})
    eager, compiled = (solver.simulate(z, 150.0, 0.2, rain, sides, backend=name) for name in BACKENDS)
    assert eager.steps == compiled.steps or dtype == torch.float32
    for name in ("h", "qx", "qy"):
        assert getattr(compiled, name).dtype == dtype
        assert (getattr(eager, name) - getattr(compiled, name)).abs().max() < tolerance
    torch.testing.assert_close(compiled.volume_in, eager.volume_in, rtol=tolerance, atol=0)
    torch.testing.assert_close(compiled.volume_out, eager.volume_out, rtol=tolerance, atol=0)


def test_compiled_leaves_its_inputs_alone_and_goes_on_from_single_steps() -> None:
    z, h0 = hills((5, 6), 12), torch.full((5, 6), 0.3, dtype=F64)
    solver = LocalInertialSolver(dx=10.0)
    end = solver.simulate(z, 2.0, h0=h0, dt_max=1.0, rain=1e-5, boundary=SIDES, backend="compiled")
    assert (h0 == 0.3).all()
    state = solver.initial_state(z, h0)
    for _ in range(2):
        state = solver.step(z, state, 1.0, rain=1e-5, boundary=SIDES)
    for a, b in zip(state[:3], end.state[:3], strict=True):
        assert (a - b).abs().max() < 1e-14


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_the_power_without_pow(dtype: type, tolerance: float) -> None:
    x = np.exp(np.linspace(np.log(1e-5), np.log(1e4), 200_001)).astype(dtype)
    found = np.empty_like(x)
    inverse_seven_thirds(x, found)
    assert np.abs(found / x.astype(np.longdouble) ** (-np.longdouble(7) / 3) - 1).max() < tolerance


def test_compiled_gives_no_gradients() -> None:
    solver, z = LocalInertialSolver(dx=10.0), torch.zeros(3, 3, dtype=F64)
    with pytest.raises(RuntimeError, match="no gradients"):
        solver.simulate(z.clone().requires_grad_(), 1.0, backend="compiled")
    with pytest.raises(RuntimeError, match="no gradients"):
        solver.simulate(z, 1.0, rain=torch.tensor(0.1, requires_grad=True), backend="compiled")


@pytest.mark.parametrize(
    ("name", "value"), [("theta", 1.1), ("alpha", 1.5), ("friction", "none"), ("edge", "periodic")]
)
def test_bad_settings_are_refused(name: str, value) -> None:
    with pytest.raises(ValueError, match=f"{name} must"):
        LocalInertialSolver(**{"dx": 1.0, name: value})


NAN = float("nan")
STATE = LocalInertialSolver(dx=1.0).initial_state(torch.zeros(3, 4), 0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"duration": torch.ones(2)}, "duration must"),
        ({"duration": -1.0}, "duration must not be negative"),
        ({"h0": 0.1, "state": STATE}, "h0 and state cannot both be given"),
        ({"h0": -0.1}, "h0 must not be negative"),
        ({"h0": torch.zeros(4, 3)}, "h0 must broadcast"),
        ({"h0": torch.zeros(4)}, "h0 must broadcast"),
        ({"h0": torch.zeros(2, 3, 4)}, "h0 must broadcast"),
        ({"rain": -1e-9}, "rain must not be negative"),
        ({"rain": torch.zeros(3, 5)}, "rain must broadcast"),
        ({"boundary": Boundary({"west": torch.zeros(4)})}, r"inflow\['west'\] must have the shape"),
        ({"boundary": Boundary({"west": torch.zeros(2, 3)})}, r"inflow\['west'\] must have the shape"),
        ({"boundary": Boundary({"west": NAN})}, r"inflow\['west'\] must be finite"),
        ({"boundary": Boundary({"west": -1.0})}, r"inflow\['west'\] must not be negative"),
        ({"boundary": Boundary(outflow={"north": 0.0})}, r"outflow\['north'\] must be a positive slope"),
        ({"boundary": Boundary(outflow={"north": -0.1})}, r"outflow\['north'\] must be a positive slope"),
        ({"boundary": Boundary({"east": 1.0}, {"east": 0.1})}, "an inflow or an outflow"),
        ({"save_times": [2.0, 1.0]}, "save_times must ascend"),
        ({"save_times": [20.0]}, "save_times must ascend"),
    ],
)
def test_bad_runs_are_refused_before_any_work(change, words: str, monkeypatch) -> None:
    def work(*args: object) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(LocalInertialSolver, "_step", work)
    with pytest.raises(ValueError, match=words):
        LocalInertialSolver(dx=1.0).simulate(**{"z": torch.zeros(3, 4), "duration": 10.0, **change})


def test_numbers_of_numpy_and_arrays_are_numbers() -> None:
    solver, z = LocalInertialSolver(dx=np.float32(10), limiter=np.bool_(True)), torch.zeros(3, 4, dtype=F64)
    rain = 1e-5 * np.arange(12.0).reshape(4, 3)[::-1].T
    rain.setflags(write=False)
    wanted = solver.simulate(z, 4.0, rain=torch.from_numpy(rain.copy()), save_times=[1.0], checkpoint_every=2)
    found = solver.simulate(
        z, np.int64(4), rain=rain, save_times=np.array([1.0]), checkpoint_every=np.int64(2), dt_max=np.float64(9)
    )
    assert torch.equal(found.h, wanted.h)
    for sides in ({"west": [0.1, 0.2, 0.3]}, {"west": np.float32(0.1)}, {"north": np.arange(4)}):
        assert solver.simulate(z, 1.0, boundary=Boundary(sides)).volume_in > 0


def test_sides_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="inflow must map sides"):
        Boundary("west")
    with pytest.raises(ValueError, match="a side of outflow must be one of west, east, north, south; it is 'up'"):
        Boundary(outflow={"up": 1.0})
    with pytest.raises((TypeError, ValueError), match=r"inflow\['west'\] must"):
        LocalInertialSolver(dx=1.0).simulate(torch.zeros(3, 4), 1.0, boundary=Boundary({"west": "much"}))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (STATE._replace(h=torch.full((3, 4), NAN)), r"state\.h must be finite; 12 of its"),
        (STATE._replace(qy=torch.full((4, 4), NAN)), r"state\.qy must be finite; 16 of its"),
        (STATE._replace(carry=torch.full((3, 4), NAN)), r"state\.carry must be finite"),
        (STATE._replace(qy=None), r"state\.qy must be a floating-point tensor"),
        (STATE._replace(h=np.zeros((3, 4))), r"state\.h must be a floating-point tensor"),
        (STATE._replace(h=STATE.h.double()), "state.h must be torch.float32 on cpu"),
        (STATE._replace(h=-STATE.h), "state.h must not be negative"),
        (STATE._replace(carry=-2 * STATE.h), "state.h must not be negative"),
        (STATE._replace(qx=STATE.h), r"state\.qx must have shape"),
        (STATE._replace(carry=torch.zeros(2, 3, 4)), "state.carry must have shape"),
        (tuple(STATE), "state must be a State"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state, words: str) -> None:
    solver, z = LocalInertialSolver(dx=1.0), torch.zeros(3, 4)
    for go_on in (lambda: solver.step(z, state, 0.1), lambda: solver.simulate(z, 1.0, state=state)):
        with pytest.raises((TypeError, ValueError), match=words):
            go_on()
