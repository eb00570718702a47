"""What the set-up leaves behind."""

import json
import runpy
from pathlib import Path

from jupyterlab.commands import get_app_dir
from jupyterlab_server.settings_utils import get_settings

ROOT = Path(__file__).resolve().parents[1]


def test_jupyterlab_opens_without_a_question_about_news(tmp_path: Path) -> None:
    keep_lab_quiet = runpy.run_path(str(ROOT / "tools/bootstrap.py"))["keep_lab_quiet"]
    keep_lab_quiet(tmp_path)
    overrides = json.loads((tmp_path / "share/jupyter/lab/settings/overrides.json").read_text())
    plugin = "@jupyterlab/apputils-extension:notification"
    settings, _ = get_settings("", f"{get_app_dir()}/schemas", "", schema_name=plugin, overrides=overrides)
    defaults = {name: value["default"] for name, value in settings["schema"]["properties"].items()}
    assert defaults["fetchNews"] == "false"
    assert defaults["checkForUpdates"] is False
