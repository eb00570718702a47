r"""Several neurons together: how far they are from sharing one clock.

Neuron `i` of `w = sum_i a_i u_i` follows its own warped mirror flow, with the dual
`lambda_i = integral |a_i| r dt`. A sum of single-neuron potentials is what gradient flow minimises only where
all these duals coincide; their spread is the honest error bar of that picture (derived here).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lib.initialization_shape.dynamics import predictor, unpacker, velocity
from lib.initialization_shape.integration import follow
from lib.initialization_shape.scale_shape import scale_shape_to_weights
from lib.validation import finite_array, numpy_generator, positive_integer, positive_number, regression_data

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["dual_spread", "random_neurons"]


def random_neurons(count: int, d: int, alpha: float, shape: float, *, rng: np.random.Generator) -> tuple[Array, Array]:
    """Output weights (m,) with random signs and input weights (m, d) with random directions, of one scale and shape.

    Examples:
        >>> a, u = random_neurons(3, 5, alpha=0.1, shape=0.0, rng=np.random.default_rng(0))
        >>> a.shape, u.shape
        ((3,), (3, 5))
    """
    positive_integer("count", count)
    positive_integer("d", d)
    numpy_generator("rng", rng)
    norm, size = scale_shape_to_weights(alpha, shape)
    u = rng.standard_normal((count, d))
    u *= norm / np.linalg.norm(u, axis=1, keepdims=True)
    return size * rng.choice([-1.0, 1.0], count), u


def dual_spread(
    X: ArrayLike,
    y: ArrayLike,
    a: ArrayLike,
    u: ArrayLike,
    *,
    rtol: float = 1e-10,
    t_max: float = 1e5,
    tol: float = 1e-8,
) -> float:
    """Largest relative distance of a neuron's dual from the mean of all duals, at the end of gradient flow.

    Args:
        X, y: Examples (N, d) and targets (N,), which the flow must fit by `t_max`.
        a, u: Initial output weights (m,) and input weights (m, d).
        rtol, t_max, tol: Those of `gradient_flow`.

    Returns:
        0 where the sum of the neurons' potentials is exactly what gradient flow minimises.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.standard_normal((4, 12)), rng.standard_normal(4)
        >>> kernel = dual_spread(X, y, *random_neurons(3, 12, alpha=1.0, shape=0.95, rng=rng))
        >>> rich = dual_spread(X, y, *random_neurons(3, 12, alpha=1e-3, shape=0.0, rng=rng))
        >>> kernel < 1e-3 < 1e-2 < rich
        True
    """
    for name, setting in (("rtol", rtol), ("t_max", t_max), ("tol", tol)):
        positive_number(name, setting)
    X, y = regression_data(X, y)
    n, d = X.shape
    a = finite_array("a", a, ndim=1)
    m = a.size
    u = finite_array("u", u, shape=(m, d))
    goal = tol * (float(np.linalg.norm(y)) or 1.0)
    start = {"a": a, "u": u, "duals": np.zeros((m, n))}
    unpack = unpacker(start)

    def move(_: float, flat: Array) -> Array:
        weights = unpack(flat)
        change, residual = velocity("neuron", weights, X, y)
        duals = np.outer(np.abs(weights["a"]), residual / n)
        return np.concatenate([change["a"], change["u"].ravel(), duals.ravel()])

    def misfit(flat: Array) -> float:
        return float(np.linalg.norm(X @ predictor("neuron", unpack(flat)) - y)) - goal

    first = np.concatenate([each.ravel() for each in start.values()])
    if misfit(first) <= 0:
        raise ValueError("a and u must not fit the data from the start: then no dual moves")
    _, states, arrived = follow(move, first, misfit, t_max=t_max, rtol=rtol, max_steps=50_000)
    if not arrived:
        raise ValueError(f"the flow did not fit the data by t_max = {t_max:g}")
    duals = unpack(states[-1])["duals"]
    mean = duals.mean(axis=0)
    return float(np.linalg.norm(duals - mean, axis=1).max() / np.linalg.norm(mean))
