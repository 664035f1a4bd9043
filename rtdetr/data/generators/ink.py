# SPDX-License-Identifier: Apache-2.0
"""Ink on paper: arrays of what is dark, and text in one line."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .fonts import load_size

__all__ = ["LEAST_INK", "Ink", "set_line"]

Ink = npt.NDArray[np.uint8]
"""[h, w], 255 where it is dark."""

LEAST_INK = 96
"""Of 255, from which on a pixel belongs to a letter."""


def set_line(text: str, font: str, size: int) -> Ink:
    """A text in a font of ``size`` pixels, cut to where its ink is."""
    loaded = load_size(font, size)
    left, top, right, bottom = loaded.getbbox(text)
    # Antialiasing may reach beyond the box.
    page = Image.new("L", (max(1, int(right - left)) + 4, max(1, int(bottom - top)) + 4))
    ImageDraw.Draw(page).text((2 - left, 2 - top), text, 255, font=loaded)
    ink = np.asarray(page)
    rows, columns = (np.flatnonzero((ink >= LEAST_INK).any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.full((4, 4), 255, np.uint8)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
