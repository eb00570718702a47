"""A network, its loss and its data as functions of one flat vector of weights, and whether they are such functions."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lib.edge_of_stability.curvature import one_real_number, twice_differentiable
from lib.validation import finite_tensor, instance_of

__all__ = ["ROUNDING", "Batch", "Data", "FlatNetwork", "Loss", "read_examples"]

#: Two evaluations, or two ways to the same number, may differ by this fraction of it: rounding, but no noise.
ROUNDING = 1e-8
# Rows of the Jacobian of coupled examples that are computed together.
_ROWS = 64

Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]
Data = Batch | Iterable[Batch]


def _double(tensor: Tensor) -> Tensor:
    """Real numbers in float64; integers, such as classes, as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor


@contextmanager
def _refused(demand: str) -> Iterator[None]:
    """What torch cannot do is a `ValueError` that says what was asked for."""
    try:
        yield
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{demand}: {error}") from error


def read_examples(data: Any) -> Batch:
    """All inputs and all targets, real numbers in float64, of a pair, of batches, or of a loader.

    A loader is read twice, to see that it gives the same examples again; random states are given back.
    """
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=256)
    if isinstance(data, (str, bytes, dict, Tensor)) or not hasattr(data, "__iter__"):
        raise TypeError(
            "data must be a pair of tensors (inputs, targets), a list of such pairs, or a DataLoader; "
            f"it is a {type(data).__name__}"
        )
    if isinstance(data, (list, tuple)) and any(isinstance(part, Tensor) for part in data):
        data = [data]
    if isinstance(data, (list, tuple, Iterator)):
        return _joined(data)
    with torch.random.fork_rng(devices=[]), ExitStack() as stack:
        if getattr(data, "generator", None) is not None:
            stack.callback(data.generator.set_state, data.generator.get_state())
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
    with _refused("data must hold batches of one shape"):
        inputs, targets = (_double(torch.cat(part)) for part in zip(*pairs, strict=True))
    for part in (inputs, targets):
        if part.is_floating_point():
            finite_tensor("data", part)
    return inputs, targets


def _refuse_noise(name: str, evaluate: Callable[[], Tensor], device: torch.device) -> None:
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
    elif not torch.allclose(first, second, rtol=ROUNDING, atol=ROUNDING * float(first.abs().max())):
        found = "gives other numbers when it is evaluated again"
    else:
        return
    raise ValueError(
        f"{name} must be one fixed function; it {found}: call its eval(), and switch off what stays random there"
    )


def _agree(first: Tensor, second: Tensor) -> bool:
    """Whether two ways to the same numbers differ by rounding only."""
    return first.shape == second.shape and float((first - second).norm()) <= ROUNDING * float(second.norm())


class FlatNetwork:
    """Functions of one float64 vector (P,), the parameters that require gradients; the model itself is not changed."""

    def __init__(self, model: nn.Module, loss_fn: Loss, examples: Batch) -> None:
        self.inputs, self.targets = examples
        self.model = instance_of("model", model, nn.Module, "a torch module")
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be a function of outputs and targets; it is {loss_fn!r}")
        self.loss_fn = loss_fn
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not named:
            raise ValueError("model must have parameters that require gradients")
        self.shapes = {name: p.shape for name, p in named.items()}
        self.start = torch.cat([p.detach().double().reshape(-1) for p in named.values()])
        kept = [*model.named_buffers(), *((name, p) for name, p in model.named_parameters() if not p.requires_grad)]
        self.fixed = {name: _double(tensor.detach().clone()) for name, tensor in kept}
        # a loss such as cross entropy may hold weights of its own
        held = [*loss_fn.named_buffers(), *loss_fn.named_parameters()] if isinstance(loss_fn, nn.Module) else []
        self.loss_state = {name: _double(tensor.detach().clone()) for name, tensor in held}

    def kernels(self) -> AbstractContextManager[None]:
        """Where to evaluate: kernels that have a second derivative."""
        return twice_differentiable(recurrent=any(isinstance(module, nn.RNNBase) for module in self.model.modules()))

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Parameters by name."""
        pieces = torch.split(flat, [shape.numel() for shape in self.shapes.values()])
        return {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def outputs(self, flat: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Outputs for all inputs, or for others."""
        weights = {**self.fixed, **self.unflatten(flat)}
        result: Tensor = torch.func.functional_call(self.model, weights, (self.inputs if inputs is None else inputs,))
        return result

    def loss_of(self, outputs: Tensor) -> Tensor:
        """Loss of outputs for all inputs."""
        if isinstance(self.loss_fn, nn.Module):
            value: Tensor = torch.func.functional_call(self.loss_fn, self.loss_state, (outputs, self.targets))
            return value
        return self.loss_fn(outputs, self.targets)

    def loss(self, flat: Tensor) -> Tensor:
        """Loss."""
        return self.loss_of(self.outputs(flat))

    def gradient(self, flat: Tensor) -> tuple[Tensor, float]:
        """Gradient (P,) and loss."""
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
        example under torch's vmap, as recurrent ones do not, counts as well. `scale` is that of `square_scale`.
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

    def check(self) -> None:
        """Refuse, by name, a network or a loss that cannot be evaluated, or that is not one fixed function."""
        if not bool(torch.isfinite(self.start).all()):
            raise ValueError("model must hold finite weights; some are NaN or infinite")
        device = self.start.device
        with self.kernels(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            outputs = self._first_outputs()
            _refuse_noise("loss_fn", lambda: self._first_loss(outputs), device)

            # with the gradient, since noise in front of weights that are zero does not reach the outputs
            def look() -> Tensor:
                with _refused("model and loss_fn must have a gradient in the model's weights"):
                    slope, _ = self.gradient(self.start)
                with torch.no_grad():
                    return torch.cat([self.outputs(self.start).reshape(-1), slope])

            _refuse_noise("model", look, device)

    def _first_outputs(self) -> Tensor:
        weights = {name: tensor.clone() for name, tensor in {**self.fixed, **self.unflatten(self.start)}.items()}
        before = {name: tensor.clone() for name, tensor in weights.items()}
        with torch.no_grad(), _refused("model must take all inputs of data as one batch, in float64"):
            outputs = torch.func.functional_call(self.model, weights, (self.inputs,))
        if not (isinstance(outputs, Tensor) and outputs.is_floating_point() and outputs.ndim):
            raise ValueError(f"model must return one tensor of real outputs; it returns a {type(outputs).__name__}")
        for name, tensor in before.items():
            if not torch.equal(weights[name], tensor):
                raise ValueError(f"model must be one fixed function; evaluating it changes {name}: call its eval()")
        return outputs

    def _first_loss(self, outputs: Tensor) -> Tensor:
        shapes = f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(self.targets.shape)}"
        demand = f"loss_fn must take {shapes} (real numbers, also those that it holds, in float64)"
        with torch.no_grad(), _refused(demand):
            value = self.loss_of(outputs)
        return one_real_number(value)
