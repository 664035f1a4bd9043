# SPDX-License-Identifier: Apache-2.0
"""What the name of a source tells, before anything is opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg"})


def is_url(source: Any) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def is_video(source: Any) -> bool:
    """Whether ``source`` is a path or URL with the suffix of a video file."""
    if is_url(source):
        source = urlsplit(source).path
    return isinstance(source, str | os.PathLike) and Path(source).suffix.lower() in VIDEO_SUFFIXES


def stem_of(name: str) -> str:
    """The file name of a source without its suffix, for naming what is made of it."""
    path = unquote(urlsplit(name).path) if is_url(name) else name
    return Path(path).stem or "image"


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts ``2.jpg`` before ``10.jpg``."""
    parts = re.split(r"([0-9]+)", str(path).lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
