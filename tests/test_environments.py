"""pip, conda and Binder get the same packages, at versions that pyproject allows."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools import environments

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch-cpu": "torch"}


def needed(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(need.name): need for need in map(Requirement, lines)}


RUN = needed(PROJECT["dependencies"])
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
}


def test_every_requirement_is_pinned_inside_its_range() -> None:
    extras = PROJECT["optional-dependencies"]
    for name, need in (RUN | needed([*extras["dev"], *extras["bench"], *extras["geo"]])).items():
        assert need.specifier.contains(PINS[name]), f"{name}: {PINS[name]} is outside {need.specifier}"


def test_conda_asks_for_the_same_names_and_ranges() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"][0] == "conda-forge"
    lines = [line for line in environment["dependencies"] if isinstance(line, str)]
    assert lines[:2] == ["python=3.11", "pip"]
    asked = {CONDA_NAMES.get(name, name): need.specifier for name, need in needed(lines[2:]).items()}
    assert asked == {name: need.specifier for name, need in RUN.items()}
    assert environment["dependencies"][-1] == {"pip": ["-e .[dev,geo]"]}


def test_binder_installs_the_same_names_at_the_tested_versions() -> None:
    lines = (ROOT / "binder/requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    build = (ROOT / "binder/postBuild").read_text()
    later = dict(re.findall(r"(torch|accelerate)==(\S+)", build))
    # whatever needs torch must not draw another build of it in before
    assert build.index("torch==") < build.index("accelerate==")
    pinned |= later
    assert set(pinned) == set(RUN) | {"uv"}
    assert {name: Version(version) for name, version in pinned.items()} == {name: PINS[name] for name in pinned}
    assert "--editable ." in build
    assert (ROOT / "binder/runtime.txt").read_text().strip() == "python-3.11"
    start = (ROOT / "binder/start").read_text()
    assert "OMP_NUM_THREADS=1" in start
    assert start.rstrip().endswith('exec "$@"')
    assert all((ROOT / "binder" / name).stat().st_mode & 0o111 for name in ("postBuild", "start"))


def test_the_files_are_what_the_generator_writes() -> None:
    assert environments.main(["--check"]) == 0


@pytest.mark.timeout(120)
def test_repo2docker_accepts_the_repository() -> None:
    command = [Path(sys.executable).parent / "jupyter-repo2docker", "--no-build", "--debug", ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = done.stdout + done.stderr
    assert done.returncode == 0, report[-2000:]
    assert "python=3.11" in report or "python-3.11" in report or "environment.py-3.11" in report
    assert "binder/postBuild" in report
    assert "binder/start" in report


def test_no_file_names_a_package_registry_host() -> None:
    names = ("pypi", "pythonhosted", "deb.debian", "registry.npmjs", "download.pytorch")
    hosts = tuple(f"{name}.org".encode() for name in names)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for path in filter(Path.is_file, map(ROOT.joinpath, listed.splitlines())):
        content = path.read_bytes()
        assert not any(host in content for host in hosts), f"{path} names a package registry"
