r"""Which pattern a layer can bear: the noise that a mask adds to its update, beside the noise that is there anyway.

The update :math:`\delta^T x` is linear in the gradient of the outputs, so what a mask adds to its variance follows
exactly from the chances of pairs within blocks: :math:`\sum \mathrm{Cov}(\theta_i, \theta_j)\, x_i \cdot x_j`. The
mini-batch has a noise of its own, and examples show it by how their gradients differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.exchange import copied
from lib.four_bit.weight_updates import captured_calls
from lib.products import padded
from lib.sparsity.blocks import as_blocks, checked_pattern
from lib.sparsity.sampling import nm_greedy
from lib.sparsity.water_filling import nm_joint_probabilities
from lib.validation import finite_tensor, instance_of, pair, positive_number

__all__ = ["LayerPlan", "SparsityPlan", "mask_noise", "plan_sparsity"]

Pattern = tuple[int, int]
#: So many entries of covariances at a time.
_ENTRIES = 1 << 22
#: What is smaller, against the squared norm of an update, is rounding: equal examples leave no noise.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class LayerPlan:
    """What each pattern would do to one layer's update.

    Attributes:
        noise: By pattern: variance that the unbiased mask adds, over that of the mini-batch. With r the update is as
            noisy as that of a batch 1 + r times smaller.
        bias: By pattern: what is lost where only the largest entries are kept, over the norm of the update.
        choice: The cheapest pattern within the budget; None for a dense layer.
        reason: Why, in words.
    """

    noise: dict[Pattern, float]
    bias: dict[Pattern, float]
    choice: Pattern | None
    reason: str


@dataclass(frozen=True)
class SparsityPlan:
    """Plans of layers by name, for one budget; printed, a table."""

    layers: dict[str, LayerPlan]
    budget: float

    def __str__(self) -> str:
        width = max(map(len, self.layers))
        patterns = list(next(iter(self.layers.values())).noise)
        head = "".join(f"{f'{n}:{m}':>17}" for n, m in patterns)
        lines = ["noise of the mask over that of the batch (bias of the largest entries, over the update)"]
        lines += [f"{'layer':{width}}{head}   choice"]
        for name, plan in self.layers.items():
            cells = "".join(f"{f'{plan.noise[each]:.3f} ({plan.bias[each]:.3f})':>17}" for each in patterns)
            lines += [f"{name:{width}}{cells}   {plan.reason}"]
        return "\n".join(lines)


def mask_noise(delta: Tensor, inputs: Tensor, n: int, m: int) -> float:
    """Variance of the update `nm_mvue(delta, n, m, dim=0).T @ inputs`, the sum over its entries, exactly.

    Args:
        delta: Gradient of the outputs, (rows, outputs).
        inputs: (rows, inputs).

    Examples:
        >>> mask_noise(torch.ones(2, 1), torch.tensor([[1.0], [-1.0]]), 1, 2)  # 2 or -2 in place of 0
        4.0
    """
    n, m = checked_pattern(n, m)
    finite_tensor("delta", delta, ndim=2)
    finite_tensor("inputs", inputs, ndim=2)
    if len(delta) != len(inputs):
        raise ValueError(f"delta and inputs must have as many rows; they have {len(delta)} and {len(inputs)}")
    total, rows = 0.0, m * max(1, _ENTRIES // (m * m * max(1, delta.shape[1])))
    missing = [0, 0, 0, -len(delta) % m]  # the layers fill up with zeros, too
    delta, inputs = (functional.pad(each.detach().double(), missing) for each in (delta, inputs))
    for part, met in zip(torch.split(delta, rows), torch.split(inputs, rows), strict=True):
        both = nm_joint_probabilities(part, n, m, dim=0)
        signed = as_blocks(part, m, 0)
        kept = both.diagonal(dim1=-2, dim2=-1)
        values = torch.where(kept > 0, signed / torch.where(kept > 0, kept, 1.0), 0.0)
        covariance = values[..., :, None] * values[..., None, :] * both - signed[..., :, None] * signed[..., None, :]
        blocks = met.view(-1, m, met.shape[1])
        total += float((covariance.sum(0) * (blocks @ blocks.mT)).sum())
    return max(total, 0.0)


def _batch_noise(delta: Tensor, inputs: Tensor) -> float:
    """Variance of the update from a batch, estimated from it: delta (examples, positions, outputs), inputs alike."""
    examples, positions, outputs = delta.shape
    if positions**2 * (outputs + inputs.shape[2]) < positions * outputs * inputs.shape[2]:
        # the squared norm of a product of two matrices, without the product
        squares = [float(((d @ d.T) * (x @ x.T)).sum()) for d, x in zip(delta, inputs, strict=True)]
    else:
        squares = [float((d.T @ x).square().sum()) for d, x in zip(delta, inputs, strict=True)]
    whole = float((delta.flatten(0, 1).T @ inputs.flatten(0, 1)).square().sum())
    return max(examples / (examples - 1) * (sum(squares) - whole / examples), 0.0)


def _parts(layer: nn.Module, given: Tensor, slope: Tensor, examples: int) -> list[tuple[Tensor, Tensor]]:
    """One call of a layer as linear maps, one a group: (examples, positions, outputs) and (…, inputs), float64."""
    groups = 1
    if isinstance(layer, nn.Conv2d):
        wide, padding = padded(layer, given)
        given = functional.unfold(wide, layer.kernel_size, layer.dilation, padding, layer.stride).mT
        slope, groups = slope.movedim(1, -1), layer.groups
    if given.ndim < 2 or len(given) % examples:
        shape = tuple(given.shape)
        raise ValueError(f"inputs must stay {examples} examples, along the first axis of every layer; one gets {shape}")
    both = [each.double().reshape(examples, -1, each.shape[-1]).chunk(groups, -1) for each in (slope, given)]
    return list(zip(*both, strict=True))


def _layer_plan(groups: list[list[tuple[Tensor, Tensor]]], patterns: list[Pattern], budget: float) -> LayerPlan:
    """From the calls of each group of a layer."""
    batch = size = 0.0
    added, lost = dict.fromkeys(patterns, 0.0), dict.fromkeys(patterns, 0.0)
    for calls in groups:
        batch += _batch_noise(*(torch.cat(parts, 1) for parts in zip(*calls, strict=True)))
        rows = [(delta.flatten(0, 1), inputs.flatten(0, 1)) for delta, inputs in calls]
        size += float(_update(rows).square().sum())
        for n, m in patterns:
            added[n, m] += sum(mask_noise(delta, inputs, n, m) for delta, inputs in rows)
            dropped = [(delta - _greedy(delta, n, m), inputs) for delta, inputs in rows]
            lost[n, m] += float(_update(dropped).square().sum())
    nothing = _ROUNDING * size
    noise = {each: _over(added[each], batch, nothing) for each in patterns}
    bias = {each: _over(lost[each], size, nothing) ** 0.5 for each in patterns}
    within = [each for each in patterns if noise[each] <= budget]
    if within:
        n, m = choice = min(within, key=lambda each: (each[0] / each[1], each[1]))
        return LayerPlan(noise, bias, choice, f"{n}:{m}, the cheapest with a noise of at most {budget:g}")
    return LayerPlan(noise, bias, None, f"dense: every pattern adds a noise of more than {budget:g}")


def _update(calls: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.stack([delta.T @ inputs for delta, inputs in calls]).sum(0)


def _greedy(delta: Tensor, n: int, m: int) -> Tensor:
    return nm_greedy(functional.pad(delta, [0, 0, 0, -len(delta) % m]), n, m, dim=0)[: len(delta)]


def _over(part: float, whole: float, nothing: float) -> float:
    if part <= nothing:
        return 0.0
    return part / whole if whole > 0 else float("inf")


def plan_sparsity(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    patterns: Sequence[Pattern] = ((2, 4), (1, 2), (1, 4), (1, 8)),
    budget: float = 0.5,
) -> SparsityPlan:
    """For every linear and two-dimensional convolutional layer the cheapest pattern of its update within a budget.

    The gradients are those of the model as it is now: plan again in the course of training. Where batch normalisation
    mixes examples, they count as if they were independent.

    Args:
        loss: `loss(model(inputs), targets)` is one number, a mean over examples.
        inputs, targets: One batch, of the size with which the model is trained; examples lie along the first axis.
        patterns: Pairs (N, M); of two that keep the same share the shorter block is the cheaper.
        budget: Largest variance that a mask may add, over that of the mini-batch.

    Examples:
        >>> from lib.models import initialize
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(64, 8, generator=generator), torch.randint(3, (64,), generator=generator)
        >>> layer = initialize(nn.Linear(8, 3), generator=generator)
        >>> plan_sparsity(layer, functional.cross_entropy, x, y, budget=1.0).layers[""].choice
        (1, 2)
    """
    given = _patterns(patterns)
    positive_number("budget", budget)
    if not len(instance_of("inputs", inputs, Tensor, "a tensor").shape) or len(inputs) < 2:
        raise ValueError(f"inputs must hold at least two examples; its shape is {tuple(inputs.shape)}")
    probe = copied(instance_of("model", model, nn.Module, "a torch module"))  # running statistics stay as they are
    calls: dict[str, list[list[tuple[Tensor, Tensor]]]] = {}
    for name, met, slope in captured_calls(probe, loss, inputs, targets, (nn.Linear, nn.Conv2d)):
        calls.setdefault(name, []).append(_parts(probe.get_submodule(name), met, slope, len(inputs)))
    layers = {}
    for name, found in calls.items():
        layers[name] = _layer_plan([list(group) for group in zip(*found, strict=True)], given, budget)
    return SparsityPlan(layers, float(budget))


def _patterns(patterns: object) -> list[Pattern]:
    if not isinstance(patterns, (list, tuple)) or not patterns:
        raise TypeError(f"patterns must be a list of pairs (n, m); it is {patterns!r}")
    return [checked_pattern(*pair("patterns", each)) for each in patterns]
