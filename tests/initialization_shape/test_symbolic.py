"""The derivations in sympy."""

import pytest
import sympy as sp

from lib.initialization_shape import DiagonalPotential, NeuronPotential, symbolic


def test_potentials_equal_the_numerical_ones() -> None:
    x, k, q = symbolic.diagonal_potential()
    assert float(q.subs({x: 0.7, k: 0.3})) == pytest.approx(float(DiagonalPotential(0.3)([0.7])), rel=1e-12)
    x, delta, q = symbolic.neuron_potential()
    for value in (-0.8, 0.4):
        assert float(q.subs({x: 0.7, delta: value})) == pytest.approx(
            float(NeuronPotential(value, [1.0]).radial(0.7)), rel=1e-12
        )


def test_a_hessian_has_no_defect_and_the_neurons_metric_has_the_known_one() -> None:
    x, y, z = sp.symbols("x y z")
    assert set(symbolic.hessian_defect(sp.hessian(sp.sin(x * y) + z**3 * x, (x, y, z)), (x, y, z))) == {0}
    (w1, w2), delta, metric, _ = symbolic.neuron_metric()
    point = {w1: sp.Rational(3, 5), w2: sp.Rational(4, 7), delta: sp.Rational(1, 3)}
    values = [float(entry.subs(point)) for entry in symbolic.hessian_defect(metric, (w1, w2))]
    assert values == pytest.approx([-0.330194818530962, -0.346704559457511], rel=1e-12)


def test_only_the_right_warp_removes_the_defect() -> None:
    (w1, w2), delta, metric, a = symbolic.neuron_metric()
    point = {w1: sp.Rational(3, 5), w2: sp.Rational(4, 7), delta: sp.Rational(1, 3)}

    def defect(warp: sp.Expr) -> float:
        return max(abs(float(entry.subs(point))) for entry in symbolic.hessian_defect(warp * metric, (w1, w2)))

    assert defect(a) < 1e-12
    assert defect(a**2) > 0.01
    assert defect(1 / a) > 0.01


def test_warps_that_do_not_exist_or_have_no_closed_form() -> None:
    x = sp.Symbol("x", positive=True)
    with pytest.raises(symbolic.NoWarpError, match="degenerate"):
        symbolic.find_radial_warp(sp.Integer(0), sp.Integer(1), x)
    with pytest.raises(symbolic.NoWarpError, match="degenerate"):
        symbolic.find_radial_warp(x**2, sp.Integer(-1), x)
    with pytest.raises(symbolic.NoWarpError, match="no closed form"):
        symbolic.find_radial_warp(sp.Integer(1), sp.sin(sp.sin(x)) / x, x)


def test_a_metric_that_is_a_hessian_needs_no_warp() -> None:
    x = sp.Symbol("x", positive=True)
    assert symbolic.find_radial_warp(x, 1 / x, x) == 1


def test_bad_matrices_are_refused() -> None:
    x, y = sp.symbols("x y")
    with pytest.raises(ValueError, match="M must be 2 x 2"):
        symbolic.hessian_defect(sp.eye(3), (x, y))
    with pytest.raises(ValueError, match="M must be symmetric"):
        symbolic.hessian_defect(sp.Matrix([[1, x], [y, 1]]), (x, y))
    with pytest.raises(TypeError, match="M must be a sympy matrix"):
        symbolic.hessian_defect(None, (x, y))
    with pytest.raises(TypeError, match="symbols must be a list"):
        symbolic.hessian_defect(sp.eye(2), "xt")
    with pytest.raises(TypeError, match="h1 must be a sympy expression"):
        symbolic.radial_defect("x", 1 / x, x)
    with pytest.raises(TypeError, match="t must be a sympy symbol"):
        symbolic.find_radial_warp(x, 1 / x, "x")
