"""The inner loops of sequences of tasks with one row each, compiled."""

import numpy as np

from lib.compiling import compiled

__all__ = ["gram_steps", "row_steps"]


@compiled(error_model="numpy")
def gram_steps(gram, residual, order):
    """Steps of Kaczmarz in the space of residuals: a step for task i takes `residual / gram_ii` of row i of the Gram.

    `residual` (T,) is `y - X w`, and is written to. Returns the multiples (T,) of each row that were added to w in all.
    """
    tasks = residual.size
    total = np.zeros(tasks)
    for step in range(order.size):
        i = order[step]
        square = gram[i, i]
        if square > 0:
            move = residual[i] / square
            total[i] += move
            for j in range(tasks):
                residual[j] -= move * gram[i, j]
            residual[i] = 0.0
    return total


@compiled(error_model="numpy")
def row_steps(data, columns, starts, squares, targets, order, w):
    """Steps of Kaczmarz on the rows of a sparse matrix (CSR), in place."""
    for step in range(order.size):
        i = order[step]
        if squares[i] > 0:
            move = targets[i]
            for place in range(starts[i], starts[i + 1]):
                move -= data[place] * w[columns[place]]
            move /= squares[i]
            for place in range(starts[i], starts[i + 1]):
                w[columns[place]] += move * data[place]
