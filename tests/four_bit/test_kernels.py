"""The Triton kernels without a GPU: bit for bit in their interpreter, compiled for an H100, imported by nobody else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib.four_bit import luq_pack
from lib.four_bit.fused_int4 import int4_pack, relu_grad, relu_pack
from lib.four_bit.integers import SAWB
from lib.four_bit.packing import pack_bits
from tests.four_bit.kernel_checks import CHECKS
from tests.needs import needs_triton


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_triton_in_its_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.four_bit.kernel_checks"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["made"] == list(CHECKS)
    assert not found["failed"], "\n".join(found["failed"].values())


SIZES = ("count", "pairs", "eighths")
LUQ_KERNEL = {"LEVELS": 7, "ROUNDING": "stochastic", "UNDERFLOW": "stochastic", "POW2": False, "RANDOM": "counter"}
PROGRAMS = {"PROGRAMS": 2048}
POINTERS = {
    **dict.fromkeys(("x_ptr", "codes_ptr", "value_ptr", "grad_ptr", "result_ptr"), "*bf16"),
    **dict.fromkeys(("largest_ptr", "alpha_ptr", "scale_ptr"), "*fp32"),
    **dict.fromkeys(("rand_ptr", "found_ptr"), "*i32"),
    **dict.fromkeys(("signed_ptr", "packed_ptr", "bits_ptr"), "*u8"),
}


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("place", "entries", "constants"),
    [
        ("triton_kernels._quantise_kernel", 5, {**LUQ_KERNEL, "FORM": "packed"}),
        ("triton_kernels._quantise_kernel", 8, {**LUQ_KERNEL, "FORM": "units"}),
        ("triton_kernels._largest_kernel", 4, {}),
        ("int4_kernels._statistics_kernel", 2, {}),
        ("int4_kernels._codes_kernel", 4, {"PACKS": True}),
        ("int4_kernels._codes_kernel", 4, {"PACKS": False}),
        ("int4_kernels._numbers_kernel", 2, {}),
        ("int4_kernels._relu_kernel", 4, {}),
        ("int4_kernels._relu_backward_kernel", 4, {}),
        ("int4_kernels._scale_kernel", 0, {"SAWB": True, "C1": SAWB[0], "C2": SAWB[1], "SIGN": "found", **PROGRAMS}),
        ("int4_kernels._scale_kernel", 0, {"SAWB": False, "C1": 0.0, "C2": 0.0, "SIGN": "signed", **PROGRAMS}),
    ],
)
def test_kernels_compile_for_a_gpu_without_one(place: str, entries: int, constants: dict[str, object]) -> None:
    """To machine code of the H100: 16 bytes of bfloat16 at a time, in and out, and exactly rounded divisions."""
    from importlib import import_module

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, kernel = place.split(".")
    kernels = import_module(f"lib.four_bit.{module}")
    function = getattr(kernels, kernel)
    names = [parameter.name for parameter in function.params]
    constants = constants | ({"BLOCK": kernels._BLOCK} if entries else {})
    pointers = POINTERS | {"out_ptr": "*u8" if constants.get("FORM") == "packed" else "*bf16"}
    if kernel == "_largest_kernel":
        pointers["bits_ptr"] = "*i32"

    def ptx(number: str = "i32") -> str:
        """With sizes of that type; without one, of a single entry, which triton makes a constant."""
        used = constants | ({name: 1 for name in SIZES if name in names} if not number else {})
        kinds = {**pointers, **dict.fromkeys(SIZES, number), **dict.fromkeys(used, "constexpr")}
        signature = {name: kinds.get(name, "i32") for name in names}
        multiples = {
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(names)
            if name in pointers or (name in SIZES and name not in used)
        }
        built = triton.compile(ASTSource(function, signature, used, multiples), target=GPUTarget("cuda", 90, 32))
        assert built.asm["cubin"]
        text: str = built.asm["ptx"]
        return text

    text = ptx()
    # a thread takes eight entries of bfloat16 at a time
    assert len(re.findall(r"(?:ld|st)\.global\.v4\.b32", text)) == entries
    assert "div.full" not in text
    assert "div.approx" not in text
    divides = ("_quantise_kernel", "_codes_kernel", "_scale_kernel")
    assert ("div.rn.f32" in text) == (kernel in divides)
    assert ("atom" in text) == (kernel == "_largest_kernel")
    # more than 2^31 entries; and a single one
    assert ptx("i64")
    assert ptx("")


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="triton runs in its interpreter")
@pytest.mark.parametrize(
    "call",
    [
        lambda x, **options: luq_pack(x, seed=0, **options),
        int4_pack,
        relu_pack,
        lambda x, **options: relu_grad(x, pack_bits(x > 0), **options),
    ],
)
def test_triton_on_the_processor_says_how(call) -> None:
    with pytest.raises(ValueError, match="set TRITON_INTERPRET=1"):
        call(torch.ones(2), backend="triton")


def test_the_chapter_does_not_import_triton() -> None:
    code = "import sys, lib.four_bit as f; f.luq_pack; f.LUQLinear; f.PackedReLU; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
