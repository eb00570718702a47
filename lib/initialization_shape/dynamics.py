"""Training itself: gradient flow and gradient descent on the weights of diagonal networks and neurons.

Nothing here knows about potentials: these are the runs that the closed forms are checked against. The loss
is `|X w - y|^2 / (2N)` throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from lib.initialization_shape.integration import follow
from lib.validation import (
    finite_array,
    integer_at_least,
    number_between,
    one_of,
    positive_integer,
    positive_number,
    regression_data,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["FlowPath", "FlowResult", "gradient_descent", "gradient_flow"]

Model: TypeAlias = Literal["diagonal", "neuron"]
Weights: TypeAlias = "dict[str, Array]"

_NAMES: dict[str, tuple[str, ...]] = {"diagonal": ("u_p", "v_p", "u_m", "v_m"), "neuron": ("a", "u")}


@dataclass(frozen=True)
class FlowPath:
    """The predictor along the way: `t` (T,) times, `w` (T, d) predictors."""

    t: Array
    w: Array


@dataclass(frozen=True)
class FlowResult:
    """Where a run ended.

    Attributes:
        params: Weights at the end, named and shaped as they were given.
        w: Predictor (d,) at the end.
        t: Time at the end (for gradient descent: steps taken times the step size).
        converged: Whether the relative misfit `|X w - y| / |y|` reached `tol`.
        diverged: Whether the loss left all bounds; the weights are then those of the last step.
        path: The way there.
    """

    params: Weights
    w: Array
    t: float
    converged: bool
    diverged: bool
    path: FlowPath


def _read_weights(model: str, params: Mapping[str, ArrayLike], d: int) -> Weights:
    names = _NAMES[one_of("model", model, tuple(_NAMES))]
    if not hasattr(params, "keys"):
        raise TypeError(f"params must be a dict with the keys {', '.join(names)}; it is {params!r}")
    if set(params) != set(names):
        raise ValueError(f"params must have the keys {', '.join(names)}; it has {', '.join(map(str, params))}")
    if model == "diagonal":
        return {name: finite_array(name, params[name], shape=(d,)).copy() for name in names}
    a, u = finite_array("a", params["a"]), finite_array("u", params["u"])
    if a.ndim > 1 or u.shape != (*a.shape, d):
        raise ValueError(
            f"a and u must have shapes () and ({d},), or (m,) and (m, {d}); they are {a.shape} and {u.shape}"
        )
    return {"a": a.copy(), "u": u.copy()}


def predictor(model: Model, weights: Weights) -> Array:
    """The linear predictor (d,) that the weights of a model amount to (for one or several linear neurons)."""
    if model == "diagonal":
        return np.asarray(weights["u_p"] * weights["v_p"] - weights["u_m"] * weights["v_m"])
    return np.asarray(np.dot(weights["a"], weights["u"]))


def velocity(model: Model, weights: Weights, X: Array, y: Array, slope: float = 1.0) -> tuple[Weights, Array]:
    """Minus the gradient of the loss in every weight, and the residual `y - f(X)` (N,)."""
    n = len(y)
    if model == "diagonal":
        u_p, v_p, u_m, v_m = (weights[name] for name in _NAMES["diagonal"])
        residual = y - X @ (u_p * v_p - u_m * v_m)
        push = residual @ X / n
        return {"u_p": push * v_p, "v_p": push * u_p, "u_m": -push * v_m, "v_m": -push * u_m}, residual
    a, u = weights["a"], weights["u"]
    if slope == 1.0:
        residual = y - X @ predictor(model, weights)
        push = residual @ X / n
        return {"a": u @ push, "u": np.multiply.outer(a, push)}, residual
    inputs = X @ u.T
    active = np.where(inputs > 0, 1.0, slope)
    outputs = inputs * active
    residual = y - outputs @ a if a.ndim else y - outputs * a
    weighted = (residual * active.T).T / n
    return {"a": residual @ outputs / n, "u": np.multiply(a, (X.T @ weighted)).T}, residual


def gradient_flow(
    model: Model,
    X: ArrayLike,
    y: ArrayLike,
    params: Mapping[str, ArrayLike],
    *,
    rtol: float = 1e-10,
    t_max: float = 1e5,
    tol: float = 1e-9,
    max_steps: int = 50_000,
) -> FlowResult:
    """Integrate the gradient flow of the weights until the data are fitted.

    Args:
        model: `"diagonal"` (params `u_p, v_p, u_m, v_m`, each (d,)) or `"neuron"` (params `a` () and `u` (d,), or for m
            linear neurons `a` (m,) and `u` (m, d)).
        X, y: Examples (N, d) and targets (N,).
        rtol: Relative tolerance of the integrator (LSODA); the absolute one is a thousandth of it.
        t_max: Time at which to give up; then `converged` is False.
        tol: Relative misfit `|X w - y| / |y|` at which the run ends.
        max_steps: Steps of the integrator at which to give up; then `converged` is False, with a warning.

    Examples:
        >>> end = gradient_flow("neuron", [[1.0, 1.0]], [2.0], {"a": 0.1, "u": [0.1, 0.0]})
        >>> print(end.w.round(4), end.converged)
        [1.0595 0.9405] True
    """
    X, y = regression_data(X, y)
    for name, setting in (("rtol", rtol), ("t_max", t_max), ("tol", tol)):
        positive_number(name, setting)
    positive_integer("max_steps", max_steps)
    start = _read_weights(model, params, X.shape[1])
    unpack = unpacker(start)
    goal = tol * (float(np.linalg.norm(y)) or 1.0)

    def move(_: float, flat: Array) -> Array:
        change, _residual = velocity(model, unpack(flat), X, y)
        return np.concatenate([change[name].ravel() for name in start])

    def misfit(flat: Array) -> float:
        return float(np.linalg.norm(X @ predictor(model, unpack(flat)) - y)) - goal

    first = np.concatenate([start[name].ravel() for name in start])
    if misfit(first) <= 0:
        w = predictor(model, start)
        return FlowResult(start, w, 0.0, True, False, FlowPath(t=np.zeros(1), w=w[None]))
    times, states, converged = follow(move, first, misfit, t_max=t_max, rtol=rtol, max_steps=max_steps)
    end = unpack(states[-1])
    w = predictor(model, end)
    path = FlowPath(t=times, w=np.array([predictor(model, unpack(state)) for state in states]))
    return FlowResult(end, w, float(times[-1]), converged, not bool(np.isfinite(w).all()), path)


def unpacker(weights: Weights) -> Callable[[Array], Weights]:
    """How to read weights like these from one flat vector."""
    shapes = {name: value.shape for name, value in weights.items()}
    ends = np.cumsum([value.size for value in weights.values()])
    starts = ends - [value.size for value in weights.values()]

    def unpack(flat: Array) -> Weights:
        return {
            name: flat[first:last].reshape(shapes[name]) for name, first, last in zip(shapes, starts, ends, strict=True)
        }

    return unpack


def gradient_descent(
    model: Model,
    X: ArrayLike,
    y: ArrayLike,
    params: Mapping[str, ArrayLike],
    *,
    lr: float,
    max_steps: int = 1_000_000,
    tol: float = 1e-9,
    slope: float = 1.0,
    record_every: int = 0,
) -> FlowResult:
    """Full-batch gradient descent on the weights until the data are fitted.

    Args:
        model, X, y, params, tol: Those of `gradient_flow`.
        max_steps: Number of steps at which to give up; then `converged` is False.
        slope: For `"neuron"`: slope of the activation for negative inputs, in [0, 1]; 1 is linear, 0 is ReLU. (`w` is
            then the predictor `a u` of the active side.)
        record_every: Steps between two predictors in `path`; 0 keeps the first and the last.

    Examples:
        >>> end = gradient_descent("neuron", [[1.0, 1.0]], [2.0], {"a": 0.1, "u": [0.1, 0.0]}, lr=1e-3)
        >>> print(end.w.round(2), end.converged)
        [1.06 0.94] True
    """
    X, y = regression_data(X, y)
    weights = _read_weights(model, params, X.shape[1])
    positive_integer("max_steps", max_steps)
    positive_number("lr", lr)
    positive_number("tol", tol)
    integer_at_least("record_every", record_every, 0)
    number_between("slope", slope, 0, 1)
    if model == "diagonal" and slope != 1.0:
        raise ValueError(f"slope must be 1 for a diagonal network; it is {slope}")
    goal = (tol * (float(np.linalg.norm(y)) or 1.0)) ** 2
    times, predictors = [0.0], [predictor(model, weights)]
    converged = diverged = False
    step = 0
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is stopped here, and says so
        while True:
            change, residual = velocity(model, weights, X, y, slope)
            size = float(residual @ residual)
            converged, diverged = size <= goal, not size < 1e200
            if converged or diverged or step == max_steps:
                break
            for name, push in change.items():
                weights[name] = weights[name] + lr * push
            step += 1
            if record_every and step % record_every == 0:
                times.append(step * lr)
                predictors.append(predictor(model, weights))
    if times[-1] != step * lr:
        times.append(step * lr)
        predictors.append(predictor(model, weights))
    return FlowResult(
        weights, predictors[-1], step * lr, converged, diverged, FlowPath(np.array(times), np.array(predictors))
    )
