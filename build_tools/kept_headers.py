# SPDX-License-Identifier: Apache-2.0
"""Headers at a path that is the same in each build."""

from __future__ import annotations

from pathlib import Path

from ninja_build import write_whole


def keep_headers(installed: Path, kept: Path) -> Path:
    """Copy the headers that differ from those of the last build, and return the folder of the copies.

    pip installs what a build needs into a folder with a new name and with new dates: compiled with that
    one, each build would compile everything again.
    """
    for header in installed.rglob("*.h"):
        copy, text = kept / header.relative_to(installed), header.read_bytes()
        if not copy.is_file() or copy.read_bytes() != text:
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_whole(copy, text)
    return kept
