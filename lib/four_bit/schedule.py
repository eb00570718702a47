"""The learning rate of the fine-tuning at high precision (FNT, Section 5.2, Eq. 17 of arXiv 2112.10769)."""

from __future__ import annotations

from lib.validation import number_between, positive_integer, positive_number

__all__ = ["fnt_lr"]


def fnt_lr(t: float, T: int, lr_final: float, lr_base: float) -> float:
    """Triangular: from the last rate of the 4-bit phase up to the base rate over half of the steps, then down to 0.

    Args:
        t, T: The step, 0 to T, and the number of steps.
        lr_final: Learning rate at the end of the 4-bit phase.
        lr_base: The peak.

    Notes:
        Eq. 17 as printed lacks the factor t in its rising branch, and starts the falling one at `lr_final`; this is the
        reading that is continuous.

    Examples:
        >>> [round(fnt_lr(t, 4, 0.1, 0.5), 3) for t in range(5)]
        [0.1, 0.3, 0.5, 0.25, 0.0]
    """
    half = positive_integer("T", T) / 2
    lr_final, lr_base = positive_number("lr_final", lr_final), positive_number("lr_base", lr_base)
    t = number_between("t", t, 0, T)
    if t <= half:
        return lr_final + (lr_base - lr_final) * t / half
    return lr_base * (T - t) / half
