"""The audit finds the layers that break translation, and no others."""

import pytest
import torch
from torch import nn

from lib.alias_free import CircularConv2d, audit, make_alias_free
from tests.alias_free.pictures import pictures


def drawn(*layers: nn.Module) -> nn.Sequential:
    """A network of these layers, of weights that do not depend on what was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in layers:
            for part in layer.modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()
    return nn.Sequential(*layers).double().eval()


def errors(net: nn.Module, x: torch.Tensor) -> dict[str, float]:
    return {layer.name: layer.error for layer in audit(net, x)}


def test_the_audit_finds_what_breaks() -> None:
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=1)
    net = drawn(
        nn.Conv2d(2, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1),
        nn.Sequential(conv, nn.GELU()), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).train()  # fmt: skip
    x = pictures(1, 2, 32, 32)
    before = x.clone()
    found = audit(net, x)
    assert net.training
    assert torch.equal(x, before)
    # batch normalisation is affine here, and the mean over all pixels knows no place; the last is the whole
    assert {layer.name for layer in found if layer.error > 1e-6} == {"0", "2", "3", "4.0", "4.1", "5", ""}
    assert (found[-1].name, found[-1].kind, found[-1].stride) == ("", "Sequential", 0)
    assert {layer.name: layer.stride for layer in found}["4.0"] == 2
    assert {layer.kind for layer in found} >= {"Conv2d", "ReLU", "MaxPool2d", "GELU", "AvgPool2d", "BatchNorm2d"}
    overwrites, keeps = (audit(nn.Sequential(nn.ReLU(inplace=way)), x)[0].error for way in (True, False))
    assert overwrites == keeps


class Called(nn.Module):
    """Calls that are not of one tensor, and a function that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.join, self.act, self.conv = nn.Bilinear(4, 4, 4), nn.GELU(), CircularConv2d(2, 2, 3)

    def forward(self, x):
        y = self.act(self.conv(x=x))
        return torch.relu(y) + 0 * self.join(x[..., :4], x[..., :4]).sum()


def test_calls_with_names_and_several_tensors() -> None:
    net, x = drawn(Called()), pictures(1, 2, 8, 8)
    assert list(errors(net, x)) == ["0.conv", "0.act", ""]
    *layers, whole = errors(make_alias_free(net, x), x).values()
    # all layers are exact and the whole is not: a function hides in there
    assert max(layers) < 1e-12
    assert whole > 1e-3


class Permuted(nn.Module):
    """A block that works on (B, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.act, self.narrow = nn.LayerNorm(6), nn.Linear(6, 24), nn.GELU(), nn.Linear(24, 6)

    def forward(self, x):
        return x + self.narrow(self.act(self.wide(self.norm(x.movedim(1, -1))))).movedim(-1, 1)


class OfOneSize(nn.Module):
    """Patches with positions, tokens that are mixed, a block with the channels last, a layer on all pixels."""

    def __init__(self, error: type[BaseException] | None) -> None:
        super().__init__()
        self.error, self.patches, self.block = error, nn.Conv2d(3, 6, 4, stride=4), Permuted()
        self.places, self.head = nn.Parameter(torch.ones(1, 6, 4, 4)), nn.Linear(96, 2)

    def forward(self, x):
        if x.shape[-1] != 16 and self.error is not None:
            raise self.error("another size")
        return self.head(self.block(self.patches(x) + self.places).flatten(1))


@pytest.mark.parametrize("error", [None, AssertionError, Exception])
def test_networks_of_one_size_are_audited(error) -> None:
    net, x = drawn(OfOneSize(error))[0], pictures(2, 3, 16, 16)
    found = {layer.name: layer for layer in audit(net, x)}
    assert found["patches"].stride == 4
    # the layout is seen without a picture of another size
    assert found["block.wide"].error < 1e-12
    assert min(found["block.norm"].error, found[""].error) > 0.01
    with pytest.raises(ValueError, match=r"x, of shape \(1, 3, 32, 32\) and .* itself it raised \w+: "):
        audit(net, pictures(1, 3, 32, 32))


@pytest.mark.parametrize("function", [audit, make_alias_free])
def test_what_fails_is_named(function) -> None:
    x = pictures(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"in its layer '1\.1' it raised RuntimeError: .*channels"):
        function(drawn(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(5, 4, 3))), x)
    with pytest.raises(ValueError, match=r"x must have the shape \(B, C, H, W\)"):
        function(nn.Identity(), x[0])
    x[0, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="x must be finite; 1 of its 192 entries"):
        function(nn.Identity(), x)
