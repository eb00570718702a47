"""What the chapter's public names say to input that they cannot use, and that they keep nothing of the caller's."""

import numpy as np
import pytest
import sympy as sp
import torch

import lib.initialization_shape as ish

X, Y = np.array([[1.0, 2.0, 3.0], [0.5, 1.0, -1.0]]), np.array([1.0, 2.0])
POTENTIALS = [
    ish.DiagonalPotential(0.1, np.zeros(3)),
    ish.DeepDiagonalPotential(3, 0.5),
    ish.NeuronPotential(0.3, [1.0] * 3),
]
METHODS = (
    "__call__",
    "grad",
    "hess_diag",
    "grad_conjugate",
    "conjugate",
    "hess_conjugate_diag",
    "radial",
    "radial_rise",
)
BAD = [np.nan, np.inf, -np.inf, [[1.0], [1.0, 2.0]], "abc", 1j, None]


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.parametrize("potential", POTENTIALS, ids=lambda each: type(each).__name__)
def test_methods_of_potentials_refuse_what_is_no_finite_number(potential, bad) -> None:
    for name in METHODS:
        if hasattr(potential, name):
            argument = bad if not isinstance(bad, float) else np.array([0.1, bad, 0.2])
            with pytest.raises((ValueError, TypeError), match=r"^[wxz] must"):
                getattr(potential, name)(argument)


@pytest.mark.parametrize("potential", POTENTIALS, ids=lambda each: type(each).__name__)
def test_methods_of_potentials_take_every_kind_of_real_array(potential) -> None:
    w = np.array([0.25, 0.5, 0.125])
    frozen = w.copy()
    frozen.flags.writeable = False
    kinds = [
        w.tolist(),
        w.astype(np.float32),
        np.repeat(w, 2)[::2],
        frozen,
        torch.from_numpy(w.copy()).requires_grad_(),
    ]
    for name in METHODS:
        if hasattr(potential, name):
            for kind in kinds:
                np.testing.assert_allclose(getattr(potential, name)(kind), getattr(potential, name)(w))


def test_potentials_keep_nothing_of_the_callers_arrays() -> None:
    k, w0 = np.ones(3), np.full(3, 0.5)
    diagonal, neuron = ish.DiagonalPotential(k, w0), ish.NeuronPotential(0.1, w0)
    before = float(diagonal([1.0, 2.0, 3.0])), float(neuron([1.0, 2.0, 3.0]))
    k[:], w0[:] = 7.0, 9.0
    assert (float(diagonal([1.0, 2.0, 3.0])), float(neuron([1.0, 2.0, 3.0]))) == before
    assert not np.shares_memory(diagonal.k, k)
    assert not np.shares_memory(neuron.w0, w0)


x, t = sp.symbols("x t", positive=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ish.least_l2_interpolator(X * np.inf, Y), "X must be finite"),
        (lambda: ish.least_l2_interpolator(X, Y * np.nan), "y must be finite"),
        (lambda: ish.least_l1_interpolator(X, Y[:1]), "X and y must have as many rows"),
        (lambda: ish.DeepDiagonalPotential(3, 0.5).grad_conjugate([1e6]), "z must lie within"),
        (lambda: ish.DiagonalPotential(0.1).grad_conjugate([1e6]), "z must be below"),
        (lambda: ish.layer_norms(-1.0, 0.3), "x must be non-negative"),
        (lambda: ish.minimize_potential(None, X, Y), "potential must have the methods"),
        (lambda: ish.minimize_potential(POTENTIALS[0], X, Y, tol=np.nan), "tol must be positive"),
        (lambda: ish.gradient_flow(None, X, Y, {}), "model must be one of"),
        (lambda: ish.gradient_flow(["diagonal"], X, Y, {}), "model must be one of"),
        (lambda: ish.gradient_flow("diagonal", X, Y, None), "params must be a dict"),
        (lambda: ish.gradient_flow("diagonal", X, Y, {1: 2}), "params must have the keys"),
        (
            lambda: ish.gradient_flow("neuron", X, Y, {"a": 1.0, "u": [0.1] * 3}, max_steps=0),
            "max_steps must be at least 1",
        ),
        (lambda: ish.gradient_descent("neuron", X, Y, {"a": 1.0, "u": [0.1] * 3}, lr="x"), "lr must be a number"),
        (lambda: ish.sparse_regression(10, 5, rng=0), "rng must be a numpy Generator"),
        (lambda: ish.sparse_regression(10, 5, noise=np.inf, rng=np.random.default_rng(0)), "noise must be finite"),
        (lambda: ish.digits_regression(rng=None), "rng must be a numpy Generator"),
        (lambda: ish.random_neurons(2, 3, 0.1, 0.0, rng=None), "rng must be a numpy Generator"),
        (lambda: ish.NeuronLinear(2, 0.1, 0.0, generator=0), r"generator must be a torch\.Generator"),
        (lambda: ish.NeuronLinear(2, 0.1, 0.0, slope="steep"), "slope must be a number"),
        (lambda: ish.NeuronPotential(-0.1, [1.0], flipped="no"), "flipped must be True or False"),
        (lambda: ish.neuron_limit(X, Y, 1.0, [0.1] * 3, final_sign="up"), "final_sign must be a number"),
        (lambda: ish.population_errors(None, [0.1], [0.0]), "problem must be a SparseRegression"),
        (lambda: ish.SweepPreset(alphas="abc"), "alphas must be a list or a tuple"),
        (lambda: ish.symbolic.hessian_defect(None, (x, t)), "M must be a sympy matrix"),
        (lambda: ish.symbolic.hessian_defect(sp.eye(2), "xt"), "symbols must be a list"),
        (lambda: ish.symbolic.radial_defect("x", 1 / x, x), "h1 must be a sympy expression"),
        (lambda: ish.symbolic.find_radial_warp(x, 1 / x, "x"), "t must be a sympy symbol"),
    ],
)
def test_other_input_is_refused_by_name(call, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_numpys_integers_are_integers() -> None:
    assert ish.SweepPreset(d=np.int64(40), alphas=np.array([0.1])) == ish.SweepPreset(d=40, alphas=(0.1,))
    assert repr(ish.SweepPreset(d=np.int64(40))) == repr(ish.SweepPreset(d=40))
