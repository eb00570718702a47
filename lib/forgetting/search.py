"""A search for the tasks that make one another forget most in a cycle; many starts at once, on any device.

The plane is not the worst case: null spaces of two dimensions in R^4 do better. What is found is found, and proves
nothing about what is not.
"""

import math
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.validation import integer_at_least, known_device, known_seed, positive_integer, positive_number

__all__ = ["search_cyclic"]


def _forgetting(free: Tensor, rounds: int) -> Tensor:
    """Worst forgetting (B,) after so many rounds of the tasks with null spaces spanned by (B, T, d, nu)."""
    nulls = torch.linalg.qr(free).Q
    turns = nulls.roll(-1, 1).mT @ nulls  # from each task to the next, the last to the first
    along = reduce(lambda product, turn: turn @ product, turns[:, :-1].unbind(1))
    lap = turns[:, -1] @ along  # from the first task back to it
    moved = along @ torch.linalg.matrix_power(lap, rounds - 1)
    last = nulls[:, -1]
    back = last.mT[:, None] @ nulls
    seen = torch.eye(last.shape[-1], dtype=free.dtype, device=free.device) - (back @ back.mT).mean(1)
    values: Tensor = torch.linalg.eigvalsh(moved.mT @ seen @ moved)
    return values[:, -1]


def search_cyclic(
    T: int,
    k: int,
    *,
    d: int = 4,
    nullity: int = 2,
    starts: int = 64,
    steps: int = 500,
    lr: float = 0.02,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[float, list[NDArray[np.float64]]]:
    """Look for row spaces of which a cycle of k steps forgets most, by gradient ascent from many starts.

    Args:
        k: Steps, a multiple of the number `T` of tasks; they cost their logarithm.
        nullity: Dimension of what a task leaves undetermined.
        starts: Started fans: small turns that go there and back, in random planes.
        steps, lr: Of Adam.

    Returns:
        value, bases: The largest forgetting found, and the bases (d, d - nullity) of the row spaces that have it; both
        can be handed to `worst_case_forgetting`.

    Examples:
        >>> value, bases = search_cyclic(3, 36, starts=8, steps=200)
        >>> value > 0.0104  # the best in the plane
        True
    """
    tasks, length = integer_at_least("T", T, 2), positive_integer("k", k)
    if length % tasks:
        raise ValueError(f"k must be a multiple of T = {tasks}; it is {length}")
    dimension, free = integer_at_least("d", d, 2), positive_integer("nullity", nullity)
    if free >= dimension:
        raise ValueError(f"nullity must be below d = {dimension}; it is {free}")
    count, moves, rate = positive_integer("starts", starts), positive_integer("steps", steps), positive_number("lr", lr)
    generator = torch.Generator().manual_seed(known_seed("seed", seed))
    random: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    place = known_device(device)
    with torch.enable_grad():
        middle, turn = torch.randn((2, count, 1, dimension, free), **random)
        phase = math.pi * torch.arange(1, tasks + 1, dtype=torch.float64) / tasks
        size = tasks / math.sqrt(length) * torch.rand((count, 1, 1, 1), **random)
        noise = 0.1 * size * torch.randn((count, tasks, dimension, free), **random)
        spans = (middle + size * torch.sin(phase)[None, :, None, None] * turn + noise).to(place).requires_grad_()
        optimizer = torch.optim.Adam([spans], lr=rate)
        for _ in range(moves):
            loss = -_forgetting(spans, length // tasks).clamp_min(1e-300).log().sum()
            (spans.grad,) = torch.autograd.grad(loss, spans)
            optimizer.step()
    with torch.no_grad():
        values = _forgetting(spans, length // tasks)
        best = int(values.argmax())
        whole = torch.linalg.qr(spans[best], mode="complete").Q
    return float(values[best]), list(whole[:, :, free:].cpu().numpy())
