"""Files that are either whole or not there, and places that are looked at before the work for them begins."""

from __future__ import annotations

import os
import secrets
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "alone_in",
    "atomic_path",
    "check_archive",
    "input_folder",
    "known_path",
    "output_file",
    "output_folder",
    "read_arrays",
]

#: Seconds after which a folder that another process holds is refused: a killed training's loaders live on for five.
PATIENCE = 6.0

AnyPath = str | os.PathLike[str]


def output_file(name: str, path: AnyPath) -> Path:
    """Return `path` if a file can be written there, over an old one or in a folder that is there or can be made.

    Examples:
        >>> output_file("--json", "/dev/null")
        Traceback (most recent call last):
        ...
        ValueError: --json must name a file; /dev/null is a device or a pipe
    """
    file = known_path(name, path)
    if file.is_dir():
        raise ValueError(f"{name} must name a file; {file} is a folder")
    target = _target(file)
    if target.is_symlink():
        raise ValueError(f"{name} must name a file; {file} is a link that leads back to itself")
    if target.exists() and not target.is_file():
        raise ValueError(f"{name} must name a file; {file} is a device or a pipe")
    _check_place(name, target.parent)
    return file


def output_folder(name: str, path: AnyPath) -> Path:
    """Return `path` if it is a folder that can be written to, or one that can be made."""
    folder = known_path(name, path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{name} must be a folder; {folder} is a file")
    _check_place(name, _target(folder))
    return folder


def input_folder(name: str, path: AnyPath) -> Path:
    """Return `path` if it is a folder."""
    folder = known_path(name, path)
    if not folder.is_dir():
        raise ValueError(f"{name} must be a folder; {folder} is {'a file' if folder.exists() else 'not there'}")
    return folder


def known_path(name: str, path: AnyPath) -> Path:
    """Return `path` as a `Path` if it is one, and not empty."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path; it is {path!r}")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise ValueError(f"{name} must be a path; it is {text!r}")
    return Path(text)


def _target(path: Path) -> Path:
    """Where writing to a path arrives: links are followed and stay."""
    return Path(os.path.realpath(path))


def _check_place(name: str, folder: Path) -> None:
    """Refuse a folder that cannot be written to, or could not be made."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{name} must lie in a folder; {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{name} must lie in a folder that can be written to; {there} cannot")


@contextmanager
def atomic_path(path: AnyPath) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    A file that is replaced hands on its mode; behind a link, the file that it leads to is replaced.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "new" / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "new" / "a.txt").read_text()
        'whole'
    """
    target = _target(output_file("path", path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem[:50]}-{secrets.token_hex(6)}{target.suffix}")
    temporary.open("xb").close()  # not with tempfile, whose files nobody else may read, whatever the umask
    try:
        yield temporary
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_archive(path: AnyPath) -> None:
    """Refuse a .pt or .npz file that was cut short or in which a bit has changed, by the CRC of each of its parts."""
    path = known_path("path", path)
    if not path.exists():
        raise ValueError(f"{path} is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # a changed bit may look like a password, a version or a way to compress
        raise ValueError(f"{path} is damaged: {error}") from error
    if broken is not None:
        raise ValueError(f"{path} is damaged: its part {broken} is not what was written")


def read_arrays(path: AnyPath, *names: str) -> dict[str, NDArray[Any]]:
    """Arrays of a .npz file by their names; all of them if none is given."""
    import numpy as np

    path = known_path("path", path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in names or stored.files}
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except Exception as error:  # a changed bit may look like anything
        raise ValueError(f"{path} is damaged: {error}; delete it, and it is made again") from error


@contextmanager
def alone_in(folder: AnyPath) -> Iterator[bool]:
    """Keep other processes that ask too out of a folder while the block runs; gives False where there are no locks.

    The lock is the operating system's, so a process that was killed holds nothing. Machines see each other's where
    the file system that they share carries locks.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, alone_in(folder) as alone:
        ...     alone, [path.name for path in Path(folder).iterdir()]
        (True, ['.lock'])
    """
    from filelock import FileLock, Timeout

    folder = known_path("folder", folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"folder must be of one process at a time; another process works in {folder}") from error
    except (OSError, NotImplementedError):  # a file system without locks
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
