"""Small networks: their shapes, their weights, and what is refused."""

import pytest
import torch

from lib.models import fully_connected, small_convnet


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_weights_come_from_the_generator_alone() -> None:
    one, other = (small_convnet((3, 4), 2, size=8, generator=generator()) for _ in range(2))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one(torch.zeros(1, 3, 8, 8)).shape == (1, 2)
    bound = 27**-0.5
    assert 0.8 * bound < float(one[0].weight.detach().abs().max()) <= bound
    assert fully_connected((4, 5, 2), generator=generator())(torch.zeros(3, 2, 2)).shape == (3, 2)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="an input and an output size"):
        fully_connected((4,), generator=generator())
    with pytest.raises(ValueError, match="leave nothing"):
        small_convnet((1, 2, 2, 2), 1, size=4, generator=generator())
