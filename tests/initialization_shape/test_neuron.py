"""The neuron's potential and closed-form limit."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.initialization_shape import NeuronPotential, gradient_flow, layer_norms, neuron_limit


@given(st.floats(0, 1e4), st.floats(-1e6, 1e6))
def test_layer_norms_solve_their_equations(x: float, delta: float) -> None:
    t, a = layer_norms(x, delta)
    np.testing.assert_allclose(a * t, x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(a**2 - t**2, delta, rtol=1e-9, atol=1e-9 * (1 + x))


@given(st.floats(1e-6, 1e3), st.floats(-1e6, 1e6))
def test_radial_part_agrees_with_50_digits(x: float, delta: float) -> None:
    with mpmath.workdps(60):
        big_x, d = mpmath.mpf(x), mpmath.mpf(delta)
        root = mpmath.sqrt(big_x**2 + d**2 / 4)
        exact = (big_x**2 - d / 2 * (d / 2 + root)) * mpmath.sqrt(root - d / 2) / big_x
        at_zero = -(d ** mpmath.mpf("1.5")) / 2 if d > 0 else mpmath.mpf(0)
    potential = NeuronPotential(delta, [1.0])
    np.testing.assert_allclose(potential.radial(x), float(exact), rtol=1e-12)
    np.testing.assert_allclose(potential.radial_rise(x), float(exact - at_zero), rtol=1e-12)


@pytest.mark.parametrize(("delta", "flipped"), [(-2.0, False), (-2.0, True), (0.0, False), (3.0, False)])
def test_gradient_agrees_with_differences_and_is_inverted(delta: float, flipped: bool) -> None:
    rng = np.random.default_rng(0)
    potential = NeuronPotential(delta, rng.standard_normal(4), flipped=flipped)
    w, step = rng.standard_normal((3, 4)), 1e-6
    differences = np.stack([(potential(w + e) - potential(w - e)) / (2 * step) for e in np.eye(4) * step], axis=-1)
    np.testing.assert_allclose(potential.grad(w), differences, atol=1e-7)
    np.testing.assert_allclose(potential.grad_conjugate(potential.grad(w)), w, atol=1e-12)
    if not flipped:
        np.testing.assert_allclose(potential.grad(potential.w0), 0, atol=1e-14)


def test_finite_at_zero_for_every_delta() -> None:
    for delta in (-1.0, 0.0, 1.0):
        potential = NeuronPotential(delta, [1.0, 0.0])
        assert np.isfinite(potential([0.0, 0.0]))
        assert np.isfinite(potential.grad([0.0, 0.0])).all()


@given(st.integers(0, 10_000))
def test_limit_fits_the_data_and_keeps_what_is_conserved(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = 3, 8
    X, y, u0 = rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal(d)
    a0 = float(rng.choice([-1, 1])) * (np.linalg.norm(u0) + rng.uniform(0, 1))
    slope = rng.uniform(0.1, 1)
    w, a, u = neuron_limit(X, y, a0, u0, slope=slope)
    inputs = X @ u
    np.testing.assert_allclose(a * np.where(inputs > 0, inputs, slope * inputs), y, atol=1e-9)
    np.testing.assert_allclose(w, a * u, atol=1e-9)
    np.testing.assert_allclose(a**2 - u @ u, a0**2 - u0 @ u0, atol=1e-8)
    null_space = np.linalg.svd(X)[2][n:]
    np.testing.assert_allclose(null_space @ u, null_space @ u0, atol=1e-9)
    assert a * a0 > 0


def test_negative_delta_needs_a_sign_and_gets_the_right_root() -> None:
    X, y, u0 = [[1.0, 2.0]], [2.0], np.array([-0.7, -0.4])
    end = gradient_flow("neuron", X, y, {"a": 0.05, "u": u0})
    assert end.params["a"] < 0
    np.testing.assert_allclose(neuron_limit(X, y, 0.05, u0, final_sign=-1)[0], end.w, atol=1e-7)
    with pytest.warns(RuntimeWarning, match="may change its sign"):
        kept, _, _ = neuron_limit(X, y, 0.05, u0)
    assert np.linalg.norm(kept - end.w) > 0.01
    flipped = NeuronPotential.from_weights(0.05, u0, final_sign=-1)
    assert flipped.flipped
    np.testing.assert_allclose(flipped.grad_conjugate(flipped.grad(end.w)), end.w, atol=1e-9)


def test_the_potential_keeps_nothing_of_the_callers_arrays() -> None:
    w0 = np.full(3, 0.5)
    potential = NeuronPotential(0.1, w0)
    before = float(potential([1.0, 2.0, 3.0]))
    w0[:] = 9.0
    assert float(potential([1.0, 2.0, 3.0])) == before
    assert not np.shares_memory(potential.w0, w0)


def test_small_examples_bind_like_large_ones() -> None:
    rng = np.random.default_rng(0)
    X, y, u0 = rng.standard_normal((4, 10)), rng.standard_normal(4), 0.1 * rng.standard_normal(10)
    sizes = np.array([1e-9, 1.0, 1.0, 1e9])
    plain, _, _ = neuron_limit(X, y, 1.0, u0)
    scaled, _, _ = neuron_limit(X * sizes[:, None], y * sizes, 1.0, u0)
    np.testing.assert_allclose(scaled, plain, atol=1e-6)


def test_weights_with_negative_delta_warn() -> None:
    with pytest.warns(RuntimeWarning, match="may change its sign"):
        NeuronPotential.from_weights(0.1, [1.0, 0.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NeuronPotential(1.0, [0.0, 0.0]), "w0 must not be zero"),
        (lambda: NeuronPotential(1.0, [1.0], flipped=True), "flipped must be False"),
        (lambda: NeuronPotential.from_weights(1.0, [0.1], final_sign=-1), "final_sign must be the sign of a0"),
        (lambda: NeuronPotential.from_weights(1.0, [0.1], final_sign=2), "final_sign must be"),
        (lambda: neuron_limit([[1.0]], [1.0], 1.0, [0.1], slope=0.0), "slope must lie in"),
        (lambda: neuron_limit([[1.0]], [1.0], 0.0, [0.1]), "a0 must not be zero"),
        (lambda: neuron_limit([[1.0], [1.0]], [1.0, 2.0], 1.0, [0.1]), "no weights fit"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()
