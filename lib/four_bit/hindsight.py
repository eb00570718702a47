"""The largest magnitude of a tensor, guessed from the steps before (Section 7, Eq. 18 of arXiv 2112.10769).

With a guess, a quantiser can work while the tensor is being made: one pass over memory instead of two.
"""

from __future__ import annotations

from torch import Tensor

from lib.four_bit.logarithmic import largest_magnitude, real_tensor

__all__ = ["HindsightMax"]


class HindsightMax:
    """A running mean of the largest magnitudes of earlier steps.

    Parameters
    ----------
    momentum
        Weight of the past, at least 0 and below 1.

    Attributes
    ----------
    clipped_fraction
        Part of all entries so far that lay above the estimate for them.

    Examples
    --------
    >>> import torch
    >>> estimate = HindsightMax(momentum=0.5)
    >>> [float(estimate.update(torch.tensor([value]))) for value in (4.0, 8.0, 0.0)]
    [4.0, 4.0, 6.0]
    >>> estimate.clipped_fraction
    0.3333333333333333
    """

    def __init__(self, momentum: float = 0.9) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1; it is {momentum}")
        self.momentum = momentum
        self._estimate: Tensor | None = None
        self._clipped = 0
        self._seen = 0

    def update(self, x: Tensor) -> Tensor:
        """The estimate for this tensor, made from the past (the first time: its exact maximum); 0-d float32."""
        values = real_tensor("x", x)
        largest = largest_magnitude(values)
        estimate = largest if self._estimate is None else self._estimate.to(values.device)
        self._clipped += int((values.abs() > estimate).sum())
        self._seen += values.numel()
        self._estimate = (1 - self.momentum) * largest + self.momentum * estimate
        return estimate

    @property
    def clipped_fraction(self) -> float:
        """Part of all entries so far that lay above the estimate for them."""
        return self._clipped / self._seen if self._seen else 0.0

    def __repr__(self) -> str:
        value = "unset" if self._estimate is None else f"{float(self._estimate):.4g}"
        return f"HindsightMax(momentum={self.momentum}, estimate={value}, clipped={self.clipped_fraction:.2%})"
