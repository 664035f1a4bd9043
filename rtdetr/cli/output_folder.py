# SPDX-License-Identifier: Apache-2.0
"""A folder for the results of one run."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import UsageError
from ..files import HIDDEN, exists, home_path

__all__ = ["claim_folder"]


@contextmanager
def claim_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder that no other run gets: ``out``, or ``out-2``, ``out-3``, ... where it already has something.

    It is removed again if the block leaves it empty. With ``overwrite`` it is ``out`` in any case, and shared.

    Raises:
        UsageError: ``out`` is a file, or below one, or may not be written to.
    """
    out = home_path(out)
    out = out.resolve() if out.name in ("", "..") else out
    if not (overwrite or out.name):
        raise UsageError(f"--out: expected a folder for results, got {out}")
    made = [path for path in (out, *out.parents) if not exists(path)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        mark = None if overwrite else _claim(out, made)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"--out: expected a folder, and {out} is a file or below one") from None
    except OSError as error:
        raise UsageError(f"--out: cannot write to {out}: {error.strerror}") from None
    try:
        yield mark.parent if mark else out
    finally:
        if mark:
            mark.unlink(missing_ok=True)
        with suppress(OSError):  # it holds results
            for path in made:
                path.rmdir()


def _claim(out: Path, made: list[Path]) -> Path:
    """The mark of this run in the first folder that has nothing; a folder that is made for it goes into ``made``."""
    folder, number = out, 1
    while (mark := _mark_empty(folder)) is None:
        number += 1
        folder = out.with_name(f"{out.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            made[:] = [folder]
    return mark


def _mark_empty(folder: Path) -> Path | None:
    """A new file in a folder that has nothing else; None if it has something, which may be the mark of another run."""
    if not folder.is_dir() or any(folder.iterdir()):
        return None
    mark = folder / f"{HIDDEN}claim"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return None
    # Another run may have come and gone in between.
    if [path.name for path in folder.iterdir()] == [mark.name]:
        return mark
    mark.unlink()
    return None
