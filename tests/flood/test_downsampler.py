"""The networks: they start as mean pooling, know no origin of elevations, and are the paper's where they say so."""

import pytest
import torch
from torch import nn

from lib.flood.downsampler import Detour, Downsampler, FeatureDownsampler, PaperDownsampler
from lib.flood.pooling import pool_dem


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps(*shape: int, dtype=torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=seeded(seed), dtype=dtype) * 6 + 100


def small_network(name: str, *, seed: int = 0) -> Detour:
    """One of the networks that start as mean pooling, for blocks of 8 x 8 cells."""
    if name == "features":
        return FeatureDownsampler(8, 6, generator=seeded(seed))
    return Downsampler(8, (4, 6, 8), generator=seeded(seed))


def with_open_head(network: Detour, *, seed: int = 9) -> Detour:
    """The same network with a last layer that is not zero."""
    with torch.no_grad():
        for parameter in network.layers[-1].parameters():
            parameter.normal_(generator=seeded(seed))
    return network


@pytest.mark.parametrize("name", ["convolutional", "features"])
@pytest.mark.parametrize(("dtype", "shape"), [(torch.float32, (24, 40)), (torch.float64, (56, 8))])
def test_a_fresh_network_is_mean_pooling_bit_for_bit(name, dtype, shape) -> None:
    z = maps(3, 1, *shape, dtype=dtype)
    found = small_network(name).to(dtype)(z)
    assert found.dtype == dtype
    assert torch.equal(found[:, 0], pool_dem(z[:, 0], 8))
    assert not torch.equal(with_open_head(small_network(name)).to(dtype)(z), found)


@pytest.mark.parametrize("factor", [2, 32])
def test_widths_double_with_each_halving(factor) -> None:
    network = Downsampler(factor)
    strides = [layer.out_channels for layer in network.layers if isinstance(layer, nn.Conv2d)]
    assert strides == [8 * 2**i for i in range(factor.bit_length() - 1)] + [1]
    assert network(maps(1, 1, factor, 2 * factor)).shape == (1, 1, 1, 2)


@pytest.mark.parametrize("name", ["convolutional", "features", "batch", "group"])
def test_a_map_that_lies_higher_gives_one_that_lies_higher_by_as_much(name) -> None:
    paper = name in ("batch", "group")
    network = PaperDownsampler(name, generator=seeded()) if paper else with_open_head(small_network(name))
    network = network.double().eval()
    z = maps(2, 1, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(z + 1234.5), network(z) + 1234.5, rtol=0, atol=1e-9)
        # and each map by itself, whatever lies beside it in the batch
        shift = torch.tensor([0.0, -77.0]).double().reshape(2, 1, 1, 1)
        torch.testing.assert_close(network(z + shift), network(z) + shift, rtol=0, atol=1e-9)
        assert (network(z) - pool_dem(z, network.factor)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["convolutional", "features"])
def test_gradients_reach_every_parameter_once_the_head_is_open(name) -> None:
    z = maps(2, 1, 24, 40)
    fresh = small_network(name)
    fresh(z).square().sum().backward()
    head = set(fresh.layers[-1].parameters())
    assert all(bool((parameter.grad != 0).any()) == (parameter in head) for parameter in fresh.parameters())
    network = with_open_head(small_network(name))
    network(z).square().sum().backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in network.parameters())


def test_a_correction_sees_only_what_is_near() -> None:
    """The features of a block reach the coarse cells within three convolutions, and nothing farther."""
    network = with_open_head(FeatureDownsampler(3, 5, generator=seeded())).double()
    z = maps(1, 1, 3, 36, dtype=torch.float64)
    other = z.clone()
    # turned inside a block: its mean, and the map's, stay what they are
    other[..., :3] = other[..., :3].flip(-1).cumsum(-1)
    other[..., :3] += z[..., :3].mean() - other[..., :3].mean()
    with torch.no_grad():
        changed = (network(z) - network(other)).abs()[0, 0, 0] > 1e-9
    assert changed.tolist() == [True] * 4 + [False] * 8


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_papers_network(norm) -> None:
    network = Downsampler.paper(norm).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_168_192
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.bias is None for module in convolutions)
    assert {module.padding_mode for module in convolutions if module.kernel_size == (3, 3)} == {"replicate"}
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm))]
    assert len(norms) == 20
    if norm == "group":
        assert {module.num_channels // module.num_groups for module in norms} == {16}
    with torch.no_grad():
        assert network(maps(1, 1, 48, 32)).shape == (1, 1, 3, 2)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_blocks_that_are_computed_anew_change_nothing(norm) -> None:
    """Neither values nor gradients, nor what batch normalisation remembers for the time after training."""
    z = maps(3, 1, 48, 64)
    found = []
    for checkpointed in (False, True):
        network = Downsampler.paper(norm, checkpointed=checkpointed, generator=seeded())
        for _ in range(2):
            value = network(z)
            value.square().mean().backward()
        state = {name: part for name, part in network.named_buffers() if not name.endswith("num_batches_tracked")}
        with torch.no_grad():
            later = network.eval()(z)
        found.append((value.detach(), [parameter.grad for parameter in network.parameters()], state, later))
    (value, grads, state, later), (again, other, kept, then) = found
    assert torch.equal(value, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, other, strict=True))
    assert len(state) == (40 if norm == "batch" else 0)
    assert all(torch.equal(state[name], kept[name]) for name in state)
    assert torch.equal(later, then)


@pytest.mark.parametrize("network", [Downsampler, FeatureDownsampler, Downsampler.paper])
def test_weights_come_from_the_generator_alone_and_leave_the_global_one_alone(network) -> None:
    def weights(seed: int) -> torch.Tensor:
        return nn.utils.parameters_to_vector(network(generator=seeded(seed)).parameters())

    first = weights(0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)
    assert torch.equal(torch.get_rng_state(), before)
    network()
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Downsampler(12), "factor must be a power of two above 1; it is 12"),
        (lambda: Downsampler(1), "factor must be a power of two above 1; it is 1"),
        (lambda: Downsampler(8, (4, 4)), "width must name 3 numbers of channels for the factor 8"),
        (lambda: Downsampler(4, (4, 0)), "width must be at least 1"),
        (lambda: PaperDownsampler("layer"), "norm must be one of batch, group; it is 'layer'"),
    ],
)
def test_networks_that_cannot_be(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_maps_that_do_not_fit() -> None:
    network = FeatureDownsampler(4)
    good, hole = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    hole[0, 0, 0, 0] = float("nan")
    for z, message in (
        (good[0], r"z must have the shape \(B, 1, H, W\); it has"),
        (good.expand(1, 2, 8, 8), r"z must have the shape \(B, 1, H, W\); it has"),
        (good[..., :6], "multiples of the factor 4"),
        (hole, "z must be finite; 1 of its"),
        (good.double(), r"z must have the dtype torch\.float32 of the network's weights"),
    ):
        with pytest.raises(ValueError, match=message):
            network(z)
    assert network.double()(good.double()).dtype == torch.float64
