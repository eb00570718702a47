"""Flow and descent on the weights, against torch's gradients and each other."""

import numpy as np
import pytest
import torch

from lib.initialization_shape import gradient_descent, gradient_flow
from lib.initialization_shape.dynamics import velocity


def weights_for(model: str, d: int, rng, m: int = 0) -> dict:
    if model == "diagonal":
        return {name: rng.standard_normal(d) for name in ("u_p", "v_p", "u_m", "v_m")}
    return {"a": rng.standard_normal(m) if m else rng.standard_normal(()), "u": rng.standard_normal((m, d) if m else d)}


@pytest.mark.parametrize(
    ("model", "m", "slope"),
    [("diagonal", 0, 1.0), ("neuron", 0, 1.0), ("neuron", 0, 0.3), ("neuron", 3, 1.0), ("neuron", 3, 0.0)],
)
def test_velocity_is_minus_torchs_gradient(model: str, m: int, slope: float) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((5, 7)), rng.standard_normal(5)
    weights = weights_for(model, 7, rng, m)
    ours, residual = velocity(model, {k: np.asarray(v) for k, v in weights.items()}, X, y, slope)
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    inputs, targets = torch.from_numpy(X), torch.from_numpy(y)
    if model == "diagonal":
        outputs = inputs @ (tensors["u_p"] * tensors["v_p"] - tensors["u_m"] * tensors["v_m"])
    else:
        hidden = torch.nn.functional.leaky_relu(inputs @ (tensors["u"].T if m else tensors["u"]), slope)
        outputs = hidden @ tensors["a"] if m else hidden * tensors["a"]
    (((outputs - targets) ** 2).sum() / (2 * len(y))).backward()
    for name, tensor in tensors.items():
        np.testing.assert_allclose(ours[name], -tensor.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(residual, y - outputs.detach().numpy(), atol=1e-12)


def test_descent_of_several_neurons_tends_to_flow() -> None:
    """Of diagonal networks and single neurons the claims say so."""
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((3, 8)), rng.standard_normal(3)
    weights = weights_for("neuron", 8, rng, 3)
    flow = gradient_flow("neuron", X, y, weights)
    descents = [gradient_descent("neuron", X, y, weights, lr=lr) for lr in (1e-2, 1e-3)]
    assert all(run.converged for run in (flow, *descents))
    coarse, fine = (np.linalg.norm(run.w - flow.w) for run in descents)
    assert fine < coarse / 5


def test_paths_begin_at_the_start_and_end_at_the_result() -> None:
    X, y, weights = [[1.0, 2.0]], [2.0], {"a": 0.2, "u": [0.1, -0.1]}
    for run in (
        gradient_flow("neuron", X, y, weights),
        gradient_descent("neuron", X, y, weights, lr=0.01, record_every=7),
    ):
        np.testing.assert_allclose(run.path.w[0], [0.02, -0.02])
        np.testing.assert_array_equal(run.path.w[-1], run.w)
        assert len(run.path.t) == len(run.path.w)
        assert np.all(np.diff(run.path.t) > 0)
        assert run.path.t[-1] == run.t


def test_a_start_that_fits_already_stays() -> None:
    for run in (
        gradient_flow("neuron", [[1.0, 0.0]], [2.0], {"a": 1.0, "u": [2.0, 5.0]}),
        gradient_descent("neuron", [[1.0, 0.0]], [2.0], {"a": 1.0, "u": [2.0, 5.0]}, lr=0.1),
    ):
        assert run.converged
        assert run.t == 0
        np.testing.assert_array_equal(run.w, [2.0, 5.0])


def test_divergence_and_running_out_of_time_are_results() -> None:
    X, y, weights = [[1.0, 2.0]], [2.0], {"a": 3.0, "u": [1.0, 1.0]}
    diverged = gradient_descent("neuron", X, y, weights, lr=10.0, max_steps=1000)
    assert diverged.diverged
    assert not diverged.converged
    short = gradient_descent("neuron", X, y, weights, lr=1e-4, max_steps=3)
    assert not short.converged
    assert not short.diverged
    assert not gradient_flow("neuron", X, y, weights, t_max=1e-3).converged


@pytest.mark.parametrize(
    ("model", "weights", "options", "message"),
    [
        ("neuron", {"a": 1.0}, {}, "params must have the keys a, u"),
        ("neuron", {1: 2}, {}, "params must have the keys a, u"),
        (["neuron"], {"a": 1.0, "u": [1.0, 2.0]}, {}, "model must be one of"),
        ("neuron", {"a": 1.0, "u": [1.0]}, {}, "a and u must have shapes"),
        ("neuron", {"a": [1.0], "u": [1.0, 2.0]}, {}, "a and u must have shapes"),
        ("diagonal", {n: [1.0] for n in ("u_p", "v_p", "u_m", "v_m")}, {}, r"u_p must have shape \(2,\)"),
        ("neuron", {"a": 1.0, "u": [1.0, 2.0]}, {"slope": 1.5}, "slope must lie between 0 and 1"),
        ("neuron", {"a": 1.0, "u": [1.0, 2.0]}, {"max_steps": 0}, "max_steps must be at least 1"),
        ("diagonal", {n: [1.0, 1.0] for n in ("u_p", "v_p", "u_m", "v_m")}, {"slope": 0.5}, "slope must be 1"),
    ],
)
def test_bad_input_is_refused(model, weights, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        gradient_descent(model, [[1.0, 2.0]], [1.0], weights, **{"lr": 0.1, **options})


def test_a_flow_that_takes_too_many_steps_is_given_up() -> None:
    rng = np.random.default_rng(0)
    X, y, weights = 1e10 * rng.standard_normal((3, 6)), rng.standard_normal(3), weights_for("diagonal", 6, rng)
    with pytest.warns(RuntimeWarning, match="given up after 200 steps"):
        end = gradient_flow("diagonal", X, y, weights, max_steps=200)
    assert not end.converged
    assert end.t == end.path.t[-1]
    np.testing.assert_array_equal(end.path.w[-1], end.w)
    calm = gradient_flow("diagonal", X / 1e10, y, weights)
    assert calm.converged
