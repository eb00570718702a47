"""What makes each claim of chapter 01 fail."""

from dataclasses import replace as with_settings
from itertools import islice

import numpy as np
import sympy as sp

from lib.initialization_shape import diagonal, networks, neuron, symbolic
from lib.initialization_shape.claims import diagonal_networks, neurons, problems
from lib.initialization_shape.diagonal import DiagonalPotential
from lib.initialization_shape.dynamics import FlowResult, gradient_flow
from lib.initialization_shape.interpolation import minimize_potential
from lib.initialization_shape.neuron import layer_norms
from lib.initialization_shape.sweep import population_errors
from tests.breaking import Break, both, edit, replace

FLOWS: dict[tuple[object, ...], FlowResult] = {}


def remembered_flow(model, X, y, weights):
    """Flows take long and no break changes one: each is followed once."""
    key = (model, *(np.asarray(part).tobytes() for part in (X, y, *weights.values())))
    return FLOWS[key] if key in FLOWS else FLOWS.setdefault(key, gradient_flow(model, X, y, weights))


def loose_flow(model, X, y, weights, **options):
    return gradient_flow(model, X, y, weights, **{"rtol": 1e-3, "tol": 1e-3, **options})


def minimum_for_rounded_data(potential, X, y):
    """The right answer for targets in single precision."""
    rounded = minimize_potential(potential, X, y.astype(np.float32).astype(float))
    return with_settings(rounded, residual=float(np.abs(X @ rounded.w - y).max()))


#: A few of the random problems, those that are fitted soon, are enough to see that something is wrong.
SETTING = both(
    replace(diagonal_networks, "diagonal_problems", lambda _: islice(problems.diagonal_problems(5), 2, None)),
    replace(neurons, "neuron_problems", lambda _: problems.neuron_problems(3)),
    replace(diagonal_networks, "_ALPHA", 1e-2),
    replace(diagonal_networks, "gradient_flow", remembered_flow),
    replace(neurons, "gradient_flow", remembered_flow),
)
#: The k of an unbiased start, used for a biased one.
OTHER_K = edit(DiagonalPotential, "from_weights", "k = growing * shrinking", "k = 2 * (up**2 + vp**2)")
#: The closed form without the part that the data do not see.
FORGETFUL_LIMIT = edit(neurons, "neuron_limit", "return w_least + a * hidden,", "return w_least,")
#: The conserved quantity with the wrong sign.
WRONG_LAYERS = edit(neuron, "layer_norms", "if delta >= 0 else", "if delta < 0 else")

BREAKS: dict[str, list[Break]] = {
    "diagonal-potential": [
        edit(symbolic, "diagonal_potential", "sp.asinh(2 * x / k) / 2", "sp.asinh(2 * x / k)"),
        edit(DiagonalPotential, "__call__", "return", "return 1.001 *"),
    ],
    "diagonal-flow-limit": [OTHER_K, replace(diagonal_networks, "gradient_flow", loose_flow)],
    "descent-is-first-order": [
        edit(diagonal_networks, "gradient_descent", "tol: float = 1e-9", "tol: float = 0.1"),
        edit(diagonal_networks, "gradient_descent", "+ lr * push", "+ 1e-2 * push"),
        OTHER_K,
    ],
    "solver-is-exact": [
        edit(diagonal_networks, "minimize_potential", "tol: float = 1e-12", "tol: float = 1e-6"),
        replace(diagonal_networks, "minimize_potential", minimum_for_rounded_data),
    ],
    "scale-and-shape-collapse": [
        edit(diagonal_networks, "potential_scale", " / (1 - s**2)", ""),
        replace(diagonal_networks, "gradient_flow", loose_flow),
    ],
    "norm-limits": [
        replace(diagonal, "potential_scale", lambda alpha, _: np.sqrt(alpha)),
        edit(diagonal_networks, "least_l2_interpolator", "np.asarray(", "1.01 * np.asarray("),
    ],
    "population-error-figure": [
        replace(diagonal_networks, "population_errors", lambda *a: population_errors(*a)[:, ::-1]),
        replace(diagonal_networks, "population_errors", lambda *a: population_errors(*a)[::-1]),
    ],
    "time-warp": [
        edit(symbolic, "neuron_metric", "H, sp.sqrt(a2)", "H, a2"),
        edit(symbolic, "neuron_metric", "    H = ", "    H = sp.hessian(w1**4 + w2**4, (w1, w2))  # "),
    ],
    "warp-is-the-output-weight": [
        edit(symbolic, "neuron_potential_in_layers", "- a**2) / 2", "- a**2) / 2 + t"),
        replace(symbolic, "find_radial_warp", lambda *_, **__: sp.Symbol("t", positive=True)),
    ],
    "neuron-flow-limit": [FORGETFUL_LIMIT, WRONG_LAYERS],
    "neuron-descent-is-first-order": [
        FORGETFUL_LIMIT,
        edit(neurons, "gradient_descent", "+ lr * push", "+ 1e-2 * push"),
    ],
    "several-neurons-spread": [
        edit(neurons, "random_neurons", "scale_shape_to_weights(alpha, shape)", "scale_shape_to_weights(alpha, 0.0)"),
        edit(neurons, "random_neurons", "scale_shape_to_weights(alpha, shape)", "scale_shape_to_weights(10.0, shape)"),
    ],
    "leaky-neuron": [
        edit(neurons, "neuron_limit", "y, y / slope)", "y, y)"),
        edit(neurons, "neuron_limit", "y, y / slope)", "y, 2 * y / slope)"),
    ],
    "negative-delta-branch": [
        edit(neurons, "neuron_limit", "    sign = ", "    sign = 1.0  # "),
        FORGETFUL_LIMIT,
    ],
    "neuron-potential-limits": [
        WRONG_LAYERS,
        replace(neuron, "layer_norms", lambda x, delta: layer_norms(x, 1.01 * delta)),
    ],
    "trained-network": [
        edit(networks.DiagonalLinear, "forward", "return", "return 2 *"),
        # a k that is ten percent off
        edit(DiagonalPotential, "from_weights", "k = growing * shrinking", "k = 1.1 * growing * shrinking"),
    ],
    "digits-experiment": [
        replace(diagonal_networks, "population_errors", lambda *a: population_errors(*a)[::-1]),
        # one shape three times, which makes no difference
        replace(diagonal_networks, "population_errors", lambda *a: population_errors(*a[:2], [0.0] * 3)),
    ],
    "delta-is-conserved": [
        edit(neurons, "neuron_delta", "4 * scale", "2 * scale"),
        replace(neurons, "gradient_flow", loose_flow),
    ],
}
