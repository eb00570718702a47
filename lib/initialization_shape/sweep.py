"""The paper's Section 7 experiment: test error over a grid of scales and shapes.

With the closed-form potential one grid point is one convex problem of a few milliseconds, where gradient
descent takes millions of steps. Both ways are here: the exact one, and the paper's own protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.experiment import Count, Pieces, Positive, Preset, named
from lib.initialization_shape.diagonal import DiagonalPotential
from lib.initialization_shape.dynamics import gradient_descent
from lib.initialization_shape.interpolation import minimize_potential
from lib.initialization_shape.regression import SparseRegression, sparse_regression
from lib.initialization_shape.scale_shape import potential_scale, scale_shape_to_weights
from lib.validation import finite_array, instance_of

Array = NDArray[np.float64]

__all__ = ["PRESETS", "SweepPreset", "population_errors", "sweep_initialization_shape"]


@dataclass(frozen=True)
class SweepPreset(Preset):
    """Sizes of a sweep.

    Attributes:
        d: Number of weights.
        n: Number of training examples.
        seeds: Number of data sets.
        alphas, shapes: The grid: scales, and shapes from 0 up to 1.
        descent: Whether to run the paper's gradient descent instead of solving exactly.
        lr, max_steps: Step size of descent, and its longest run.
        tol: Training error (mean square) at which descent stops.
    """

    d: Count = 1000
    n: Count = 100
    seeds: Count = 1
    alphas: tuple[Positive, ...] = tuple(float(a) for a in np.logspace(-5, -0.6, 20))
    shapes: tuple[float, ...] = (0.0, 0.5, 0.7, 0.9, 0.99)
    descent: bool = False
    lr: Positive = 1e-3
    max_steps: Count = 10_000_000
    tol: Positive = 1e-4

    def check(self) -> None:
        """Refuse shapes that there are not."""
        potential_scale(np.array(self.alphas)[:, None], np.array(self.shapes))


#: `paper` is the published grid solved exactly for 50 data sets, `paper-gd` the authors' own protocol.
PRESETS: dict[str, SweepPreset] = {
    "quick": SweepPreset(d=200, n=40),
    "laptop": SweepPreset(seeds=5),
    "paper": SweepPreset(seeds=50),
    "paper-gd": SweepPreset(descent=True),
}


def population_errors(problem: SparseRegression, alphas: ArrayLike, shapes: ArrayLike) -> Array:
    """Test error of the exact gradient-flow limit at every scale and shape (the curves of Figure 7.1).

    Args:
        alphas, shapes: Scales (A,) and shapes (S,); the errors are (S, A).

    Examples:
        >>> problem = sparse_regression(60, 20, sparsity=2, rng=np.random.default_rng(0))
        >>> errors = population_errors(problem, [1e-5, 1.0], [0.0, 0.9])
        >>> errors.shape, bool(errors[0, 0] < errors[1, 0] < errors[1, 1])
        ((2, 2), True)
    """
    instance_of("problem", problem, SparseRegression)
    alphas, shapes = finite_array("alphas", alphas, ndim=1), finite_array("shapes", shapes, ndim=1)
    errors = np.empty((len(shapes), len(alphas)))
    d = problem.X.shape[1]
    for row, shape in enumerate(shapes):
        for column, alpha in enumerate(alphas):
            limit = minimize_potential(DiagonalPotential.from_scale_shape(alpha, shape, d), problem.X, problem.y)
            errors[row, column] = problem.test_error(limit.w)
    return errors


def _problem(preset: SweepPreset, seed: int) -> SparseRegression:
    # The paper's data come from numpy's legacy generator with this seed; further data sets count on from it.
    return sparse_regression(preset.d, preset.n, rng=np.random.RandomState(1993 + seed))


def _exact(preset: SweepPreset, seed: int) -> dict[str, Any]:
    return {"errors": population_errors(_problem(preset, seed), preset.alphas, preset.shapes)}


def _descent(preset: SweepPreset, seed: int, shape: float, alpha: float) -> dict[str, Any]:
    """The paper's protocol; NaN where descent did not reach its stopping error."""
    problem = _problem(preset, seed)
    u, v = (np.full(preset.d, float(layer)) for layer in scale_shape_to_weights(alpha, shape))
    tol = float(np.sqrt(preset.tol * preset.n) / np.linalg.norm(problem.y))
    weights = {"u_p": u, "v_p": v, "u_m": u, "v_m": v}
    end = gradient_descent("diagonal", problem.X, problem.y, weights, lr=preset.lr, max_steps=preset.max_steps, tol=tol)
    return {"errors": problem.test_error(end.w) if end.converged else np.nan}


def _work(preset: SweepPreset) -> list[tuple[dict[str, Any], tuple[object, ...]]]:
    """Every independent piece of a sweep: what it depends on, and the arguments of `_exact` or `_descent`."""
    problems = [({"d": preset.d, "n": preset.n, "seed": seed}, seed) for seed in range(preset.seeds)]
    if not preset.descent:
        grid = {"alphas": preset.alphas, "shapes": preset.shapes}
        return [({**problem, **grid}, (preset, seed)) for problem, seed in problems]
    protocol = {"lr": preset.lr, "max_steps": preset.max_steps, "tol": preset.tol}
    return [
        ({**problem, **protocol, "shape": shape, "alpha": alpha}, (preset, seed, shape, alpha))
        for problem, seed in problems
        for shape in preset.shapes
        for alpha in preset.alphas
    ]


def sweep_initialization_shape(
    preset: str | SweepPreset,
    folder: str | Path | None = None,
    *,
    shard: tuple[int, int] = (0, 1),
    jobs: int | None = None,
) -> Array | None:
    """Run a sweep in independent pieces, so that an interrupted one goes on where it stopped.

    Args:
        folder: Where the pieces go; pieces that are there already are not computed again. None keeps nothing.
        shard: `(i, n)`: do only the pieces whose place is `i` modulo `n`, for a cluster of `n` workers that share
            `folder`.
        jobs: Processes, through joblib; None leaves their number and place to a surrounding `joblib.parallel_config`.

    Returns:
        ndarray of shape (seeds, shapes, alphas), or None: Test errors, NaN where descent did not arrive; None for a
            worker with a share (the same call without `shard` reads them all).

    Examples:
        >>> small = SweepPreset(d=40, n=10, alphas=(1e-4, 1e-2), shapes=(0.0, 0.9), seeds=2)
        >>> sweep_initialization_shape(small).shape
        (2, 2, 2)
    """
    settings = named(preset, PRESETS)
    function = _descent if settings.descent else _exact
    found = Pieces(folder).compute(function, _work(settings), "sweep", jobs=jobs, shard=shard)
    if len(found) < len(_work(settings)):
        return None
    errors = np.asarray([piece["errors"] for piece in found], dtype=np.float64)
    return errors.reshape(settings.seeds, len(settings.shapes), len(settings.alphas))
