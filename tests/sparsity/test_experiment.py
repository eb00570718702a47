"""Training with pruned gradients: it resumes to the same end, random labels are seeded, commands do it all."""

import re
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from lib.__main__ import app
from lib.checkpoints import checkpoint_steps
from lib.datasets import clothes
from lib.sparsity import PRESETS, NMConfig, SparsityRun, pruned_ways, sparsity_task, sweep_sparsity, train_sparsity
from tests.interrupting import interrupt_at
from tests.test_datasets import write_cifar

SHORT = replace(PRESETS["quick"], count=320, batch_size=32, epochs=2, config=NMConfig(backward="mvue"))


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path) -> None:
    whole = train_sparsity(SHORT)
    for call in (7, 9):
        with interrupt_at(call):
            train_sparsity(SHORT, tmp_path, every=4)
    again = train_sparsity(SHORT, tmp_path, every=4)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True))
    assert checkpoint_steps(tmp_path / "training") == [16, 20]
    with pytest.raises(ValueError, match="hold the same experiment"):
        train_sparsity(replace(SHORT, label_noise=0.1), tmp_path)
    other = train_sparsity(replace(SHORT, config=NMConfig(update="none")))
    assert other.losses[0] == whole.losses[0]
    assert (other.losses[1:] != whole.losses[1:]).all()


@pytest.mark.parametrize("architecture", ["mlp", "convnet"])
def test_a_stored_network_answers_as_the_trained_one(architecture, tmp_path) -> None:
    config = NMConfig(n=1, m=4, weight="greedy")
    run = train_sparsity(replace(SHORT, architecture=architecture, depth=2, epochs=1, config=config))
    run.save(tmp_path / "network.npz")
    again = SparsityRun.load(tmp_path / "network.npz")
    assert again.preset == run.preset
    images = clothes("test", 40).tensors[0]
    assert torch.equal(again.model(images), run.model(images))
    assert "1:4, update=mvue, backward=none, weight=greedy" in repr(again.model)


def test_labels_are_random_for_training_alone_and_follow_from_the_seed() -> None:
    def labels(**change) -> tuple[torch.Tensor, torch.Tensor]:
        _, train, test = sparsity_task(replace(PRESETS["quick"], **change))
        return train.tensors[1], test.tensors[1]

    clean, test = labels()
    noisy, same = labels(label_noise=0.4)
    assert torch.equal(test, same)
    # of those that are drawn a tenth gets its own class again
    assert float((noisy != clean).float().mean()) == pytest.approx(0.4 * 0.9, abs=0.03)
    assert torch.equal(noisy, labels(label_noise=0.4)[0])
    assert not torch.equal(noisy, labels(label_noise=0.4, seed=1)[0])
    for bad in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="label_noise must be"):
            replace(SHORT, label_noise=bad)
    with pytest.raises(ValueError, match="label_noise must be 0 for the data 'cifar10'"):
        replace(SHORT, data="cifar10", label_noise=0.1)


def test_depth_is_that_of_the_network_and_its_ends_are_pruned_on_demand() -> None:
    for all_layers, ends in ((False, "Linear"), (True, "NMLinear")):
        model, _, _ = sparsity_task(replace(SHORT, depth=2, all_layers=all_layers))
        kinds = [type(layer).__name__ for layer in model.modules() if isinstance(layer, nn.Linear)]
        assert kinds == [ends, "NMLinear", "NMLinear", ends]


def test_a_vision_transformer_takes_small_images_enlarged(tmp_path, monkeypatch) -> None:
    """Wiring: torchvision's network by name, CIFAR-10's files."""
    write_cifar(tmp_path / "data", 10)

    def get_model(name, num_classes):
        assert name == "vit_b_16"
        pool = [nn.AvgPool2d(56), nn.Flatten()]
        return nn.Sequential(*pool, nn.Linear(48, 8), nn.Linear(8, 8), nn.Linear(8, num_classes))

    stand_in = types.SimpleNamespace(list_models=lambda: ["vit_b_16"], get_model=get_model)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=stand_in))
    settings = replace(PRESETS["paper-vit-b-cifar10"], epochs=1, batch_size=4)
    run = train_sparsity(settings, data_path=tmp_path / "data")
    assert len(run.losses) > 0
    assert np.isfinite(run.losses).all()
    assert "Upsample" in repr(run.model)


def test_a_sweep_has_every_method_with_every_pattern(tmp_path) -> None:
    small = replace(SHORT, count=96, epochs=1)
    found = sweep_sparsity(small, ["dense", "greedy", "mvue"], patterns=["1:2", "2:4"], seeds=(0, 3), folder=tmp_path)
    assert list(found) == ["dense", "greedy 1:2", "greedy 2:4", "mvue 1:2", "mvue 2:4"]
    for way, config in pruned_ways(["mvue"], ["2:4"], both=True).items():
        assert (way, config) == ("mvue 2:4 both", NMConfig(backward="mvue"))
    assert [run.preset.seed for run in found["mvue 2:4"]] == [0, 3]
    assert found["mvue 1:2"][0].preset.config == NMConfig(n=1, m=2)
    assert checkpoint_steps(tmp_path / "mvue-1-2" / "seed-3" / "training") == [0, 3]
    for change, message in (
        ({"methods": ["best"]}, "methods must be one of"),
        ({"methods": []}, "methods must be a list"),
        ({"patterns": ["2-4"]}, "patterns must be N:M, such as 2:4; one is '2-4'"),
        ({"patterns": ["4:4"]}, "n must be less than m"),
        ({"methods": ["approx"], "patterns": ["1:2"]}, "update approx is for 2:4"),
        ({"seeds": [1, 1]}, "seeds must hold"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            sweep_sparsity(small, **change)


def test_commands_train_and_sweep(tmp_path) -> None:
    words = ["train", "sparsity", "--out", tmp_path / "one", "--count", 256, "--batch-size", 64, "--epochs", 1]
    done = CliRunner().invoke(app, [str(word) for word in [*words, "--n", 1, "--m", 8, "--weight", "greedy"]])
    assert done.exit_code == 0, done.output
    assert re.search(r"^ +1 +0\.\d{4}$", done.output, re.MULTILINE)
    assert SparsityRun.load(tmp_path / "one" / "network.npz").preset.config == NMConfig(n=1, m=8, weight="greedy")
    words = ["sweep", "sparsity", "--out", tmp_path / "many", "--count", 128, "--epochs", 1, "--seeds", "0,5"]
    words += ["--methods", "dense", "--methods", "greedy", "--patterns", "1:4", "--both"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert re.search(r"^greedy 1:4 both +0\.\d{4} +0\.\d{4} … 0\.\d{4}$", done.output, re.MULTILINE)
    assert sorted(path.name for path in (tmp_path / "many" / "greedy-1-4-both").iterdir()) == ["seed-0", "seed-5"]
