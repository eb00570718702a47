"""A real JupyterLab and a headless browser, started once for all browser tests."""

import datetime
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

from tools.stills import CHROMIUM, QUIET

TOKEN = "paperplay-test"
ROOT = Path(__file__).resolve().parents[2]
WIDGET = "application/vnd.jupyter.widget-view+json"
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
#: The notebook of which all cells run here (another test runs all cells of all of them): each day the next one, or the
#: one that is named, so that a failure comes back.
FULL = os.environ.get("PAPERPLAY_FULL_NOTEBOOK", NOTEBOOKS[datetime.date.today().toordinal() % len(NOTEBOOKS)])


def need_chromium() -> None:
    """Skip without a browser; fail where one was promised."""
    if CHROMIUM is None:
        reason = "no chromium on this machine (on Debian: apt install chromium)"
        (pytest.fail if os.environ.get("PAPERPLAY_REQUIRE_BROWSER") else pytest.skip)(reason)


def copy_notebooks(folder: Path) -> None:
    """Copies, of all but one without the code cells that explorers do not need: the first one imports what they do."""
    assert FULL in NOTEBOOKS, f"PAPERPLAY_FULL_NOTEBOOK must be one of {', '.join(NOTEBOOKS)}; it is {FULL!r}"
    folder.mkdir()
    for name in NOTEBOOKS:
        notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
        if name != FULL:
            imports = next(cell for cell in notebook.cells if cell.cell_type == "code")
            notebook.cells = [
                cell
                for cell in notebook.cells
                if cell.cell_type != "code"
                or cell is imports
                or any(WIDGET in output.get("data", ()) for output in cell.outputs)
            ]
        nbformat.write(notebook, folder / name)


class Lab:
    """A running JupyterLab server on copies of the notebooks."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        work = folder / "work"
        copy_notebooks(work)
        settings = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
        # All cells stay in the page, so that a test can read each of them.
        settings["@jupyterlab/notebook-extension:tracker"] = {"windowingMode": "none"}
        for plugin, values in settings.items():
            package, name = plugin.split(":")
            target = folder / "settings" / package / f"{name}.jupyterlab-settings"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(values))
        own = {
            name: str(folder / name.lower())
            for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
        }
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.log = (folder / "lab.log").open("w")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                f"--port={self.port}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={TOKEN}",
                f"--ServerApp.root_dir={work}",
                "--LabApp.news_url=None",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                "--LabApp.extension_manager=readonly",
            ],
            env={**os.environ, **own, **threads, "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def api(self, path: str, method: str = "GET") -> object:
        """Ask the server."""
        request = urllib.request.Request(f"{self.url}/api/{path}?token={TOKEN}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
        return json.loads(text) if text else None

    def wait(self, seconds: float = 90) -> None:
        """Wait until the server answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"JupyterLab stopped: {Path(self.log.name).read_text()[-2000:]}")
            try:
                self.api("status")
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
            else:
                return
        raise RuntimeError("JupyterLab did not answer in time")

    def kernel_ready(self, seconds: float = 60) -> str:
        """Wait until a kernel is idle and connected; the session's id."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for session in self.api("sessions"):
                kernel = session["kernel"]
                if kernel["execution_state"] == "idle" and kernel["connections"] >= 1:
                    return str(session["id"])
            time.sleep(0.2)
        raise RuntimeError("no kernel got ready")

    def close(self) -> None:
        """Stop the server."""
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """The server."""
    need_chromium()
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        server.wait()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def browser():
    """The browser."""
    need_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        # one context: what JupyterLab consists of is loaded and compiled once
        yield chromium.new_context(viewport={"width": 1500, "height": 1000})
        chromium.close()
