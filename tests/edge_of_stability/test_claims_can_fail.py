"""Every claim of the chapter is seen to fail when the thing it speaks of is broken."""

from dataclasses import replace as with_settings

import numpy as np
import pytest
import sympy as sp

from lib.claims import ledger
from lib.edge_of_stability import claims as claims_module
from lib.edge_of_stability import experiment, networks, scalar_network, squared_regression, symbolic, trajectories
from lib.edge_of_stability.trajectories import run_gd
from lib.initialization_shape import DiagonalPotential
from tests.breaking import Break, replace

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


def stable_descent(preset, data_path=None):
    """A step size so small that nothing happens."""
    return experiment.watch_descent(with_settings(preset, edge=1.5, every=100), data_path)


def the_wrong_sharpness(preset, data_path=None):
    """Sharpness of the present weights, taken for that of the flow solution."""
    run = experiment.watch_descent(with_settings(preset, every=100), data_path)
    return with_settings(run, gfs_sharpness=run.sharpness)


def careless_flow(problem, loss_tol, rtol, max_steps):
    return INTEGRATE_ETD(problem, loss_tol, 1e3, max_steps)


BREAKS: dict[str, list[Break]] = {
    "flow-solution-is-algebraic": [replace(claims_module, "gradient_flow_solution", rescaled)],
    "balance-identity": [
        replace(symbolic, "balance_step", unsquared_balance_step),
        replace(claims_module, "gd_step", other_step(1.001)),
    ],
    "sharpness-at-a-minimum": [
        replace(symbolic, "hessian_at_minimum", forgotten_residual),
        replace(claims_module, "gradient_flow_solution", lambda w, target: 1.01 * rescaled(w, target)),
        replace(claims_module, "gfs_sharpness", lambda w, target: target * (1 / w**2).sum(axis=-1)),
    ],
    "one-step-is-monotone": [
        replace(claims_module, "gfs_sharpness", scalar_network.sharpness),
        replace(claims_module, "MONOTONE_LIMIT", 4.0),
    ],
    "boundary-is-real": [
        replace(claims_module, "MONOTONE_LIMIT", 3.2),
        replace(claims_module, "gd_step", other_step(0.4)),
    ],
    "bound-is-sharp": [
        replace(claims_module, "MONOTONE_LIMIT", 3.0),
        replace(claims_module, "gd_step", other_step(0.99)),
        replace(claims_module, "gfs_sharpness", lambda w: 1.01 * trajectories.gfs_sharpness(w)),
    ],
    "whole-runs-are-monotone": [
        replace(claims_module, "gfs_sharpness", at_the_present_weights),
        replace(claims_module, "gd_step", other_step(2.0)),
    ],
    "convergence-to-the-edge": [
        replace(claims_module, "run_gd", other_run(1.3)),
        replace(claims_module, "run_gd", other_run(0.5)),
    ],
    "no-convergence-below-the-least-sharpness": [replace(claims_module, "run_gd", other_run(0.8))],
    "loss-jumps-and-phi-falls": [
        replace(claims_module, "run_gd", other_run(0.5)),
        replace(trajectories, "_gfs_or_nan", scalar_network.sharpness),
    ],
    "frozen-balances": [
        replace(symbolic, "frozen_multiplier", twice_the_multiplier),
        replace(claims_module, "gpgd_step", other_step(1.05)),
    ],
    "squared-regression-solution": [replace(squared_regression, "DiagonalPotential", small_k)],
    "squared-regression-descends": [replace(squared_regression.SquaredRegression, "run_gd", timid_regression)],
    "digits-network": [
        replace(claims_module, "watch_descent", stable_descent),
        replace(claims_module, "watch_descent", the_wrong_sharpness),
    ],
    "fashion-network": [replace(claims_module, "watch_descent", stable_descent)],
    "flow-integrator": [replace(networks, "_integrate_etd", careless_flow)],
}


@pytest.fixture(autouse=True)
def _nothing_is_remembered():
    """Claims share what they measured within a session; a break must not meet it, nor leave anything behind."""
    for cached in (claims_module._random_steps, claims_module._watched):
        cached.cache_clear()
    yield
    for cached in (claims_module._random_steps, claims_module._watched):
        cached.cache_clear()


def test_every_claim_has_a_break() -> None:
    assert set(BREAKS) == set(ledger("edge_of_stability").claims)


@pytest.mark.parametrize(
    ("claim_id", "number"), [(name, number) for name, breaks in BREAKS.items() for number in range(len(breaks))]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_broken_implementation_is_noticed(claim_id: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = ledger("edge_of_stability")[claim_id]
    BREAKS[claim_id][number](monkeypatch)
    assert not claim.check().evidence.holds
