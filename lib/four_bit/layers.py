"""Layers that train in 4 bits: INT4 forward, logarithmic 4-bit gradients, and 4-bit storage of what backward needs.

The scheme of Sections 3-5 of Chmiel et al. (ICLR 2023, arXiv 2112.10769): weights and activations rounded to nearest,
gradients of the outputs quantised without bias; biases, normalisation and the optimizer stay in float32. The
products are simulated in float32, or in bfloat16 under autocast: their operands are exact in both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lib.counter import random_seed
from lib.exchange import Example, ExchangeReport, Skip, copied, exchange_layers, exchange_report, give_class
from lib.experiment import BelowOne, Count
from lib.four_bit.fused import Backend, active_backend, luq_levels
from lib.four_bit.fused_int4 import PackedInt4, int4_operand, int4_pack, int4_unpack, relu_grad, relu_pack
from lib.four_bit.hindsight import HindsightMax
from lib.four_bit.integers import int4_encode
from lib.four_bit.logarithmic import Rounding, checked_mantissas, largest_magnitude, luq_decode, luq_encode
from lib.products import LINEAR, Product, convolution, initial_weights, padded
from lib.validation import floating_tensor, instance_of, positive_integer, torch_generator, true_or_false

if TYPE_CHECKING:
    from typing import Self

#: Whole numbers as a tensor, and the 0-d unit that they are counted in.
_Levels = tuple[Tensor, Tensor]

__all__ = [
    "ExchangeReport",
    "LUQConfig",
    "LUQConv1d",
    "LUQConv2d",
    "LUQConv3d",
    "LUQConvTranspose1d",
    "LUQConvTranspose2d",
    "LUQConvTranspose3d",
    "LUQLinear",
    "PackedReLU",
    "exchange_report",
    "gradient_quantizer",
    "quantize_model",
    "quantizer_states",
    "reconfigure",
]


def _group(name: str, value: Any) -> Any:
    if isinstance(value, str) and value != "world":
        raise ValueError(f"{name} must be world, a group or None; it is {value!r}")
    return value


@dataclass(frozen=True)
class LUQConfig(Rounding):
    """How a layer is quantised: the `Rounding` of its gradients, and more.

    Attributes:
        samples: Independent quantisations of a gradient that are averaged for the weights' update (SMP).
        smp_backward: Whether the average also goes to the layer before; otherwise that gets the first of them.
        forward: `"int4"`; `"weights"` for INT4 weights on activations of full precision, as in fine-tuning (FNT); or
            `"none"`.
        forward_rounding: `"nearest"`, or `"stochastic"` to see that it is worse.
        backward: `"luq"`, `"int4"` (uniform; rounded to nearest or stochastically, as `rounding` says), or `"none"`.
        clip: Of weights and activations: `"sawb"` or `"max"`.
        hindsight: Momentum of a largest magnitude that is guessed from earlier steps; None for the exact one.
        process_group: `"world"`, or a group of torch.distributed, whose processes share one alpha: the largest
            magnitude over all of them, as if they were one. None for an alpha of each process's own.
        backend: `"auto"` is the Triton kernel on a GPU where triton is installed, otherwise eager torch.

    Examples:
        >>> LUQConfig(fmt="fp3", underflow="flush", samples=2).levels
        3
    """

    samples: Count = 1
    smp_backward: bool = False
    forward: Literal["int4", "weights", "none"] = "int4"
    forward_rounding: Literal["nearest", "stochastic"] = "nearest"
    backward: Literal["luq", "int4", "none"] = "luq"
    clip: Literal["sawb", "max"] = "sawb"
    hindsight: BelowOne | None = None
    process_group: Annotated[Any, _group] = None
    backend: Backend = "auto"

    def check(self) -> None:
        """Refuse what INT4 gradients cannot be."""
        if self.backward == "int4" and (self.samples > 1 or self.rounding == "down"):
            raise ValueError("backward int4 takes one sample, rounded to nearest or stochastically")


class _Quantizer:
    """The randomness of a layer, and what it remembers: it quantises gradients of outputs.

    Gradients that are not finite stay so, for a loss scaler to see; looking for them would stop a GPU at each layer.
    """

    def __init__(self, config: LUQConfig, generator: torch.Generator | None) -> None:
        self.config = instance_of("config", config, LUQConfig, "a LUQConfig")
        self.generator = torch_generator("generator", generator)
        self.hindsight = None if config.hindsight is None else HindsightMax(config.hindsight)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Quantizer:
        """Another one that remembers the same, and shares the generator and the processes."""
        other = _Quantizer(self.config, self.generator)
        other.hindsight = copy.deepcopy(self.hindsight, memo)
        return other

    def __call__(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient that goes to the layer before, and the one that updates the weights."""
        floating_tensor("grad", grad)
        for_input, for_weight = self.levels(grad, torch.float32)
        return for_input[0] * for_input[1], for_weight[0] * for_weight[1]

    def levels(self, grad: Tensor, dtype: torch.dtype) -> tuple[_Levels, _Levels]:
        """The same two as small whole numbers, exact in bfloat16 too, with their units."""
        config = self.config
        if config.backward == "none":
            whole = grad.to(dtype), torch.ones((), device=grad.device)
            return whole, whole
        max_abs = self._max_abs(grad)
        if config.backward == "int4":
            rounding: Literal["nearest", "stochastic"] = "stochastic" if config.rounding == "stochastic" else "nearest"
            codes, scale = int4_encode(grad, clip=max_abs, rounding=rounding, generator=self.generator, check=False)
            uniform = codes.to(dtype), scale
            return uniform, uniform
        # all samples of an entry lie on two neighbouring levels: their sum is a power of two times at most 2 N, and
        # bfloat16 holds eight bits
        exact = dtype if config.samples <= 128 else torch.float32
        first, alpha = self._draw(grad, max_abs, exact)
        if config.samples == 1:
            return (first, alpha), (first, alpha)
        total = first.clone()
        for _ in range(config.samples - 1):
            total += self._draw(grad, max_abs, exact)[0]
        average = total, alpha / config.samples
        return (average if config.smp_backward else (first.to(dtype), alpha)), average

    def operand(self, x: Tensor, dtype: torch.dtype, *, signed: bool | None, keep: bool) -> PackedInt4:
        """Weights or activations in INT4."""
        config = self.config
        if config.forward_rounding == "nearest":
            return int4_pack(x, clip=config.clip, signed=signed, dtype=dtype, keep=keep, backend=config.backend)
        random: dict[str, Any] = {"rounding": "stochastic", "generator": self.generator}
        return int4_operand(x, signed=signed, dtype=dtype, keep=keep, clip=config.clip, **random)

    def _max_abs(self, grad: Tensor) -> Tensor:
        largest = largest_magnitude(grad).float()
        if self.config.process_group is not None and torch.distributed.is_initialized():
            group = None if self.config.process_group == "world" else self.config.process_group
            torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX, group=group)
        if self.hindsight is None:
            return largest
        return self.hindsight.update(grad, largest=largest, check=False)

    def _draw(self, grad: Tensor, max_abs: Tensor, dtype: torch.dtype) -> _Levels:
        """One quantisation: with integers from the generator, or a seed from it for the kernels that hash."""
        config = self.config
        way = active_backend(grad.device, config.backend, count=grad.numel())
        if way == "eager":
            codes, alpha = luq_encode(grad, config, max_abs=max_abs, generator=self.generator, check=False)
            return luq_decode(codes, 1.0, fmt=config.fmt, check=False).to(dtype), alpha
        source: dict[str, Any] = {}
        if way == "triton":
            source["seed"] = random_seed(self.generator)
        elif config.random:
            source["rand"] = checked_mantissas(None, grad, self.generator)
        return luq_levels(grad, config, dtype=dtype, max_abs=max_abs, backend=way, check=False, **source)


def gradient_quantizer(
    config: LUQConfig, *, generator: torch.Generator | None = None
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """What a 4-bit layer does to the gradient of its outputs: one for the layer before, one for its own update.

    Examples:
        >>> for_input, for_weight = gradient_quantizer(LUQConfig(backward="none"))(torch.ones(2))
        >>> torch.equal(for_input, for_weight)
        True
    """
    return _Quantizer(config, generator)


class _FourBit(torch.autograd.Function):
    """A linear map with INT4 operands, which keeps them packed, and with quantised gradients.

    Products are of whole numbers in `dtype`, float32 or bfloat16, in which these are exact; scales come after. The
    result of a product in bfloat16 is rounded to it, as everything under autocast is.
    """

    @staticmethod
    def forward(  # noqa: PLR0917  (autograd passes nothing by name)
        ctx: Any, x: Tensor, weight: Tensor, product: Product, quantizer: _Quantizer, dtype: torch.dtype
    ) -> Tensor:
        config = quantizer.config
        ctx.product, ctx.quantizer, ctx.dtype = product, quantizer, dtype
        ctx.shapes, ctx.dtypes = (x.shape, weight.shape), (x.dtype, weight.dtype)
        if config.forward == "none":
            ctx.save_for_backward(x, weight)
            return product.forward(x.to(dtype), weight.to(dtype))
        keep = any(ctx.needs_input_grad)
        w = quantizer.operand(weight, dtype, signed=True, keep=keep)
        if config.forward == "weights":
            if keep:
                ctx.save_for_backward(x, w.packed, w.scale)
            return product.forward(x.to(dtype), w.codes) * w.scale
        a = quantizer.operand(x, dtype, signed=None, keep=keep)
        if keep:
            ctx.signed = a.signed
            ctx.save_for_backward(a.packed, a.scale, w.packed, w.scale)
        return product.forward(a.codes, w.codes) * (a.scale * w.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        shape_x, shape_w = ctx.shapes
        dx = dw = None
        with torch.autocast(grads[0].device.type, enabled=False):
            (x, scale_x), (weight, scale_w) = _operands(ctx)
            for_input, for_weight = ctx.quantizer.levels(grads[0].contiguous(), ctx.dtype)
            if ctx.needs_input_grad[0]:
                levels, unit = for_input
                dx = ctx.product.to_input(levels, weight.to(levels.dtype), shape_x) * (unit * scale_w)
                dx = dx.to(ctx.dtypes[0])
            if ctx.needs_input_grad[1]:
                levels, unit = for_weight
                dw = ctx.product.to_weight(levels, x.to(levels.dtype), shape_w).to(ctx.dtypes[1]) * (unit * scale_x)
        return dx, dw, None, None, None


def _operands(ctx: Any) -> tuple[_Levels, _Levels]:
    """What forward kept of its operands, each as numbers and their unit."""
    shape_x, shape_w = ctx.shapes
    config = ctx.quantizer.config
    options: dict[str, Any] = {"dtype": ctx.dtype, "backend": config.backend}
    x, *rest = ctx.saved_tensors
    one = torch.ones((), device=x.device)
    if config.forward == "none":
        return (x, one), (rest[0], one)
    *scale_x, packed_w, scale_w = rest
    weight = int4_unpack(packed_w, shape_w, one.bool(), **options), scale_w
    if config.forward == "weights":
        return (x, one), weight
    return (int4_unpack(x, shape_x, ctx.signed, **options), scale_x[0]), weight


def _product_dtype(x: Tensor) -> torch.dtype:
    """bfloat16 where autocast or the input asks for it; otherwise float32, since float16 could overflow."""
    kind = floating_tensor("x", x).device.type
    wanted = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return torch.bfloat16 if wanted == torch.bfloat16 else torch.float32


class _FourBitLayer(nn.Module):
    """What 4-bit layers share: a quantizer beside the parameters of a float layer."""

    weight: Tensor
    quantizer: _Quantizer

    def __init__(
        self, *args: Any, config: LUQConfig | None = None, generator: torch.Generator | None = None, **kwargs: Any
    ) -> None:
        with initial_weights(generator):
            super().__init__(*args, **kwargs)
        self.quantizer = _Quantizer(LUQConfig() if config is None else config, generator)

    @classmethod
    def from_float(cls, module: nn.Module, config: LUQConfig, generator: torch.Generator | None = None) -> Self:
        """The same layer in 4 bits, on the same parameters."""
        layer = type(module).__new__(type(module))
        layer.__dict__.update(module.__dict__)
        give_class(layer, cls)
        assert isinstance(layer, cls)
        layer.quantizer = _Quantizer(config, generator)
        return layer

    def multiplied(self, x: Tensor, product: Product, dtype: torch.dtype, axes: int = 0) -> Tensor:
        """The product with the weights, and the bias, in front of that many axes."""
        out: Tensor = _FourBit.apply(x, self.weight, product, self.quantizer, dtype)  # type: ignore[no-untyped-call]
        bias = self.bias
        return out + bias.to(out.dtype).view(-1, *[1] * axes) if isinstance(bias, Tensor) else out

    def extra_repr(self) -> str:
        """The layer's sizes, and how it is quantised on which path."""
        config = self.quantizer.config
        path = active_backend(self.weight.device, config.backend)
        return f"{super().extra_repr()}, forward={config.forward}, backward={config.backward}, path={path}"


class LUQLinear(_FourBitLayer, nn.Linear):
    """`nn.Linear` in 4 bits: the same parameters and state, other arithmetic.

    Args:
        config: How to quantise.
        generator: Source of the initial weights and of the gradients' rounding; torch's own by default.

    Examples:
        >>> layer = LUQLinear(8, 4, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(2, 8)).sum().backward()
        >>> layer.weight.grad.shape
        torch.Size([4, 8])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        config: LUQConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        sides = positive_integer("in_features", in_features), positive_integer("out_features", out_features)
        super().__init__(*sides, true_or_false("bias", bias), config=config, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output: bfloat16 under autocast to it, otherwise in the dtype of `x`."""
        dtype = _product_dtype(x)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x must have {self.in_features} entries on its last axis; its shape is {tuple(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            out = self.multiplied(x.reshape(-1, self.in_features), LINEAR, dtype)
        return out.reshape(*x.shape[:-1], self.out_features).to(x.dtype if dtype == torch.float32 else dtype)


class _FourBitConvolution(_FourBitLayer, nn.modules.conv._ConvNd):
    """Convolutions of any dimension, transposed or not."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The layer's output, as of `LUQLinear`; a transposed one may be asked for its size."""
        axes, dtype = len(self.kernel_size), _product_dtype(x)
        if x.ndim not in (axes + 1, axes + 2) or x.shape[-axes - 1] != self.in_channels:
            places = ", ".join([str(self.in_channels), *("D", "H", "W")[-axes:]])
            raise ValueError(f"x must be (N, {places}) or ({places}); its shape is {tuple(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.ndim == axes + 2 else x[None]
            padding, output_padding = self.padding, self.output_padding
            if isinstance(self, nn.modules.conv._ConvTransposeNd):
                sizes: Any = (self.stride, padding, self.kernel_size, axes, self.dilation)
                output_padding = tuple(self._output_padding(x, output_size, *sizes))
            else:
                wide, padding = padded(self, wide)
            out = self.multiplied(wide, convolution(self, padding, output_padding), dtype, axes)
        out = out if x.ndim == axes + 2 else out[0]
        return out.to(x.dtype if dtype == torch.float32 else dtype)


class LUQConv1d(_FourBitConvolution, nn.Conv1d):
    """`nn.Conv1d` in 4 bits."""


class LUQConv2d(_FourBitConvolution, nn.Conv2d):
    """`nn.Conv2d` in 4 bits.

    Examples:
        >>> layer = LUQConv2d(1, 4, 3, padding="same", generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(2, 1, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """


class LUQConv3d(_FourBitConvolution, nn.Conv3d):
    """`nn.Conv3d` in 4 bits."""


class LUQConvTranspose1d(_FourBitConvolution, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` in 4 bits."""


class LUQConvTranspose2d(_FourBitConvolution, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` in 4 bits."""


class LUQConvTranspose3d(_FourBitConvolution, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` in 4 bits."""


class _PackedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if not ctx.needs_input_grad[0]:
            return x.clamp(min=0)
        value, bits = relu_pack(x)
        ctx.save_for_backward(bits)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (bits,) = ctx.saved_tensors
        return relu_grad(grads[0], bits)


class PackedReLU(nn.Module):
    """A ReLU that keeps one bit per entry for backward, instead of its output.

    Examples:
        >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> PackedReLU()(x).sum().backward()
        >>> x.grad
        tensor([0., 1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """The positive part of `x`."""
        instance_of("x", x, Tensor, "a tensor")
        result: Tensor = _PackedReLU.apply(x)  # type: ignore[no-untyped-call]
        return result


#: Class of a layer -> the same in 4 bits.
_IN_FOUR_BITS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: LUQLinear,
    nn.Conv1d: LUQConv1d,
    nn.Conv2d: LUQConv2d,
    nn.Conv3d: LUQConv3d,
    nn.ConvTranspose1d: LUQConvTranspose1d,
    nn.ConvTranspose2d: LUQConvTranspose2d,
    nn.ConvTranspose3d: LUQConvTranspose3d,
    nn.ReLU: PackedReLU,
}


def quantize_model(
    model: nn.Module,
    config: LUQConfig | None = None,
    *,
    skip: Skip = ("first", "last"),
    generator: torch.Generator | None = None,
    inplace: bool = False,
    example: Example | None = None,
) -> nn.Module:
    """Replace linear and convolutional layers by 4-bit ones, and ReLUs by packed ones; names in the state stay.

    `exchange_report` of what is returned says which layers were exchanged, and why others with weights were not: those
    of `nn.MultiheadAttention`, recurrent ones, embeddings. Where none was there is a warning. A transformer of torch
    that holds 4-bit layers calls them in evaluation as well, instead of its fused function for float ones.

    Args:
        model: The network; unless `inplace`, a copy is changed.
        config: `LUQConfig()` by default.
        skip: Which layers keep full precision: `"first"`, `"last"`, both or none of them, or a function of name and
            layer.
        generator: Source of the gradients' rounding.
        inplace: Whether the layers of `model` itself become 4-bit ones: the same objects, of another class.
        example: An input, a tuple of several, or a dict of named ones. It is run through a copy, in training and
            evaluation, with gradients and without: what is not called there, because a function takes only its weights,
            keeps full precision, and first and last follow the order of calls instead of names.

    Examples:
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [type(layer).__name__ for layer in quantize_model(net)]
        ['Linear', 'PackedReLU', 'LUQLinear', 'PackedReLU', 'Linear']
    """
    instance_of("model", model, nn.Module, "a torch module")
    settings = LUQConfig() if config is None else config
    _Quantizer(settings, generator)  # refuses what it cannot use

    def finish(layer: nn.Module) -> None:
        if isinstance(layer, _FourBitLayer):
            layer.quantizer = _Quantizer(settings, generator)

    result = model if true_or_false("inplace", inplace) else copied(model)
    exchange_layers(result, _IN_FOUR_BITS, skip=skip, example=example, finish=finish)
    return result


def reconfigure(model: nn.Module, config: LUQConfig) -> None:
    """Quantise the 4-bit layers of a network in another way from now on, such as for fine-tuning (FNT).

    Examples:
        >>> layer = LUQLinear(2, 2)
        >>> reconfigure(layer, LUQConfig(forward="weights", backward="none"))
        >>> layer
        LUQLinear(in_features=2, out_features=2, bias=True, forward=weights, backward=none, path=compiled)
    """
    instance_of("config", config, LUQConfig, "a LUQConfig")
    for layer in _four_bit_layers(model):
        layer.quantizer = _Quantizer(config, layer.quantizer.generator)


def _four_bit_layers(model: nn.Module) -> list[_FourBitLayer]:
    parts = instance_of("model", model, nn.Module, "a torch module").modules()
    return [layer for layer in parts if isinstance(layer, _FourBitLayer)]


def quantizer_states(model: nn.Module) -> list[HindsightMax]:
    """The running estimates of a network's 4-bit layers: what a checkpoint must hold beside its weights.

    Examples:
        >>> quantizer_states(LUQLinear(2, 2)), quantizer_states(LUQLinear(2, 2, config=LUQConfig(hindsight=0.9)))
        ([], [HindsightMax(momentum=0.9, estimate=unset, clipped=0.00%)])
    """
    quantizers = (layer.quantizer for layer in _four_bit_layers(model))
    return [each.hindsight for each in quantizers if each.hindsight is not None]
