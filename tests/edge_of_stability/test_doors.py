"""What the chapter's public names say to input that they cannot use, and that they keep nothing of the caller's."""

import numpy as np
import pytest
import torch

import lib.edge_of_stability as eos

X, Y = np.array([[1.0, 2.0, 3.0]]), np.array([1.0])


def test_a_regression_keeps_nothing_of_the_callers_arrays() -> None:
    examples, targets, u = X.copy(), Y.copy(), np.full(3, 0.3)
    model = eos.SquaredRegression(examples, targets)
    before = model.loss(u, u)
    examples[:], targets[:] = 7.0, 9.0
    assert model.loss(u, u) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, "1", None, 1j, [[1.0], [1.0, 2.0]]], ids=str)
@pytest.mark.parametrize(
    "call",
    [
        *(
            lambda target, name=name: getattr(eos, name)([1.5, 0.6], target)
            for name in ("loss", "gradient", "hessian", "sharpness", "gradient_flow_solution", "gfs_sharpness")
        ),
        lambda target: eos.run_gd([1.5, 0.6], 0.1, 5, target),
        lambda target: eos.gd_path([1.5, 0.6], 0.1, 5, target),
        lambda target: eos.phase_map([1.5], [0.6], 0.1, target=target),
    ],
)
def test_a_target_is_a_finite_number_that_is_not_zero(call, bad) -> None:
    with pytest.raises((ValueError, TypeError), match="target must"):
        call(bad)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eos.run_gd([1.5, 0.6], np.nan, 5), "eta must be finite"),
        (lambda: eos.gd_path([1.5, 0.6], [0.1, 0.2], 5), r"eta must have shape \(\)"),
        (lambda: eos.run_gd([1.5, np.nan], 0.1, 5), "w0 must be finite"),
        (lambda: eos.gd_path(None, 0.1, 5), "w0 must hold real"),
        (lambda: eos.SquaredRegression(X, Y).run_gd(["a"] * 3, [0.3] * 3, 0.1, 5), "u0 must hold real"),
        (lambda: eos.run_gd([1.5, 0.6], "x", 5), "eta must hold real numbers"),
        (lambda: eos.solve_balances([[0.0], [1.0, 2.0]], 0.0), "b must be a regular array"),
        (lambda: eos.solve_balances([[0.0], [np.nan]], 0.0), "b must be finite"),
        (lambda: eos.SquaredRegression(X, Y).run_gd([0.3] * 3, [0.3] * 3, "x", 5), "eta must be a number"),
        (lambda: eos.half_mean_square(None, None), "outputs must be a tensor"),
        (lambda: eos.half_mean_square(torch.ones(0, 1), torch.ones(0, 1)), "outputs must hold at least one"),
        (lambda: eos.hessian_top_eigenvalue(None, []), "loss_fn must be a function"),
        (lambda: eos.hessian_top_eigenvalue(lambda: 0.0, None), "params must be a list of tensors"),
        (
            lambda: eos.hessian_top_eigenvalue(lambda: 0.0, [torch.ones(4, requires_grad=True)]),
            "loss_fn must return one",
        ),
        (
            lambda: eos.hessian_top_eigenvalue(lambda: torch.ones(()), [torch.ones(4, requires_grad=True)]),
            "loss_fn must depend on params",
        ),
        (lambda: eos.symbolic.hessian_at_minimum("two"), "depth must be an integer"),
        (lambda: eos.symbolic.frozen_multiplier(1), "depth must be at least 2"),
    ],
)
def test_other_input_is_refused_by_name(call, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_arrays_without_axes_are_numbers() -> None:
    assert eos.loss([2.0, 1.0], np.array(1.0)) == eos.loss([2.0, 1.0], 1)
    np.testing.assert_array_equal(
        eos.gd_path([1.5, 0.6], np.float32(0.125), np.int64(5))[0], eos.gd_path([1.5, 0.6], 0.125, 5)[0]
    )
