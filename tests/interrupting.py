"""Trainings and sweeps that are interrupted on purpose."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from torch.nn import functional


@contextmanager
def interrupt_at(call: int, target: object = functional, name: str = "cross_entropy") -> Iterator[None]:
    """Interrupt a block in so many calls of a function from now on, counted from 0; it must come to that."""
    calls, function = iter(range(10**6)), getattr(target, name)

    def interrupted(*arguments, **options):
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


def first_losses(
    steps: int, train: Callable[[], object], target: object = functional, name: str = "cross_entropy"
) -> np.ndarray:
    """Losses of the first steps of a training, which is then left."""
    losses, function = [], getattr(target, name)

    def watched(*arguments, **options):
        losses.append(function(*arguments, **options))
        return losses[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, watched)
        with interrupt_at(steps, target, name):
            train()
    return np.array([float(loss.detach()) for loss in losses])
