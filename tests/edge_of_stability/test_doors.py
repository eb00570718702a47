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


@pytest.mark.parametrize("function", [eos.loss, eos.gradient, eos.hessian, eos.sharpness, eos.gfs_sharpness])
def test_a_target_of_zero_is_none(function) -> None:
    with pytest.raises(ValueError, match="target must be finite and not zero"):
        function([1.5, 0.6], 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eos.gd_path([1.5, 0.6], [0.1, 0.2], 5), r"eta must have shape \(\)"),
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
