"""What two sets of features say about forgetting before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lib.forgetting.tasks import Array, checked_rows, space_of
from lib.forgetting.two_tasks import principal_angles, two_task_distance, two_task_forgetting
from lib.validation import positive_integer

__all__ = ["Forecast", "forgetting_forecast"]

# Below this fraction of the squared norm of the solution one would not see what is forgotten.
_LITTLE = 0.01
# Angles, in radians, that rounding may leave between equal directions.
_SAME = 1e-7


@dataclass(frozen=True)
class Forecast:
    """Forgetting of two tasks learnt alternately, as far as their features decide it; printed as a table.

    Losses are for features of spectral norm 1 and relative to the squared norm of the common solution.

    Attributes:
        angles: Principal angles between the row spaces, in degrees, ascending.
        steps: Numbers of tasks learnt, the two alternately.
        worst: Forgetting after so many, for the solution that loses most.
        mean: The same, on average over directions of the solution that the tasks see.
        distance: Squared distance from the joint solution that may be left.
    """

    angles: Array
    steps: Array
    worst: Array
    mean: Array
    distance: Array

    @property
    def advice(self) -> str:
        """What to do."""
        if self.worst.max() < _LITTLE:
            kept = "Little is lost: learn one task after the other."
        elif self.worst[-1] < _LITTLE:
            enough = int(self.steps[np.flatnonzero(self.worst >= _LITTLE)[-1] + 1])
            kept = f"Repetition reduces it: {enough} tasks learnt alternately forget less than {_LITTLE:.0%}."
        else:
            kept = "Repetition is not enough here: mix examples of both tasks."
        if self.distance[-1] > 10 * _LITTLE:
            kept += " The weights may stay far from those of joint training; where they matter, train jointly."
        return kept

    def __str__(self) -> str:
        """The table and the advice."""
        low, middle, high = np.quantile(self.angles, [0, 0.5, 1]) if self.angles.size else (90.0, 90.0, 90.0)
        lines = [
            f"{self.angles.size} principal angles, from {low:.2g} to {high:.2g} degrees, median {middle:.2g}",
            "tasks learnt    worst forgetting    mean forgetting    distance² left",
        ]
        table = zip(self.steps, self.worst, self.mean, self.distance, strict=True)
        lines += [f"{k:12d}    {worst:16.2e}    {mean:15.2e}    {left:14.3f}" for k, worst, mean, left in table]
        return "\n".join([*lines, self.advice])


def forgetting_forecast(
    features_a: ArrayLike, features_b: ArrayLike, *, steps: Sequence[int] = (2, 4, 10, 100), rtol: float | None = None
) -> Forecast:
    """How much two tasks with these features make one another forget, at worst and on average.

    For linear models that start at zero and are trained to the end on each task, with more features than examples, and
    features of spectral norm 1. The worst case is reached where all singular values are 1. A guide for the last layer
    of a network on frozen features. Of more than two tasks ask `worst_case_forgetting`: each pair may look harmless.

    Args:
        features_a, features_b: (n_a, d) and (n_b, d), a row an example.
        steps: Numbers of tasks learnt, the two alternately; 2 is one pass.
        rtol: Singular values that count, as in `row_space`.

    Examples:
        >>> forecast = forgetting_forecast([[1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0]], steps=(2, 4))
        >>> forecast.angles.round(1), forecast.worst.round(4)
        (array([45.]), array([0.125 , 0.0312]))
    """
    first = space_of(checked_rows("features_a", features_a), rtol)
    second = space_of(checked_rows("features_b", features_b), rtol)
    if len(first) != len(second):
        raise ValueError(f"features_b must have the {len(first)} features of features_a; it has {len(second)}")
    if not isinstance(steps, (list, tuple, range, np.ndarray)) or not len(steps):
        raise ValueError(f"steps must be a list of at least one number of tasks; it is {steps!r}")
    counts = np.array(sorted(positive_integer("steps", k) for k in steps))
    angles = principal_angles(first, second)
    seen = first.shape[1] + second.shape[1] - int((angles <= _SAME).sum())
    each = np.stack([two_task_forgetting(angles, int(k)) for k in counts])
    # at an angle of 0 both tasks ask the same, and nothing is left after the first
    left = np.stack([two_task_distance(angles[angles > _SAME], int(k)) for k in counts])
    return Forecast(
        np.degrees(angles),
        counts,
        each.max(axis=1, initial=0.0),
        each.sum(axis=1) / max(seen, 1),
        left.max(axis=1, initial=0.0),
    )
