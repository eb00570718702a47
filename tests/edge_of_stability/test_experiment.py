"""The experiment on networks: it resumes to the same end, and reads CIFAR-10's own format."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lib.__main__ import app
from lib.checkpoints import checkpoint_steps, load_checkpoint
from lib.edge_of_stability import (
    PRESETS,
    EdgeRun,
    GFSMonitor,
    edge_task,
    half_mean_square,
    network_gfs_sharpness,
    train_edge_of_stability,
)
from lib.edge_of_stability import experiment as module
from tests.interrupting import interrupt_at
from tests.test_datasets import write_cifar

SHORT = replace(PRESETS["quick"], count=20, n_steps=40, every=10, tol=1e-2, rtol=1e-2)
FLOW = {"tol": SHORT.tol, "rtol": SHORT.rtol}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train_edge_of_stability(SHORT, folder)


def by_hand(preset, eta: float) -> tuple[list[float], GFSMonitor]:
    """Losses of torch's own descent, until they are not finite, watched by a monitor."""
    model, data = edge_task(preset)
    monitor = GFSMonitor(preset.every, model, half_mean_square, data, **FLOW)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    losses: list[float] = []
    for step in range(preset.n_steps):
        monitor(step)
        optimizer.zero_grad()
        loss = half_mean_square(model(data[0]), data[1])
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            break
        loss.backward()
        optimizer.step()
    return losses, monitor


def test_a_run_is_descent_with_a_monitor(whole) -> None:
    _, run = whole
    model, data = edge_task(SHORT)
    phi = network_gfs_sharpness(model, half_mean_square, data, **FLOW)
    assert 2 / run.eta == pytest.approx(SHORT.edge * phi)
    losses, monitor = by_hand(SHORT, run.eta)
    np.testing.assert_allclose(run.losses, losses, rtol=1e-9)
    assert list(run.steps) == [*monitor.steps, 40]
    np.testing.assert_allclose(run.gfs_sharpness[:-1], monitor.gfs_sharpness, rtol=1e-3)
    np.testing.assert_allclose(run.sharpness[:-1], monitor.sharpness, rtol=1e-2)
    np.testing.assert_allclose(run.loss[:-1], monitor.loss, rtol=1e-9)


def test_an_interrupted_run_goes_on_to_the_same_end(whole, tmp_path) -> None:
    folder, run = whole
    with interrupt_at(25, module, "_full_batch_step"):
        train_edge_of_stability(SHORT, tmp_path)
    assert checkpoint_steps(tmp_path) == [0, 10, 20]
    with interrupt_at(2, module, "_look"):  # again, while it looks for flow solutions
        train_edge_of_stability(SHORT, tmp_path)
    assert len(list((tmp_path / "flow").iterdir())) == 3  # that of the start, and two more
    again = train_edge_of_stability(SHORT, tmp_path)
    for name in ("losses", "steps", "loss", "sharpness", "scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(run, name))
    for step in checkpoint_steps(folder):
        one, other = (load_checkpoint(place, step)["model"] for place in (folder, tmp_path))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(torch.equal(again.model.state_dict()[key], other[key]) for key in other)


def test_runs_of_other_lengths_and_other_experiments(whole, tmp_path) -> None:
    losses = whole[1].losses
    odd = train_edge_of_stability(replace(SHORT, n_steps=15), tmp_path)
    assert list(odd.steps) == [0, 10, 15]
    np.testing.assert_array_equal(odd.losses, losses[:15])
    longer = train_edge_of_stability(SHORT, tmp_path)
    assert list(longer.steps) == [0, 10, 15, 20, 30, 40]
    np.testing.assert_array_equal(longer.losses, losses)
    shorter = train_edge_of_stability(replace(SHORT, n_steps=10), tmp_path)
    assert list(shorter.steps) == [0, 10]
    np.testing.assert_array_equal(shorter.losses, losses[:10])
    with pytest.raises(ValueError, match="hold the same experiment"):
        train_edge_of_stability(replace(SHORT, edge=0.5), tmp_path)
    # a checkpoint that was deleted is made again
    (tmp_path / "step_00000020.pt").unlink()
    again = train_edge_of_stability(SHORT, tmp_path)
    assert checkpoint_steps(tmp_path) == [0, 10, 15, 20, 30, 40]
    np.testing.assert_array_equal(again.losses, losses)


@pytest.mark.slow
def test_two_workers_look_for_flow_solutions(whole, tmp_path) -> None:
    run = train_edge_of_stability(replace(SHORT, n_steps=20), tmp_path, jobs=2)
    np.testing.assert_allclose(run.gfs_sharpness, whole[1].gfs_sharpness[:3], rtol=1e-6)


def test_paper_preset_end_to_end_on_files_of_cifars_format(tmp_path) -> None:
    write_cifar(tmp_path / "data", 10)
    words = ["train", "edge-of-stability", "--preset", "paper", "--data-path", tmp_path / "data", "--out"]
    words += [tmp_path / "out", "--count", 30, "--n-steps", 4, "--every", 2, "--tol", 0.5]
    words = [str(word) for word in words]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    rows = re.findall(r"^ +(\d+) +(\S+) +(\S+) +(\S+)$", first.output, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [0, 2, 4]
    assert all(float(value) > 0 for row in rows for value in row[1:])
    assert CliRunner().invoke(app, words).output == first.output
    run = EdgeRun.load(tmp_path / "out" / "network.npz")
    assert run.lines() == first.output.splitlines()[:5]
    assert run.model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert CliRunner().invoke(app, [*words, "--count", "999"]).exit_code == 2


def test_convnet_and_clothes(tmp_path) -> None:
    model, (inputs, targets) = edge_task(PRESETS["laptop-convnet"])
    assert inputs.shape == (60, 1, 28, 28)
    assert model(inputs).shape == targets.shape == (60, 1)
    assert set(targets.unique().tolist()) == {-1.0, 1.0}
    preset = replace(PRESETS["laptop-convnet"], count=8, n_steps=2, every=2, tol=1e-1)
    assert np.isfinite(train_edge_of_stability(preset, tmp_path).gfs_sharpness).all()


@pytest.mark.slow
@pytest.mark.parametrize(("network", "preset"), [("digits", "quick"), ("clothes", "laptop")])
def test_recorded_runs_are_what_the_script_makes(network, preset, tmp_path) -> None:
    """A part of the shipped runs, again: the same step size, losses and sharpnesses."""
    from lib.edge_of_stability.explorers import _recorded

    stored = {key.split("/")[2]: value for key, value in _recorded().items() if key.startswith(f"{network}/0.75/")}
    run = train_edge_of_stability(replace(PRESETS[preset], n_steps=20, every=20), tmp_path)
    assert float(stored["eta"]) == pytest.approx(run.eta, rel=1e-3)
    np.testing.assert_allclose(stored["losses"][:20], run.losses, rtol=1e-2)
    np.testing.assert_allclose(stored["gfs_sharpness"][[0, 2]], run.gfs_sharpness, rtol=2e-3)
    np.testing.assert_allclose(stored["sharpness"][[0, 2]], run.sharpness, rtol=1e-2)
    outputs = ((stored["outputs"] - stored["targets"]) ** 2).mean(axis=1) / 2
    np.testing.assert_allclose(stored["loss"], outputs, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tmp: train_edge_of_stability(SHORT, tmp, device="gpu"), "device must be cpu"),
        (lambda tmp: train_edge_of_stability("paper", tmp), "data_path must name the folder"),
        (lambda tmp: train_edge_of_stability("paper", tmp, data_path=tmp), "data_batch_1.bin is missing"),
        (lambda _: replace(SHORT, widths=(64, 4, 3)), "widths must end with 1"),
        (lambda _: replace(SHORT, widths=(5, 1)), "widths must begin with 64"),
        (lambda _: edge_task(replace(SHORT, count=5000)), "count must be at most 1797"),
    ],
)
def test_bad_settings_are_refused(call, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


@pytest.mark.parametrize("edge", [0.01, 1e-60])
def test_divergence_is_a_result(edge, tmp_path) -> None:
    preset = replace(SHORT, edge=edge, every=4, count=6, tol=0.1)
    run, again = (train_edge_of_stability(preset, tmp_path) for _ in range(2))
    losses, _ = by_hand(replace(preset, every=100), run.eta)
    for each in (run, again):
        assert each.diverged
        assert len(each.losses) < 20
        assert not each.losses[-1] < 1e6 * each.losses[0]
        assert each.losses[:-1].max() < 1e6 * max(each.losses[0], 0.5)
        np.testing.assert_allclose(each.losses, losses[: len(each.losses)], rtol=1e-9)
        assert list(each.steps) == list(range(0, len(each.losses) - 1, 4))
        assert np.isfinite(each.loss).all()
    if len(run.losses) > 4:
        before = train_edge_of_stability(replace(preset, n_steps=4), tmp_path)
        assert not before.diverged
        np.testing.assert_array_equal(before.losses, run.losses[:4])


def test_the_flow_from_the_start_is_followed_once(whole, tmp_path, monkeypatch) -> None:
    """For the step size; from its checkpoint it would be the same, bit for bit."""
    looked, measured = [], module._measured
    monkeypatch.setattr(module, "_measured", lambda *given: looked.append(1) or measured(*given))
    for counted in (3, 1):
        run = train_edge_of_stability(replace(SHORT, n_steps=20), tmp_path)
        assert len(looked) == counted
        for name in ("loss", "sharpness", "gfs_sharpness"):
            np.testing.assert_array_equal(getattr(run, name), getattr(whole[1], name)[:3])
        looked.clear()
        first = module.Pieces(tmp_path / "flow").path({**module._identity(SHORT), "step": 0})
        first.unlink()


def test_the_folder_says_what_it_holds(whole) -> None:
    assert set(json.loads((whole[0] / "experiment.json").read_text())) == {"preset", "eta"}
