"""Two tasks learnt alternately: the closed form, and the angle at which most is forgotten."""

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from lib.forgetting.tasks import Array, orthonormal_basis
from lib.validation import finite_array, positive_integer

__all__ = ["principal_angles", "two_task_distance", "two_task_forgetting", "two_task_worst_case"]


def principal_angles(basis_a: ArrayLike, basis_b: ArrayLike) -> Array:
    """Principal angles (min(r_a, r_b),) between two subspaces of orthonormal bases, ascending, in radians.

    Small angles come from sines (Björck and Golub), so that they keep their digits.

    Examples:
        >>> principal_angles([[1.0], [0.0]], [[0.6], [0.8]]).round(4)
        array([0.9273])
    """
    first, second = orthonormal_basis("basis_a", basis_a), orthonormal_basis("basis_b", basis_b)
    if len(first) != len(second):
        raise ValueError(f"basis_b must have the {len(first)} rows of basis_a; it has {len(second)}")
    if 0 in (first.shape[1], second.shape[1]):
        return np.zeros(0)
    return np.asarray(scipy.linalg.subspace_angles(first, second)[::-1])


def _angles(theta: ArrayLike) -> Array:
    angles = finite_array("theta", theta)
    if angles.size and (angles.min() < 0 or angles.max() > np.pi / 2 + 1e-12):
        raise ValueError(f"theta must lie between 0 and pi/2; it goes from {angles.min():.6g} to {angles.max():.6g}")
    return angles


def two_task_forgetting(theta: ArrayLike, k: int) -> Array:
    """Worst forgetting after k tasks, two alternately, that differ by the principal angle theta: the shape of `theta`.

    `floor(k/2)/k (cos^2 theta)^(k-1) sin^2 theta` (Lemma 9 for even k, with unit spectra; odd k derived here). Of two
    tasks with several principal angles the worst is the largest of these.

    Examples:
        >>> two_task_forgetting(np.pi / 4, 2).round(6)
        np.float64(0.125)
    """
    steps, angles = positive_integer("k", k), _angles(theta)
    return np.asarray(steps // 2 / steps * np.cos(angles) ** (2 * (steps - 1)) * np.sin(angles) ** 2)[()]


def two_task_distance(theta: ArrayLike, k: int) -> Array:
    """Worst squared distance from the joint solution after k tasks, relative to the start: `(cos^2 theta)^(k-1)`.

    Examples:
        >>> two_task_distance(1e-3, 1000).round(3)
        np.float64(0.999)
    """
    return np.asarray(np.cos(_angles(theta)) ** (2 * (positive_integer("k", k) - 1)))[()]


def two_task_worst_case(k: int) -> tuple[float, float]:
    """The angle, in radians, at which two tasks learnt alternately forget most after k, and how much that is.

    `cos^2 theta = (k - 1)/k`: 45 degrees at k = 2, and ever smaller angles later. For even k the value lies between
    `1/(2 e k)` and `1/(2 e (k - 1))` (Theorem 10).

    Examples:
        >>> theta, value = two_task_worst_case(4)
        >>> round(float(np.degrees(theta)), 6), value
        (30.0, 0.052734375)
    """
    steps = positive_integer("k", k)
    theta = float(np.arcsin(np.sqrt(1 / steps)))
    return theta, float(steps // 2 / steps * (1 - 1 / steps) ** (steps - 1) / steps)
