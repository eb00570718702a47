"""Bad input is refused at the door, with the argument's name; odd but good input is not."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from lib.validation import (
    finite_array,
    finite_number,
    finite_tensor,
    instance_of,
    integer_at_least,
    job_count,
    known_device,
    known_seed,
    number_between,
    numpy_generator,
    one_of,
    positive_integer,
    positive_number,
    regression_data,
    torch_generator,
    true_or_false,
)


class Foreign:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: finite_array("w", ["a"]), TypeError, "w must hold real numbers; it has dtype"),
        (lambda: finite_array("w", Foreign()), TypeError, "w must hold real numbers; it is Foreign"),
        (lambda: finite_array("w", torch.ones(1) * 1j), TypeError, "w must hold real numbers; it has dtype torch.c"),
        (lambda: finite_array("w", [[1, 2], [3]]), ValueError, "w must be a regular array"),
        (lambda: finite_array("w", [np.inf, np.nan, 1]), ValueError, "2 of its 3 entries are NaN"),
        (lambda: finite_array("w", torch.tensor([torch.nan], requires_grad=True)), ValueError, "1 of its 1 entries"),
        (lambda: finite_array("w", [1], ndim=2), ValueError, "w must have 2 axes"),
        (lambda: finite_array("w", [1], shape=(2,)), ValueError, r"w must have shape \(2,\)"),
        (lambda: finite_tensor("x", [1.0]), TypeError, r"x must be a floating-point tensor; it is \[1.0\]"),
        (lambda: finite_tensor("x", torch.ones(1).int()), TypeError, "it is torch.int32"),
        (lambda: finite_tensor("x", torch.tensor([torch.inf, 1])), ValueError, "1 of its 2 entries is NaN"),
        (lambda: finite_tensor("x", torch.ones(2), shape=(3,)), ValueError, r"x must have shape \(3,\)"),
        (lambda: finite_number("t", None), TypeError, "t must be a number; it is None"),
        (lambda: finite_number("t", np.array(1j)), TypeError, "t must be a number; it is 1j"),
        (lambda: finite_number("t", np.array([1.0])), TypeError, "t must be a number; it is array"),
        (lambda: positive_integer("n", np.True_), TypeError, "n must be an integer; it is True"),
        (lambda: finite_number("t", -np.inf), ValueError, "t must be finite; it is -inf"),
        (lambda: positive_number("t", "1"), TypeError, "t must be a number; it is '1'"),
        (lambda: number_between("p", np.inf, 0), ValueError, "p must be finite and at least 0; it is inf"),
        (lambda: positive_integer("n", 1.0), TypeError, "n must be an integer"),
        (lambda: integer_at_least("n", -1, 0), ValueError, "n must be at least 0; it is -1"),
        (lambda: known_seed("seed", 2**63), ValueError, "seed must be below"),
        (lambda: job_count("2"), TypeError, "jobs must be an integer"),
        (lambda: one_of("kind", ["a"], ("a", "b")), ValueError, r"kind must be one of a, b; it is \['a'\]"),
        (lambda: one_of("kind", np.array(["a", "a"]), ("a", "b")), ValueError, "kind must be one of a, b"),
        (lambda: true_or_false("keep", 1), TypeError, "keep must be True or False; it is 1"),
        (lambda: instance_of("model", "net", torch.nn.Module), TypeError, "model must be a Module; it is 'net'"),
        (lambda: numpy_generator("rng", np.random), TypeError, "rng must be a numpy Generator"),
        (lambda: torch_generator("generator", np.random.default_rng(0)), TypeError, "generator must be a torch"),
        (lambda: known_device(None), TypeError, "device must be a name such as cpu or cuda; it is None"),
        (lambda: known_device("cuda:99"), ValueError, "device must be cpu, or cuda"),
        (lambda: regression_data([[1]], [1, 2]), ValueError, "as many rows"),
        (lambda: regression_data([1], [1]), ValueError, "X must have 2 axes"),
        (lambda: regression_data(np.ones((0, 3)), np.ones(0)), ValueError, "X must not be empty"),
    ],
)
def test_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_long_value_does_not_flood_the_message() -> None:
    with pytest.raises(TypeError) as caught:
        positive_number("lr", np.arange(10_000))
    assert len(str(caught.value)) < 130


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, 2], np.int8),
        np.array([1, 2], np.float32),
        np.array([1, 0, 2])[::2],
        torch.tensor([1.0, 2.0], requires_grad=True),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        (True, 2),
    ],
)
def test_arrays_of_every_kind_are_taken(value) -> None:
    found = finite_array("w", value)
    assert found.dtype == np.float64
    assert found.tolist() == [1, 2]


def test_numbers_of_every_kind_are_taken() -> None:
    for value in (2, np.float32(2), Fraction(2), np.array(2.0), torch.tensor(2.0, requires_grad=True)):
        assert finite_number("t", value) == positive_number("t", value) == number_between("t", value, 2, 2) == 2
    for whole in (2, np.int8(2), np.uint64(2), np.array(2), torch.tensor(2)):
        assert type(positive_integer("n", whole)) is int
    assert true_or_false("keep", np.True_) is True
    assert known_device(torch.device("cpu")) == "cpu"
    assert torch_generator("generator", None) is None
