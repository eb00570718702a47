"""The few small networks that several chapters train; weights come from a generator, never from global state."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

__all__ = ["ACTIVATIONS", "fully_connected", "initialize", "small_convnet"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "elu": nn.ELU}


def initialize(model: nn.Module, *, generator: torch.Generator) -> nn.Module:
    """Draw weights and biases of linear and convolutional layers uniformly in +-1/sqrt(fan in), torch's default.

    Examples
    --------
    >>> layer = initialize(nn.Linear(4, 2), generator=torch.Generator().manual_seed(0))
    >>> bool(layer.weight.abs().max() <= 0.5)
    True
    """
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                bound = layer.weight[0].numel() ** -0.5
                for parameter in layer.parameters(recurse=False):
                    parameter.uniform_(-bound, bound, generator=generator)
    return model


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; it is {name!r}")
    return ACTIVATIONS[name]()


def fully_connected(widths: Sequence[int], *, activation: str = "tanh", generator: torch.Generator) -> nn.Sequential:
    """A network of linear layers with an activation between them; inputs of any shape are flattened.

    Parameters
    ----------
    widths
        Sizes of input, hidden layers and output.
    activation
        A name in `ACTIVATIONS`.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> model = fully_connected((64, 8, 1), generator=torch.Generator().manual_seed(0))
    >>> sum(parameter.numel() for parameter in model.parameters())
    529
    """
    if len(widths) < 2:
        raise ValueError(f"widths must hold an input and an output size; it is {tuple(widths)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), _activation(activation)]
    model = nn.Sequential(*layers[:-1])
    initialize(model, generator=generator)
    return model


def small_convnet(
    channels: Sequence[int], outputs: int, *, size: int = 28, activation: str = "tanh", generator: torch.Generator
) -> nn.Sequential:
    """Blocks of a 3 x 3 convolution, an activation and 2 x 2 average pooling; then a linear layer.

    Parameters
    ----------
    channels
        Channels of the images and of each block.
    outputs
        Number of outputs.
    size
        Height and width of the images.
    activation, generator
        As for `fully_connected`.

    Examples
    --------
    >>> model = small_convnet((1, 4, 8), 10, generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    layers: list[nn.Module] = []
    for inputs, maps in pairwise(channels):
        layers += [nn.Conv2d(inputs, maps, 3, padding=1), _activation(activation), nn.AvgPool2d(2)]
        size //= 2
    if size == 0:
        raise ValueError(f"channels must hold fewer blocks: {len(channels) - 1} halvings leave nothing of the image")
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * size**2, outputs))
    initialize(model, generator=generator)
    return model
