"""Claims about squared regression and about networks on real data."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from lib.claims import Evidence, at_least, at_most, claim, combine
from lib.edge_of_stability.claims.scalar_networks import end_of_flow, positive_part
from lib.edge_of_stability.experiment import PRESETS, edge_task, train_edge_of_stability
from lib.edge_of_stability.networks import half_mean_square, integrate_gradient_flow, network_gfs_sharpness
from lib.edge_of_stability.squared_regression import SquaredRegression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lib.edge_of_stability.experiment import EdgeRun

    Array = NDArray[np.float64]


@claim(
    source="derived here, with chapter 01",
    statement="For squared regression the gradient flow solution is chapter 01's minimiser with k = 4|uv|, and its "
    "sharpness an eigenvalue of an n × n matrix.",
)
def squared_regression_solution() -> Evidence:
    import torch

    def velocity(model: SquaredRegression, s: Array) -> Array:
        return -np.concatenate(model.gradient(s[:12], s[12:]))

    def loss(X: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        u, v = s.chunk(2)
        return ((X @ (u**2 - v**2) - y) ** 2).mean() / 2

    rng = np.random.default_rng(8)
    errors, sharp = [], []
    for _ in range(10):
        model = SquaredRegression(rng.standard_normal((4, 12)), rng.standard_normal(4))
        start = 0.5 * rng.standard_normal(24)
        end = end_of_flow(partial(velocity, model), start)
        errors.append(np.abs(np.concatenate(model.gradient_flow_solution(start[:12], start[12:])) - end))
        here = partial(loss, torch.from_numpy(model.X), torch.from_numpy(model.y))
        dense = torch.autograd.functional.hessian(here, torch.from_numpy(end.copy()))  # type: ignore[no-untyped-call]
        top = float(torch.linalg.eigvalsh(dense)[-1])
        sharp.append(abs(model.gfs_sharpness(start[:12], start[12:]) / top - 1))
    return combine(
        at_most(errors, 1e-7, label="solution"),
        at_most(sharp, 1e-6, label="φ"),
        remark="10 random problems, n = 4, d = 12; against an ODE solver and torch's dense Hessian",
    )


@claim(
    source="abstract; measured here",
    statement="In squared regression descent at ηφ above 2 converges near the edge, while φ falls, "
    "up to rare and tiny rises (an observation, not a theorem).",
    paper="φ decreases",
)
def squared_regression_descends() -> Evidence:
    changes, finals, losses = [], [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((20, 100))
        teacher = np.zeros(100)
        teacher[rng.choice(100, 5, replace=False)] = 1.0
        model = SquaredRegression(X, X @ teacher)
        u, v = 0.2 + 0.02 * rng.standard_normal((2, 100))
        for level in (2.2, 2.5):
            eta = level / model.gfs_sharpness(u, v)
            run = model.run_gd(u, v, eta, 3000, record_every=25)
            changes.append(np.diff(run.gfs_sharpness) / run.gfs_sharpness[:-1])
            finals.append(eta * run.gfs_sharpness[-1])
            losses.append(run.loss[-1])
    rises = positive_part(np.concatenate(changes) - 1e-9)
    return combine(
        at_most(losses, 1e-20, label="final loss", shown="< 1e-20"),
        at_least(finals, 1.4, label="least final ηφ"),
        at_most(finals, 2.02, label="largest", shown="≤ 2.02"),
        at_most(rises.mean(), 0.05, label="fraction of rises", shown="{:.1%}"),
        at_most(changes, 0.01, label="largest rise", shown="< 1%"),
        remark="n = 20, d = 100; 4 data sets, ηφ = 2.2 and 2.5 at the start; 3000 steps, looked at every 25",
    )


@lru_cache(maxsize=2)
def _trained(name: str) -> EdgeRun:
    """Descent on a network with real data, looked at a few times."""
    if name == "digits":
        preset = replace(PRESETS["quick"], every=40)
    else:
        preset = replace(PRESETS["laptop"], widths=(784, 8, 1), every=100, rtol=1e-2)
    with TemporaryDirectory() as folder:
        return train_edge_of_stability(preset, folder)


def _network_evidence(run: EdgeRun, remark: str) -> Evidence:
    change = run.gfs_sharpness[1:] / run.gfs_sharpness[:-1] - 1
    phi, current = run.eta * run.gfs_sharpness, run.eta * run.sharpness
    return combine(
        at_most(change, 0.003, label="largest rise of φ", shown="< 0.3%"),
        at_most(phi[-1] / phi[0], 0.9, label="φ at the end over the start", shown="< 0.9"),
        at_least(current.max(), 2.0, label="largest η·sharpness"),
        at_least(positive_part(np.diff(run.losses)).sum(), 5, label="rises of the loss"),
        remark=remark,
    )


@claim(
    source="abstract (practical networks); measured here",
    statement="A network on real digits: φ stays flat while descent is stable, and drops when the sharpness has "
    "crossed 2/η and the loss jumps.",
    paper="φ decreases in practical networks",
)
def digits_network() -> Evidence:
    return _network_evidence(
        _trained("digits"), "64-8-1 tanh, 50 digits, 400 steps with ηφ = 2.67 at the start, looked at every 40"
    )


@claim(
    source="abstract (practical networks); measured here",
    statement="The same on real clothes: φ glides down while the sharpness stays around 2/η.",
    paper="φ decreases in practical networks",
)
def fashion_network() -> Evidence:
    return _network_evidence(
        _trained("fashion"), "784-8-1 tanh, 100 images of Fashion-MNIST, 400 steps, looked at every 100"
    )


@claim(
    source="derived here",
    statement="Exponential Gauss-Newton steps follow gradient flow to the same sharpness as Runge-Kutta, "
    "in a small fraction of the steps.",
)
def flow_integrator() -> Evidence:
    model, data = edge_task(replace(PRESETS["quick"], count=20))
    ours = integrate_gradient_flow(model, half_mean_square, data, tol=1e-4, rtol=1e-2)
    classical = integrate_gradient_flow(model, half_mean_square, data, tol=1e-4, method="rk4")
    values = [
        network_gfs_sharpness(model, half_mean_square, data, tol=1e-4, rtol=1e-2, method=method)
        for method in ("etd", "rk4")
    ]
    return combine(
        at_most(abs(values[0] / values[1] - 1), 2e-3, label="difference of φ", shown="< 0.2%"),
        at_least(classical.n_steps / ours.n_steps, 5, label="RK4 steps per step of ours"),
        remark="64-8-1 tanh network, 20 digits, loss 1e-4",
    )
