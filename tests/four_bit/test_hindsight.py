"""The guessed maximum: made from the past, kept and restored."""

import pytest
import torch

from lib.four_bit import HindsightMax

X, NAN = torch.tensor([64.0, -3.0, 0.25, 0.0]), float("nan")


def test_the_guess_uses_the_past_only() -> None:
    estimate = HindsightMax(0.9)
    values = [float(estimate.update(torch.tensor([-peak, 0.5]))) for peak in (1.0, 2.0, 2.0)]
    assert values == pytest.approx([1.0, 1.0, 1.1])
    assert estimate.clipped_fraction == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"estimate": None, "seen": 0}, "lacks clipped"),
        ({"estimate": torch.tensor(NAN), "clipped": 0, "seen": 1}, "estimate must be finite"),
        ({"estimate": torch.tensor(-1.0), "clipped": 0, "seen": 1}, "estimate must be at least 0"),
        ({"estimate": torch.ones(2), "clipped": 0, "seen": 1}, "estimate must have 0 axes"),
        ({"estimate": None, "clipped": 2, "seen": 1}, "clipped must be at most"),
    ],
)
def test_a_broken_state_is_refused_and_changes_nothing(state, message) -> None:
    estimate = HindsightMax()
    estimate.update(X)
    before = estimate.state_dict()
    with pytest.raises((TypeError, ValueError), match=message):
        estimate.load_state_dict(state)
    assert estimate.state_dict() == before


def test_nothing_that_a_caller_holds_changes_what_is_kept() -> None:
    estimate = HindsightMax()
    estimate.update(X)
    state = estimate.state_dict()
    state["estimate"].fill_(NAN)
    assert float(estimate.state_dict()["estimate"]) == 64.0
    given = {"estimate": torch.tensor(2.0), "clipped": 0, "seen": 4}
    estimate.load_state_dict(given)
    given["estimate"].fill_(NAN)
    assert float(estimate.update(X)) == 2.0
