r"""The sharpness of the gradient flow solution for real networks, in torch.

For squared losses the flow is integrated by exponential Gauss-Newton steps (derived here): with the Jacobian
frozen, the residuals obey a linear equation that the eigenvectors of the kernel `J J^T` solve exactly, so the step
is not limited by the stiff directions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lib.edge_of_stability.curvature import hessian_top_eigenvalue
from lib.edge_of_stability.flat_network import ROUNDING, Data, FlatNetwork, Loss, read_examples
from lib.experiment import Count, Positive, Preset
from lib.validation import instance_of, integer_at_least, positive_integer, positive_number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GFSMonitor", "NetworkFlow", "half_mean_square", "integrate_gradient_flow", "network_gfs_sharpness"]

# The step of RK4 is one over the sharpness; where the loss does not curve upwards, it is one over this.
_FLATTEST = 1e-3
# Steps of RK4 between two looks at the sharpness.
_REFRESH = 15
# The longest step of the exponential integrator, beyond which nothing moves, and how often one is shortened.
_LONGEST = 1e15
_MAX_REJECTED = 100


def half_mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance, averaged over examples: the loss scaling of every `2 / eta` line in this chapter.

    Examples:
        >>> half_mean_square(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])).item()
        1.25
    """
    instance_of("outputs", outputs, Tensor, "a tensor")
    instance_of("targets", targets, Tensor, "a tensor")
    if not outputs.numel() or not outputs.ndim:
        raise ValueError(f"outputs must hold at least one example; their shape is {tuple(outputs.shape)}")
    if outputs.shape != targets.shape:
        raise ValueError(
            f"targets must have the shape of the outputs, {tuple(outputs.shape)}; it is {tuple(targets.shape)}"
        )
    return ((outputs - targets) ** 2).sum() / (2 * len(outputs))


@dataclass(frozen=True)
class NetworkFlow:
    """Where gradient flow on a network came to.

    Attributes:
        params: Parameters by name, float64, detached.
        converged: Whether the loss reached its tolerance.
    """

    params: dict[str, Tensor]
    loss: float
    n_steps: int
    converged: bool


def _etd_move(jacobian: Tensor, residual: Tensor, scale: float) -> Callable[[float], Tensor]:
    """The exact move for a frozen Jacobian, as a function of the time."""
    kernel = 2 * scale * (jacobian @ jacobian.T)
    if not bool(torch.isfinite(kernel).all()):  # a step far too long: no move from there
        return lambda _: torch.full_like(jacobian[0], torch.nan)
    rates, modes = torch.linalg.eigh(kernel)
    rates = rates.clamp_min(0.0)
    projected = modes.T @ residual

    def move(time: float) -> Tensor:
        decay = -torch.expm1(-time * rates)
        weight = torch.where(rates * time > 1e-12, decay / rates.clamp_min(1e-300), torch.full_like(rates, time))
        result: Tensor = -2 * scale * (jacobian.T @ (modes @ (weight * projected)))
        return result

    return move


def _integrate_etd(problem: FlatNetwork, tol: float, rtol: float, max_steps: int) -> tuple[Tensor, float, int]:
    scale = problem.square_scale()
    coupled = problem.coupled(scale)
    flat = problem.start
    h = 1.0

    def linearised(point: Tensor) -> tuple[Callable[[float], Tensor], float]:
        with torch.no_grad():
            residual = (problem.outputs(point) - problem.targets).reshape(-1)
            move = _etd_move(problem.jacobian(point, coupled=coupled), residual, scale)
            return move, scale * float(residual @ residual)

    move, value = linearised(flat)
    for step in range(max_steps):
        if value <= tol or not math.isfinite(value):
            return flat, value, step
        for _ in range(_MAX_REJECTED):
            full = move(h)
            middle = flat + move(h / 2)
            half = move(h / 2) + linearised(middle)[0](h / 2)
            size = float(half.norm())
            if size == 0:  # a stationary point: gradient flow stays
                return flat, value, step
            error = float((full - half).norm()) / (rtol * (0.01 + size))
            factor = min(max(0.9 * max(error, 1e-8) ** -0.5, 0.2), 4.0) if math.isfinite(error) else 0.2
            h = min(h * factor, _LONGEST)
            if error <= 1.0:
                break
        else:
            return flat, value, step
        flat = flat + 2 * half - full
        move, value = linearised(flat)
    return flat, value, max_steps


def _integrate_rk4(problem: FlatNetwork, tol: float, max_steps: int) -> tuple[Tensor, float, int]:
    flat = problem.start
    slope, value = problem.gradient(flat)
    vector: NDArray[np.float64] | None = None
    h = 0.0
    for step in range(max_steps):
        size = float(slope.norm())
        if value <= tol or size == 0 or not math.isfinite(value + size):  # a slope of zero: gradient flow stays
            return flat, value, step
        if step % _REFRESH == 0:
            top, vector = _sharpness(problem, flat, tol=1e-2, v0=vector)
            h = 1.0 / max(top, _FLATTEST)
        while True:
            k2 = problem.gradient(flat - h / 2 * slope)[0]
            k3 = problem.gradient(flat - h / 2 * k2)[0]
            # the ratio of these differences is half the step times the curvature that they feel, which may have grown
            if not float((k3 - k2).norm()) > max(float((k2 - slope).norm()), ROUNDING * size):
                break
            h /= 2
        k4 = problem.gradient(flat - h * k3)[0]
        flat = flat - h / 6 * (slope + 2 * k2 + 2 * k3 + k4)
        slope, value = problem.gradient(flat)
    return flat, value, max_steps


def _sharpness(
    problem: FlatNetwork, flat: Tensor, *, tol: float, v0: NDArray[np.float64] | None = None
) -> tuple[float, NDArray[np.float64]]:
    """Sharpness, and the eigenvector with which to look at a point near by."""
    leaf = flat.detach().requires_grad_()
    values, vectors = hessian_top_eigenvalue(partial(problem.loss, leaf), [leaf], tol=tol, v0=v0)
    return float(values[0]), vectors[0]


@dataclass(frozen=True)
class _Flow(Preset):
    """How to follow gradient flow: the keywords of `integrate_gradient_flow`."""

    tol: Positive = 1e-4
    method: Literal["etd", "rk4"] = "etd"
    rtol: Positive = 1e-2
    max_steps: Count = 20_000

    def end(self, problem: FlatNetwork) -> tuple[Tensor, NetworkFlow]:
        """Where it comes to, as a flat vector too."""
        if self.method == "etd":
            flat, value, n_steps = _integrate_etd(problem, self.tol, self.rtol, self.max_steps)
        else:
            flat, value, n_steps = _integrate_rk4(problem, self.tol, self.max_steps)
        converged = value <= self.tol
        if not converged:
            warnings.warn(
                f"gradient flow stopped after {n_steps} steps at a loss of {value:.1e}, above {self.tol:.1e}",
                RuntimeWarning,
                stacklevel=3,
            )
        flat = flat.detach()
        return flat, NetworkFlow(problem.unflatten(flat), value, n_steps, converged)


def integrate_gradient_flow(
    model: nn.Module,
    loss_fn: Loss,
    data: Data,
    *,
    tol: float = 1e-4,
    method: Literal["etd", "rk4"] = "etd",
    rtol: float = 1e-2,
    max_steps: int = 20_000,
) -> NetworkFlow:
    """Follow gradient flow from a network's present weights until its loss is small, in float64.

    Args:
        model: Not changed. It and the loss must be one fixed function: no dropout, noise, or batch normalisation in
            training mode.
        loss_fn: Function of outputs and targets; for `"etd"` a multiple of the squared distance.
        data: Inputs and targets, a list of such batches, or a DataLoader: the whole training set.
        tol: Loss at which to stop.
        method: `"etd"`: exponential Gauss-Newton steps, for up to a few thousand outputs in all, and some hundred where
            examples are coupled (batch normalisation) or the network is recurrent. `"rk4"`: the classical Runge-Kutta
            method with steps of one over the sharpness, for any loss and size.
        rtol: Relative error of an `"etd"` step.
        max_steps: When to give up; then `converged` is False, with a warning.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> X, y = torch.randn(5, 3), torch.randn(5, 1)
        >>> integrate_gradient_flow(model, half_mean_square, (X, y)).converged
        True
    """
    flow = _Flow(tol, method, rtol, max_steps)
    problem = FlatNetwork(model, loss_fn, read_examples(data))
    problem.check()
    with problem.kernels():
        return flow.end(problem)[1]


def network_gfs_sharpness(
    model: nn.Module, loss_fn: Loss, data: Data, *, eigenvalue_tol: float = 1e-4, **flow: Any
) -> float:
    """Sharpness at the end of gradient flow from the network's present weights, or where it was given up.

    Args:
        model, loss_fn, data: As for `integrate_gradient_flow`.
        eigenvalue_tol: Relative accuracy of the eigenvalue.
        flow: Further settings of `integrate_gradient_flow`.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> data = torch.randn(5, 3), torch.randn(5, 1)
        >>> network_gfs_sharpness(model, half_mean_square, data) > 0
        True
    """
    settings = _Flow(**flow)
    positive_number("eigenvalue_tol", eigenvalue_tol)
    problem = FlatNetwork(model, loss_fn, read_examples(data))
    problem.check()
    with problem.kernels():
        return _sharpness(problem, settings.end(problem)[0], tol=eigenvalue_tol)[0]


class GFSMonitor:
    """Watches a full-batch training loop: loss, sharpness, and sharpness of the gradient flow solution.

    Call it with the step number once a step; every so many steps it measures, otherwise it returns at once.

    Args:
        every: Steps between two measurements.
        model, loss_fn, data: As for `integrate_gradient_flow`; the data are read once.
        eigenvalue_tol, flow: As for `network_gfs_sharpness`; the same for all measurements, so that they can be
            compared.

    Attributes:
        steps, loss, sharpness, gfs_sharpness: What was measured, lists of equal length; `gfs_sharpness` is NaN where
            gradient flow did not arrive, and both sharpnesses are where training has diverged and the loss is not
            finite.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> data = torch.randn(5, 3), torch.randn(5, 1)
        >>> monitor = GFSMonitor(10, model, half_mean_square, data)
        >>> for step in range(21):
        ...     monitor(step)  # and then a step of your optimizer
        >>> monitor.steps
        [0, 10, 20]
    """

    def __init__(
        self, every: int, model: nn.Module, loss_fn: Loss, data: Data, *, eigenvalue_tol: float = 1e-4, **flow: Any
    ) -> None:
        self.every = positive_integer("every", every)
        self.model, self.loss_fn = model, loss_fn
        self._flow, self._tol = _Flow(**flow), positive_number("eigenvalue_tol", eigenvalue_tol)
        self._examples = read_examples(data)
        FlatNetwork(model, loss_fn, self._examples).check()
        self.steps: list[int] = []
        self.loss: list[float] = []
        self.sharpness: list[float] = []
        self.gfs_sharpness: list[float] = []
        self._vector: NDArray[np.float64] | None = None

    def __call__(self, step: int) -> None:
        """Measure, if it is time."""
        if integer_at_least("step", step, 0) % self.every:
            return
        problem = FlatNetwork(self.model, self.loss_fn, self._examples)
        sharpness = phi = math.nan
        with problem.kernels():
            with torch.no_grad():
                loss = float(problem.loss(problem.start))
            if math.isfinite(loss):
                problem.check()
                sharpness, self._vector = _sharpness(problem, problem.start, tol=1e-3, v0=self._vector)
                flat, end = self._flow.end(problem)
                if end.converged:
                    phi, _ = _sharpness(problem, flat, tol=self._tol)
        self.steps.append(int(step))
        self.loss.append(loss)
        self.sharpness.append(sharpness)
        self.gfs_sharpness.append(phi)
