# SPDX-License-Identifier: Apache-2.0
"""Writing files whole: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

HIDDEN = ".rtdetr-"
"""How temporary names begin: a kill may leave one, which a scan of the folder then passes over."""

# Those of Path raise for a folder that may not be entered, and for a name that is too long.
exists, is_file, is_folder = os.path.exists, os.path.isfile, os.path.isdir


def home_path(path: str | os.PathLike[str]) -> Path:
    """A path in which ``~`` is the home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 -- that of Path raises where "~name" is no user


def is_same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both exist, and are one file or folder."""
    first, second = home_path(one), home_path(other)
    return exists(first) and exists(second) and first.samefile(second)


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path``, with its suffix, that takes its place when the block ends without an error.

    Missing folders are made, ``~`` is the home folder, and the umask decides who may read the file. After an error
    nothing is left behind and an older file stays.

    Args:
        path: of the file.
        durable: wait until it is on the disk. Without that, a loss of power shortly after may leave an empty file. It
            costs what the disk takes to write the file.

    Raises:
        OSError: it names ``path``.
    """
    path = home_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{HIDDEN}{secrets.token_hex(8)}{path.suffix}")
    with naming(path):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            mode = temporary.stat().st_mode
            yield temporary
            # A library may have put a file of its own there, for the owner alone.
            temporary.chmod(mode & 0o777)
            if durable:
                _sync(temporary)
            temporary.replace(path)
            if durable:
                _sync(path.parent)  # which holds the name
        finally:
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def claim_unused_folder(first: Path, mark: str) -> tuple[Path, bool]:
    """A folder that no other process gets: ``first``, or ``first-2``, ``first-3``, ... where it already has something.

    Args:
        first: a folder that exists.
        mark: name of the file that claims it.

    Returns:
        The new file in it, and whether the folder is new too.

    Raises:
        OSError: it may not be written to.
    """
    folder, is_new, number = first, False, 1
    while (path := _mark_empty(folder, mark)) is None:
        number += 1
        folder, is_new = first.with_name(f"{first.name}-{number}"), False
        with suppress(FileExistsError):
            folder.mkdir()
            is_new = True
    return path, is_new


def _mark_empty(folder: Path, mark: str) -> Path | None:
    """A new file in a folder that has nothing else; None if it has something, which may be the mark of another."""
    if not is_folder(folder) or any(folder.iterdir()):
        return None
    path = folder / mark
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return None
    # Another process may have come and gone in between.
    if [other.name for other in folder.iterdir()] == [mark]:
        return path
    path.unlink()
    return None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the operating system name ``path``, and not a temporary file, nothing, or a line of C++."""
    try:
        yield
    except Exception as error:
        number = _errno(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _errno(error: BaseException) -> int | None:
    """The number of the system's error behind ``error``, None if it is another kind of error."""
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, RuntimeError) and error.__context__ is not None:
        return _errno(error.__context__)  # torch.save fails once more as it closes its archive
    in_rust = re.search(r"\(os error ([0-9]+)\)", str(error))  # safetensors
    return int(in_rust[1]) if in_rust else None


class JsonListWriter:
    """A JSON list that grows on disk: the file is a whole document after each entry, however the program ends.

    Each entry is a line of its own, written over the closing bracket together with a new one, so that a list of n
    entries costs n writes.

    Args:
        path: where to; an older file gives way at once.

    Raises:
        OSError: it names ``path``.
    """

    TAIL = b"\n]\n"

    def __init__(self, path: Path) -> None:
        self.path = path
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"[" + self.TAIL)
        self._file = path.open("r+b", buffering=0)
        self._end = 1
        self._separator = b"\n"

    def append(self, entry: Any) -> None:
        """Add one entry; after an error, a full disk for example, the list is as before."""
        text = json.dumps(entry, ensure_ascii=False, allow_nan=False)
        line = self._separator + text.encode("utf-8", "backslashreplace")
        with naming(self.path):
            try:
                self._write(line + self.TAIL)
            except OSError:
                self._write(self.TAIL)
                self._file.truncate()
                raise
        self._end += len(line)
        self._separator = b",\n"

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JsonListWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        self._file.seek(self._end)
        while data:
            data = data[self._file.write(data) :]
