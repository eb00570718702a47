"""Chapter 04 against its peers: quantising gradients on one core, the kernels on a GPU, and a training step there."""

import functools
import logging

import pytest
import torch
from torch import nn

from lib.four_bit import LUQConfig, luq, luq_pack, quantize_model
from lib.models import residual_network
from tests.benchmarks.conftest import label
from tests.needs import needs_gpu, needs_triton

COUNT = 1 << 22
CORE = "quantise 4,194,304 gradients to 4 bits, one thread"
GPU = "quantise {count:,} gradients to 4 bits on a GPU"
STEP = "training step of a residual network of 11 million weights, 128 images of 64 × 64, bfloat16"


@functools.cache
def gradients() -> torch.Tensor:
    """Heavy tails, as gradients have."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(COUNT, generator=generator) * torch.exp(2 * torch.randn(COUNT, generator=generator))


def written_first(x: torch.Tensor) -> torch.Tensor:
    """What one would write first, from the definition: underflow, noise of half a bin, nearest power of two."""
    size = x.abs()
    alpha = size.max() / 64
    up = torch.where(torch.rand_like(size) * alpha < size, alpha, torch.zeros_like(size))
    y = torch.where(size < alpha, up, size) / alpha
    low = torch.pow(2.0, torch.floor(torch.log2(y.clamp(min=1.0))))
    noisy = y + (torch.rand_like(y) - 0.5) * low
    nearest = torch.pow(2.0, torch.floor(torch.log2(4 / 3 * noisy.clamp(min=0.5))))
    level = torch.minimum(torch.maximum(nearest, low), torch.full_like(y, 64.0))
    return torch.sign(x) * torch.where(y > 0, level, torch.zeros_like(y)) * alpha


def rate(benchmark, moved: float) -> float:
    """Bytes a second, in GB."""
    return moved / benchmark.stats.stats.median / 1e9


def eager(x: torch.Tensor):
    generator = torch.Generator().manual_seed(0)
    return lambda: luq(x, generator=generator, check=False)


def compiled(x: torch.Tensor):
    quantise = torch.compile(written_first)
    return lambda: quantise(x)


def bitsandbytes(x: torch.Tensor):
    functional = pytest.importorskip("bitsandbytes.functional", reason="the bench extra is not installed")
    return lambda: functional.quantize_4bit(x, blocksize=64, quant_type="fp4")


def torchao(x: torch.Tensor):
    """Eager only: torchao 0.18 under the torch.compile of torch 2.13 fails on the processor."""
    logging.disable(logging.CRITICAL)  # about its GPU libraries
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor", reason="the bench extra is not installed")
    logging.disable(logging.NOTSET)
    return lambda: mx.to_mx(x.view(-1, 1024), torch.float4_e2m1fn_x2, 32)


BLOCKS = "to nearest, a scale for each block"
#: Each row: from the gradients what is timed, rounds, and a note, or how many bytes go by for an entry.
CORE_ROWS = {
    "ours: luq_pack, compiled loop, hashed numbers": (lambda x: lambda: luq_pack(x, seed=1, check=False), 25, ""),
    "ours: eager, in parts, hashed numbers": (
        lambda x: lambda: luq_pack(x, seed=1, check=False, backend="eager"), 5, "",
    ),
    "ours: eager luq, drawn numbers": (eager, 5, ""),
    "limit: torch.clone": (lambda x: x.clone, 25, 8),
    "limit: torch.aminmax, one read": (lambda x: x.aminmax, 25, 4),
    "torch.randint of 23 bits alone": (lambda _: lambda: torch.randint(1 << 23, (COUNT,), dtype=torch.int32), 5, ""),
    "log2, pow and two random tensors, eager": (lambda x: lambda: written_first(x), 3, ""),
    "the same under torch.compile": (compiled, 5, ""),
    "bitsandbytes quantize_4bit (fp4, blocks of 64)": (bitsandbytes, 3, BLOCKS),
    "torchao to_mx (E2M1, blocks of 32)": (torchao, 3, BLOCKS),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # torch's compiler and the peers warn about torch's own code
@pytest.mark.parametrize("name", CORE_ROWS)
def test_on_the_core(benchmark, name: str) -> None:
    make, rounds, note = CORE_ROWS[name]
    label(benchmark, CORE, name)
    benchmark.pedantic(make(gradients()), rounds=rounds, warmup_rounds=2)
    benchmark.extra_info["note"] = note if isinstance(note, str) else f"{rate(benchmark, note * COUNT):.1f} GB/s"


def on_the_gpu(benchmark, name: str, call, moved: int) -> float:
    """Time a call on the GPU, 20 of them between two synchronisations; return its rate."""

    def several() -> None:
        for _ in range(20):
            call()
        torch.cuda.synchronize()

    label(benchmark, GPU.format(count=1 << 28), name)
    benchmark.pedantic(several, rounds=10, warmup_rounds=2)
    benchmark.extra_info["times"] = 1 / 20
    return rate(benchmark, 20 * moved)


COPY: dict[str, float] = {}


@needs_gpu
def test_gpu_copy(benchmark) -> None:
    x = torch.randn(1 << 28, device="cuda")
    other = torch.empty_like(x)
    COPY["rate"] = on_the_gpu(
        benchmark, "limit: device-to-device copy of float32", lambda: other.copy_(x), 2 * x.nbytes
    )
    benchmark.extra_info["note"] = f"{COPY['rate']:.0f} GB/s on {torch.cuda.get_device_name()}"


@needs_gpu
@needs_triton
@pytest.mark.parametrize("found", [False, True], ids=["given", "found"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def test_gpu_packed(benchmark, dtype: torch.dtype, found: bool) -> None:
    x = torch.randn(1 << 28, device="cuda").to(dtype)
    options = {"max_abs": None if found else x.abs().max().float(), "backend": "triton", "check": False}
    seeds = iter(range(1 << 30))
    moved = x.nbytes * (1 + found) + x.numel() // 2
    name = f"ours: Triton, {str(dtype).removeprefix('torch.')}, packed, maximum {'found first' if found else 'given'}"
    reached = on_the_gpu(benchmark, name, lambda: luq_pack(x, seed=next(seeds), **options), moved)
    share = f", {reached / COPY['rate']:.0%} of the copy" if COPY else ""
    benchmark.extra_info["note"] = f"{moved / x.numel():.1f} bytes an entry, {reached:.0f} GB/s{share}"


def training_step(model: nn.Module, device: str, images: int = 128, size: int = 64):
    """A step of momentum descent in bfloat16, to be timed."""
    model = model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    inputs = torch.randn(images, 3, size, size, device=device)
    targets = torch.randint(10, (images,), device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


PLAIN: dict[str, float] = {}


@needs_gpu
@pytest.mark.parametrize("quantised", [False, True], ids=["plain", "luq"])
def test_gpu_step(benchmark, quantised: bool) -> None:
    model: nn.Module = residual_network((2, 2, 2, 2), 10, generator=torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.2e6, rel=0.02)
    if quantised:
        model = quantize_model(model, LUQConfig())
    label(benchmark, STEP, "ours: LUQ, 4-bit forward and backward" if quantised else "plain bfloat16")
    benchmark.pedantic(training_step(model, "cuda"), rounds=20, warmup_rounds=5)
    median = benchmark.stats.stats.median
    if quantised and PLAIN:
        benchmark.extra_info["note"] = f"{median / PLAIN['median']:.2f} times the plain step"
    elif not quantised:
        PLAIN["median"] = median
        benchmark.extra_info["note"] = f"on {torch.cuda.get_device_name()}"
