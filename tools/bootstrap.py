"""Create `.venv` and install the suite into it: needs Python 3.11+ and nothing else.

    python tools/bootstrap.py [EXTRA ...]

Does nothing when the environment already fits. On Linux without an NVIDIA GPU it asks for the CPU build of
torch first (uv knows where the PyTorch project keeps it); where that cannot be reached it goes on with the
package sources that pip is configured with.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "paperplay-installed.txt"


def fingerprint(extras: list[str]) -> str:
    """What the environment must have been made from to be up to date."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt", "tools/bootstrap.py")]
    return (
        hashlib.sha256(b"\0".join([*parts, sys.version.encode(), str(ROOT).encode()])).hexdigest()
        + " "
        + " ".join(extras)
    )


def installed_extras() -> set[str]:
    """The extras that are in the environment already, when it fits."""
    if not (PYTHON.exists() and STAMP.exists()):
        return set()
    stamp = STAMP.read_text().split()
    return set(stamp[1:]) | {""} if stamp and stamp[0] == fingerprint([]).split()[0] else set()


def run(*command: object, check: bool = True, quiet: bool = False, **environment: str) -> bool:
    """Run a command; say what failed and stop, unless told that it may fail."""
    output = subprocess.DEVNULL if quiet else None
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment}, stdout=output, stderr=output, check=False
    )
    if check and done.returncode:
        sys.exit(f"bootstrap: this failed (exit code {done.returncode}): {' '.join(map(str, command))}")
    return done.returncode == 0


def usable() -> bool:
    """Whether there is an environment of this very Python, which only needs other packages."""
    probe = f"import sys; sys.exit(sys.version != {sys.version!r} or sys.prefix != {str(VENV)!r})"
    return PYTHON.exists() and run(PYTHON, "-c", probe, check=False, quiet=True)


def install_cpu_torch(constraints: Path) -> None:
    """Prefer the small CPU build on Linux without an NVIDIA GPU."""
    if not sys.platform.startswith("linux") or shutil.which("nvidia-smi"):
        return
    if run(PYTHON, "-c", "import torch", check=False, quiet=True):
        return
    pinned = re.search(r"^torch==\S+", constraints.read_text(), re.MULTILINE)
    requirement = pinned.group() if pinned else "torch"
    run(PYTHON, "-m", "pip", "install", "--quiet", "uv", "-c", constraints)
    uv = (PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", PYTHON, "--no-deps", "--torch-backend=cpu")
    if not run(*uv, requirement, check=False, quiet=True, UV_HTTP_TIMEOUT="30", UV_HTTP_RETRIES="1"):
        print("bootstrap: the PyTorch project's CPU builds cannot be reached; taking torch from pip's own sources")
        run(PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", requirement)


def keep_lab_quiet(prefix: Path) -> None:
    """JupyterLab's defaults in an environment: no question about news over the page, and no request for updates."""
    folder = prefix / "share" / "jupyter" / "lab" / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (folder / "overrides.json").write_text(json.dumps(defaults, indent=1))


def main(extras: list[str]) -> None:
    """Bring the environment up to date."""
    if sys.version_info < (3, 11):
        sys.exit(f"bootstrap: Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    have = installed_extras()
    if have >= {"", *extras}:
        return
    wanted = sorted({*extras, *have} - {""})
    if not usable():
        print(f"bootstrap: making {VENV}")
        try:
            venv.create(VENV, with_pip=True, clear=True)
        except (subprocess.CalledProcessError, SystemExit):
            sys.exit("bootstrap: this Python cannot make virtual environments (on Debian: apt install python3-venv)")
    print("bootstrap: installing (a few minutes the first time)")
    constraints = ROOT / "constraints.txt"
    install_cpu_torch(constraints)
    target = f".[{','.join(wanted)}]" if wanted else "."
    run(PYTHON, "-m", "pip", "install", "--quiet", "--editable", target, "-c", constraints)
    keep_lab_quiet(VENV)
    with tempfile.NamedTemporaryFile("w", dir=VENV, delete=False) as temporary:
        temporary.write(fingerprint(wanted))
    Path(temporary.name).replace(STAMP)


if __name__ == "__main__":
    os.chdir(ROOT)
    main(sys.argv[1:])
