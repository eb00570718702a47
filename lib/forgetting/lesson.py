"""What chapter 03 asks of its reader."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lib.forgetting.tasks import row_space
from lib.forgetting.two_tasks import principal_angles
from lib.lesson import Exercise, Mistake, Option, Question

__all__ = ["EXERCISES", "PREDICTIONS", "QUIZ", "TERMS"]

#: What the chapter defines, in bold, before it is used.
TERMS = (
    "joint solution",
    "forgetting",
    "projection",
    "row space",
    "null space",
    "principal angles",
    "Kaczmarz",
)

PREDICTIONS = {
    "one_visit": Question(
        "Two tasks, each learnt once, one after the other. At which angle between their lines is most of the first "
        "task forgotten?",
        (
            Option(
                "At a few degrees: similar tasks overwrite each other.",
                "The step from one line to the other is small then, and it hardly leaves the first line.",
            ),
            Option(
                "At 45 degrees.",
                "The second step must be long and must lead away from the first line. It is long when the angle is "
                "small, and leads away when it is large: the middle is worst. Set k = 2 and move the angle.",
                right=True,
            ),
            Option(
                "At 90 degrees: nothing is shared.",
                "The second step then runs along the first line, and the first task stays solved.",
            ),
        ),
    ),
    "many_visits": Question(
        "Now the two tasks are learnt alternately, 50 visits each. At which angle is most forgotten after the last?",
        (
            Option(
                "Still at 45 degrees.",
                "Each step multiplies the error by 0.71, the cosine: it is gone after 100 steps.",
            ),
            Option(
                "At about 6 degrees.",
                "At large angles the error shrinks fast; at very small ones each step brings little of it back. The "
                "worst angle has cos² θ = (k − 1)/k, which is 5.7 degrees at k = 100.",
                right=True,
            ),
            Option("At 90 degrees.", "Orthogonal tasks never disturb each other."),
        ),
    ),
    "catastrophe": Question(
        "Thirty tasks in the plane are learnt once each, and each is turned by at most 11 degrees against the one "
        "before. How much of the loss can come back, on average over all thirty?",
        (
            Option("A few percent: each step changes little.", "Each does, but the small turns add up."),
            Option("At most a half.", "Nothing stops it there: with more tasks nearly everything can be lost."),
            Option(
                "Two thirds, and nearly all with more tasks.",
                "A slow turn keeps the error long while it leads away from all earlier tasks. What is left unspoilt "
                "shrinks like 2/√T.",
                right=True,
            ),
        ),
    ),
    "orders": Question(
        "Five random tasks are learnt again and again. Which order forgets less in the long run: the same cycle each "
        "time, or a task drawn at random each time?",
        (
            Option(
                "The cycle.",
                "On tasks like these it does: a random order leaves some task unvisited for a long time. The theorems "
                "compare worst cases; choose the tasks there and back in the plane to see one.",
                right=True,
            ),
            Option(
                "The random order.", "Its bound is the better one, but a bound speaks of the worst tasks, not of these."
            ),
            Option("They are equal.", "Compare the two curves after forty tasks."),
        ),
    ),
}

Array = np.ndarray[Any, Any]


def _learn(w: Array, X: Array, y: Array) -> Array:
    return np.asarray(w + np.linalg.pinv(X) @ (y - X @ w))


def _losses(X: Sequence[Array], y: Sequence[Array], order: Sequence[int]) -> tuple[Array, Array]:
    """Losses (T,) of all tasks at the end, and those of the tasks in order when each had just been learnt."""
    w, then = np.zeros(X[0].shape[1]), []
    for m in order:
        w = _learn(w, X[m], y[m])
        then.append(np.sum((X[m] @ w - y[m]) ** 2))
    return np.array([np.sum((each @ w - target) ** 2) for each, target in zip(X, y, strict=True)]), np.array(then)


def _forget(average: Callable[[Array, Array, Sequence[int]], float]) -> Callable[..., float]:
    def forget(X: Sequence[Array], y: Sequence[Array], order: Sequence[int]) -> float:
        return average(*_losses(X, y, order), order)

    return forget


def _angles(A: Array, B: Array) -> Array:
    return np.degrees(principal_angles(row_space(A), row_space(B)))


def _unorthogonal(A: Array, B: Array) -> Array:
    rows = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (A, B)]
    cosines = np.linalg.svd(rows[0] @ rows[1].T, compute_uv=False)
    return np.asarray(np.degrees(np.arccos(cosines.clip(-1, 1))))


_TURNED = np.array([[1.0, 0.0], [0.6, 0.8]])
_PAIRS = [np.array([[0.8, 0.0, 0.6, 0.0]]), np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.6, 0.0, 0.8]])]
_COMMON = np.array([0.5, -0.5, 0.5, 0.5])

EXERCISES = {
    "learn": Exercise(
        solution=_learn,
        inputs=(
            {"w": np.array([0.0, 0.0]), "X": np.array([[1.0, 0.0]]), "y": np.array([0.8])},
            {"w": np.array([0.8, 0.0]), "X": np.array([[0.6, 0.8]]), "y": np.array([0.96])},
            {"w": np.array([1.0, 1.0, 1.0]), "X": np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]]), "y": np.ones(2)},
            # one example twice: the rank is 1
            {"w": np.array([1.0, -1.0]), "X": np.array([[2.0, 0.0], [2.0, 0.0]]), "y": np.array([1.0, 1.0])},
        ),
        mistakes=(
            Mistake(
                lambda w, X, y: 0 * w + np.linalg.pinv(X) @ y,
                "That solves the task, but from zero: all that was learnt before is lost. Move from w, by as little as "
                "needed.",
            ),
            Mistake(
                lambda w, X, y: w - X.T @ (X @ w - y),
                "That is one step of gradient descent. Go on until the task is solved: the pseudo-inverse of X does it "
                "at once.",
            ),
            Mistake(
                lambda w, X, y: w - np.linalg.pinv(X) @ (y - X @ w),
                "The step has the wrong sign: it doubles the error of the task.",
            ),
        ),
    ),
    "forget": Exercise(
        solution=_forget(lambda last, _, order: float(np.mean(last[list(order)]))),
        inputs=(
            {"X": list(_TURNED[:, None]), "y": [np.array([0.8]), np.array([0.96])], "order": [0, 1]},
            {"X": list(_TURNED[:, None]), "y": [np.array([0.8]), np.array([0.96])], "order": [0, 1, 1, 0, 0]},
            {"X": _PAIRS, "y": [each @ _COMMON for each in _PAIRS], "order": [1, 0]},
            {"X": list(_TURNED[:, None]), "y": [np.array([0.8]), np.array([0.96])], "order": [0]},
        ),
        mistakes=(
            Mistake(
                _forget(lambda last, _, order: float(np.mean(last[list(set(order))]))),
                "Count a task as often as it was learnt: average over the k steps, not over the tasks.",
            ),
            Mistake(
                _forget(lambda last, _, order: float(np.sum(last[list(order)]) / max(len(order) - 1, 1))),
                "Divide by all k steps: the task learnt last has loss 0 and counts too.",
            ),
            Mistake(
                _forget(lambda _, then, __: float(np.mean(then))),
                "These are the losses right after each task was learnt, which are 0. Measure all of them at the end.",
            ),
        ),
    ),
    "angles": Exercise(
        solution=_angles,
        inputs=(
            {"A": np.array([[1.0, 0.0, 0.0]]), "B": np.array([[1.0, 1.0, 0.0]])},
            {"A": np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]), "B": np.array([[3.0, 0.0, 4.0, 0.0]])},
            {
                "A": np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]),
                "B": np.array([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 2.0]]),
            },
        ),
        mistakes=(
            Mistake(
                _unorthogonal,
                "Rows of length 1 are not enough: make the rows of each task orthonormal first (np.linalg.qr of A.T).",
            ),
            Mistake(lambda A, B: np.radians(_angles(A, B)), "These are radians: the answer is in degrees."),
            Mistake(
                lambda A, B: _angles(A, B)[::-1],
                "These are the right angles in the wrong order: from the smallest to the largest, please.",
            ),
        ),
        # an angle near 0 from its cosine has half of the digits
        rtol=1e-5,
    ),
}


def _right(text: str, why: str) -> Option:
    return Option(text, why, right=True)


QUIZ = (
    Question(
        "Training a linear model to the end on one task moves the weights …",
        (
            Option("to the solution of the task with the least norm.", "Only from zero. From w it is the nearest one."),
            _right(
                "to the nearest weights that solve the task.",
                "Gradients stay in the row space of the task, so the rest of the weights cannot move.",
            ),
            Option("towards the joint solution of all tasks.", "It does get closer to it, but does not aim at it."),
        ),
        goal=1,
    ),
    Question(
        "Tasks 0, 1, 0 were learnt. Their losses at the end are 0 and 0.3. The forgetting F(3) is …",
        (
            Option("0.3", "That is the loss of task 1 alone."),
            Option("0.15", "That averages over two tasks; F averages over the three steps."),
            _right("0.1", "Task 0 counts twice with loss 0, task 1 once: 0.3 / 3."),
        ),
        goal=1,
    ),
    Question(
        "Two tasks are learnt alternately, very often. Which pairs are worst then?",
        (
            Option(
                "Those at 45 degrees.", "They are worst after one visit each; repetition then reduces the error fast."
            ),
            _right(
                "Those at a small angle.",
                "The worst angle is about 1/√k: between nearly equal tasks the error shrinks most slowly.",
            ),
            Option("Those at 90 degrees.", "Orthogonal tasks are not forgotten at all."),
        ),
        goal=2,
    ),
    Question(
        "After 1000 tasks, two learnt alternately, the forgetting is 5 · 10⁻⁷. Where are the weights?",
        (
            _right(
                "They may be almost as far from the joint solution as at the start.",
                "At an angle of 0.001 the squared distance is still 0.999 of what it was.",
            ),
            Option("They are within 5 · 10⁻⁷ of it.", "Loss and distance differ by the angle squared."),
            Option("They have converged.", "They will, but no rate holds for all tasks."),
        ),
        goal=2,
    ),
    Question(
        "The bound for random orders has no T² in it, that for cycles has. So on your tasks a random order …",
        (
            Option("forgets less than a cycle.", "On the digits of section 6 it forgets more."),
            Option("forgets T² times less.", "That compares two worst cases, each with tasks of its own."),
            _right(
                "may forget more or less: bounds speak of the worst tasks.",
                "On benign tasks a cycle is better, because no task waits long for its next visit.",
            ),
        ),
        goal=3,
    ),
    Question(
        "A forecast says: worst forgetting 0.12 after one pass, 0.002 after 100 tasks, learnt alternately. What do you "
        "do?",
        (
            _right(
                "Go round again several times, or mix the tasks.",
                "Repetition reduces it: the forecast falls with the number of visits.",
            ),
            Option("Nothing: 0.12 is small.", "For features of norm 1 that is an eighth of the squared solution."),
            Option("Give up: the tasks do not fit together.", "They do: one pass is too short, that is all."),
        ),
        goal=3,
    ),
)
