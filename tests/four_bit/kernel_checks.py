"""What Triton's kernels must do, in its interpreter and on a GPU: give the bits of eager torch, and wait for nothing.

Run as a program it makes all checks and prints what failed: triton reads TRITON_INTERPRET when it is first imported.
"""

import itertools
import json
import math
import traceback
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lib.four_bit import LOG_FORMATS, Rounding, luq_fused, luq_levels, luq_pack
from lib.four_bit.fused_int4 import int4_pack, int4_unpack, relu_grad, relu_pack
from lib.four_bit.integers import SAWB, int4_encode
from lib.four_bit.packing import pack_nibbles

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LUQ = Rounding()
EVERY_MODE = [
    Rounding(rounding=rounding, underflow=underflow)
    for rounding in ("stochastic", "nearest", "down")
    for underflow in ("stochastic", "nearest", "flush")
]
NIBBLES = [name for name, levels in LOG_FORMATS.items() if levels <= 7]


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def heavy_tailed(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator) * torch.exp(1.5 * torch.randn(count, generator=generator))
    return x.to(dtype)


def same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    """Equal in dtype, shape and bits: also the sign of zero, and NaN."""
    if a is None or b is None:
        return a is b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[a.element_size()]
    return torch.equal(a.contiguous().view(bits), b.contiguous().view(bits))


def same_bits(x: torch.Tensor, backend: str, rounding: Rounding = LUQ, **options) -> None:
    """LUQ by a backend against the definition: bytes, alpha, values, dtype."""
    ours, reference = (luq_pack(x, rounding, backend=way, **options) for way in (backend, "eager"))
    assert (ours.backend, reference.backend) == (backend, "eager")
    assert torch.equal(ours.packed, reference.packed), (rounding, options)
    assert torch.equal(ours.alpha, reference.alpha), (rounding, options)
    assert ours.shape == tuple(x.shape)
    assert same(luq_fused(x, rounding, backend=backend, **options), reference.decode(x.dtype)), (rounding, options)


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
        (wide, {"seed": 10, "rounding": Rounding(pow2_alpha=True)}),
        (wide, {"rand": given}),
        (wide[:5], {"rand": given[:5]}),
    ]


def at_the_edge() -> torch.Tensor:
    """With an entry just below the smallest level of fp4, for which y + 1 rounds to 2."""
    x = heavy_tailed(1031, 3)
    x[0], x[1] = 64 * 2.0**20, 2.0**20 * (1 - 2.0**-24)
    return x


def inputs() -> Iterator[torch.Tensor]:
    """For INT4. Sizes around a block and a byte, every dtype, dense and not, with and without negative numbers."""
    for count in (1, 2, 3, 7, 8, 9, 2047, 2048, 2049, 9001):
        yield gaussian(count, seed=count)
    for dtype in DTYPES:
        x = gaussian(33, 65, dtype=dtype)
        yield from (x, x.abs(), x.clamp(min=0), -x.abs(), x.transpose(0, 1), x[1:, ::2])
    yield gaussian(3, 5, 17, 13).transpose(0, 1)
    yield gaussian(3, 5, 17, 13).to(memory_format=torch.channels_last)
    yield gaussian(4097).double()
    # in float32 this is no negative number any more
    yield torch.tensor([1.0, -1e-60], dtype=torch.float64)
    yield torch.tensor(-3.0)
    yield torch.tensor([0.0, -0.0, 1.0, -0.0])
    yield from (torch.full((2049,), value) for value in (0.0, -0.0, 2.5, -2.5))
    yield from (gaussian(4099, seed=5) * scale for scale in (1e-44, 1e-40, 1e-25, 1e18, 1e25, 1e37))
    yield from (gaussian(4099, seed=6).abs() * scale for scale in (1e-44, 1e-40, 1e18))
    # the sum of squares overflows, no part of it does
    yield gaussian(9001) * 2.5e17
    yield from (torch.empty(shape) for shape in ((0,), (3, 0), (2, 0, 4, 4)))


def check_luq(backend: str = "triton", device: str = "cpu") -> None:
    """All cases in the default mode, every format in all modes, and the format of 17 values."""
    for x, options in cases():
        there = {name: each.to(device) if isinstance(each, torch.Tensor) else each for name, each in options.items()}
        same_bits(x.to(device), backend, **there)
    edge = at_the_edge().to(device)
    for fmt, mode in itertools.product([*NIBBLES, 2], EVERY_MODE):
        same_bits(edge, backend, replace(mode, fmt=fmt), seed=11)
    for mode in EVERY_MODE:
        wide = replace(mode, fmt="reference")
        assert torch.equal(*(luq_fused(edge, wide, seed=12, backend=way) for way in (backend, "eager")))
    units = [luq_levels(edge, seed=5, dtype=torch.bfloat16, backend=way) for way in (backend, "eager")]
    assert all(same(*pair) for pair in zip(*units, strict=True))


def check_codes() -> None:
    """At the scale and the sign that eager found, the kernels' numbers and bytes; and those back as numbers."""
    from lib.four_bit import int4_kernels

    halves = itertools.cycle([("max", torch.bfloat16), ("sawb", torch.float16)])
    for x in inputs():
        for clip, dtype in (("sawb", torch.float32), next(halves)):
            eager, whole = (int4_pack(x, clip=clip, dtype=dtype, backend=way) for way in ("eager", "triton"))
            assert whole.shape == eager.shape == tuple(x.shape)
            assert same(whole.signed, eager.signed), (x, clip)
            assert whole.codes.is_contiguous()
            found = whole.codes, whole.packed
            if x.numel():
                flat = (x if x.dtype in DTYPES else x.float()).contiguous()
                found = int4_kernels.int4_codes(flat, eager.scale, eager.signed, dtype, packs=True)
            assert same(found[0], eager.codes), (x, clip)
            assert same(found[1], eager.packed), (x, clip)
            size = float(x.double().square().mean().sqrt()) if clip == "sawb" and x.numel() else 0.0
            # NaN for both where the sum of magnitudes overflows, too
            near = abs(float(whole.scale) - float(eager.scale)) <= 6e-7 * size
            assert near or (x.numel() and bool(whole.scale.isnan() & eager.scale.isnan())), (x, clip)
            if same(whole.scale, eager.scale):
                assert same(whole.packed, eager.packed)
            for one, other in ((eager, "triton"), (whole, "eager")):
                assert same(one.unpack(dtype, other), one.codes), (x, clip)


def check_ties(device: str = "cpu") -> None:
    """Exact ties go to even; and a float to either side of one goes where an exactly rounded division says."""
    from lib.four_bit import int4_kernels

    generator = torch.Generator().manual_seed(0)
    odd = 0
    for bound in torch.cat([torch.rand(40, generator=generator) + 0.5, torch.tensor([7.0, 15.0, 0.875, 1e-38])]):
        for signed, first, last in ((torch.tensor(True), -7, 7), (torch.tensor(False), 0, 15)):
            _, scale = int4_encode(torch.zeros(1), clip=bound, signed=signed, check=False)
            ties = (torch.arange(-18, 18) + 0.5) * scale
            near = [ties.nextafter(torch.tensor(side)) for side in (math.inf, -math.inf)]
            x = torch.cat([ties, *near, ties * 2, ties * 1e3])
            codes, _ = int4_encode(x, clip=bound, signed=signed, check=False)
            there = (part.to(device) for part in (x, scale, signed))
            numbers, packed = (part.cpu() for part in int4_kernels.int4_codes(*there, torch.float32, packs=True))
            assert same(numbers, codes.float())
            assert same(packed, pack_nibbles(codes))
            assert (numbers.min(), numbers.max()) == (first, last)
            odd += int((codes.float() != (x * (1 / scale)).round().clamp(first, last)).sum())
    # the cases tell a division from a product with the reciprocal
    assert odd > 20


def check_scales() -> None:
    """Within what summing in float32 leaves of the moments, and over several rounds of few programs, too."""
    from lib.four_bit import int4_kernels

    usual = int4_kernels._PROGRAMS
    for count in (100, 9001):
        x = gaussian(count, seed=1)
        heavy, even = x * gaussian(count, seed=2).exp(), torch.rand(count, generator=torch.Generator().manual_seed(3))
        for values in (x, x.clamp(min=0), heavy, x + 2, x.bfloat16(), even):
            wide = values.double()
            c1, c2 = (torch.tensor(c).double() for c in SAWB)
            size = c1 * wide.square().mean().sqrt()
            clip = size - c2 * wide.abs().mean()
            exact = wide.abs().max() if clip <= 0 else torch.minimum(clip, wide.abs().max())
            eager = int4_pack(values, backend="eager")
            for int4_kernels._PROGRAMS in (1, 2, usual) if count > 4000 else (usual,):
                triton, again = (int4_pack(values, backend="triton") for _ in range(2))
                last = 7 if triton.signed else 15
                assert abs(triton.scale * last - exact) <= 1.5e-7 * size
                # eager sums in float32 and is off by as much again
                assert abs(triton.scale - eager.scale) * last <= 5e-7 * size
                if count > 4000 and values is not x and 3 * exact > size:
                    assert abs(triton.scale / eager.scale - 1) <= 1e-6
                assert same(triton.scale, again.scale)
        for int4_kernels._PROGRAMS in (1, 2, usual):
            # the largest entry, and the only negative one, are found wherever they are
            for place in (0, count // 2, count - 1):
                single = torch.full((count,), 0.25)
                single[place] = -8.0
                found = int4_pack(single, clip="max", backend="triton")
                assert found.scale == torch.tensor(8.0) / 7
                assert bool(found.signed)
                assert int(found.codes[place]) == -7


def check_not_finite() -> None:
    """Whatever the rest, the scale says so; and codes are still small whole numbers."""
    dtypes = itertools.cycle(DTYPES)
    for bad, clip in itertools.product((math.nan, math.inf, -math.inf), ("sawb", "max")):
        for count, place in ((1, 0), (5, 4), (9001, 0), (9001, 5000), (9001, 9000)):
            x = gaussian(count).to(next(dtypes))
            x[place] = bad
            found, eager = (int4_pack(x, clip=clip, backend=way) for way in ("triton", "eager"))
            assert not math.isfinite(found.scale), (bad, count, clip)
            assert math.isnan(found.scale) == math.isnan(eager.scale)
            assert bool(found.signed) == bool(eager.signed)
            assert int(found.codes.abs().max()) <= 15
            assert int(found.codes[place]) == 0 or math.isinf(bad)
            assert same(found.unpack(backend="triton"), found.codes)


def check_options() -> None:
    """Without packing, and with the sign that the caller wants."""
    options = itertools.product((gaussian(2049), gaussian(2049).abs()), (True, False, None), (True, False))
    for x, signed, keep in options:
        found, eager = (int4_pack(x, clip="max", signed=signed, keep=keep, backend=way) for way in ("triton", "eager"))
        assert all(same(getattr(found, part), getattr(eager, part)) for part in ("codes", "packed", "scale", "signed"))
        assert bool(found.signed) == (bool((x < 0).any()) if signed is None else signed)
        assert (found.packed is None) == (not keep)
    x = gaussian(10).requires_grad_()
    assert not int4_pack(x, backend="triton").codes.requires_grad
    assert not relu_pack(x, backend="triton")[0].requires_grad
    with pytest.raises(ValueError, match="packed must hold 5 bytes"):
        int4_unpack(torch.zeros(4, dtype=torch.uint8), (10,), torch.tensor(True), backend="triton")
    with pytest.raises(ValueError, match="must hold 2 bytes"):
        relu_grad(x, torch.zeros(1, dtype=torch.uint8), backend="triton")


def check_relu() -> None:
    """Values, bits, and gradients that are not finite where nothing may come through."""
    for x in inputs():
        values = x
        if x.numel() > 4 and x.is_contiguous():
            values = x.clone()
            values[(0,) * values.ndim] = math.nan
            values[(-1,) * values.ndim] = math.inf
        (value, bits), (expected, expected_bits) = (relu_pack(values, backend=way) for way in ("triton", "eager"))
        assert value.dtype == values.dtype
        assert value.shape == values.shape
        assert torch.equal(value.isnan(), values.isnan())
        assert torch.equal(value.nan_to_num(1.5), expected.nan_to_num(1.5))
        assert same(bits, expected_bits)
        grad = gaussian(*values.shape, seed=3).to(values.dtype)
        mixed = grad.clone().view(-1)
        for place, bad in enumerate((math.inf, -math.inf, math.nan)):
            mixed[place::5] = bad
        one = torch.tensor(1.0, dtype=values.dtype).expand(values.shape)  # of stride 0
        for taken in (mixed.view(grad.shape), one, grad.mT.contiguous().mT if grad.ndim > 1 else grad):
            found = relu_grad(taken, bits, backend="triton")
            assert same(found, relu_grad(taken, bits, backend="eager")), values
            assert not found[~(values > 0)].any()
            assert same(found[values > 0], taken[values > 0])


class _Refusing(TorchDispatchMode):
    """Refuses what looks at a tensor's entries."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default")):
            raise AssertionError(f"{name} waits for a GPU")
        return func(*args, **(kwargs or {}))


def check_nothing_is_looked_at(backend: str = "triton") -> None:
    with pytest.raises(AssertionError, match="waits for a GPU"), _Refusing():
        bool(torch.ones(()))
    for x in (gaussian(2049), torch.zeros(4), torch.empty(0)):
        for options in ({}, {"clip": "max", "signed": True}, {"keep": False, "dtype": torch.bfloat16}):
            with _Refusing():
                operand = int4_pack(x, backend=backend, **options)
                if operand.packed is not None:
                    operand.unpack(backend=backend)
                value, bits = relu_pack(x, backend=backend)
                relu_grad(value, bits, backend=backend)


CHECKS = {name: check for name, check in sorted(globals().items()) if name.startswith("check_")}

if __name__ == "__main__":
    failed = {}
    for name, check in CHECKS.items():
        try:
            check()
        except Exception:
            failed[name] = traceback.format_exc()
    print(json.dumps({"made": list(CHECKS), "failed": failed}))
