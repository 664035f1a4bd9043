# SPDX-License-Identifier: Apache-2.0
"""Whether there is what a file names: of names that no file can have, pathlib raises an error."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["exists", "is_file", "is_folder"]


def exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 -- False where pathlib raises, as for names of 300 characters


def is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 -- as above


def is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 -- as above
