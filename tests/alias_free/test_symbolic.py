"""The algebra behind the polynomial activation, and that the numbers follow it."""

import itertools

import numpy as np
import pytest

from lib.alias_free import dealias_size, evaluate_polynomial
from lib.alias_free.symbolic import grid_sizes, tone_spectrum


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_amplitudes_are_those_of_a_transform(degree: int) -> None:
    rng = np.random.default_rng(degree)
    coefficients, tone, mean, frequency, points = rng.standard_normal(degree + 1), 0.4 - 0.7j, 0.3, 3, 64
    turn = np.exp(2j * np.pi * frequency * np.arange(points) / points)
    found = np.fft.fft(evaluate_polynomial(mean + 2 * (tone * turn).real, coefficients)) / points
    numbers = {"a": tone, "abar": tone.conjugate(), "b": mean} | {f"c{j}": c for j, c in enumerate(coefficients)}
    wanted = np.zeros(points, complex)
    for multiple, amplitude in tone_spectrum(degree).items():
        wanted[multiple * frequency] = complex(amplitude.subs(numbers))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("even", [False, True])
def test_the_grid_is_the_one_that_the_layers_use(even: bool) -> None:
    side, points = grid_sizes(even=even)
    for m, d in itertools.product(range(1, 30), range(2, 7)):
        assert dealias_size(int(side.subs("m", m)), d) == points.subs({"m": m, "d": d})
    # a polynomial of degree 1 widens nothing
    assert [dealias_size(n, 1) for n in (1, 2, 7)] == [1, 2, 7]
