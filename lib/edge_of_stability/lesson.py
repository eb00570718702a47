"""What chapter 02 asks of its reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.edge_of_stability.flow_solution import gradient_flow_solution
from lib.edge_of_stability.networks import GFSMonitor, half_mean_square
from lib.edge_of_stability.scalar_network import balances, gd_step
from lib.lesson import Exercise, Mistake, Option, Question

__all__ = ["EXERCISES", "PREDICTIONS", "QUIZ", "TERMS"]

#: What the chapter defines, in bold, before it is used.
TERMS = (
    "step size",
    "sharpness",
    "edge of stability",
    "gradient flow",
    "gradient flow solution",
    "GFS sharpness",
    "balances",
    "cobweb",
)

PREDICTIONS = {
    "too_large": Question(
        "The step size is 20 % too large for the minimum ahead: ηφ = 2.4 at the start. What will descent do?",
        (
            Option("It flies away.", "It would on a parabola. This loss bends less in other places."),
            Option("It jumps back and forth forever.", "It does jump, but each jump changes where it is heading."),
            Option(
                "It jumps for a while, then converges somewhere else.",
                "It comes to rest at a flatter minimum than the one ahead. Press the first two tries, and watch the "
                "right panel.",
                right=True,
            ),
        ),
    ),
    "larger_steps": Question(
        "Blue starts converge at the step size η = 0.5. How much blue is left when η is larger than 1?",
        (
            Option(
                "None.",
                "Every minimum has at least the sharpness 2, since 1/w₁² + 1/w₂² ≥ 2 where w₁w₂ = 1. For η > 1 the "
                "limit 2/η is below 2, and no minimum is stable. Press the tries.",
                right=True,
            ),
            Option("About half of it.", "So it is on the way there, at η = 0.9."),
            Option("All of it, at another place.", "The starts that converge do not move, they become fewer."),
        ),
    ),
    "slope": Question(
        "The slope at the fixed point is 1 − ηφ. What does the product do when ηφ grows a little past 2?",
        (
            Option("It flies away.", "It moves away from the fixed point, but not far: the curve bends."),
            Option(
                "It jumps between two values.",
                "The slope is below −1, so each step goes to the other side, and a little further out, until the bend "
                "of the curve holds it back.",
                right=True,
            ),
            Option("It converges more slowly.", "It does just below 2; above 2 it leaves the fixed point."),
        ),
    ),
    "clothes": Question(
        "On digits, at ηφ = 2.7, the loss of a recorded run rises in one burst of eight steps. On clothes, at 3.3?",
        (
            Option("One burst as well.", "Nothing says that one burst has to be enough."),
            Option("No burst: they are easier.", "At a larger ηφ the valley ahead is even further from stable."),
            Option(
                "Rises again and again, over two hundred steps.",
                "The loss rises 109 times from step 28 to 272; the sharpness stays at the edge, and φ comes down.",
                right=True,
            ),
        ),
    ),
}


def _flow_end(w: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return gradient_flow_solution(w)


def _slope(w: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((w.prod() - 1) * w.prod() / w)


def _network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def _examples() -> tuple[Tensor, Tensor]:
    inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    return inputs, torch.tensor([[-0.5], [0.2], [0.3], [0.8]], dtype=torch.float64)


def _watched(read: Callable[[GFSMonitor, float], list[float]]) -> Callable[..., list[float]]:
    def watch(model: nn.Module, inputs: Tensor, targets: Tensor, eta: float) -> list[float]:
        monitor = GFSMonitor(10, model, half_mean_square, (inputs, targets))
        optimizer = torch.optim.SGD(model.parameters(), lr=eta)
        for step in range(21):
            monitor(step)
            optimizer.zero_grad()
            half_mean_square(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return read(monitor, eta)

    return watch


EXERCISES = {
    "one_step": Exercise(
        solution=gd_step,
        inputs=(
            {"w": np.array([2.0, 0.4]), "eta": 0.5},
            {"w": np.array([1.5, 0.5, 1.2]), "eta": 0.1},
            {"w": np.array([0.5, 2.0]), "eta": 0.3},
            {"w": np.array([1.2, 0.9, 1.1, 0.8]), "eta": 0.2},
        ),
        mistakes=(
            Mistake(lambda w, eta: w + eta * _slope(w), "That is a step uphill: subtract the gradient."),
            Mistake(
                lambda w, eta: w - eta * (w.prod() - 1),
                "The chain rule is missing: the product changes by (product / wᵢ) per unit of wᵢ.",
            ),
            Mistake(
                lambda w, eta: w - eta * (w.prod() - 1) / w,
                "Almost: the derivative of the product by wᵢ is product / wᵢ, not 1 / wᵢ.",
            ),
        ),
    ),
    "flow_end": Exercise(
        solution=_flow_end,
        inputs=(
            {"w": np.array([1.8, 0.3, 0.9])},
            {"w": np.array([2.0, 0.4])},
            {"w": np.array([0.5, 0.6, 0.7, 0.8])},
            {"w": np.array([3.0, 2.0])},
        ),
        mistakes=(
            Mistake(
                lambda w: w / w.prod() ** (1 / len(w)),
                "Your product is 1, but flow does not scale the weights: it keeps the differences of their squares.",
            ),
            Mistake(lambda w: _flow_end(w) ** 2, "These are the squared weights: take the square root."),
            Mistake(
                lambda w: np.sqrt(1 + balances(w)),
                "That is the first guess, c = 1. Solve for the c at which the product is 1.",
            ),
        ),
    ),
    "watch": Exercise(
        solution=_watched(lambda monitor, eta: [eta * each for each in monitor.gfs_sharpness]),
        inputs=(
            {"model": _network(), "inputs": _examples()[0], "targets": _examples()[1], "eta": 0.1},
            {"model": _network(), "inputs": _examples()[0], "targets": _examples()[1], "eta": 0.5},
        ),
        mistakes=(
            Mistake(
                _watched(lambda monitor, eta: [eta * each for each in monitor.sharpness]),
                "That is the sharpness at the present weights: `monitor.gfs_sharpness` is the one at the flow's end.",
            ),
            Mistake(
                _watched(lambda monitor, _: list(monitor.gfs_sharpness)),
                "That is φ: multiply it by the step size, so that the edge is at 2.",
            ),
        ),
        rtol=1e-2,
    ),
}


def _right(text: str, why: str) -> Option:
    return Option(text, why, right=True)


QUIZ = (
    Question(
        "At the edge of stability …",
        (
            _right(
                "η × sharpness stays near 2, and the loss falls over long times only.",
                "The sharpness rises to 2/η and hovers there, while the loss goes up and down.",
            ),
            Option("the loss falls at every step.", "It rises at many of them."),
            Option("training is about to diverge.", "It can go on like this for thousands of steps."),
        ),
        goal=1,
    ),
    Question(
        "Your learning rate is η = 0.01. From which sharpness on does a step raise the loss of a parabola?",
        (
            Option("100", "That is 1/η: from there a step overshoots, but still gains."),
            _right("200", "2/η = 200: on a parabola with this sharpness a step lands at the same height."),
            Option("0.02", "That is 2η. The condition is η × sharpness < 2."),
        ),
        goal=1,
    ),
    Question(
        "Along gradient flow, φ …",
        (
            Option("falls.", "It falls along gradient descent, in this chapter's networks."),
            Option("rises to 2/η.", "That is what the sharpness of the present weights does in training."),
            _right(
                "does not change.", "All points of one path of the flow end at the same place, so they share one φ."
            ),
        ),
        goal=2,
    ),
    Question(
        "Descent on two weights starts at (1.05, 0.8), with η = 1.1. Where does it end?",
        (
            Option("At a minimum with ηφ just below 2.", "There is none: φ is at least 2, so ηφ is at least 2.2."),
            _right(
                "In a cycle of two.",
                "The flattest minimum has φ = 2, and η × 2 = 2.2 > 2: no minimum is stable, and the jumps never end.",
            ),
            Option("At a minimum with ηφ between 2 and 2√2.", "A minimum with ηφ above 2 repels: descent leaves it."),
        ),
        goal=2,
    ),
    Question(
        "Section 4's statement asks for ηφ ≤ 2√2 ≈ 2.83. Your run starts at ηφ = 3.5. What follows?",
        (
            Option("φ will rise.", "It may: rises exist beyond the bound, but most steps still lower φ."),
            _right("Nothing: φ may rise or fall.", "A statement whose condition is not met says nothing."),
            Option("Descent diverges.", "Not by itself: with D = 2 the first figure has a run at 3.5 that converges."),
        ),
        goal=2,
    ),
    Question(
        "Your monitor shows η × sharpness = 0.8 and ηφ = 2.6 early in training. What do you expect?",
        (
            Option("Smooth training to the end.", "The sharpness is that of now; φ looks ahead."),
            Option("Divergence at once.", "Where the weights stand now, the step size is far from the edge."),
            _right(
                "Smooth for now; later the loss jumps, and φ falls.",
                "The weights head for a valley that is too sharp for this step size; they will be turned away from it.",
            ),
        ),
        goal=3,
    ),
)
