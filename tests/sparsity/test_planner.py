"""The planner's noise is that of the masks, drawn; it counts examples, positions, groups and repeated calls rightly."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lib.sparsity import NMConfig, mask_noise, nm_mvue, plan_sparsity, sparsify_model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 8)])
def test_noise_is_that_of_drawn_masks(n, m) -> None:
    """Inputs of neighbouring rows are alike, so that covariances within blocks count."""
    delta = torch.randn(14, 6, generator=seeded()) ** 3 * (torch.rand(14, 6, generator=seeded(1)) < 0.8)
    inputs = torch.randn(14, 5, generator=seeded(2)) + 2
    expected, noise = mask_noise(delta, inputs, n, m), seeded(3)
    wide = functional.pad(delta, [0, 0, 0, -len(delta) % m])
    # many independent copies of all columns at once
    drawn = nm_mvue(wide.repeat(1, 20_000), n, m, 0, generator=noise)[: len(delta)]
    errors = (drawn.view(14, 20_000, 6) - delta[:, None]).permute(1, 2, 0) @ inputs
    assert expected == pytest.approx(float(errors.double().square().sum((1, 2)).mean()), rel=0.03)


def networks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    twice = nn.Linear(6, 6)
    images = torch.randn(9, 4, 6, 6, generator=seeded())
    convolutions = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular", groups=2), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2)
    )
    return {
        "linear": (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), images[:, 0, 0]),
        "sequence": (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), images[:, 0]),
        "twice": (nn.Sequential(twice, nn.Tanh(), twice), images[:, 0]),
        "convolution": (convolutions, images),
    }


def mean_square(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.flatten(1) - targets[:, None]).square().sum(1).mean()


@pytest.mark.parametrize("name", ["linear", "sequence", "twice", "convolution"])
def test_ratios_are_those_of_layers_and_of_examples(name) -> None:
    model, inputs = networks()[name]
    targets = torch.arange(float(len(inputs)))
    plan = plan_sparsity(model, mean_square, inputs, targets, patterns=[(1, 2), (2, 4)])
    pruned = sparsify_model(model, NMConfig(n=1, m=2), skip=(), generator=seeded(1))
    greedy = sparsify_model(model, NMConfig(update="greedy", n=1, m=2), skip=())

    def updates(net: nn.Module, chosen: slice = slice(None)) -> dict[str, torch.Tensor]:
        net.zero_grad()
        mean_square(net(inputs[chosen]), targets[chosen]).backward()
        found = net.named_parameters(remove_duplicate=True)
        return {key.removesuffix(".weight"): p.grad.double() for key, p in found if key.endswith("weight")}

    exact, biased = updates(model), updates(greedy)
    count = len(inputs)
    each = [updates(model, slice(i, i + 1)) for i in range(count)]
    drawn = [updates(pruned) for _ in range(600)]
    assert plan.layers.keys() == exact.keys()
    for key, layer in plan.layers.items():
        spread = torch.stack([one[key] - exact[key] for one in each]).square().sum() / (count - 1) / count
        noise = torch.stack([one[key] - exact[key] for one in drawn]).square().sum() / len(drawn)
        assert layer.noise[1, 2] == pytest.approx(float(noise / spread), rel=0.08)
        assert layer.bias[1, 2] == pytest.approx(float((biased[key] - exact[key]).norm() / exact[key].norm()), rel=1e-3)


def test_the_cheapest_pattern_within_the_budget_is_chosen_and_said() -> None:
    model, inputs = networks()["linear"]
    targets = torch.arange(float(len(inputs)))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def plan(budget: float):
        return plan_sparsity(model, mean_square, inputs, targets, budget=budget)

    noise = plan(1.0).layers["0"].noise
    assert noise[2, 4] < noise[1, 2] < noise[1, 4] < noise[1, 8]
    for budget, choice in ((noise[1, 8], (1, 8)), (noise[1, 2], (1, 2)), (noise[2, 4], (2, 4)), (1e-9, None)):
        layer = plan(budget).layers["0"]
        assert layer.choice == choice
        assert layer.reason.startswith("dense: every pattern" if choice is None else f"{choice[0]}:{choice[1]}, the")
    table = str(plan(1.0)).splitlines()
    assert len(table) == 4
    assert table[1].split() == ["layer", "2:4", "1:2", "1:4", "1:8", "choice"]
    assert f"{noise[1, 4]:.3f} (" in table[2]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_equal_examples_have_no_noise_whoever_of_them_is_kept() -> None:
    x, y = torch.full((8, 4), 0.3), torch.full((8,), 0.7)
    for loss in (mean_square, lambda out, _: 0.0 * out.sum()):
        layer = plan_sparsity(nn.Linear(4, 2), loss, x, y).layers[""]
        assert set(layer.noise.values()) == {0.0}
        assert layer.choice == (1, 8)
        assert layer.bias[1, 8] == pytest.approx(0.875 if loss is mean_square else 0.0, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0.0}, "budget must be"),
        ({"patterns": [(2, 2)]}, "n must be less than m"),
        ({"patterns": "2:4"}, "patterns must be a list of pairs"),
        ({"inputs": torch.ones(1, 4), "targets": torch.ones(1)}, "inputs must hold at least two examples"),
        ({"model": nn.Sequential(nn.Flatten(0), nn.Linear(32, 1)), "loss": lambda out, _: out.sum()}, "first axis"),
        ({"model": nn.Sequential(nn.Tanh())}, "model must call a linear"),
    ],
)
def test_bad_input_is_refused(change, message) -> None:
    settings = {"model": nn.Linear(4, 2), "loss": mean_square, "inputs": torch.ones(8, 4), "targets": torch.ones(8)}
    with pytest.raises((TypeError, ValueError), match=message):
        plan_sparsity(**(settings | change))


def test_rows_must_match() -> None:
    with pytest.raises(ValueError, match="as many rows; they have 4 and 6"):
        mask_noise(torch.ones(4, 2), torch.ones(6, 2), 1, 2)
