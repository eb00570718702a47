"""The products inside linear and convolutional layers, for layers that change their operands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.counter import random_seed
from lib.validation import torch_generator

__all__ = ["LINEAR", "Product", "convolution", "initial_weights", "padded"]


@dataclass(frozen=True)
class Product:
    """The linear map of a layer, without its bias, and its two transposes.

    Attributes:
        forward: Of inputs and weights.
        to_input: Of the gradient of outputs, the weights and the shape of the inputs: the gradient of the inputs.
        to_weight: Of the gradient of outputs, the inputs and the shape of the weights: the gradient of the weights.
    """

    forward: Callable[[Tensor, Tensor], Tensor]
    to_input: Callable[[Tensor, Tensor, torch.Size], Tensor]
    to_weight: Callable[[Tensor, Tensor, torch.Size], Tensor]


LINEAR = Product(
    forward=lambda x, weight: x @ weight.T,
    to_input=lambda grad, weight, _: grad @ weight,
    to_weight=lambda grad, x, _: grad.T @ x,
)


def convolution(layer: nn.modules.conv._ConvNd, padding: Any, output_padding: Any) -> Product:
    """The product of a convolution, transposed or not; the paddings are those of this call."""
    stride, dilation, groups = layer.stride, layer.dilation, layer.groups
    settings = (stride, padding, dilation, layer.transposed, output_padding, groups)

    def backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> Tensor:
        found = torch.ops.aten.convolution_backward(grad, x, weight, None, *settings, wanted)
        result: Tensor = found[wanted.index(True)]
        return result

    def empty(like: Tensor, shape: torch.Size) -> Tensor:
        """What is only asked for its shape."""
        return like.new_empty(1).expand(shape)

    return Product(
        forward=lambda x, weight: torch.convolution(x, weight, None, *settings),
        to_input=lambda grad, weight, shape: backward(grad, empty(grad, shape), weight, (True, False, False)),
        to_weight=lambda grad, x, shape: backward(grad, x, empty(grad, shape), (False, True, False)),
    )


def padded(layer: nn.modules.conv._ConvNd, x: Tensor) -> tuple[Tensor, Any]:
    """The inputs with the margin that only `functional.pad` can make, and the padding that is left to the product."""
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return x, layer.padding
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode), (0,) * len(layer.kernel_size)


@contextmanager
def initial_weights(generator: torch.Generator | None) -> Iterator[None]:
    """Let the initial weights of layers made in a block follow from a generator: torch draws them from its own."""
    given = torch_generator("generator", generator) is not None
    with torch.random.fork_rng(devices=[], enabled=given):
        if given:
            torch.default_generator.manual_seed(random_seed(generator))
        yield
