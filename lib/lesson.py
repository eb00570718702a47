"""What a chapter asks of its reader: a prediction before a figure, exercises that are checked, a quiz.

A chapter declares its questions and exercises in `lib/<chapter>/lesson.py`; a notebook asks them by name:

    predict("edge_of_stability.too_large", explorers.ScalarLab())
    check("edge_of_stability.flow_end", flow_end)
    quiz("edge_of_stability")

Right answers stand in the package, so that a notebook can be read from top to bottom without seeing them.
"""

from __future__ import annotations

import copy
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np

from lib.chapters import chapter
from lib.validation import one_of

if TYPE_CHECKING:
    from types import ModuleType

    from lib.explorer import Explorer

__all__ = ["Checked", "Exercise", "Mistake", "Option", "Predict", "Question", "Quiz", "check", "predict", "quiz"]


@dataclass(frozen=True)
class Option:
    """One answer to a question, and what is said to a reader who chooses it."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question with one right answer; `goal` is the number of the learning goal that it belongs to."""

    text: str
    options: tuple[Option, ...]
    goal: int = 0

    def __post_init__(self) -> None:
        if len(self.options) < 2 or sum(option.right for option in self.options) != 1:
            raise ValueError(f"a question must have two options or more, one of them right: {self.text!r}")

    @property
    def right(self) -> Option:
        """The right option."""
        return next(option for option in self.options if option.right)

    def lettered(self) -> list[tuple[str, str]]:
        """The options' texts with their letters."""
        return [("abcdefgh"[place], option.text) for place, option in enumerate(self.options)]

    def __str__(self) -> str:
        return "\n".join([self.text, *(f"  {letter}) {text}" for letter, text in self.lettered())])


# a button of ipywidgets cuts its text off where the line ends
_STYLE = """<style>.paperplay-option.jupyter-button {white-space: normal; height: auto; min-height: 30px;
  line-height: 1.35; padding: 5px 10px; text-align: left; overflow: visible}
  .paperplay-option.jupyter-button.mod-success, .paperplay-option.jupyter-button.mod-danger {color: white; opacity: 1}
  </style>"""


class _Asked(widgets.VBox):
    """A question with a button for each option; the first press counts, and says what is right and why."""

    def __init__(self, question: Question, on_answer: Callable[[bool], None], heading: str = "") -> None:
        self.question, self.on_answer = question, on_answer
        wide = widgets.Layout(width="auto", max_width="900px")
        self.buttons = [
            widgets.Button(description=f"{letter})  {text}", layout=wide) for letter, text in question.lettered()
        ]
        for number, button in enumerate(self.buttons):
            button.add_class("paperplay-option")
            button.on_click(lambda _, number=number: self.answer(number))
        self.said = widgets.HTML()
        text = f"<b>{html.escape(heading + question.text)}</b>"
        super().__init__([widgets.HTML(_STYLE + text), *self.buttons, self.said])

    def answer(self, number: int) -> None:
        """Choose an option."""
        chosen, right = self.question.options[number], self.question.right
        self.show(number)
        self.say(f"Right. {right.why}" if chosen is right else f"Not quite: {chosen.why} {right.why}")
        self.on_answer(chosen is right)

    def show(self, number: int | None = None) -> None:
        """Mark the right option, and the chosen one; no button answers any more."""
        for place, (button, option) in enumerate(zip(self.buttons, self.question.options, strict=True)):
            button.disabled = True
            mark = "✓ " if option.right else "✗ " if place == number else ""
            button.description = mark + button.description
            button.button_style = "success" if option.right else "danger" if place == number else ""

    def say(self, words: str) -> None:
        """Words below the options, which a screen reader reads out when they change."""
        self.said.value = f'<div role="status" style="line-height:1.4">{html.escape(words)}</div>'


class Predict(widgets.VBox):
    """A question in front of an explorer, which shows itself when the reader has answered, or asks to see it.

    Examples:
        >>> from lib.edge_of_stability.explorers import ScalarLab
        >>> asked = predict("edge_of_stability.too_large", ScalarLab())
        >>> asked.explorer in asked.children
        False
        >>> asked.asked.answer(0)
        >>> asked.explorer in asked.children
        True
    """

    def __init__(self, question: Question, explorer: Explorer) -> None:
        from lib.explorer import Explorer

        if not isinstance(explorer, Explorer):
            raise TypeError(f"explorer must be a live figure; it is {explorer!r}")
        self.explorer = explorer
        self.asked = _Asked(question, lambda _: self.reveal(), "Predict: ")
        self._skip = widgets.Button(description="Show me without an answer", layout=widgets.Layout(width="auto"))
        self._skip.on_click(lambda _: self.skip())
        # not merely hidden: a figure that is drawn while it is hidden keeps a width of 700 pixels
        super().__init__([self.asked, self._skip])

    def reveal(self) -> None:
        """Show the explorer."""
        self.children = [self.asked, self.explorer]

    def skip(self) -> None:
        """Show the right answer and the explorer."""
        self.asked.show()
        self.asked.say(self.asked.question.right.why)
        self.reveal()

    def __repr__(self) -> str:
        return f"Predict: {self.asked.question}\n{self.explorer!r}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.explorer.bundle(super()._repr_mimebundle_(**kwargs), repr(self), str(self.asked.question))


class Quiz(widgets.VBox):
    """Questions with a score; each takes one answer."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.right = self.answered = 0
        self.asked = [
            _Asked(question, self._count, f"{number}. ") for number, question in enumerate(questions, start=1)
        ]
        self.score = widgets.HTML()
        super().__init__([*self.asked, self.score])
        self._say()

    def _count(self, right: bool) -> None:
        self.answered += 1
        self.right += right
        self._say()

    def _say(self) -> None:
        left = len(self.asked) - self.answered
        words = f"Score: {self.right} of {self.answered}" + (f", {left} to go" if left else "")
        self.score.value = f'<div role="status"><b>{words}</b></div>'

    def __repr__(self) -> str:
        return "\n".join(f"{number}. {one.question}" for number, one in enumerate(self.asked, start=1))

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        live = super()._repr_mimebundle_(**kwargs)
        return {**live, "text/plain": repr(self)}


@dataclass(frozen=True)
class Mistake:
    """A usual wrong answer to an exercise, and what helps whoever gives it."""

    answer: Callable[..., Any]
    helps: str


@dataclass(frozen=True)
class Exercise:
    """A function for the reader to write.

    Attributes:
        solution: The right one.
        inputs: The arguments that it is tried with, by their names in the message.
        mistakes: Usual wrong ones, at least two: who gives the same numbers is told what helps.
        measure: What is compared, from the answer and the arguments; by default what the answer returns. An answer that
            draws random numbers is measured by its mean.
        rtol: Relative difference at which numbers still count as the same.
    """

    solution: Callable[..., Any]
    inputs: tuple[Mapping[str, Any], ...]
    mistakes: tuple[Mistake, ...]
    measure: Callable[..., Any] | None = None
    rtol: float = 1e-6

    def value(self, answer: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """What is compared, for one set of arguments."""
        own = copy.deepcopy(dict(arguments))  # an answer may change what it is given
        return answer(*own.values()) if self.measure is None else self.measure(answer, *own.values())

    def same(self, yours: Any, right: Any) -> bool:
        """Whether two values agree: numbers or arrays of numbers of one shape."""
        try:
            found, expected = np.asarray(yours, dtype=float), np.asarray(right, dtype=float)
        except (TypeError, ValueError):
            return False
        return found.shape == expected.shape and np.allclose(found, expected, rtol=self.rtol, atol=1e-12)


@dataclass(frozen=True)
class Checked:
    """What a check found: `verdict` is "○", "✗" or "✓"."""

    verdict: str
    words: str

    def __repr__(self) -> str:
        return f"{self.verdict} {self.words}"

    def _repr_html_(self) -> str:
        colour = {"✓": "#1a7f37", "✗": "#b3261e"}.get(self.verdict, "inherit")
        return f'<span role="status"><b style="color:{colour}">{self.verdict}</b> {html.escape(self.words)}</span>'


def _lesson(name: str) -> ModuleType:
    return import_module(f"lib.{chapter(name).name}.lesson")


def _named(kind: str, name: str) -> Any:
    """A question or an exercise by `chapter.name`."""
    of, _, own = name.partition(".")
    found = getattr(_lesson(of), kind)
    return found[one_of("name", own, tuple(found))]


def predict(name: str, explorer: Explorer) -> Predict:
    """Ask a question of a chapter, `"chapter.name"`, before an explorer is seen."""
    return Predict(_named("PREDICTIONS", name), explorer)


def quiz(name: str) -> Quiz:
    """The quiz of a chapter."""
    return Quiz(_lesson(name).QUIZ)


def check(name: str, answer: Callable[..., Any]) -> Checked:
    """Try the reader's function, on all inputs of the exercise `"chapter.name"`.

    Examples:
        >>> check("edge_of_stability.one_step", lambda w, eta: None)
        ○ not filled in yet
        >>> check("edge_of_stability.one_step", lambda w, eta: w)
        ✗ for w = [2.0, 0.4], eta = 0.5 yours gives [2.0, 0.4], it should be [2.04, 0.6]
    """
    exercise: Exercise = _named("EXERCISES", name)
    if not callable(answer):
        raise TypeError(f"answer must be the function that you wrote; it is {answer!r}")
    done = 0
    for arguments in exercise.inputs:
        where = "for " + ", ".join(f"{key} = {_short(value)}" for key, value in arguments.items())
        try:
            yours = exercise.value(answer, arguments)
        except Exception as error:  # whatever a reader's lines raise is what they need to be told
            return Checked("✗", f"{where} yours raises {type(error).__name__}: {error}")
        if yours is None:
            return Checked("○", "not filled in yet")
        right = exercise.value(exercise.solution, arguments)
        if exercise.same(yours, right):
            done += 1
            continue
        helps = [one.helps for one in exercise.mistakes if exercise.same(yours, exercise.value(one.answer, arguments))]
        words = f"{where} yours gives {_short(yours)}, it should be {_short(right)}"
        return Checked("✗", ". ".join([words, *helps[:1]]))
    return Checked("✓", f"{done} of {len(exercise.inputs)}")


def _short(value: Any) -> str:
    """A value in few characters."""
    if isinstance(value, (list, tuple)) and any(isinstance(each, np.ndarray) for each in value):
        return f"[{', '.join(map(_short, value))}]"  # a matrix for each task, of different sizes
    if isinstance(value, (int, float, np.number, np.ndarray, list, tuple)):
        rounded = np.round(np.asarray(value, dtype=float), 6).tolist()
        return str(rounded if np.size(value) <= 8 else f"an array of shape {np.shape(value)}")
    return repr(value) if len(repr(value)) < 60 else type(value).__name__
