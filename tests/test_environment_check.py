"""The start page's check says what is wrong."""

from importlib.metadata import PackageNotFoundError

from lib import environment
from lib.environment import check_environment


def test_missing_and_old_packages_are_named(monkeypatch) -> None:
    original = environment.version

    def version(name: str) -> str:
        if name == "plotly":
            raise PackageNotFoundError(name)
        return "0.1" if name == "numpy" else original(name)

    monkeypatch.setattr(environment, "version", version)
    monkeypatch.setattr(environment, "OLDEST_PYTHON", (4, 0))
    text = repr(check_environment())
    assert "needs attention" in text
    assert "Python 4.0 or newer is needed" in text
    assert "plotly is missing: pip install 'plotly" in text
    assert "numpy is 0.1; needed is >=" in text
