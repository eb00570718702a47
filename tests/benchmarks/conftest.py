"""Benchmarks: groups of ways to do the same work; the first row of a group is ours, the ratios are printed and kept."""

import json
import platform
from pathlib import Path

import pytest

from lib.files import atomic_path

RESULTS = Path(__file__).with_name("results.json")


def label(benchmark, group: str, name: str, note: str = "") -> None:
    """Name a row, and the group that it is in."""
    benchmark.group = group
    benchmark.extra_info.update(label=name, note=note)


def _machine() -> str:
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, one thread"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config) -> None:
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    groups: dict[str, list[dict]] = {}
    for bench in session.benchmarks:
        if not bench.stats.data:  # it failed, and says so itself
            continue
        row = {
            "name": bench.extra_info.get("label", bench.name),
            "milliseconds": 1e3 * bench.stats.median * bench.extra_info.get("times", 1),
        }
        row |= {key: value for key, value in bench.extra_info.items() if key not in ("label", "times")}
        groups.setdefault(bench.group, []).append(row)
    for name, rows in groups.items():
        ours = next((row for row in rows if row["name"].startswith("ours")), rows[0])
        terminalreporter.write_line(f"\n{name}")
        for row in rows:
            row["ratio"] = row["milliseconds"] / ours["milliseconds"]
            note = row.get("note", "")
            text = f"  {row['name']:<44} {row['milliseconds']:>10.2f} ms  {row['ratio']:>8.1f} x  {note}"
            terminalreporter.write_line(text)
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"groups": {}}
    stored["machine"] = _machine()
    stored["groups"] |= {
        name: [
            {**row, "milliseconds": round(row["milliseconds"], 3), "ratio": round(row["ratio"], 1 + (row["ratio"] < 1))}
            for row in rows
        ]
        for name, rows in groups.items()
    }
    with atomic_path(RESULTS) as temporary:
        temporary.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
