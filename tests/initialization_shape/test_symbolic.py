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


def test_warps_that_are_not_needed_do_not_exist_or_have_no_closed_form() -> None:
    x = sp.Symbol("x", positive=True)
    assert symbolic.find_radial_warp(x, 1 / x, x) == 1
    for h1, h2, found in ((0, 1, "degenerate"), (x**2, -1, "degenerate"), (1, sp.sin(sp.sin(x)) / x, "no closed form")):
        with pytest.raises(symbolic.NoWarpError, match=found):
            symbolic.find_radial_warp(sp.sympify(h1), sp.sympify(h2), x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, y: symbolic.hessian_defect(sp.eye(3), (x, y)), ValueError, "M must be 2 x 2"),
        (lambda x, y: symbolic.hessian_defect(sp.Matrix([[1, x], [y, 1]]), (x, y)), ValueError, "M must be symmetric"),
        (lambda x, y: symbolic.hessian_defect(None, (x, y)), TypeError, "M must be a sympy matrix"),
        (lambda *_: symbolic.hessian_defect(sp.eye(2), "xt"), TypeError, "symbols must be a list"),
        (lambda x, _: symbolic.radial_defect("x", 1 / x, x), TypeError, "h1 must be a sympy expression"),
        (lambda x, _: symbolic.find_radial_warp(x, 1 / x, "x"), TypeError, "t must be a sympy symbol"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call(*sp.symbols("x y"))
