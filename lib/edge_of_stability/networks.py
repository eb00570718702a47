r"""The sharpness of the gradient flow solution for real networks, in torch.

Two tools, each usable on its own: gradient flow integrated to a small loss, and a monitor for anybody's full-batch
training loop. Neither changes the model.

For squared losses the flow is integrated by exponential Gauss-Newton steps (derived here): with the Jacobian
frozen, the residuals obey a linear equation that the eigenvectors of the kernel `J J^T` solve exactly, so the step
is not limited by the stiff directions.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lib.edge_of_stability.curvature import hessian_top_eigenvalue, twice_differentiable
from lib.validation import finite_tensor, instance_of, integer_at_least, one_of, positive_integer, positive_number

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
# The longest step of the exponential integrator, beyond which nothing moves, and how often one is shortened.
_LONGEST = 1e15
_MAX_REJECTED = 100
# Rows of the Jacobian of coupled examples that are computed together.
_ROWS = 64
# Two evaluations, or two ways to the same number, may differ by this fraction of it: rounding, but no noise.
_ROUNDING = 1e-8

Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]
Data = Batch | Iterable[Batch]


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
        loss: Loss there.
        n_steps: Steps of the integrator.
        converged: Whether the loss reached its tolerance.
    """

    params: dict[str, Tensor]
    loss: float
    n_steps: int
    converged: bool


def _double(tensor: Tensor) -> Tensor:
    """Real numbers in float64; integers, such as classes, as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor


def _examples(data: Any) -> Batch:
    """All inputs and all targets, real numbers in float64, of a pair, of batches, or of a loader."""
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=256)
    if isinstance(data, (str, bytes, dict, Tensor)) or not hasattr(data, "__iter__"):
        raise TypeError(
            "data must be a pair of tensors (inputs, targets), a list of such pairs, or a DataLoader; "
            f"it is a {type(data).__name__}"
        )
    if isinstance(data, (list, tuple)) and any(isinstance(part, Tensor) for part in data):
        return _joined([data])
    if isinstance(data, (list, tuple, Iterator)):
        return _joined(data)
    with _random_state_kept(data):
        first, second = _joined(data), _joined(data)
    sampler: Any = getattr(data, "batch_sampler", None)
    if getattr(sampler, "drop_last", False) and len(first[0]) < len(sampler.sampler):
        raise ValueError(
            f"data must be all examples; its loader keeps {len(first[0])} of {len(sampler.sampler)}: drop_last=False"
        )
    for part, again in zip(first, second, strict=True):
        rows, others = (torch.sort(each.reshape(len(each), -1).double().sum(1)).values for each in (part, again))
        if rows.shape != others.shape or not torch.allclose(rows, others):
            raise ValueError("data must be the same at every reading; those of this loader change (augmentation?)")
    return first


def _joined(batches: Iterable[Any]) -> Batch:
    """The examples of all batches, after each other."""
    pairs: list[Batch] = []
    for batch in batches:
        if not (isinstance(batch, (list, tuple)) and len(batch) == 2 and all(isinstance(x, Tensor) for x in batch)):
            raise TypeError(f"data must hold pairs of tensors (inputs, targets); a batch is a {type(batch).__name__}")
        inputs, targets = (part.detach() for part in batch)
        if not (inputs.ndim and targets.ndim and len(inputs) and len(targets)):
            raise ValueError("data must hold at least one example in every batch")
        if len(inputs) != len(targets):
            raise ValueError(f"data must pair inputs and targets; a batch has {len(inputs)} and {len(targets)}")
        pairs.append((inputs, targets))
    if not pairs:
        raise ValueError("data must hold at least one example")
    try:
        parts = [_double(torch.cat(part)) for part in zip(*pairs, strict=True)]
    except RuntimeError as error:
        raise ValueError(f"data must hold batches of one shape: {error}") from error
    for part in parts:
        if part.is_floating_point():
            finite_tensor("data", part)
    return parts[0], parts[1]


@contextmanager
def _random_state_kept(loader: Any = None, device: torch.device | None = None) -> Iterator[None]:
    """Give torch's random state back as it was, and that of a loader's own generator."""
    own = getattr(loader, "generator", None)
    held = None if own is None else own.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
            yield
    finally:
        if own is not None:
            own.set_state(held)


def _refuse_noise(name: str, evaluate: Callable[[], Tensor], device: torch.device) -> Tensor:
    """Evaluate twice; whatever is not one fixed function shows itself by other numbers, or by drawing random ones."""

    def drawn() -> list[Any]:
        gpu = torch.cuda.get_rng_state(device).tolist() if device.type == "cuda" else None
        return [torch.get_rng_state().tolist(), gpu, random.getstate()]

    before = drawn()
    first, second = evaluate(), evaluate()
    if not bool(torch.isfinite(first).all()):
        raise ValueError(f"{name} must give finite numbers at the model's weights; some are NaN or infinite")
    if drawn() != before:
        found = "draws random numbers"
    elif not torch.allclose(first, second, rtol=_ROUNDING, atol=_ROUNDING * float(first.abs().max())):
        found = "gives other numbers when it is evaluated again"
    else:
        return first
    raise ValueError(
        f"{name} must be one fixed function; it {found}: call its eval(), and switch off what stays random there"
    )


class _Problem:
    """A network, its loss and its data as functions of one flat float64 parameter vector."""

    def __init__(self, model: nn.Module, loss_fn: Loss, examples: Batch) -> None:
        self.inputs, self.targets = examples
        self.model = instance_of("model", model, nn.Module, "a torch module")
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be a function of outputs and targets; it is {loss_fn!r}")
        self.loss_fn = loss_fn
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not named:
            raise ValueError("model must have parameters that require gradients")
        self.names = list(named)
        self.shapes = [p.shape for p in named.values()]
        self.start = torch.cat([p.detach().double().reshape(-1) for p in named.values()])
        kept = [*model.named_buffers(), *((name, p) for name, p in model.named_parameters() if not p.requires_grad)]
        self.fixed = {name: _double(tensor.detach().clone()) for name, tensor in kept}
        # a loss such as cross entropy may hold weights of its own
        held = [*loss_fn.named_buffers(), *loss_fn.named_parameters()] if isinstance(loss_fn, nn.Module) else []
        self.loss_state = {name: _double(tensor.detach().clone()) for name, tensor in held}

    def kernels(self) -> AbstractContextManager[None]:
        """Where to evaluate: kernels that have a second derivative, which cuDNN's recurrent layers have not."""
        return twice_differentiable(recurrent=any(isinstance(module, nn.RNNBase) for module in self.model.modules()))

    def check(self) -> None:
        """Refuse, by name, a network or a loss that cannot be evaluated, or that is not one fixed function."""
        if not bool(torch.isfinite(self.start).all()):
            raise ValueError("model must hold finite weights; some are NaN or infinite")
        device = self.start.device
        with self.kernels(), _random_state_kept(device=device):
            outputs = self._first_outputs()
            _refuse_noise("loss_fn", lambda: self._first_loss(outputs), device)

            # with the gradient, since noise in front of weights that are zero does not reach the outputs
            def look() -> Tensor:
                slope, _ = self.gradient(self.start)
                with torch.no_grad():
                    return torch.cat([self.outputs(self.start).reshape(-1), slope])

            try:
                _refuse_noise("model", look, device)
            except RuntimeError as error:
                raise ValueError(f"model and loss_fn must have a gradient in the model's weights: {error}") from error

    def _first_outputs(self) -> Tensor:
        weights = {name: tensor.clone() for name, tensor in {**self.fixed, **self.unflatten(self.start)}.items()}
        before = {name: tensor.clone() for name, tensor in weights.items()}
        try:
            with torch.no_grad():
                outputs = torch.func.functional_call(self.model, weights, (self.inputs,))
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"model must take all inputs of data as one batch, in float64: {error}") from error
        if not (isinstance(outputs, Tensor) and outputs.is_floating_point() and outputs.ndim):
            raise ValueError(f"model must return one tensor of real outputs; it returns a {type(outputs).__name__}")
        for name, tensor in before.items():
            if not torch.equal(weights[name], tensor):
                raise ValueError(f"model must be one fixed function; evaluating it changes {name}: call its eval()")
        return outputs

    def _first_loss(self, outputs: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                value = self.loss_of(outputs)
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"loss_fn must take outputs of shape {tuple(outputs.shape)} and targets of shape "
                f"{tuple(self.targets.shape)} (real numbers, also those that it holds, in float64): {error}"
            ) from error
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.numel() == 1):
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss_fn must return one real number as a tensor; it returns {found}")
        return value

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = torch.split(flat, [shape.numel() for shape in self.shapes])
        return {name: piece.view(shape) for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)}

    def outputs(self, flat: Tensor, inputs: Tensor | None = None) -> Tensor:
        weights = {**self.fixed, **self.unflatten(flat)}
        result: Tensor = torch.func.functional_call(self.model, weights, (self.inputs if inputs is None else inputs,))
        return result

    def loss_of(self, outputs: Tensor) -> Tensor:
        if isinstance(self.loss_fn, nn.Module):
            value: Tensor = torch.func.functional_call(self.loss_fn, self.loss_state, (outputs, self.targets))
            return value
        return self.loss_fn(outputs, self.targets)

    def loss(self, flat: Tensor) -> Tensor:
        return self.loss_of(self.outputs(flat))

    def gradient(self, flat: Tensor) -> tuple[Tensor, float]:
        """Gradient and loss."""
        leaf = flat.detach().requires_grad_()
        value = self.loss(leaf)
        (slope,) = torch.autograd.grad(value, leaf)
        return slope, float(value.detach())

    def jacobian(self, flat: Tensor, *, coupled: bool = False) -> Tensor:
        """Derivative of all outputs (n * outputs, P); where examples are not coupled, n times faster."""

        def one(weights: Tensor, example: Tensor) -> Tensor:
            return self.outputs(weights, example.unsqueeze(0)).reshape(-1)

        with warnings.catch_warnings():  # torch says where vmap is slow, which is nothing that the caller can change
            warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
            if coupled:
                whole = torch.func.jacrev(lambda weights: self.outputs(weights).reshape(-1), chunk_size=_ROWS)
                return cast("Tensor", whole(flat))
            rows: Tensor = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(flat, self.inputs)
            return rows.reshape(-1, flat.numel())

    def coupled(self, scale: float) -> bool:
        """Whether the outputs of an example, or their derivatives, are others alone than within the batch.

        That is so for an operation across the batch, such as batch normalisation. A network that does not run on one
        example under torch's vmap, as recurrent ones do not, counts as well.
        """
        whole, _ = self.gradient(self.start)
        with torch.no_grad():
            outputs = self.outputs(self.start)
            alone = torch.func.vmap(lambda example: self.outputs(self.start, example.unsqueeze(0)).reshape(-1))
            try:
                same = _agree(alone(self.inputs).reshape(-1), outputs.reshape(-1))
                slope = 2 * scale * (self.jacobian(self.start).T @ (outputs - self.targets).reshape(-1))
            except Exception:  # whatever it is that one example alone cannot do
                return True
        return not (same and _agree(slope, whole))

    def square_scale(self) -> float:
        """The s of `loss = s |outputs - targets|^2`; refuses any other loss."""
        with torch.no_grad():
            outputs = self.outputs(self.start)
            scales = []
            for factor in (1.0, -0.5, 3.0) if outputs.shape == self.targets.shape else ():
                moved = self.targets + factor * (outputs - self.targets) + 0.1 * factor**2
                scales.append(float(self.loss_of(moved) / ((moved - self.targets) ** 2).sum()))
        if not (scales and max(scales) - min(scales) <= 1e-6 * abs(scales[0])):
            raise ValueError('method="etd" needs a squared loss, such as half_mean_square; use method="rk4" for others')
        return scales[0]


def _agree(first: Tensor, second: Tensor) -> bool:
    """Whether two ways to the same numbers differ by rounding only."""
    return first.shape == second.shape and float((first - second).norm()) <= _ROUNDING * float(second.norm())


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


def _integrate_etd(problem: _Problem, tol: float, rtol: float, max_steps: int) -> tuple[Tensor, float, int]:
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


def _integrate_rk4(problem: _Problem, tol: float, max_steps: int, refresh: int = 15) -> tuple[Tensor, float, int]:
    flat = problem.start
    slope, value = problem.gradient(flat)
    vector: NDArray[np.float64] | None = None
    h = 0.0
    for step in range(max_steps):
        size = float(slope.norm())
        if value <= tol or size == 0 or not math.isfinite(value + size):  # a slope of zero: gradient flow stays
            return flat, value, step
        if step % refresh == 0:
            leaf = flat.detach().requires_grad_()
            loss_here = partial(problem.loss, leaf)
            values, vectors = hessian_top_eigenvalue(loss_here, [leaf], tol=1e-2, v0=vector)
            vector, h = vectors[0], 1.0 / max(float(values[0]), _FLATTEST)
        while True:
            k2 = problem.gradient(flat - h / 2 * slope)[0]
            k3 = problem.gradient(flat - h / 2 * k2)[0]
            # the ratio of these differences is half the step times the curvature that they feel, which may have grown
            if not float((k3 - k2).norm()) > max(float((k2 - slope).norm()), _ROUNDING * size):
                break
            h /= 2
        k4 = problem.gradient(flat - h * k3)[0]
        flat = flat - h / 6 * (slope + 2 * k2 + 2 * k3 + k4)
        slope, value = problem.gradient(flat)
    return flat, value, max_steps


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
        model: The network; it is not changed.
        loss_fn: Function of outputs and targets; for `"etd"` a multiple of the squared distance.
        data: Inputs and targets, a list of such batches, or a DataLoader: the whole training set.
        tol: Loss at which to stop.
        method: `"etd"`: exponential Gauss-Newton steps, for up to a few thousand outputs in all, and some hundred where
            examples are coupled (batch normalisation) or the network is recurrent. `"rk4"`: the classical Runge-Kutta
            method with steps of one over the sharpness, for any loss and size.
        rtol: Relative error of an `"etd"` step.
        max_steps: When to give up; then `converged` is False, with a warning.

    Raises:
        ValueError: If `"etd"` is asked for with another loss, or model and loss are not one fixed function: two
            evaluations differ (dropout, noise), or one changes a buffer (batch normalisation in training).

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> X, y = torch.randn(5, 3), torch.randn(5, 1)
        >>> integrate_gradient_flow(model, half_mean_square, (X, y)).converged
        True
    """
    settings = _Settings(tol, method, rtol, max_steps)
    return _flow_end(_checked(model, loss_fn, data), settings)


@dataclass(frozen=True)
class _Settings:
    """How to follow gradient flow: the keywords of `integrate_gradient_flow`."""

    tol: float = 1e-4
    method: str = "etd"
    rtol: float = 1e-2
    max_steps: int = 20_000

    def __post_init__(self) -> None:
        one_of("method", self.method, ("etd", "rk4"))
        positive_number("tol", self.tol)
        positive_number("rtol", self.rtol)
        positive_integer("max_steps", self.max_steps)


def _checked(model: nn.Module, loss_fn: Loss, data: Data) -> _Problem:
    problem = _Problem(model, loss_fn, _examples(data))
    problem.check()
    return problem


def _flow_end(problem: _Problem, settings: _Settings) -> NetworkFlow:
    with problem.kernels():
        if settings.method == "etd":
            flat, value, n_steps = _integrate_etd(problem, settings.tol, settings.rtol, settings.max_steps)
        else:
            flat, value, n_steps = _integrate_rk4(problem, settings.tol, settings.max_steps)
    converged = value <= settings.tol
    if not converged:
        warnings.warn(
            f"gradient flow stopped after {n_steps} steps at a loss of {value:.1e}, above {settings.tol:.1e}",
            RuntimeWarning,
            stacklevel=3,
        )
    return NetworkFlow(problem.unflatten(flat.detach()), value, n_steps, converged)


def network_gfs_sharpness(
    model: nn.Module, loss_fn: Loss, data: Data, *, eigenvalue_tol: float = 1e-4, **flow: Any
) -> float:
    """Sharpness at the end of gradient flow from the network's present weights.

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
    return flow_end_sharpness(model, loss_fn, data, eigenvalue_tol=eigenvalue_tol, **flow)[0]


def flow_end_sharpness(
    model: nn.Module, loss_fn: Loss, data: Data, *, eigenvalue_tol: float = 1e-4, **flow: Any
) -> tuple[float, bool]:
    """`network_gfs_sharpness`, and whether gradient flow arrived: if not, the number is that of where it stopped.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> flow_end_sharpness(model, half_mean_square, (torch.randn(5, 3), torch.randn(5, 1)))[1]
        True
    """
    settings = _Settings(**flow)
    positive_number("eigenvalue_tol", eigenvalue_tol)
    return _end_sharpness(_checked(model, loss_fn, data), settings, eigenvalue_tol)


def _end_sharpness(problem: _Problem, settings: _Settings, tol: float) -> tuple[float, bool]:
    end = _flow_end(problem, settings)
    flat = torch.cat([end.params[name].reshape(-1) for name in problem.names]).requires_grad_()
    with problem.kernels():
        values, _ = hessian_top_eigenvalue(lambda: problem.loss(flat), [flat], tol=tol)
    return float(values[0]), end.converged


class GFSMonitor:
    """Watches a full-batch training loop: loss, sharpness, and sharpness of the gradient flow solution.

    Call it with the step number once a step; every so many steps it measures, otherwise it returns at once.

    Args:
        every: How many steps lie between two measurements.
        model, loss_fn, data: As for `integrate_gradient_flow`; the model is never changed.
        flow: Further settings of `network_gfs_sharpness`; the same for all measurements, so that they can be compared.

    Attributes:
        steps, loss, sharpness, gfs_sharpness: What was measured, lists of equal length; `gfs_sharpness` is NaN where
            gradient flow did not arrive, and both sharpnesses are where training has diverged and the loss is not
            finite.

    Examples:
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

    def __init__(
        self, every: int, model: nn.Module, loss_fn: Loss, data: Data, *, eigenvalue_tol: float = 1e-4, **flow: Any
    ) -> None:
        self.every = positive_integer("every", every)
        self.model, self.loss_fn = model, loss_fn
        self._settings, self._tol = _Settings(**flow), positive_number("eigenvalue_tol", eigenvalue_tol)
        # read once: every measurement is of the same examples
        self._examples = _examples(data)
        _Problem(model, loss_fn, self._examples).check()
        self.steps: list[int] = []
        self.loss: list[float] = []
        self.sharpness: list[float] = []
        self.gfs_sharpness: list[float] = []
        self._vector: NDArray[np.float64] | None = None

    def __call__(self, step: int) -> None:
        """Measure, if it is time."""
        if integer_at_least("step", step, 0) % self.every:
            return
        problem = _Problem(self.model, self.loss_fn, self._examples)
        with torch.no_grad(), problem.kernels():
            loss = float(problem.loss(problem.start))
        sharpness = phi = float("nan")
        if math.isfinite(loss):
            problem.check()
            flat = problem.start.clone().requires_grad_()
            with problem.kernels():
                values, vectors = hessian_top_eigenvalue(lambda: problem.loss(flat), [flat], tol=1e-3, v0=self._vector)
            self._vector, sharpness = vectors[0], float(values[0])
            end, arrived = _end_sharpness(problem, self._settings, self._tol)
            phi = end if arrived else phi
        self.steps.append(int(step))
        self.loss.append(loss)
        self.sharpness.append(sharpness)
        self.gfs_sharpness.append(phi)
