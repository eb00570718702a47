"""Potentials of diagonal networks, against numerical and high-precision references."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from lib.initialization_shape import DeepDiagonalPotential, DiagonalPotential, NeuronPotential


@given(st.floats(1e-8, 1e4), st.floats(-1e3, 1e3), st.floats(-10, 10))
def test_conjugate_gradient_inverts_gradient(k: float, w: float, w0: float) -> None:
    potential = DiagonalPotential(k, w0)
    np.testing.assert_allclose(potential.grad_conjugate(potential.grad([w])), [w], rtol=1e-8, atol=1e-9 * (k + abs(w0)))


@given(st.floats(1e-6, 1e6), st.floats(1e-30, 100))
def test_value_agrees_with_100_digits(k: float, x: float) -> None:
    with mpmath.workdps(100):
        r = 2 * mpmath.mpf(x) / k
        exact = float(mpmath.mpf(k) / 4 * (1 - mpmath.sqrt(1 + r**2) + r * mpmath.asinh(r)))
    np.testing.assert_allclose(DiagonalPotential(k)([x]), exact, rtol=1e-14, atol=1e-300)


def test_derivatives_agree_with_differences() -> None:
    rng = np.random.default_rng(0)
    potential = DiagonalPotential(rng.uniform(0.1, 2, 5), rng.standard_normal(5))
    w, step = rng.standard_normal(5), 1e-5
    for i, e in enumerate(np.eye(5) * step):
        np.testing.assert_allclose(potential.grad(w)[i], (potential(w + e) - potential(w - e)) / (2 * step), atol=1e-8)
        change = (potential.grad(w + e) - potential.grad(w - e))[i] / (2 * step)
        np.testing.assert_allclose(potential.hess_diag(w)[i], change, atol=1e-8)
    z = potential.grad(w)
    np.testing.assert_allclose(potential.hess_conjugate_diag(z) * potential.hess_diag(w), np.ones(5))


@pytest.mark.parametrize(
    "potential", [DiagonalPotential(0.3, 0.2), DeepDiagonalPotential(3, 0.4), DeepDiagonalPotential(5, 1.1)]
)
def test_conjugate_obeys_the_legendre_identity(potential) -> None:
    rng = np.random.default_rng(1)
    w = rng.standard_normal((6, 4))
    z = potential.grad(w)
    at_zero = potential.conjugate(potential.grad(np.zeros(4)))
    np.testing.assert_allclose(potential(w) + potential.conjugate(z) - at_zero, (z * w).sum(axis=-1), atol=1e-10)
    assert potential(w).shape == (6,)


@pytest.mark.parametrize(
    "potential",
    [DiagonalPotential(0.1, np.zeros(3)), DeepDiagonalPotential(3, 0.5), NeuronPotential(0.3, [1.0] * 3)],
    ids=repr,
)
def test_methods_take_every_kind_of_finite_array_and_refuse_the_rest(potential) -> None:
    w = np.array([0.25, 0.5, 0.125])
    frozen = w.copy()
    frozen.flags.writeable = False
    kinds = [w.tolist(), w.astype(np.float32), np.repeat(w, 2)[::2], frozen, torch.tensor(w, requires_grad=True)]
    names = ("__call__", "grad", "hess_diag", "grad_conjugate", "conjugate", "hess_conjugate_diag", "radial_rise")
    for method in (getattr(potential, name) for name in names if hasattr(potential, name)):
        for kind in kinds:
            np.testing.assert_allclose(method(kind), method(w))
        for bad in ([0.1, np.nan, 0.2], [0.1, -np.inf, 0.2], [[1.0], [1.0, 2.0]], "abc", 1j, None):
            with pytest.raises((ValueError, TypeError), match=r"^[wxz] must"):
                method(bad)


def test_the_potential_keeps_nothing_of_the_callers_arrays() -> None:
    k, w0 = np.ones(3), np.full(3, 0.5)
    potential = DiagonalPotential(k, w0)
    before = float(potential([1.0, 2.0, 3.0]))
    k[:], w0[:] = 7.0, 9.0
    assert float(potential([1.0, 2.0, 3.0])) == before
    assert not np.shares_memory(potential.k, k)


def test_gradient_is_zero_at_the_start_and_k_is_invariant_under_the_branches() -> None:
    rng = np.random.default_rng(2)
    u_p, v_p, u_m, v_m = rng.standard_normal((4, 7))
    potential = DiagonalPotential.from_weights(u_p, v_p, u_m, v_m)
    np.testing.assert_allclose(potential.w0, u_p * v_p - u_m * v_m)
    np.testing.assert_allclose(potential.grad(potential.w0), 0, atol=1e-14)
    np.testing.assert_allclose(DiagonalPotential.from_weights(u_m, v_m, u_p, v_p).k, potential.k)


def test_deep_slope_is_the_integral_of_the_flow() -> None:
    # u' = -D u^(D-1) dG for one branch and + for the other, integrated by brute force
    depth, alpha, end = 4, 0.8, -0.1
    flow = solve_ivp(
        lambda _, u: depth * np.array([-1, 1]) * u ** (depth - 1), (0, end), [alpha, alpha], rtol=1e-12, atol=1e-14
    )
    w = flow.y[0, -1] ** depth - flow.y[1, -1] ** depth
    # this project's G counts d(w)/dG = -(sum of squared products), one D less than the layers' own equation
    slope = DeepDiagonalPotential(depth, alpha).grad([w])[0]
    np.testing.assert_allclose(slope, -end, rtol=1e-6)


def test_deep_value_is_the_quadrature_of_its_slope() -> None:
    potential = DeepDiagonalPotential(3, 0.5)
    area, _ = quad(lambda x: potential.grad([x])[0], 0, 1.3)
    np.testing.assert_allclose(potential([1.3]), area, rtol=1e-8)
    np.testing.assert_allclose(
        potential.hess_diag([0.4]), (potential.grad([0.4 + 1e-6]) - potential.grad([0.4 - 1e-6])) / 2e-6, rtol=1e-6
    )


def test_deep_gradient_keeps_its_digits_for_small_scales() -> None:
    potential = DeepDiagonalPotential(3, 1e-3)
    w = np.array([-1.0, 1e-6, 0.0, 2.0])
    np.testing.assert_allclose(potential.grad_conjugate(potential.grad(w))[1:3], w[1:3], rtol=1e-6, atol=1e-15)
    assert np.all(np.abs(potential.grad(w)) < 1 / (1e-3 * 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DeepDiagonalPotential(2, 0.5), "depth must be at least 3"),
        (lambda: DeepDiagonalPotential(3, 0.5).grad_conjugate([1e6]), "z must lie within"),
        (lambda: DiagonalPotential(0.1).grad_conjugate([1e6]), "z must be below"),
        (lambda: DiagonalPotential.from_weights(0.0, 0.0, 0.0, 0.0), "saddle"),
        (lambda: DiagonalPotential.from_weights([1, 1], [1, 1], [0, 1], [0, 1]), "saddle"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
