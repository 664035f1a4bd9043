# SPDX-License-Identifier: Apache-2.0
"""QR codes, upright and without a margin."""

from __future__ import annotations

import string

import numpy as np

from .ink import Ink
from .words import draw_characters

__all__ = ["draw_qr_code"]

QR_BYTES = (17, 32, 53, 78, 106, 134, 154, 192, 230, 271)
"""What versions 1 to 10 hold at the lowest level of correction."""
LEAST_MODULE = 0.7
"""Least pixels of a module in the image; a QR code with smaller ones is a grey patch."""
DOTS, ROUND, LOGO = 0.08, 0.08, 0.1
"""Shares of codes of dots, of modules with round corners, and with something in their middle."""
LETTERS = string.ascii_letters + string.digits + "/:.-"


def draw_qr_code(rng: np.random.Generator, pixels: float) -> Ink:
    """A QR code of modules of whole pixels, at least ``pixels`` long unless a module is then less than one."""
    import segno

    fitting = [v for v in range(1, len(QR_BYTES) + 1) if (17 + 4 * v) * LEAST_MODULE <= pixels]
    version = fitting[min(int(rng.geometric(0.3)), len(fitting)) - 1] if fitting else 1
    # Filled for the most part, since padding looks alike in all codes.
    length = int(QR_BYTES[version - 1] * rng.uniform(0.6, 1))
    code = segno.make(
        draw_characters(rng, LETTERS, length),
        version=version,
        error="l",
        mode="byte",
        mask=int(rng.integers(8)),
        micro=False,
    )
    modules = np.asarray(code.matrix, np.uint8)
    scale = max(1, int(np.ceil(pixels / len(modules))))
    ink = np.kron(modules, np.full((scale, scale), 255, np.uint8))
    style = rng.random()
    if scale >= 4 and style < DOTS + ROUND:
        ink = _dot(modules, ink, scale, 0.5 if style < DOTS else 0.62)
    if rng.random() < LOGO and version > 1:
        _put_logo(rng, ink)
    return ink


def _dot(modules: Ink, ink: Ink, scale: int, radius: float) -> Ink:
    """Modules as dots, apart from the three large squares that a reader looks for."""
    y, x = np.mgrid[:scale, :scale] + 0.5 - scale / 2
    dot = ((radius * scale - np.hypot(x, y)) * 255).clip(0, 255).astype(np.uint8)
    dots = np.kron(modules, dot)
    seven = 7 * scale
    for rows, columns in (
        (slice(seven), slice(seven)),
        (slice(seven), slice(-seven, None)),
        (slice(-seven, None), slice(seven)),
    ):
        dots[rows, columns] = ink[rows, columns]
    return dots


def _put_logo(rng: np.random.Generator, ink: Ink) -> None:
    """A blank field in the middle with a dark shape on it."""
    side = len(ink)
    half = max(2, int(side * rng.uniform(0.08, 0.15)))
    field = slice(side // 2 - half, side // 2 + half)
    y, x = np.mgrid[-half:half, -half:half] + 0.5
    shape = np.hypot(x, y) if rng.random() < 0.5 else np.maximum(np.abs(x), np.abs(y))
    ink[field, field] = np.where(shape < half * 0.75, 255, 0)
