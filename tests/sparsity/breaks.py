"""What makes each claim of chapter 05 fail."""

import torch

from lib.four_bit import Rounding
from lib.sparsity import crossover, fused, layers, sampling, symbolic, water_filling, wrong_point
from lib.sparsity.claims import gradients, masks, networks
from tests.breaking import Break, both, edit, replace


def largest_kept(x, n=2, m=4, dim=-1, *, rand=None, generator=None, return_mask=False, check=True):
    """The largest entries in the place of those drawn."""
    return sampling.nm_greedy(x, n, m, dim, return_mask=return_mask)


def one_number_for_all(x, n=2, m=4, dim=-1, *, rand=None, generator=None, return_mask=False, check=True):
    """The same random number for every block, half of it."""
    return sampling.nm_mvue(x, n, m, dim, rand=rand / 2, return_mask=return_mask)


def rounded_half_up(x, n=2, m=4, dim=-1, *, rand=None, generator=None, return_mask=False, check=True):
    """A mask that keeps each entry by a coin of its own."""
    chances = water_filling.nm_inclusion_probabilities(x, n, m, dim)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < chances
    return torch.where(mask, x / chances.clamp(min=1e-30), 0.0), mask


BREAKS: dict[str, list[Break]] = {
    "no-unbiased-mask-is-better": [
        edit(masks, "nm_mvue_variance", "state = filled(magnitudes, n)", "state = filled(magnitudes, max(n - 1, 1))"),
        edit(water_filling, "filled", "size * scale * left >= below[-1]", "size * scale * left >= 2 * below[-1]"),
    ],
    "pairs-of-a-block-in-closed-form": [
        edit(symbolic, "cases", "(_A2 + _A4 - _A1 - _A3) / _TOTAL", "(_A2 + _A4 - _A1 - _A3) / (2 * _TOTAL)"),
        edit(masks, "mvue24_pair_probabilities", "sizes = np.abs", "sizes = np.square"),
    ],
    "one-random-number-draws-the-mask": [
        replace(masks, "nm_mvue", one_number_for_all),
        replace(masks, "nm_mvue", largest_kept),
        replace(masks, "nm_mvue", rounded_half_up),
    ],
    "exactly-n-stay-whatever-is-rounded": [
        replace(masks, "nm_mvue", rounded_half_up),
        edit(masks, "nm_mvue", "kept != 0", "kept > 0"),
    ],
    "the-approximation-costs-less-than-twice": [
        edit(water_filling, "approx_probabilities", "miss + first * last", "miss + first * last * 1.01"),
        edit(masks, "_exact_ratio", "total**2 / 2", "total**2 / 3"),
    ],
    "greedy-wins-every-squared-error": [
        edit(masks, "nm_mvue_variance", "[..., : m - n]", "[..., : n - m + 1]"),
        edit(masks, "nm_mvue_variance", "(state.level / state.scale - size)", "(2 * state.level / state.scale - size)"),
    ],
    "transposable-masks-are-exact": [
        edit(masks, "transposable_mask", "argmax(dim=1)", "argmin(dim=1)"),
        edit(masks, "transposable_mask", ".double().abs()", ".double()"),
    ],
    "updates-are-right-on-average": [
        edit(gradients, "pruner", "nm_mvue(x, n, m, dim, generator=generator)", "nm_greedy(x, n, m, dim)"),
        edit(gradients, "pruner", "nm_mvue(x, n, m, dim, generator=generator)", "0.9 * nm_mvue(x, n, m, dim)"),
    ],
    "blocks-with-one-entry-are-kept": [
        edit(gradients, "nm_approx_mvue", "torch.where(kept > 0, kept, 1.0), 0.0)", "kept, blocks / kept)"),
        edit(gradients, "nm_approx_mvue", "in_place_of(values, dim)", "in_place_of(2 * values, dim)"),
    ],
    "greedy-descent-ends-at-a-wrong-point": [
        edit(wrong_point, "pruner", '"greedy": lambda x: nm_greedy(x, n, m, dim)', '"greedy": lambda x: x'),
        edit(wrong_point, "pruner", "nm_mvue(x, n, m, dim, generator=generator)", "nm_greedy(x, n, m, dim)"),
    ],
    "every-product-has-a-sparse-operand": [
        edit(layers._NMLayer, "masked", "torch.where(mask.view(parts.shape), parts, 0.0)", "parts"),
        edit(layers._NMLayer, "pruned_for_weight", "self.config.update, 0)", "self.config.update, 1)"),
    ],
    "noise-of-an-update-in-closed-form": [
        edit(networks, "mask_noise", "* both -", "* (1.1 * both) -"),
        edit(networks, "nm_mvue", "kept = _compiled_mvue(", "kept = 1.05 * _compiled_mvue("),
    ],
    "noise-hurts-more-in-a-short-training": [
        replace(layers, "nm_mvue", lambda x, n, m, dim, **_: sampling.nm_greedy(x, n, m, dim)),
        replace(networks, "_accuracy", lambda _: 0.8),
    ],
    "label-noise-turns-the-order": [
        replace(layers, "nm_mvue", lambda x, n, m, dim, **_: sampling.nm_greedy(x, n, m, dim)),
        edit(crossover.Crossover, "lead", "self.accuracy.mean(axis=-1)", "self.loss.mean(axis=-1)"),
    ],
    "greedy-fails-where-every-gradient-is-pruned": [
        edit(
            layers._NMLayer,
            "pruned_for_input",
            "return kept[:, :, : parts.shape[2]].reshape(grad.shape)",
            "return grad",
        ),
        replace(layers, "nm_mvue", lambda x, n, m, dim, **_: sampling.nm_greedy(x, n, m, dim)),
    ],
    "blocks-along-classes-mislead-too": [
        edit(wrong_point, "pruner", "nm_greedy(x, n, m, dim)", "x"),
        edit(wrong_point, "pruner", "nm_mvue(x, n, m, dim, generator=generator)", "nm_greedy(x, n, m, dim)"),
    ],
    "three-bits-an-entry-without-bias": [
        replace(fused, "nm_mvue", lambda x, dim, **_: sampling.nm_greedy(x, 2, 4, dim)),
        replace(fused, "LUQ", Rounding(rounding="nearest", underflow="flush")),
    ],
}
#: Fewer repeats and a shorter grid.
SETTING = both(replace(masks, "_GRID", 20_000), replace(gradients, "_REPEATS", 40), replace(networks, "_REPEATS", 200))
