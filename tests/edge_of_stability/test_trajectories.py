"""Runs of gradient descent: monotone, stable, and honest about divergence."""

import numpy as np
import pytest

from lib.edge_of_stability import (
    MONOTONE_LIMIT,
    gd_path,
    gd_step,
    gfs_sharpness,
    gpgd_step,
    is_admissible,
    run_gd,
)


def test_admissible_steps_never_raise_the_sharpness_of_the_flow_solution() -> None:
    rng = np.random.default_rng(0)
    w = np.exp(rng.uniform(-1, 1, (20_000, 3)) * rng.uniform(0.05, 1.2, (20_000, 1)))
    phi = gfs_sharpness(w)
    eta = rng.uniform(0, 6, 20_000) / phi
    admissible = is_admissible(w, eta)
    assert admissible.sum() > 2_000
    after = gfs_sharpness(gd_step(w[admissible], eta[admissible]))
    assert np.all(after <= phi[admissible] * (1 + 1e-11))
    assert np.all(eta[admissible] * phi[admissible] <= MONOTONE_LIMIT)


def test_single_and_batched_runs_agree() -> None:
    w0 = np.array([[1.5, 0.9, 0.8], [0.7, 1.2, 1.4]])
    eta = 2.3 / gfs_sharpness(w0)
    batch = run_gd(w0, eta, 60, record_every=3)
    for lane in range(2):
        single = run_gd(w0[lane], eta[lane], 60, record_every=3)
        np.testing.assert_allclose(single.w, batch.w[:, lane], rtol=1e-9)
        np.testing.assert_allclose(single.gfs_sharpness, batch.gfs_sharpness[:, lane], rtol=1e-9)
    assert batch.steps[-1] == 60
    assert batch.w.shape == (21, 2, 3)


def test_a_run_goes_through_an_exact_zero() -> None:
    # the first step lands on a zero weight: 2 - 0.5 * (2 * 2 - 0) ... and the run goes on by the exact products
    run = run_gd([2.0, 0.0], 0.5, 3)
    np.testing.assert_allclose(run.w[1], gd_step([2.0, 0.0], 0.5))
    assert np.isfinite(run.w).all()


def test_a_diverged_lane_is_frozen_and_does_not_poison_others() -> None:
    w0 = np.array([[5.0, 5.0], [1.1, 0.9]])
    run = run_gd(w0, 0.5, 100)
    np.testing.assert_array_equal(run.diverged, [True, False])
    assert np.isfinite(run.w).all()
    assert run.loss[-1, 1] < 1e-20
    single = run_gd(w0[0], 0.5, 100)
    assert bool(single.diverged)
    assert np.isfinite(single.w).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run_gd([1.0, 2.0], 0.1, 10, record_every=0), "record_every must be at least 1"),
        (lambda: gd_path([1.5, 0.6], [0.1, 0.2], 5), r"eta must have shape \(\)"),
        (lambda: gpgd_step([3.0, 1.0], 0.5), "keep its sign"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
