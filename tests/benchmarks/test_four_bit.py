"""Chapter 04 against its peers: quantising gradients on one core, the kernels on a GPU, and a training step there."""

import functools
import logging

import pytest
import torch
from torch import nn

from lib.four_bit import LUQConfig, luq, luq_pack, quantize_model
from lib.models import residual_network
from tests.needs import needs_gpu, needs_triton

COUNT = 1 << 22
CORE = "quantise 4,194,304 gradients to 4 bits, one thread"
GPU = "quantise {count:,} gradients to 4 bits on a GPU"
STEP = "training step of a residual network of 11 million weights, 128 images of 64 × 64, bfloat16"
# torch's compiler warns about torch's own code when it is first imported
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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


def label(benchmark, group: str, name: str, note: str = "") -> None:
    benchmark.group = group
    benchmark.extra_info.update(label=name, note=note)


def rate(benchmark, moved: int) -> float:
    """Bytes a second, in GB."""
    return moved / benchmark.stats.stats.median / 1e9


def on_the_core(benchmark, name: str, call, rounds: int = 25, moved: float = 0.0):
    """Time a call; the note says how fast bytes went by, where `moved` bytes an entry do."""
    label(benchmark, CORE, name)
    result = benchmark.pedantic(call, rounds=rounds, warmup_rounds=2)
    if moved:
        benchmark.extra_info["note"] = f"{rate(benchmark, int(moved * COUNT)):.1f} GB/s"
    return result


def test_compiled(benchmark) -> None:
    x = gradients()
    on_the_core(
        benchmark, "ours: luq_pack, compiled loop, hashed numbers", lambda: luq_pack(x, seed=1, check=False), 25
    )


def test_eager_in_parts(benchmark) -> None:
    x = gradients()
    eager = functools.partial(luq_pack, x, seed=1, check=False, backend="eager")
    on_the_core(benchmark, "ours: eager, in parts, hashed numbers", eager, 5)


def test_eager(benchmark) -> None:
    x, generator = gradients(), torch.Generator().manual_seed(0)
    on_the_core(benchmark, "ours: eager luq, drawn numbers", lambda: luq(x, generator=generator, check=False), 5)


def test_clone(benchmark) -> None:
    on_the_core(benchmark, "limit: torch.clone", gradients().clone, moved=8)


def test_aminmax(benchmark) -> None:
    x = gradients()
    on_the_core(benchmark, "limit: torch.aminmax, one read", lambda: torch.aminmax(x), moved=4)


def test_randint(benchmark) -> None:
    draw = functools.partial(torch.randint, 1 << 23, (COUNT,), dtype=torch.int32)
    on_the_core(benchmark, "torch.randint of 23 bits alone", draw, 5)


def test_written_first(benchmark) -> None:
    x = gradients()
    on_the_core(benchmark, "log2, pow and two random tensors, eager", lambda: written_first(x), 3)


@compiles
def test_written_first_compiled(benchmark) -> None:
    x, compiled = gradients(), torch.compile(written_first)
    on_the_core(benchmark, "the same under torch.compile", lambda: compiled(x), 5)


@pytest.mark.filterwarnings("ignore")
def test_bitsandbytes(benchmark) -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="the bench extra is not installed")
    x = gradients()

    def quantise():
        return functional.quantize_4bit(x, blocksize=64, quant_type="fp4")

    on_the_core(benchmark, "bitsandbytes quantize_4bit (fp4, blocks of 64)", quantise, 3)
    benchmark.extra_info["note"] = "to nearest, a scale for each block"


@pytest.mark.filterwarnings("ignore")
def test_torchao(benchmark) -> None:
    """Eager only: torchao 0.18 under the torch.compile of torch 2.13 fails on the processor."""
    logging.disable(logging.CRITICAL)  # about its GPU libraries
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor", reason="the bench extra is not installed")
    logging.disable(logging.NOTSET)
    x = gradients().view(-1, 1024)

    def quantise():
        return mx.to_mx(x, torch.float4_e2m1fn_x2, 32)

    on_the_core(benchmark, "torchao to_mx (E2M1, blocks of 32)", quantise, 3)
    benchmark.extra_info["note"] = "to nearest, a scale for each block"


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
