"""The claims of chapter 05 about gradients: of a real layer, and where descent goes with them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.claims import Evidence, at_least, at_most, claim, combine, none, true_that, within
from lib.four_bit import captured_gradient
from lib.sparsity.fused import nm_mvue_luq
from lib.sparsity.races import races
from lib.sparsity.sampling import nm_approx_mvue
from lib.sparsity.wrong_point import Method, pruner, softmax_descent

_REPEATS = 200
_PATTERNS = ((1, 2), (2, 4), (1, 4), (1, 8))


def _update_errors(method: Method, n: int, m: int) -> tuple[float, float, float]:
    """Of a real layer's update from a pruned gradient: bias and rms error, relative; and bias squared over chance's."""
    gradient = captured_gradient()
    prune = pruner(method, n, m, 0, generator=torch.Generator().manual_seed(0))
    exact = gradient.delta.T @ gradient.inputs
    repeats = 1 if method == "greedy" else _REPEATS
    draws = [prune(gradient.delta).T @ gradient.inputs - exact for _ in range(repeats)]
    errors = torch.stack(draws).double()
    bias, square = errors.mean(0).square().sum(), errors.square().sum((1, 2)).mean()
    size = exact.double().norm()
    return float(bias.sqrt() / size), float(square.sqrt() / size), float(bias / (square / len(errors)))


@claim(
    source="the paper's criterion, on one gradient",
    statement="Pruned without bias, the gradient of a real layer gives the right update on average; keeping the "
    "largest entries gives one that is off by 6% at 2:4, and by a third at 1:8.",
)
def updates_are_right_on_average() -> Evidence:
    greedy = [_update_errors("greedy", n, m)[0] for n, m in _PATTERNS]
    found = np.array([_update_errors("mvue", n, m) for n, m in _PATTERNS])
    return combine(
        within(found[:, 2], 0.5, 2, label="squared bias over chance's", digits=1),
        at_most(
            np.abs(found[:, 1] / [0.195, 0.094, 0.316, 0.486] - 1), 0.05, label="rms off 0.195 … 0.486 by", shown="< 5%"
        ),
        at_most(
            np.abs(np.array(greedy) / [0.1065, 0.0614, 0.2045, 0.3356] - 1),
            0.02,
            label="greedy bias off 0.107 … 0.336 by",
            shown="< 2%",
        ),
        remark=f"1:2, 2:4, 1:4, 1:8 along a batch of 256; {_REPEATS} masks; second layer of four, clothes",
    )


def _usual_approximation(x: Tensor) -> Tensor:
    """Two draws for blocks (…, 4), with chances from the formula as it stands: code in use adds a small number."""
    sizes = x.abs()
    share = sizes / sizes.sum(-1, keepdim=True)
    taken = torch.zeros_like(x).scatter(
        -1, torch.multinomial(share, 2, generator=torch.Generator().manual_seed(0)), 1.0
    )
    odds = share / (1 - share)
    return x * taken / (share * (1 + odds.sum(-1, keepdim=True) - odds))


@claim(
    source="derived here",
    statement="On a gradient behind a ReLU, more than half zeros, the formula of the approximation with two draws of "
    "torch.multinomial is 0 / 0 wherever a block has one entry; here such blocks stay as they are.",
)
def blocks_with_one_entry_are_kept() -> Evidence:
    delta = captured_gradient().delta
    blocks = delta.T.reshape(delta.shape[1], -1, 4)
    entries = blocks.count_nonzero(-1)
    alone = blocks[entries == 1]
    ours = nm_approx_mvue(blocks, generator=torch.Generator().manual_seed(0))
    return combine(
        within(float((delta == 0).double().mean()), 0.57, 0.585, label="zeros"),
        within(len(alone) / blocks[..., 0].numel(), 0.2, 0.35, label="blocks with one entry"),
        true_that("not finite in each of them", ~_usual_approximation(alone).isfinite().all(-1)),
        none(~ours.isfinite(), "entries that are not finite here"),
        true_that("blocks with one entry kept", torch.equal(ours[entries == 1], alone)),
        remark="second layer of four, batch 256, clothes; torch's CPU",
    )


@claim(
    source="the paper's failure of greedy masks, on a convex loss; derived here",
    statement="Descent with the largest entries comes to rest at a wrong point, the more so the fewer are kept; with "
    "an unbiased mask it reaches the right one, at every N:M.",
)
def greedy_descent_ends_at_a_wrong_point() -> Evidence:
    live = {name: softmax_descent(name, 1, 8) for name in ("dense", "greedy", "mvue")}
    far = [np.mean(races()["greedy", n, m, 0.0].loss[:, -1]) for n, m in _PATTERNS]
    near = [races()["mvue", n, m, 0.0].loss[:, -1] for n, m in _PATTERNS]
    best = races()["dense", 1, 2, 0.0].loss[:, -1]
    return combine(
        at_most(np.abs(near - best), 0.005, label="loss with MVUE off by", shown="< 0.005"),
        at_least(np.array(far) - best.mean(), 0.001, label="greedy, above by"),
        at_least(far[-1] - best.mean(), 0.1, label="greedy 1:8, above by"),
        within(live["greedy"].loss[-1], 0.70, 0.75, label="trained here, greedy 1:8"),
        at_most(abs(live["mvue"].loss[-1] - live["dense"].loss[-1]), 0.005, label="MVUE 1:8 off by", shown="< 0.005"),
        at_least(live["greedy"].gradient / live["dense"].gradient, 4, label="gradient at the end, greedy / dense"),
        within(live["mvue"].gradient / live["dense"].gradient, 0.9, 1.2, label="MVUE / dense", digits=1),
        at_least(live["mvue"].accuracy[-1] - live["greedy"].accuracy[-1], 0.02, label="test accuracy, MVUE ahead by"),
        remark="softmax regression, 4,096 clothes, 60 epochs, rate falling to 0; 1:2 … 1:8 with 3 seeds shipped",
    )


def _loss_by_classes(method: Method) -> float:
    """Of softmax regression, at the end of a short training with blocks along the classes."""
    return float(softmax_descent(method, 1, 5, along="classes", epochs=10).loss[-1])


@claim(
    source="the paper's criterion; derived here",
    statement="A dropped class misleads as a dropped example does: with blocks along the ten classes greedy 1:5 falls "
    "behind dense training, and the unbiased mask does not.",
)
def blocks_along_classes_mislead_too() -> Evidence:
    dense, greedy, unbiased = (_loss_by_classes(way) for way in ("dense", "greedy", "mvue"))
    return combine(
        at_least(greedy - dense, 0.03, label="greedy above by"),
        at_most(abs(unbiased - dense), 0.005, label="MVUE off by", shown="< 0.005"),
        remark="training loss; softmax regression, 4,096 clothes, 10 epochs",
    )


@claim(
    source="the tower rule; derived here, with chapter 04",
    statement="Pruned to 2:4 and then rounded to 4 bits, each without bias, a gradient takes 3 bits an entry, and its "
    "update is right on average.",
)
def three_bits_an_entry_without_bias() -> Evidence:
    gradient = captured_gradient()
    generator = torch.Generator().manual_seed(0)
    exact = gradient.delta.T @ gradient.inputs
    packed = [nm_mvue_luq(gradient.delta, 0, generator=generator) for _ in range(_REPEATS)]
    errors = torch.stack([each.decode().T @ gradient.inputs - exact for each in packed]).double()
    square = errors.square().sum((1, 2)).mean()
    return combine(
        true_that(
            "3 bits an entry, and 4 bytes for the scale", 8 * (packed[0].nbytes - 4) == 3 * gradient.delta.numel()
        ),
        within(
            float(errors.mean(0).square().sum() / (square / len(errors))),
            0.5,
            2,
            label="squared bias over chance's",
            digits=1,
        ),
        within(float(square.sqrt() / exact.norm()), 0.15, 0.19, label="rms error", digits=1),
        remark=f"{_REPEATS} draws, second layer of four, batch 256, clothes",
    )
