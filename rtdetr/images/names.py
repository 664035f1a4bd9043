# SPDX-License-Identifier: Apache-2.0
"""What the name of a source tells, before anything is opened; and names as text that can be printed and stored."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# Containers that PyAV reads; a table, since FFmpeg claims .txt, .js and .png as well.
# fmt: off
VIDEO_SUFFIXES = frozenset(
    {
        ".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".gxf", ".h264", ".h265", ".hevc",
        ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv",
        ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm",
        ".wmv", ".wtv", ".y4m",
    }
)
# fmt: on
# Pillow registers names for these and cannot decode them by itself: it needs Ghostscript, Windows or a plug-in.
NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})

STREAM_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "rtp://", "srt://", "udp://")
CAMERA_DEVICE = re.compile(r"/dev/video[0-9]+")
CAMERA_NUMBER = re.compile(r"[0-9]{1,2}")
URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", re.ASCII)

STEM_MAX_BYTES = 200
"""What file systems allow is 255: this leaves room for a number and a suffix."""


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of all image formats that this Pillow decodes, ``.jpg`` among them."""
    from PIL import Image

    names = Image.registered_extensions().items()
    return frozenset(
        suffix for suffix, format_name in names if format_name in Image.OPEN.keys() - NOT_DECODED
    )


def has_known_suffix(path: str | os.PathLike[str]) -> bool:
    """Whether a file of a folder is taken for an image or a video."""
    suffix = Path(path).suffix.lower()
    return suffix in VIDEO_SUFFIXES or suffix in image_suffixes()


def is_url(source: Any) -> bool:
    """Whether ``source`` is the address of a file that is fetched by HTTP."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def is_local_path(source: Any) -> bool:
    """Whether ``source`` is written as the path of a file, which need not exist."""
    is_path = isinstance(source, str | os.PathLike)
    return is_path and not is_url(source) and not is_other_url(source)


def is_live(source: Any) -> bool:
    """Whether ``source`` is a camera or a network stream, which has no end and can be opened once."""
    if isinstance(source, int):
        return source >= 0 and not isinstance(source, bool)
    text = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    if not isinstance(text, str):
        return False
    return (
        text.lower().startswith(STREAM_SCHEMES)
        or CAMERA_DEVICE.fullmatch(text) is not None
        or (CAMERA_NUMBER.fullmatch(text) is not None and not os.path.lexists(text))
    )


def is_video(source: Any) -> bool:
    """Whether ``source`` is a camera, a stream, or a path or URL with the suffix of a video file."""
    if is_live(source):
        return True
    if is_url(source):
        return Path(_url_path(source)).suffix.lower() in (*VIDEO_SUFFIXES, ".m3u8")
    return isinstance(source, str | os.PathLike) and Path(source).suffix.lower() in VIDEO_SUFFIXES


def is_other_url(source: Any) -> bool:
    """Whether ``source`` is a URL of a kind that is not fetched here, and no file of that name."""
    return (
        isinstance(source, str)
        and URL_SCHEME.match(source) is not None
        and not is_url(source)
        and not is_live(source)
        and not os.path.lexists(source)
    )


def stem_of(name: str) -> str:
    """The file name of a source without its suffix, for naming what is made of it: short, without control codes."""
    path = unquote(_url_path(name)) if URL_SCHEME.match(name) else name
    stem = re.sub(r"[\x00-\x1f\x7f]", "_", Path(path).stem)
    return os.fsdecode(os.fsencode(stem)[:STEM_MAX_BYTES]) or "image"


def unicode_name(name: str) -> str:
    """A name as text that every encoding of Unicode can hold: bytes of a file name that are none are spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """``text`` for a terminal: no line breaks, no control codes."""
    shown = unicode_name(text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts ``2.jpg`` before ``10.jpg``."""
    parts = re.split(r"([0-9]+)", str(path).lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _url_path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:  # such as http://[::1
        return ""
