r"""What quantised gradients do to a layer's update, without sampling: bias and variance in closed form.

The update :math:`dW = \delta^T a` is linear in the gradients :math:`\delta` of the outputs, so the mean and the
variance of a quantiser, entry by entry, give those of the update: its bias is :math:`(E Q(\delta) - \delta)^T a`,
and the variance of entry `ij` is :math:`\sum_b v_{bi} a_{bj}^2` (Section 3.2 of Chmiel et al., arXiv 2112.10769).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lib.four_bit.integers import int4_mean_and_variance
from lib.four_bit.layers import LUQConfig
from lib.four_bit.logarithmic import luq_mean, luq_variance
from lib.validation import finite_tensor, instance_of, positive_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "LayerGradient",
    "UpdateError",
    "capture_gradients",
    "captured_calls",
    "captured_gradient",
    "gradient_moments",
    "update_error",
]


@dataclass(frozen=True)
class LayerGradient:
    """What a linear layer's update is made of.

    Attributes:
        delta: Gradient of the loss with respect to the layer's outputs, (batch, outputs).
        inputs: (batch, inputs).
    """

    delta: Tensor
    inputs: Tensor


@dataclass(frozen=True)
class UpdateError:
    """Errors of a layer's update, relative to the norm of the exact one.

    Attributes:
        bias: Of its mean: what no averaging removes.
        noise: Standard deviation.
        cosine: Between its mean and the exact one.
    """

    bias: float
    noise: float
    cosine: float

    @property
    def rms(self) -> float:
        """Root of the mean squared error."""
        return math.hypot(self.bias, self.noise)

    def samples_for(self, target: float) -> int:
        """How many independent quantisations must be averaged for the noise to be at most `target` (SMP).

        Examples:
            >>> UpdateError(bias=0.0, noise=0.14, cosine=1.0).samples_for(0.05)
            8
        """
        return max(1, math.ceil((self.noise / positive_number("target", target)) ** 2 - 1e-9))


def gradient_moments(
    delta: Tensor, config: LUQConfig, *, max_abs: Tensor | float | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and variance of every entry of a quantised gradient, float64.

    Args:
        config: Its `samples` divide the variance.
        max_abs: What the largest level stands for; the largest magnitude by default.

    Examples:
        >>> gradient_moments(torch.tensor([64.0, 0.4]), LUQConfig())
        (tensor([64.0000,  0.4000], dtype=torch.float64), tensor([0.0000, 0.2400], dtype=torch.float64))
    """
    instance_of("config", config, LUQConfig, "a LUQConfig")
    finite_tensor("delta", delta)
    if config.backward == "none":
        return delta.double(), torch.zeros_like(delta, dtype=torch.float64)
    if config.backward == "int4":
        mean, variance = int4_mean_and_variance(delta, max_abs=max_abs, stochastic=config.rounding == "stochastic")
    else:
        mean, variance = luq_mean(delta, config, max_abs=max_abs), luq_variance(delta, config, max_abs=max_abs)
    return mean, variance / config.samples


def update_error(gradient: LayerGradient, config: LUQConfig, *, max_abs: Tensor | float | None = None) -> UpdateError:
    """The error that a quantiser of gradients makes in a layer's update, exactly.

    Examples:
        >>> error = update_error(captured_gradient(), LUQConfig())
        >>> error.bias < 1e-6, round(error.noise, 2)  # no bias beyond the rounding of float32
        (True, 0.14)
    """
    instance_of("gradient", gradient, LayerGradient, "a LayerGradient")
    delta = finite_tensor("gradient.delta", gradient.delta, ndim=2)
    inputs = finite_tensor("gradient.inputs", gradient.inputs, ndim=2).double()
    if len(delta) != len(inputs):
        raise ValueError(f"gradient must have as many rows in delta as in inputs; it has {len(delta)}, {len(inputs)}")
    mean, variance = gradient_moments(delta, config, max_abs=max_abs)
    exact = delta.double().T @ inputs
    expected = mean.T @ inputs
    size = exact.norm()
    if size == 0:
        raise ValueError("gradient must make an update: delta.T @ inputs is zero, and errors are relative to it")
    noise = (variance.T @ inputs.square()).sum().sqrt()
    cosine = (exact * expected).sum() / (size * expected.norm()).clamp(min=1e-300)
    return UpdateError(float((expected - exact).norm() / size), float(noise / size), float(cosine))


def captured_calls(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    kinds: tuple[type[nn.Module], ...] = (nn.Linear,),
) -> list[tuple[str, Tensor, Tensor]]:
    """Every call of a layer of some kinds for one batch: its name, its input and the gradient of its output.

    Args:
        loss: `loss(model(inputs), targets)` is one number.

    Examples:
        >>> x, y = torch.ones(5, 3), torch.ones(5, 1)
        >>> [(name, given, slope)] = captured_calls(nn.Linear(3, 1), nn.functional.mse_loss, x, y)
        >>> given.shape, slope.shape
        (torch.Size([5, 3]), torch.Size([5, 1]))
    """
    instance_of("model", model, nn.Module, "a torch module")
    if not callable(loss):
        raise TypeError(f"loss must be a function of outputs and targets; it is {loss!r}")
    for name, batch in (("inputs", inputs), ("targets", targets)):
        if instance_of(name, batch, Tensor, "a tensor").is_floating_point() or batch.is_complex():
            finite_tensor(name, batch)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}
    seen: list[tuple[str, Tensor, Tensor]] = []

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not output.requires_grad:  # all before it is frozen
                output = output.detach().requires_grad_()
            seen.append((name, given[0].detach(), output))
            return output.clone()  # what comes next may change it in place

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            value = loss(model(inputs), targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError("loss must return a tensor of one number")
        if not math.isfinite(value.item()):
            raise ValueError(f"loss must be finite; it is {value.item()}")
        if not seen:
            raise ValueError("model must call a linear layer; it calls none")
        # what the loss does not depend on has a gradient of zeros
        slopes = torch.autograd.grad(value, [output for _, _, output in seen], materialize_grads=True)
    finally:
        for handle in handles:
            handle.remove()
    return [(name, given, slope) for (name, given, _), slope in zip(seen, slopes, strict=True)]


def capture_gradients(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor
) -> dict[str, LayerGradient]:
    """The gradient and inputs of every linear layer that is called for one batch, by the layer's name.

    Args:
        loss: `loss(model(inputs), targets)` is one number.

    Examples:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> found = capture_gradients(model, nn.functional.mse_loss, torch.ones(5, 3), torch.ones(5, 1))
        >>> {name: tuple(each.delta.shape) for name, each in found.items()}
        {'0': (5, 2), '2': (5, 1)}
    """
    seen = captured_calls(model, loss, inputs, targets)
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, given, slope in seen:
        rows.setdefault(name, []).append((slope.reshape(-1, slope.shape[-1]), given.reshape(-1, given.shape[-1])))
    # a layer that is called several times is updated by all of its calls
    return {
        name: LayerGradient(*(torch.cat(parts) for parts in zip(*calls, strict=True))) for name, calls in rows.items()
    }


def captured_gradient() -> LayerGradient:
    """A real gradient that ships with the package, (256, 128): of the second of five linear layers, trained on clothes.

    Examples:
        >>> captured_gradient().delta.shape
        torch.Size([256, 128])
    """
    return LayerGradient(*(torch.from_numpy(each.copy()) for each in _shipped_gradient()))


@cache
def _shipped_gradient() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with as_file(files("lib") / "data" / "four_bit_gradient.npz") as place, np.load(place) as stored:
        return stored["delta"], stored["inputs"]
