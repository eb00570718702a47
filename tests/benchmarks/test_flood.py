"""Chapter 10 against landlab and against the memory: large maps, batches of small ones, gradients, a GPU."""

import functools
import time

import numpy as np
import pytest
import torch

from lib.flood import LocalInertialSolver, real_dem
from lib.flood.claims.peer import THETAS, SharedFlood, landlab_reference, shared_flood, solver_like_landlab
from tests.benchmarks.conftest import label
from tests.needs import needs_gpu

SIDE = 256
FLOOD = "flood of 150 s on 256 × 256 real elevations, one thread"
LARGE = "flood of 150 s on 1,024 × 1,024 elevations, one thread"
BATCH = "flood of 100 s on 32 maps of {side} × {side}, one thread"
TRAINING = "forward and backward through 30 steps, 16 maps of {side} × {side}, float32, one thread"
GPU = "20 steps on 2,000 × 2,000 elevations, float32, on a GPU"
F32, F64 = torch.float32, torch.float64

#: Numbers that a step reads or writes for each cell: z, h, qx, qy and new qx, qy, then h, qx, qy and new h.
WORDS = 10


def compiles(test):
    """For tests of torch.compile: it takes long, and warns about its own import and its own look at gradients."""
    for ignored in ("ignore::DeprecationWarning", "ignore:The .grad attribute:UserWarning"):
        test = pytest.mark.filterwarnings(ignored)(test)
    return pytest.mark.timeout(900)(test)


@functools.cache
def flood(side: int = SIDE) -> SharedFlood:
    """Real elevations, mirrored beyond 256 cells, under 0.2 m of water and 50 mm of rain an hour.

    The steps of 2 s are far below the CFL step. At the CFL step and without a limiter, landlab and we alike would
    drain cells to 0.2 m below zero, and there would be nothing to compare.
    """
    z = real_dem().z[40 : 40 + SIDE, 70 : 70 + SIDE] / 100
    z = np.pad(z - z.mean(), (0, side - SIDE), mode="symmetric")
    return SharedFlood(z, np.full_like(z, 0.2), 0.05 / 3600, np.full(75, 2.0))


@functools.cache
def maps(count: int, side: int) -> torch.Tensor:
    """Pieces of the same elevations."""
    parts = SIDE // side
    z = torch.from_numpy(flood().z).reshape(parts, side, parts, side).transpose(1, 2)
    return z.reshape(-1, side, side)[:count]


def with_compiled_step(solver: LocalInertialSolver) -> LocalInertialSolver:
    """The same solver, its step under torch.compile."""
    object.__setattr__(solver, "_step", torch.compile(solver._step, dynamic=False))
    return solver


#: Bytes a second of a copy, read and written, by device.
COPY: dict[str, float] = {}


def note_rate(benchmark, updates: int, dtype: torch.dtype, *more: str, device: str = "cpu") -> None:
    """Say how many cells were updated a second, and what part of the copy's bytes a second this is."""
    rate = updates / benchmark.stats.stats.median
    parts = [f"{rate / 1e6:,.0f} M cell updates/s"]
    if device in COPY:
        parts.append(f"{rate * WORDS * dtype.itemsize / COPY[device]:.0%} of the copy")
    benchmark.extra_info["note"] = ", ".join([*parts, *more])


def copy(benchmark, group: str, updates: int, device: str) -> None:
    """Time a copy between two large arrays, as if of all that a flood's steps read and write in float32."""
    x = torch.zeros(1 << 26, device=device)
    other = torch.zeros_like(x)

    def once() -> None:
        other.copy_(x)
        if device == "cuda":
            torch.cuda.synchronize()

    label(benchmark, group, "limit: copying what a step reads and writes")
    benchmark.extra_info["times"] = updates * WORDS * x.itemsize / (2 * x.nbytes)
    benchmark.pedantic(once, rounds=15, warmup_rounds=2)
    COPY[device] = 2 * x.nbytes / benchmark.stats.stats.median
    benchmark.extra_info["note"] = f"{COPY[device] / 1e9:,.0f} GB/s"


def with_landlab(scene: SharedFlood, theta: float) -> np.ndarray:
    """landlab's depths after a flood."""
    tool = pytest.importorskip("tools.landlab_reference", reason="the bench extra is not installed")
    component = tool.overland_flow(scene, theta)
    for dt in scene.steps:
        component.run_one_step(dt=dt)
    return tool.inner_depths(component)


@functools.cache
def wanted() -> np.ndarray | None:
    """landlab's depths for the flood on 256 x 256 cells, to compare with; None where it is not installed."""
    try:
        return with_landlab(flood(), 0.8)
    except pytest.skip.Exception:
        return None


def on_the_core(benchmark, group: str, name: str, solver: LocalInertialSolver, dtype: torch.dtype, **options) -> None:
    """Time a flood on one map, and compare it with landlab's where that has the same map."""
    scene = flood(1024 if group == LARGE else SIDE)
    z, seconds = torch.from_numpy(scene.z).to(dtype), float(scene.steps.sum())
    settings = {"h0": 0.2, "rain": scene.rain, "dt_max": 2.0, **options}
    label(benchmark, group, name)
    rounds = 15 if options.get("backend") == "compiled" else 5
    result = benchmark.pedantic(solver.simulate, (z, seconds), settings, rounds=rounds, warmup_rounds=2)
    assert result.steps == len(scene.steps)
    more = []
    if group == FLOOD and solver == solver_like_landlab(0.8) and wanted() is not None:
        more = [f"{np.abs(result.h.numpy() - wanted()).max():.0e} m from landlab"]
    note_rate(benchmark, z.numel() * int(result.steps), dtype, *more)


def test_copy(benchmark) -> None:
    copy(benchmark, FLOOD, SIDE**2 * len(flood().steps), "cpu")


@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
def test_compiled(benchmark, dtype: torch.dtype) -> None:
    name = f"ours: compiled, {str(dtype).removeprefix('torch.')}"
    on_the_core(benchmark, FLOOD, name, solver_like_landlab(0.8), dtype, backend="compiled")


def test_compiled_with_limiter(benchmark) -> None:
    solver = LocalInertialSolver(dx=flood().dx, theta=0.8)
    name = "ours: compiled, float32, vector friction, limiter"
    on_the_core(benchmark, FLOOD, name, solver, F32, backend="compiled")


@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
def test_eager(benchmark, dtype: torch.dtype) -> None:
    name = f"ours: eager, {str(dtype).removeprefix('torch.')}"
    on_the_core(benchmark, FLOOD, name, solver_like_landlab(0.8), dtype)


@compiles
def test_step_under_torch_compile(benchmark) -> None:
    name = "ours: step under torch.compile, float32"
    on_the_core(benchmark, FLOOD, name, with_compiled_step(solver_like_landlab(0.8)), F32)


def test_landlab(benchmark) -> None:
    tool = pytest.importorskip("tools.landlab_reference", reason="the bench extra is not installed")
    scene = flood()

    def run(component) -> None:
        for dt in scene.steps:
            component.run_one_step(dt=dt)

    label(benchmark, FLOOD, "landlab OverlandFlow, float64")
    # its grid is built before the clock starts
    benchmark.pedantic(run, setup=lambda: ((tool.overland_flow(scene, 0.8),), {}), rounds=5, warmup_rounds=1)
    note_rate(benchmark, scene.z.size * len(scene.steps), F64)


def test_large(benchmark) -> None:
    on_the_core(benchmark, LARGE, "ours: compiled, float32", solver_like_landlab(0.8), F32, backend="compiled")


@pytest.mark.parametrize("side", [32, 16])
@pytest.mark.parametrize("backend", ["compiled", "torch"])
def test_batch(benchmark, backend: str, side: int) -> None:
    z = maps(32, side).float()
    solver = solver_like_landlab(0.8)
    label(benchmark, BATCH.format(side=side), f"ours: {'eager' if backend == 'torch' else backend}, float32")
    settings = {"h0": 0.2, "rain": flood().rain, "dt_max": 2.0, "backend": backend}
    result = benchmark.pedantic(solver.simulate, (z, 100.0), settings, rounds=15, warmup_rounds=2)
    note_rate(benchmark, side**2 * int(result.steps.sum()), F32)


@pytest.mark.parametrize("side", [32, 16])
def test_batch_landlab(benchmark, side: int) -> None:
    tool = pytest.importorskip("tools.landlab_reference", reason="the bench extra is not installed")
    scenes = [flood()._replace(z=z, h0=np.full_like(z, 0.2)) for z in maps(32, side).numpy()]

    def run(components) -> None:
        for component in components:
            for _ in range(50):
                component.run_one_step(dt=2.0)

    label(benchmark, BATCH.format(side=side), "landlab OverlandFlow, map by map, float64")
    benchmark.pedantic(run, setup=lambda: (([tool.overland_flow(s, 0.8) for s in scenes],), {}), rounds=3)
    note_rate(benchmark, 32 * side**2 * 50, F64)


def gradient(solver: LocalInertialSolver, z: torch.Tensor) -> torch.Tensor:
    """How 30 steps of a coarse flood depend on its map."""
    bed = z.clone().requires_grad_()
    result = solver.simulate(bed, 240.0, rain=0.1 / 3600, dt_max=8.0)
    assert (result.steps == 30).all()
    (found,) = torch.autograd.grad(result.h.square().mean(), bed)
    return found


@compiles
@pytest.mark.parametrize("side", [8, 16])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_training_step(benchmark, monkeypatch, tmp_path, compiled: bool, side: int) -> None:
    # what an earlier run compiled lies on the disk, and would be taken from there in a second
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    z = maps(16, side).float()
    eager, solver = LocalInertialSolver(dx=64.0), LocalInertialSolver(dx=64.0)
    label(benchmark, TRAINING.format(side=side), f"ours: {'step under torch.compile' if compiled else 'eager'}")
    if compiled:
        solver = with_compiled_step(solver)
    start = time.perf_counter()
    found = gradient(solver, z)
    first = time.perf_counter() - start
    benchmark.pedantic(gradient, (solver, z), rounds=15, warmup_rounds=2)
    if compiled:
        right = gradient(eager, z)
        error = ((found - right).norm() / right.norm()).item()
        benchmark.extra_info["note"] = f"compiling takes {first:.0f} s; gradients differ by {error:.0e}"
    else:
        benchmark.extra_info["note"] = f"{1e3 * benchmark.stats.stats.median / 30:.2f} ms a step"


@needs_gpu
def test_gpu_copy(benchmark) -> None:
    copy(benchmark, GPU, 20 * 2000**2, "cuda")
    benchmark.extra_info["note"] += f" on {torch.cuda.get_device_name()}"


@needs_gpu
@compiles
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_gpu(benchmark, compiled: bool) -> None:
    z = torch.from_numpy(flood(2000).z).float().cuda()
    solver = LocalInertialSolver(dx=flood().dx, theta=0.8)
    if compiled:
        solver = with_compiled_step(solver)

    def run() -> int:
        result = solver.simulate(z, 40.0, h0=0.2, rain=flood().rain, dt_max=2.0)
        torch.cuda.synchronize()
        return int(result.steps)

    label(benchmark, GPU, f"ours: {'step under torch.compile' if compiled else 'eager'}")
    steps = benchmark.pedantic(run, rounds=10, warmup_rounds=3)
    note_rate(benchmark, z.numel() * steps, F32, device="cuda")


@pytest.mark.parametrize("scene", ["wet", "drying"])
@pytest.mark.parametrize("theta", THETAS)
def test_landlab_finds_the_stored_depths_again(scene, theta: float) -> None:
    pytest.importorskip("landlab", reason="the bench extra is not installed")
    from tools.landlab_reference import landlab_depths

    reference = landlab_reference()
    assert np.array_equal(reference.steps, shared_flood(scene).steps)
    assert np.abs(landlab_depths(scene, theta) - reference.depths[scene, theta]).max() < 1e-12
