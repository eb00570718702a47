"""The solver against exact solutions, conservation and symmetry: both backends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.flood import Boundary, FloodResult, LocalInertialSolver, normal_depth

BACKENDS = ["torch", "compiled"]
F64 = torch.float64


def hills(shape: tuple[int, ...], seed: int, relief: float = 3.0) -> torch.Tensor:
    """A rough map with long and short waves [m]."""
    g = torch.Generator().manual_seed(seed)
    rows, columns = shape[-2:]
    y, x = torch.meshgrid(torch.arange(rows, dtype=F64), torch.arange(columns, dtype=F64), indexing="ij")
    phase = 6.3 * torch.rand(*shape[:-2], 2, 1, 1, generator=g, dtype=F64)
    waves = torch.sin(x / 3 + phase[..., 0, :, :]) * torch.cos(y / 4 + phase[..., 1, :, :])
    return relief / 2 * (waves + torch.rand(shape, generator=g, dtype=F64))


def water_made(result: FloodResult, dx: float, h0: float = 0.0) -> torch.Tensor:
    """Relative error of the water balance."""
    cells = result.h.shape[-2] * result.h.shape[-1]
    before = h0 * cells * dx**2
    volume = result.h.sum(dim=(-2, -1), dtype=F64) * dx**2
    return (volume - before - result.volume_in + result.volume_out).abs() / (before + result.volume_in)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_lake_at_rest_with_islands(dtype: torch.dtype) -> None:
    # heights and level on a grid of 1/64 m: level - z + z is exact, and so must be the rest
    z = (torch.round(hills((64, 64), 0) * 64) / 64).to(dtype)
    h0 = (1.0 - z).clamp_min(0)
    assert 0.1 < (h0 == 0).double().mean() < 0.9
    result = LocalInertialSolver(dx=10.0).simulate(z, 600.0, h0=h0, backend="compiled")
    assert torch.equal(result.h, h0)
    assert result.qx.abs().max() == 0
    assert result.qy.abs().max() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_mass_and_positivity(backend: str) -> None:
    z, solver = hills((5, 20, 24), 0), LocalInertialSolver(dx=8.0)
    slope = torch.zeros(24, dtype=F64)
    slope[6:15] = 0.01
    sides = Boundary({"west": 0.3, "north": torch.linspace(0, 0.2, 24, dtype=F64)}, {"south": slope, "east": 0.002})
    for rain, boundary in ((1e-4, None), (None, sides), (1e-5 * z.abs(), sides)):
        result = solver.simulate(z, 300.0, rain=rain, boundary=boundary, backend=backend)
        assert (water_made(result, 8.0) <= 1e-12).all()
        assert result.h.min() >= 0
        assert ((result.volume_out > 0) == (boundary is not None)).all()
    inflow = 300.0 * 8.0 * (0.3 * 20 + 0.1 * 24)
    rained = 300.0 * 64 * 1e-5 * z.abs().sum((-2, -1))
    torch.testing.assert_close(result.volume_in, inflow + rained, rtol=1e-12, atol=0)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 7), columns=st.integers(1, 7), log=st.floats(-7, 0))
def test_any_terrain_keeps_its_water(seed: int, rows: int, columns: int, log: float) -> None:
    z = hills((rows, columns), seed, relief=10.0)
    solver = LocalInertialSolver(dx=5.0)
    sides = Boundary({"west": 0.2}, {"east": 0.01})
    for backend in BACKENDS:
        result = solver.simulate(z, 60.0, h0=10**log, rain=1e-5, boundary=sides, backend=backend)
        assert result.h.min() >= 0
        assert water_made(result, 5.0, 10**log) <= 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_the_limiter_depths_become_negative(backend: str) -> None:
    result = LocalInertialSolver(dx=8.0, limiter=False).simulate(hills((20, 24), 0), 600.0, rain=1e-4, backend=backend)
    assert result.h.min() < -0.01
    assert water_made(result, 8.0) <= 1e-12


@pytest.mark.parametrize(
    ("backend", "axis", "width", "alpha"),
    [("torch", "y", 1, 0.7), ("compiled", "x", 1, 0.7), ("compiled", "x", 3, 0.5), ("compiled", "y", 3, 0.5)],
)
def test_a_slope_comes_to_uniform_flow(*, backend: str, axis: str, width: int, alpha: float) -> None:
    depth = normal_depth(1.0, 0.001, 0.03).item()
    assert abs(depth - 0.96888616) < 5e-9
    z = -0.001 * 50 * torch.arange(40, dtype=F64).repeat(width, 1)
    sides = Boundary({"west": 1.0}, {"east": 0.001})
    if axis == "y":
        z, sides = z.T.contiguous(), Boundary({"north": 1.0}, {"south": 0.001})
    solver = LocalInertialSolver(dx=50.0, manning=0.03, alpha=alpha)
    result = solver.simulate(z, 4 * 3600.0, h0=depth, boundary=sides, backend=backend)
    assert (result.h - depth).abs().max() < 1e-9


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("friction", ["vector", "component"])
@pytest.mark.parametrize("edge", ["replicate", "mirror"])
def test_the_eight_symmetries_of_the_square_and_heights_have_no_origin(backend: str, friction: str, edge: str) -> None:
    z = hills((21, 21), 3, relief=1.0)
    h0 = torch.zeros_like(z)
    h0[4:9, 6:12] = 3.0
    solver = LocalInertialSolver(dx=10.0, friction=friction, edge=edge)

    def turned(a: torch.Tensor) -> torch.Tensor:
        """In the eight positions, the first as it is."""
        return torch.stack([torch.rot90(b, turns) for b in (a, a.flip(1)) for turns in range(4)])

    found = solver.simulate(turned(z), 100.0, h0=turned(h0), backend=backend).h
    assert (found - turned(found[0])).abs().max() < 1e-12
    shifted = solver.simulate(z + 100.0, 100.0, h0=h0, backend=backend).h
    assert (shifted - found[0]).abs().max() < 1e-10


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_sides_are_turned_with_the_map(backend: str) -> None:
    z = hills((6, 9), 4)
    q, slope = torch.linspace(0.1, 0.5, 6, dtype=F64), torch.linspace(0.01, 0.05, 9, dtype=F64)
    solver = LocalInertialSolver(dx=10.0)
    plain = solver.simulate(z, 100.0, boundary=Boundary({"west": q}, {"south": slope}), backend=backend)
    # transposed, west becomes north and south becomes east
    turned = solver.simulate(z.T.contiguous(), 100.0, boundary=Boundary({"north": q}, {"east": slope}), backend=backend)
    assert (turned.h.T - plain.h).abs().max() < 1e-12
    assert (turned.qx.T - plain.qy).abs().max() < 1e-12
    sides = Boundary({"east": q}, {"south": slope.flip(0)})
    mirrored = solver.simulate(z.flip(1), 100.0, boundary=sides, backend=backend)
    assert (mirrored.h.flip(1) - plain.h).abs().max() < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_leaves_all_bounds_ends(backend: str) -> None:
    # depths grow without becoming NaN and ask for ever shorter steps: without an end to it, the run would have none
    z = torch.linspace(0, 50, 40, dtype=F64)[None].clone()
    solver = LocalInertialSolver(dx=30.0, theta=0.0, alpha=1.0, h_cfl_min=1e-5, limiter=False)
    result = solver.simulate(z, 1e5, rain=1e-3, backend=backend)
    assert torch.isnan(result.time)
    assert result.steps < 20_000


@pytest.mark.parametrize("later", [None, Boundary({"west": 0.1}), Boundary(outflow={"south": 0.01})])
def test_a_run_goes_on_with_other_sides(later: Boundary | None) -> None:
    """What passed the sides before must not pass them again: both backends agree, and keep all water."""
    z = hills((8, 12), 0)
    solver = LocalInertialSolver(dx=10.0)
    sides = Boundary({"west": 0.5, "north": 0.2}, {"east": 0.01, "south": 0.02})
    first = solver.simulate(z, 60.0, h0=0.5, boundary=sides)
    assert min(part.abs().max() for part in (first.qx[:, 0], first.qx[:, -1], first.qy[0], first.qy[-1])) > 0
    before = first.h.sum() * 100
    ends = [solver.simulate(z, 20.0, state=first.state, boundary=later, backend=backend) for backend in BACKENDS]
    for end in ends:
        assert abs(end.h.sum() * 100 - before - end.volume_in + end.volume_out) <= 1e-12 * before
    for name in ("h", "qx", "qy", "volume_in", "volume_out"):
        torch.testing.assert_close(getattr(ends[0], name), getattr(ends[1], name), rtol=1e-10, atol=1e-12)
