"""How long a time step may be, by algebra: the waves of two cells, which grow first.

Without friction and over level ground a chessboard of depths and discharges keeps its form from step to step. The
average with `theta` multiplies its discharges by `2 theta - 1`, since both neighbours have the other sign; the slope
adds `-2 g h dt / dx` times the depth, and the divergence `-2 dt / dx` times the new discharge, for each axis along
which it alternates.
"""

from __future__ import annotations

import sympy

from lib.validation import positive_integer

__all__ = ["two_cell_wave_bound", "two_cell_wave_matrix"]


def two_cell_wave_matrix(axes: int) -> sympy.Matrix:
    """One step of a wave of two cells along so many axes: of its depth, and of its discharge along each of them.

    The symbols are `alpha` (CFL number) and `theta`; discharges are divided by `sqrt(g h)`.

    Examples:
        >>> two_cell_wave_matrix(1).shape
        (2, 2)
    """
    axes = positive_integer("axes", axes)
    alpha, theta = sympy.symbols("alpha theta", positive=True)
    own = 2 * theta - 1
    # q' = own q - 2 alpha h;  h' = h + 2 alpha sum of q' (signs by the side of a face that the crest is on)
    step_q = [[-2 * alpha, *(own if i == j else 0 for j in range(axes))] for i in range(axes)]
    step_h = [1 + 2 * alpha * sum(row[0] for row in step_q), *[2 * alpha * own] * axes]
    return sympy.Matrix([step_h, *step_q])


def two_cell_wave_bound() -> bool:
    """Whether such waves are bounded exactly where `alpha**2 <= theta / axes`, for one and two axes.

    At the bound -1 is an eigenvalue, and nowhere else: from small `alpha`, where all eigenvalues lie within the unit
    circle for `0 < theta < 1`, none can leave it before. A pair of complex eigenvalues cannot, since their product is
    `2 theta - 1`.

    Examples:
        >>> two_cell_wave_bound()
        True
    """
    alpha, theta = sympy.symbols("alpha theta", positive=True)
    factor = sympy.Symbol("lambda")
    for axes in (1, 2):
        polynomial = (factor * sympy.eye(axes + 1) - two_cell_wave_matrix(axes)).det()
        # discharges of two axes that cancel do not move the depth: they only decay, by 2 theta - 1 a step
        quadratic, rest = sympy.div(sympy.expand(polynomial), (factor - (2 * theta - 1)) ** (axes - 1), factor)
        trace = 2 * theta - 4 * axes * alpha**2
        residuals = (
            rest,
            quadratic - (factor**2 - trace * factor + 2 * theta - 1),
            quadratic.subs(factor, -1) - 4 * (theta - axes * alpha**2),
            quadratic.subs(factor, 1) - 4 * axes * alpha**2,
        )
        if any(sympy.expand(residual) != 0 for residual in residuals):
            return False
    return True
