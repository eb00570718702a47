"""The quantiser in packed form, eager: the definition's bits, right on average, and nothing is read back."""

import itertools

import numpy as np
import pytest
import torch

from lib.counter import counter_keys
from lib.four_bit import (
    Rounding,
    active_backend,
    compiled,
    counter_mantissas,
    fused,
    luq_encode,
    luq_fused,
    luq_mean,
    luq_pack,
    luq_variance,
    pack_nibbles,
)
from tests.four_bit.kernel_checks import NIBBLES, check_luq, heavy_tailed

NEAREST = Rounding(rounding="nearest", underflow="nearest")


def test_eager_is_the_definition() -> None:
    x = heavy_tailed(200_001)
    for rounding in map(Rounding, NIBBLES):
        codes, alpha = luq_encode(x, rounding, rand=counter_mantissas(x.shape, 5))
        packed = luq_pack(x, rounding, seed=5, backend="eager")
        assert torch.equal(packed.packed, pack_nibbles(codes))
        assert packed.alpha == alpha
        assert torch.equal(packed.decode(), luq_fused(x, rounding, seed=5))
    assert packed.nbytes == 100_001 + 4
    assert repr(packed) == "PackedLUQ(shape=(200001,), fmt='fp2', nbytes=100005, backend='eager')"


def test_compiled_is_eager() -> None:
    check_luq("compiled")


def test_the_compiled_hash_is_the_counters() -> None:
    keys = [np.uint32(key & 0xFFFFFFFF) for key in counter_keys(7)]
    found = [compiled._hashed(np.uint32(place), *keys) for place in range(1000)]
    assert found == counter_mantissas((1000,), 7).tolist()


def test_right_on_average_with_the_known_variance() -> None:
    """Over seeds 0 … 1499: the seeds that a training run would count through."""
    x = heavy_tailed(301)
    draws = torch.stack([luq_pack(x, seed=seed).decode() for seed in range(1500)]).double()
    mean, variance = luq_mean(x), luq_variance(x)
    error = (draws.mean(0) - mean).abs()
    assert bool((error <= 5 * (variance / 1500).sqrt() + 1e-5 * mean.abs() + 1e-12).all())
    busy = variance > 1e-2 * variance.max()
    np.testing.assert_allclose(draws.var(0)[busy], variance[busy], rtol=0.25)


def test_seeds_are_independent_and_repeatable() -> None:
    x = torch.full((100_000,), 1.5)
    options = {"max_abs": 64.0, "check": False}
    ups = [luq_pack(x, seed=seed, **options).decode() == 2 for seed in (0, 1, 2**40)]
    assert torch.equal(ups[0], luq_pack(x, seed=0, **options).decode() == 2)
    for a, b in itertools.combinations(ups, 2):
        # two fair coins agree half of the time
        assert float((a == b).double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(100_000))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_stay_so_without_a_check(bad: float) -> None:
    """A loss scaler looks for them."""
    assert not bool(torch.isfinite(luq_fused(torch.tensor([1.0, bad, 2.0]), seed=0, check=False)).all())


def test_without_a_check_nothing_is_read_back() -> None:
    """Looking at a value would stop a GPU: on the meta device there are no values to look at."""
    x = torch.empty(1001, device="meta")
    for max_abs in (None, torch.empty((), device="meta")):
        assert luq_pack(x, seed=1, max_abs=max_abs, check=False).packed.shape == (501,)
        assert luq_fused(x, seed=1, max_abs=max_abs, check=False).shape == (1001,)
    with pytest.raises((RuntimeError, NotImplementedError)):
        luq_pack(x, seed=1)


def test_which_way_is_taken(monkeypatch) -> None:
    assert luq_pack(torch.ones(4096), seed=0).backend == active_backend("cpu") == "compiled"
    assert luq_pack(torch.ones(16), seed=0).backend == active_backend("cpu", count=16) == "eager"
    with pytest.raises(ValueError, match="'compiled' is for the CPU"):
        active_backend("cuda", "compiled")
    monkeypatch.setattr(fused, "_has_triton", lambda: True)
    assert active_backend("cuda") == "triton"
    assert active_backend(torch.device("cuda", 1), "eager") == "eager"
    monkeypatch.setattr(fused, "_has_triton", lambda: False)
    assert active_backend("cuda") == "eager"
    for device in ("cpu", "cuda"):
        with pytest.raises(ValueError, match=r"of the extra gpu: pip install 'paperplay\[gpu\]'"):
            active_backend(device, "triton")


def test_nothing_random_needs_no_seed_and_float64_comes_back() -> None:
    x = heavy_tailed(1000).double()
    values = luq_fused(x, NEAREST)
    assert values.dtype == torch.float64
    assert torch.equal(values, luq_fused(x.float(), NEAREST, seed=9).double())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (luq_pack, "needs a seed"),
        (lambda x: luq_pack(x, seed=0, rand=torch.zeros(2, dtype=torch.int32)), "not both"),
        (lambda x: luq_pack(x, Rounding("reference"), seed=0), "must fit in 4 bits; 'reference' has 17 values"),
        (lambda x: luq_pack(x / 0, seed=0, max_abs=1.0), "x must be finite"),
        (lambda x: luq_pack(x, seed=0, max_abs=torch.ones(2)), "max_abs must be one number"),
        (lambda x: luq_pack(x, seed=0, backend="numba"), "backend must be one of auto, eager, compiled, triton"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call(torch.ones(2))
