# SPDX-License-Identifier: Apache-2.0
"""A folder for the results of one run."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import UsageError
from ..files import HIDDEN, claim_unused_folder, exists, home_path

__all__ = ["claim_folder"]

MARK = f"{HIDDEN}claim"


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
        mark, is_new = (None, False) if overwrite else claim_unused_folder(out, MARK)
        made = [mark.parent] if mark and is_new else made
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
