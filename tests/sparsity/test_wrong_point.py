"""Descent of softmax regression, against scikit-learn's lowest point and the shipped trainings."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from lib.datasets import clothes
from lib.sparsity.races import NOISES, RACERS, SEEDS, races
from lib.sparsity.wrong_point import noisy_labels, softmax_descent

SMALL = {"count": 256, "epochs": 3, "batch_size": 64}


def test_dense_descent_is_that_of_autograd() -> None:
    run = softmax_descent("dense", **SMALL)
    images, labels = clothes("train", 256).tensors
    x, generator = images.flatten(1) / 3, torch.Generator().manual_seed(0)
    noisy_labels(labels, 0.0, classes=10, generator=generator)
    model = torch.nn.Linear(784, 10)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(12):
        if step % 4 == 0:
            order = torch.randperm(256, generator=generator)
        batch = order[step % 4 * 64 :][:64]
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 12)
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), labels[batch]).backward()
        optimizer.step()
    loss = functional.cross_entropy(model(x), labels)
    assert loss.item() == pytest.approx(run.loss[-1], rel=1e-5)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert float(torch.cat([each.flatten() for each in gradients]).norm()) == pytest.approx(run.gradient, rel=1e-4)


@pytest.mark.parametrize("method", ["greedy", "mvue", "approx", "uniform"])
def test_blocks_along_batch_and_classes(method: str) -> None:
    for along in ("batch", "classes"):
        m = 4 if along == "batch" or method == "approx" else 5
        if along == "classes" and method == "approx":
            with pytest.raises(ValueError, match=r"m must divide the 10 entries along the classes; it is 4"):
                softmax_descent(method, 2, 4, along=along, **SMALL)
            continue
        run = softmax_descent(method, 2, m, along=along, **SMALL)
        assert run.loss[-1] < run.loss[0]
        assert run.loss[0] == pytest.approx(np.log(10))


def test_labels_that_are_drawn_at_random() -> None:
    labels = torch.zeros(20_000, dtype=torch.int64)
    noisy = noisy_labels(labels, 0.4, classes=10, generator=torch.Generator().manual_seed(0))
    assert float((noisy != 0).double().mean()) == pytest.approx(0.36, abs=0.01)


def test_shipped_races_are_what_is_trained() -> None:
    assert len(races()) == len(RACERS) * len(NOISES)
    for run in races().values():
        assert run.loss.shape == run.accuracy.shape == (len(SEEDS), 61)
        assert np.isfinite(run.loss).all()
    run = softmax_descent("mvue", 1, 4, label_noise=0.2, seed=1)
    assert np.allclose(races()["mvue", 1, 4, 0.2].loss[1], run.loss, rtol=2e-4)
    assert races()["mvue", 1, 4, 0.2].gradient[1] == pytest.approx(run.gradient, rel=0.02)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"batch_size must be at most count, 10; it is 20"):
        softmax_descent("dense", count=10, batch_size=20)
    with pytest.raises(ValueError, match=r"method must be one of dense, greedy, mvue, approx, uniform"):
        softmax_descent("largest")
    with pytest.raises(ValueError, match=r"method approx is for 2:4"):
        softmax_descent("approx", 1, 2)
