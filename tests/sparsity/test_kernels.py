"""The Triton kernels without a GPU: bit for bit in their interpreter, compiled for an H100, imported by nobody else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib.sparsity import is_nm_sparse, nm_greedy, nm_mvue, nm_mvue_luq, nm_prune, unpack_24
from tests.needs import needs_triton
from tests.sparsity.kernel_checks import CHECKS
from tests.sparsity.test_sampling import seeded


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_triton_in_its_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.sparsity.kernel_checks"],
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


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", ["i32", "i64", ""])
@pytest.mark.parametrize(
    ("along", "method", "form", "tile", "entries"),
    [
        (True, "counter", "dense", (1, 1024), 8),
        (False, "counter", "dense", (1024, 1), 8),
        (False, "counter", "transposed", (64, 16), 8),
        (False, "counter", "compressed", (64, 16), 6),
        (True, "greedy", "dense", (1, 1024), 8),
        (False, "counter", "levels", (64, 16), 4),
    ],
)
def test_kernels_compile_for_a_gpu_without_one(along, method, form, tile, entries, *, number: str) -> None:
    """16 bytes of bfloat16 at a time, in and out; exactly rounded divisions; nothing fused, no subnormal flushed."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lib.sparsity.triton_kernels import _prune_kernel

    names = [parameter.name for parameter in _prune_kernel.params]
    sizes = ("rows", "blocks", "size")
    constants: dict[str, object] = {"N": 2, "M": 4, "ALONG": along, "METHOD": method, "FORM": form}
    constants |= {"ROWS": tile[0], "BLOCKS": tile[1]}
    if not number:  # a size of 1 is a constant to triton
        constants |= {"rows": 1, "blocks": 1}
    levels = form == "levels"
    kinds = {"x_ptr": "*bf16", "rand_ptr": "*bf16", "out_ptr": "*u8" if levels else "*bf16", "index_ptr": "*u8"}
    kinds |= {"largest_ptr": "*fp32" if levels else "*bf16", **dict.fromkeys(sizes, number or "i32")}
    kinds |= dict.fromkeys(constants, "constexpr")
    signature = {name: kinds.get(name, "i32") for name in names}
    multiples = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if name.endswith("_ptr") or (name in sizes and name not in constants)
    }
    source = ASTSource(_prune_kernel, signature, constants, multiples)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    assert built.asm["cubin"]
    ptx = built.asm["ptx"]
    if number:
        assert len(re.findall(r"(?:ld|st)\.global\.v4\.b32", ptx)) == entries
    assert not re.search(r"div\.full|div\.approx|fma|ftz", ptx)
    assert ("div.rn.f32" in ptx) == (method == "counter")


def test_forms_are_those_of_the_mask() -> None:
    x = torch.randn(3, 12, 5, generator=seeded())
    kept = nm_mvue(x, dim=1, generator=seeded(1))
    assert torch.equal(nm_prune(x, dim=1, generator=seeded(1)), kept)
    turned = nm_prune(x, dim=1, form="transposed", generator=seeded(1))
    assert torch.equal(turned, kept.transpose(1, 2))
    assert turned.is_contiguous()
    values, indices = nm_prune(x, dim=1, form="compressed", generator=seeded(1))
    assert torch.equal(unpack_24(values, indices, 12, dim=1), kept)
    assert torch.equal(nm_prune(x, 1, 2, dim=1, method="greedy"), nm_greedy(x, 1, 2, dim=1))


def test_mask_and_levels_together_are_unbiased_in_3_bits() -> None:
    x = torch.randn(8, 64, generator=seeded())
    # in float64, since the mean of an entry that never changes is to be the entry
    generator = seeded(2)
    drawn = torch.cat([nm_mvue_luq(x.repeat(5, 1), 0, generator=generator).decode().view(5, 8, 64) for _ in range(400)])
    off, error = (drawn.double().mean(0) - x).abs(), drawn.double().std(0) / len(drawn) ** 0.5
    assert (off <= 5 * error + 1e-6).all()
    # no slack in the error either: the squares of what is off are as large as chance makes them
    assert 0.8 < float(off.square().sum() / error.square().sum()) < 1.2
    # whatever is drawn, the largest magnitude that a block keeps is the same: a kernel finds it in a pass of its own
    assert len({float(one.abs().max()) for one in drawn}) == 1
    assert is_nm_sparse(drawn[0], 2, 4, 0)
    packed = nm_mvue_luq(x, 0)
    assert 8 * (packed.nbytes - packed.values.alpha.nbytes) == 3 * x.numel()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method must be"),
        ({"form": "sparse"}, "form must be"),
        ({"n": 1, "form": "compressed"}, "form 'compressed' is for 2:4"),
        ({"method": "greedy", "rand": torch.zeros(1)}, "rand and generator are for method 'mvue'"),
        ({"m": 3}, "multiple of m = 3"),
    ],
)
def test_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nm_prune(torch.ones(4), **options)


def test_the_chapter_does_not_import_triton() -> None:
    code = "import sys, lib.sparsity as s; s.nm_prune; s.nm_mvue_luq; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_benchmark_reads_its_options_and_refuses_a_processor(monkeypatch, capsys) -> None:
    from tests.benchmarks import sparsity_on_gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert sparsity_on_gpu.main(["--quick"]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        sparsity_on_gpu.main(["--slow"])
