"""Checkpoints: what they hold can be read back, damage is found and named, and other settings are refused."""

import pickle
import random
import threading
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import TensorDataset

from lib import files
from lib.checkpoints import (
    checkpoint_steps,
    claim_experiment,
    held_experiment,
    load_checkpoint,
    load_network,
    plain,
    save_checkpoint,
    save_network,
)
from lib.training import fit

EIGHT = TensorDataset(torch.eye(8), torch.arange(8))


def sgd(parameters, **options):
    return torch.optim.SGD(parameters, **{"lr": 0.1, **options})


def train(folder, epochs=2, *, optimizer=sgd, schedule=None, data=EIGHT, network=None, **options):
    if network is None:
        network = nn.Linear(8, 8)
        for parameter in network.parameters():
            parameter.data = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
    moves = optimizer(network.parameters())
    settings = {"batch_size": 4, "schedule": schedule and schedule(moves), "folder": folder, **options}
    return fit(network, data, nn.functional.cross_entropy, moves, epochs=epochs, **settings), network, moves


class Held:
    """Something beside the network that a checkpoint holds."""

    def __init__(self, state) -> None:
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state) -> None:
        self.state = state


NUMPY = {
    "score of a tensor": {"evaluate": lambda _: torch.tensor(0.5)},
    "score of no axes": {"evaluate": lambda _: np.asarray(np.float32(0.5))},
    "lr in single precision": {"optimizer": lambda p: sgd(p, lr=np.float32(0.1), weight_decay=np.float32(1e-3))},
    "betas": {"optimizer": lambda p: torch.optim.Adam(p, lr=0.1, betas=tuple(np.array([0.9, 0.99])))},
    "a group": {"optimizer": lambda p: torch.optim.AdamW([{"params": list(p), "lr": np.float64(0.01)}], foreach=False)},
    "a schedule": {"schedule": lambda o: lr_scheduler.ExponentialLR(o, np.float32(0.9))},
    "milestones": {"schedule": lambda o: lr_scheduler.MultiStepLR(o, np.array([1, 3]), gamma=np.float64(0.5))},
    "two schedules": {
        "schedule": lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, np.float64(0.5)), lr_scheduler.StepLR(o, np.int64(2))], [np.int64(2)]
        )
    },
    "plateau": {"schedule": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=np.float32(0.5))},
    "state": {"extra": (Held({"at": [np.int64(3)], np.int64(2): {"deep": (np.float16(0.5), np.bool_(1))}}),)},
    "facts": {"facts": {"alpha": np.float32(0.1)}},
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
@pytest.mark.parametrize("name", NUMPY)
def test_numpy_numbers_make_a_good_checkpoint(name, tmp_path) -> None:
    whole, network, _ = train(tmp_path / "whole", 4, **NUMPY[name])
    train(tmp_path / "parts", 2, **NUMPY[name])
    again, other, _ = train(tmp_path / "parts", 4, **NUMPY[name])
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert torch.equal(network.weight, other.weight)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.zeros(3), "numpy.ndarray"),
        (np.array(["2020"], dtype="datetime64[D]")[0], "numpy.datetime64"),
        (torch.Generator(), "Generator"),
        (lambda x: x, "function"),
        (Held(1), "Held"),
    ],
)
def test_what_cannot_be_read_back_is_refused_at_once_by_its_name(value, kind, tmp_path) -> None:
    for deep in ({"mine": [1, value]}, {"mine": {"deep": (value,)}}):
        with pytest.raises(TypeError, match=rf"state\['extra'\]\[0\]\[0\]\['mine'\].* it is a .*{kind}"):
            train(tmp_path / "new", extra=(Held(deep),))
    assert not checkpoint_steps(tmp_path / "new")
    with pytest.raises(TypeError, match="evaluate must return a number"):
        train(None, evaluate=lambda _: value)


def test_plain_values_keep_their_kind_and_foreign_ones_are_left_alone() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    kept = plain("state", state)
    assert type(kept) is OrderedDict
    assert kept._metadata == state._metadata
    assert kept["weight"] is state["weight"]
    counted = plain("state", Counter([np.int64(3), np.int64(3)]))
    assert (type(counted), counted, type(*counted)) == (Counter, {3: 2}, int)
    values = {"a": np.float64(1), "b": [np.int64(2)]}
    assert type(plain("state", values)["b"][0]) is int
    assert type(values["a"]) is np.float64


def damaged(path, flips: int):
    """What could become of an archive: a bit flips in its largest part, or it is cut short."""
    content, rng = path.read_bytes(), random.Random(0)
    with zipfile.ZipFile(path) as archive:
        part = max(archive.infolist(), key=lambda each: each.compress_size)
    after = part.header_offset + 30
    start = after + sum(int.from_bytes(content[at : at + 2], "little") for at in (after - 4, after - 2))
    for _ in range(flips):
        flipped = bytearray(content)
        flipped[start + rng.randrange(part.compress_size)] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
    yield from (content[:size] for size in (0, 10, len(content) // 2, len(content) - 1))


def test_a_flipped_bit_and_a_short_file_are_damage_and_the_one_before_is_not(tmp_path) -> None:
    run, _, _ = train(tmp_path, 2)
    last = tmp_path / "step_00000004.pt"
    for content in list(damaged(last, 60)):
        last.write_bytes(content)
        with pytest.raises(ValueError, match=r"step_00000004\.pt is damaged: .*; delete it and go on from the one"):
            load_checkpoint(tmp_path, 4)
    with pytest.raises(ValueError, match="is damaged"):
        train(tmp_path, 4)
    last.unlink()
    again, _, _ = train(tmp_path, 2)
    np.testing.assert_array_equal(again.losses, run.losses)


def test_a_network_whose_file_is_damaged_is_refused(tmp_path) -> None:
    path = tmp_path / "net.npz"
    save_network(path, nn.Linear(64, 64), {"bias": np.bool_(True), "sizes": (np.int64(64),)}, losses=[1.0])
    assert load_network(path, lambda _: nn.Linear(64, 64))[1] == {"bias": True, "sizes": [64]}
    for content in list(damaged(path, 20)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"net\.npz is damaged"):
            load_network(path, lambda _: nn.Linear(64, 64))


def test_a_whole_file_of_something_else_is_not_called_damaged(tmp_path) -> None:
    torch.save({"losses": [np.float64(1)], "held": Held(1)}, tmp_path / "step_00000002.pt")
    with pytest.raises(ValueError, match="is whole, but is no checkpoint that may be loaded") as error:
        load_checkpoint(tmp_path, 2)
    assert "damaged" not in str(error.value)
    assert "delete" not in str(error.value)
    (tmp_path / "step_00000002.pt").write_bytes(pickle.dumps({"losses": []}))
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(tmp_path, 2)
    with pytest.raises(ValueError, match="missing"):
        load_checkpoint(tmp_path, 3)


def test_a_program_without_checksums_gets_them_here(tmp_path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        save_checkpoint(tmp_path, 1, {"a": torch.ones(3)})
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_checkpoint(tmp_path, 1)["a"].tolist() == [1, 1, 1]


def steps(size):
    return {"schedule": lambda optimizer: lr_scheduler.StepLR(optimizer, size)}


def cycle(peak):
    return {"schedule": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, peak, total_steps=8)}


COSINE = {"schedule": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 8)}
ADAM = {"optimizer": torch.optim.Adam}


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({}, {"optimizer": lambda p: sgd(p, lr=0.001)}, "lr = 0.1, and 0.001 is asked for"),
        ({}, ADAM, "optimizer = 'SGD', and 'Adam'"),
        ({}, {"optimizer": lambda p: sgd([{"params": [each]} for each in p])}, "parameters = "),
        (
            {"optimizer": lambda p: torch.optim.Adam(p, betas=(0.9, 0.99))},
            ADAM,
            r"betas = \[0.9, 0.99\], and \[0.9, 0.9",
        ),
        ({}, {"batch_size": 2}, "batch_size = 4, and 2"),
        ({}, {"seed": 1}, "seed = 0, and 1"),
        ({}, {"precision": "bfloat16"}, "precision = 'float32', and 'bfloat16'"),
        ({}, {"clip": 1.0}, "clip = None, and 1.0"),
        ({}, {"first_epoch": 3}, "first_epoch = 0, and 3"),
        ({}, {"facts": {"alpha": 1}}, "alpha = nothing, and 1"),
        ({}, {"data": TensorDataset(torch.eye(8)[:4], torch.arange(4))}, "count = 8, and 4"),
        ({}, steps(3), "schedule = 'NoneType', and 'StepLR'"),
        (steps(3), steps(2), "schedule, step_size = 3, and 2"),
        (cycle(0.1), cycle(0.2), "lr = 0.004.*, and 0.008"),
        (COSINE, {**COSINE, "optimizer": lambda p: sgd(p, lr=0.05)}, "lr = 0.1, and 0.05"),
    ],
)
def test_other_settings_are_refused_by_name(first, second, named, tmp_path) -> None:
    train(tmp_path, 2, **first)
    with pytest.raises(ValueError, match=rf"hold the same training; .* was begun with .*{named}"):
        train(tmp_path, 4, **second)
    assert len(train(tmp_path, 3, **first)[0].losses) == 6


def test_another_network_is_refused(tmp_path) -> None:
    train(tmp_path)
    with pytest.raises(ValueError, match="model must be the one whose training"):
        train(tmp_path, 3, network=nn.Sequential(nn.Linear(8, 8)))
    with pytest.raises(ValueError, match="extra must hold 0 parts"):
        train(tmp_path, 3, extra=(Held({}),))


def test_an_optimizer_and_a_schedule_that_have_come_so_far_may_go_on(tmp_path) -> None:
    whole, _, _ = train(None, 4, **COSINE)
    made = []
    _, network, moves = train(
        tmp_path, 2, schedule=lambda optimizer: made.append(COSINE["schedule"](optimizer)) or made[0]
    )
    same = {"network": network, "optimizer": lambda _: moves, "schedule": lambda _: made[0]}
    np.testing.assert_array_equal(train(tmp_path, 4, **same)[0].losses, whole.losses)
    # and what is written down is still how it was begun
    train(tmp_path, 5, **COSINE)
    moves.param_groups[0]["lr"] = 0.3
    with pytest.raises(ValueError, match=r"lr = 0\.1, and 0\.3"):
        train(tmp_path, 6, **same)


def test_plateaus_are_found_in_the_losses_of_epochs() -> None:
    def schedule(optimizer):
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.9)

    run, _, moves = train(None, 4, schedule=schedule, every=3)
    assert moves.param_groups[0]["lr"] == pytest.approx(0.1 / 8)
    assert len(run.losses) == 8


class Asking(lr_scheduler.LRScheduler):
    """Wants to know how it goes."""

    def _initial_step(self) -> None:
        pass

    def step(self, metric) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": lambda p: torch.optim.LBFGS(list(p))}, "optimizer must step without .*; LBFGS asks for closure"),
        ({"schedule": lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="max")}, "ReduceLROnPlateau.*'max'"),
        ({"schedule": Asking}, "schedule must step without an argument; Asking asks for metric"),
        ({"schedule": lambda _: lr_scheduler.StepLR(sgd([torch.ones(1)]), 2)}, "schedule must be of the optimizer"),
        ({"optimizer": lambda _: sgd([torch.ones(1)])}, "optimizer must hold parameters of the model"),
    ],
)
def test_what_the_loop_cannot_step_is_refused_by_name(options, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_two_trainings_in_one_folder_do_not_meet(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    inside, done = threading.Event(), threading.Event()

    def score(network) -> float:
        inside.set()
        done.wait(30)
        return 0.5

    found = []
    first = threading.Thread(target=lambda: found.append(train(tmp_path, evaluate=score)))
    first.start()
    assert inside.wait(30)
    half = tmp_path / ".step_00000002-x.pt"
    half.write_bytes(b"half")
    try:
        with pytest.raises(ValueError, match="another process works in"):
            train(tmp_path)
        with pytest.raises(ValueError, match="another process works in"):
            claim_experiment(tmp_path, {"seed": 0})
        assert half.exists()
    finally:
        done.set()
        first.join()
    assert len(found) == 1
    assert len(train(tmp_path, 3)[0].losses) == 6
    assert not half.exists()


def test_facts_of_an_experiment_take_numpy_numbers_and_damage_is_named(tmp_path) -> None:
    settings = {"lr": np.float32(0.5), "count": np.int64(3), "widths": (np.int64(1), 2), "deep": {"on": np.bool_(1)}}
    claim_experiment(tmp_path, settings, eta=np.float64(0.1))
    claim_experiment(tmp_path, {"lr": 0.5, "count": 3, "widths": [1, 2], "deep": {"on": True}}, eta=7)
    assert held_experiment(tmp_path, settings) == {"eta": 0.1}
    with pytest.raises(ValueError, match="begun with count = 3, and 4 is asked for"):
        claim_experiment(tmp_path, {**settings, "count": 4})
    for content in ("", "{", "[]", "{}", '{"preset": 3}'):
        (tmp_path / "experiment.json").write_text(content)
        with pytest.raises(ValueError, match=r"experiment\.json is damaged"):
            held_experiment(tmp_path)
