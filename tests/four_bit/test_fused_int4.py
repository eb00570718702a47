"""INT4 operands and the packed ReLU, eager and by the kernels: the same bits at the same scale, and no waiting.

One process runs triton's interpreter for all kernels of the chapter, since triton reads the variable when it is first
imported.
"""

import itertools
import json
import math
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lib.four_bit.fused_int4 import PackedInt4, int4_pack, int4_unpack, relu_grad, relu_pack
from lib.four_bit.integers import SAWB, int4_decode, int4_encode, sawb_clip
from lib.four_bit.packing import pack_bits, pack_nibbles, unpack_bits
from tests.four_bit.test_fused import ROUNDINGS, UNDERFLOWS, every_way
from tests.needs import needs_triton

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    """Equal in dtype, shape and bits: also the sign of zero, and NaN."""
    if a is None or b is None:
        return a is b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[a.element_size()]
    return torch.equal(a.contiguous().view(bits), b.contiguous().view(bits))


def inputs() -> Iterator[torch.Tensor]:
    """Sizes around a block and a byte, every dtype, dense and not, with and without negative numbers, degenerate."""
    for count in (1, 2, 3, 7, 8, 9, 2047, 2048, 2049, 9001):
        yield gaussian(count, seed=count)
        yield gaussian(count, seed=count).abs()
    for dtype in DTYPES:
        for x in (gaussian(33, 65, dtype=dtype), gaussian(3, 5, 17, 13, dtype=dtype)):
            yield x
            yield x.clamp(min=0)
            yield -x.abs()
            yield x.transpose(0, 1)
            yield x[1:, ::2]
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


# The checks of the kernels, each run in the interpreter: it takes one process, since triton reads the variable when
# it is first imported.


def check_codes() -> int:
    """At the scale and the sign that eager found, the kernels' numbers and bytes; and those back as numbers."""
    from lib.four_bit import int4_kernels

    compared = 0
    for x in inputs():
        for clip, dtype in (("sawb", torch.float32), ("max", torch.bfloat16), ("sawb", torch.float16)):
            eager = int4_pack(x, clip=clip, dtype=dtype, backend="eager")
            whole = int4_pack(x, clip=clip, dtype=dtype, backend="triton")
            assert whole.shape == eager.shape == tuple(x.shape)
            assert whole.codes.dtype == eager.codes.dtype == dtype
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
            compared += 1
    return compared


def check_ties() -> int:
    """Exact ties go to even; and a float to either side of one goes where an exactly rounded division says."""
    from lib.four_bit import int4_kernels

    generator = torch.Generator().manual_seed(0)
    odd = 0
    for bound in torch.cat([torch.rand(40, generator=generator) + 0.5, torch.tensor([7.0, 15.0, 0.875, 1e-38])]):
        for signed in (torch.tensor(True), torch.tensor(False)):
            _, scale = int4_encode(torch.zeros(1), clip=bound, signed=signed, check=False)
            ties = (torch.arange(-18, 18) + 0.5) * scale
            near = [ties.nextafter(torch.tensor(side)) for side in (math.inf, -math.inf)]
            x = torch.cat([ties, *near, ties * 2, ties * 1e3])
            codes, _ = int4_encode(x, clip=bound, signed=signed, check=False)
            numbers, packed = int4_kernels.int4_codes(x, scale, signed, torch.float32, packs=True)
            assert same(numbers, codes.float())
            assert same(packed, pack_nibbles(codes))
            assert numbers.min() == (-7 if signed else 0)
            assert numbers.max() == (7 if signed else 15)
            odd += int(
                (codes.float() != (x * (1 / scale)).round().clamp(-7 if signed else 0, 7 if signed else 15)).sum()
            )
    # the cases tell a division from a product with the reciprocal
    assert odd > 20
    return odd


def check_scales() -> int:
    """Within what summing in float32 leaves of the moments, and over several rounds of few programs, too."""
    from lib.four_bit import int4_kernels

    usual, compared = int4_kernels._PROGRAMS, 0
    for count in (100, 4099, 20_001):
        x = gaussian(count, seed=1)
        heavy, even = x * gaussian(count, seed=2).exp(), torch.rand(count, generator=torch.Generator().manual_seed(3))
        for values in (x, x.clamp(min=0), heavy, x + 2, x.bfloat16(), even):
            wide = values.double()
            c1, c2 = (torch.tensor(c).double() for c in SAWB)
            size = c1 * wide.square().mean().sqrt()
            clip = size - c2 * wide.abs().mean()
            exact = wide.abs().max() if clip <= 0 else torch.minimum(clip, wide.abs().max())
            eager = int4_pack(values, backend="eager")
            for int4_kernels._PROGRAMS in (1, 2, 4, usual):
                triton = int4_pack(values, backend="triton")
                last = 7 if triton.signed else 15
                assert abs(triton.scale * last - exact) <= 1.5e-7 * size
                # eager sums in float32 and is off by as much again
                assert abs(triton.scale - eager.scale) * last <= 5e-7 * size
                if count > 4000 and values is not x and 3 * exact > size:
                    assert abs(triton.scale / eager.scale - 1) <= 1e-6
                again = int4_pack(values, backend="triton")
                assert same(triton.scale, again.scale)
                compared += 1
        for int4_kernels._PROGRAMS in (1, 2, 4, usual):
            # the largest entry, and the only negative one, are found wherever they are
            for place in (0, count // 2, count - 1):
                single = torch.full((count,), 0.25)
                single[place] = -8.0
                found = int4_pack(single, clip="max", backend="triton")
                assert found.scale == torch.tensor(8.0) / 7
                assert bool(found.signed)
                assert int(found.codes[place]) == -7
    return compared


def check_not_finite() -> int:
    """Whatever the rest, the scale says so; and codes are still small whole numbers."""
    compared = 0
    for bad in (math.nan, math.inf, -math.inf):
        for count, place in ((1, 0), (5, 4), (9001, 0), (9001, 5000), (9001, 9000)):
            for dtype in DTYPES:
                x = gaussian(count).to(dtype)
                x[place] = bad
                for clip in ("sawb", "max"):
                    found, eager = (int4_pack(x, clip=clip, backend=way) for way in ("triton", "eager"))
                    assert not math.isfinite(found.scale), (bad, count, clip)
                    assert math.isnan(found.scale) == math.isnan(eager.scale)
                    assert bool(found.signed) == bool(eager.signed)
                    assert int(found.codes.abs().max()) <= 15
                    assert int(found.codes[place]) == 0 or math.isinf(bad)
                    assert same(found.unpack(backend="triton"), found.codes)
                    compared += 1
    return compared


def check_options() -> int:
    """Without packing, and with the sign that the caller wants."""
    for x in (gaussian(2049), gaussian(2049).abs()):
        for signed in (True, False, None):
            for keep in (True, False):
                found, eager = (
                    int4_pack(x, clip="max", signed=signed, keep=keep, backend=way) for way in ("triton", "eager")
                )
                assert same(found.codes, eager.codes)
                assert same(found.packed, eager.packed)
                assert same(found.scale, eager.scale)
                assert bool(found.signed) == bool(eager.signed) == (bool((x < 0).any()) if signed is None else signed)
                assert (found.packed is None) == (not keep)
    x = gaussian(10).requires_grad_()
    assert not int4_pack(x, backend="triton").codes.requires_grad
    assert not relu_pack(x, backend="triton")[0].requires_grad
    with pytest.raises(ValueError, match="packed must hold 5 bytes"):
        int4_unpack(torch.zeros(4, dtype=torch.uint8), (10,), torch.tensor(True), backend="triton")
    with pytest.raises(ValueError, match="must hold 2 bytes"):
        relu_grad(x, torch.zeros(1, dtype=torch.uint8), backend="triton")
    return 12


def check_relu() -> int:
    """Values, bits, and gradients that are not finite where nothing may come through."""
    compared = 0
    for x in inputs():
        special = x.clone()
        if x.numel() > 4:
            special[(0,) * x.ndim] = math.nan
            special[(-1,) * x.ndim] = math.inf
        for values in (x, special):
            (value, bits), (expected, expected_bits) = (relu_pack(values, backend=way) for way in ("triton", "eager"))
            assert value.dtype == values.dtype
            assert value.shape == values.shape
            assert torch.equal(value.isnan(), values.isnan())
            assert torch.equal(value.nan_to_num(1.5), expected.nan_to_num(1.5))
            assert same(bits, expected_bits)
            grad = gaussian(*values.shape, seed=3).to(values.dtype)
            one = torch.tensor(1.0, dtype=values.dtype).expand(values.shape)
            for given in (grad, grad / 0, -one / 0, grad * math.nan, one, grad.mT if grad.ndim > 1 else grad):
                taken = given.mT if given.shape != values.shape else given
                found = relu_grad(taken, bits, backend="triton")
                assert same(found, relu_grad(taken, bits, backend="eager")), values
                assert not found[~(values > 0)].any()
                assert same(found[values > 0], taken[values > 0])
            compared += 1
    return compared


class _Refusing(TorchDispatchMode):
    """Refuses what looks at a tensor's entries."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default")):
            raise AssertionError(f"{name} waits for a GPU")
        return func(*args, **(kwargs or {}))


def nothing_is_looked_at(backend: str) -> None:
    for x in (gaussian(2049), torch.zeros(4), torch.empty(0)):
        for options in ({}, {"clip": "max", "signed": True}, {"keep": False, "dtype": torch.bfloat16}):
            with _Refusing():
                operand = int4_pack(x, backend=backend, **options)
                if operand.packed is not None:
                    operand.unpack(backend=backend)
                value, bits = relu_pack(x, backend=backend)
                relu_grad(value, bits, backend=backend)


def check_nothing_is_looked_at() -> int:
    nothing_is_looked_at("triton")
    return 9


def check_the_logarithmic_quantiser() -> int:
    return every_way("triton", list(itertools.product(ROUNDINGS, UNDERFLOWS)))


CHECKS = {check.__name__: check for name, check in sorted(globals().items()) if name.startswith("check_")}


def run_checks() -> None:
    """What each check counted, or how it failed, as JSON."""
    found = {}
    for name, check in CHECKS.items():
        try:
            found[name] = check()
        except Exception:
            found[name] = traceback.format_exc()
    print(json.dumps(found))


@pytest.fixture(scope="module")
def interpreted() -> dict[str, int | str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from tests.four_bit import test_fused_int4 as t; t.run_checks()"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, int | str] = json.loads(done.stdout.splitlines()[-1])
    return found


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("check", CHECKS)
def test_triton_in_its_interpreter(check: str, interpreted: dict[str, int | str]) -> None:
    found = interpreted[check]
    assert not isinstance(found, str), found
    assert found >= 9


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kernel", "entries", "constants"),
    [
        ("_statistics_kernel", 2, {}),
        ("_codes_kernel", 4, {"PACKS": True}),
        ("_codes_kernel", 4, {"PACKS": False}),
        ("_numbers_kernel", 2, {}),
        ("_relu_kernel", 4, {}),
        ("_relu_backward_kernel", 4, {}),
        ("_scale_kernel", 0, {"SAWB": True, "C1": SAWB[0], "C2": SAWB[1], "SIGN": "found", "PROGRAMS": 2048}),
        ("_scale_kernel", 0, {"SAWB": False, "C1": 0.0, "C2": 0.0, "SIGN": "signed", "PROGRAMS": 2048}),
    ],
)
def test_kernels_compile_for_a_gpu_without_one(kernel: str, entries: int, constants: dict[str, object]) -> None:
    """To machine code of the H100: 16 bytes of bfloat16 at a time, in and out, and exactly rounded divisions."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lib.four_bit import int4_kernels

    function = getattr(int4_kernels, kernel)
    names = [parameter.name for parameter in function.params]
    constants = constants | ({"BLOCK": int4_kernels._BLOCK} if entries else {})
    pointers = dict.fromkeys(("x_ptr", "codes_ptr", "value_ptr", "grad_ptr", "result_ptr"), "*bf16")
    pointers |= {"found_ptr": "*i32", "scale_ptr": "*fp32"}
    pointers |= dict.fromkeys(("signed_ptr", "packed_ptr", "bits_ptr"), "*u8")

    def ptx(number: str = "i32") -> str:
        used = constants | ({name: 1 for name in ("count", "pairs", "eighths") if name in names} if not number else {})
        signature = {name: "constexpr" if name in used else pointers.get(name, number) for name in names}
        multiples = {
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(names)
            if name in pointers or (name in ("count", "pairs", "eighths") and name not in used)
        }
        if not number:
            signature |= {name: "i32" for name in ("steps", "programs") if name in names}
        built = triton.compile(ASTSource(function, signature, used, multiples), target=GPUTarget("cuda", 90, 32))
        assert built.asm["cubin"]
        text: str = built.asm["ptx"]
        return text

    text = ptx()
    # sixteen entries a thread, eight at a time
    assert len(re.findall(r"(?:ld|st)\.global\.v4\.b32", text)) == entries
    assert "div.full" not in text
    assert "div.approx" not in text
    assert ("div.rn.f32" in text) == (kernel in ("_codes_kernel", "_scale_kernel"))
    assert "atom" not in text
    # more than 2^31 entries; and a single one, which triton makes a constant
    assert ptx("i64")
    assert ptx("")


def test_eager_is_the_definition() -> None:
    for x in inputs():
        for clip in ("sawb", "max"):
            signed = bool((x.float() < 0).any())
            codes, scale = int4_encode(x, clip=clip, signed=signed)
            operand = int4_pack(x, clip=clip, dtype=torch.bfloat16)
            assert same(operand.codes, codes.to(torch.bfloat16))
            assert same(operand.packed, pack_nibbles(codes))
            assert same(operand.scale, scale)
            assert bool(operand.signed) == signed
            assert same(operand.unpack(torch.bfloat16), operand.codes)
        value, bits = relu_pack(x)
        assert torch.equal(value, x.clamp(min=0))
        assert torch.equal(unpack_bits(bits, x.shape), x > 0)
        assert same(bits, pack_bits(x > 0))


def test_all_levels_come_back_and_a_value_is_code_times_scale() -> None:
    x = torch.arange(-7.0, 8.0)
    assert torch.equal(int4_pack(x, clip="max").codes, x)
    x = torch.arange(0.0, 16.0)
    operand = int4_pack(x, clip="max")
    assert torch.equal(operand.unpack(), x)
    x = gaussian(10_000)
    operand = int4_pack(x)
    assert torch.equal(operand.codes * operand.scale, int4_decode(*int4_encode(x)))
    assert operand.scale == sawb_clip(x) / 7
    inside = x.abs() <= sawb_clip(x)
    assert float((operand.codes * operand.scale - x)[inside].abs().max()) <= float(operand.scale) / 2 * (1 + 1e-6)


def test_constant_tensors_are_not_clipped() -> None:
    """SAWB's clip is negative there."""
    for value, code in ((2.5, 15), (-2.5, -7)):
        operand = int4_pack(torch.full((100,), value))
        assert bool((operand.codes == code).all())
        assert float(operand.codes[0] * operand.scale) == pytest.approx(value)


def test_nothing_is_read_back() -> None:
    """Looking at a value would stop a GPU: on the meta device there are no values to look at."""
    nothing_is_looked_at("eager")
    x = torch.empty(3, 1001, device="meta")
    operand = int4_pack(x, dtype=torch.bfloat16)
    assert operand.packed is not None
    assert operand.packed.shape == (1502,)
    assert operand.unpack(torch.bfloat16).shape == (3, 1001)
    value, bits = relu_pack(x)
    assert relu_grad(value, bits).shape == (3, 1001)
    with pytest.raises(AssertionError, match="waits for a GPU"), _Refusing():
        bool(torch.ones(()))


def test_gradients_that_are_not_finite_come_through_only_where_they_may() -> None:
    grad = torch.tensor([math.inf, math.nan, math.inf, math.nan])
    x = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    found = relu_grad(grad, relu_pack(x)[1])
    assert found[:3].tolist() == [0.0, 0.0, math.inf]
    assert bool(found[3].isnan())


def test_what_is_kept() -> None:
    operand = int4_pack(gaussian(3, 5), keep=False, dtype=torch.bfloat16)
    assert operand.packed is None
    assert repr(operand) == "PackedInt4(shape=(3, 5), dtype=torch.bfloat16, kept=False)"
    with pytest.raises(ValueError, match="keep=False"):
        operand.unpack()
    kept = int4_pack(gaussian(3, 5))
    assert kept.packed is not None
    assert kept.packed.nbytes == 8
    assert isinstance(kept, PackedInt4)


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="triton runs in its interpreter")
def test_triton_on_the_processor_says_how() -> None:
    for call in (int4_pack, relu_pack, lambda x, backend: relu_grad(x, pack_bits(x > 0), backend=backend)):
        with pytest.raises(ValueError, match="set TRITON_INTERPRET=1"):
            call(torch.ones(2), backend="triton")


def test_compiled_is_eager_here() -> None:
    x = gaussian(100)
    assert same(int4_pack(x, backend="compiled").packed, int4_pack(x, backend="eager").packed)
    assert same(relu_pack(x, backend="compiled")[1], relu_pack(x, backend="eager")[1])


def test_importing_it_does_not_import_triton() -> None:
    code = "import sys, lib.four_bit.fused_int4 as f; f.int4_pack; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: int4_pack(x.long()), TypeError, "x must be a floating-point tensor; it is torch.int64"),
        (lambda x: int4_pack(x.tolist()), TypeError, "x must be a floating-point tensor; it is list"),
        (lambda x: int4_pack(x, clip="none"), ValueError, "clip must be sawb or max; it is 'none'"),
        (lambda x: int4_pack(x, dtype=torch.int8), ValueError, "dtype must be one of torch.float32, .*torch.int8"),
        (lambda x: int4_pack(x, backend="cuda"), ValueError, "backend must be one of"),
        (lambda x: int4_pack(x).unpack(torch.int8), ValueError, "dtype must be one of"),
        (lambda x: int4_unpack(int4_pack(x).packed, (5,), torch.tensor(True)), ValueError, "must hold 3 bytes"),
        (lambda x: int4_unpack(int4_pack(x).packed, (2,), torch.ones(2).bool()), ValueError, "signed must be a 0-d"),
        (lambda x: int4_unpack(int4_pack(x).packed, (2,), torch.tensor(1)), ValueError, "signed must be a 0-d"),
        (lambda x: relu_pack(x.long()), TypeError, "x must be a floating-point tensor"),
        (lambda x: relu_grad(x, relu_pack(torch.ones(9))[1]), ValueError, "packed must hold 1 bytes"),
        (lambda x: relu_grad(x.long(), relu_pack(x)[1]), TypeError, "grad must be a floating-point tensor"),
    ],
)
def test_bad_input_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call(torch.ones(2))
