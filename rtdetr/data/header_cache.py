# SPDX-License-Identifier: Apache-2.0
"""What the heads of the images of a data set said, kept in the user's cache: a second start reads none of them.

An entry counts as long as the file has the path, the time of its last change and the length that it had. A cache that
cannot be read or written is none: it saves time, and nothing depends on it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files import atomic_write, home_path

__all__ = ["Header", "HeaderCache", "Stamp", "cache_folder", "stamp"]

FORM = b"rtdetr headers 1"
"""Begins what is hashed; another number, and older caches count no more."""
DIGEST = 16
"""Bytes of a hash."""
ENTRY = np.dtype(
    [
        ("path", f"V{DIGEST}"),
        ("modified", "<i8"),
        ("length", "<i8"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("orientation", "<u4"),
        ("content", "<i8"),
    ]
)


class Stamp(NamedTuple):
    """Which file, in which state."""

    path: bytes  # a hash
    modified: int  # nanoseconds
    length: int  # bytes


@dataclass(frozen=True)
class Header:
    """One image.

    Args:
        size: (height, width) as stored, pixels.
        orientation: 1..8 as EXIF defines it; 1 is upright.
        content: a hash of some of the file: files with another one differ. 0 where there is no file.
    """

    size: tuple[int, int]
    orientation: int = 1
    content: int = 0

    @property
    def is_sideways(self) -> bool:
        """Whether width and height change places as the image is turned."""
        return self.orientation >= 5

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) as viewers show it."""
        return self.size[::-1] if self.is_sideways else self.size


def stamp(path: str, stat: os.stat_result) -> Stamp:
    """The stamp of a file whose state is known."""
    return Stamp(_digest(os.fsencode(os.path.abspath(path))), stat.st_mtime_ns, stat.st_size)  # noqa: PTH100


def cache_folder() -> Path:
    """``RTDETR_CACHE``, or ``rtdetr`` in the user's cache: ``XDG_CACHE_HOME``, by default ``~/.cache``."""
    own = os.environ.get("RTDETR_CACHE")
    return home_path(own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rtdetr")


@dataclass(frozen=True)
class HeaderCache:
    """The cache of one split.

    Args:
        file: where it is; processes may read and write it at the same time.
    """

    file: Path

    @classmethod
    def of(cls, root: str, split: str) -> HeaderCache:
        """The cache for the images of a split under ``root``."""
        name = _digest(os.fsencode(os.path.abspath(root)), split.encode()).hex()  # noqa: PTH100
        return cls(cache_folder() / "headers" / name)

    def read(self) -> dict[Stamp, Header]:
        """All entries; none where the file is missing, or not as it was written."""
        try:
            data = self.file.read_bytes()
        except OSError:
            return {}
        content = data[DIGEST:]
        if data[:DIGEST] != _digest(content) or len(content) % ENTRY.itemsize:
            return {}
        return {
            Stamp(path, modified, length): Header((height, width), *others)
            for path, modified, length, height, width, *others in np.frombuffer(
                content, ENTRY
            ).tolist()
        }

    def write(self, headers: Mapping[Stamp, Header]) -> None:
        """Put these entries in the place of the older ones, where the file can be written."""
        if self.file.parts[0] == "~":
            return  # a user without a home, as in some containers: it would be a folder of that name, here
        rows = [
            (*key, *header.size, header.orientation, header.content)
            for key, header in headers.items()
        ]
        content = np.array(rows, ENTRY).tobytes()
        try:
            with atomic_write(self.file) as temporary:
                temporary.write_bytes(_digest(content) + content)
        except OSError:
            return  # a home that cannot be written, or a full disk: the next start reads the images again


def _digest(*pieces: bytes) -> bytes:
    total = hashlib.blake2b(FORM, digest_size=DIGEST)
    for piece in pieces:
        total.update(len(piece).to_bytes(8, "little") + piece)
    return total.digest()
