"""Bounds of forgetting, and the exact expectation over random orders, without sampling."""

import math
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.forgetting.tasks import Array, projectors
from lib.forgetting.two_tasks import two_task_worst_case
from lib.validation import finite_array, integer_at_least, number_between, positive_integer, positive_number

__all__ = [
    "cyclic_bounds",
    "dominating_rates",
    "expected_curve",
    "expected_forgetting",
    "expected_loss",
    "expected_loss_curve",
    "random_bound",
]


def cyclic_bounds(T: int, k: int, d: int | None = None, r_max: int | None = None) -> tuple[float, float]:
    """Between what the worst forgetting lies after k steps of a cycle over T tasks, over all tasks and solutions.

    For two tasks it is known, and both are equal. For three or more (Theorem 11): `T^2 / (24 e k)`, once k is at least
    T^2 (0 before), and the smaller of `T^2 / sqrt(k)` and, where `d` and the largest rank `r_max` are given,
    `T^2 (d - r_max) / (2 k)`.

    Examples:
        >>> [round(bound, 4) for bound in cyclic_bounds(3, 36, d=2, r_max=1)]
        [0.0038, 0.125]
    """
    tasks, steps = integer_at_least("T", T, 2), positive_integer("k", k)
    if (d is None) != (r_max is None):
        raise ValueError("d and r_max must be given together")
    if steps % tasks:
        raise ValueError(f"k must be a multiple of T = {tasks}; it is {steps}")
    if tasks == 2:
        value = two_task_worst_case(steps)[1]
        return value, value
    upper = tasks**2 / steps**0.5
    if d is not None and r_max is not None:
        rank = integer_at_least("r_max", r_max, 0)
        upper = min(upper, tasks**2 * (integer_at_least("d", d, rank) - rank) / (2 * steps))
    return (tasks**2 / (24 * math.e * steps) if steps >= tasks**2 else 0.0), upper


def random_bound(k: int, d: int, r_avg: float) -> float:
    """Bound of expected forgetting after k tasks in random order, with replacement: `9 (d - r_avg) / k` (Theorem 13).

    Examples:
        >>> random_bound(90, 10, 8.0)
        0.2
    """
    dimension = positive_integer("d", d)
    return 9 * (dimension - number_between("r_avg", r_avg, 0, dimension)) / positive_integer("k", k)


def expected_forgetting(bases: Sequence[ArrayLike], k: int, w_star: ArrayLike | None = None) -> float:
    """Forgetting after k tasks drawn at random with replacement: the exact mean over all T^k orders.

    Args:
        bases: Orthonormal bases (d, r_m) of the row spaces; all singular values of the tasks are 1.
        w_star: The common solution (d,); without it, the largest mean over solutions of norm 1. (The mean over orders
            of the worst case of each is larger.)

    Examples:
        >>> round(expected_forgetting([[[1.0], [0.0]], [[0.6], [0.8]]], 2), 6)
        0.04608
    """
    steps = positive_integer("k", k)
    if w_star is not None:
        return float(expected_curve(bases, steps, w_star)[-1])
    rows, nulls = projectors(bases)
    # Horner's scheme: what is lost of task t after s further tasks, then taken through the tasks before
    later, total = rows, np.zeros_like(rows[0])
    for _ in range(steps - 1):
        later = (nulls[:, None] @ later @ nulls[:, None]).sum(axis=0) / len(nulls)
        total = (nulls @ (later + total) @ nulls).sum(axis=0) / len(nulls)
    return float(_largest(total)) / steps


def expected_curve(bases: Sequence[ArrayLike], k: int, w_star: ArrayLike) -> Array:
    """Expected forgetting (k,) after each of k tasks drawn at random, for one solution `w_star` (d,); exact.

    Examples:
        >>> expected_curve([[[1.0], [0.0]], [[0.6], [0.8]]], 3, [0.0, 1.0]).round(4)
        array([0.    , 0.0392, 0.0439])
    """
    rows, nulls = projectors(bases)
    w = finite_array("w_star", w_star, shape=rows.shape[-1:])
    spread = np.outer(w, w)  # the second moment of the error
    by_task = np.zeros_like(rows)  # the same, summed over the steps at which each task was learnt
    losses = np.empty(positive_integer("k", k))
    for step in range(losses.size):
        after = nulls @ spread @ nulls / len(rows)
        by_task = np.mean(nulls[:, None] @ by_task[None] @ nulls[:, None], axis=0) + after
        spread = after.sum(axis=0)
        losses[step] = max(float(np.einsum("mij,mji->", rows, by_task)), 0.0) / (step + 1)
    return losses


def _shrinkage(shrink: ArrayLike | None, steps: int) -> Array:
    factors = np.broadcast_to(1.0 if shrink is None else finite_array("shrink", shrink), (steps,))
    if factors.min(initial=1.0) <= 0 or factors.max(initial=1.0) > 1:
        raise ValueError(f"shrink must lie above 0 and be at most 1; it goes from {factors.min()} to {factors.max()}")
    return np.asarray(factors)


def dominating_rates(spectrum: ArrayLike, k: int, shrink: ArrayLike | None = None) -> float:
    """Bound of the expected loss after k random tasks, from the eigenvalues of the mean projection onto row spaces.

    A recursion of numbers, `rate <- rate (1 - 2 c s) + c^2 s max(rate)` for each eigenvalue s, that dominates the exact
    expectation (Lemma 10 of Dereziński and Dong, COLT 2026, arXiv 2604.09909, with c = 1; for other c derived here). It
    goes down as `k^-(3/4)`, nearly, whatever the spectrum.

    Args:
        spectrum: Eigenvalues (n,), from 0 to 1.
        shrink: The c of each step, (k,) or one for all: `1/(1 + lambda)` for a fit with the penalty
            `lambda |w - w_before|^2`. Without it 1, the fit without a penalty.

    Examples:
        >>> spectrum = np.logspace(0, -8, 400)
        >>> bounds = [dominating_rates(spectrum, k) for k in (1000, 10000)]
        >>> round(float(np.log10(bounds[1] / bounds[0])), 2)
        -0.75
    """
    values = finite_array("spectrum", spectrum, ndim=1)
    if not values.size or values.min() < 0 or values.max() > 1 + 1e-12:
        raise ValueError("spectrum must hold at least one eigenvalue, all between 0 and 1")
    rates = values.copy()
    for c in _shrinkage(shrink, integer_at_least("k", k, 0))[::-1].tolist():
        rates += c * values * (c * rates[rates.argmax()] - 2 * rates)
    return float(rates.max())


def _losses(bases: Sequence[ArrayLike], factors: Array) -> Iterator[Array]:
    """The mean loss (d, d) over all tasks, and its expectations over one more step each."""
    rows, _ = projectors(bases)
    loss, one = rows.mean(axis=0), np.eye(rows.shape[-1])
    yield loss
    for c in factors:
        steps = one - c * rows
        loss = (steps @ loss @ steps).sum(axis=0) / len(rows)
        yield loss


def _largest(forms: Array) -> Array:
    return np.asarray(np.maximum(np.linalg.eigvalsh(forms)[..., -1], 0.0))


def expected_loss(bases: Sequence[ArrayLike], k: int, shrink: ArrayLike | None = None) -> float:
    """Expected mean loss over all T tasks after k drawn at random, the largest over solutions of norm 1; exact.

    `shrink` is as in `dominating_rates`.

    Examples:
        >>> round(expected_loss([[[1.0], [0.0]], [[0.6], [0.8]]], 1), 4)
        0.256
    """
    factors = _shrinkage(shrink, integer_at_least("k", k, 0))
    return float(_largest(deque(_losses(bases, factors[::-1]), maxlen=1).pop()))


def expected_loss_curve(bases: Sequence[ArrayLike], k: int, shrink: float = 1.0) -> Array:
    """`expected_loss` (k,) after each of 1 to k tasks, where `shrink` is the same in all steps.

    Examples:
        >>> expected_loss_curve([[[1.0], [0.0]], [[0.6], [0.8]]], 3).round(4)
        array([0.256 , 0.1741, 0.1184])
    """
    factors = _shrinkage(positive_number("shrink", shrink), positive_integer("k", k))
    return _largest(np.stack(list(_losses(bases, factors))[1:]))
