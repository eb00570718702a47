"""`python -m lib train`, `attack` and `audit`, each `alias-free`."""

import json
import re
import subprocess

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lib.alias_free import commands
from lib.alias_free.experiment import load_alias_free
from tests.launching import TWO_PROCESSES

TINY = ("--count", 512, "--batch", 64, "--epochs", 1)


def run(verb, *words):
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("alias-free")(commands.COMMANDS[verb])
    return CliRunner().invoke(app, ["alias-free", *(str(word) for word in words)], env={"COLUMNS": "200"})


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
    found = load_alias_free(trained / "afc" / "network.npz")
    assert (found.preset.mode, found.preset.count, len(found.losses)) == ("afc", 512, 8)
    again = run("train", "--out", trained / "afc", "--mode", "afc", *TINY)
    assert again.exit_code == 0
    assert f"{found.scores[0]:.4f}" in again.output
    other = run("train", "--out", trained / "afc", "--mode", "aps", *TINY)
    assert other.exit_code == 2
    assert "must be new or hold the same experiment" in said(other)


def test_two_processes_train_together(tmp_path) -> None:
    words = ["-m", "lib", "train", "alias-free", "--out", str(tmp_path), *map(str, TINY)]
    done = subprocess.run([*TWO_PROCESSES, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert len(load_alias_free(tmp_path / "network.npz").losses) == 8


def test_attack_on_those_that_ship(tmp_path) -> None:
    words = ("--count", 20, "--reach", 1, "--folder", tmp_path / "parts", "--json", tmp_path / "table.json")
    done = run("attack", *words, "--jobs", 2)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "table.json").read_text())
    assert len(rows) == 20
    assert len(list((tmp_path / "parts").iterdir())) == 20
    for row in rows:
        if row["network"] == "afc" and "background" not in row["attack"]:
            assert row["max_relative_change"] < 2e-5
            assert row["adversarial_accuracy"] == row["clean_accuracy"]
    assert run("attack", *words).output == done.output
    wide = run("attack", "--count", 20, "--reach", 1, "--canvas")
    change = re.search(r"^afc +background, whole .* (\S+)$", wide.output, re.MULTILINE)
    assert float(change.group(1)) < 2e-5


def test_attack_on_networks_of_ones_own(trained) -> None:
    files = [word for mode in ("afc", "baseline") for word in ("--network", trained / mode / "network.npz")]
    done = run("attack", *files, "--count", 10, "--reach", 1)
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()[2:]] == ["afc"] * 5 + ["baseline"] * 5
    twice = run("attack", *files[:2], *files[:2], "--count", 10, "--reach", 1)
    assert twice.exit_code == 0


def test_attack_on_networks_for_photographs(tmp_path) -> None:
    """A stand-in for CIFAR-10: its format, with random pixels."""
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        rows = rng.integers(0, 256, (40, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        rows.tofile(tmp_path / name)
    words = ("--preset", "cifar10", "--data", tmp_path, "--batch", 50, "--epochs", 1)
    assert run("train", "--out", tmp_path / "run", *words).exit_code == 0
    file = tmp_path / "run" / "network.npz"
    done = run("attack", "--network", file, "--data", tmp_path, "--count", 8, "--reach", 1)
    assert done.exit_code == 0, done.output
    assert "run           half pixels" in done.output
    assert run("audit", "--network", file, "--data", tmp_path).exit_code == 0
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
        ("train", ["--preset", "huge"], "preset must be one of quick, laptop, canvas, cifar10, imagenet"),
        ("train", ["--mode", "relu"], "mode must be one of"),
        ("train", ["--epochs", 0], "epochs must be"),
        ("train", ["--preset", "cifar10"], "data_path must name the folder of cifar10"),
        ("train", ["--precision", "half"], "precision must be"),
        ("train", ["--device", "cuda:99"], "device must be cpu"),
        ("attack", ["--count", 2001], "count must be at most 2000; it is 2001"),
        ("attack", ["--reach", 0], "reach must be"),
        ("attack", ["--network", "missing.npz"], "holds no network that can be read"),
        ("attack", ["--canvas", "--network", "missing.npz"], "exclude each other"),
        ("audit", ["--mode", "relu"], "mode must be one of"),
        ("audit", ["--mode", "afc", "--network", "missing.npz"], "exclude each other"),
        ("train", ["--data", "."], "must not be given for clothes"),
        ("attack", ["--data", "."], "--data must not be given"),
        ("attack", ["--json", "."], "--json must name a file"),
        ("attack", ["--folder", __file__], "folder must be a folder"),
    ],
)
def test_bad_input(tmp_path, verb, words, message) -> None:
    done = run(verb, *(["--out", tmp_path] if verb == "train" else []), *words)
    assert done.exit_code == 2
    assert message in said(done)
