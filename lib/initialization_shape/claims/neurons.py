"""Claims about a neuron with a linear output: its conserved quantity, its warped time, and where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lib.claims import Evidence, at_most, claim, combine, true_that, within
from lib.initialization_shape.claims.problems import neuron_problems, relative_distance
from lib.initialization_shape.dynamics import gradient_descent, gradient_flow
from lib.initialization_shape.interpolation import minimize_potential
from lib.initialization_shape.neuron import NeuronPotential, neuron_limit
from lib.initialization_shape.regression import least_l2_interpolator
from lib.initialization_shape.scale_shape import neuron_delta, scale_shape_to_weights
from lib.initialization_shape.several_neurons import dual_spread, random_neurons

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


def _sizes_at_random_points(*functions: Callable[..., Any]) -> list[Vector]:
    """Sizes of the entries of functions of three numbers, (20, entries) each, computed in 50 digits."""
    import mpmath

    rng = np.random.default_rng(3)
    with mpmath.workdps(50):
        points = [
            [mpmath.mpf(int(rng.integers(1, 50))) / int(rng.integers(1, 50)) for _ in range(3)] for _ in range(20)
        ]
        return [np.array([[float(abs(value)) for value in f(*point)] for point in points]) for f in functions]


@claim(
    source="Section 6",
    statement="The metric of a fully connected neuron is not the Hessian of any potential; "
    "multiplied by the output weight it is one.",
    paper="warped mirror flow",
)
def time_warp() -> Evidence:
    import sympy as sp

    from lib.initialization_shape import symbolic

    (w1, w2), delta, metric, warp = symbolic.neuron_metric()
    plain = sp.lambdify((w1, w2, delta), symbolic.hessian_defect(metric, (w1, w2)), "mpmath")
    warped = sp.lambdify((w1, w2, delta), symbolic.hessian_defect(warp * metric, (w1, w2)), "mpmath")
    before, after = _sizes_at_random_points(plain, warped)
    return combine(
        true_that("defect not zero before", before.max(axis=1) > 1e-8),
        at_most(after, 1e-40, label="defect after", shown="< 1e-40"),
        remark="20 random rational points, 50 digits",
    )


@claim(
    source="Section 6; radial form derived here",
    statement="The equation for the warp has one solution up to a constant: the output weight a. "
    "With the constant 3/2 the warped metric integrates to q_δ, whose slope is 3/2 of the input weights' norm.",
    paper="closed form",
)
def warp_is_the_output_weight() -> Evidence:
    import sympy as sp

    from lib.initialization_shape import symbolic

    t, delta, x, q = symbolic.neuron_potential_in_layers()
    a = sp.sqrt(t**2 + delta)
    h1, h2 = 1 / a**2, -1 / (a**2 * (a**4 + x**2))
    warp = symbolic.find_radial_warp(h1, h2, t, radius=x)
    slope = sp.simplify(q.diff(t) / x.diff(t))
    # the warped metric's tangential eigenvalue is g h1, that of the Hessian of a radial function is q'/x
    ratio = sp.simplify(slope / x / (warp * h1))
    full_x, full_delta, full = symbolic.neuron_potential()
    same = sp.simplify(full.subs(full_x, x).subs(full_delta, delta).subs({t: 2, delta: 3}) - q.subs({t: 2, delta: 3}))
    identities = [
        symbolic.radial_defect(h1, h2, t, radius=x) != 0,
        sp.simplify(warp - a) == 0,
        symbolic.radial_defect(warp * h1, warp * h2, t, radius=x) == 0,
        sp.simplify(slope - sp.Rational(3, 2) * t) == 0,
        ratio == sp.Rational(3, 2),
        same == 0,
    ]
    return true_that(f"all {len(identities)} identities", identities, remark="sympy, in layer coordinates")


@claim(
    source="Theorem 6.1; closed form derived here",
    statement="Gradient flow on a linear neuron ends at the minimiser of the warped potential, "
    "which is w_LS + a∞ P u₀ in closed form.",
    paper="theorem, for δ ≥ 0",
)
def neuron_flow_limit() -> Evidence:
    from scipy.optimize import minimize

    rng = np.random.default_rng(4)
    to_flow, kkt, to_slsqp, gain = [], [], [], []
    for number, (X, y, a, u) in enumerate(neuron_problems(40)):
        potential = NeuronPotential.from_weights(a, u)
        w, _, _ = neuron_limit(X, y, a, u)
        to_flow.append(relative_distance(gradient_flow("neuron", X, y, {"a": a, "u": u}).w, w))
        kkt.append(minimize_potential(potential, X, y).kkt)
        null_space = np.linalg.svd(X)[2][len(y) :]
        if number < 10 and len(null_space):
            nudges = rng.standard_normal((20, len(null_space))) @ null_space * 1e-3 * np.linalg.norm(w)
            gain.append(potential(w) - potential(w + nudges))
            slsqp = minimize(
                potential,
                least_l2_interpolator(X, y),
                jac=potential.grad,
                constraints={"type": "eq", "fun": lambda v, X=X, y=y: X @ v - y, "jac": lambda _, X=X: X},
                method="SLSQP",
                options={"ftol": 1e-15, "maxiter": 500},
            )
            to_slsqp.append(relative_distance(slsqp.x, w))
    return combine(
        at_most(to_flow, 1e-7, label="flow"),
        at_most(kkt, 1e-12, label="gradient"),
        at_most(to_slsqp, 1e-5, label="SLSQP", shown="< 1e-5"),
        true_that("no feasible step lowers Q", np.concatenate(gain) <= 0),
        remark="40 random neurons with s in [0, 0.95], both signs of a; SLSQP on 10 of them",
    )


def _descent_errors(count: int, slope: float = 1.0) -> tuple[Vector, Vector]:
    """Distances of descent from the closed form, at steps of 0.01 and of 0.0025."""
    errors = []
    for X, y, a, u in neuron_problems(count):
        w, _, _ = neuron_limit(X, y, a, u, slope=slope)
        ends = (gradient_descent("neuron", X, y, {"a": a, "u": u}, lr=lr, slope=slope).w for lr in (1e-2, 2.5e-3))
        errors.append([relative_distance(end, w) for end in ends])
    coarse, fine = np.transpose(errors)
    return coarse, fine


@claim(
    source="derived here",
    statement="Gradient descent on a neuron ends near its closed form, at a distance proportional to the step size.",
)
def neuron_descent_is_first_order() -> Evidence:
    coarse, fine = _descent_errors(12)
    ratio = float(np.median(coarse / fine))
    return combine(
        at_most(coarse, 2e-2, label="distance at step 0.01", shown="{:.1g}"),
        within(ratio, 3.3, 4.7, label="ratio to step 0.0025"),
        remark="largest distance and median ratio of 12 random neurons",
    )


@claim(
    source="derived here",
    statement="Several neurons follow one summed potential only in the kernel regime: the spread of their duals is "
    "negligible for large, unbalanced layers and percents for small, balanced ones.",
)
def several_neurons_spread() -> Evidence:
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((8, 30)), rng.standard_normal(8)
    spreads = [
        dual_spread(X, y, *random_neurons(3, 30, alpha, shape, rng=np.random.default_rng(6)))
        for alpha, shape in ((1.0, 0.95), (1.0, 0.5), (1e-4, 0.0))
    ]
    return combine(
        at_most(spreads[0], 1e-4, label="α = 1, s = 0.95"),
        true_that("spread grows towards small and balanced", np.diff(spreads) > 0, bound="monotone"),
        within(spreads[2], 0.02, 0.5, label="α = 1e-4, s = 0", digits=1),
        remark="three neurons, d = 30, n = 8",
    )


@claim(
    source="derived here",
    statement="A leaky-ReLU neuron obeys the same closed form with targets divided by the slope where it is inactive.",
)
def leaky_neuron() -> Evidence:
    coarse, fine = _descent_errors(6, slope=0.3)
    return combine(
        at_most(coarse, 2e-2, label="distance at step 0.01", shown="{:.1g}"),
        at_most(fine, 5e-3, label="at step 0.0025", shown="{:.1g}"),
        remark="largest of 6 random neurons, slope 0.3; descent, because flow solvers crawl at the kinks",
    )


@claim(
    source="derived here",
    statement="For δ < 0 the output weight may change its sign; every run ends on the closed form of one of the signs.",
    paper="the theorem asks for δ ≥ 0",
)
def negative_delta_branch() -> Evidence:
    rng = np.random.default_rng(0)
    distances = []
    for _ in range(100):
        X, y = rng.standard_normal((4, 10)), rng.standard_normal(4)
        u, a = 0.5 * rng.standard_normal(10), 0.1 * abs(rng.standard_normal())
        end = gradient_flow("neuron", X, y, {"a": a, "u": u}).w
        distances.append([relative_distance(end, neuron_limit(X, y, a, u, final_sign=sign)[0]) for sign in (1, -1)])
    kept, flipped = np.transpose(distances)
    return combine(
        at_most(np.minimum(kept, flipped), 1e-6, label="distance to the nearer root"),
        within(np.count_nonzero(flipped < kept), 20, 60, label="flips of 100"),
        remark="100 random neurons, d = 10, n = 4",
    )


@claim(
    source="Theorem 6.1",
    statement="q_δ is x^(3/2) at δ = 0, rises like (3/4)x²/√δ for δ → ∞ and like (3/2)√|δ| x for δ → −∞.",
    paper="both ends",
)
def neuron_potential_limits() -> Evidence:
    x = np.linspace(0.1, 3, 30)

    def rise(delta: float) -> Vector:
        return NeuronPotential(delta, [1.0]).radial_rise(x)

    return combine(
        at_most(np.abs(NeuronPotential(0.0, [1.0]).radial(x) / x**1.5 - 1), 1e-12, label="δ = 0"),
        at_most(np.abs(rise(1e3) / (0.75 * x**2 / np.sqrt(1e3)) - 1), 1e-3, label="δ = 1000"),
        at_most(np.abs(rise(-1e3) / (1.5 * np.sqrt(1e3) * x) - 1), 1e-3, label="δ = −1000"),
        remark="x in [0.1, 3], relative",
    )


@claim(
    source="Theorem 6.1",
    statement="The imbalance a² − |u|² of a neuron is conserved, and is 4αs/(1−s²) at the start.",
    paper="definition of δ",
)
def delta_is_conserved() -> Evidence:
    rng = np.random.default_rng(8)
    drifts, starts = [], []
    for X, y, a, u in neuron_problems(10):
        end = gradient_flow("neuron", X, y, {"a": a, "u": u}).params
        drifts.append(abs(float(end["a"] ** 2 - end["u"] @ end["u"]) - (a**2 - float(u @ u))))
        alpha, shape = 10 ** rng.uniform(-3, 0), rng.uniform(-0.95, 0.95)
        norm, size = scale_shape_to_weights(alpha, shape)
        starts.append(abs(float(size**2 - norm**2) - float(neuron_delta(alpha, shape))))
    return combine(
        at_most(drifts, 1e-7, label="drift"),
        at_most(starts, 1e-10, label="formula"),
        remark="10 random neurons",
    )
