"""Training the four versions: alike, resumable, and from files of CIFAR-10's and ImageNet's formats."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from lib.alias_free import ConvNeXt, experiment, shift_robustness
from lib.alias_free.convnext import Mode
from lib.alias_free.experiment import (
    ALIAS_FREE_PRESETS,
    SHIPPED,
    alias_free_task,
    clothes,
    in_every_mode,
    load_alias_free,
    save_alias_free,
    train_alias_free,
    trained_alias_free,
)
from lib.checkpoints import checkpoint_steps, save_network
from lib.training import accuracy

SHORT = replace(ALIAS_FREE_PRESETS["quick"], count=320, batch=32, epochs=2, dims=(4, 8))


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path, monkeypatch) -> None:
    whole = train_alias_free(SHORT)
    calls, entropy = iter(range(1000)), experiment.functional.cross_entropy

    def interrupted(*arguments):
        if next(calls) == 7:
            raise KeyboardInterrupt
        return entropy(*arguments)

    monkeypatch.setattr(experiment.functional, "cross_entropy", interrupted)
    with pytest.raises(KeyboardInterrupt):
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
    again = alias_free_task(replace(ALIAS_FREE_PRESETS["laptop"], count=128))[0]
    for key, value in nets["afc"].state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_a_trained_network_stays_invariant() -> None:
    run = train_alias_free(SHORT)
    assert run.losses[-3:].mean() < run.losses[:3].mean()
    pictures, classes = clothes("test", 40).tensors
    found = shift_robustness(run.model, pictures, classes, [(1, 2), (0.7182, -2.236)])
    assert found.adversarial_accuracy == found.clean_accuracy > 0.2
    assert found.consistency == 1
    assert found.max_relative_change < 2e-5


def test_a_margin_is_background() -> None:
    plain, wide = clothes("test", 5).tensors[0], clothes("test", 5, margin=4).tensors[0]
    assert torch.equal(wide[..., 4:-4, 4:-4], plain)
    assert wide[..., :4, :].unique().numel() == 1
    # a shift within the margin brings in what leaves: background
    assert torch.equal(wide.roll(3, -1), torch.nn.functional.pad(wide, (3, 0), value=float(wide.min()))[..., :-3])
    assert train_alias_free(replace(SHORT, margin=4, count=64, epochs=1)).model.total_stride == 4


def test_cifar_on_files_of_its_format(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        records = rng.integers(0, 256, (8, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    settings = replace(ALIAS_FREE_PRESETS["cifar10"], dims=(4, 6, 8), epochs=1, batch=20)
    for mode in ("baseline", "afc"):
        run = train_alias_free(replace(settings, mode=mode), data_path=tmp_path)
        assert run.losses.shape == (2,)
        assert np.isfinite(run.losses).all()
        assert len(run.scores) == 1


def test_imagenet_on_a_folder_of_pictures(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 1)):
        for name in ("ant", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (250, 240, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.jpeg")
    settings = replace(
        ALIAS_FREE_PRESETS["imagenet"], depths=(1, 1, 1, 1), dims=(4, 4, 6, 8), epochs=1, batch=4, rise=0.2
    )
    model, train, _ = alias_free_task(settings, tmp_path)
    assert model(train[0][0][None]).shape == (1, 2)
    run = train_alias_free(settings, data_path=tmp_path)
    assert np.isfinite(run.losses).all()
    assert len(run.losses) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "relu"}, "mode must be one of"),
        ({"data": "mnist"}, "data must be one of fashion, cifar10, imagenet"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": -1.0}, "lr must be positive"),
        ({"margin": -1}, "margin must be at least 0"),
        ({"data": "cifar10", "margin": 2}, "margin must be 0 for the data 'cifar10'"),
        ({"rise": 0.0}, "rise must lie between 0 and 1"),
        ({"count": 20_000}, "count must be at most"),
        ({"batch": 500}, "batch must be at most 320; it is 500"),
        ({"data": "cifar10"}, "data_path must name the folder of cifar10"),
        ({"data": "imagenet", "count": None}, "data_path must name the folder of imagenet"),
    ],
)
def test_bad_settings_are_refused_and_take_no_folder(change, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        train_alias_free(replace(SHORT, **change), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="preset must be one of"):
        train_alias_free("huge")


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("mode", get_args(Mode))
def test_shipped_networks_are_what_their_presets_make(name, mode, monkeypatch) -> None:
    """A part of it again: the first three steps."""
    run = trained_alias_free(mode, name)
    assert run.preset == replace(ALIAS_FREE_PRESETS[name], mode=mode)
    assert not run.model.training
    assert len(run.losses) == 4 * (10_000 // 128)
    assert run.losses[-20:].mean() < 0.5 * run.losses[:20].mean()
    losses: list[float] = []
    entropy = experiment.functional.cross_entropy

    def watched(output, target):
        if len(losses) == 3:
            raise KeyboardInterrupt
        value = entropy(output, target)
        losses.append(float(value.detach()))
        return value

    monkeypatch.setattr(experiment.functional, "cross_entropy", watched)
    with pytest.raises(KeyboardInterrupt):
        train_alias_free(run.preset)
    np.testing.assert_allclose(losses, run.losses[:3], rtol=1e-3)
    model, _, test = alias_free_task(run.preset)
    model.load_state_dict(run.model.state_dict())
    assert accuracy(model.eval(), test) == pytest.approx(run.scores[-1], abs=2e-3)


def test_a_network_of_other_pictures_comes_back_as_it_was(tmp_path) -> None:
    settings = replace(ALIAS_FREE_PRESETS["quick"], count=256, batch=64, epochs=1, dims=(4, 8), mode="aps")
    run = train_alias_free(settings)
    wider = run._replace(model=ConvNeXt(3, 5, (1, 1), (4, 8), "aps", kernel=5, layer_scale=1.0, init_std=None))
    save_alias_free(tmp_path / "network.npz", wider)
    again = load_alias_free(tmp_path / "network.npz")
    assert again.preset == settings
    np.testing.assert_array_equal(again.losses, run.losses)
    np.testing.assert_array_equal(again.scores, run.scores)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.model(x), wider.model.eval()(x))


def test_what_is_no_network_is_refused(tmp_path) -> None:
    path = tmp_path / "network.npz"
    with pytest.raises(ValueError, match="holds no network"):
        load_alias_free(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="holds no network"):
        load_alias_free(path)
    save_network(path, torch.nn.Linear(2, 2), {"mode": "afc"})
    with pytest.raises(ValueError, match="holds no network"):
        load_alias_free(path)
    with pytest.raises(ValueError, match="mode must be one of"):
        trained_alias_free("resnet")
    with pytest.raises(ValueError, match="preset must be one of laptop, canvas"):
        trained_alias_free("afc", "quick")


@pytest.mark.parametrize(
    ("options", "message"), [({"count": 0}, "count"), ({"count": -5}, "count"), ({"margin": -2}, "margin")]
)
def test_clothes_out_of_range(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        clothes("test", **options)
