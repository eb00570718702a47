"""Learning tasks one after another, each to the end, and what is forgotten on the way.

From the weights before, gradient descent on one task ends at the nearest weights that solve it: the weights minus `w*`
are projected onto the null space of the task. So a sequence of tasks is a sequence of projections.
"""

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from lib.forgetting.compiled import gram_steps, row_steps
from lib.forgetting.tasks import Array, TaskCollection
from lib.validation import finite_array, instance_of, numpy_generator, positive_integer, true_or_false

Order = NDArray[np.int64]

__all__ = ["cyclic_ordering", "fit_sequence", "forgetting", "known_ordering", "last_weights", "random_ordering"]


def cyclic_ordering(T: int, k: int) -> Order:
    """Tasks 0, 1, ..., T - 1 and again from the start, k in all.

    Examples:
        >>> cyclic_ordering(3, 5)
        array([0, 1, 2, 0, 1])
    """
    return np.arange(positive_integer("k", k)) % positive_integer("T", T)


def random_ordering(T: int, k: int, rng: np.random.Generator, replace: bool = True) -> Order:
    """Tasks drawn at random, k in all; without `replace` no task comes twice, so k is at most T.

    Examples:
        >>> random_ordering(3, 3, np.random.default_rng(0), replace=False)
        array([2, 0, 1])
    """
    tasks, steps = positive_integer("T", T), positive_integer("k", k)
    if not true_or_false("replace", replace) and steps > tasks:
        raise ValueError(f"k must be at most T = {tasks} without replacement; it is {steps}")
    return np.asarray(numpy_generator("rng", rng).choice(tasks, steps, replace=replace))


def known_ordering(name: str, ordering: ArrayLike, count: int) -> Order:
    """The numbers (k,) of tasks from 0 to `count - 1`, at least one, or an error."""
    numbers = finite_array(name, ordering)
    order = numbers.astype(np.int64)
    if order.ndim != 1 or not order.size or np.asarray(ordering).dtype.kind not in "iu":
        raise ValueError(f"{name} must be a list of at least one task's number; it is {ordering!r}"[:200])
    if order.min() < 0 or order.max() >= count:
        raise IndexError(f"{name} must hold tasks from 0 to {count - 1}; it goes from {order.min()} to {order.max()}")
    return order


def _start(tasks: TaskCollection, ordering: ArrayLike, w0: ArrayLike | None) -> tuple[Order, Array]:
    instance_of("tasks", tasks, TaskCollection, "a TaskCollection")
    order = known_ordering("ordering", ordering, tasks.T)
    w = np.zeros(tasks.d) if w0 is None else finite_array("w0", w0, shape=(tasks.d,)).copy()
    return order, w


def fit_sequence(tasks: TaskCollection, ordering: ArrayLike, w0: ArrayLike | None = None) -> Array:
    """Weights (k + 1, d) before the first task and after each, learnt to the end from the weights before.

    `ordering` holds the numbers (k,) of the tasks, from 0, with repeats or without; `w0` (d,) is zero by default.

    Examples:
        >>> tasks = TaskCollection([[[1.0, 0.0]], [[1.0, 1.0]]], w_star=[1.0, 0.0])
        >>> fit_sequence(tasks, [0, 1, 0]) - tasks.w_star
        array([[-1.,  0.],
               [ 0.,  0.],
               [ 0.,  0.],
               [ 0.,  0.]])
    """
    order, w = _start(tasks, ordering, w0)
    path, error = [w], w - tasks.w_star
    for m in order:
        basis = tasks.bases[m]
        if 2 * basis.shape[1] > tasks.d:  # of the two forms of the projection the one that reads less
            null = tasks.null_bases[m]
            error = null @ (null.T @ error)
        else:
            error = error - basis @ (basis.T @ error)
        path.append(error + tasks.w_star)
    return np.stack(path)


def last_weights(tasks: TaskCollection, ordering: ArrayLike, w0: ArrayLike | None = None) -> Array:
    """The last row (d,) of `fit_sequence`; for tasks of one example each without the weights in between (Kaczmarz).

    Examples:
        >>> tasks = TaskCollection([[[1.0, 0.0]], [[1.0, 1.0]]], w_star=[1.0, 2.0])
        >>> last_weights(tasks, cyclic_ordering(2, 100)).round(6)
        array([1., 2.])
    """
    order, w = _start(tasks, ordering, w0)
    if (tasks.sizes > 1).any():
        return np.asarray(fit_sequence(tasks, order, w)[-1])
    rows, targets = tasks.stacked, tasks.targets
    if scipy.sparse.issparse(rows):
        row_steps(rows.data, rows.indices, rows.indptr, (rows * rows).sum(axis=1), targets, order, w)
        return w
    return np.asarray(w + rows.T @ gram_steps(rows @ rows.T, targets - rows @ w, order))


def forgetting(tasks: TaskCollection, ordering: ArrayLike, w0: ArrayLike | None = None) -> Array:
    """Forgetting (k,) after each task: the mean over the k tasks learnt so far of `|X w - y|^2` at the present weights.

    A task that was learnt twice counts twice; the one just learnt has loss 0 and counts too (the paper's Definition 3).
    So `F(1)` is 0, and `F(2)` is half the loss of the first task. `tasks`, `ordering`, `w0` are as in `fit_sequence`.

    Examples:
        >>> tasks = TaskCollection([[[1.0, 0.0]], [[0.6, 0.8]]], w_star=[0.0, 1.0])
        >>> forgetting(tasks, [0, 1, 0]).round(4)
        array([0.    , 0.1152, 0.0276])
    """
    order, w = _start(tasks, ordering, w0)
    k = order.size
    path = fit_sequence(tasks, order, w)[1:]
    counts = (order == np.arange(tasks.T)[:, None]).cumsum(axis=1)
    losses = np.zeros(k)
    targets = tasks.y
    for m in np.unique(order):
        residual = np.asarray(tasks.X[m] @ path.T) - targets[m][:, None]
        losses += counts[m] * np.square(residual).sum(axis=0)
    return np.asarray(losses / np.arange(1, k + 1))
