# SPDX-License-Identifier: Apache-2.0
"""EXIF as cameras and editors leave it: a sound orientation, and other tags that are malformed."""

from __future__ import annotations

import struct


def with_exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block with these tags (number, type, count, 4 bytes of value)."""
    body = b"".join(
        struct.pack("<HHL", number, kind, count) + value for number, kind, count, value in entries
    )
    head = b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(entries))
    return head + body + struct.pack("<L", 0)


ORIENTATION = (0x0112, 3, 1, b"\6\0\0\0")
ODD_TAGS = {
    "resolution of letters": (0x011A, 2, 4, b"abc\0"),
    "offset out of range": (0x0111, 4, 1, b"\xff\xff\xff\xff"),
    "unknown type": (0x0132, 99, 7, b"\xff\xff\xff\xff"),
    "beyond the end": (0x010F, 2, 60_000, b"\xff\xff\0\0"),
    "another IFD that is none": (0x8769, 4, 1, b"\xff\xff\xff\x7f"),
}
UNREADABLE = {
    "empty": b"Exif\0\0",
    "no directory": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "a word": with_exif((0x0112, 2, 4, b"six\0")),
    "99": with_exif((0x0112, 3, 1, b"\x63\0\0\0")),
    "cut off": with_exif(ORIENTATION)[:-9],
}
"""Blocks without an orientation that can be read."""
