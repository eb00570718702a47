"""Translations by hand, and the measures of what they do to a classifier."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.alias_free import crop_translate, equivariance_error, fourier_shift, shift_robustness, translate
from tests.alias_free.pictures import noise


def test_translations() -> None:
    x = noise(1, 2, 5, 6)
    assert torch.equal(translate(x, (2, -1)), x.roll((2, -1), (-2, -1)))
    assert torch.equal(translate(x, (0.5, 1)), fourier_shift(x, (0.5, 1)))
    zero = translate(x, (2, -1), "zero", fill=7.0)
    assert (zero[..., :2, :] == 7).all()
    assert (zero[..., -1] == 7).all()
    assert torch.equal(zero[..., 2:, :-1], x[..., :3, 1:])
    assert torch.equal(translate(x, (2, -1), "bilinear", fill=7.0), zero)
    assert (translate(x, (9, 0), "zero", fill=3.0) == 3).all()
    half = translate(x, (0, 0.25), "bilinear")
    assert torch.allclose(half[..., 1:], 0.75 * x[..., 1:] + 0.25 * x[..., :-1])
    large = noise(1, 9, 9)
    assert torch.equal(crop_translate(large, (1, -2), (5, 5)), large[:, 1:6, 4:9])
    assert torch.equal(crop_translate(large, (0, 0), (5, 5)), large[:, 2:7, 2:7])
    before = large.clone()
    crop_translate(large, (np.int64(0), 0), (np.int64(5), 5)).zero_()
    assert torch.equal(large, before)


class Column(nn.Module):
    """The brightest of the first columns."""

    def forward(self, x):
        return x.sum((1, 2))


def test_robustness_by_hand() -> None:
    x = torch.zeros(3, 1, 4, 4)
    x[0, :, :, 0] = x[1, :, :, 1] = x[2, :, :, 2] = 1
    y = torch.tensor([0, 1, 0])
    model = Column().train()
    found = shift_robustness(model, x, y, [(0, 1), (2, 0)], batch_size=2)
    assert model.training
    # two of three are right; a shift by a column spoils both, one by rows none
    assert found.clean_accuracy == pytest.approx(2 / 3)
    assert found.adversarial_accuracy == 0
    assert found.consistency == pytest.approx(1 / 2)
    assert found.max_relative_change == pytest.approx(1)
    rows = shift_robustness(model.eval(), x, y, [(1, 0), (2, 0)], kind="circular")
    assert rows.adversarial_accuracy == rows.clean_accuracy
    assert rows.consistency == 1
    assert not model.training


class Watched(nn.Module):
    """Notes whether gradients are recorded and in which mode its layers are, and says what it is told to."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer, self.frozen, self.seen = answer, nn.Dropout(0.5), set()

    def forward(self, x):
        self.seen.add((torch.is_grad_enabled(), self.training, self.frozen.training))
        return torch.full((len(x), 2), self.answer)


def test_every_layer_keeps_its_mode_and_nothing_is_hidden() -> None:
    x = torch.zeros(5, 1, 4, 4)
    model = Watched(0.0).train()
    model.frozen.eval()
    found = shift_robustness(model, x, torch.zeros(5, dtype=torch.long), [(0.3, 0.1)], batch_size=2)
    assert model.seen == {(False, False, False)}
    assert model.training
    assert not model.frozen.training
    # a network that says the same of everything is consistent, at whatever accuracy
    assert found == (1, 1, 1, 0)
    diverged = shift_robustness(Watched(float("nan")), x, torch.zeros(5, dtype=torch.long), [(1, 1)])
    assert np.isnan(diverged.max_relative_change)
    # an answer that is NaN is no class, and never the right one
    assert diverged[:3] == (0, 0, 0)
    assert torch.is_grad_enabled()
    with pytest.raises(RuntimeError, match="normalized_shape"):
        shift_robustness(nn.Sequential(nn.LayerNorm(3)).train(), x, torch.zeros(5, dtype=torch.long), [(1, 1)])


CLASSES = torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: translate(x, (0.5, 0), "zero"), ValueError, "shift must be whole for kind 'zero'"),
        (lambda x: crop_translate(x, (2, 0), (5, 5)), ValueError, "must lie within"),
        (lambda x: crop_translate(x, (0.5, 0), (5, 5)), ValueError, "shift must be whole"),
        (lambda x: shift_robustness(Column(), x, CLASSES[:1], [(1, 1)]), ValueError, "y must hold one class"),
        (lambda x: shift_robustness(Column(), x, CLASSES, [(1, 1), (1, 2, 3)]), ValueError, "shift must be a pair"),
        (lambda x: shift_robustness(Column(), x, CLASSES, [(0.5, 1)], kind="zero"), ValueError, "must be whole"),
        (lambda x: shift_robustness(Column(), x.byte(), CLASSES, [(1, 1)]), TypeError, "x must be floating point"),
        (lambda x: equivariance_error(nn.Identity(), x, (0, 1), 2), ValueError, "must give pictures coarser by 2"),
        (lambda x: translate(x[0, 0, 0], (0, 1)), ValueError, "x must have the shape"),
        (lambda x: shift_robustness(nn.Flatten(), x, CLASSES.bool(), [(0, 1)]), TypeError, "y hold integers"),
        (lambda x: shift_robustness(nn.Flatten(), x, CLASSES + 36, [(0, 1)]), ValueError, "y must be 0 to 35"),
        (lambda x: shift_robustness(nn.Identity(), x, CLASSES, [(0, 1)]), ValueError, "model must give"),
    ],
)
def test_bad_shifts_are_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call(torch.zeros(2, 1, 6, 6))


def test_layers_that_overwrite_leave_pictures_alone() -> None:
    x, y = noise(3, 1, 2, 2), torch.tensor([0, 1, 2])
    before = x.clone()
    shift_robustness(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()), x, y, [(0, 0), (0, 1)])
    equivariance_error(nn.ReLU(inplace=True), x, (0.3, 1))
    assert torch.equal(x, before)


def test_the_error_of_what_makes_pictures_finer_and_of_what_diverged() -> None:
    x = noise(1, 2, 5, 7)
    finer = nn.Upsample(scale_factor=3)
    found = equivariance_error(finer, x, (1, 0), 1 / 3)
    assert found < 1e-12 < equivariance_error(finer, x, (0.5, 0), 1 / 3)
    assert np.isnan(equivariance_error(lambda part: part / 0, x, (1, 0)))
    assert equivariance_error(torch.zeros_like, x, (0.3, 0.4)) == 0
