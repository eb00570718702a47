"""Write environment.yml and binder/ from pyproject.toml and constraints.txt; `--check` only compares.

One source of truth: names and ranges live in pyproject.toml, tested versions in constraints.txt. conda gets the
ranges (its channel does not carry every release), Binder the exact versions that the tests passed with.
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"
CONDA_NAMES = {"torch": "pytorch-cpu"}
# torch comes as its CPU build in a second step, and what needs torch after it
AFTER_TORCH = ("torch", "accelerate")
NOTE = "# written by tools/environments.py from pyproject.toml and constraints.txt: do not edit\n"


def requirements() -> list[Requirement]:
    """What the package needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(map(Requirement, project["dependencies"]))


def pins() -> dict[str, str]:
    """Versions that the tests passed with, by normalised name."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def conda() -> str:
    """environment.yml: what the package needs from conda-forge; the package itself and its test tools by pip."""
    lines = [f"  - {CONDA_NAMES.get(need.name, need.name.lower())}{need.specifier}" for need in requirements()]
    head = f"{NOTE}name: paperplay\nchannels: [conda-forge, nodefaults]\ndependencies:\n  - python={PYTHON}\n  - pip\n"
    return head + "\n".join(sorted(lines)) + '\n  - pip: ["-e .[dev,geo]"]\n'


def binder_requirements() -> str:
    """binder/requirements.txt: exact versions of what notebooks need; torch follows in postBuild."""
    known = pins()
    names = sorted(canonicalize_name(need.name) for need in requirements())
    lines = [f"{name}=={known[name]}" for name in [*names, "uv"] if name not in AFTER_TORCH]
    return NOTE + "\n".join(lines) + "\n"


def binder_post_build() -> str:
    """binder/postBuild: the CPU build of torch, what needs it, and the package itself."""
    return (
        "#!/usr/bin/env bash\n"
        f"{NOTE}set -euo pipefail\n"
        f"python -m uv pip install --system --torch-backend=cpu torch=={pins()['torch']} -c constraints.txt\n"
        f"python -m pip install accelerate=={pins()['accelerate']} -c constraints.txt\n"
        "python -m pip install --no-deps --editable .\n"
        "PYTHONPATH=tools python -c "
        "'import bootstrap, pathlib, sys; bootstrap.keep_lab_quiet(pathlib.Path(sys.prefix))'\n"
    )


def binder_start() -> str:
    """binder/start: one thread a process, on machines that are shared."""
    threads = "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1\n"
    return f'#!/usr/bin/env bash\n{NOTE}{threads}exec "$@"\n'


FILES = {
    "environment.yml": conda,
    "binder/requirements.txt": binder_requirements,
    "binder/runtime.txt": lambda: f"python-{PYTHON}\n",
    "binder/postBuild": binder_post_build,
    "binder/start": binder_start,
}


def main(arguments: list[str]) -> int:
    """Write the files, or compare them."""
    stale = []
    for name, content in FILES.items():
        path, text = ROOT / name, content()
        if "--check" in arguments:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)
    if stale:
        print(f"out of date: {', '.join(stale)} (python tools/environments.py writes them)")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
