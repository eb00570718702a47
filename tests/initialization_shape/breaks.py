"""What makes each claim of chapter 01 fail."""

from dataclasses import replace as with_settings

import numpy as np
import sympy as sp

from lib.initialization_shape import diagonal, interpolation, networks, neuron, several_neurons, symbolic
from lib.initialization_shape.claims import diagonal_networks, neurons, problems
from lib.initialization_shape.diagonal import DiagonalPotential
from lib.initialization_shape.dynamics import FlowResult, gradient_descent, gradient_flow
from lib.initialization_shape.neuron import layer_norms, neuron_limit
from lib.initialization_shape.sweep import population_errors
from tests.breaking import Break, both, edit, replace

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
    return gradient_descent(model, X, y, weights, **{**options, "lr": 1e-2})


FLOWS: dict[tuple[object, ...], FlowResult] = {}


def remembered_flow(model, X, y, weights):
    """Flows take long and no break changes one: each is followed once."""
    key = (model, *(np.asarray(part).tobytes() for part in (X, y, *weights.values())))
    return FLOWS[key] if key in FLOWS else FLOWS.setdefault(key, gradient_flow(model, X, y, weights))


def loose_flow(model, X, y, weights, **options):
    return gradient_flow(model, X, y, weights, **{"rtol": 1e-3, "stop": 1e-3, **options})


def wrong_limit(X, y, a0, u0, **options):
    """The closed form with the wrong projection: it forgets the part that the data do not see."""
    w, a, u = neuron_limit(X, y, a0, u0, **options)
    w = np.linalg.lstsq(np.asarray(X), np.asarray(X) @ w, rcond=None)[0]
    return w, a, u


def linear_limit(X, y, a0, u0, *, slope=1.0, **options):
    return neuron_limit(X, y, a0, u0, **options)


def half_the_slope(X, y, a0, u0, *, slope=1.0, **options):
    return neuron_limit(X, y, a0, u0, slope=slope / 2, **options)


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


def of_one_scale(count, d, alpha, shape, *, rng):
    """Neurons that are large whatever was asked for."""
    return several_neurons.random_neurons(count, d, 10.0, shape, rng=rng)


def twice_the_predictor(self, x):
    return 2 * x @ (self.u_p * self.v_p - self.u_m * self.v_m)


def minimum_for_a_slightly_larger_k(potential, X, y):
    """A k that is ten percent off."""
    return interpolation.minimize_potential(DiagonalPotential(1.1 * potential.k), X, y)


def minimum_for_rounded_data(potential, X, y):
    """The right answer for targets in single precision."""
    rounded = interpolation.minimize_potential(potential, X, y.astype(np.float32).astype(float))
    return with_settings(rounded, residual=float(np.abs(X @ rounded.w - y).max()))


def half_of_k(alpha, shape):
    """The formula for k without its denominator."""
    return 4 * np.asarray(alpha) * (1 + np.asarray(shape) ** 2)


#: A few of the random problems are enough to see that something is wrong.
SETTING = both(
    replace(diagonal_networks, "diagonal_problems", lambda _: problems.diagonal_problems(4)),
    replace(neurons, "neuron_problems", lambda _: problems.neuron_problems(4)),
    replace(diagonal_networks, "gradient_flow", remembered_flow),
    replace(neurons, "gradient_flow", remembered_flow),
)
BREAKS: dict[str, list[Break]] = {
    "diagonal-potential": [
        replace(symbolic, "diagonal_potential", wrong_diagonal_potential),
        edit(DiagonalPotential, "__call__", "return", "return 1.001 *"),
    ],
    "diagonal-flow-limit": [
        replace(DiagonalPotential, "from_weights", classmethod(other_k)),
        replace(diagonal_networks, "gradient_flow", loose_flow),
    ],
    "descent-is-first-order": [
        replace(diagonal_networks, "gradient_descent", untrained_steps),
        replace(diagonal_networks, "gradient_descent", fixed_step),
        replace(DiagonalPotential, "from_weights", classmethod(other_k)),
    ],
    "solver-is-exact": [
        replace(diagonal_networks, "minimize_potential", loose_minimum),
        replace(diagonal_networks, "minimize_potential", minimum_for_rounded_data),
    ],
    "scale-and-shape-collapse": [
        replace(diagonal_networks, "potential_scale", half_of_k),
        replace(diagonal_networks, "gradient_flow", loose_flow),
    ],
    "norm-limits": [
        replace(diagonal, "potential_scale", lambda alpha, _: np.sqrt(alpha)),
        replace(diagonal_networks, "least_l2_interpolator", lambda X, y: 1.01 * np.linalg.lstsq(X, y, rcond=None)[0]),
    ],
    "population-error-figure": [
        replace(diagonal_networks, "population_errors", upside_down),
        replace(diagonal_networks, "population_errors", shapeless),
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
        replace(neurons, "neuron_limit", wrong_limit),
        replace(neuron, "layer_norms", wrong_layers),
    ],
    "neuron-descent-is-first-order": [
        replace(neurons, "neuron_limit", wrong_limit),
        replace(neurons, "gradient_descent", fixed_step),
    ],
    "several-neurons-spread": [
        replace(neurons, "random_neurons", only_scales),
        replace(neurons, "random_neurons", of_one_scale),
    ],
    "leaky-neuron": [replace(neurons, "neuron_limit", linear_limit), replace(neurons, "neuron_limit", half_the_slope)],
    "negative-delta-branch": [
        replace(neurons, "neuron_limit", one_sign),
        replace(neurons, "neuron_limit", without_warning(wrong_limit)),
    ],
    "neuron-potential-limits": [
        replace(neuron, "layer_norms", wrong_layers),
        replace(neuron, "layer_norms", lambda x, delta: layer_norms(x, 1.01 * delta)),
    ],
    "trained-network": [
        replace(networks.DiagonalLinear, "forward", twice_the_predictor),
        replace(diagonal_networks, "minimize_potential", minimum_for_a_slightly_larger_k),
    ],
    "digits-experiment": [
        replace(diagonal_networks, "population_errors", lambda *a: population_errors(*a)[::-1]),
        # k itself kept, so that the shape makes no difference
        replace(
            diagonal_networks,
            "population_errors",
            lambda problem, alphas, _: population_errors(problem, alphas, [0.0] * 3),
        ),
    ],
    "delta-is-conserved": [
        replace(neurons, "neuron_delta", lambda a, s: 2 * a * s / (1 - s**2)),
        replace(neurons, "gradient_flow", loose_flow),
    ],
}
