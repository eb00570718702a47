"""Questions, checks and quizzes, by a made-up chapter's own."""

import numpy as np
import pytest

from lib import lesson
from lib.lesson import Checked, Exercise, Mistake, Option, Predict, Question, Quiz, check, predict, quiz

QUESTION = Question(
    "Which?", (Option("this", "No."), Option("that", "Since it is.", right=True), Option("none", "Odd."))
)
TWICE = Exercise(
    solution=lambda x: 2 * x,
    inputs=({"x": np.array([1.0, 2.0])}, {"x": np.array([0.0, 3.0])}),
    mistakes=(Mistake(lambda x: x**2, "That is the square."), Mistake(lambda x: -2 * x, "Mind the sign.")),
)
#: What a coin throws is right on average.
COIN = Exercise(
    solution=lambda x, rng: x + rng.uniform(-1, 1, len(x)),
    inputs=({"x": np.array([0.75]), "rng": np.random.default_rng(0)},),
    mistakes=(Mistake(lambda x, _: np.round(x), "That is rounding."), Mistake(lambda x, _: x + 1, "Too large.")),
    measure=lambda answer, x, rng: np.mean([answer(x, rng) for _ in range(4000)], axis=0),
    rtol=0.05,
)


@pytest.fixture(autouse=True)
def chapter(monkeypatch) -> None:
    names = type("names", (), {"EXERCISES": {"twice": TWICE, "coin": COIN}, "PREDICTIONS": {"which": QUESTION}})
    names.QUIZ = (QUESTION, QUESTION)
    monkeypatch.setattr(lesson, "_lesson", lambda _: names)


def test_a_check_tells_what_helps() -> None:
    assert repr(check("any.twice", lambda x: x + x)) == "✓ 2 of 2"
    assert repr(check("any.twice", lambda _: None)) == "○ not filled in yet"
    assert check("any.twice", lambda x: x**2).words == (
        "for x = [1.0, 2.0] yours gives [1.0, 4.0], it should be [2.0, 4.0]. That is the square."
    )
    for wrong, words in (
        (lambda x: 2 * x[0], "yours gives 2.0"),
        (lambda _: 1 / 0, "yours raises ZeroDivisionError: division by zero"),
        (lambda _: "two", "yours gives 'two'"),
        (lambda _: [[2.0, 4.0]], "it should be [2.0, 4.0]"),
        (lambda _: np.full(2, np.nan), "yours gives [nan, nan]"),
    ):
        found = check("any.twice", wrong)
        assert found.verdict == "✗"
        assert words in found.words, found


def test_an_answer_may_change_what_it_is_given() -> None:
    def twice(x):
        x *= 2
        return x

    assert check("any.twice", twice).verdict == check("any.twice", twice).verdict == "✓"


def test_random_answers_are_measured_by_their_mean() -> None:
    assert check("any.coin", lambda x, rng: x + rng.normal(size=len(x)) / 2).verdict == "✓"
    assert check("any.coin", lambda x, _: np.round(x)).words.endswith("That is rounding.")


def test_bad_names_and_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="name must be one of twice, coin; it is 'thrice'"):
        check("any.thrice", abs)
    with pytest.raises(TypeError, match="answer must be the function that you wrote; it is 4"):
        check("any.twice", 4)
    with pytest.raises(TypeError, match="explorer must be a live figure; it is None"):
        predict("any.which", None)
    for options in ((Option("a", "", right=True),), (Option("a", ""), Option("b", ""))):
        with pytest.raises(ValueError, match="two options or more, one of them right"):
            Question("Which?", options)


def test_a_quiz_takes_one_answer_each_and_counts() -> None:
    asked = quiz("any")
    assert isinstance(asked, Quiz)
    asked.asked[0].buttons[0].click()
    assert "Not quite: No. Since it is." in asked.asked[0].said.value
    assert asked.asked[0].buttons[0].description == "✗ a)  this"
    assert asked.asked[0].buttons[1].description == "✓ b)  that"
    assert "Score: 0 of 1, 1 to go" in asked.score.value
    asked.asked[1].buttons[1].click()
    assert "Right. Since it is." in asked.asked[1].said.value
    assert "Score: 1 of 2<" in asked.score.value
    assert repr(asked).splitlines() == [*f"1. {QUESTION}".splitlines(), *f"2. {QUESTION}".splitlines()]
    assert asked._repr_mimebundle_()["text/plain"] == repr(asked)


def test_words_of_a_reader_are_no_markup() -> None:
    assert "&lt;b&gt;" in Checked("✗", "<b>")._repr_html_()


def test_a_prediction_says_its_question_where_no_figure_can_run() -> None:
    from tests.test_tries import Square

    asked = predict("any.which", Square())
    assert isinstance(asked, Predict)
    live, metadata = asked._repr_mimebundle_()
    assert live["text/plain"] == f"Predict: {QUESTION}\n{asked.explorer!r}"
    assert "A square" in metadata["image/png"]["alt"]
    asked._skip.click()
    assert asked.explorer in asked.children
    assert "Since it is." in asked.asked.said.value
