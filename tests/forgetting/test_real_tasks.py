"""Tasks made of real data."""

import numpy as np
import pytest

from lib.forgetting import diabetes_tasks, digit_tasks
from lib.forgetting.tasks import TaskCollection


@pytest.mark.parametrize("make", [digit_tasks, diabetes_tasks])
def test_one_solution_answers_all_tasks_and_is_found_with_the_seed(make) -> None:
    tasks, again, other = make(), make(seed=0), make(seed=1)
    assert isinstance(tasks, TaskCollection)
    for rows, targets in zip(tasks.X, tasks.y, strict=True):
        assert np.linalg.norm(rows, 2) == pytest.approx(1)
        assert rows @ tasks.w_star == pytest.approx(targets, abs=1e-8)
    assert np.array_equal(tasks.w_star, again.w_star)
    assert not np.allclose(tasks.w_star, other.w_star)


def test_more_examples_than_features_are_refused() -> None:
    with pytest.raises(ValueError, match="more features"):
        digit_tasks(count=30, features=100)


@pytest.mark.parametrize("make", [digit_tasks, diabetes_tasks])
def test_more_examples_than_there_are_are_refused(make) -> None:
    with pytest.raises(ValueError, match="count must be at most"):
        make(count=400)
