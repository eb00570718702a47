"""What chapter 05 asks of its reader."""

from __future__ import annotations

from typing import Any

import numpy as np

from lib.lesson import Exercise, Mistake, Option, Question

__all__ = ["EXERCISES", "PREDICTIONS", "QUIZ", "TERMS"]

#: What the chapter defines, in bold, before it is used.
TERMS = (
    "N:M sparse",
    "greedy mask",
    "unbiased",
    "inclusion probability",
    "water-filling",
    "systematic sampling",
    "transposable",
)

PREDICTIONS = {
    "one_block": Question(
        "A block holds 1, 2, 3 and 3.5. Two entries are kept at random and rescaled so that the mean over many draws "
        "is the block itself. You choose how often each entry is kept. Which choice gives the least noise?",
        (
            Option(
                "Every entry half of the time, with twice its value.",
                "That is unbiased, but large entries then jump between 0 and twice their size.",
            ),
            Option(
                "In proportion to the size of the entries.",
                "Then all that are kept get the same magnitude, here 4.75, and no entry jumps further than it must. "
                "Drag the last entry up to see where this rule ends.",
                right=True,
            ),
            Option(
                "The two largest always.",
                "Then 1 and 2 are never kept, and no rescaling can make their mean right.",
            ),
        ),
    ),
    "wrong_point": Question(
        "Softmax regression is trained for 60 epochs while the learning rate falls to zero. Of every eight entries of "
        "the gradient one is kept: the largest, or one drawn at random without bias, which has six to seven times the "
        "squared error. Which of the two ends at the lower loss?",
        (
            Option(
                "The largest: the pruned gradient is nearer to the true one at every step.",
                "It is, but it errs in the same direction at every step. That moves the point where descent stops.",
            ),
            Option(
                "The random one.",
                "Its errors have mean zero and average out as the rate falls: it ends where dense training ends.",
                right=True,
            ),
            Option(
                "Both end at the same loss, one later than the other.",
                "Give the largest as many epochs as you like: its resting point is another one.",
            ),
        ),
    ),
    "tails": Question(
        "Being unbiased costs noise. For which gradients does it cost least?",
        (
            Option(
                "Where all entries have about the same size.",
                "That is the most expensive case: each dropped entry is as large as a kept one.",
            ),
            Option(
                "Where a few entries are much larger than the others.",
                "The large ones are kept for sure and exactly; only the small ones are left to chance. Gradients of "
                "networks are of this kind.",
                right=True,
            ),
            Option("It costs the same everywhere.", "Move sigma: the error falls by more than a factor of a hundred."),
        ),
    ),
    "ratio": Question(
        "The usual approximation draws two entries one after another, in proportion to their size. How much more "
        "variance than the best mask can it have?",
        (
            Option("None: it draws in proportion to size, too.", "So it does, but the second draw disturbs that."),
            Option(
                "Up to twice as much.",
                "With one dominant entry it comes as near to twice as you like; only at the limit would it be reached.",
                right=True,
            ),
            Option("Any amount.", "There is a bound: try all corners of the map."),
        ),
    ),
}

Array = np.ndarray[Any, Any]


def _one_of_two(a: Array, u: float) -> Array:
    total = np.abs(a).sum()
    if total == 0:
        return np.zeros(2)
    kept = 0 if u < abs(a[0]) / total else 1
    result = np.zeros(2)
    result[kept] = np.sign(a[kept]) * total
    return result


def _one_of_two_as_it_is(a: Array, u: float) -> Array:
    return np.where(_one_of_two(a, u) != 0, a, 0.0)


def _one_of_two_evenly(a: Array, u: float) -> Array:
    return np.array([2 * a[0], 0.0]) if u < 0.5 else np.array([0.0, 2 * a[1]])


def _chances(a: Array, n: int) -> Array:
    sizes = np.abs(a)
    sure = np.zeros(len(a), dtype=bool)
    while True:
        left = n - sure.sum()
        new = ~sure & (sizes > 0) & (sizes * left >= sizes[~sure].sum())
        if not new.any():
            break
        sure |= new
    rest = sizes[~sure].sum()
    return np.where(sure, 1.0, sizes * left / rest if rest > 0 else 0.0)


def _kept(P: Array, u: float) -> Array:
    ends = np.cumsum(P)
    starts = ends - P
    return np.asarray(np.floor(ends - u) != np.floor(starts - u))


EXERCISES = {
    "one_of_two": Exercise(
        solution=_one_of_two,
        inputs=(
            {"a": np.array([1.0, 3.0]), "u": 0.2},
            {"a": np.array([1.0, 3.0]), "u": 0.3},
            {"a": np.array([-2.0, 0.5]), "u": 0.7},
            {"a": np.array([0.0, -4.0]), "u": 0.9},
        ),
        mistakes=(
            Mistake(
                _one_of_two_as_it_is,
                "The right entry, with the wrong value: kept with chance P, it needs the value a / P for its mean to "
                "be a. Here that is the sum of both sizes.",
            ),
            Mistake(
                _one_of_two_evenly,
                "That is unbiased, but noisier than it need be: let the chance of an entry be its share of the sum.",
            ),
            Mistake(
                lambda a, u: np.abs(_one_of_two(a, u)),
                "The sizes are right. An entry keeps its sign.",
            ),
        ),
    ),
    "chances": Exercise(
        solution=_chances,
        inputs=(
            {"a": np.array([1.0, 2.0, 3.0, 2.0]), "n": 2},
            {"a": np.array([1.0, -2.0, 1.0, 12.0]), "n": 2},
            {"a": np.array([1.0, 2.0, 10.0, 100.0]), "n": 3},
            {"a": np.array([0.0, 5.0, 0.0, 1.0]), "n": 1},
        ),
        mistakes=(
            Mistake(
                lambda a, n: n * np.abs(a) / np.abs(a).sum(),
                "A probability is at most 1: an entry that would get more is kept for sure, and the others share what "
                "is left.",
            ),
            Mistake(
                lambda a, n: np.minimum(1, n * np.abs(a) / np.abs(a).sum()),
                "Now they no longer add up to n: after an entry is cut off at 1, share what is left among the others.",
            ),
        ),
    ),
    "comb": Exercise(
        solution=_kept,
        inputs=(
            {"P": np.array([0.25, 0.5, 0.75, 0.5]), "u": 0.4},
            {"P": np.array([0.25, 0.5, 0.75, 0.5]), "u": 0.1},
            {"P": np.array([0.2, 0.7, 0.1, 1.0]), "u": 0.85},
            {"P": np.array([0.5, 0.5]), "u": 0.6},
        ),
        mistakes=(
            Mistake(
                lambda P, u: u < P,
                "Each chance is right, but not the number: exactly n must be kept. Lay the chances end to end first.",
            ),
            Mistake(
                lambda P, u: _kept(P, 0 * u),
                "The comb must be shifted by u; without that the same entries are kept every time.",
            ),
        ),
    ),
}


def _right(text: str, why: str) -> Option:
    return Option(text, why, right=True)


QUIZ = (
    Question(
        "A 1:2 block holds 1 and −3. With the best unbiased mask the second entry …",
        (
            _right("is kept three times out of four, with the value −4.", "3/4 · (−4) = −3."),
            Option("is always kept, with the value −3.", "Then the mean of the first entry would be 0, not 1."),
            Option("is kept every second time, with the value −6.", "Unbiased, with variance 9 + 1 instead of 6."),
        ),
        goal=1,
    ),
    Question(
        "A 2:4 block holds 1, 2, 1 and 12. What happens to the 12?",
        (
            Option("It is kept with probability 2 · 12 / 16.", "That is 1.5, which is no probability."),
            _right(
                "It is always kept, exactly as it is.",
                "It is larger than the other three together, and these share the second place.",
            ),
            Option("It gets the value 8, half of the sum.", "Then its mean would be at most 8."),
        ),
        goal=1,
    ),
    Question(
        "Keeping the largest entries has the smaller squared error at every step. Why is it wrong for gradients?",
        (
            Option("It is slower to compute.", "It is about as fast; speed is not the point."),
            _right(
                "Its errors do not average out over the steps.",
                "The mean of the mask is not the gradient, so descent settles where the pruned gradient vanishes.",
            ),
            Option(
                "Its gradients are too small, which a larger learning rate repairs.", "Their direction is off, too."
            ),
        ),
        goal=2,
    ),
    Question(
        "For weights in the forward pass, which mask would you take?",
        (
            _right(
                "The largest entries.",
                "The loss is not linear in the weights: a mean that is right does not survive, and the smallest error "
                "is what counts.",
            ),
            Option(
                "The unbiased one.", "Its noise goes through a function that is not linear, which makes a bias of it."
            ),
            Option(
                "None: only gradients can be pruned.", "Weights were pruned first; sparse products began with them."
            ),
        ),
        goal=2,
    ),
    Question(
        "The update dW = δᵀX sums over the batch. Along which dimension must δ be pruned for that product?",
        (
            _right(
                "Along the batch.",
                "Hardware skips what is zero in blocks along the dimension that the product sums over.",
            ),
            Option("Along the outputs.", "That is for dX = δW, which sums over the outputs."),
            Option("Along either; the numbers are right both times.", "They are, but only one of them is faster."),
        ),
        goal=3,
    ),
    Question(
        "The planner says that 1:2 adds 0.3 of a layer's mini-batch noise. So training with it is …",
        (
            Option("30% slower.", "It says nothing about time."),
            _right(
                "like training that layer with a batch that is 1.3 times smaller.",
                "Both noises have mean zero, and their variances add up.",
            ),
            Option("30% less accurate.", "Noise without bias averages out; how much is left depends on the schedule."),
        ),
        goal=3,
    ),
)
