"""Bad input is refused at the door, with the argument's name."""

import numpy as np
import pytest

from lib.validation import finite_array, positive_array, positive_integer, regression_data


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: finite_array("w", ["a"]), TypeError, "w must hold real numbers"),
        (lambda: finite_array("w", [1j]), TypeError, "w must hold real numbers"),
        (lambda: finite_array("w", [np.inf, np.nan, 1]), ValueError, "2 of its 3 entries are NaN"),
        (lambda: finite_array("w", [1], ndim=2), ValueError, "w must have 2 axes"),
        (lambda: finite_array("w", [1], shape=(2,)), ValueError, r"w must have shape \(2,\)"),
        (lambda: positive_array("k", [1, -1]), ValueError, "k must be positive"),
        (lambda: positive_integer("n", 1.0), TypeError, "n must be an integer"),
        (lambda: positive_integer("n", True), TypeError, "n must be an integer"),
        (lambda: regression_data([[1]], [1, 2]), ValueError, "as many rows"),
        (lambda: regression_data([1], [1]), ValueError, "X must have 2 axes"),
        (lambda: regression_data(np.ones((0, 3)), np.ones(0)), ValueError, "X must not be empty"),
    ],
)
def test_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
