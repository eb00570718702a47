"""`python -m lib train`, `attack` and `audit`, each `alias-free`."""

import json
import re

import pytest
from typer.testing import CliRunner

from lib.__main__ import app
from lib.alias_free.experiment import AliasFreeRun
from tests.test_datasets import write_cifar

TINY = ("--count", 128, "--batch-size", 16, "--epochs", 1, "--dims", "4,8")


def run(verb, *words):
    return CliRunner().invoke(app, [verb, "alias-free", *(str(word) for word in words)], env={"COLUMNS": "200"})


def said(done):
    """What a run printed, as one line without frames."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", done.output)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for mode in ("afc", "baseline"):
        assert run("train", "--out", folder / mode, "--mode", mode, *TINY).exit_code == 0
    return folder


def test_train_writes_a_network_and_goes_on(trained) -> None:
    found = AliasFreeRun.load(trained / "afc" / "network.npz")
    assert (found.preset.mode, found.preset.count, len(found.losses)) == ("afc", 128, 8)
    again = run("train", "--out", trained / "afc", "--mode", "afc", *TINY)
    assert again.exit_code == 0
    assert f"{found.scores[0]:.4f}" in again.output
    other = run("train", "--out", trained / "afc", "--mode", "aps", *TINY)
    assert other.exit_code == 2
    assert "must be new or hold the same experiment" in said(other)


@pytest.mark.slow
def test_two_processes_count_the_same() -> None:
    words = ("--count", 4, "--reach", 1)
    assert run("attack", *words, "--jobs", 2).output == run("attack", *words).output


def test_attack_on_those_that_ship(tmp_path) -> None:
    words = ("--count", 4, "--reach", 1, "--out", tmp_path / "parts", "--json", tmp_path / "table.json")
    done = run("attack", *words)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "table.json").read_text())
    assert len(rows) == 20
    assert len(list((tmp_path / "parts").iterdir())) == 20
    for row in rows:
        if row["network"] == "afc" and "background" not in row["attack"]:
            assert row["max_relative_change"] < 2e-5
            assert row["adversarial_accuracy"] == row["clean_accuracy"]
    assert run("attack", *words).output == done.output
    wide = run("attack", "--count", 4, "--reach", 1, "--canvas")
    change = re.search(r"^afc +background, whole .* (\S+)$", wide.output, re.MULTILINE)
    assert float(change.group(1)) < 2e-5


def test_attack_on_networks_of_ones_own(trained) -> None:
    files = [word for mode in ("afc", "baseline") for word in ("--network", trained / mode / "network.npz")]
    done = run("attack", *files, "--count", 4, "--reach", 1)
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()[2:]] == ["afc"] * 5 + ["baseline"] * 5
    assert run("attack", *files[:2], *files[:2], "--count", 4, "--reach", 1).exit_code == 0


def test_attack_on_networks_for_photographs(tmp_path) -> None:
    """A stand-in for CIFAR-10: its format, with random pixels."""
    write_cifar(tmp_path, 10, 16)
    words = ("--preset", "cifar10", "--data-path", tmp_path, "--batch-size", 10, "--epochs", 1, "--dims", "4,4,4")
    assert run("train", "--out", tmp_path / "run", *words).exit_code == 0
    file = tmp_path / "run" / "network.npz"
    done = run("attack", "--network", file, "--data-path", tmp_path, "--count", 8, "--reach", 1)
    assert done.exit_code == 0, done.output
    assert "run           half pixels" in done.output
    assert run("audit", "--network", file, "--data-path", tmp_path).exit_code == 0
    assert "data_path must name the folder of cifar10" in said(run("attack", "--network", file))
    assert "--full is for clothes" in said(run("attack", "--network", file, "--full"))


def test_audit_finds_what_wavers(trained) -> None:
    free, usual = run("audit"), run("audit", "--network", trained / "baseline" / "network.npz")
    errors = [[float(line.split()[-1]) for line in done.output.splitlines()[1:]] for done in (free, usual)]
    assert max(errors[0]) < 1e-11
    assert max(errors[1]) > 0.1


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("attack", ["--count", 2001], "count must be at most 2000; it is 2001"),
        ("attack", ["--canvas", "--network", "missing.npz"], "exclude each other"),
        ("audit", ["--mode", "afc", "--network", "missing.npz"], "exclude each other"),
        ("attack", ["--data-path", "."], "Fashion-MNIST was not found in path ."),
    ],
)
def test_bad_input(verb, words, message) -> None:
    done = run(verb, *words)
    assert done.exit_code == 2
    assert message in said(done)
