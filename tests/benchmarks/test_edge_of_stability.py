"""Chapter 02 against its peers: flow solutions, integrators of gradient flow, top eigenvalues; and the phase map."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import eigsh

from lib.datasets import digits, standardized
from lib.edge_of_stability import (
    PRESETS,
    edge_task,
    gfs_sharpness,
    gradient,
    gradient_flow_solution,
    half_mean_square,
    hessian_top_eigenvalue,
    network_gfs_sharpness,
    phase_map,
    solve_balances,
)
from lib.edge_of_stability.phase_map import _PART
from lib.models import fully_connected
from tests.benchmarks.conftest import label
from tests.needs import needs_gpu

MILLION = "the sharpness φ of 1,000,000 scalar networks of depth 4"
ROOTS = "the root c alone, 1,000,000 × 4 balances"
THOUSAND = "flow solutions of 1,000 scalar networks of depth 4"


def random_weights(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 4))


def random_balances() -> np.ndarray:
    squares = np.ascontiguousarray(random_weights(1_000_000).T) ** 2
    return squares - squares.min(axis=0)


def plain_newton(b: np.ndarray) -> np.ndarray:
    """What one would write first: Newton's method on all networks at once, D logarithms an iteration."""
    z = np.zeros(b.shape[1])
    for _ in range(100):
        c = np.exp(z)
        terms = c + b
        step = np.log(terms).sum(axis=0) / (c / terms).sum(axis=0)
        z = z - step
        if np.abs(step).max() < 1e-12:
            break
    return np.exp(z)


def note(benchmark, text: str) -> None:
    benchmark.extra_info["note"] = text


def test_roots_ours(benchmark) -> None:
    b = random_balances()
    label(benchmark, ROOTS, "ours: compiled Newton-Halley without logarithms")
    c = benchmark.pedantic(solve_balances, args=(b, 0.0), rounds=15, warmup_rounds=2)
    note(benchmark, f"misfit {np.abs(np.log(c + b).sum(axis=0)).max():.0e}")


def test_roots_plain_newton(benchmark) -> None:
    b = random_balances()
    label(benchmark, ROOTS, "plain vectorised Newton in numpy")
    c = benchmark.pedantic(plain_newton, args=(b,), rounds=7, warmup_rounds=1)
    note(benchmark, f"distance {np.abs(c / solve_balances(b, 0.0) - 1).max():.0e}")


def test_roots_limit(benchmark) -> None:
    b, c = random_balances(), np.empty(1_000_000)
    label(benchmark, ROOTS, "limit: reading the balances once and writing c")
    benchmark.pedantic(np.add.reduce, args=(b,), kwargs={"axis": 0, "out": c}, rounds=15, warmup_rounds=2)


def test_phi_ours(benchmark) -> None:
    label(benchmark, MILLION, "ours: gfs_sharpness, checks of the input included")
    benchmark.pedantic(gfs_sharpness, args=(random_weights(1_000_000),), rounds=15, warmup_rounds=2)


def test_phi_plain_newton(benchmark) -> None:
    w = random_weights(1_000_000)
    label(benchmark, MILLION, "plain vectorised Newton in numpy, no checks")

    def plain() -> np.ndarray:
        squares = np.ascontiguousarray(w.T) ** 2
        b = squares - squares.min(axis=0)
        return (1 / (plain_newton(b) + b)).sum(axis=0)

    phi = benchmark.pedantic(plain, rounds=7, warmup_rounds=1)
    note(benchmark, f"distance {np.abs(phi / gfs_sharpness(w) - 1).max():.0e}")


def test_solutions_ours(benchmark) -> None:
    label(benchmark, THOUSAND, "ours: algebraic")
    benchmark.pedantic(gradient_flow_solution, args=(random_weights(1000),), rounds=50, warmup_rounds=3)


def test_solutions_lsoda(benchmark) -> None:
    w = random_weights(1000)
    label(benchmark, THOUSAND, "scipy LSODA (rtol 1e-11), 20 starts times 50")

    def integrate() -> np.ndarray:
        settings = {"method": "LSODA", "rtol": 1e-11, "atol": 1e-13}
        return np.array([solve_ivp(lambda _, v: -gradient(v), (0, 1e4), each, **settings).y[:, -1] for each in w[:20]])

    ends = benchmark.pedantic(integrate, rounds=1)
    note(benchmark, f"distance {np.abs(ends - gradient_flow_solution(w[:20])).max():.0e}")
    benchmark.extra_info["times"] = 50


def test_solutions_torchdiffeq(benchmark) -> None:
    torchdiffeq = pytest.importorskip("torchdiffeq", reason="the bench extra is not installed")
    w = random_weights(1000)
    label(benchmark, THOUSAND, "torchdiffeq dopri5 (rtol 1e-8), all as one batch, t = 200")

    def velocity(_: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        others = torch.stack([torch.cat([v[:, :i], v[:, i + 1 :]], dim=1).prod(dim=1) for i in range(4)], dim=1)
        return (1 - v.prod(dim=1, keepdim=True)) * others

    def integrate() -> np.ndarray:
        times = torch.tensor([0.0, 200.0], dtype=torch.float64)
        with torch.no_grad():
            return torchdiffeq.odeint(velocity, torch.from_numpy(w), times, rtol=1e-8, atol=1e-10)[-1].numpy()

    ends = benchmark.pedantic(integrate, rounds=1)
    note(benchmark, f"distance {np.abs(ends - gradient_flow_solution(w)).max():.0e}")


FLOW = "the sharpness φ of a 64-8-1 tanh network on 50 digits (loss 1e-4)"


@pytest.mark.parametrize(("method", "rtol", "rounds"), [("etd", 1e-2, 5), ("rk4", 1e-2, 1)])
def test_flow(benchmark, method: str, rtol: float, rounds: int) -> None:
    model, data = edge_task(PRESETS["quick"])
    names = {"etd": "ours: exponential Gauss-Newton steps", "rk4": "RK4 with steps of one over the sharpness"}
    label(benchmark, FLOW, names[method])

    def flow(**options) -> float:
        return network_gfs_sharpness(model, half_mean_square, data, tol=1e-4, **options)

    value = benchmark.pedantic(
        flow, kwargs={"method": method, "rtol": rtol}, rounds=rounds, warmup_rounds=int(rounds > 1)
    )
    reference = flow(method="etd", rtol=1e-4)
    note(benchmark, f"φ = {value:.3f}, off by {abs(value / reference - 1):.2%}")
    assert abs(value / reference - 1) < 2e-3


EIGEN = "top Hessian eigenvalue, 64-32-32-10 tanh network (P = 3466), 500 digits"


def eigen_task():
    images, labels = digits()
    inputs = torch.from_numpy(standardized(images[:500])).float()
    targets = torch.eye(10)[torch.from_numpy(labels[:500])]
    model = fully_connected((64, 32, 32, 10), generator=torch.Generator().manual_seed(0))
    params, loss = list(model.parameters()), torch.nn.MSELoss()

    def ours(tol: float = 1e-4, v0=None):
        generator = torch.Generator().manual_seed(0)
        return hessian_top_eigenvalue(lambda: loss(model(inputs), targets), params, tol=tol, v0=v0, generator=generator)

    return model, loss, inputs, targets, ours


def off(value: float, exact: float) -> str:
    return f"off by {abs(value / exact - 1):.0e}"


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_eigenvalue_ours(benchmark, warm: bool) -> None:
    model, loss, inputs, targets, ours = eigen_task()
    name = "ours: Lanczos, warm, after a step of descent" if warm else "ours: Lanczos, cold"
    label(benchmark, EIGEN, name)
    v0 = None
    if warm:
        v0 = ours()[1][0]
        grads = torch.autograd.grad(loss(model(inputs), targets), list(model.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(model.parameters(), grads, strict=True):
                parameter.sub_(0.5 * grad)
    values, _ = benchmark.pedantic(ours, kwargs={"v0": v0}, rounds=15, warmup_rounds=2)
    note(benchmark, off(values[0], ours(tol=1e-12)[0][0]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tol", [1e-4, 1e-6])
def test_eigenvalue_pyhessian(benchmark, tol: float) -> None:
    pyhessian = pytest.importorskip("pyhessian", reason="the bench extra is not installed")
    model, loss, inputs, targets, ours = eigen_task()
    label(benchmark, EIGEN, f"PyHessian: power iteration, tol {tol:g}")

    def peer() -> float:
        operator = pyhessian.hessian(model, loss, data=(inputs, targets), cuda=False)
        return operator.eigenvalues(maxIter=500, tol=tol, top_n=1)[0][0]

    value = benchmark.pedantic(peer, rounds=9, warmup_rounds=1)
    note(benchmark, off(value, ours(tol=1e-12)[0][0]))


@pytest.mark.filterwarnings("ignore")
def test_eigenvalue_curvlinops(benchmark) -> None:
    curvlinops = pytest.importorskip("curvlinops", reason="the bench extra is not installed")
    model, loss, inputs, targets, ours = eigen_task()
    label(benchmark, EIGEN, "curvlinops with scipy's eigsh, tol 1e-4")

    def peer() -> float:
        data, params = [(inputs, targets)], list(model.parameters())
        operator = curvlinops.HessianLinearOperator(model, loss, params, data, check_deterministic=False)
        return eigsh(operator.to_scipy(), k=1, which="LA", tol=1e-4)[0][0]

    value = benchmark.pedantic(peer, rounds=5, warmup_rounds=1)
    note(benchmark, off(value, ours(tol=1e-12)[0][0]))


MAP = "phase map, {size} × {size} starts, 200 steps"


def plane(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size) + 0.5) * 3 / size
    return tuple(np.meshgrid(axis, axis))


def updates(benchmark, starts: int, steps: int = 200) -> None:
    rate = starts * steps / benchmark.stats.stats.median
    note(benchmark, f"{rate / 1e9:.2f} billion steps a second")


@pytest.mark.parametrize(
    ("part", "name", "rounds"),
    [
        (_PART["cpu"], "ours: torch on one core, in parts that fit its cache", 3),
        (1 << 30, "the same on whole arrays, which leave the cache", 2),
    ],
)
def test_phase_map_on_the_processor(benchmark, monkeypatch, part: int, name: str, rounds: int) -> None:
    w1, w2 = plane(1024)
    label(benchmark, MAP.format(size=1024), name)
    monkeypatch.setitem(_PART, "cpu", part)
    benchmark.pedantic(phase_map, args=(w1, w2, 0.5), rounds=rounds, warmup_rounds=1)
    updates(benchmark, w1.size)


@needs_gpu
def test_phase_map_on_a_gpu(benchmark) -> None:
    w1, w2 = plane(4096)
    label(benchmark, MAP.format(size=4096), f"ours: torch on {torch.cuda.get_device_name()}, transfers included")
    benchmark.pedantic(phase_map, args=(w1, w2, 0.5), kwargs={"device": "cuda"}, rounds=5, warmup_rounds=2)
    updates(benchmark, w1.size)


@needs_gpu
def test_phase_map_limit_on_a_gpu(benchmark) -> None:
    part = torch.rand(4096 * 4096, dtype=torch.float64, device="cuda")
    other = torch.empty_like(part)
    label(benchmark, MAP.format(size=4096), "limit: 800 device copies of a weight (read and write both, each step)")

    def copies() -> None:
        for _ in range(800):
            other.copy_(part)
        torch.cuda.synchronize()

    benchmark.pedantic(copies, rounds=3, warmup_rounds=1)
    moved = 800 * 2 * part.numel() * 8
    note(benchmark, f"{moved / benchmark.stats.stats.median / 1e9:.0f} GB/s")
