"""The map of outcomes, against single runs of descent."""

import numpy as np
import pytest

from lib.edge_of_stability import OUTCOMES, gd_path, phase_map
from lib.edge_of_stability.phase_map import _PART
from tests.needs import needs_gpu


def outcome(w1: float, w2: float, eta: float, target: float, n_steps: int) -> str:
    """The same by one run in plain floats, judged by the words of the documentation."""
    path, diverged = gd_path([w1, w2], eta, n_steps, target)
    product = path.prod(axis=1)
    if diverged:
        return "diverged"
    if np.any(path * path[0] <= 0):
        return "left the orthant"
    if abs(product[-1] - target) < 1e-3 and abs(product[-2] - target) < 1e-3:
        return "converged"
    return "two-cycle" if abs(product[-1] - product[-3]) < 1e-3 * abs(product[-1] - product[-2]) else "still moving"


@pytest.mark.parametrize(("eta", "target"), [(0.2, 1.0), (0.5, 1.0), (0.97, 1.0), (1.05, 1.0), (0.4, -1.5)])
def test_map_agrees_with_single_runs(eta: float, target: float) -> None:
    rng = np.random.default_rng(0)
    w1, w2 = rng.uniform(0.05, 3, (2, 300))
    w2 *= np.sign(target)
    found = phase_map(w1, w2, eta, target=target)
    expected = [outcome(a, b, eta, target, 200) for a, b in zip(w1, w2, strict=True)]
    # the last steps of a map are summed in another order: a start on the very edge of two outcomes may differ
    same = np.mean([OUTCOMES[number] == word for number, word in zip(found, expected, strict=True)])
    assert same > 0.99


def test_all_outcomes_occur() -> None:
    axis = np.linspace(0.05, 3, 60)
    w1, w2 = np.meshgrid(axis, axis)
    seen = np.unique(np.concatenate([phase_map(w1, w2, eta).ravel() for eta in (0.5, 0.99, 1.05)]))
    assert [OUTCOMES[number] for number in seen] == list(OUTCOMES)


def test_signs_of_both_weights_may_be_turned_together_and_parts_do_not_matter(monkeypatch) -> None:
    axis = np.linspace(0.05, 3, 40)
    w1, w2 = np.meshgrid(axis, axis)
    whole = phase_map(w1, w2, 0.5)
    np.testing.assert_array_equal(phase_map(-w1, -w2, 0.5), whole)
    np.testing.assert_array_equal(phase_map(w2, w1, 0.5), whole)
    monkeypatch.setitem(_PART, "cpu", 7)
    np.testing.assert_array_equal(phase_map(w1, w2, 0.5), whole)
    assert whole.shape == (40, 40)
    assert whole.dtype == np.uint8


@needs_gpu
def test_the_same_on_a_gpu() -> None:
    axis = np.linspace(0.05, 3, 400)
    w1, w2 = np.meshgrid(axis, axis)
    assert (phase_map(w1, w2, 0.5, device="cuda") == phase_map(w1, w2, 0.5)).mean() > 0.999


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: phase_map([1.0], [1.0, 2.0], 0.5), "must have one shape"),
        (lambda: phase_map([0.0], [1.0], 0.5), "must not hold zeros"),
        (lambda: phase_map([1.0], [1.0], 0.5, n_steps=1), "n_steps must be at least 2"),
        (lambda: phase_map([1.0], [1.0], 0.5, target=0.0), "target must be finite"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
