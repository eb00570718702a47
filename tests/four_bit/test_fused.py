"""Three ways to run one quantiser: the same bits from each, and right on average."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from lib.four_bit import (
    LOG_FORMATS,
    active_backend,
    counter_mantissas,
    fused,
    luq_encode,
    luq_fused,
    luq_mean,
    luq_pack,
    luq_variance,
    pack_nibbles,
)
from tests.needs import needs_triton

ROUNDINGS = ("stochastic", "nearest", "down")
UNDERFLOWS = ("stochastic", "nearest", "flush")
NIBBLES = [name for name, levels in LOG_FORMATS.items() if levels <= 7]


def heavy_tailed(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator) * torch.exp(1.5 * torch.randn(count, generator=generator))
    return x.to(dtype)


def same_bits(x: torch.Tensor, backend: str, **options) -> None:
    """A backend against the definition: bytes, alpha, values, dtype; and something must have been quantised."""
    ours, reference = luq_pack(x, backend=backend, **options), luq_pack(x, backend="eager", **options)
    assert (ours.backend, reference.backend) == (backend, "eager")
    assert torch.equal(ours.packed, reference.packed), options
    assert torch.equal(ours.alpha, reference.alpha), options
    assert ours.shape == tuple(x.shape)
    values = luq_fused(x, backend=backend, **options)
    assert values.dtype == x.dtype
    assert values.shape == x.shape
    expected = reference.decode(x.dtype)
    bits = {4: torch.int32, 2: torch.int16}[x.element_size()]
    assert torch.equal(values.view(bits), expected.view(bits)), options


def cases() -> list[tuple[torch.Tensor, dict]]:
    """Odd sizes, whole rows and rests, every dtype, zeros, tiny and huge magnitudes, saturation, given numbers."""
    given = torch.randint(1 << 23, (8193,), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    wide = heavy_tailed(8193)
    special = torch.zeros(8192)
    special[::3] = torch.tensor([1.0, -0.0, 0.5])[torch.arange(len(special[::3])) % 3]
    return [
        *((heavy_tailed(count), {"seed": count}) for count in (0, 1, 2, 7, 4096, 8192, 8193, 12_301)),
        *((heavy_tailed(9001, 1, dtype), {"seed": 2}) for dtype in (torch.bfloat16, torch.float16)),
        # levels that these dtypes do not hold: the last step is a rounding
        *(
            (heavy_tailed(5000, 1, dtype), {"seed": 2, "max_abs": largest})
            for dtype in (torch.bfloat16, torch.float16)
            for largest in (0.7, 3.3, 1 + 2**-8, 1 + 3 * 2**-8)
        ),
        (heavy_tailed(5000, 1, torch.bfloat16), {"seed": 2, "max_abs": 3e38}),
        (heavy_tailed(9000).view(3, 30, 100).transpose(0, 2), {"seed": 3}),
        (torch.zeros(8199), {"seed": 4}),
        (special, {"seed": 5}),
        *((wide * scale, {"seed": 6}) for scale in (1e-40, 1e-30, 1e30)),
        (wide, {"seed": 7, "max_abs": float(wide.abs().max()) / 3}),
        (wide, {"seed": 8, "max_abs": torch.tensor(500.0), "check": False}),
        (wide, {"seed": 9, "max_abs": 0.0}),
        (wide, {"seed": 10, "pow2_alpha": True}),
        (wide, {"rand": given}),
        (wide[:5], {"rand": given[:5]}),
    ]


def every_way(backend: str, modes: list[tuple[str, str]]) -> int:
    """All cases in the default mode, one format in all modes, and every format in the last."""
    compared = 0
    for x, options in cases():
        same_bits(x, backend, **options)
        compared += 1
    x = heavy_tailed(8201, 3)
    x[0], x[1] = 64 * 2.0**20, 2.0**20 * (1 - 2.0**-24)  # just below the smallest level of fp4: y + 1 rounds to 2
    pairs = [("fp4", mode) for mode in modes] + [(fmt, modes[-1]) for fmt in (*NIBBLES, 2)]
    for fmt, (rounding, underflow) in pairs:
        same_bits(x, backend, seed=11, fmt=fmt, rounding=rounding, underflow=underflow)
        compared += 1
    x = heavy_tailed(8201, 4)
    values = [luq_fused(x, seed=12, fmt="reference", backend=way) for way in (backend, "eager")]
    assert torch.equal(*values)
    return compared + 1


def test_eager_is_the_definition() -> None:
    x = heavy_tailed(200_001)
    for fmt in NIBBLES:
        codes, alpha = luq_encode(x, fmt=fmt, rand=counter_mantissas(x.shape, 5))
        packed = luq_pack(x, seed=5, fmt=fmt)
        assert torch.equal(packed.packed, pack_nibbles(codes))
        assert packed.alpha == alpha
        assert torch.equal(packed.decode(), luq_fused(x, seed=5, fmt=fmt))
    assert packed.nbytes == 100_001 + 4
    assert repr(packed) == "PackedLUQ(shape=(200001,), fmt='fp2', nbytes=100005, backend='eager')"


# torch's compiler, when it is first imported, about torch's own code
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_is_eager_bit_for_bit() -> None:
    """In few modes, since each takes seconds to compile; the shapes share them."""
    from torch._dynamo.utils import counters

    fused._compiled.cache_clear()
    before = counters["stats"]["unique_graphs"]
    assert every_way("compiled", [("stochastic", "stochastic"), ("nearest", "flush")]) > 25
    # two ways out of two modes, and given numbers in one; not one for each of the shapes, formats and scales
    assert fused._compiled.cache_info().currsize == 6
    # and two more dtypes in one mode
    assert counters["stats"]["unique_graphs"] - before == 10


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kernel", ["_pack_kernel", "_quantise_kernel", "_largest_kernel"])
def test_kernels_compile_for_a_gpu_without_one(kernel: str) -> None:
    """To machine code of the H100, with the exactly rounded division and 16 bytes at a time."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lib.four_bit import triton_kernels

    constants = {"LEVELS": 7, "ROUNDING": "stochastic", "UNDERFLOW": "stochastic", "POW2": False, "RANDOM": "counter"}
    constants |= {"BLOCK": 4096, "UNITS": True}
    pointers = {"x_ptr": "*bf16", "value_ptr": "*bf16", "largest_ptr": "*fp32", "rand_ptr": "*i32"}
    pointers |= {"packed_ptr": "*u8", "alpha_ptr": "*fp32", "bits_ptr": "*i32"}
    function = getattr(triton_kernels, kernel)
    names = [parameter.name for parameter in function.params]
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    multiples = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if name in pointers or name in ("count", "pairs")
    }
    used = {name: constants[name] for name in names if name in constants}
    built = triton.compile(ASTSource(function, signature, used, multiples), target=GPUTarget("cuda", 90, 32))
    assert built.asm["cubin"]
    assert "ld.global.v4.b32" in built.asm["ptx"]
    assert "div.full" not in built.asm["ptx"]
    assert ("div.rn.f32" in built.asm["ptx"]) == (kernel != "_largest_kernel")


def test_right_on_average_with_the_known_variance() -> None:
    """Over seeds 0 … 1999: the seeds that a training run would count through."""
    x = heavy_tailed(301)
    draws = torch.stack([luq_pack(x, seed=seed).decode() for seed in range(2000)]).double()
    mean, variance = luq_mean(x), luq_variance(x)
    error = (draws.mean(0) - mean).abs()
    assert bool((error <= 5 * (variance / 2000).sqrt() + 1e-5 * mean.abs() + 1e-12).all())
    busy = variance > 1e-2 * variance.max()
    np.testing.assert_allclose(draws.var(0)[busy], variance[busy], rtol=0.25)
    assert float((draws.mean(0) - x).abs().max()) > 0  # and it is no identity


def test_seeds_are_independent_and_repeatable() -> None:
    x = torch.full((100_000,), 1.5)
    options = {"max_abs": 64.0, "check": False}
    ups = [luq_pack(x, seed=seed, **options).decode() == 2 for seed in (0, 1, 2**40)]
    assert torch.equal(ups[0], luq_pack(x, seed=0, **options).decode() == 2)
    for a, b in itertools.combinations(ups, 2):
        # two fair coins agree half of the time
        assert float((a == b).double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(100_000))


def test_values_that_are_not_finite_stay_so_without_a_check() -> None:
    """A loss scaler looks for them."""
    for bad in (float("nan"), float("inf")):
        x = torch.tensor([1.0, bad, 2.0])
        assert not bool(torch.isfinite(luq_fused(x, seed=0, check=False)).all())


def test_without_a_check_nothing_is_read_back() -> None:
    """Looking at a value would stop a GPU: on the meta device there are no values to look at."""
    x = torch.empty(1001, device="meta")
    for max_abs in (None, torch.empty((), device="meta")):
        packed = luq_pack(x, seed=1, max_abs=max_abs, check=False)
        assert packed.packed.shape == (501,)
        assert luq_fused(x, seed=1, max_abs=max_abs, check=False).shape == (1001,)
    with pytest.raises((RuntimeError, NotImplementedError)):
        luq_pack(x, seed=1)


def test_which_way_is_taken(monkeypatch) -> None:
    assert active_backend("cpu") == "eager"
    monkeypatch.setattr(fused, "_has_triton", lambda: True)
    assert active_backend("cuda") == "triton"
    assert active_backend(torch.device("cuda", 1), "eager") == "eager"
    monkeypatch.setattr(fused, "_has_triton", lambda: False)
    assert active_backend("cuda") == "eager"
    for device in ("cpu", "cuda"):
        with pytest.raises(ValueError, match=r"the extra gpu installs: pip install 'paperplay\[gpu\]'"):
            active_backend(device, "triton")
    with pytest.raises(ValueError, match="'compiled' is for the processor"):
        active_backend("cuda", "compiled")


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="triton runs in its interpreter")
def test_triton_on_the_processor_says_how() -> None:
    with pytest.raises(ValueError, match="set TRITON_INTERPRET=1"):
        luq_pack(torch.ones(2), seed=0, backend="triton")


def test_the_chapter_does_not_import_triton_or_compile_anything() -> None:
    code = "import sys, lib.four_bit as f; f.luq_pack; f.LUQLinear; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert fused._compiled.cache_info().maxsize is None  # kept for good, made on request


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (luq_pack, ValueError, "needs a seed"),
        (lambda x: luq_pack(x, seed=0, rand=torch.zeros(2, dtype=torch.int32)), ValueError, "not both"),
        (lambda x: luq_pack(x, seed=0, fmt="reference"), ValueError, "must fit in 4 bits; 'reference' has 17 values"),
        (lambda x: luq_pack(x / 0, seed=0, max_abs=1.0), ValueError, "x must be finite"),
        (lambda x: luq_pack(x, seed=0, max_abs=torch.ones(2)), ValueError, "max_abs must be one number"),
        (lambda x: luq_pack(x, rand=torch.zeros(3, dtype=torch.int32)), ValueError, "rand must be an int32 tensor"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call(torch.ones(2))


def test_nothing_random_needs_no_seed_and_float64_comes_back() -> None:
    x = heavy_tailed(1000).double()
    values = luq_fused(x, rounding="nearest", underflow="nearest")
    assert values.dtype == torch.float64
    assert torch.equal(values, luq_fused(x.float(), seed=9, rounding="nearest", underflow="nearest").double())
