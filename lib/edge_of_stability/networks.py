r"""The sharpness of the gradient flow solution for real networks, in torch.

Two tools, each usable on its own: gradient flow integrated to a small loss, and a monitor for anybody's full-batch
training loop. Neither changes the model.

For squared losses the flow is integrated by exponential Gauss-Newton steps (derived here): with the Jacobian
frozen, the residuals obey a linear equation that the eigenvectors of the kernel `J J^T` solve exactly, so the step
is not limited by the stiff directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lib.edge_of_stability.curvature import hessian_top_eigenvalue
from lib.validation import positive_integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "GFSMonitor",
    "NetworkFlow",
    "flow_end_sharpness",
    "half_mean_square",
    "integrate_gradient_flow",
    "network_gfs_sharpness",
]

# The step of RK4 is one over the sharpness; where the loss does not curve upwards, it is one over this.
_FLATTEST = 1e-3
# The longest step of the exponential integrator: beyond it nothing moves.
_LONGEST = 1e15

Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


def half_mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance, averaged over examples: the loss scaling of every `2 / eta` line in this chapter.

    Examples
    --------
    >>> half_mean_square(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])).item()
    1.25
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"targets must have the shape of the outputs, {tuple(outputs.shape)}; it is {tuple(targets.shape)}"
        )
    return ((outputs - targets) ** 2).sum() / (2 * len(outputs))


@dataclass(frozen=True)
class NetworkFlow:
    """Where gradient flow on a network came to.

    Attributes
    ----------
    params
        Parameters by name, float64, detached.
    loss
        Loss there.
    n_steps
        Steps of the integrator.
    converged
        Whether the loss reached its tolerance.
    """

    params: dict[str, Tensor]
    loss: float
    n_steps: int
    converged: bool


def _double(tensor: Tensor) -> Tensor:
    """Real numbers in float64; integers, such as classes, as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor


class _Problem:
    """A network, its loss and its data as functions of one flat float64 parameter vector."""

    def __init__(self, model: nn.Module, loss_fn: Loss, data: Batch | Sequence[Batch]) -> None:
        if not len(data):
            raise ValueError("data must hold at least one example")
        batches = cast("list[Batch]", [data] if isinstance(data[0], Tensor) else list(data))
        if not all(len(inputs) for inputs, _ in batches):
            raise ValueError("data must hold at least one example in every batch")
        for inputs, targets in batches:
            if len(inputs) != len(targets):
                raise ValueError(f"data must pair inputs and targets; a batch has {len(inputs)} and {len(targets)}")
        self.inputs: Tensor = _double(torch.cat([inputs for inputs, _ in batches]))
        self.targets: Tensor = _double(torch.cat([targets for _, targets in batches]))
        for name, module in model.named_modules():
            if module.training and isinstance(module, (_BatchNorm, _DropoutNd)):
                kind = type(module).__name__
                raise ValueError(f"model must be one fixed function; {name} is a {kind} that trains: call its eval()")
        self.model = model
        self.loss_fn = loss_fn
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.names = list(named)
        self.shapes = [p.shape for p in named.values()]
        self.start = torch.cat([p.detach().double().reshape(-1) for p in named.values()])
        kept = [*model.named_buffers(), *((name, p) for name, p in model.named_parameters() if not p.requires_grad)]
        self.fixed = {name: _double(tensor.detach().clone()) for name, tensor in kept}

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = torch.split(flat, [shape.numel() for shape in self.shapes])
        return {name: piece.view(shape) for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)}

    def outputs(self, flat: Tensor, inputs: Tensor | None = None) -> Tensor:
        weights = {**self.fixed, **self.unflatten(flat)}
        result: Tensor = torch.func.functional_call(self.model, weights, (self.inputs if inputs is None else inputs,))
        return result

    def loss(self, flat: Tensor) -> Tensor:
        return self.loss_fn(self.outputs(flat), self.targets)

    def gradient(self, flat: Tensor) -> tuple[Tensor, float]:
        """Gradient and loss."""
        leaf = flat.detach().requires_grad_()
        value = self.loss(leaf)
        (slope,) = torch.autograd.grad(value, leaf)
        return slope, float(value.detach())

    def jacobian(self, flat: Tensor) -> Tensor:
        """Derivative of all outputs (n * outputs, P)."""

        def one(weights: Tensor, example: Tensor) -> Tensor:
            return self.outputs(weights, example.unsqueeze(0)).reshape(-1)

        rows: Tensor = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(flat, self.inputs)
        return rows.reshape(-1, flat.numel())

    def square_scale(self) -> float:
        """The s of `loss = s |outputs - targets|^2`; refuses any other loss."""
        with torch.no_grad():
            outputs = self.outputs(self.start)
            scales = []
            for factor in (1.0, -0.5, 3.0):
                moved = self.targets + factor * (outputs - self.targets) + 0.1 * factor**2
                scales.append(float(self.loss_fn(moved, self.targets) / ((moved - self.targets) ** 2).sum()))
        if not max(scales) - min(scales) <= 1e-6 * abs(scales[0]):
            raise ValueError('method="etd" needs a squared loss, such as half_mean_square; use method="rk4" for others')
        return scales[0]


def _etd_move(jacobian: Tensor, residual: Tensor, scale: float) -> Callable[[float], Tensor]:
    """The exact move for a frozen Jacobian, as a function of the time."""
    kernel = 2 * scale * (jacobian @ jacobian.T)
    rates, modes = torch.linalg.eigh(kernel)
    rates = rates.clamp_min(0.0)
    projected = modes.T @ residual

    def move(time: float) -> Tensor:
        decay = -torch.expm1(-time * rates)
        weight = torch.where(rates * time > 1e-12, decay / rates.clamp_min(1e-300), torch.full_like(rates, time))
        result: Tensor = -2 * scale * (jacobian.T @ (modes @ (weight * projected)))
        return result

    return move


def _integrate_etd(problem: _Problem, loss_tol: float, rtol: float, max_steps: int) -> tuple[Tensor, float, int]:
    scale = problem.square_scale()
    flat = problem.start
    h = 1.0

    def linearised(point: Tensor) -> tuple[Callable[[float], Tensor], float]:
        with torch.no_grad():
            residual = (problem.outputs(point) - problem.targets).reshape(-1)
            return _etd_move(problem.jacobian(point), residual, scale), scale * float(residual @ residual)

    move, value = linearised(flat)
    for step in range(max_steps):
        if value <= loss_tol:
            return flat, value, step
        while True:
            full = move(h)
            middle = flat + move(h / 2)
            half = move(h / 2) + linearised(middle)[0](h / 2)
            size = float(half.norm())
            if not size > 0:  # a stationary point: gradient flow stays
                return flat, value, step
            error = float((full - half).norm()) / (rtol * (0.01 + size))
            factor = min(max(0.9 * max(error, 1e-8) ** -0.5, 0.2), 4.0)
            h = min(h * factor, _LONGEST)
            if error <= 1.0:
                break
        flat = flat + 2 * half - full
        move, value = linearised(flat)
    return flat, value, max_steps


def _integrate_rk4(problem: _Problem, loss_tol: float, max_steps: int, refresh: int = 15) -> tuple[Tensor, float, int]:
    flat = problem.start
    slope, value = problem.gradient(flat)
    vector: NDArray[np.float64] | None = None
    h = 0.0
    for step in range(max_steps):
        if value <= loss_tol:
            return flat, value, step
        if not float(slope.norm()) > 0:  # a stationary point: gradient flow stays
            return flat, value, step
        if step % refresh == 0:
            leaf = flat.detach().requires_grad_()
            loss_here = partial(problem.loss, leaf)
            values, vectors = hessian_top_eigenvalue(loss_here, [leaf], tol=1e-2, v0=vector)
            vector, h = vectors[0], 1.0 / max(float(values[0]), _FLATTEST)
        k2 = problem.gradient(flat - h / 2 * slope)[0]
        k3 = problem.gradient(flat - h / 2 * k2)[0]
        k4 = problem.gradient(flat - h * k3)[0]
        flat = flat - h / 6 * (slope + 2 * k2 + 2 * k3 + k4)
        slope, value = problem.gradient(flat)
    return flat, value, max_steps


def integrate_gradient_flow(
    model: nn.Module,
    loss_fn: Loss,
    data: Batch | Sequence[Batch],
    *,
    loss_tol: float = 1e-4,
    method: Literal["etd", "rk4"] = "etd",
    rtol: float = 1e-2,
    max_steps: int = 20_000,
) -> NetworkFlow:
    """Follow gradient flow from a network's present weights until its loss is small, in float64.

    Parameters
    ----------
    model
        The network; it is not changed.
    loss_fn
        Function of outputs and targets; for `"etd"` a multiple of the squared distance.
    data
        Inputs and targets, or a list of such batches: the whole training set.
    loss_tol
        Loss at which to stop.
    method
        `"etd"`: exponential Gauss-Newton steps, for up to a few thousand outputs in all. `"rk4"`: the classical
        Runge-Kutta method with steps of one over the sharpness, for any loss and size.
    rtol
        Relative error of an `"etd"` step.
    max_steps
        When to give up; then `converged` is False, with a warning.

    Raises
    ------
    ValueError
        If there are no data, a setting is out of range, `"etd"` is asked for with another loss, or a layer of the
        model (dropout, batch normalisation in training) makes it no fixed function.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> X, y = torch.randn(5, 3), torch.randn(5, 1)
    >>> integrate_gradient_flow(model, half_mean_square, (X, y)).converged
    True
    """
    if method not in ("etd", "rk4"):
        raise ValueError(f"method must be 'etd' or 'rk4'; it is {method!r}")
    for name, setting in (("loss_tol", loss_tol), ("rtol", rtol)):
        if not (np.isfinite(setting) and setting > 0):
            raise ValueError(f"{name} must be positive; it is {setting}")
    positive_integer("max_steps", max_steps)
    problem = _Problem(model, loss_fn, data)
    if method == "etd":
        flat, value, n_steps = _integrate_etd(problem, loss_tol, rtol, max_steps)
    else:
        flat, value, n_steps = _integrate_rk4(problem, loss_tol, max_steps)
    converged = value <= loss_tol
    if not converged:
        warnings.warn(
            f"gradient flow stopped after {n_steps} steps at a loss of {value:.1e}, above {loss_tol:.1e}",
            RuntimeWarning,
            stacklevel=2,
        )
    return NetworkFlow(problem.unflatten(flat.detach()), value, n_steps, converged)


def network_gfs_sharpness(
    model: nn.Module, loss_fn: Loss, data: Batch | Sequence[Batch], *, tol: float = 1e-4, **flow: Any
) -> float:
    """Sharpness at the end of gradient flow from the network's present weights.

    Parameters
    ----------
    model, loss_fn, data
        As for `integrate_gradient_flow`.
    tol
        Relative accuracy of the eigenvalue.
    flow
        Further settings of `integrate_gradient_flow`.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> data = torch.randn(5, 3), torch.randn(5, 1)
    >>> network_gfs_sharpness(model, half_mean_square, data) > 0
    True
    """
    return flow_end_sharpness(model, loss_fn, data, tol=tol, **flow)[0]


def flow_end_sharpness(
    model: nn.Module, loss_fn: Loss, data: Batch | Sequence[Batch], *, tol: float = 1e-4, **flow: Any
) -> tuple[float, bool]:
    """`network_gfs_sharpness`, and whether gradient flow arrived: if not, the number is that of where it stopped.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> flow_end_sharpness(model, half_mean_square, (torch.randn(5, 3), torch.randn(5, 1)))[1]
    True
    """
    end = integrate_gradient_flow(model, loss_fn, data, **flow)
    problem = _Problem(model, loss_fn, data)
    flat = torch.cat([end.params[name].reshape(-1) for name in problem.names]).requires_grad_()
    values, _ = hessian_top_eigenvalue(lambda: problem.loss(flat), [flat], tol=tol)
    return float(values[0]), end.converged


class GFSMonitor:
    """Watches a full-batch training loop: loss, sharpness, and sharpness of the gradient flow solution.

    Call it with the step number once a step; every so many steps it measures, otherwise it returns at once.

    Parameters
    ----------
    every
        How many steps lie between two measurements.
    model, loss_fn, data
        As for `integrate_gradient_flow`; the model is never changed.
    flow
        Further settings of `network_gfs_sharpness`; the same for all measurements, so that they can be compared.

    Attributes
    ----------
    steps, loss, sharpness, gfs_sharpness
        What was measured, lists of equal length; `gfs_sharpness` is NaN where gradient flow did not arrive.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> data = torch.randn(5, 3), torch.randn(5, 1)
    >>> monitor = GFSMonitor(10, model, half_mean_square, data)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> for step in range(21):
    ...     monitor(step)
    ...     optimizer.zero_grad()
    ...     half_mean_square(model(data[0]), data[1]).backward()
    ...     optimizer.step()
    >>> monitor.steps
    [0, 10, 20]
    """

    def __init__(self, every: int, model: nn.Module, loss_fn: Loss, data: Batch | Sequence[Batch], **flow: Any) -> None:
        self.every = positive_integer("every", every)
        self.model, self.loss_fn, self.data, self.flow = model, loss_fn, data, flow
        _Problem(model, loss_fn, data)
        self.steps: list[int] = []
        self.loss: list[float] = []
        self.sharpness: list[float] = []
        self.gfs_sharpness: list[float] = []
        self._vector: NDArray[np.float64] | None = None

    def __call__(self, step: int) -> None:
        """Measure, if it is time."""
        if step % self.every:
            return
        problem = _Problem(self.model, self.loss_fn, self.data)
        flat = problem.start.clone().requires_grad_()
        values, vectors = hessian_top_eigenvalue(lambda: problem.loss(flat), [flat], tol=1e-3, v0=self._vector)
        self._vector = vectors[0]
        self.steps.append(step)
        self.loss.append(float(problem.loss(flat).detach()))
        self.sharpness.append(float(values[0]))
        phi, arrived = flow_end_sharpness(self.model, self.loss_fn, self.data, **self.flow)
        self.gfs_sharpness.append(phi if arrived else float("nan"))
