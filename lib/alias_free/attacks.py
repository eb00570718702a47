"""Sets of shifts that an adversary may choose from: the worst of them counts.

The three sets on the torus are those of Michaeli et al. (CVPR 2023, arXiv 2303.08085); shifts with a zero component are
in ours. The random set is derived here: a grid of fractions can hide what a network does between its points.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from lib.alias_free.robustness import Kind
from lib.datasets import FASHION_MEAN, FASHION_SPREAD
from lib.validation import finite_number, known_seed, positive_integer, positive_number

__all__ = ["Attack", "any_shifts", "fraction_shifts", "half_shifts", "standard_attacks", "whole_shifts"]

Shift = tuple[float, float]

#: What lies around clothes, in pictures of mean 0 and spread 1.
BACKGROUND = -FASHION_MEAN / FASHION_SPREAD


def whole_shifts(reach: int) -> list[Shift]:
    """All shifts by whole pixels, up to `reach` in every direction, the shift by nothing included.

    Examples:
        >>> len(whole_shifts(3))
        49
    """
    return fraction_shifts(reach, 1)


def fraction_shifts(reach: int, parts: int) -> list[Shift]:
    """All shifts by multiples of `1 / parts` of a pixel, up to `reach` pixels in every direction.

    Examples:
        >>> fraction_shifts(1, 2)[:3]
        [(-1.0, -1.0), (-1.0, -0.5), (-1.0, 0.0)]
    """
    steps = positive_integer("reach", reach) * positive_integer("parts", parts)
    return [(i / parts, j / parts) for i, j in product(range(-steps, steps + 1), repeat=2)]


def half_shifts(reach: int) -> list[Shift]:
    """All shifts by half pixels in both directions, without whole ones, up to `reach` pixels.

    Examples:
        >>> half_shifts(1)
        [(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]
    """
    positive_integer("reach", reach)
    return [(i + 0.5, j + 0.5) for i, j in product(range(-reach, reach), repeat=2)]


def any_shifts(reach: float, count: int = 32, *, seed: int = 0) -> list[Shift]:
    """Shifts by any real number, drawn uniformly from a square of `reach` pixels in every direction.

    Examples:
        >>> all(abs(part) <= 3 for shift in any_shifts(3) for part in shift)
        True
    """
    positive_number("reach", reach)
    drawn = np.random.default_rng(known_seed("seed", seed)).uniform(
        -reach, reach, (positive_integer("count", count), 2)
    )
    return [(float(down), float(right)) for down, right in drawn]


class Attack(NamedTuple):
    """Shifts to choose from, and what `translate` fills in where content leaves the picture."""

    kind: Kind
    shifts: list[Shift]
    fill: float = 0.0


def standard_attacks(reach: int = 3, *, fill: float = BACKGROUND) -> dict[str, Attack]:
    """The five attacks that the chapter's tables are made of, by name: three on the torus, two with a background.

    Examples:
        >>> {name: len(attack.shifts) for name, attack in standard_attacks().items()}
        {'whole pixels': 49, 'half pixels': 36, 'any shift': 32, 'background, whole': 49, 'background, any': 32}
    """
    finite_number("fill", fill)
    whole, any_ = whole_shifts(reach), any_shifts(reach)
    return {
        "whole pixels": Attack("circular", whole),
        "half pixels": Attack("circular", half_shifts(reach)),
        "any shift": Attack("circular", any_),
        "background, whole": Attack("zero", whole, fill),
        "background, any": Attack("bilinear", any_, fill),
    }
