"""Where descent ends when its gradients are pruned: softmax regression, whose loss has one lowest point.

Noise without bias averages out as the learning rate falls; a bias moves the point at which descent comes to rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lib.datasets import clothes
from lib.sparsity.blocks import checked_pattern
from lib.sparsity.sampling import nm_approx_mvue, nm_greedy, nm_mvue, nm_uniform
from lib.validation import known_seed, number_between, one_of, positive_integer, positive_number

__all__ = ["METHODS", "Descent", "Method", "noisy_labels", "pruner", "softmax_descent"]

Method = Literal["dense", "greedy", "mvue", "approx", "uniform"]
METHODS: tuple[Method, ...] = ("dense", "greedy", "mvue", "approx", "uniform")
_CLASSES = 10


def pruner(
    method: Method, n: int, m: int, dim: int, *, generator: torch.Generator | None = None
) -> Callable[[Tensor], Tensor]:
    """A function that prunes N:M along a dimension in one of several ways, or not.

    Examples:
        >>> pruner("greedy", 1, 2, 0, generator=torch.Generator())(torch.tensor([1.0, -3.0]))
        tensor([ 0., -3.])
    """
    one_of("method", method, METHODS)
    checked_pattern(n, m)
    if method == "approx" and (n, m) != (2, 4):
        raise ValueError(f"method approx is for 2:4; n and m are {n} and {m}")
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "dense": lambda x: x,
        "greedy": lambda x: nm_greedy(x, n, m, dim),
        "mvue": lambda x: nm_mvue(x, n, m, dim, generator=generator),
        "approx": lambda x: nm_approx_mvue(x, dim, generator=generator),
        "uniform": lambda x: nm_uniform(x, n, m, dim, generator=generator),
    }
    return ways[method]


def noisy_labels(labels: Tensor, fraction: float, *, classes: int, generator: torch.Generator) -> Tensor:
    """Labels of which a fraction, drawn one by one, is exchanged for a class at random (it can be the right one).

    Examples:
        >>> noisy_labels(torch.tensor([3, 4]), 0.0, classes=10, generator=torch.Generator())
        tensor([3, 4])
    """
    number_between("fraction", fraction, 0, 1)
    drawn = torch.rand(labels.shape, generator=generator) < fraction
    return torch.where(drawn, torch.randint(classes, labels.shape, generator=generator), labels)


@dataclass(frozen=True)
class Descent:
    """A training, after each epoch.

    Attributes:
        loss: Cross entropy of all training images, (epochs + 1,), from the start on.
        accuracy: Of the test images, (epochs + 1,).
        gradient: Norm of the whole gradient, without pruning, at the end.
    """

    loss: np.ndarray[tuple[int], np.dtype[np.float64]]
    accuracy: np.ndarray[tuple[int], np.dtype[np.float64]]
    gradient: float


@lru_cache(maxsize=4)
def _data(split: Literal["train", "test"], count: int | None) -> tuple[Tensor, Tensor]:
    images, labels = clothes(split, count).tensors
    return images.flatten(1) / 3, labels


def softmax_descent(
    method: Method,
    n: int = 2,
    m: int = 4,
    *,
    along: Literal["batch", "classes"] = "batch",
    label_noise: float = 0.0,
    count: int = 4096,
    epochs: int = 60,
    batch_size: int = 512,
    lr: float = 0.1,
    seed: int = 0,
) -> Descent:
    """Train softmax regression on clothes, with the gradient of the logits pruned in every step.

    Args:
        method: How: not at all (`"dense"`), or by `nm_greedy`, `nm_mvue`, `nm_approx_mvue` or `nm_uniform`.
        along: The dimension in which the blocks lie. For the update it is the batch, over which its product sums.
        label_noise: Fraction of the training labels that are drawn at random.
        lr: It falls to zero, linearly.
        seed: Of the labels' noise, the order of images, and the masks.

    Examples:
        >>> run = softmax_descent("mvue", 1, 2, count=512, epochs=2, batch_size=128)
        >>> run.loss.shape, bool(run.loss[-1] < run.loss[0])
        ((3,), True)
    """
    one_of("along", along, ("batch", "classes"))
    steps = positive_integer("count", count) // positive_integer("batch_size", batch_size)
    if steps == 0:
        raise ValueError(f"batch_size must be at most count, {count}; it is {batch_size}")
    dim, size = (0, batch_size) if along == "batch" else (1, _CLASSES)
    if checked_pattern(n, m)[1] and size % m:
        raise ValueError(f"m must divide the {size} entries along the {along}; it is {m}")
    positive_number("lr", lr)
    generator = torch.Generator().manual_seed(known_seed("seed", seed))
    prune = pruner(method, n, m, dim, generator=generator)
    x, labels = _data("train", count)
    labels = noisy_labels(labels, label_noise, classes=_CLASSES, generator=generator)
    test, truth = _data("test", None)
    targets = functional.one_hot(labels, _CLASSES).float()
    weight, bias = torch.zeros(x.shape[1], _CLASSES), torch.zeros(_CLASSES)
    loss, right = [], []

    def look() -> None:
        loss.append(float(functional.cross_entropy(x @ weight + bias, labels)))
        right.append(float(((test @ weight + bias).argmax(1) == truth).double().mean()))

    look()
    total = positive_integer("epochs", epochs) * steps
    for step in range(total):
        if step % steps == 0:
            order = torch.randperm(count, generator=generator)
        batch = order[step % steps * batch_size :][:batch_size]
        inputs = x[batch]
        delta = prune(((inputs @ weight + bias).softmax(1) - targets[batch]) / batch_size)
        rate = lr * (1 - step / total)
        weight -= rate * (inputs.T @ delta)
        bias -= rate * delta.sum(0)
        if (step + 1) % steps == 0:
            look()
    delta = ((x @ weight + bias).softmax(1) - targets) / count
    gradient = torch.cat([(x.T @ delta).flatten(), delta.sum(0)]).norm()
    return Descent(np.array(loss), np.array(right), float(gradient))
