import numpy as np
import pytest
from scipy.optimize import minimize

from lib.forgetting.margins import four_weight_outputs, four_weight_tasks, nearest_with_margin


def test_the_nearest_weights_are_nearest(rng: np.random.Generator) -> None:
    for _ in range(10):
        x, start = rng.standard_normal(2), rng.standard_normal(4)
        found = nearest_with_margin(start, x)
        assert four_weight_outputs(found, x) >= 1 - 1e-9
        distance = np.sum((found - start) ** 2)
        for _ in range(5):
            margin = {"type": "ineq", "fun": lambda w, x=x: four_weight_outputs(w, x) - 1}
            other = minimize(
                lambda w, start=start: np.sum((w - start) ** 2),
                start + rng.standard_normal(4),
                constraints=[margin],
                method="SLSQP",
                options={"ftol": 1e-12, "maxiter": 300},
            )
            if other.success and margin["fun"](other.x) > -1e-9:
                assert distance <= other.fun + 1e-6


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="x must not be empty or zero"):
        nearest_with_margin([0.0, 0.0], [0.0])
    with pytest.raises(ValueError, match="gap must"):
        four_weight_tasks(0.5)
