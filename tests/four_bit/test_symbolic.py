"""The derivations in sympy, and the fit of the clip, against brute force."""

import numpy as np
import pytest
import sympy as sp

from lib.four_bit import symbolic
from lib.four_bit.clipping_fit import fit_sawb


def test_moments_of_one_rounded_number_are_those_of_two_outcomes() -> None:
    m = symbolic.rounding_moments()
    point = {m.x: 2.3, m.low: 2.0, m.high: 4.0, m.chance: 0.4}
    values, chances = np.array([2.0, 4.0]), np.array([0.6, 0.4])
    mean = chances @ values
    assert float(m.bias.subs(point)) == pytest.approx(mean - 2.3)
    assert float(m.variance.subs(point)) == pytest.approx(chances @ (values - mean) ** 2)
    assert float(m.mean_squared_error.subs(point)) == pytest.approx(chances @ (values - 2.3) ** 2)
    assert float(m.position.subs(point)) == pytest.approx(0.15)


def test_mean_squared_errors_are_those_of_a_fine_grid() -> None:
    x = (np.arange(100_000) + 0.5) / 100_000
    width = sp.Symbol("d", positive=True)
    stochastic, nearest = (float(error.subs(width, 1)) for error in symbolic.mean_squared_errors())
    assert stochastic == pytest.approx(np.mean(x * (1 - x)), rel=1e-8)
    assert nearest == pytest.approx(np.mean(np.minimum(x, 1 - x) ** 2), rel=1e-8)


def test_the_power_of_two_cancels_and_the_largest_relative_variance_is_an_eighth() -> None:
    t, ratio = symbolic.relative_variance()
    assert ratio.free_symbols == {t}
    places = np.linspace(1, 2, 3001)
    values = sp.lambdify(t, ratio)(places)
    assert values.max() == pytest.approx(1 / 8)
    assert places[values.argmax()] == pytest.approx(4 / 3)


def test_numbers_between_the_two_midpoints_disagree() -> None:
    exponents = (np.arange(100_000) + 0.5) / 100_000
    disagree = np.round(exponents) != (2**exponents >= 1.5)
    assert float(symbolic.exponent_rounding_disagreement()) == pytest.approx(disagree.mean(), abs=1e-5)


@pytest.mark.parametrize("levels", [7, 15, 17])
def test_best_clips_are_those_of_samples(levels: int) -> None:
    """Evenly spread quantiles of the distributions with a closed form, and a fine grid of clips."""
    fit = fit_sawb(levels)
    u = (np.arange(50_000) + 0.5) / 50_000
    samples = {"uniform": u, "Laplace": -np.log1p(-u), "logistic": 2 * np.arctanh(u), "triangular": 1 - np.sqrt(1 - u)}
    for name, x in samples.items():
        place = fit.distributions.index(name)
        best = fit.clips[place] * x.mean()
        clips = best * np.linspace(0.8, 1.2, 81)
        scales = clips[:, None] / (levels // 2)
        lost = ((np.minimum(np.rint(x / scales), levels // 2) * scales - x) ** 2).mean(axis=1)
        assert clips[lost.argmin()] == pytest.approx(best, rel=0.011)
        assert fit.moments[place] == pytest.approx(np.sqrt(np.mean(x**2)) / x.mean(), rel=1e-3)


def test_the_line_goes_through_the_points_as_least_squares_asks() -> None:
    fit = fit_sawb(15)
    residuals = fit.clips - (fit.coeffs[0] * fit.moments - fit.coeffs[1])
    assert residuals.sum() == pytest.approx(0, abs=1e-9)
    assert residuals @ fit.moments == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("levels", [1, 16, 0])
def test_a_grid_that_is_not_symmetric_is_refused(levels: int) -> None:
    with pytest.raises(ValueError, match="levels must be"):
        fit_sawb(levels)
