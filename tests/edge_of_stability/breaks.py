"""What makes each claim of chapter 02 fail."""

from dataclasses import replace as with_settings

import numpy as np
import sympy as sp

from lib.edge_of_stability import (
    experiment,
    flow_solution,
    networks,
    scalar_network,
    squared_regression,
    symbolic,
    trajectories,
)
from lib.edge_of_stability.claims import networks as network_claims
from lib.edge_of_stability.claims import scalar_networks
from lib.edge_of_stability.trajectories import run_gd
from lib.initialization_shape import DiagonalPotential
from tests.breaking import Break, edit, replace

BALANCE_STEP = symbolic.balance_step
FROZEN_MULTIPLIER = symbolic.frozen_multiplier
INTEGRATE_ETD = networks._integrate_etd
REGRESSION_RUN = squared_regression.SquaredRegression.run_gd


def rescaled(w, target=1.0):
    """A minimum, but not the one of gradient flow: it keeps ratios instead of balances."""
    w = np.abs(np.asarray(w))
    return w * (abs(target) / w.prod(axis=-1, keepdims=True)) ** (1 / w.shape[-1])


def at_the_present_weights(w):
    """The formula of a minimum, without going there."""
    return w.prod(axis=-1) ** 2 * (1 / w**2).sum(axis=-1)


def other_step(factor: float):
    """Descent with another step size than the one that it is given."""
    return lambda w, eta, target=1.0: scalar_network.gd_step(w, factor * np.asarray(eta), target)


def other_run(factor: float):
    return lambda w0, eta, n_steps, **options: run_gd(w0, factor * np.asarray(eta), n_steps, **options)


def unsquared_balance_step():
    new, expected = BALANCE_STEP()
    return new, expected.subs(sp.Symbol("eta", real=True, nonzero=True), 2)


def forgotten_residual(depth: int):
    """The Hessian anywhere, not at a minimum."""
    w = sp.symbols(f"w_1:{depth + 1}", positive=True)
    return sp.hessian((sp.prod(w) - 1) ** 2 / 2, w), sp.Matrix([sp.prod(w) / weight for weight in w])


def twice_the_multiplier(depth: int):
    slope, expected = FROZEN_MULTIPLIER(depth)
    return slope, 2 * expected


def small_k(k, w0):
    """Chapter 01's potential with the k of its own parametrisation, half of the right one."""
    return DiagonalPotential(k / 2, w0)


def timid_regression(self, u0, v0, eta, *rest, **options):
    return REGRESSION_RUN(self, u0, v0, eta / 3, *rest, **options)


def watched_backwards(self, *arguments, **options):
    run = REGRESSION_RUN(self, *arguments, **options)
    return with_settings(run, gfs_sharpness=run.gfs_sharpness[::-1])


def stable_descent(preset, data_path=None):
    """A step size so small that nothing happens."""
    return experiment.watch_descent(with_settings(preset, edge=1.5, every=100), data_path)


def the_wrong_sharpness(preset, data_path=None):
    """Sharpness of the present weights, taken for that of the flow solution."""
    run = experiment.watch_descent(with_settings(preset, every=100), data_path)
    return with_settings(run, gfs_sharpness=run.sharpness)


def impatient_flow(problem, loss_tol, rtol, max_steps):
    """Stops long before the minimum."""
    return INTEGRATE_ETD(problem, 0.1, rtol, max_steps)


def careless_flow(problem, loss_tol, rtol, max_steps):
    return INTEGRATE_ETD(problem, loss_tol, 1e3, max_steps)


#: Some of the long runs are enough to see that something is wrong.
SETTING = replace(scalar_networks, "_LONG_RUNS", 100)
BREAKS: dict[str, list[Break]] = {
    "flow-solution-is-algebraic": [
        replace(scalar_networks, "gradient_flow_solution", rescaled),
        # the minimum of the other orthant
        replace(scalar_networks, "gradient_flow_solution", lambda w: np.abs(flow_solution.gradient_flow_solution(w))),
    ],
    "balance-identity": [
        replace(symbolic, "balance_step", unsquared_balance_step),
        replace(scalar_networks, "gd_step", other_step(1.001)),
    ],
    "sharpness-at-a-minimum": [
        replace(symbolic, "hessian_at_minimum", forgotten_residual),
        replace(scalar_networks, "gradient_flow_solution", lambda w, target: 1.01 * rescaled(w, target)),
        replace(scalar_networks, "gfs_sharpness", lambda w, target: target * (1 / w**2).sum(axis=-1)),
    ],
    "one-step-is-monotone": [
        replace(scalar_networks, "gfs_sharpness", scalar_network.sharpness),
        replace(scalar_networks, "MONOTONE_LIMIT", 4.0),
    ],
    "boundary-is-real": [
        replace(scalar_networks, "MONOTONE_LIMIT", 3.2),
        replace(scalar_networks, "gd_step", other_step(0.4)),
    ],
    "bound-is-sharp": [
        replace(scalar_networks, "MONOTONE_LIMIT", 3.0),
        replace(scalar_networks, "gd_step", other_step(0.99)),
        replace(scalar_networks, "gfs_sharpness", lambda w: 1.01 * trajectories.gfs_sharpness(w)),
    ],
    "whole-runs-are-monotone": [
        replace(scalar_networks, "gfs_sharpness", at_the_present_weights),
        replace(scalar_networks, "gd_step", other_step(2.0)),
    ],
    "convergence-to-the-edge": [
        replace(scalar_networks, "run_gd", other_run(1.3)),
        replace(scalar_networks, "run_gd", other_run(0.5)),
    ],
    "no-convergence-below-the-least-sharpness": [
        replace(scalar_networks, "run_gd", other_run(0.8)),
        replace(scalar_networks, "run_gd", other_run(1.2)),
    ],
    "loss-jumps-and-phi-falls": [
        replace(scalar_networks, "run_gd", other_run(0.5)),
        replace(trajectories, "_gfs_or_nan", scalar_network.sharpness),
    ],
    "frozen-balances": [
        replace(symbolic, "frozen_multiplier", twice_the_multiplier),
        replace(scalar_networks, "gpgd_step", other_step(1.05)),
    ],
    "squared-regression-solution": [
        replace(squared_regression, "DiagonalPotential", small_k),
        edit(squared_regression.SquaredRegression, "gfs_sharpness", "return", "return 1.001 *"),
    ],
    "squared-regression-descends": [
        replace(squared_regression.SquaredRegression, "run_gd", timid_regression),
        replace(squared_regression.SquaredRegression, "run_gd", watched_backwards),
    ],
    "digits-network": [
        replace(network_claims, "watch_descent", stable_descent),
        replace(network_claims, "watch_descent", the_wrong_sharpness),
    ],
    "fashion-network": [
        replace(network_claims, "watch_descent", stable_descent),
        replace(network_claims, "watch_descent", the_wrong_sharpness),
    ],
    "flow-integrator": [
        replace(networks, "_integrate_etd", careless_flow),
        replace(networks, "_integrate_etd", impatient_flow),
    ],
}
