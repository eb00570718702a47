"""Tasks in the plane, each with one direction in which its answers do not change: forgetting in closed form.

The two families of directions that lose most there, for one pass over all tasks and for a cycle, are derived here.
"""

import numpy as np
from numpy.typing import ArrayLike

from lib.forgetting.sequences import known_ordering
from lib.forgetting.tasks import Array
from lib.validation import finite_array, integer_at_least, positive_integer

__all__ = ["back_and_forth_angles", "one_pass_angles", "planar_curve", "planar_forgetting", "planar_tasks"]


def _angles(angles: ArrayLike, ndim: int | None = None) -> Array:
    checked = finite_array("angles", angles, ndim=ndim)
    if checked.ndim == 0 or not checked.shape[-1]:
        raise ValueError(f"angles must hold at least one task in the last axis; the shape is {checked.shape}")
    return checked


def planar_forgetting(angles: ArrayLike, ordering: ArrayLike) -> Array:
    """Worst forgetting after all tasks of an ordering, over solutions of norm 1: (..., T) to (...).

    `angles`, in radians, are those of the null directions, along which a task's answers do not change.

    Examples:
        >>> print(planar_forgetting([0.0, np.pi / 4], [0, 1]).round(6))
        0.125
    """
    phi = _angles(angles)
    path = phi[..., known_ordering("ordering", ordering, phi.shape[-1])]
    kept = np.square(np.cos(np.diff(path, axis=-1))).prod(axis=-1)
    return np.asarray(kept * np.square(np.sin(path - path[..., -1:])).mean(axis=-1))


def planar_curve(angles: ArrayLike, ordering: ArrayLike) -> Array:
    """`planar_forgetting` after each of the k tasks: (T,) to (k,), in time linear in k.

    Examples:
        >>> planar_curve([0.0, np.pi / 4], [0, 1, 0]).round(6)
        array([0.      , 0.125   , 0.041667])
    """
    phi = _angles(angles, ndim=1)
    path = phi[known_ordering("ordering", ordering, phi.size)]
    kept = np.concatenate([[1.0], np.square(np.cos(np.diff(path))).cumprod()])
    # the mean of sin^2(a - b) over a, from the running sums of cos 2a and sin 2a
    count = np.arange(1, path.size + 1)
    turns = np.exp(2j * path)
    mean = (1 - (turns.cumsum() * turns.conj()).real / count) / 2
    return np.asarray(kept * np.maximum(mean, 0.0))


def planar_tasks(angles: ArrayLike) -> list[Array]:
    """One row (1, 2) of norm 1 a task, orthogonal to its null direction; for `TaskCollection`.

    Examples:
        >>> planar_tasks([0.0])[0] + 0.0
        array([[0., 1.]])
    """
    phi = _angles(angles, ndim=1)
    return list(np.stack([-np.sin(phi), np.cos(phi)], axis=-1)[:, None, :])


def one_pass_angles(T: int) -> Array:
    """Angles (T,) of tasks of which one pass, first to last, forgets nearly all: `1 - F` is about `2 / sqrt(T)`.

    Measured back from the last task the angle changes by its cosine over the root of T (a Gudermannian function): the
    extremal of what is lost by turning plus what is not yet forgotten (derived here; the paper's Theorem 7 has the
    order `1 / sqrt(T)`).

    Examples:
        >>> angles = one_pass_angles(1000)
        >>> round(float(1 - planar_forgetting(angles, range(1000))) * 1000**0.5, 2)
        1.97
    """
    tasks = positive_integer("T", T)
    angles = np.zeros(tasks)
    for j in range(tasks - 1):
        angles[j + 1] = angles[j] + np.cos(angles[j]) / np.sqrt(tasks)
    return angles[::-1].copy()


def back_and_forth_angles(T: int, k: int) -> Array:
    """Angles (T,) of tasks that a cycle of k steps visits there and back: worst in the plane where k is far above T^2.

    `a sin(pi t / T)`, t from 1 to T, with `a^2 = 2 T^2 / (pi^2 k)`, which forgets about `T^2 / (pi^2 e k)` (derived
    here; the paper's lower bound, of the same kind, is `T^2 / (24 e k)`).

    Examples:
        >>> T, k = 16, 4096
        >>> value = planar_forgetting(back_and_forth_angles(T, k), np.arange(k) % T)
        >>> round(float(value * np.pi**2 * np.e * k / T**2), 2)
        1.0
    """
    tasks, steps = integer_at_least("T", T, 2), positive_integer("k", k)
    return np.asarray(np.sqrt(2 * tasks**2 / (np.pi**2 * steps)) * np.sin(np.pi * np.arange(1, tasks + 1) / tasks))
