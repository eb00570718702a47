"""What makes each claim of chapter 02 fail."""

from dataclasses import replace as with_settings

import numpy as np

from lib.edge_of_stability import experiment, flow_solution, networks, scalar_network, symbolic, trajectories
from lib.edge_of_stability.claims import networks as network_claims
from lib.edge_of_stability.claims import scalar_networks
from lib.edge_of_stability.squared_regression import SquaredRegression
from lib.edge_of_stability.trajectories import run_gd
from tests.breaking import Break, edit, replace


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


def stable_descent(preset, folder):
    """A step size so small that nothing happens."""
    return experiment.train_edge_of_stability(with_settings(preset, edge=1.5, every=200, tol=1e-2), folder)


def the_wrong_sharpness(preset, folder):
    """Sharpness of the present weights, taken for that of the flow solution."""
    run = experiment.train_edge_of_stability(with_settings(preset, every=200, tol=1e-2), folder)
    return with_settings(run, scores=run.sharpness)


#: Some of the long runs are enough to see that something is wrong.
SETTING = replace(scalar_networks, "_LONG_RUNS", 100)
BREAKS: dict[str, list[Break]] = {
    "flow-solution-is-algebraic": [
        replace(scalar_networks, "gradient_flow_solution", rescaled),
        # the minimum of the other orthant
        replace(scalar_networks, "gradient_flow_solution", lambda w: np.abs(flow_solution.gradient_flow_solution(w))),
    ],
    "balance-identity": [
        edit(symbolic, "balance_step", "1 - pull**2", "1 - pull"),
        replace(scalar_networks, "gd_step", other_step(1.001)),
    ],
    "sharpness-at-a-minimum": [
        # anywhere, not at a minimum
        edit(symbolic, "hessian_at_minimum", ".subs(target, sp.prod(w))", ""),
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
        replace(trajectories, "gfs_or_nan", scalar_network.sharpness),
    ],
    "frozen-balances": [
        edit(symbolic, "frozen_multiplier", "1 - eta * sharpness", "2 - 2 * eta * sharpness"),
        replace(scalar_networks, "gpgd_step", other_step(1.05)),
    ],
    "squared-regression-solution": [
        # the k of chapter 01's own parametrisation, half of the right one
        edit(SquaredRegression, "_solution", "k = 4 *", "k = 2 *"),
        edit(SquaredRegression, "gfs_sharpness", "return", "return 1.001 *"),
    ],
    "squared-regression-descends": [
        edit(SquaredRegression, "run_gd", "pull = 2 * eta", "pull = 2 / 3 * eta"),
        edit(SquaredRegression, "run_gd", "np.array(phis)", "np.array(phis[::-1])"),
    ],
    "digits-network": [
        replace(network_claims, "train_edge_of_stability", stable_descent),
        replace(network_claims, "train_edge_of_stability", the_wrong_sharpness),
    ],
    "fashion-network": [
        replace(network_claims, "train_edge_of_stability", stable_descent),
        replace(network_claims, "train_edge_of_stability", the_wrong_sharpness),
    ],
    "flow-integrator": [
        edit(networks, "_integrate_etd", "(rtol * (0.01 + size))", "(1e3 * (0.01 + size))"),
        edit(networks, "_integrate_etd", "if value <= tol", "if value <= 0.1"),
    ],
}
