"""Networks against attacks, in parts: the same as at once, resumed where it stopped, in one process or two."""

import json
import math
from importlib.resources import files

import joblib
import pytest
import torch
from torch import nn

from lib.alias_free import (
    Attack,
    CircularConv2d,
    attack_table,
    robustness_table,
    shift_counts,
    shift_robustness,
    shipped_attacks,
    standard_attacks,
    trained_network,
)
from lib.alias_free.robustness import ShiftCounts
from lib.alias_free.tables import first_pictures
from lib.datasets import clothes

SMALL = {
    "roll": Attack("circular", [(0, 1), (2, -1), (0.3, 0.4)]),
    "background": Attack("bilinear", [(1.5, 0.0)], -0.8),
}


def networks() -> dict[str, nn.Module]:
    return {mode: trained_network(mode).model for mode in ("baseline", "afc")}


@pytest.fixture
def pictures():
    return clothes("test", 50).tensors


def test_parts_add_up_to_the_whole(pictures) -> None:
    x, y = pictures
    rows = robustness_table(networks(), x, y, SMALL, part=16)
    assert [(row.network, row.attack) for row in rows] == [(net, name) for net in ("baseline", "afc") for name in SMALL]
    for row in rows:
        attack = SMALL[row.attack]
        wanted = shift_robustness(networks()[row.network], x, y, attack.shifts, kind=attack.kind, fill=attack.fill)
        assert row.pictures == 50
        assert tuple(row.found) == pytest.approx(tuple(wanted), rel=1e-4, abs=1e-6)
    assert rows[2].found.adversarial_accuracy == rows[2].found.clean_accuracy > rows[0].found.adversarial_accuracy
    assert rows[0].record()["network"] == "baseline"


def test_counts_of_parts_whose_outputs_differ_in_size() -> None:
    net, x, y = nn.Flatten(), torch.tensor([[4.0, 1.0], [1.0, 0.0]]).reshape(2, 1, 1, 2), torch.tensor([0, 0])
    first, second = (shift_counts(net, x[k : k + 1], y[k : k + 1], [(0, 1)]) for k in (0, 1))
    # the largest change and the largest output, wherever they are
    assert first.joined(second) == shift_counts(net, x, y, [(0, 1)]) == ShiftCounts(2, 2, 0, 2, 0, 3.0, 4.0)
    assert second.joined(first).robustness() == shift_robustness(net, x, y, [(0, 1)])
    # a network that diverged anywhere is not robust
    diverged = ShiftCounts(1, 0, 0, 1, 0, float("nan"), float("nan"))
    for joined in (first.joined(diverged), diverged.joined(first)):
        assert math.isnan(joined.robustness().max_relative_change)


def test_a_second_run_takes_what_is_there(pictures, tmp_path, monkeypatch) -> None:
    x, y = pictures
    first = robustness_table(networks(), x, y, SMALL, folder=tmp_path, part=25)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 8
    files[0].unlink()  # an interrupted run lacks some
    counted = []
    monkeypatch.setattr(
        "lib.alias_free.tables.shift_counts", lambda *a, **k: counted.append(1) or shift_counts(*a, **k)
    )
    assert robustness_table(networks(), x, y, SMALL, folder=tmp_path, part=25) == first
    assert len(counted) == 1
    # other weights, another attack and other pictures are other work
    changed = networks()
    with torch.no_grad():
        changed["afc"].head.bias[0] += 1
    robustness_table({"afc": changed["afc"]}, x, y, {"roll": SMALL["roll"]}, folder=tmp_path, part=50)
    robustness_table({"afc": networks()["afc"]}, x, y, {"one": Attack("circular", [(0, 1)])}, folder=tmp_path, part=50)
    robustness_table({"afc": networks()["afc"]}, x.flip(-1), y, {"roll": SMALL["roll"]}, folder=tmp_path, part=50)
    assert len(counted) == 4


def test_networks_that_differ_in_what_is_no_weight_are_different_work(pictures, tmp_path) -> None:
    def network(**settings) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(CircularConv2d(1, 10, 3, stride=2, **settings), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    nets = {"strided": network(), "filtered": network(lowpass=True), "half": network().bfloat16()}
    x, y = pictures
    for kind, part in (("float", x), ("bfloat16", x.bfloat16())):
        chosen = {name: net for name, net in nets.items() if (name == "half") == (kind == "bfloat16")}
        found = robustness_table(chosen, part, y, {"roll": SMALL["roll"]}, folder=tmp_path)
        assert found == robustness_table(chosen, part, y, {"roll": SMALL["roll"]})
    assert len(list(tmp_path.iterdir())) == 3


def test_several_workers_count_the_same(pictures) -> None:
    """Threads, which start at once; `tests/test_dask.py` has processes."""
    one = robustness_table(networks(), *pictures, SMALL, part=25)
    with joblib.parallel_config(backend="threading"):
        assert robustness_table(networks(), *pictures, SMALL, part=25, jobs=2) == one


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"networks": {}}, ValueError, "networks must not be empty"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, ValueError, "one class for each picture"),
        ({"attacks": {"none": Attack("circular", [])}}, ValueError, "shifts must not be empty"),
        ({"attacks": {"dark": Attack("zero", [(0, 1)], float("nan"))}}, ValueError, "fill must be finite"),
        ({"attacks": {"none": None}}, TypeError, r"attacks\['none'\] must be an Attack; it is None"),
    ],
)
def test_bad_input(pictures, changes, error, message) -> None:
    good = {"networks": {"flat": nn.Flatten()}, "x": pictures[0], "y": pictures[1], "attacks": SMALL}
    with pytest.raises(error, match=message):
        robustness_table(**{**good, **changes})


def test_first_pictures_of_a_folder_are_spread_over_classes() -> None:
    data = [(torch.full((1, 2, 2), float(k)), k) for k in range(9)]  # as from a folder, class by class
    x, y = first_pictures(data, 3)
    assert y.tolist() == [0, 4, 8]
    assert x[:, 0, 0, 0].tolist() == [0, 4, 8]
    assert len(first_pictures(data)[0]) == 9
    with pytest.raises(ValueError, match="count must be at most 9; it is 10"):
        first_pictures(data, 10)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["baseline", "afc"])
def test_a_part_of_what_ships_counted_again(mode) -> None:
    x, y = clothes("test", 250).tensors
    counted = shift_counts(trained_network(mode).model, x, y, standard_attacks()["any shift"].shifts)
    held = json.loads((files("lib") / "data" / "alias_free_attacks.json").read_text())
    (parts,) = (parts for *case, parts in held if case == ["laptop", mode, "any shift"])
    shipped = ShiftCounts(*parts[0])
    # another processor rounds otherwise: a picture may be won or lost where two classes are equal
    assert (counted.pictures, counted.compared) == (shipped.pictures, shipped.compared) == (250, 32 * 250)
    assert max(abs(a - b) for a, b in zip(counted[:5], shipped[:5], strict=True)) <= 2
    assert counted.largest == pytest.approx(shipped.largest, rel=1e-4)
    assert counted.change == pytest.approx(shipped.change, rel=1e-3, abs=1e-4)


def test_the_table_that_ships() -> None:
    for preset in ("laptop", "canvas"):
        rows = shipped_attacks(preset)
        assert len(rows) == 20
        for row in rows:
            exact = "background" not in row.attack or (preset == "canvas" and row.attack == "background, whole")
            if row.network == "afc" and exact:
                assert row.found.adversarial_accuracy == row.found.clean_accuracy
                assert row.found.max_relative_change < 2e-6
            assert row.pictures == 2000


def test_rows_counted_here() -> None:
    names = ["half pixels", "background, any"]
    rows = attack_table(names, "canvas", count=3)
    assert [row.attack for row in rows] == 4 * names
    x, y = clothes("test", 3, margin=4).tensors
    attack = standard_attacks()[names[1]]
    wanted = shift_robustness(
        trained_network("afc-canvas").model, x, y, attack.shifts, kind="bilinear", fill=attack.fill
    )
    assert (rows[-1].network, rows[-1].pictures) == ("afc", 3)
    assert tuple(rows[-1].found) == pytest.approx(tuple(wanted), rel=1e-4, abs=1e-6)
    with pytest.raises(ValueError, match="attacks must be one of whole pixels, half pixels"):
        attack_table(["quarters"])


def test_standard_attacks() -> None:
    attacks = standard_attacks(2)
    assert all(max(map(abs, shift)) <= 2 for attack in attacks.values() for shift in attack.shifts)
    assert all((down % 1, right % 1) == (0.5, 0.5) for down, right in attacks["half pixels"].shifts)
    assert standard_attacks(2) == attacks
    assert standard_attacks(fill=0.5)["background, any"].fill == 0.5
