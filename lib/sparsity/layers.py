"""Layers whose gradients, and if asked weights, are pruned N:M along the dimension over which a product sums.

Each of the three products of training sums over another dimension, and sparse hardware needs the blocks of one operand
along it: the update over the batch, the gradient for the layer before over outputs, the forward pass over inputs.
So the same gradient is pruned twice, independently. The products themselves are dense ones here: they simulate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lib.exchange import Example, Skip, copied, exchange_layers
from lib.experiment import Count, Preset
from lib.products import LINEAR, Product, convolution, initial_weights, padded
from lib.sparsity.blocks import checked_pattern
from lib.sparsity.sampling import nm_mvue
from lib.sparsity.transposable import transposable_mask
from lib.sparsity.wrong_point import pruner
from lib.validation import floating_tensor, instance_of, torch_generator, true_or_false

__all__ = ["NMConfig", "NMConv2d", "NMLinear", "sparsify_model"]

Pruning = Literal["mvue", "approx", "greedy", "uniform", "none"]


@dataclass(frozen=True)
class NMConfig(Preset):
    """What of a layer is pruned, and how.

    Attributes:
        update: How the gradient is pruned for the weights' update: `"mvue"`, without bias and with the least variance;
            `"approx"`, its usual approximation (2:4 only); `"greedy"`, the largest entries; `"uniform"`, at random; or
            `"none"`.
        backward: The same for the gradient that goes to the layer before. Its variance grows from layer to layer.
        n: Entries that are kept, of a block of `m`.
        m: Length of a block.
        weight: `"greedy"`, the largest weights along the inputs; `"transposable"`, 2:4 along the outputs as well;
            or None. The mask is that of the present weights; their gradient is passed straight through it.

    Examples:
        >>> NMConfig(update="greedy", n=1, m=2).backward
        'none'
    """

    update: Pruning = "mvue"
    backward: Pruning = "none"
    n: Count = 2
    m: Count = 4
    weight: Literal["greedy", "transposable"] | None = None

    def check(self) -> None:
        """Refuse blocks that are not, and what is for 2:4 alone."""
        checked_pattern(self.n, self.m)
        for name in ("update", "backward", "weight"):
            if getattr(self, name) in ("approx", "transposable") and (self.n, self.m) != (2, 4):
                raise ValueError(f"{name} {getattr(self, name)} is for 2:4; n and m are {self.n} and {self.m}")


class _Source:
    """A generator that copies of a layer share."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = torch_generator("generator", generator)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Source:
        return self


def _filled_up(x: Tensor, m: int, *dims: int) -> Tensor:
    """With zeros behind, up to a multiple of `m` along some dimensions."""
    for dim in dims:
        missing = -x.shape[dim] % m
        if missing:
            x = functional.pad(x, [*[0, 0] * (x.ndim - 1 - dim), 0, missing])
    return x


class _NMLayer(nn.Module):
    """What pruned layers share.

    `on_product(name, operand, dim)`, where it is set, is shown every pruned operand as it was cut into blocks:
    "forward" weights; "backward" gradients or, where these are dense, transposable weights; "update" gradients.
    """

    weight: Tensor
    config: NMConfig
    pad: bool
    source: _Source
    on_product: Callable[[str, Tensor, int], object] | None
    groups = 1

    def __init__(
        self,
        *args: Any,
        config: NMConfig | None = None,
        generator: torch.Generator | None = None,
        pad: bool = True,
        **kwargs: Any,
    ) -> None:
        with initial_weights(generator):
            super().__init__(*args, **kwargs)
        self.prune(NMConfig() if config is None else config, generator, pad=pad)

    def prune(self, config: NMConfig, generator: torch.Generator | None = None, *, pad: bool = True) -> None:
        """Prune in this way from now on."""
        self.config = instance_of("config", config, NMConfig, "an NMConfig")
        self.source = _Source(generator)
        self.pad = true_or_false("pad", pad)
        self.on_product = None

    def pruned(self, x: Tensor, method: Pruning, dim: int) -> Tensor:
        """An operand with N:M blocks; what is not finite stays, for a loss scaler to see."""
        n, m = self.config.n, self.config.m
        if method == "mvue":
            return nm_mvue(x, n, m, dim, generator=self.source.generator, check=False)
        finite = x.isfinite()
        kind: Any = method
        prune = pruner(kind, n, m, dim, generator=self.source.generator)
        return torch.where(finite, prune(torch.where(finite, x, 0.0)), x)

    def masked(self, weight: Tensor) -> Tensor:
        """The weights that the products see."""
        config = self.config
        if config.weight is None:
            return weight
        outputs, inputs = len(weight) // self.groups, weight.shape[1]
        # (groups, places of the kernel, outputs, inputs)
        parts = weight.reshape(self.groups, outputs, inputs, -1).permute(0, 3, 1, 2)
        if config.weight == "greedy":
            parts = self.pruned(_filled_up(parts, config.m, 3), "greedy", 3)
        else:
            parts = _filled_up(parts, config.m, 2, 3)
            mask = transposable_mask(parts.nan_to_num().flatten(0, 2))
            parts = torch.where(mask.view(parts.shape), parts, 0.0)
        self.show("forward", parts, 3)
        if config.weight == "transposable" and config.backward == "none":
            self.show("backward", parts, 2)
        return parts[:, :, :outputs, :inputs].permute(0, 2, 3, 1).reshape(weight.shape)

    def pruned_for_input(self, grad: Tensor) -> Tensor:
        """The gradient of outputs (N, outputs, …) for the layer before: blocks along the outputs of a group."""
        if self.config.backward == "none":
            return grad
        parts = grad.reshape(len(grad), self.groups, grad.shape[1] // self.groups, grad.shape[2:].numel())
        kept = self.pruned(_filled_up(parts, self.config.m, 2), self.config.backward, 2)
        self.show("backward", kept, 2)
        return kept[:, :, : parts.shape[2]].reshape(grad.shape)

    def pruned_for_weight(self, grad: Tensor) -> Tensor:
        """The gradient of outputs (N, outputs, …) for the update: blocks along batch and positions, in one row."""
        if self.config.update == "none":
            return grad
        last = grad.movedim(1, -1)
        rows = last.reshape(-1, last.shape[-1])
        kept = self.pruned(_filled_up(rows, self.config.m, 0), self.config.update, 0)
        self.show("update", kept, 0)
        return kept[: len(rows)].reshape(last.shape).movedim(-1, 1).contiguous()

    def show(self, name: str, operand: Tensor, dim: int) -> None:
        """Let the hook look at an operand."""
        if self.on_product is not None:
            self.on_product(name, operand, dim)

    def multiplied(self, x: Tensor, product: Product, axes: int = 0) -> Tensor:
        """The product with the weights, and the bias, in front of that many axes; in autocast's dtype."""
        weight, bias, kind = self.weight, self.bias, x.device.type
        if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(kind)
            x, weight = x.to(dtype), weight.to(dtype)
        with torch.autocast(kind, enabled=False):
            out: Tensor = _Pruned.apply(x, weight, self, product)  # type: ignore[no-untyped-call]
            self._check_sizes(x, out)
            return out + bias.to(out.dtype).view(-1, *[1] * axes) if isinstance(bias, Tensor) else out

    def _check_sizes(self, x: Tensor, out: Tensor) -> None:
        """Refuse, without padding, what cannot be cut into blocks."""
        if self.pad:
            return
        config, m = self.config, self.config.m
        rows, outputs = out[:, 0].numel(), out.shape[1] // self.groups
        along_outputs = config.weight == "transposable" or (config.backward != "none" and out.requires_grad)
        for name, size, matters in (
            ("batch times positions", rows, config.update != "none" and out.requires_grad),
            ("the outputs of a group", outputs, along_outputs),
            ("the inputs of a group", self.weight.shape[1], config.weight is not None),
        ):
            if matters and size % m:
                raise ValueError(
                    f"x of shape {tuple(x.shape)}: {name} must be a multiple of m = {m}, not {size}; or pad"
                )

    def extra_repr(self) -> str:
        """The layer's sizes, and what is pruned."""
        config = self.config
        said = f"{config.n}:{config.m}, update={config.update}, backward={config.backward}, weight={config.weight}"
        return f"{super().extra_repr()}, {said}"


class _Pruned(torch.autograd.Function):
    """A product with pruned operands, in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: _NMLayer, product: Product) -> Tensor:
        ctx.layer, ctx.product = layer, product
        seen = layer.masked(weight)
        # only what a gradient that is asked for needs
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, seen if ctx.needs_input_grad[0] else None)
        ctx.shapes = x.shape, weight.shape
        return product.forward(x, seen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (shape_x, shape_w) = ctx.saved_tensors, ctx.shapes
        grad, layer, product = grads[0].contiguous(), ctx.layer, ctx.product
        dx = dw = None
        with torch.autocast(grad.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                dx = product.to_input(layer.pruned_for_input(grad), weight, shape_x)
            if ctx.needs_input_grad[1]:
                dw = product.to_weight(layer.pruned_for_weight(grad), x, shape_w)
        return dx, dw, None, None


class NMLinear(_NMLayer, nn.Linear):
    """`nn.Linear` with pruned gradients: the same parameters and state.

    Args:
        config: What to prune; `NMConfig()` by default.
        generator: Source of the initial weights and of the masks; torch's own by default.
        pad: Whether rows and columns of zeros fill up what `m` does not divide; otherwise that is refused.

    Examples:
        >>> layer = NMLinear(8, 4, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(4, 8)).sum().backward()
        >>> layer.weight.grad.shape
        torch.Size([4, 8])
    """

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, as of `nn.Linear`."""
        floating_tensor("x", x)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x must have {self.in_features} entries on its last axis; its shape is {tuple(x.shape)}")
        out = self.multiplied(x.reshape(-1, self.in_features), LINEAR)
        return out.reshape(*x.shape[:-1], self.out_features)


class NMConv2d(_NMLayer, nn.Conv2d):
    """`nn.Conv2d` with pruned gradients, as `NMLinear`; blocks for the update lie along batch and positions.

    Examples:
        >>> layer = NMConv2d(1, 4, 3, padding="same", generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(2, 1, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, as of `nn.Conv2d`."""
        floating_tensor("x", x)
        if x.ndim not in (3, 4) or x.shape[-3] != self.in_channels:
            channels = self.in_channels
            raise ValueError(f"x must be (N, {channels}, H, W) or ({channels}, H, W); its shape is {tuple(x.shape)}")
        wide, padding = padded(self, x if x.ndim == 4 else x[None])
        out = self.multiplied(wide, convolution(self, padding, (0, 0)), 2)
        return out if x.ndim == 4 else out[0]


def sparsify_model(
    model: nn.Module,
    config: NMConfig | None = None,
    *,
    skip: Skip = ("first", "last"),
    generator: torch.Generator | None = None,
    inplace: bool = False,
    example: Example | None = None,
) -> nn.Module:
    """Replace linear and two-dimensional convolutional layers by pruned ones; names in the state stay.

    `lib.exchange.exchange_report` of what is returned says which layers were exchanged, and why others were not.

    Args:
        model: The network; unless `inplace`, a copy is changed.
        config: `NMConfig()` by default.
        skip: Which layers stay dense: `"first"`, `"last"`, both or none of them, or a function of name and layer.
        generator: Source of the masks. Processes that train together need different ones, since what they draw alike
            does not average out: `lib.training.fit` sees to that for generators in `noise`.
        inplace: Whether the layers of `model` itself become pruned ones: the same objects, of another class.
        example: An input, a tuple of several, or a dict of named ones: what is not called on it stays dense, and first
            and last follow the order of calls instead of names.

    Examples:
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [type(layer).__name__ for layer in sparsify_model(net)]
        ['Linear', 'ReLU', 'NMLinear', 'ReLU', 'Linear']
    """
    instance_of("model", model, nn.Module, "a torch module")
    settings = instance_of("config", NMConfig() if config is None else config, NMConfig, "an NMConfig")
    torch_generator("generator", generator)

    def finish(layer: nn.Module) -> None:
        assert isinstance(layer, _NMLayer)
        layer.prune(settings, generator)

    result = model if true_or_false("inplace", inplace) else copied(model)
    exchange_layers(result, {nn.Linear: NMLinear, nn.Conv2d: NMConv2d}, skip=skip, example=example, finish=finish)
    return result
