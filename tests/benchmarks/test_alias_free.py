"""Chapter 06 against the published form of its layers, and against the ordinary layers that they replace.

Before anything is timed, ours and the published form are seen to give the same values and the same gradients.
"""

import contextlib
import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lib.alias_free import (
    AliasFreeActivation,
    AliasFreeMLP,
    APSDownsample2d,
    BlurPool2d,
    CircularConv2d,
    ConvNeXt,
    IdealDownsample2d,
    ideal_resample,
    resampling,
)
from lib.alias_free.claims.plain import plain_upsample, plain_version
from lib.alias_free.convnext import _GELUMLP
from lib.training import reproducible
from tests.benchmarks.conftest import label
from tests.needs import needs_gpu

OURS, PLAIN = "ours", "published form: zeros between, twice the grid, FFTs at full size"
COMPILED = "ours under torch.compile"
WAYS = ("forward", "forward and backward")
BLOCKS = ((56, 96), (28, 192), (14, 384), (7, 768))
#: Relative, in float32, of values and of gradients that are sums over all pixels.
SAME = 2e-5

both_ways = pytest.mark.parametrize("way", WAYS)

Call = Callable[[Tensor], Tensor]


def drawn(make: Callable[[], nn.Module]) -> nn.Module:
    """Weights from a fixed seed."""
    torch.manual_seed(0)
    return make()


def pictures(*shape: int, device: str = "cpu") -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()


def answers(layer: Call, x: Tensor) -> list[Tensor]:
    """Values, and gradients of a fixed form of them: of the input and of all parameters."""
    x = x.detach().requires_grad_()
    result = layer(x)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(2)).to(result.device)
    parameters = list(layer.parameters()) if isinstance(layer, nn.Module) else []
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), [x, *parameters])]


def check_same(ours: Call, other: Call, x: Tensor, tolerance: float = SAME) -> None:
    for found, wanted in zip(answers(ours, x), answers(other, x), strict=True):
        assert float((found - wanted).abs().max() / wanted.abs().max()) < tolerance


def measure(benchmark, group: str, name: str, layer: Call, *, x: Tensor, way: str, rounds: int = 7) -> None:
    """The median of some rounds of one layer."""
    label(benchmark, f"{group}, {way}", name, torch.cuda.get_device_name() if x.is_cuda else "")

    def forward() -> None:
        with torch.no_grad():
            layer(x)
        finish(x)

    def both() -> None:
        x.grad = None
        if isinstance(layer, nn.Module):
            layer.zero_grad()
        layer(x).float().sum().backward()
        finish(x)

    benchmark.pedantic(forward if way == WAYS[0] else both, rounds=rounds, warmup_rounds=2)


def finish(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def compare(benchmark, group: str, forms: dict[str, Callable[[], Call]], *, name: str, x: Tensor, way: str) -> None:
    """Time one of several ways to do the same; the published form is compared with ours before."""
    layer = forms[name]()
    if name == PLAIN:
        check_same(forms[OURS](), layer, x)
    measure(benchmark, group, name, layer, x=x, way=way)


GELU_BLOCK = "GELU block of ConvNeXt, which it replaces"


@both_ways
@pytest.mark.parametrize(("side", "channels"), BLOCKS)
@pytest.mark.parametrize("name", [OURS, PLAIN, GELU_BLOCK])
def test_block(benchmark, side: int, channels: int, name: str, way: str) -> None:
    make = functools.partial(drawn, lambda: AliasFreeMLP(channels, in_scale=1.0, out_scale=1.0))
    forms = {OURS: make, PLAIN: lambda: plain_version(make()), GELU_BLOCK: lambda: _GELUMLP(channels)}
    x = pictures(2, side, side, channels)
    compare(benchmark, f"Alias-free block, 2 × {side} × {side} × {channels}", forms, name=name, x=x, way=way)


@both_ways
@pytest.mark.parametrize(("side", "channels"), BLOCKS[:2])
@pytest.mark.parametrize("name", [OURS, PLAIN, "GELU"])
def test_activation(benchmark, side: int, channels: int, name: str, way: str) -> None:
    make = functools.partial(drawn, lambda: AliasFreeActivation(channels))
    forms = {OURS: make, PLAIN: lambda: plain_version(make()), "GELU": nn.GELU}
    x = pictures(2, channels, side, side)
    compare(benchmark, f"Alias-free activation, 2 × {channels} × {side} × {side}", forms, name=name, x=x, way=way)


CONVS = {
    "stem, 224 pixels, 3 to 96 channels": (1, 3, 96, 4, 224),
    "56 pixels, 96 to 192 channels": (2, 96, 192, 2, 56),
    "28 pixels, 192 to 384 channels": (2, 192, 384, 2, 28),
}
STRIDED = "strided convolution, which it replaces"


@both_ways
@pytest.mark.parametrize("which", CONVS)
@pytest.mark.parametrize("name", [OURS, PLAIN, STRIDED])
def test_strided_convolution(benchmark, which: str, name: str, way: str) -> None:
    batch, inputs, outputs, stride, side = CONVS[which]

    def make(*, lowpass: bool = True) -> nn.Module:
        return drawn(lambda: CircularConv2d(inputs, outputs, stride, stride=stride, lowpass=lowpass))

    forms = {OURS: make, PLAIN: lambda: plain_version(make()), STRIDED: lambda: make(lowpass=False)}
    group = f"Convolution of stride {stride} without aliases, {which}"
    compare(benchmark, group, forms, name=name, x=pictures(batch, inputs, side, side), way=way)


BLUR = "BlurPool, 3 taps"


@both_ways
@pytest.mark.parametrize("name", [OURS, PLAIN, BLUR])
def test_down_sampling(benchmark, name: str, way: str) -> None:
    forms = {OURS: IdealDownsample2d, PLAIN: lambda: plain_version(IdealDownsample2d()), BLUR: lambda: BlurPool2d(96)}
    compare(
        benchmark, "Ideal down-sampling by 2, 8 × 96 × 56 × 56", forms, name=name, x=pictures(8, 96, 56, 56), way=way
    )


def polyphase_by_hand(x: Tensor) -> Tensor:
    """All ways to take every second pixel side by side, their norms, and a choice for each picture."""
    ways = torch.stack([x[:, :, i::2, j::2] for i in range(2) for j in range(2)], 1)
    best = ways.square().sum((2, 3, 4)).argmax(1)
    return ways[torch.arange(len(x)), best]


BY_HAND = "all ways side by side"


@both_ways
@pytest.mark.parametrize("name", [OURS, BY_HAND])
def test_adaptive_polyphase_sampling(benchmark, name: str, way: str) -> None:
    x, layer = pictures(8, 96, 56, 56), APSDownsample2d()
    assert torch.equal(layer(x), polyphase_by_hand(x))
    chosen = layer if name == OURS else polyphase_by_hand
    measure(benchmark, "Adaptive polyphase sampling, 8 × 96 × 56 × 56", name, chosen, x=x, way=way)


@pytest.mark.parametrize("side", [14, 28, 56, 112, 224])
@pytest.mark.parametrize("name", ["ours: 3/2 grid, matrices", "ours: 3/2 grid, FFTs", "published form: twice the grid"])
def test_up_sampling(benchmark, side: int, name: str, monkeypatch) -> None:
    x = pictures(2, 32, side, side).detach()
    size = (3 * side // 2, 3 * side // 2)
    call: Call = functools.partial(ideal_resample, size=size)
    if "published" in name:
        call = plain_upsample
        wanted = ideal_resample(x, (2 * side, 2 * side))
        assert float(((call(x) - wanted).abs().max() / wanted.abs().max()).detach()) < SAME
    else:
        monkeypatch.setattr(resampling, "_MATRIX_SIDE", 10_000 if "matrices" in name else 0)
    measure(benchmark, f"Up-sampling, 2 × 32 × {side} × {side}", name, call, x=x, way=WAYS[0])


TINY = functools.partial(ConvNeXt, 3, 1000, (3, 3, 9, 3), (96, 192, 384, 768), patch=4, init_std=None)
BASELINE = "ConvNeXt-Tiny on the torus: strides, GELU"


def tiny(name: str, device: str = "cpu") -> nn.Module:
    """The paper's network, its blocks at a scale at which their gradients do not drown in rounding."""
    mode = "baseline" if name == BASELINE else "afc"
    network = drawn(lambda: TINY(mode=mode, layer_scale=0.1, act_scale=1.0)).to(device)
    return plain_version(network) if name == PLAIN else network


@both_ways
@pytest.mark.parametrize("name", [OURS, PLAIN, BASELINE])
def test_whole_network(benchmark, name: str, way: str) -> None:
    x, network = pictures(1, 3, 224, 224), tiny(name)
    if name == PLAIN:
        check_same(tiny(OURS), network, x, 1e-4)
    measure(benchmark, "ConvNeXt-Tiny without aliases, one picture of 224 × 224", name, network, x=x, way=way, rounds=5)


def in_precision(precision: str) -> contextlib.AbstractContextManager:
    """float32 in float32, or bfloat16 where torch thinks that it is enough."""
    reproducible()
    return torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bfloat16")


on_gpu = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@needs_gpu
@both_ways
@on_gpu
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about torch's own code
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", [OURS, COMPILED, PLAIN, GELU_BLOCK])
def test_block_on_a_gpu(benchmark, block: tuple[int, int], name: str, precision: str, way: str) -> None:
    if name == PLAIN and precision == "bfloat16":
        pytest.skip("there are no FFTs in bfloat16")
    side, channels = block
    layer = _GELUMLP(channels) if name == GELU_BLOCK else drawn(lambda: AliasFreeMLP(channels))
    layer = (plain_version(layer) if name == PLAIN else layer).cuda()
    layer = torch.compile(layer) if name == COMPILED else layer
    with in_precision(precision):
        group = f"Alias-free block on a GPU, 64 × {side} × {side} × {channels}, {precision}"
        x = pictures(64, side, side, channels, device="cuda").detach().requires_grad_()
        measure(benchmark, group, name, layer, x=x, way=way)


@needs_gpu
@both_ways
@on_gpu
@pytest.mark.parametrize("name", [OURS, PLAIN, BASELINE])
def test_whole_network_on_a_gpu(benchmark, name: str, precision: str, way: str) -> None:
    if name == PLAIN and precision == "bfloat16":
        pytest.skip("there are no FFTs in bfloat16")
    with in_precision(precision):
        x, network = pictures(32, 3, 224, 224, device="cuda").detach().requires_grad_(), tiny(name, "cuda")
        if name == PLAIN:
            check_same(tiny(OURS, "cuda"), network, x[:1], 1e-4)
        group = f"ConvNeXt-Tiny without aliases on a GPU, 32 pictures of 224 × 224, {precision}"
        measure(benchmark, group, name, network, x=x, way=way)


PEERS = "Smoothed down-sampling by 2 in other libraries, 8 × 96 × 56 × 56"


@pytest.mark.parametrize("name", ["ours: ideal", "ours: BlurPool, 3 taps", "kornia", "timm", "antialiased_cnns"])
def test_peers(benchmark, name: str) -> None:
    """Filters of three taps, none of them exact; those that are installed."""
    x = pictures(8, 96, 56, 56)
    if name.startswith("ours"):
        layer: Call = IdealDownsample2d() if "ideal" in name else BlurPool2d(96)
    elif name == "kornia":
        filters = pytest.importorskip("kornia.filters", reason="kornia is not installed")
        layer = filters.BlurPool2D(3)
    elif name == "timm":
        timm = pytest.importorskip("timm.layers", reason="timm is not installed")
        layer = timm.BlurPool2d(96)
    else:
        peer = pytest.importorskip("antialiased_cnns", reason="antialiased_cnns is not installed")
        layer = peer.BlurPool(96, filt_size=3)
    measure(benchmark, PEERS, name, layer, x=x, way=WAYS[0])
