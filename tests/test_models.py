"""Small networks: their shapes, their weights, and what is refused."""

import pytest
import torch

from lib.models import fully_connected, initialize, small_convnet


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    one = fully_connected((4, 5, 2), generator=generator())
    torch.manual_seed(2)
    other = fully_connected((4, 5, 2), generator=generator())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one(torch.zeros(3, 2, 2)).shape == (3, 2)
    assert float(one[1].weight.detach().abs().max()) <= 0.5


def test_convolutions_are_drawn_too() -> None:
    model = small_convnet((3, 4), 2, size=8, generator=generator())
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 2)
    bound = 27**-0.5
    assert 0.8 * bound < float(model[0].weight.detach().abs().max()) <= bound
    assert initialize(model, generator=generator()) is model


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="an input and an output size"):
        fully_connected((4,), generator=generator())
    with pytest.raises(ValueError, match="activation must be one of"):
        fully_connected((4, 4, 1), activation="sine", generator=generator())
    with pytest.raises(ValueError, match="leave nothing"):
        small_convnet((1, 2, 2, 2), 1, size=4, generator=generator())
