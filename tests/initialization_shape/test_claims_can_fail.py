"""Every claim of the chapter is seen to fail when the thing it speaks of is broken."""

import numpy as np
import pytest
import sympy as sp

from lib.claims import ledger
from lib.initialization_shape import claims as claims_module
from lib.initialization_shape import diagonal, interpolation, networks, neuron, several_neurons, symbolic
from lib.initialization_shape.diagonal import DiagonalPotential
from lib.initialization_shape.dynamics import gradient_descent, gradient_flow
from lib.initialization_shape.neuron import layer_norms, neuron_limit
from lib.initialization_shape.sweep import population_errors
from tests.breaking import Break, replace

ORIGINAL_METRIC = symbolic.neuron_metric
ORIGINAL_DIAGONAL = symbolic.diagonal_potential
ORIGINAL_NEURON = symbolic.neuron_potential_in_layers


def other_k(cls, u_p, v_p, u_m, v_m) -> DiagonalPotential:
    """The k of an unbiased start, used for a biased one."""
    return cls(2 * (u_p**2 + v_p**2), u_p * v_p - u_m * v_m)


def loose_minimum(*arguments, **options):
    return interpolation.minimize_potential(*arguments, **{**options, "tol": 1e-6})


def without_warning(function):
    def quiet(*arguments, **options):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*arguments, **options)

    return quiet


def untrained_steps(model, X, y, weights, **options):
    """Descent that stops far too early."""
    return gradient_descent(model, X, y, weights, **{**options, "stop": 0.1})


def fixed_step(model, X, y, weights, **options):
    """Descent that ignores the step size that it is given."""
    return gradient_descent(model, X, y, weights, **{**options, "lr": 5e-3})


def loose_flow(model, X, y, weights, **options):
    return gradient_flow(model, X, y, weights, **{"rtol": 1e-3, "stop": 1e-3, **options})


def wrong_limit(X, y, a0, u0, **options):
    """The closed form with the wrong projection: it forgets the part that the data do not see."""
    w, a, u = neuron_limit(X, y, a0, u0, **options)
    w = np.linalg.lstsq(np.asarray(X), np.asarray(X) @ w, rcond=None)[0]
    return w, a, u


def linear_limit(X, y, a0, u0, *, slope=1.0, **options):
    return neuron_limit(X, y, a0, u0, **options)


def one_sign(X, y, a0, u0, *, final_sign=None, **options):
    return neuron_limit(X, y, a0, u0, final_sign=1)


def wrong_layers(x, delta):
    """The conserved quantity with the wrong sign."""
    return layer_norms(x, -delta)


def wrong_metric():
    coordinates, delta, metric, warp = ORIGINAL_METRIC()
    return coordinates, delta, metric, warp**2


def mirror_already():
    coordinates, delta, _, _ = ORIGINAL_METRIC()
    return coordinates, delta, sp.hessian(coordinates[0] ** 4 + coordinates[1] ** 4, coordinates), sp.Integer(1)


def wrong_neuron_potential():
    t, delta, x, q = ORIGINAL_NEURON()
    return t, delta, x, q + t


def wrong_diagonal_potential():
    x, k, q = ORIGINAL_DIAGONAL()
    return x, k, 2 * q


def upside_down(problem, alphas, shapes):
    return population_errors(problem, alphas, shapes)[:, ::-1]


def shapeless(problem, alphas, shapes):
    return population_errors(problem, alphas, np.asarray(shapes) * -1)[::-1]


def only_scales(count, d, alpha, shape, *, rng):
    """Neurons whose layers are always balanced."""
    return several_neurons.random_neurons(count, d, alpha, 0.0, rng=rng)


def frozen_first_layer(self, x):
    return x @ (self.u_p.detach() * self.v_p - self.u_m.detach() * self.v_m)


def minimum_for_a_slightly_larger_k(potential, X, y):
    """A k that is ten percent off."""
    return interpolation.minimize_potential(DiagonalPotential(1.1 * potential.k), X, y)


def half_of_k(alpha, shape):
    """The formula for k without its denominator."""
    return 4 * np.asarray(alpha) * (1 + np.asarray(shape) ** 2)


def minimum_for_the_papers_k(potential, X, y):
    """What comes out when the paper's k, the square of ours, is taken for ours."""
    return interpolation.minimize_potential(DiagonalPotential(potential.k**2), X, y)


BREAKS: dict[str, list[Break]] = {
    "diagonal-potential": [replace(symbolic, "diagonal_potential", wrong_diagonal_potential)],
    "diagonal-flow-limit": [
        replace(DiagonalPotential, "from_weights", classmethod(other_k)),
        replace(claims_module, "gradient_flow", loose_flow),
    ],
    "descent-is-first-order": [
        replace(claims_module, "gradient_descent", untrained_steps),
        replace(claims_module, "gradient_descent", fixed_step),
        replace(DiagonalPotential, "from_weights", classmethod(other_k)),
    ],
    "solver-is-exact": [replace(claims_module, "minimize_potential", loose_minimum)],
    "scale-and-shape-collapse": [
        replace(claims_module, "potential_scale", half_of_k),
        replace(claims_module, "gradient_flow", loose_flow),
    ],
    "norm-limits": [
        replace(diagonal, "potential_scale", lambda alpha, _: np.sqrt(alpha)),
        replace(claims_module, "least_l2_interpolator", lambda X, y: 1.01 * np.linalg.lstsq(X, y, rcond=None)[0]),
    ],
    "population-error-figure": [
        replace(claims_module, "population_errors", upside_down),
        replace(claims_module, "population_errors", shapeless),
    ],
    "time-warp": [
        replace(symbolic, "neuron_metric", wrong_metric),
        replace(symbolic, "neuron_metric", mirror_already),
    ],
    "warp-is-the-output-weight": [
        replace(symbolic, "neuron_potential_in_layers", wrong_neuron_potential),
        replace(symbolic, "find_radial_warp", lambda *_, **__: sp.Symbol("t", positive=True)),
    ],
    "neuron-flow-limit": [
        replace(claims_module, "neuron_limit", wrong_limit),
        replace(neuron, "layer_norms", wrong_layers),
    ],
    "neuron-descent-is-first-order": [
        replace(claims_module, "neuron_limit", wrong_limit),
        replace(claims_module, "gradient_descent", fixed_step),
    ],
    "several-neurons-spread": [replace(claims_module, "random_neurons", only_scales)],
    "leaky-neuron": [replace(claims_module, "neuron_limit", linear_limit)],
    "negative-delta-branch": [
        replace(claims_module, "neuron_limit", one_sign),
        replace(claims_module, "neuron_limit", without_warning(wrong_limit)),
    ],
    "neuron-potential-limits": [replace(neuron, "layer_norms", wrong_layers)],
    "trained-network": [
        replace(networks.DiagonalLinear, "forward", frozen_first_layer),
        replace(claims_module, "minimize_potential", minimum_for_the_papers_k),
        replace(claims_module, "minimize_potential", minimum_for_a_slightly_larger_k),
    ],
    "digits-experiment": [replace(claims_module, "population_errors", lambda *a: population_errors(*a)[::-1])],
    "delta-is-conserved": [
        replace(claims_module, "neuron_delta", lambda a, s: 2 * a * s / (1 - s**2)),
        replace(claims_module, "gradient_flow", loose_flow),
    ],
}


def test_every_claim_has_a_break() -> None:
    assert set(BREAKS) == set(ledger("initialization_shape").claims)


@pytest.mark.parametrize(
    ("claim_id", "number"), [(name, number) for name, breaks in BREAKS.items() for number in range(len(breaks))]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_broken_implementation_is_noticed(claim_id: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = ledger("initialization_shape")[claim_id]
    BREAKS[claim_id][number](monkeypatch)
    assert not claim.check().evidence.holds
