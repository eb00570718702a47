"""The few small networks that several chapters train; weights come from a generator, never from global state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from lib.validation import instance_of, known_seed, one_of, positive_integer, true_or_false

__all__ = [
    "ACTIVATIONS",
    "ResidualBlock",
    "fully_connected",
    "image_network",
    "initialize",
    "residual_network",
    "small_convnet",
]

_OWN_NETWORKS = ("mlp", "convnet", "resnet18-small")
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "elu": nn.ELU}


def initialize(model: nn.Module, *, generator: torch.Generator) -> nn.Module:
    """Draw weights and biases of linear and convolutional layers uniformly in +-1/sqrt(fan in), torch's default.

    Examples:
        >>> bool(initialize(nn.Linear(4, 2), generator=torch.Generator().manual_seed(0)).weight.abs().max() <= 0.5)
        True
    """
    instance_of("model", model, nn.Module, "a torch module")
    instance_of("generator", generator, torch.Generator, "a torch.Generator")
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                bound = layer.weight[0].numel() ** -0.5
                for parameter in layer.parameters(recurse=False):
                    parameter.uniform_(-bound, bound, generator=generator)
    return model


def _activation(name: str) -> nn.Module:
    return ACTIVATIONS[one_of("activation", name, ACTIVATIONS)]()


def _sizes(name: str, values: object) -> list[int]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of integers; it is {values!r}")
    return [positive_integer(f"{name}[{place}]", value) for place, value in enumerate(values)]


# torch draws weights while a layer is made, from its own generator, which stays where it was; ours come after
@torch.random.fork_rng(devices=[])
def fully_connected(
    widths: Sequence[int], *, activation: str = "tanh", normalize: bool = False, generator: torch.Generator
) -> nn.Sequential:
    """A network of linear layers with an activation between them; inputs of any shape are flattened.

    Args:
        widths: Sizes of input, hidden layers and output.
        normalize: Whether batch normalisation comes before each activation.

    Examples:
        >>> model = fully_connected((64, 8, 1), generator=torch.Generator().manual_seed(0))
        >>> sum(parameter.numel() for parameter in model.parameters())
        529
    """
    widths = _sizes("widths", widths)
    true_or_false("normalize", normalize)
    if len(widths) < 2:
        raise ValueError(f"widths must hold an input and an output size; it is {tuple(widths)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        norm = [nn.BatchNorm1d(outputs)] if normalize else []
        layers += [nn.Linear(inputs, outputs), *norm, _activation(activation)]
    model = nn.Sequential(*layers[: -2 if normalize else -1])  # the last layer is linear
    initialize(model, generator=generator)
    return model


@torch.random.fork_rng(devices=[])
def small_convnet(
    channels: Sequence[int],
    outputs: int,
    *,
    size: int = 28,
    activation: str = "tanh",
    normalize: bool = False,
    generator: torch.Generator,
) -> nn.Sequential:
    """Blocks of a 3 x 3 convolution, an activation and 2 x 2 average pooling; then a linear layer.

    Args:
        channels: Of the images and of each block.
        size: Height and width of the images.

    Examples:
        >>> model = small_convnet((1, 4, 8), 10, generator=torch.Generator().manual_seed(0))
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    channels = _sizes("channels", channels)
    positive_integer("outputs", outputs)
    positive_integer("size", size)
    true_or_false("normalize", normalize)
    if not channels:
        raise ValueError("channels must hold those of the images; it is empty")
    layers: list[nn.Module] = []
    for inputs, maps in pairwise(channels):
        norm = [nn.BatchNorm2d(maps)] if normalize else []
        layers += [nn.Conv2d(inputs, maps, 3, padding=1), *norm, _activation(activation), nn.AvgPool2d(2)]
        size //= 2
    if size == 0:
        raise ValueError(f"channels must hold fewer blocks: {len(channels) - 1} halvings leave nothing of the image")
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * size**2, outputs))
    initialize(model, generator=generator)
    return model


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, each with a normalisation, and a way around them (He et al. 2015).

    `norm` makes the normalisation of a number of channels; `padding_mode` is that of `torch.nn.Conv2d`.

    Examples:
        >>> ResidualBlock(4, 8, stride=2)(torch.zeros(1, 4, 8, 8)).shape
        torch.Size([1, 8, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("stride", stride)):
            positive_integer(name, value)
        one_of("padding_mode", padding_mode, ("zeros", "reflect", "replicate", "circular"))
        if not callable(norm):
            raise TypeError(f"norm must be a function of a number of channels; it is {norm!r}")
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False, padding_mode=padding_mode),
            norm(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False, padding_mode=padding_mode),
            norm(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            project = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, norm(out_channels))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        result: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return result


@torch.random.fork_rng(devices=[])
def residual_network(
    blocks: Sequence[int], outputs: int, *, channels: int = 3, width: int = 64, generator: torch.Generator
) -> nn.Sequential:
    """A residual network for small images: a 3 x 3 stem, stages of blocks, the mean over the image, a linear layer.

    Args:
        blocks: Blocks of each stage; (2, 2, 2, 2) is ResNet-18. Each stage but the first halves the image and doubles
            the channels.
        width: Channels of the first stage.

    Examples:
        >>> model = residual_network((2, 2, 2, 2), 100, generator=torch.Generator().manual_seed(0))
        >>> sum(parameter.numel() for parameter in model.parameters())
        11220132
    """
    blocks = _sizes("blocks", blocks)
    for name, value in (("outputs", outputs), ("channels", channels), ("width", width)):
        positive_integer(name, value)
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage, count in enumerate(blocks):
        maps = width * 2**stage
        for block in range(count):
            layers.append(ResidualBlock(inputs, maps, stride=2 if stage and not block else 1))
            inputs = maps
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))
    initialize(model, generator=generator)
    return model


def image_network(
    name: str, shape: Sequence[int], classes: int, *, depth: int = 6, seed: int = 0
) -> tuple[nn.Module, Tensor | None]:
    """A network for images by its name, and an example of its input where some layers may never be called.

    Args:
        name: `"mlp"` (`depth` layers of 128 between a first and a last one, with batch normalisation), `"convnet"`
            (three convolutions), `"resnet18-small"` (for small images), or a name in torchvision.models.
        shape: Channels, height and width of an image.

    Examples:
        >>> model, example = image_network("convnet", (1, 28, 28), 10)
        >>> len(model), example
        (14, None)
    """
    instance_of("name", name, str, "the name of a network")
    channels, *sides = shape = _sizes("shape", shape)
    if len(shape) != 3:
        raise ValueError(f"shape must hold channels, height and width; it is {tuple(shape)}")
    positive_integer("classes", classes)
    positive_integer("depth", depth)
    weights = torch.Generator().manual_seed(known_seed("seed", seed))
    if name == "mlp":
        widths = (channels * sides[0] * sides[1], *[128] * (depth + 1), classes)
        return fully_connected(widths, activation="relu", normalize=True, generator=weights), None
    if name == "convnet":
        widths = (channels, 16, 32, 64)
        model = small_convnet(widths, classes, size=sides[0], activation="relu", normalize=True, generator=weights)
        return model, None
    if name == "resnet18-small":
        return residual_network((2, 2, 2, 2), classes, generator=weights), None
    # some take the weights of layers without calling them: an image shows which
    return _from_torchvision(name, shape, classes, seed), torch.zeros(2, *shape)


@torch.random.fork_rng(devices=[])
def _from_torchvision(name: str, shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    own = ", ".join(_OWN_NETWORKS)
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # a build for another torch breaks at its import
        raise ValueError(f"architecture must be {own}, or torchvision be at hand; it is {name!r}: {error}") from error
    if name not in models.list_models():
        raise ValueError(f"architecture must be one of {own} or of torchvision.models; it is {name!r}")
    torch.manual_seed(seed)
    model: nn.Module = models.get_model(name, num_classes=classes)
    if name.startswith("vit_") and shape[1:] != [224, 224]:  # these take images of one size only
        return nn.Sequential(nn.Upsample((224, 224), mode="bilinear"), model)
    return model
