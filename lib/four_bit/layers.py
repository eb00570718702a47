"""Layers that train in 4 bits: INT4 forward, logarithmic 4-bit gradients, and 4-bit storage of what backward needs.

The scheme of Sections 3-5 of Chmiel et al. (ICLR 2023, arXiv 2112.10769): weights and activations rounded to nearest,
gradients of the outputs quantised without bias; biases, normalisation and the optimizer stay in float32. The
products are simulated in float32, in which all operands are exact.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from lib.four_bit.hindsight import HindsightMax
from lib.four_bit.integers import int4_encode
from lib.four_bit.logarithmic import Rounding, Underflow, log_levels, luq
from lib.four_bit.packing import pack_bits, pack_nibbles, unpack_bits, unpack_nibbles
from lib.validation import positive_integer

if TYPE_CHECKING:
    from typing import Self

__all__ = ["LUQConfig", "LUQConv2d", "LUQLinear", "PackedReLU", "quantize_model"]


@dataclass(frozen=True)
class LUQConfig:
    """How a layer is quantised.

    Attributes
    ----------
    fmt, rounding, underflow, pow2_alpha
        Of the gradients, as in `luq_encode`.
    samples
        Independent quantisations of a gradient that are averaged for the weights' update (SMP).
    smp_backward
        Whether the average also goes to the layer before; otherwise that gets the first of them.
    forward
        `"int4"`, or `"none"` for full precision.
    backward
        `"luq"`, `"int4"` (uniform, rounded stochastically), or `"none"`.
    clip
        Of weights and activations: `"sawb"` or `"max"`.
    hindsight
        Momentum of a largest magnitude that is guessed from earlier steps; None for the exact one.
    """

    fmt: str = "fp4"
    rounding: Rounding = "stochastic"
    underflow: Underflow = "stochastic"
    samples: int = 1
    smp_backward: bool = False
    forward: Literal["int4", "none"] = "int4"
    backward: Literal["luq", "int4", "none"] = "luq"
    clip: Literal["sawb", "max"] = "sawb"
    hindsight: float | None = None
    pow2_alpha: bool = False

    def __post_init__(self) -> None:
        log_levels(self.fmt)
        positive_integer("samples", self.samples)
        allowed: dict[str, tuple[str, ...]] = {
            "rounding": ("stochastic", "nearest", "down"),
            "underflow": ("stochastic", "nearest", "flush"),
            "forward": ("int4", "none"),
            "backward": ("luq", "int4", "none"),
            "clip": ("sawb", "max"),
        }
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}; it is {getattr(self, name)!r}")
        if self.hindsight is not None:
            HindsightMax(self.hindsight)


@dataclass(frozen=True)
class _Product:
    """The linear map of a layer, and its two transposes."""

    forward: Callable[[Tensor, Tensor], Tensor]
    to_input: Callable[[Tensor, Tensor, torch.Size], Tensor]
    to_weight: Callable[[Tensor, Tensor, torch.Size], Tensor]


_LINEAR = _Product(
    forward=lambda x, weight: x @ weight.T,
    to_input=lambda grad, weight, _: grad @ weight,
    to_weight=lambda grad, x, _: grad.T @ x,
)


def _convolution(stride: Any, padding: Any, dilation: Any, groups: int) -> _Product:
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _Product(
        forward=lambda x, weight: functional.conv2d(x, weight, None, **settings),
        to_input=lambda grad, weight, shape: conv2d_input(shape, weight, grad, **settings),  # type: ignore[no-untyped-call]
        to_weight=lambda grad, x, shape: conv2d_weight(x, shape, grad, **settings),  # type: ignore[no-untyped-call]
    )


class _Quantizer:
    """The one source of randomness of a layer: it quantises gradients of outputs."""

    def __init__(self, config: LUQConfig, generator: torch.Generator | None) -> None:
        self.config, self.generator = config, generator
        self.hindsight = None if config.hindsight is None else HindsightMax(config.hindsight)

    def __call__(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient that goes to the layer before, and the one that updates the weights."""
        config = self.config
        if config.backward == "none":
            return grad, grad
        if config.backward == "int4":
            codes, scale = int4_encode(grad, clip="max", rounding="stochastic", generator=self.generator)
            value = codes.to(torch.float32) * scale
            return value, value
        max_abs = None if self.hindsight is None else self.hindsight.update(grad)
        draws = [
            luq(
                grad,
                fmt=config.fmt,
                max_abs=max_abs,
                rounding=config.rounding,
                underflow=config.underflow,
                generator=self.generator,
                pow2_alpha=config.pow2_alpha,
            )
            for _ in range(config.samples)
        ]
        average = torch.stack(draws).mean(dim=0) if len(draws) > 1 else draws[0]
        return (average if config.smp_backward else draws[0]), average


class _FourBit(torch.autograd.Function):
    """A linear map with INT4 operands, which keeps them packed, and with quantised gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, product: _Product, quantizer: _Quantizer) -> Tensor:
        ctx.product, ctx.quantizer = product, quantizer
        ctx.shapes = x.shape, weight.shape
        if quantizer.config.forward == "none":
            ctx.signed = None
            ctx.save_for_backward(x, weight)
            return product.forward(x, weight)
        signed = bool((x < 0).any())
        codes_x, scale_x = int4_encode(x, clip=quantizer.config.clip, signed=signed)
        codes_w, scale_w = int4_encode(weight, clip=quantizer.config.clip)
        ctx.signed = signed
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(pack_nibbles(codes_x), scale_x, pack_nibbles(codes_w), scale_w)
        return product.forward(codes_x.float(), codes_w.float()) * (scale_x * scale_w)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        shape_x, shape_w = ctx.shapes
        if ctx.signed is None:
            x, weight = ctx.saved_tensors
        else:
            packed_x, scale_x, packed_w, scale_w = ctx.saved_tensors
            x = unpack_nibbles(packed_x, shape_x, signed=ctx.signed).float() * scale_x
            weight = unpack_nibbles(packed_w, shape_w, signed=True).float() * scale_w
        for_input, for_weight = ctx.quantizer(grads[0].contiguous())
        dx = ctx.product.to_input(for_input, weight, shape_x) if ctx.needs_input_grad[0] else None
        dw = ctx.product.to_weight(for_weight, x, shape_w) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None


class _FourBitLayer(nn.Module):
    """What 4-bit layers share: a quantizer beside the parameters of a float layer."""

    quantizer: _Quantizer

    @classmethod
    def from_float(cls, module: nn.Module, config: LUQConfig, generator: torch.Generator | None = None) -> Self:
        """The same layer in 4 bits, on the same parameters."""
        layer = cls.__new__(cls)
        layer.__dict__.update(module.__dict__)
        layer.quantizer = _Quantizer(config, generator)
        return layer


class LUQLinear(_FourBitLayer, nn.Linear):
    """`nn.Linear` in 4 bits: the same parameters and state, other arithmetic.

    Parameters
    ----------
    in_features, out_features, bias
        As for `nn.Linear`.
    config
        How to quantise.
    generator
        Source of the gradients' rounding; torch's own by default.

    Examples
    --------
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
        super().__init__(in_features, out_features, bias)
        self.quantizer = _Quantizer(config or LUQConfig(), generator)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output in the dtype of `x`; computed in float32, also under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            flat = x.float().reshape(-1, self.in_features)
            out: Tensor = _FourBit.apply(flat, self.weight.float(), _LINEAR, self.quantizer)  # type: ignore[no-untyped-call]
            if self.bias is not None:
                out = out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features).to(x.dtype)


class LUQConv2d(_FourBitLayer, nn.Conv2d):
    """`nn.Conv2d` in 4 bits: the same parameters and state, other arithmetic.

    Examples
    --------
    >>> layer = LUQConv2d(1, 4, 3, padding="same", generator=torch.Generator().manual_seed(0))
    >>> layer(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self, *args: Any, config: LUQConfig | None = None, generator: torch.Generator | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.quantizer = _Quantizer(config or LUQConfig(), generator)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output in the dtype of `x`; computed in float32, also under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            wide, padding = x.float(), self.padding
            if self.padding_mode != "zeros" or isinstance(padding, str):
                mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
                wide, padding = functional.pad(wide, self._reversed_padding_repeated_twice, mode=mode), (0, 0)
            product = _convolution(self.stride, padding, self.dilation, self.groups)
            out: Tensor = _FourBit.apply(wide, self.weight.float(), product, self.quantizer)  # type: ignore[no-untyped-call]
            if self.bias is not None:
                out = out + self.bias[:, None, None]
        return out.to(x.dtype)


class _PackedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(pack_bits(x > 0))
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (packed,) = ctx.saved_tensors
        return grads[0] * unpack_bits(packed, ctx.shape)


class PackedReLU(nn.Module):
    """A ReLU that keeps one bit an entry for backward, instead of its output.

    Examples
    --------
    >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
    >>> PackedReLU()(x).sum().backward()
    >>> x.grad
    tensor([0., 1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """The positive part of `x`."""
        result: Tensor = _PackedReLU.apply(x)  # type: ignore[no-untyped-call]
        return result


def quantize_model(
    model: nn.Module,
    config: LUQConfig | None = None,
    *,
    skip: Sequence[str] | Callable[[str, nn.Module], bool] = ("first", "last"),
    generator: torch.Generator | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Replace linear and convolutional layers by 4-bit ones, and ReLUs by packed ones.

    Parameters
    ----------
    model
        The network; unless `inplace`, a copy is changed.
    config
        How to quantise; `LUQConfig()` by default.
    skip
        Which layers keep full precision: `"first"`, `"last"`, both or none of them, or a function of name and layer.
    generator
        Source of the gradients' rounding.

    Returns
    -------
    nn.Module
        With the same names of parameters and buffers as before.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> quantized = quantize_model(net)
    >>> [type(layer).__name__ for layer in quantized]
    ['Linear', 'PackedReLU', 'LUQLinear', 'PackedReLU', 'Linear']
    >>> quantized.state_dict().keys() == net.state_dict().keys()
    True
    """
    settings = config or LUQConfig()
    if not callable(skip) and not set(skip) <= {"first", "last"}:
        raise ValueError(f"skip must hold first, last or both, or be a function; it is {skip!r}")
    result = model if inplace else copy.deepcopy(model)
    names = [name for name, module in result.named_modules() if type(module) in (nn.Linear, nn.Conv2d)]
    if callable(skip):
        kept = {name for name in names if skip(name, result.get_submodule(name))}
    else:
        ends = {"first": names[:1], "last": names[-1:]}
        kept = {name for word in skip for name in ends[word]}
    for name, module in list(result.named_modules()):
        new: nn.Module | None = None
        if type(module) is nn.Linear and name not in kept:
            new = LUQLinear.from_float(module, settings, generator)
        elif type(module) is nn.Conv2d and name not in kept:
            new = LUQConv2d.from_float(module, settings, generator)
        elif type(module) is nn.ReLU:
            new = PackedReLU()
        if new is None:
            continue
        if not name:
            return new
        parent, _, child = name.rpartition(".")
        setattr(result.get_submodule(parent), child, new)
    return result
