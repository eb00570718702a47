"""Scale, shape and the numbers they act through."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.initialization_shape import neuron_delta, potential_scale, scale_shape_to_weights, weights_to_scale_shape

scales = st.floats(1e-12, 1e6)
shapes = st.floats(-0.999, 0.999)


@given(scales, shapes)
def test_weights_and_back(alpha: float, shape: float) -> None:
    u, v = scale_shape_to_weights(alpha, shape)
    scale, imbalance = weights_to_scale_shape(u, v)
    np.testing.assert_allclose(scale, alpha, rtol=1e-9)
    np.testing.assert_allclose(imbalance, shape, atol=1e-12)


@given(scales, shapes)
def test_k_and_delta_follow_from_the_weights(alpha: float, shape: float) -> None:
    u, v = scale_shape_to_weights(alpha, shape)
    np.testing.assert_allclose(potential_scale(alpha, shape), 2 * (u**2 + v**2), rtol=1e-9)
    np.testing.assert_allclose(neuron_delta(alpha, shape), v**2 - u**2, rtol=1e-7, atol=1e-12 * (u**2 + v**2))


def test_a_positive_shape_means_a_larger_second_layer() -> None:
    u, v = scale_shape_to_weights([1.0, 1.0], [0.5, -0.5])
    assert v[0] > u[0]
    assert v[1] < u[1]


@pytest.mark.parametrize("function", [scale_shape_to_weights, potential_scale, neuron_delta])
@pytest.mark.parametrize(
    ("alpha", "shape", "message"),
    [
        ([1.0, -1.0], 0.0, "alpha must be positive"),
        (1.0, [-1.0, 0.0], "shape must lie strictly between"),
    ],
)
def test_bad_scales_and_shapes_are_refused(function, alpha, shape, message) -> None:
    with pytest.raises(ValueError, match=message):
        function(alpha, shape)


def test_two_zeros_have_no_shape() -> None:
    with pytest.raises(ValueError, match="must not both be zero"):
        weights_to_scale_shape([1.0, 0.0], [1.0, 0.0])
