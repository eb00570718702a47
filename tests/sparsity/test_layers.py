"""Pruned layers: torch's where nothing is pruned, right on average where something is, N:M where hardware needs it."""

import copy
import subprocess

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lib.exchange import exchange_report
from lib.sparsity import NMConfig, NMConv2d, NMLinear, is_nm_sparse, nm_mvue, sparsify_model, transposable_mask
from tests.launching import TWO_PROCESSES

DENSE = NMConfig(update="none")
BOTH = NMConfig(backward="mvue")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    leaf = x.clone().requires_grad_()
    (model(leaf) ** 2).sum().backward()
    return [leaf.grad, *(parameter.grad.clone() for parameter in model.parameters())]


LAYERS = [
    ({}, (2, 3, 4)),
    ({}, (4,)),
    ({"padding": 1}, (2, 4, 9, 8)),
    ({"padding": "same", "dilation": 2}, (2, 4, 9, 8)),
    ({"stride": 2, "padding": (2, 1), "bias": False}, (2, 4, 9, 8)),
    ({"groups": 2, "padding": 1, "padding_mode": "circular"}, (2, 4, 9, 8)),
    ({"padding": "same", "padding_mode": "reflect"}, (4, 9, 8)),
]


@pytest.mark.parametrize(("settings", "shape"), LAYERS)
def test_gradients_are_torchs_where_nothing_is_pruned_and_right_on_average(settings, shape) -> None:
    """Six outputs, and rows that four does not divide: the blocks are filled up with zeros."""
    torch.manual_seed(0)
    plain = nn.Linear(4, 6) if len(shape) < 3 or not settings else nn.Conv2d(4, 6, 3, **settings)
    x = torch.randn(shape, generator=seeded())
    exact = gradients(plain, x)
    for mine, theirs in zip(gradients(sparsify_model(plain, DENSE, skip=()), x), exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    for method in ("mvue", "approx", "uniform") if x.ndim == 3 else ("mvue",):
        ours = sparsify_model(plain, NMConfig(update=method, backward=method), skip=(), generator=seeded(1))
        torch.testing.assert_close(ours(x), plain(x))
        draws = [torch.stack(each) for each in zip(*(gradients(ours, x) for _ in range(100)), strict=True)]
        for place, (drawn, expected) in enumerate(zip(draws, exact, strict=True)):
            sigma = drawn.std(0) / 100**0.5
            assert float(((drawn.mean(0) - expected).abs() / (sigma + 1e-5 * expected.abs().max())).max()) < 5
            if place < 2 and x.ndim > 1:
                assert float(sigma.max()) > 0


def test_a_convolution_is_a_linear_layer_on_its_patches() -> None:
    """The same random numbers, so the same bits of the masks."""
    convolution = NMConv2d(3, 8, 3, generator=seeded())
    convolution.prune(BOTH, seeded(1))
    linear = NMLinear(27, 8, config=BOTH, generator=seeded(1))
    with torch.no_grad():
        linear.weight.copy_(convolution.weight.flatten(1))
        linear.bias.copy_(convolution.bias)
    linear.prune(BOTH, seeded(1))
    x = torch.randn(2, 3, 6, 8, generator=seeded(2))
    patches = functional.unfold(x, 3).transpose(1, 2)
    one, other = convolution(x), linear(patches)
    torch.testing.assert_close(one.flatten(2).transpose(1, 2), other)
    slope = torch.randn(one.shape, generator=seeded(3))
    one.backward(slope)
    other.backward(slope.flatten(2).transpose(1, 2))
    torch.testing.assert_close(convolution.weight.grad.flatten(1), linear.weight.grad)


CONFIGS = [
    NMConfig(weight="transposable"),
    NMConfig(backward="mvue", weight="greedy", n=1, m=2),
    NMConfig(update="greedy", backward="greedy", weight="greedy", n=3, m=8),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("settings", [{"padding": 1}, {"groups": 2}, None])
def test_all_three_products_have_an_operand_with_blocks(config, settings) -> None:
    """Nine inputs and ten outputs of a group: both are filled up."""
    kind = {} if settings is None else settings
    groups = kind.get("groups", 1)
    if settings is None:
        layer = NMLinear(9, 10, config=config, generator=seeded())
    else:
        layer = NMConv2d(9 * groups, 10 * groups, 3, **kind, config=config, generator=seeded())
    shown = {}
    layer.on_product = lambda name, operand, dim: shown.setdefault(name, (operand.clone(), dim))
    x = torch.randn((5, 9) if settings is None else (3, 9 * groups, 5, 5), generator=seeded(1))
    gradients(layer, x)
    assert sorted(shown) == ["backward", "forward", "update"]
    for operand, dim in shown.values():
        assert is_nm_sparse(operand, config.n, config.m, dim)
        assert operand.count_nonzero() > 0
    assert shown["forward"][0].shape[3] % config.m == shown["update"][0].shape[0] % config.m == 0
    assert not is_nm_sparse(layer.weight.flatten(1)[:, :8], config.n, config.m)


def test_masked_weights_act_and_their_gradient_goes_straight_through() -> None:
    layer = NMLinear(8, 8, config=NMConfig(update="none", weight="transposable"), generator=seeded())
    x = torch.randn(4, 8, generator=seeded(1))
    masked = layer.weight.detach() * transposable_mask(layer.weight)
    torch.testing.assert_close(layer(x), functional.linear(x, masked, layer.bias))
    slope = torch.randn(4, 8, generator=seeded(2))
    layer(x).backward(slope)
    torch.testing.assert_close(layer.weight.grad, slope.T @ x)
    with torch.no_grad():  # the mask follows the weights
        layer.weight.copy_(layer.weight.flip(0, 1) ** 3)
    torch.testing.assert_close(
        layer(x), functional.linear(x, layer.weight * transposable_mask(layer.weight), layer.bias)
    )


def test_both_gradients_have_masks_of_their_own_and_the_generator_decides() -> None:
    grad = torch.randn(8, 8, generator=seeded())

    def operands(seed: int) -> dict[str, torch.Tensor]:
        layer = NMLinear(4, 8, config=BOTH)
        layer.prune(BOTH, seeded(seed))
        shown = {}
        layer.on_product = lambda name, operand, _: shown.update({name: operand.view(8, 8)})
        layer(torch.ones(8, 4, requires_grad=True)).backward(grad)
        return shown

    one, again, other = operands(0), operands(0), operands(1)
    for name in ("backward", "update"):
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name])
    expected = seeded(0)
    assert torch.equal(one["backward"], nm_mvue(grad, dim=1, generator=expected))
    assert torch.equal(one["update"], nm_mvue(grad, dim=0, generator=expected))


def test_ranks_with_other_seeds_halve_the_variance() -> None:
    """Of two processes with the same part of the data; with one seed for both nothing averages out."""
    x, slope = torch.randn(16, 8, generator=seeded()), torch.randn(16, 8, generator=seeded(1))

    def update(seed: int) -> torch.Tensor:
        layer = NMLinear(8, 8)
        layer.prune(NMConfig(), seeded(seed))
        layer(x).backward(slope)
        return layer.weight.grad

    alone = torch.stack([update(step) for step in range(0, 800, 2)])
    apart = torch.stack([(update(step) + update(step + 1)) / 2 for step in range(0, 800, 2)])
    assert float(apart.var(0).sum() / alone.var(0).sum()) == pytest.approx(0.5, abs=0.05)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def test_sparsify_model_keeps_state_names_and_the_original() -> None:
    net = network()
    other = sparsify_model(net)
    assert [type(layer).__name__ for layer in other] == ["Linear", "ReLU", "NMLinear", "ReLU", "Linear"]
    assert str(exchange_report(other)).splitlines()[0] == "exchanged for NMLinear: 2"
    assert type(net[2]) is nn.Linear
    other.load_state_dict(net.state_dict())
    copied = copy.deepcopy(sparsify_model(net, BOTH, skip=(), generator=(noise := seeded())))
    assert all(layer.source.generator is noise and layer.config == BOTH for layer in copied[::2])
    with pytest.warns(UserWarning, match="it is a NMLinear already"):
        sparsify_model(copied, skip=())
    assert "NMLinear(in_features=8, out_features=8, bias=True, 2:4, update=mvue" in repr(copied)


def test_a_transformer_of_torch_is_pruned_where_it_calls_its_layers() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    x = torch.randn(3, 5, 8, generator=seeded())
    model = sparsify_model(encoder, BOTH, skip=(), example=x, generator=seeded(1))
    report = exchange_report(model)
    assert sorted(report.exchanged) == [f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)]
    assert "MultiheadAttention takes its weights" in str(report)
    model(x).square().mean().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize("kind", [NMLinear, NMConv2d])
def test_nothing_is_done_or_kept_for_a_gradient_that_nobody_needs(kind) -> None:
    layer = kind(4, 4, config=BOTH) if kind is NMLinear else kind(4, 4, 1, config=BOTH)
    shape, shown = (4, 4) if kind is NMLinear else (4, 4, 1, 1), []
    layer.on_product = lambda name, *_: shown.append(name)
    layer(torch.ones(shape)).sum().backward()
    assert shown == ["update"]
    layer.requires_grad_(False)
    layer(torch.ones(shape, requires_grad=True)).sum().backward()
    assert shown == ["update", "backward"]
    assert not layer(torch.ones(shape)).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_dtypes_and_autocast(dtype) -> None:
    for layer, shape in ((NMLinear(8, 8, config=BOTH), (4, 8)), (NMConv2d(8, 8, 1, config=BOTH), (4, 8, 1, 1))):
        with torch.autocast("cpu", dtype=dtype):
            out = layer(x := torch.ones(shape, requires_grad=True))
        assert out.dtype == dtype
        out.sum().backward()
        assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
        assert layer.to(dtype)(torch.ones(shape, dtype=dtype)).dtype == dtype
        layer.double()(torch.ones(shape, dtype=torch.float64)).sum().backward()
        assert layer.weight.grad.dtype == torch.float64


def test_checkpointed_layers_and_empty_batches() -> None:
    layer = NMLinear(8, 8, config=CONFIGS[0], generator=seeded())
    x = torch.randn(4, 8, generator=seeded(1), requires_grad=True)
    grads = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        layer.zero_grad()
        layer.prune(layer.config, seeded(2))
        run(x).square().sum().backward()
        grads.append(layer.weight.grad.clone())
    assert torch.equal(*grads)
    for each, shape in ((layer, (0, 8)), (NMConv2d(8, 4, 1, config=BOTH), (0, 8, 3, 3))):
        each.zero_grad()
        each(torch.ones(shape, requires_grad=True)).sum().backward()
        assert not each.weight.grad.any()


@pytest.mark.parametrize("method", ["mvue", "approx", "greedy", "uniform"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_broken_gradients_stay_broken(method, bad) -> None:
    """A loss scaler must see them."""
    layer = NMLinear(4, 4, config=NMConfig(update=method, backward=method), generator=seeded())
    x = torch.ones(4, 4, requires_grad=True)
    layer(x).backward(torch.ones(4, 4).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(bad)))
    assert not layer.weight.grad[2].isfinite().any()
    assert not x.grad[1].isfinite().any()


def test_second_derivatives_are_refused() -> None:
    layer, x = NMLinear(4, 2), torch.ones(4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


REFUSED = [
    (lambda: NMConfig(n=2, m=2), "n must be less than m"),
    (lambda: NMConfig(update="approx", n=1, m=2), "update approx is for 2:4; n and m are 1 and 2"),
    (lambda: NMConfig(weight="transposable", n=1), "weight transposable is for 2:4"),
    (lambda: NMConfig(backward="random"), "backward must be one of"),
    (lambda: sparsify_model(network(), "mvue"), "config must be an NMConfig"),
    (lambda: NMLinear(4, 2)(torch.ones(3)), "4 entries on its last axis"),
    (lambda: NMConv2d(1, 2, 3)(torch.ones(1, 2, 8, 8)), r"x must be \(N, 1, H, W\)"),
    (lambda: NMLinear(4, 4, pad=False)(torch.ones(6, 4)), "batch times positions must be a multiple of m = 4, not 6"),
    (lambda: NMConv2d(4, 6, 1, pad=False, config=BOTH)(torch.ones(4, 4, 1, 1)), "the outputs of a group must be .* 6"),
    (
        lambda: NMLinear(6, 4, pad=False, config=NMConfig(weight="greedy"))(torch.ones(4, 6)),
        "the inputs of a group must be a multiple of m = 4, not 6",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_what_is_not_pruned_needs_no_padding() -> None:
    layer = NMLinear(6, 6, pad=False)
    with torch.no_grad():
        layer(torch.ones(3, 6))
    NMLinear(6, 6, pad=False, config=DENSE)(torch.ones(3, 6)).sum().backward()


@pytest.mark.slow
def test_two_processes_draw_masks_of_their_own_whose_noise_averages_out(tmp_path) -> None:
    command = [*TWO_PROCESSES, "-m", "tests.sparsity.launched", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [np.load(tmp_path / f"seen_{rank}.npz") for rank in range(2)]
    np.testing.assert_allclose(seen[0]["shared"], (seen[0]["own"] + seen[1]["own"]) / 2, rtol=1e-4, atol=1e-5)
    alone = np.mean([each["own"].var(axis=0).sum() for each in seen])
    assert seen[0]["shared"].var(axis=0).sum() / alone == pytest.approx(0.5, abs=0.05)
