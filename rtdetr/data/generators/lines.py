# SPDX-License-Identifier: Apache-2.0
"""Lines of print."""

from __future__ import annotations

import numpy as np

from .ink import Ink, set_line
from .words import draw_words

__all__ = ["draw_line"]

LINE_TO_EM = 0.95
"""Height of a line from its ascenders to its descenders, of the size of its font."""
MOST_LETTERS = 48


def draw_line(rng: np.random.Generator, height: float, widest: float, font: str) -> Ink:
    """A line of print, ``height`` pixels from its ascenders to its descenders, of at most ``widest`` pixels or so."""
    size = max(5, round(height / LINE_TO_EM))
    most = min(max(3, int(widest / (0.5 * size))), MOST_LETTERS)
    length = int(np.exp(rng.uniform(np.log(3), np.log(most + 1))))
    return set_line(draw_words(rng, length), font, size)
