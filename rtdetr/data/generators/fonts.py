# SPDX-License-Identifier: Apache-2.0
"""The font families of this machine that have the letters of English."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import ImageFont

from ...errors import UsageError
from ...files import home_path
from ...results.fonts import FONT_FOLDERS, FONT_SUFFIXES
from .packages import package_folders

__all__ = ["FontFamilies", "find_families", "load_size"]

FEW = 20
"""Families below which print has too little variety to learn from."""
HELD_OUT = 4
"""Families that only val shows."""
PROBE = "AQagR57%"
PROBE_SIZE = 20
STYLES = """
black bold book condensed demi display extrabold extralight light medium mini narrow oblique regular semibold
semicondensed text thin ui
"""
"""Words in the name of a family that only say how it is drawn."""

NO_LETTERS = "cmex10 cmsy10 d050000l dingbats emoji icons keyboard math nushu symbol symbols webdings wingdings"
"""Words in the name of a font that has pictures or other letters where those of English belong."""

FontFamilies = tuple[tuple[str, ...], ...]
"""The files of each family."""


def find_families(folders: Sequence[Path] | None = None) -> tuple[FontFamilies, FontFamilies]:
    """The families for train and those for val; warns if they are few.

    Args:
        folders: searched with the folders in them; None takes those of the system, and the one of matplotlib.

    Raises:
        UsageError: if there is no font.
    """
    places = _usual_folders() if folders is None else [home_path(folder) for folder in folders]
    families = _group(path for place in places for path in place.rglob("*"))
    told = ", ".join(map(str, places))
    if not families:
        raise UsageError(
            f"fonts: expected TrueType or OpenType fonts with the letters of English, found none under {told}"
        )
    if len(families) < FEW:
        warnings.warn(
            f"fonts: {len(families)} font families found; lines of print are more varied with at least {FEW}",
            stacklevel=2,
        )
    # A hash, so that another family on the machine moves at most one.
    names = sorted(families, key=lambda name: hashlib.sha256(name.encode()).digest())
    count = min(HELD_OUT, len(names) // 2)
    held_out, others = sorted(names[:count]), sorted(names[count:])
    train = tuple(families[name] for name in others)
    return train, tuple(families[name] for name in held_out) or train


@functools.lru_cache(maxsize=256)
def load_size(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels, laid out alike whether or not libraqm is there."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _usual_folders() -> list[Path]:
    own = [root / "mpl-data" / "fonts" / "ttf" for root in package_folders("matplotlib")]
    return [home_path(folder) for folder in FONT_FOLDERS] + own


def _group(paths: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    families: dict[str, set[str]] = {}
    for path in sorted(paths):
        name = _family_of(str(path)) if path.suffix.lower() in FONT_SUFFIXES else None
        if name is not None:
            families.setdefault(name, set()).add(str(path))
    return {name: tuple(sorted(files)) for name, files in families.items()}


def _family_of(path: str) -> str | None:
    """Two words at most, since scripts and widths of a family have names of their own; None without its letters."""
    try:
        font = ImageFont.truetype(path, PROBE_SIZE, layout_engine=ImageFont.Layout.BASIC)
        shapes = {bytes(font.getmask(letter)) for letter in PROBE}
        name = font.getname()[0]
    except (OSError, ValueError):
        return None  # one of bitmaps, or damaged
    # A font without letters draws the same box for each, or nothing.
    if len(shapes) < len(PROBE) or not name:
        return None
    if not {*NO_LETTERS.split()}.isdisjoint(name.lower().split()):
        return None
    words = [word for word in name.split() if word.lower() not in STYLES.split()]
    return " ".join(words[:2]) or name
