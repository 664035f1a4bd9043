# SPDX-License-Identifier: Apache-2.0
"""Labels: paper with a code, lines of print, or both on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .barcodes import draw_barcode
from .ink import LEAST_INK, Ink
from .lines import draw_line
from .qr_codes import draw_qr_code

__all__ = [
    "BARCODE",
    "QR_CODE",
    "TEXT",
    "Sheet",
    "color_sheet",
    "draw_sheet",
]

TEXT, QR_CODE, BARCODE = range(3)
CODE_SIZES = (0.06, 1.3)
"""Longer side of a code, of the frame; drawn evenly on a logarithmic scale."""
LINE_HEIGHTS = (0.03, 0.2)
"""Of a line of print, of the frame; drawn likewise."""
LEAST_BARCODE = 0.12
"""Of the frame: 95 modules and more on fewer pixels are a grey patch."""
SHEETS = (0.2, 0.44, 0.36)
"""Shares of sheets for print alone, and around each kind of code."""
CLOSE_UPS = (0, 0.5, 0.5)
LEAST_CLOSE_UP = 0.4
"""Of the frame: somebody who wants a code to be read fills the image with it."""
SEVERAL_LINES = 0.25
BESIDE_CODE = 0.2
"""Share of codes with print on their label."""
INVERTED = 0.08
NO_PAPER = 0.45
"""Share of print that stands on the ground itself."""
MOST_VARIATION = 30
"""Standard deviation of the ground above which print on it could not be told."""
SEEN_THROUGH, ROUNDED = 0.1, 0.35
"""Shares of paper that the ground shines through, and with round corners."""
COLORED = 0.3
CONTRASTS = (70, 235)
FAINT = 0.06
"""Share of sheets of half that contrast."""


@dataclass(frozen=True)
class Item:
    """Something printed."""

    ink: Ink
    label: int


@dataclass(frozen=True)
class Sheet:
    """A label before it is put into an image, without its colors.

    Args:
        ink: [h, w].
        index: [h, w], 1 + the place in ``classes`` of the object that a pixel belongs to, or 0: letters of print, and
            all of the rectangle that holds a code, with the digits at its bars.
        classes: of the objects.
        scale: pixels of the frame for one of the sheet.
        has_paper: False where the ground itself is printed on.
    """

    ink: Ink
    index: npt.NDArray[np.uint8]
    classes: tuple[int, ...]
    scale: float = 1.0
    has_paper: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.ink.shape[1], self.ink.shape[0]

    @property
    def longest(self) -> float:
        """Pixels of the frame that the longer side of what is printed has."""
        rows, columns = (np.flatnonzero(self.index.any(axis)) for axis in (1, 0))
        return float(max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1) * self.scale


def draw_sheet(
    rng: np.random.Generator, side: float, fonts: Sequence[str], *, is_close_up: bool = False
) -> Sheet:
    """A label for an image of about ``side`` pixels, which sizes are shares of.

    Args:
        rng: of every choice.
        side: of the image.
        fonts: files of one family.
        is_close_up: whether it has a code that is large.
    """
    label = int(rng.choice(3, p=CLOSE_UPS if is_close_up else SHEETS))
    font = fonts[int(rng.integers(len(fonts)))]
    if label == TEXT:
        items, scale = _draw_lines(rng, side, font), 1.0
    else:
        items, scale = _draw_code(rng, side, font, label, is_close_up)
    has_paper = label != TEXT or rng.random() >= NO_PAPER
    ink, index = _lay_out(rng, items, _margins(rng, items, label, side / scale))
    return Sheet(ink, index, tuple(item.label for item in items), scale, has_paper)


def color_sheet(rng: np.random.Generator, sheet: Sheet, ground: Image.Image) -> Image.Image:
    """The label as RGBA, in colors that can be told apart from each other and from the ground where it comes."""
    levels = np.asarray(ground.convert("L"))
    ink = Image.fromarray(sheet.ink)
    if sheet.has_paper or levels.std() > MOST_VARIATION:
        return _print_on_paper(rng, ink)
    return _print_on_ground(rng, ink, float(levels.mean()))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _draw_lines(rng: np.random.Generator, side: float, font: str) -> list[Item]:
    height = side * _log_uniform(rng, *LINE_HEIGHTS)
    count = int(rng.integers(2, 6)) if rng.random() < SEVERAL_LINES else 1
    count = max(1, min(count, int(side / height / 1.6)))
    return [Item(draw_line(rng, height, side, font), TEXT) for _ in range(count)]


def _draw_code(
    rng: np.random.Generator, side: float, font: str, label: int, is_close_up: bool
) -> tuple[list[Item], float]:
    """The code, perhaps lines of print above or below it, and the scale at which it has its size."""
    low = CODE_SIZES[0] if label == QR_CODE else LEAST_BARCODE
    low = LEAST_CLOSE_UP if is_close_up else low
    pixels = side * _log_uniform(rng, low, CODE_SIZES[1])
    ink = draw_qr_code(rng, pixels) if label == QR_CODE else draw_barcode(rng, pixels, font)
    scale = pixels / max(ink.shape)
    # What is much finer than the image would be sampled with holes.
    if scale < 0.7:
        small = [max(1, round(extent * scale)) for extent in (ink.shape[1], ink.shape[0])]
        ink = np.asarray(Image.fromarray(ink).resize(small, Image.Resampling.BOX))
        scale = pixels / max(ink.shape)
    items = [Item(ink, label)]
    if rng.random() < BESIDE_CODE:
        for _ in range(int(rng.integers(1, 4))):
            share = rng.uniform(0.06, 0.16)
            height = float(np.clip(share * pixels, LINE_HEIGHTS[0] * side, LINE_HEIGHTS[1] * side))
            line = draw_line(rng, height / scale, 1.2 * pixels / scale, font)
            items.insert(0 if rng.random() < 0.5 else len(items), Item(line, TEXT))
    return items, scale


def _margins(
    rng: np.random.Generator, items: Sequence[Item], label: int, most: float
) -> tuple[int, int]:
    """Of the paper around what is on it, along and across; at times as of a page, but ``most`` at most."""
    heights = [item.ink.shape[0] for item in items if item.label == label]
    low, high = (0.2, 1.2) if label == TEXT else (0.03, 0.35)
    high *= rng.choice((1, 1, 1, 3, 10))
    along, across = (
        int(2 + min(max(heights) * rng.uniform(low, high), most / 2)) for _ in range(2)
    )
    return along, across


def _lay_out(
    rng: np.random.Generator, items: Sequence[Item], margins: tuple[int, int]
) -> tuple[Ink, npt.NDArray[np.uint8]]:
    """Items below each other: the ink of the page, and which item a pixel belongs to."""
    along, across = margins
    gaps = [max(2, int(min(item.ink.shape[0], 40) * rng.uniform(0.25, 0.7))) for item in items]
    width = max(item.ink.shape[1] for item in items) + 2 * along
    height = sum(item.ink.shape[0] for item in items) + sum(gaps[:-1]) + 2 * across
    page, index = np.zeros((2, height, width), np.uint8)
    aligned = float(rng.choice((0.0, 0.5, 0.5, rng.random())))
    top = across
    for place, (item, gap) in enumerate(zip(items, gaps, strict=True), 1):
        rows, columns = item.ink.shape
        left = along + int((width - 2 * along - columns) * aligned)
        page[top : top + rows, left : left + columns] = item.ink
        is_object = item.ink >= LEAST_INK if item.label == TEXT else np.True_
        index[top : top + rows, left : left + columns] = np.where(is_object, place, 0)
        top += rows + gap
    return page, index


def _print_on_paper(rng: np.random.Generator, ink: Image.Image) -> Image.Image:
    contrast = rng.uniform(*CONTRASTS) * (0.5 if rng.random() < FAINT else 1)
    light = rng.uniform(contrast, 255)
    levels = [light, light - contrast]
    if rng.random() < INVERTED:
        levels.reverse()
    paper, dark = (_tint(rng, level) for level in levels)
    steps = np.arange(256)[:, None] / 255
    tables = (paper + steps * (dark - paper)).astype(int).T.tolist()
    opacity = int(rng.uniform(170, 250)) if rng.random() < SEEN_THROUGH else 255
    cover = Image.new("L", ink.size, opacity)
    if rng.random() < ROUNDED:
        radius = min(ink.size) * rng.uniform(0.03, 0.15)
        cover = Image.new("L", ink.size)
        box = (0, 0, ink.width - 1, ink.height - 1)
        ImageDraw.Draw(cover).rounded_rectangle(box, radius, opacity)
    return Image.merge("RGBA", [*(ink.point(table) for table in tables), cover])


def _print_on_ground(rng: np.random.Generator, ink: Image.Image, lightness: float) -> Image.Image:
    contrast = rng.uniform(*CONTRASTS)
    is_dark = lightness > rng.uniform(70, 180)
    color = _tint(rng, lightness - contrast if is_dark else lightness + contrast)
    image = Image.new("RGB", ink.size, tuple(color.astype(int).tolist()))
    image.putalpha(ink)
    return image


def _tint(rng: np.random.Generator, level: float) -> npt.NDArray[np.float32]:
    """A color of that lightness, grey for the most part."""
    strength = rng.uniform(10, 70) if rng.random() < COLORED else rng.uniform(0, 8)
    shift = rng.normal(0, strength, 3)
    shift -= shift @ np.array([0.299, 0.587, 0.114])
    color: npt.NDArray[np.float32] = (level + shift).clip(0, 255).astype(np.float32)
    return color
