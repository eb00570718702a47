r"""Squared regression: a linear model whose weights are differences of squares (derived here).

`beta = u*u - v*v` fits `X beta = y` with fewer examples than weights. Gradient flow conserves `u_i v_i`, which
makes it the diagonal network of chapter 01 with `k_i = 4 |u_i v_i|`: its solution is one convex problem, and
the sharpness there one eigenvalue of an n x n matrix. No differential equation is solved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lib.initialization_shape import DiagonalPotential, minimize_potential
from lib.validation import finite_array, positive_integer, positive_number, regression_data

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]

__all__ = ["RegressionTrajectory", "SquaredRegression"]


@dataclass(frozen=True)
class RegressionTrajectory:
    """A run of gradient descent on a squared regression.

    Attributes:
        steps: Numbers of the recorded steps (T,), the start included.
        u, v: Weights (T, d).
        loss, gfs_sharpness: (T,).
        diverged: Whether the loss grew a millionfold; recording ends there.
    """

    steps: NDArray[np.int64]
    u: Vector
    v: Vector
    loss: Vector
    gfs_sharpness: Vector
    diverged: bool


class SquaredRegression:
    """The loss `|X (u*u - v*v) - y|^2 / (2n)` of examples (n, d) and targets (n,).

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> model = SquaredRegression(rng.standard_normal((3, 8)), rng.standard_normal(3))
        >>> u, v = model.gradient_flow_solution(np.full(8, 0.3), np.full(8, 0.3))
        >>> model.loss(u, v) < 1e-20
        True
    """

    def __init__(self, X: ArrayLike, y: ArrayLike) -> None:
        # copies: what the caller does to these arrays later must not change the model
        self.X, self.y = (part.copy() for part in regression_data(X, y))

    def _weights(self, u: ArrayLike, v: ArrayLike) -> tuple[Vector, Vector]:
        shape = (self.X.shape[1],)
        return finite_array("u", u, shape=shape), finite_array("v", v, shape=shape)

    def loss(self, u: ArrayLike, v: ArrayLike) -> float:
        """Half the mean squared residual."""
        first, second = self._weights(u, v)
        residual = self.X @ (first**2 - second**2) - self.y
        return float(residual @ residual) / (2 * len(self.y))

    def gradient(self, u: ArrayLike, v: ArrayLike) -> tuple[Vector, Vector]:
        """Gradients of the loss in `u` and in `v`, (d,) each."""
        first, second = self._weights(u, v)
        pull = (self.X @ (first**2 - second**2) - self.y) @ self.X / len(self.y)
        return 2 * pull * first, -2 * pull * second

    def _solution(self, u: Vector, v: Vector, dual: Vector | None) -> tuple[Vector, Vector, Vector]:
        """Predictor and radius `u*^2 + v*^2` of the flow's end, and its dual, which warms up the next call."""
        k = 4 * np.abs(u * v)
        if np.any(k == 0):
            raise ValueError("u and v must not vanish anywhere: a zero weight stays zero")
        limit = minimize_potential(DiagonalPotential(k, u**2 - v**2), self.X, self.y, dual0=dual)
        return limit.w, np.hypot(limit.w, k / 2), limit.dual

    def gradient_flow_solution(self, u: ArrayLike, v: ArrayLike) -> tuple[Vector, Vector]:
        """Where gradient flow from these weights ends, (d,) each."""
        first, second = self._weights(u, v)
        beta, radius, _ = self._solution(first, second, None)
        # the smaller of the two squares from their product: a difference would cancel
        larger = np.sqrt((radius + np.abs(beta)) / 2)
        smaller = np.abs(first * second) / larger
        grows = beta > 0
        return np.sign(first) * np.where(grows, larger, smaller), np.sign(second) * np.where(grows, smaller, larger)

    def gfs_sharpness(self, u: ArrayLike, v: ArrayLike) -> float:
        """Sharpness at the end of gradient flow: `(4/n) lambda_max(X diag(u*^2 + v*^2) X^T)`.

        Examples:
            >>> print(f"{SquaredRegression([[1.0, 0.0]], [1.0]).gfs_sharpness([0.5, 0.5], [0.5, 0.5]):.4f}")
            4.4721
        """
        first, second = self._weights(u, v)
        return self._sharpness(self._solution(first, second, None)[1])

    def _sharpness(self, radius: Vector) -> float:
        root = self.X * np.sqrt(radius)
        return 4 / len(self.y) * float(np.linalg.eigvalsh(root @ root.T)[-1])

    def run_gd(
        self, u0: ArrayLike, v0: ArrayLike, eta: float, n_steps: int, record_every: int = 1
    ) -> RegressionTrajectory:
        """Run gradient descent, and look at the flow solution from every recorded step.

        Args:
            u0, v0: Initial weights (d,), none of them zero.
            n_steps, record_every: Number of steps, and how many of them lie between two records.
        """
        u, v = (weights.copy() for weights in self._weights(finite_array("u0", u0), finite_array("v0", v0)))
        positive_integer("n_steps", n_steps)
        positive_integer("record_every", record_every)
        positive_number("eta", eta)
        steps, weights, losses, phis = [], [], [], []
        dual: Vector | None = None
        diverged = False
        limit = 1e6 * (2 * len(self.y) * self.loss(u, v) + float(self.y @ self.y))
        for step in range(n_steps + 1):
            with np.errstate(over="ignore", invalid="ignore"):
                residual = self.X @ (u**2 - v**2) - self.y
                diverged = not float(residual @ residual) < limit
            if diverged:
                break
            if step % record_every == 0:
                _, radius, dual = self._solution(u, v, dual)
                steps.append(step)
                weights.append((u, v))
                losses.append(float(residual @ residual) / (2 * len(self.y)))
                phis.append(self._sharpness(radius))
            pull = 2 * eta / len(self.y) * (residual @ self.X)
            u, v = u * (1 - pull), v * (1 + pull)
        us, vs = (np.array(part) for part in zip(*weights, strict=True))
        return RegressionTrajectory(np.array(steps), us, vs, np.array(losses), np.array(phis), diverged)
