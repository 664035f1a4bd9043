# SPDX-License-Identifier: Apache-2.0
"""Which font has the letters of a label: Pillow's own has those of ASCII alone, the machine has others."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import ImageFont

from ..errors import UsageError
from ..files import home_path, is_file

__all__ = [
    "FONT_FOLDERS",
    "FONT_SUFFIXES",
    "FontFile",
    "Run",
    "load_font",
    "open_font",
    "plain_text",
    "split_by_font",
]

# Where systems keep fonts; asked where fontconfig is not there.
FONT_FOLDERS = (
    "~/.fonts",
    "~/.local/share/fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
FONT_SUFFIXES = (".ttf", ".otf", ".ttc")
# A code point that no font has: what is drawn for it is what is drawn for a missing letter.
NO_LETTER = "\U0010ffff"
PROBE_SIZE = 24
SEARCH_S = 10.0


@dataclass(frozen=True)
class FontFile:
    """One font of a file; ``path`` None is Pillow's own."""

    path: str | None = None
    index: int = 0


Run = tuple[str, FontFile]


def open_font(path: str | os.PathLike[str] | None) -> FontFile:
    """The font that a user named, or Pillow's own.

    Raises:
        UsageError: it is no font that can be read.
    """
    if path is None:
        return FontFile()
    font = FontFile(str(home_path(path)))
    try:
        if not is_file(str(font.path)):
            raise FileNotFoundError("no such file")
        load_font(font, PROBE_SIZE)
    except (OSError, ValueError) as error:
        raise UsageError(f"font: expected a TrueType file, got {path}: {error}") from error
    return font


@functools.lru_cache(maxsize=64)
def load_font(font: FontFile, size: float) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels.

    Raises:
        OSError: it cannot be read, or does not have this size.
    """
    if font.path is not None:
        return ImageFont.truetype(font.path, size, index=font.index)
    own = ImageFont.load_default(size)
    assert isinstance(own, ImageFont.FreeTypeFont)
    return own


def plain_text(text: str) -> str:
    """``text`` in one line, without what cannot be drawn."""
    line = " ".join(text.split())
    return "".join(char for char in line if unicodedata.category(char) not in ("Cc", "Cs", "Cn"))


def split_by_font(text: str, own: FontFile) -> list[Run]:
    """``text`` in pieces, each with a font that has its letters: as few as possible, ``own`` if possible.

    Warns, once for a script, if no font of this machine has its letters.
    """
    font = _font_of_all(text, own)
    if font is not None:
        return [(text, font)]
    words = re.findall(r"\S+ *", text)
    pieces = words if len(words) > 1 else _letters(text)
    if len(pieces) == 1:
        _warn_of_script(unicodedata.name(text[0], "unnamed").split()[0], text)
        return [(text, own)]
    runs = [run for piece in pieces for run in split_by_font(piece, own)]
    return [
        ("".join(part for part, _ in group), font)
        for font, group in groupby(runs, key=lambda run: run[1])
    ]


def _font_of_all(text: str, own: FontFile) -> FontFile | None:
    missing = [char for char in text if not _has(own, char)]
    if not missing:
        return own
    other = _find_font(missing[0])
    return other if other is not None and all(_has(other, char) for char in text) else None


def _letters(text: str) -> list[str]:
    """Each letter with the marks that belong to it."""
    letters: list[str] = []
    for char in text:
        if letters and _is_mark(char):
            letters[-1] += char
        else:
            letters.append(char)
    return letters


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M" or unicodedata.category(char) == "Cf"


@functools.lru_cache(maxsize=4096)
def _has(font: FontFile, char: str) -> bool:
    if char.isspace() or _is_mark(char):
        return True
    loaded = load_font(font, PROBE_SIZE)
    mask, no_mask = loaded.getmask(char), loaded.getmask(NO_LETTER)
    is_blank = mask.getbbox() is None
    return not is_blank and (mask.size, bytes(mask)) != (no_mask.size, bytes(no_mask))


@functools.lru_cache(maxsize=1024)
def _find_font(char: str) -> FontFile | None:
    """A font of this machine that has ``char``."""
    for font in _fonts_with(char):
        try:
            if _has(font, char):
                return font
        except (OSError, ValueError):
            continue  # one of bitmaps, in sizes of its own, or of a kind that FreeType does not read
    return None


def _fonts_with(char: str) -> Iterator[FontFile]:
    """Fonts that may have ``char``, the plainest first."""
    if shutil.which("fc-list") is None:
        paths = (path for folder in FONT_FOLDERS for path in home_path(folder).rglob("*"))
        files = [FontFile(str(path)) for path in paths if path.suffix.lower() in FONT_SUFFIXES]
    else:
        files = _ask_fontconfig(char)
    yield from sorted(files, key=_plainness)


def _ask_fontconfig(char: str) -> list[FontFile]:
    pattern = f":charset={ord(char):x}:scalable=true"
    command = ["fc-list", "--format", "%{file}\t%{index}\n", pattern]
    try:
        answer = subprocess.run(command, capture_output=True, check=True, timeout=SEARCH_S)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line.rpartition("\t") for line in os.fsdecode(answer.stdout).splitlines()]
    # Above 16 bits, the number of an instance of a variable font.
    return [FontFile(path, int(index) & 0xFFFF) for path, _, index in lines]


def _plainness(font: FontFile) -> tuple[bool, bool, int, str, int]:
    name = Path(str(font.path)).stem.lower()
    styled = any(word in name for word in ("bold", "italic", "oblique", "light", "thin", "black"))
    return "sans" not in name, styled, len(name), name, font.index


_scripts_warned_of: set[str] = set()


def _warn_of_script(script: str, letter: str) -> None:
    """Once for a script, by which the names of its letters begin, and not for each of them."""
    if script not in _scripts_warned_of:
        _scripts_warned_of.add(script)
        warnings.warn(
            f'labels: no font of this machine has "{letter}"; name one that has it: Style(font=...), --font',
            stacklevel=2,
        )
