"""Compiled functions: without a cache where there can be none, and the same digits from everywhere."""

import ast
import errno
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core.caching import IndexDataCacheFile

import lib

PACKAGE = Path(lib.__file__).parent


def imports(file: Path) -> set[str]:
    """Modules, and names in modules, that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


COMPILED = [file for file in sorted(PACKAGE.rglob("*.py")) if "lib.compiling.compiled" in imports(file)]


@pytest.mark.parametrize("file", COMPILED, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_with_compiled_functions_takes_nothing_from_other_files(file: Path) -> None:
    # numba's cache would not see that a constant of another file has changed
    ours = {name for name in imports(file) if name.partition(".")[0] in ("lib", "")}
    assert ours == {"lib.compiling.compiled"}


def test_every_compiled_function_is_made_by_our_decorator() -> None:
    assert {file.parent.name for file in COMPILED} >= {"edge_of_stability", "flood"}
    for file in PACKAGE.rglob("*.py"):
        direct = {name for name in imports(file) if name in ("numba", "numba.njit", "numba.jit", "numba.vectorize")}
        assert not direct or file.name == "compiling.py", file


WITHOUT_CACHE = """
import numpy as np
from lib.edge_of_stability.compiled import above_smallest
from lib.flood.compiled import inverse_seven_thirds

weights, found = np.array([[-0.5, 2.0, 1.0]]), np.empty(1)
balances, place, flips = np.empty((3, 1)), np.empty(1, np.int64), np.empty(1, bool)
above_smallest(weights, 1.0, balances, place, flips)
inverse_seven_thirds(np.array([8.0]), found)
print(balances[:, 0].tolist(), place[0], flips[0], found[0] * 2**7, above_smallest.stats.cache_path)
"""


@pytest.mark.slow
def test_where_nothing_can_be_written_functions_are_compiled_all_the_same(tmp_path: Path) -> None:
    # a file stands where each folder for a cache would be: no right to write protects from root
    copy, occupied = tmp_path / "lib", tmp_path / "file"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.npz", "*.csv"))
    for folder in (copy, *{copy / file.parent.relative_to(PACKAGE) for file in COMPILED}):
        (folder / "__pycache__").touch()
    occupied.touch()
    nowhere = {name: str(occupied / "x") for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "IPYTHONDIR")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CACHE], env={**os.environ, **nowhere, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("] ") == ["[0.0, 3.75, 0.75", "0 True 1.0 None\n"]


MODULE = """
from lib.compiling import compiled

@compiled(error_model="numpy")
def third(x):
    return x / 3
"""


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a file with compiled functions and import it anew; their cache is in `tmp_path / "cache"`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))

    def load(text: str = MODULE):
        if not (file := tmp_path / "a_compiled_file.py").exists():  # the cache goes by its time
            file.write_text(text, "utf-8")
        sys.modules.pop("a_compiled_file", None)
        return importlib.import_module("a_compiled_file")

    yield load
    sys.modules.pop("a_compiled_file", None)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 1, 40])
def test_a_damaged_cache_is_written_anew(fresh, tmp_path: Path, suffix: str, left: int) -> None:
    assert fresh().third(1.5) == 0.5
    for file in (tmp_path / "cache").rglob(f"*.{suffix}"):
        file.write_bytes(file.read_bytes()[:left])
    damaged = fresh().third
    assert damaged(1.5) == 0.5
    assert not damaged.stats.cache_hits
    mended = fresh().third
    assert mended(1.5) == 0.5
    assert mended.stats.cache_hits


@pytest.mark.parametrize("method", ["save", "load"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_refuses_is_no_error(fresh, monkeypatch: pytest.MonkeyPatch, method: str, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(IndexDataCacheFile, method, refuse)
    assert fresh().third(1.5) == 0.5


DIGEST = """
import hashlib
import numpy as np
from lib.edge_of_stability.compiled import above_smallest, solve

rng, digest = np.random.default_rng(0), hashlib.sha256()
for depth, count in ((2, 61), (3, 257), (5, 515), (10, 64)):
    w = np.exp(rng.normal(size=(count, depth))) * rng.choice([-1, 1], (count, depth))
    b, place, flips = np.empty((depth, count)), np.empty(count, np.int64), np.empty(count, bool)
    above_smallest(w, 1.0, b, place, flips)
    c, inverse, missed = np.empty(count), np.empty(count), np.empty(count, bool)
    solve(b, c, inverse, missed)
    for part in (b, place, flips, c, inverse, missed):
        digest.update(part.tobytes())
print(digest.hexdigest(), sum(solve.stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_digits_are_the_same_fresh_from_the_cache_and_in_two_processes(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", DIGEST], env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    together = [start() for _ in range(2)]
    fresh = [process.communicate()[0].split() for process in together]
    cached = start().communicate()[0].split()
    assert [hits for _, hits in (*fresh, cached)] == ["0", "0", "1"]
    assert len({digest for digest, _ in (*fresh, cached)}) == 1


def test_no_copy_of_a_helper_is_left_in_the_compiled_code() -> None:
    from lib.edge_of_stability import compiled

    helpers = [value for name, value in vars(compiled).items() if name[0] == "_" and hasattr(value, "py_func")]
    assert len(helpers) >= 4
    # a copy in the caller's code may be optimised differently from the helper's own
    assert all(helper.targetoptions["forceinline"] for helper in helpers)
    assert not any(helper.targetoptions["fastmath"] for helper in (*helpers, compiled.solve, compiled.above_smallest))


CALLER = """
from lib.compiling import compiled

@compiled(forceinline=True)
def lost(a, b):
    return b - ((a + b) - a)

@compiled(fastmath=True)
def fast(a, b):
    return lost(a, b)
"""


def test_a_fast_caller_does_not_make_its_helper_fast(fresh) -> None:
    assert fresh(CALLER).fast(1.0, 1e-20) == 1e-20
