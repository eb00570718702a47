"""Files are whole or not there."""

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lib import files
from lib.files import alone_in, atomic_path, input_folder, output_file, output_folder, read_arrays
from tests.interrupting import interrupt_at


def write(path, text: str = "new") -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def test_a_write_replaces_the_file_or_leaves_the_old_one_and_nothing_else(tmp_path) -> None:
    target = tmp_path / "a" / "b.txt"
    for text in ("one", "two"):
        write(target, text)
    with interrupt_at(0, Path, "write_text"):
        write(target, "half of the n")
    assert target.read_text() == "two"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_new_files_follow_the_umask_and_replaced_ones_keep_their_mode(mask, tmp_path) -> None:
    before = os.umask(mask)
    try:
        write(tmp_path / "new.txt")
        assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o666 & ~mask
    finally:
        os.umask(before)
    for mode in (0o600, 0o640, 0o444, 0o755):
        (tmp_path / "new.txt").chmod(mode)
        write(tmp_path / "new.txt")
        assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == mode


def test_a_link_stays_and_its_target_is_replaced(tmp_path) -> None:
    (tmp_path / "there").mkdir()
    target, missing = tmp_path / "there" / "target.txt", tmp_path / "there" / "missing.txt"
    target.write_text("old")
    for name, leads_to in (("link", target), ("second", "link"), ("dangling", missing)):
        (tmp_path / name).symlink_to(leads_to)
    write(tmp_path / "second")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert target.read_text() == "new"
    write(tmp_path / "dangling")
    assert (tmp_path / "dangling").is_symlink()
    assert missing.read_text() == "new"
    (tmp_path / "folder").symlink_to("there")
    write(tmp_path / "folder" / "target.txt", "newer")
    assert target.read_text() == "newer"


def places(tmp_path):
    """Where no file can go, and the words for it."""
    (tmp_path / "file").write_text("a file")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    return {
        "": "must be a path; it is ''",
        "a\0b": "must be a path",
        tmp_path: "is a folder",
        ".": "is a folder",
        "/": "is a folder",
        tmp_path / "file" / "below": "must lie in a folder; .*file is a file",
        tmp_path / "file" / "far" / "below": "must lie in a folder; .*file is a file",
        "/dev/null": "is a device or a pipe",
        tmp_path / "pipe": "is a device or a pipe",
        tmp_path / "loop": "a link that leads back to itself",
    }


def test_what_is_no_place_for_a_file_is_refused_before_and_left_as_it_was(tmp_path) -> None:
    for place, words in places(tmp_path).items():
        for use in (write, lambda path: output_file("path", path)):
            with pytest.raises(ValueError, match=f"path must .*{words}|path {words}"):
                use(place)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "file").read_text() == "a file"
    for foreign in (None, 3, b"bytes", ["a"]):
        with pytest.raises(TypeError, match="path must be a path"):
            write(foreign)
    assert output_file("path", tmp_path / "new" / "and" / "deep") == tmp_path / "new" / "and" / "deep"
    assert not (tmp_path / "new").exists()


def test_folders_to_write_to_and_to_read_from(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("a file")
    assert output_folder("folder", tmp_path / "new" / "deep") == tmp_path / "new" / "deep"
    assert output_folder("folder", tmp_path) == input_folder("folder", str(tmp_path)) == tmp_path
    for place in ("", tmp_path / "file", tmp_path / "file" / "below"):
        for check in (output_folder, input_folder):
            with pytest.raises(ValueError, match="folder must"):
                check("folder", place)
    with pytest.raises(ValueError, match="new is not there"):
        input_folder("folder", tmp_path / "new")
    # a superuser may write anywhere
    monkeypatch.setattr(os, "access", lambda *_: False)
    for check in (output_folder, output_file):
        with pytest.raises(ValueError, match="must lie in a folder that can be written to"):
            check("folder", tmp_path / "new")


def test_arrays_come_back_by_name_or_are_missed(tmp_path) -> None:
    path = tmp_path / "two.npz"
    with pytest.raises(ValueError, match=r"two\.npz is missing"):
        read_arrays(path)
    np.savez(path, a=[1], b=[2])
    assert (list(read_arrays(path)), list(read_arrays(path, "b"))) == (["a", "b"], ["b"])
    with pytest.raises(ValueError, match=r"two\.npz is damaged: .*; delete it"):
        read_arrays(path, "c")


def test_long_names_and_several_writers(tmp_path) -> None:
    write(tmp_path / ("x" * 250 + ".txt"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write(tmp_path / "one.txt", str(number) * 1000), range(8)))
    assert len(set((tmp_path / "one.txt").read_text())) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_process_leaves_no_lock(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    program = f"from lib.files import alone_in\nwith alone_in({str(tmp_path)!r}):\n print('in', flush=True)\n input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "in\n"
        with pytest.raises(ValueError, match="another process works in"), alone_in(tmp_path):
            pass
        process.kill()
    with alone_in(tmp_path) as alone:
        assert alone


def test_where_there_are_no_locks_work_goes_on(tmp_path, monkeypatch) -> None:
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    with alone_in(tmp_path) as alone:
        assert not alone
