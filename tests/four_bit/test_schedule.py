"""The schedule of fine-tuning."""

import numpy as np
import pytest

from lib.four_bit import fnt_lr


def test_the_schedule_is_a_triangle() -> None:
    rates = [fnt_lr(t, 100, 0.001, 0.1) for t in range(101)]
    assert rates[0] == 0.001
    assert rates[50] == max(rates) == pytest.approx(0.1)
    assert rates[100] == 0.0
    np.testing.assert_allclose(np.diff(rates[:51]), (0.1 - 0.001) / 50)
    np.testing.assert_allclose(np.diff(rates[50:]), -0.1 / 50)


def test_a_step_behind_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="t must lie between"):
        fnt_lr(5, 4, 0.1, 0.1)
