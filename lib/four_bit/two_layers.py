"""Where to round by chance: a network of two layers small enough to average over hundreds of its passes.

Its forward pass quantises weights and activations to INT4, its backward pass the gradients to powers of two; each is
rounded to nearest or by chance. The errors that come of it are split into bias and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

import torch
from torch import Tensor

from lib.four_bit.comparison import ROUNDINGS
from lib.four_bit.integers import int4_decode, int4_encode
from lib.four_bit.logarithmic import Rounding, luq
from lib.validation import integer_at_least, known_seed, one_of, positive_number

__all__ = ["ErrorSplit", "TwoLayerErrors", "two_layer_errors"]

_BATCH, _WIDTH = 64, 16
_Forward = Literal["nearest", "stochastic"]


@dataclass(frozen=True)
class ErrorSplit:
    """Bias, and standard deviation of one pass, relative to the norm of what they are errors of."""

    bias: float
    noise: float

    def after(self, passes: float) -> float:
        """The error of the mean of so many passes: noise averages out, bias stays."""
        return float((self.bias**2 + self.noise**2 / positive_number("passes", passes)) ** 0.5)


@dataclass(frozen=True)
class TwoLayerErrors:
    """Errors of the network's outputs and of its first layer's gradient.

    Attributes:
        outputs: Against the network without quantisation.
        gradient: Against the gradient of the same forward pass, with the derivative of rounding taken for 1.
        whole_gradient: Against the gradient of the network without quantisation.
    """

    outputs: ErrorSplit
    gradient: ErrorSplit
    whole_gradient: ErrorSplit


def _int4(values: Tensor, rounding: _Forward, generator: torch.Generator) -> Tensor:
    """Each tensor of the first axis on a grid of its own."""
    clip = values.abs().amax(dim=(1, 2), keepdim=True)
    codes, scale = int4_encode(values, clip=clip, rounding=rounding, generator=generator)
    return int4_decode(codes, scale)


def _logarithmic(grad: Tensor, rounding: Rounding, generator: torch.Generator) -> Tensor:
    largest = grad.abs().amax(dim=(1, 2), keepdim=True)
    return luq(grad, rounding, max_abs=largest, generator=generator)


def _split(errors: Tensor, size: float) -> ErrorSplit:
    """Bias and noise of many errors; the bias is corrected for the noise that is left in their mean."""
    passes = len(errors)
    variance = float(errors.double().var(dim=0, correction=1).sum())
    squared_bias = float(errors.double().mean(dim=0).square().sum()) - variance / passes
    return ErrorSplit(max(squared_bias, 0.0) ** 0.5 / size, variance**0.5 / size)


def two_layer_errors(
    forward: str, backward: str, fmt: str | int = "fp4", *, passes: int = 256, seed: int = 0
) -> TwoLayerErrors:
    """What rounding does to a network of two layers, by averages over many passes.

    Args:
        forward: How weights and activations are rounded to INT4: `"nearest"` or `"stochastic"`.
        backward: How gradients are rounded: a name in `ROUNDINGS`, such as `"LUQ"` or `"naive"`.
        passes: At least 2.

    Examples:
        >>> luq, naive = (two_layer_errors("nearest", way).gradient for way in ("LUQ", "naive"))
        >>> luq.bias < 0.05 < 0.2 < naive.bias
        True
    """
    one_of("forward", forward, ("nearest", "stochastic"))
    rounding = Rounding(fmt, **ROUNDINGS[one_of("backward", backward, ROUNDINGS)])
    passes, seed = integer_at_least("passes", passes, 2), known_seed("seed", seed)
    return _errors(cast("_Forward", forward), rounding, passes, seed)


@lru_cache(maxsize=64)
def _errors(forward: _Forward, backward: Rounding, passes: int, seed: int) -> TwoLayerErrors:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, _BATCH, _WIDTH, generator=generator)
    first = torch.randn(1, _WIDTH, _WIDTH, generator=generator) / _WIDTH**0.5
    second = torch.randn(1, _WIDTH, 4, generator=generator) / _WIDTH**0.5
    outputs = (x @ first).relu() @ second
    # heavy-tailed residuals, as of a classifier that is sure of most examples
    target = outputs + torch.randn(1, _BATCH, 4, generator=generator) ** 3 / 4
    exact = _gradient(x, x @ first, second, outputs - target)

    many = (each.expand(passes, *each.shape[1:]).contiguous() for each in (x, first, second))
    given, w, v = (_int4(each, forward, generator) for each in many)
    before = given @ w
    found = _int4(before.relu(), forward, generator) @ v
    same_pass = _gradient(given, before, v, found - target)
    outer = _logarithmic((found - target) / _BATCH, backward, generator)
    inner = _logarithmic((outer @ v.transpose(1, 2)) * (before > 0), backward, generator)
    gradient = given.transpose(1, 2) @ inner
    size = float(exact.norm())
    return TwoLayerErrors(
        _split(found - outputs, float(outputs.norm())),
        _split(gradient - same_pass, size),
        _split(gradient - exact, size),
    )


def _gradient(x: Tensor, before: Tensor, second: Tensor, residual: Tensor) -> Tensor:
    """Of half the mean squared error with respect to the first layer's weights."""
    inner = (residual / _BATCH @ second.transpose(1, 2)) * (before > 0)
    return x.transpose(1, 2) @ inner
