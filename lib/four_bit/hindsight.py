"""The largest magnitude of a tensor, guessed from the steps before (Section 7, Eq. 18 of arXiv 2112.10769).

With a guess, a quantiser can work while the tensor is being made: one pass over memory instead of two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lib.experiment import below_one
from lib.four_bit.logarithmic import largest_magnitude, real_tensor
from lib.validation import finite_array, finite_tensor, instance_of, integer_at_least

__all__ = ["HindsightMax"]


class HindsightMax:
    """A running mean of the largest magnitudes of earlier steps.

    Args:
        momentum: Weight of the past, at least 0 and below 1.

    Examples:
        >>> estimate = HindsightMax(momentum=0.5)
        >>> [float(estimate.update(torch.tensor([value]))) for value in (4.0, 8.0, 0.0)]
        [4.0, 4.0, 6.0]
        >>> estimate.clipped_fraction
        0.3333333333333333
    """

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = below_one("momentum", momentum)
        self._estimate: Tensor | None = None
        self._clipped: Tensor | int = 0
        self._seen = 0

    def update(self, x: Tensor, *, largest: Tensor | None = None, check: bool = True) -> Tensor:
        """The estimate for this tensor, made from the past (the first time: its exact maximum); 0-d float32.

        Args:
            x: Floating-point tensor.
            largest: Its largest magnitude, where that is known, or is one over several processes.
            check: Refuse NaN and infinities. Off, they leave the estimate as it was, and what is returned is NaN.
        """
        values = real_tensor("x", x, check=check)
        if largest is None:
            largest = largest_magnitude(values)
        elif check:
            finite_tensor("largest", largest, ndim=0)
        known = largest if self._estimate is None else self._estimate.to(values.device)
        # an estimate of 0, from a gradient of zeros, says nothing
        estimate = torch.where(torch.isfinite(known) & (known > 0), known, largest)
        self._clipped = self._clipped + (values.abs() > estimate).sum()
        self._seen += values.numel()
        following = (1 - self.momentum) * largest + self.momentum * estimate
        self._estimate = torch.where(torch.isfinite(following), following, estimate)
        return estimate + 0 * largest

    @property
    def clipped_fraction(self) -> float:
        """Fraction of all entries so far that lay above the estimate for them."""
        return int(self._clipped) / self._seen if self._seen else 0.0

    def state_dict(self) -> dict[str, Tensor | int | None]:
        """The estimate and the counts."""
        estimate = None if self._estimate is None else self._estimate.cpu().clone()
        return {"estimate": estimate, "clipped": int(self._clipped), "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        missing = {"estimate", "clipped", "seen"} - set(instance_of("state", state, dict, "a state_dict"))
        if missing:
            raise ValueError(f"state must hold estimate, clipped and seen; it lacks {', '.join(sorted(missing))}")
        seen = integer_at_least("seen", state["seen"], 0)
        clipped = integer_at_least("clipped", state["clipped"], 0)
        if clipped > seen:
            raise ValueError(f"clipped must be at most seen = {seen}; it is {clipped}")
        estimate = state["estimate"]
        if estimate is not None:
            estimate = torch.tensor(finite_array("estimate", estimate, ndim=0), dtype=torch.float32)
            if estimate < 0:
                raise ValueError(f"estimate must be at least 0; it is {float(estimate)}")
        self._estimate, self._clipped, self._seen = estimate, clipped, seen

    def __repr__(self) -> str:
        value = "unset" if self._estimate is None else f"{float(self._estimate):.4g}"
        return f"HindsightMax(momentum={self.momentum}, estimate={value}, clipped={self.clipped_fraction:.2%})"
