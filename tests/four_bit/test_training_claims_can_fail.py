"""Every claim about gradients and training is seen to fail when the thing it speaks of is broken."""

from collections.abc import Callable
from dataclasses import replace as with_settings

import numpy as np
import pytest
import torch

from lib.claims import Claim, ledger
from lib.four_bit import experiment, layers, rounding_claims, weight_updates
from lib.four_bit import training_claims as claims_module
from lib.four_bit.comparison import trained_runs
from lib.four_bit.hindsight import HindsightMax
from lib.four_bit.integers import int4_mean_and_variance
from lib.four_bit.logarithmic import LOG_FORMATS, luq_decode, luq_encode, luq_mean, luq_variance
from tests.breaking import Break, replace

CLAIMS = {value.id: value for value in vars(claims_module).values() if isinstance(value, Claim)}
QUANTIZER = layers._Quantizer.__init__


def with_other(function: Callable, **changed: object) -> Callable:
    """The same function, with some of its options set to other values, whatever the caller asks for."""
    return lambda *arguments, **options: function(*arguments, **{**options, **changed})


def scaled(function: Callable, factor: float) -> Callable:
    return lambda *arguments, **options: factor * function(*arguments, **options)


def the_same_coins(x, **options):
    """A generator that is seeded anew for every call: the noise is a fixed error."""
    return luq_encode(x, **{**options, "generator": torch.Generator().manual_seed(0)})


def shipped(network: str, way: str, other: str) -> Break:
    """Results of one way, taken for those of another."""
    runs = {**trained_runs()}
    runs[network, way] = runs[network, other]
    return replace(claims_module, "trained_runs", lambda: runs)


def averages_everywhere(self, config, generator):
    QUANTIZER(self, with_settings(config, smp_backward=True), generator)


class Timid(HindsightMax):
    """Guesses a twentieth of the maximum."""

    def update(self, x, *, largest=None, check=True):
        return super().update(x, largest=largest / 20, check=check)


class Exact(HindsightMax):
    """No guess at all."""

    def update(self, _, **options):
        return options["largest"]


def quarter_of_int4(x, **options):
    mean, variance = int4_mean_and_variance(x, **options)
    return mean, variance / 4


def without_its_last_epoch() -> Break:
    runs = {**trained_runs()}
    run = runs["mlp", "3 bits"]
    lost = np.concatenate([run.scores[:, :3], run.scores[:, 2:3] - 0.02], axis=1)
    runs["mlp", "3 bits"] = run._replace(scores=lost)
    return replace(claims_module, "trained_runs", lambda: runs)


FLUSHED = replace(layers, "luq_encode", with_other(luq_encode, underflow="flush"))
BACKWARDS = replace(layers, "luq_decode", scaled(luq_decode, -1.0))

BREAKS: dict[str, list[Break]] = {
    "update-is-unbiased-with-luq-alone": [
        FLUSHED,
        replace(layers, "luq_encode", with_other(luq_encode, rounding="stochastic", underflow="stochastic")),
        replace(layers, "luq_encode", the_same_coins),
    ],
    "update-error-in-closed-form": [
        replace(weight_updates, "luq_variance", scaled(luq_variance, 1.1)),
        replace(weight_updates, "luq_mean", scaled(luq_mean, 1.01)),
        replace(weight_updates, "luq_mean", with_other(luq_mean, rounding="stochastic", underflow="stochastic")),
    ],
    "powers-of-two-beat-equal-steps": [
        replace(weight_updates, "int4_mean_and_variance", quarter_of_int4),
        replace(weight_updates, "int4_mean_and_variance", with_other(int4_mean_and_variance, stochastic=True)),
        replace(weight_updates, "int4_mean_and_variance", with_other(int4_mean_and_variance, stochastic=False)),
    ],
    "readings-of-the-format": [
        replace(claims_module, "LOG_FORMATS", {**LOG_FORMATS, "fp4": 8}),
        replace(weight_updates, "luq_variance", with_other(luq_variance, fmt="fp4")),
    ],
    "samples-divide-the-variance": [
        replace(layers, "luq_encode", the_same_coins),
        replace(layers, "luq_encode", with_other(luq_encode, underflow="nearest")),
    ],
    "every-layers-update-is-unbiased": [FLUSHED, replace(layers, "luq_encode", the_same_coins)],
    "three-bit-training-needs-luq": [
        FLUSHED,
        shipped("mlp", "FP3 LUQ", "FP3 naive"),
        shipped("mlp", "FP3 stochastic underflow only", "FP3 naive"),
    ],
    "two-bit-training-recovers-with-samples": [
        replace(layers, "luq_encode", the_same_coins),
        shipped("mlp", "FP2 LUQ, N = 16", "FP2 LUQ, N = 4"),
        shipped("mlp", "FP2 naive", "FP2 LUQ, N = 1"),
    ],
    "averages-must-reach-the-layers-before": [
        replace(layers._Quantizer, "__init__", averages_everywhere),
        shipped("mlp", "FP2 LUQ, N = 16 for updates alone", "FP2 LUQ, N = 16"),
    ],
    "four-bit-training-matches-fp32": [BACKWARDS, shipped("convnet", "4 bits", "INT4 nearest")],
    "integer-gradients-are-the-worst-on-the-convnet": [
        replace(weight_updates, "int4_mean_and_variance", with_other(int4_mean_and_variance, stochastic=True)),
        shipped("convnet", "INT4 nearest", "FP4 naive"),
        shipped("convnet", "FP4 naive", "INT4 nearest"),
    ],
    "hindsight-costs-nothing": [
        replace(layers, "HindsightMax", Timid),
        replace(layers, "HindsightMax", Exact),
        shipped("mlp", "4 bits, hindsight", "FP3 LUQ"),
    ],
    "fine-tuning-does-not-hurt": [
        replace(experiment, "fnt_lr", lambda *arguments: 100.0 * arguments[3]),
        without_its_last_epoch(),
    ],
}


@pytest.fixture(autouse=True)
def _nothing_is_remembered():
    """Claims share what they trained within a session; a break must not meet it, nor leave anything behind."""
    claims_module._trained.cache_clear()
    yield
    claims_module._trained.cache_clear()


def test_every_claim_has_a_break() -> None:
    assert set(BREAKS) == set(CLAIMS)
    others = {value.id for value in vars(rounding_claims).values() if isinstance(value, Claim)}
    assert set(ledger("four_bit").claims) == set(CLAIMS) | others


@pytest.mark.parametrize(
    ("claim_id", "number"), [(name, number) for name, breaks in BREAKS.items() for number in range(len(breaks))]
)
def test_a_broken_implementation_is_noticed(claim_id: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    BREAKS[claim_id][number](monkeypatch)
    assert not CLAIMS[claim_id].check().evidence.holds
