"""The grid that holds a polynomial's spectrum is sharp, and the quadratic is that of GELU."""

import numpy as np
import pytest
import torch

from lib.alias_free import (
    GELU_QUADRATIC,
    dealias_size,
    evaluate_polynomial,
    fit_activation,
    fourier_shift,
    resample_matrix,
)
from lib.alias_free.polynomials import gelu


def error_on(n: int, degree: int, grid: int) -> float:
    """Of a polynomial that is applied on a grid, against the same on one that is large beyond doubt."""
    rng = np.random.default_rng((n, degree))
    # much of the highest frequency, whose powers reach farthest
    tone = np.cos(2 * np.pi * (n // 2) * np.arange(n) / n + (0.3 if n % 2 else 0.0))
    x, coefficients = torch.from_numpy(tone + 0.1 * rng.standard_normal(n)), 1 + rng.random(degree + 1)
    results = []
    for size in (grid, 8 * n * degree):
        fine = resample_matrix(n, size) @ x
        values = torch.from_numpy(np.polynomial.polynomial.polyval(fine.numpy(), coefficients))
        results.append(resample_matrix(size, n) @ values)
    # a coarser grid than the samples' own would resample them down
    return float((results[0] - results[1]).abs().max() / results[1].abs().max())


@pytest.mark.parametrize("n", [*range(5, 17), 28])
@pytest.mark.parametrize("degree", [2, 3, 4, 5])
def test_the_grid_is_large_enough_and_none_smaller_is(n: int, degree: int) -> None:
    size = dealias_size(n, degree)
    assert error_on(n, degree, size) < 1e-11
    assert error_on(n, degree, size - 1) > 1e-7


def test_sizes_by_the_formula_of_the_brief() -> None:
    for n in range(1, 60):
        for degree in range(2, 6):
            wanted = -(-(degree + 1) * n // 2) if n % 2 == 0 else (degree + 1) * (n - 1) // 2 + 1
            assert dealias_size(n, degree) == wanted
        assert dealias_size(n, 1) == n


def test_the_quadratic_of_gelu() -> None:
    np.testing.assert_allclose(GELU_QUADRATIC, fit_activation(), rtol=0, atol=1e-14)
    x = np.linspace(-3, 3, 50)
    np.testing.assert_allclose(gelu(x), torch.nn.functional.gelu(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-14)
    # the odd part of GELU is x / 2
    np.testing.assert_allclose(gelu(x) - gelu(-x), x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("degree", [1, 2, 3, 8])
def test_a_polynomial_is_its_own_fit(degree: int) -> None:
    coefficients = np.random.default_rng(degree).standard_normal(degree + 1)
    fitted = fit_activation(lambda x: np.polynomial.polynomial.polyval(x, coefficients), degree, half_width=2.0)
    np.testing.assert_allclose(fitted, coefficients, rtol=0, atol=1e-10)
    assert fit_activation(lambda x: 0 * x, degree).shape == (degree + 1,)


@pytest.mark.parametrize("degree", [1, 2, 3, 6])
def test_horner_agrees_with_the_sum_of_powers(degree: int) -> None:
    rng = np.random.default_rng(degree)
    x, coefficients = rng.standard_normal((3, 4)), rng.standard_normal(degree + 1)
    wanted = sum(c * x**j for j, c in enumerate(coefficients))
    np.testing.assert_allclose(evaluate_polynomial(x, coefficients), wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        evaluate_polynomial(torch.from_numpy(x), tuple(coefficients)).numpy(), wanted, atol=1e-12
    )
    assert evaluate_polynomial(x.astype(np.float32), coefficients).dtype == np.float32
    assert evaluate_polynomial(torch.ones(2), coefficients).dtype == torch.float32


def test_horner_with_coefficients_for_each_channel() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    coefficients = torch.arange(9, dtype=torch.float64).reshape(3, 3).requires_grad_()
    wanted = coefficients[0] + coefficients[1] * x + coefficients[2] * x**2
    assert torch.allclose(evaluate_polynomial(x, coefficients.unbind()), wanted, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda a, c: evaluate_polynomial(a, c.unbind()), (x, coefficients))


def test_no_grid_makes_gelu_exact_and_half_pixels_hide_it() -> None:
    """On a grid of twice the size half a pixel is a whole one: a pointwise function looks perfect there."""
    x = fourier_shift(torch.randn(1, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64), (0, 0),
                      nyquist="zero")  # fmt: skip

    def on_a_finer_grid(y: torch.Tensor) -> torch.Tensor:
        fine = y @ resample_matrix(32, 64).T
        return torch.nn.functional.gelu(fine) @ resample_matrix(64, 32).T

    def error(shift: float) -> float:
        moved = fourier_shift(on_a_finer_grid(x), (0, shift))
        return float((on_a_finer_grid(fourier_shift(x, (0, shift))) - moved).abs().max() / moved.abs().max())

    assert error(0.5) < 1e-12
    assert error(0.7182) > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dealias_size(0), "n must be at least 1"),
        (lambda: dealias_size(4, 0), "degree must be at least 1"),
        (lambda: fit_activation(degree=0), "degree must be at least 1"),
        (lambda: fit_activation(half_width=0.0), "half_width must be positive"),
        (lambda: fit_activation(n_points=2), "n_points must be above the degree 2; it is 2"),
        (lambda: evaluate_polynomial(np.ones(2), (1.0,)), "coefficients must hold two numbers at least; it holds 1"),
        (lambda: fit_activation(np.log), "fn must give one finite value for each point"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message), np.errstate(all="ignore"):
        call()
