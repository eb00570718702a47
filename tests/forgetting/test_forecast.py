import numpy as np
import pytest

from lib.forgetting import (
    TaskCollection,
    cyclic_ordering,
    fit_sequence,
    forgetting,
    forgetting_forecast,
    row_space,
    worst_case_forgetting,
)


def test_it_is_what_happens(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((4, 12)), rng.standard_normal((5, 12))
    forecast = forgetting_forecast(a, b, steps=(10, 2, 5))
    assert forecast.steps.tolist() == [2, 5, 10]
    rows = [row_space(a), row_space(b)]
    solutions = rng.standard_normal((2000, 9)) @ row_space(np.concatenate([a, b])).T
    solutions /= np.linalg.norm(solutions, axis=1, keepdims=True)
    for place, k in enumerate(forecast.steps):
        order = cyclic_ordering(2, int(k))
        assert forecast.worst[place] == pytest.approx(worst_case_forgetting(rows, order)[0], rel=1e-9)
        lost = [forgetting(TaskCollection([r.T for r in rows], w_star=w), order)[-1] for w in solutions[:400]]
        assert forecast.mean[place] == pytest.approx(np.mean(lost), rel=0.2)
        tasks = TaskCollection([r.T for r in rows], w_star=solutions[0])
        assert np.sum((fit_sequence(tasks, order)[-1] - tasks.offline) ** 2) <= forecast.distance[place] + 1e-12


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), np.sin(angle), 0.0]])


@pytest.mark.parametrize(
    ("degrees", "words"),
    [
        (0, "learn one task after the other."),
        (90, "learn one task after the other."),
        (45, "10 tasks learnt alternately forget less than 1%."),
        (12, "mix examples of both tasks. The weights may stay far"),
        (2, "learn one task after the other. The weights may stay far"),
    ],
)
def test_advice_follows_the_angle(degrees: float, words: str) -> None:
    assert words in str(forgetting_forecast(turned(0), turned(degrees), steps=(2, 4, 10)))


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="features_b must have the 2 features"):
        forgetting_forecast([[1.0, 2.0]], [[1.0]])
    with pytest.raises(ValueError, match="steps must be a list of at least one"):
        forgetting_forecast([[1.0]], [[1.0]], steps=())
