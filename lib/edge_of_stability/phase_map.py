"""Where gradient descent ends over a whole plane of starts, in torch: the same code on a processor and on a GPU.

Two weights fit one number, so a start is a point of the plane. A million starts are run as one array;
nothing is kept but the present weights and what has happened so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from lib.validation import finite_array, integer_at_least, known_device, positive_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["OUTCOMES", "phase_map"]

#: What can come of a start, in the order of the numbers in a map.
OUTCOMES = ("converged", "two-cycle", "left the orthant", "diverged", "still moving")

_SETTLED = 1e-3
# Starts that are worked on together: as many as stay in the cache of one core, or of a GPU.
_PART = {"cpu": 1 << 14, "cuda": 1 << 20}


def phase_map(
    w1: ArrayLike, w2: ArrayLike, eta: float, *, target: float = 1.0, n_steps: int = 200, device: str = "cpu"
) -> NDArray[np.uint8]:
    """The outcome of gradient descent on `(w1 w2 - target)^2 / 2` from every start, as a place in `OUTCOMES`.

    Args:
        w1, w2: Starting weights, arrays of one shape (...), none of them zero.
        n_steps: At least 2.

    Returns:
        ndarray of shape (...): 0: the product ended within a thousandth of the target. 1: it jumps between two values.
            2: a weight changed its sign on the way, and none left all bounds. 3: a weight left all bounds. 4: none of
            these within `n_steps`.

    Examples:
        >>> phase_map([1.2, 3.0, 3.0], [0.9, 0.5, 3.0], eta=0.4)
        array([0, 2, 3], dtype=uint8)
    """
    first, second = finite_array("w1", w1), finite_array("w2", w2)
    if first.shape != second.shape:
        raise ValueError(f"w1 and w2 must have one shape; theirs are {first.shape} and {second.shape}")
    if np.any(first == 0) or np.any(second == 0):
        raise ValueError("w1 and w2 must not hold zeros")
    positive_number("eta", eta)
    if finite_array("target", target, shape=()) == 0:
        raise ValueError(f"target must be finite and not zero; it is {target}")
    integer_at_least("n_steps", n_steps, 2)
    place = torch.device(known_device(device))
    a, b = (torch.from_numpy(np.ascontiguousarray(part).reshape(-1)) for part in (first, second))
    part = _PART.get(place.type, _PART["cuda"])
    pieces = [
        _outcomes(x.to(place), y.to(place), eta, target, n_steps).cpu()
        for x, y in zip(torch.split(a, part), torch.split(b, part), strict=True)
    ]
    return torch.cat(pieces).numpy().reshape(first.shape) if pieces else np.empty(first.shape, dtype=np.uint8)


def _outcomes(a: torch.Tensor, b: torch.Tensor, eta: float, target: float, n_steps: int) -> torch.Tensor:
    a, b = a.abs(), b * a.sign()  # both networks are the same, and the first weight starts positive
    side = b.sign()
    b, target_here = b * side, target * side
    lowest = torch.minimum(a, b)
    before = product = a * b
    pull, next_a = torch.empty_like(a), torch.empty_like(a)
    for _ in range(n_steps):
        before, product = product, a * b
        torch.sub(product, target_here, out=pull).mul_(eta)
        torch.addcmul(a, pull, b, value=-1, out=next_a)
        b.addcmul_(pull, a, value=-1)
        a, next_a = next_a, a
        torch.minimum(lowest, torch.minimum(a, b), out=lowest)
    last = a * b
    outcome = torch.full(a.shape, OUTCOMES.index("still moving"), dtype=torch.uint8, device=a.device)
    # relative to the jump: an oscillation that slowly dies out is no cycle
    outcome[(last - before).abs() < _SETTLED * (last - product).abs()] = OUTCOMES.index("two-cycle")
    outcome[((last - target_here).abs() < _SETTLED) & ((product - target_here).abs() < _SETTLED)] = 0
    outcome[lowest <= 0] = OUTCOMES.index("left the orthant")
    # what left all bounds is inf or NaN by now
    outcome[~(torch.maximum(a.abs(), b.abs()) < 1e6)] = OUTCOMES.index("diverged")
    return outcome
