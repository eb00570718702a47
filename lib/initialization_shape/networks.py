"""The chapter's two models as torch modules, and an audit of anybody's two-layer network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.fx
from torch import Tensor, nn

from lib.initialization_shape.diagonal import DiagonalPotential
from lib.initialization_shape.neuron import NeuronPotential, check_slope
from lib.initialization_shape.scale_shape import scale_shape_to_weights, weights_to_scale_shape
from lib.training import evaluating
from lib.validation import finite_array, finite_tensor, instance_of, positive_integer, positive_number, torch_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DiagonalLinear", "InitializationAudit", "NeuronLinear", "audit_initialization"]


class DiagonalLinear(nn.Module):
    """A two-layer diagonal linear network `f(x) = <u_p v_p - u_m v_m, x>`, unbiased at the start (Section 4).

    Scale `alpha` and shape of the initialization are those of `scale_shape_to_weights`.

    Examples:
        >>> model = DiagonalLinear(3, alpha=0.03, shape=0.5)
        >>> model(torch.ones(2, 3, dtype=torch.float64)).tolist()
        [0.0, 0.0]
        >>> model.potential()
        DiagonalPotential(k=array of shape (3,), w0=array of shape (3,))
    """

    def __init__(self, d: int, alpha: float, shape: float) -> None:
        super().__init__()
        positive_integer("d", d)
        u, v = scale_shape_to_weights(alpha, shape)
        self.u_p, self.u_m = (nn.Parameter(torch.full((d,), float(u), dtype=torch.float64)) for _ in range(2))
        self.v_p, self.v_m = (nn.Parameter(torch.full((d,), float(v), dtype=torch.float64)) for _ in range(2))

    @property
    def effective_weight(self) -> Tensor:
        """The linear predictor (d,)."""
        return self.u_p * self.v_p - self.u_m * self.v_m

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N,) for inputs (N, d)."""
        return x @ self.effective_weight

    def potential(self) -> DiagonalPotential:
        """What gradient flow from the present weights minimises."""
        weights = (p.detach().cpu().numpy() for p in (self.u_p, self.v_p, self.u_m, self.v_m))
        return DiagonalPotential.from_weights(*weights)


class NeuronLinear(nn.Module):
    """A single fully connected neuron `f(x) = a phi(<u, x>)` with a leaky-ReLU (Section 6).

    Args:
        alpha, shape: Scale `|a| |u|` and shape `(|a| - |u|) / (|a| + |u|)` of the initialization.
        slope: Slope of the activation for negative inputs; 1 is the linear neuron.
        generator: Source of the random direction of `u`.

    Examples:
        >>> model = NeuronLinear(4, alpha=0.1, shape=0.5, generator=torch.Generator().manual_seed(0))
        >>> print(f"{model.effective_weight.norm().item():.3f} {model.potential().delta:.4f}")
        0.100 0.2667
    """

    def __init__(
        self, d: int, alpha: float, shape: float, slope: float = 1.0, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        positive_integer("d", d)
        torch_generator("generator", generator)
        check_slope(slope)
        norm, size = scale_shape_to_weights(alpha, shape)
        direction = torch.randn(d, dtype=torch.float64, generator=generator)
        self.u = nn.Parameter(float(norm) * direction / direction.norm())
        self.a = nn.Parameter(torch.tensor(float(size), dtype=torch.float64))
        self.slope = slope

    @property
    def effective_weight(self) -> Tensor:
        """The predictor `a u` (d,) of the active side."""
        return self.a * self.u

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N,) for inputs (N, d)."""
        return self.a * nn.functional.leaky_relu(x @ self.u, self.slope)

    def potential(self) -> NeuronPotential:
        """What gradient flow from the present weights minimises."""
        return NeuronPotential.from_weights(self.a.item(), self.u.detach().cpu().numpy())


@dataclass(frozen=True)
class InitializationAudit:
    """Scale and shape of each hidden neuron, and the regime that they predict.

    Attributes:
        alpha, shape, delta: Per neuron (m,): product of the layers' norms, their imbalance, and the conserved
            `|a|^2 - |u|^2`.
        inertia: Per neuron (m,): `|a|^2 + |u|^2 = sqrt(delta^2 + 4 alpha^2)`, how large a predictor must be before the
            neuron's tangent kernel moves; the neuron's counterpart of the diagonal network's `k`.
        target: The size of predictor that a neuron is expected to learn.
        regime: Per neuron: "rich" where the inertia is under a tenth of the target; "kernel" where the squared output
            weight alone is over ten times it; "features" where only the input weights are that large: then the output
            weight learns and the features stay, which is a kernel machine for many neurons, but not for fewer of them
            than examples; "between" otherwise.
    """

    alpha: NDArray[np.float64]
    shape: NDArray[np.float64]
    delta: NDArray[np.float64]
    inertia: NDArray[np.float64]
    target: float
    regime: tuple[str, ...]

    def __str__(self) -> str:
        counts = ", ".join(f"{self.regime.count(name)} {name}" for name in ("kernel", "features", "between", "rich"))
        rows = [("scale alpha", self.alpha), ("shape s", self.shape), ("delta", self.delta), ("inertia", self.inertia)]
        lines = [f"{len(self.regime)} hidden neurons, expected target {self.target:g} each: {counts}"]
        for name, values in rows:
            low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
            lines.append(f"  {name:<12} 10 % {low:9.3g}   median {middle:9.3g}   90 % {high:9.3g}")
        return "\n".join(lines)


def audit_initialization(
    model: nn.Module, inputs: Tensor | None = None, *, target: float | None = None
) -> InitializationAudit:
    r"""Scale, shape, imbalance and predicted regime of every hidden neuron of a two-layer network.

    Works for one hidden layer with a homogeneous activation (linear, ReLU, leaky ReLU): there every neuron
    keeps its `delta`. A neuron's bias counts as one of its input weights; several outputs count through the
    norm of its output weights.

    Args:
        model: Holds exactly two `nn.Linear` layers, one after the other when it is evaluated.
        inputs: A batch of example inputs, for a model whose order of computation `torch.fx` cannot trace.
        target: Norm of the predictor that one neuron is expected to learn; by default `1 / sqrt(m)`, a unit-norm target
            shared by m neurons in independent directions.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 1))
        >>> audit_initialization(model).regime.count("between")
        50
    """
    instance_of("model", model, nn.Module, "a torch module")
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    pair = () if len(layers) != 2 else _called(model) if inputs is None else _run(model, inputs, layers)
    if not pair or pair[0].out_features != pair[1].in_features:
        shapes = ", ".join(f"{layer.in_features} to {layer.out_features}" for layer in layers) or "none"
        raise ValueError(f"model must hold two linear layers, one feeding the other; its linear layers: {shapes}")
    first, second = (finite_array("the weights of model", layer.weight) for layer in pair)
    if pair[0].bias is not None:
        # A bias is one more input weight, on an input that is always 1: the conserved delta counts it.
        first = np.column_stack([first, finite_array("the biases of model", pair[0].bias)])
    u, a = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=0)
    alpha, shape = weights_to_scale_shape(u, a)
    size = positive_number("target", len(u) ** -0.5 if target is None else target)
    inertia = a**2 + u**2
    regime = tuple(_regime(*squares) for squares in zip(a**2 / size, inertia / size, strict=True))
    return InitializationAudit(alpha, shape, a**2 - u**2, inertia, size, regime)


def _called(model: nn.Module) -> tuple[nn.Linear, ...]:
    """The linear layer that is evaluated first and the one that it feeds, by tracing; none if there is no such pair."""
    try:
        graph = torch.fx.Tracer().trace(model)
    except Exception as error:  # whatever it is that cannot be done with symbols
        raise ValueError(
            f"inputs must be given, a batch of examples: the model's order of computation cannot be traced ({error})"
        ) from error
    calls = [node for node in graph.nodes if node.op == "call_module"]
    layers = {node: model.get_submodule(str(node.target)) for node in calls}
    linear = {node: layer for node, layer in layers.items() if isinstance(layer, nn.Linear)}
    if len(linear) != 2 or len(set(linear.values())) != 2:
        raise ValueError(
            "inputs must be given, a batch of examples: tracing does not see each linear layer called once"
        )
    (early, first), (late, second) = linear.items()
    behind = {early}
    for node in graph.nodes:
        if behind.intersection(node.all_input_nodes):
            behind.add(node)
    return (first, second) if late in behind else ()


def _run(model: nn.Module, inputs: Tensor, layers: list[nn.Linear]) -> tuple[nn.Linear, ...]:
    """The same by running the model on examples."""
    instance_of("inputs", inputs, Tensor, "a tensor that model can be called with")
    if inputs.is_floating_point():
        finite_tensor("inputs", inputs)
    calls: list[nn.Linear] = []
    fed: list[bool] = []
    marks: list[Tensor] = []

    def before(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        (given,) = arguments
        if marks and given.requires_grad:
            (slope,) = torch.autograd.grad(given.sum(), marks[0], retain_graph=True, allow_unused=True)
            fed.append(slope is not None)

    def after(layer: nn.Linear, _: object, output: Tensor) -> Tensor:
        calls.append(layer)
        marks.append(output.detach().requires_grad_())
        return marks[-1]

    handles = [
        *(layer.register_forward_pre_hook(before) for layer in layers),
        *(layer.register_forward_hook(after) for layer in layers),
    ]
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), evaluating(model):
            model(inputs.detach())
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"inputs must be a batch that model can be called with: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    if len(calls) != 2 or len(set(calls)) != 2:
        raise ValueError(f"model must call each of its two linear layers once; it makes {len(calls)} calls")
    return tuple(calls) if any(fed) else ()


def _regime(output: float, inertia: float) -> str:
    """The regime from the squared output weight and the inertia, both relative to the target."""
    if inertia < 0.1:
        return "rich"
    if output > 10:
        return "kernel"
    return "features" if inertia > 10 else "between"
