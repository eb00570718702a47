"""Training the four versions: alike, resumable, and from files of CIFAR-10's and ImageNet's formats."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.alias_free import ConvNeXt
from lib.alias_free.experiment import (
    PRESETS,
    SHIPPED,
    AliasFreeRun,
    alias_free_task,
    held_out,
    in_every_mode,
    train_alias_free,
    trained_network,
)
from lib.checkpoints import checkpoint_steps
from lib.training import accuracy
from tests.interrupting import first_losses, interrupt_at
from tests.test_datasets import write_pictures

SHORT = replace(PRESETS["quick"], count=320, batch_size=32, epochs=2, dims=(4, 8))
TINY = replace(SHORT, count=64, batch_size=32, epochs=1)


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path) -> None:
    whole = train_alias_free(SHORT)
    assert whole.losses[-3:].mean() < whole.losses[:3].mean()
    assert whole.scores[-1] > 0.2
    with interrupt_at(7):
        train_alias_free(SHORT, tmp_path, every=4)
    again = train_alias_free(SHORT, tmp_path, every=4)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert checkpoint_steps(tmp_path)[-1] == 20
    with pytest.raises(ValueError, match="hold the same experiment"):
        train_alias_free(replace(SHORT, mode="aps"), tmp_path)


def test_versions_start_alike_and_differ_in_what_they_should() -> None:
    nets = {mode: alias_free_task(replace(preset, count=128))[0] for mode, preset in in_every_mode("laptop").items()}
    sizes = {mode: sum(part.numel() for part in net.parameters()) for mode, net in nets.items()}
    assert sizes["baseline"] == sizes["blurpool"] == sizes["aps"]
    assert 14_000 < sizes["baseline"] < sizes["afc"] < 16_000
    assert torch.equal(nets["baseline"].head.weight, nets["aps"].head.weight)
    again = alias_free_task(replace(PRESETS["laptop"], count=128))[0].state_dict()
    assert all(torch.equal(again[key], value) for key, value in nets["afc"].state_dict().items())


def test_imagenet_on_a_folder_of_pictures(tmp_path) -> None:
    write_pictures(tmp_path)
    settings = replace(PRESETS["paper"], depths=(1, 1, 1, 1), dims=(4, 4, 6, 8), epochs=1, batch_size=4, rise=0.2)
    model, train, _ = alias_free_task(settings, tmp_path)
    assert model(train[0][0][None]).shape == (1, 2)
    run = train_alias_free(settings, data_path=tmp_path)
    assert np.isfinite(run.losses).all()
    assert len(run.losses) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "cifar10", "margin": 2}, "margin must be 0 for the data 'cifar10'"),
        ({"count": 20_000}, "count must be at most"),
        ({"batch_size": 500}, "batch_size must be at most 320; it is 500"),
        ({"dims": (4,)}, "depths and dims must be as long as each other"),
        ({"data": "imagenet", "count": None}, "data_path must name the folder of imagenet"),
    ],
)
def test_bad_settings_are_refused_and_take_no_folder(change, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        train_alias_free(replace(SHORT, **change), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_are_what_their_presets_make(name) -> None:
    """A part of it again: the first three steps."""
    run = trained_network(name)
    assert run.preset == SHIPPED[name]
    assert not run.model.training
    assert len(run.losses) == 4 * (10_000 // 128)
    assert run.losses[-20:].mean() < 0.5 * run.losses[:20].mean()
    np.testing.assert_allclose(first_losses(3, lambda: train_alias_free(run.preset)), run.losses[:3], rtol=1e-3)
    assert accuracy(run.model, held_out(run.preset)) == pytest.approx(run.scores[-1], abs=2e-3)


def test_a_network_of_other_pictures_comes_back_as_it_was(tmp_path) -> None:
    run = train_alias_free(replace(TINY, mode="aps"))
    wider = replace(run, model=ConvNeXt(3, 5, (1, 1), (4, 8), "aps", kernel=5, layer_scale=1.0, init_std=None))
    wider.save(tmp_path / "network.npz")
    again = AliasFreeRun.load(tmp_path / "network.npz")
    assert again.preset == run.preset
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.model(x), wider.model.eval()(x))
