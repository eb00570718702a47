"""The grid that holds a polynomial's spectrum is sharp, and the quadratic is that of GELU."""

import numpy as np
import pytest
import torch

from lib.alias_free import GELU_QUADRATIC, evaluate_polynomial, fit_activation
from lib.alias_free.polynomials import gelu


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
    np.testing.assert_allclose(evaluate_polynomial(torch.from_numpy(x), tuple(coefficients)), wanted, atol=1e-12)
    assert evaluate_polynomial(x.astype(np.float32), coefficients).dtype == np.float32
    assert evaluate_polynomial(torch.ones(2), coefficients).dtype == torch.float32


def test_horner_with_coefficients_for_each_channel() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    coefficients = torch.arange(9, dtype=torch.float64).reshape(3, 3).requires_grad_()
    wanted = coefficients[0] + coefficients[1] * x + coefficients[2] * x**2
    assert torch.allclose(evaluate_polynomial(x, coefficients.unbind()), wanted, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda a, c: evaluate_polynomial(a, c.unbind()), (x, coefficients))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_activation(n_points=2), "n_points must be above the degree 2; it is 2"),
        (lambda: evaluate_polynomial(np.ones(2), (1.0,)), "coefficients must hold two numbers at least; it holds 1"),
        (lambda: fit_activation(np.log), "fn must give one finite value for each point"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message), np.errstate(all="ignore"):
        call()
