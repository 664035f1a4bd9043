# SPDX-License-Identifier: Apache-2.0
"""Text files that annotations are written in."""

from __future__ import annotations

from pathlib import Path

from .findings import fail

__all__ = ["read_text"]


def read_text(file: Path, form: str, *, any_bytes: bool = False) -> str:
    """The text of a file in UTF-8; a byte order mark is allowed.

    Args:
        file: where it is.
        form: what was expected, for the error.
        any_bytes: whether bytes that are no UTF-8 come along, as file names may have them.

    Raises:
        FatalFindingError: it cannot be read, or is no text.
    """
    try:
        errors = "surrogateescape" if any_bytes else "strict"
        return file.read_text(encoding="utf-8-sig", errors=errors)
    except OSError as error:
        sentence = f"{file}: cannot be read: {error.strerror}"
        raise fail("unreadable-file", str(file), sentence) from error
    except UnicodeDecodeError as error:
        sentence = f"{file}: not text in UTF-8 (byte {error.start}); {form}"
        raise fail("not-text", str(file), sentence) from error
