"""Networks that turn a fine elevation map into a coarse one, to be trained through the solver.

All of them correct the mean of each block (the paper's "detour": Giladi et al., NeurIPS 2021, arXiv 2106.07218,
Section 3): `z^ = mean pooling of z + correction(z - mean of z)`. They look at the map without its mean level, so that
a map that lies higher gives a coarse map that lies higher by as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lib.flood.pooling import blocks, elevation_tensor
from lib.flood.terrain import FEATURES, block_features
from lib.models import ResidualBlock, initialize
from lib.validation import finite_number, one_of, positive_integer, torch_generator, true_or_false

__all__ = ["Detour", "Downsampler", "FeatureDownsampler", "Norm", "PaperDownsampler", "ReliefScale"]

Norm = Literal["batch", "group"]

#: Metres of elevation that a network's input counts as one.
_UNIT = 4.0
#: Channels that a group of the group normalisation holds.
_GROUP = 16


class Detour(nn.Module):
    """Mean pooling by a factor, plus a correction that a subclass defines."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = positive_integer("factor", factor)

    def correction(self, z: Tensor) -> Tensor:
        """What to add to the block means (B, 1, H / factor, W / factor) [m], from the map without its mean level."""
        raise NotImplementedError

    def forward(self, z: Tensor) -> Tensor:
        """Coarse maps (B, 1, H / factor, W / factor) [m] of fine ones (B, 1, H, W) [m]."""
        elevation_tensor("z", z)
        if z.ndim != 4 or z.shape[1] != 1:
            raise ValueError(f"z must have the shape (B, 1, H, W); it has {tuple(z.shape)}")
        pooled = blocks(z, self.factor).mean((-2, -1))
        return pooled + self.correction(z - z.mean((-2, -1), keepdim=True))


class ReliefScale(Detour):
    """Mean pooling, its relief multiplied by one number: the least that a learnt map should beat.

    `relief` is the number, a parameter to be trained: 1 is mean pooling, 0 a level map.

    Examples:
        >>> z = torch.tensor([[0.0, 2.0], [4.0, 6.0]]).reshape(1, 1, 2, 2)
        >>> ReliefScale(1, 0.5)(z).flatten().tolist()
        [1.5, 2.5, 3.5, 4.5]
    """

    def __init__(self, factor: int = 16, relief: float = 1.0) -> None:
        super().__init__(factor)
        self.relief = nn.Parameter(torch.tensor(finite_number("relief", relief)))

    def correction(self, z: Tensor) -> Tensor:
        """The relief that the block means lack, or have too much."""
        scaled: Tensor = blocks(z, self.factor).mean((-2, -1)) * (self.relief - 1)
        return scaled


class _Residual(nn.Module):
    """`x + conv(relu(conv(relu(x))))`, without normalisation.

    No ReLU lies behind the sum: a network that ends in one can fall silent as a whole in training, and stay so.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate") for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.second(functional.relu(self.first(functional.relu(x))))
        return x + added


class Downsampler(Detour):
    """A small network: a strided convolution and a residual block for each halving, then two more blocks.

    It sees the elevations, and how far each cell stands out of its block. Its last layer starts at zero: a fresh
    network is mean pooling, bit for bit.

    Args:
        factor: A power of two above 1.
        width: Channels after each halving, one number for each; by default 8, 16, 32, 64 as far as the factor goes.

    Examples:
        >>> z = torch.rand(2, 1, 64, 32)
        >>> network = Downsampler(16)
        >>> bool((network(z) == blocks(z, 16).mean((-2, -1))).all()), network(z).shape
        (True, torch.Size([2, 1, 4, 2]))
    """

    def __init__(
        self, factor: int = 16, width: tuple[int, ...] | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(factor)
        halvings = self.factor.bit_length() - 1
        if self.factor != 2**halvings or halvings == 0:
            raise ValueError(f"factor must be a power of two above 1; it is {factor}")
        given = [8 * 2**i for i in range(halvings)] if width is None else width
        if not isinstance(given, (tuple, list)) or len(given) != halvings:
            raise ValueError(f"width must name {halvings} numbers of channels for the factor {factor}; it is {width}")
        widths = [positive_integer("width", channels) for channels in given]
        layers: list[nn.Module] = []
        with _weights_from(generator, self):
            for before, after in zip((2, *widths), widths, strict=False):
                down = nn.Conv2d(before, after, 3, stride=2, padding=1, padding_mode="replicate")
                layers += [down, _Residual(after)]
            layers += [_Residual(widths[-1]), _Residual(widths[-1]), nn.Conv2d(widths[-1], 1, 1)]
            self.layers = nn.Sequential(*layers)
        _silence(self.layers[-1])

    def correction(self, z: Tensor) -> Tensor:
        """Metres to add to the block means, from the elevations and from how far cells stand out of their block."""
        pooled = blocks(z, self.factor).mean((-2, -1))
        above = z - functional.interpolate(pooled, scale_factor=float(self.factor), mode="nearest")
        correction: Tensor = self.layers(_of_its_dtype(self, torch.cat([z / _UNIT, above], dim=1)))
        return correction

    @staticmethod
    def paper(
        norm: Norm = "batch", *, checkpointed: bool = False, generator: torch.Generator | None = None
    ) -> PaperDownsampler:
        """The network of the paper; see `PaperDownsampler`."""
        return PaperDownsampler(norm, checkpointed=checkpointed, generator=generator)


class PaperDownsampler(Detour):
    """The paper's network, a ResNet-18 with one elevation for each block of 16 x 16 cells as its output.

    A convolution of stride 2 and a maximum pooling, four stages of two basic blocks with strides 1, 2, 2, 1, and a
    1 x 1 convolution. Its convolutions go on beyond the map's sides with the outermost cells. It does not start as
    mean pooling, and batch normalisation makes maps of a batch depend on each other while it trains.

    Args:
        norm: `"batch"`, or `"group"`: groups of 16 channels.
        checkpointed: Compute the blocks anew in the backward pass instead of keeping what is inside them.

    Examples:
        >>> PaperDownsampler("group")(torch.rand(1, 1, 64, 64)).shape
        torch.Size([1, 1, 4, 4])
    """

    def __init__(
        self, norm: Norm = "batch", *, checkpointed: bool = False, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(16)
        one_of("norm", norm, get_args(Norm))
        self.checkpointed = true_or_false("checkpointed", checkpointed)
        widths, strides = (64, 64, 128, 256, 512), (1, 2, 2, 1)
        make_norm = nn.BatchNorm2d if norm == "batch" else _group_norm
        with _weights_from(generator, self):
            first = nn.Conv2d(1, 64, 3, stride=2, padding=1, padding_mode="replicate", bias=False)
            self.stem = nn.Sequential(first, make_norm(64), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
            block = partial(ResidualBlock, padding_mode="replicate", norm=make_norm)
            self.stages = nn.ModuleList()
            for (before, after), stride in zip(pairwise(widths), strides, strict=True):
                self.stages += [block(before, after, stride=stride), block(after, after)]
            self.head = nn.Conv2d(widths[-1], 1, 1, bias=False)

    def correction(self, z: Tensor) -> Tensor:
        """Metres to add to the block means, from the elevations."""
        x: Tensor = self.stem(_of_its_dtype(self, z))
        for block in self.stages:
            if self.checkpointed and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, context_fn=partial(_first_and_again, block))
            else:
                x = block(x)
        head: Tensor = self.head(x)
        return head


def _first_and_again(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Where a block runs in the forward pass, and where it is computed anew."""
    return nullcontext(), _statistics_as_they_are(block)


@contextmanager
def _statistics_as_they_are(block: nn.Module) -> Iterator[None]:
    """Batch normalisation has noted a batch in the forward pass; a second note would count it twice."""
    momenta = {norm: norm.momentum for norm in block.modules() if isinstance(norm, nn.BatchNorm2d)}
    for norm in momenta:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // _GROUP, width)


class FeatureDownsampler(Detour):
    """A cheap network that can be understood: it sees nine numbers of each block (`block_features`), nothing else.

    Three 3 x 3 convolutions on the coarse grid, and a 1 x 1 layer that starts at zero: mean pooling, bit for bit.

    Examples:
        >>> z = torch.rand(2, 1, 24, 36)
        >>> FeatureDownsampler(12)(z).shape
        torch.Size([2, 1, 2, 3])
    """

    def __init__(self, factor: int = 16, width: int = 32, *, generator: torch.Generator | None = None) -> None:
        super().__init__(factor)
        channels = (len(FEATURES), *[positive_integer("width", width)] * 3)
        layers: list[nn.Module] = []
        with _weights_from(generator, self):
            for before, after in pairwise(channels):
                layers += [nn.Conv2d(before, after, 3, padding=1, padding_mode="replicate"), nn.ReLU()]
            self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 1))
        _silence(self.layers[-1])

    def correction(self, z: Tensor) -> Tensor:
        """Metres to add to the block means, from the numbers of each block, most of them relative to its mean."""
        features = block_features(z[:, 0], self.factor)
        mean, std = features[:, -1:], FEATURES.index("std")
        above = features - mean  # of elevations; the spread is none, and the mean itself is above the map's
        inputs = torch.cat([above[:, :std], above[:, std + 1 : -1], features[:, std : std + 1], mean], dim=1)
        correction: Tensor = self.layers(_of_its_dtype(self, inputs))
        return correction


def _of_its_dtype(network: nn.Module, z: Tensor) -> Tensor:
    dtype = next(network.parameters()).dtype
    if z.dtype != dtype:
        raise ValueError(f"z must have the dtype {dtype} of the network's weights; it has {z.dtype}")
    return z


@contextmanager
def _weights_from(generator: torch.Generator | None, network: nn.Module) -> Iterator[None]:
    """Where layers are made: they draw from torch's global state, which a given generator leaves alone."""
    given = torch_generator("generator", generator)
    with torch.random.fork_rng(devices=[], enabled=given is not None):
        yield
    if given is not None:
        initialize(network, generator=given)


def _silence(layer: nn.Module) -> None:
    for part in layer.parameters():
        nn.init.zeros_(part)
