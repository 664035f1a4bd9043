# SPDX-License-Identifier: Apache-2.0
"""Barcodes of one dimension, upright and without a margin, with the digits at their bars."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .ink import Ink, set_line
from .words import draw_characters

__all__ = ["SYMBOLOGIES", "draw_barcode", "encode_add_on"]

ALPHANUMERIC = string.ascii_uppercase + string.digits + " -."


@dataclass(frozen=True)
class Symbology:
    """A kind of barcode.

    Args:
        encode: from random numbers to the modules, in which "1" is a bar, "G" a longer one and "0" a gap, and to the
            text below, whose groups stand under the gaps between longer bars.
        margins: modules before the first and after the last bar that a group of the text stands in.
    """

    encode: Callable[[np.random.Generator], tuple[str, list[str]]]
    margins: tuple[int, int] = (0, 0)


def _retail(
    name: str, digits: int, groups: Callable[[str], list[str]]
) -> Callable[[np.random.Generator], tuple[str, list[str]]]:
    def encode(rng: np.random.Generator) -> tuple[str, list[str]]:
        import barcode

        code = barcode.get_barcode_class(name)(draw_characters(rng, string.digits, digits))
        # python-barcode knows no longer bars of UPC-A, which are those of EAN-13.
        modules = code.build()[0]
        guards = (*range(3), *range(len(modules) // 2 - 2, len(modules) // 2 + 3), *range(-3, 0))
        long = list(modules)
        for index in guards:
            long[index] = long[index].replace("1", "G")
        return "".join(long), groups(code.get_fullcode())

    return encode


def _industrial(
    name: str, letters: str, lengths: tuple[int, int], form: str = "{}"
) -> Callable[[np.random.Generator], tuple[str, list[str]]]:
    def encode(rng: np.random.Generator) -> tuple[str, list[str]]:
        import barcode

        # ITF takes pairs of digits.
        length = int(rng.integers(*lengths)) // 2 * 2
        text = draw_characters(rng, letters, length).strip(" -.") or "AB"
        code = barcode.get_barcode_class(name)(form.format(text + text[-1] * (len(text) % 2)))
        return code.build()[0], [code.get_fullcode()]

    return encode


SYMBOLOGIES: dict[str, Symbology] = {
    "EAN-13": Symbology(_retail("ean13", 12, lambda t: [t[0], t[1:7], t[7:]]), (9, 0)),
    "EAN-8": Symbology(_retail("ean8", 7, lambda t: [t[:4], t[4:]])),
    "UPC-A": Symbology(_retail("upca", 11, lambda t: [t[0], t[1:6], t[6:11], t[11]]), (9, 9)),
    "Code 128": Symbology(_industrial("code128", ALPHANUMERIC, (4, 15))),
    "Code 39": Symbology(_industrial("code39", ALPHANUMERIC, (3, 10))),
    "ITF": Symbology(_industrial("itf", string.digits, (6, 15))),
    "Codabar": Symbology(_industrial("codabar", string.digits, (4, 13), "A{}B")),
}
BARCODE_SHARES = (0.34, 0.08, 0.2, 0.14, 0.1, 0.07, 0.07)
HEIGHTS = (0.15, 0.95)
"""Of the bars, of the width; drawn evenly on a logarithmic scale."""
NO_TEXT, TEXT_ABOVE = 0.15, 0.06
ADD_ON = 0.15
"""Share of EAN-13 and UPC-A with five digits more."""
ADD_ON_SETS = (
    *("BBAAA", "BABAA", "BAABA", "BAAAB", "ABBAA"),
    *("AABBA", "AAABB", "ABABA", "ABAAB", "AABAB"),
)
"""By check digit: which of its two forms each digit has."""


def draw_barcode(rng: np.random.Generator, pixels: float, font: str) -> Ink:
    """A barcode with the digits that belong to it, of bars of whole pixels, at least ``pixels`` wide."""
    symbology = list(SYMBOLOGIES.values())[int(rng.choice(len(SYMBOLOGIES), p=BARCODE_SHARES))]
    modules, groups = symbology.encode(rng)
    has_text = rng.random() >= NO_TEXT
    before, after = symbology.margins if has_text else (0, 0)
    scale = max(1, int(np.ceil(pixels / (len(modules) + before + after))))
    bars = _widen("0" * before + modules + "0" * after, scale)
    low, high = np.log(HEIGHTS)
    height = max(4, int(len(modules) * scale * np.exp(rng.uniform(low, high))))
    # Of its width, but no higher than the bars themselves.
    text_height = max(3, min(int(len(bars) * rng.uniform(0.08, 0.12)), height)) if has_text else 0
    page = np.zeros((height + text_height, len(bars)), np.uint8)
    page[:height] = (bars != ord("0")) * np.uint8(255)
    if not has_text:
        return page
    if len(groups) == 1:
        return _put_below(rng, page, groups[0], text_height, font)
    page[height : height + text_height // 2] = (bars == ord("G")) * np.uint8(255)
    gap = max(1, scale // 2)
    for text, (left, width) in zip(groups, _fields(len(modules), before, len(groups)), strict=True):
        place = (left * scale, height + gap, width * scale, text_height - gap)
        _put_text(page, text, font, place)
    if before and rng.random() < ADD_ON:
        return _put_add_on(rng, page, text_height, scale, font)
    return page


def _widen(modules: str, scale: int) -> Ink:
    """The letters of the modules as numbers, each ``scale`` times."""
    return np.repeat(np.frombuffer(modules.encode(), np.uint8), scale)


def _put_below(rng: np.random.Generator, page: Ink, text: str, text_height: int, font: str) -> Ink:
    """The page with a text in the middle below the bars, or above them."""
    gap = int(rng.integers(1, 2 + text_height // 4))
    width = int(page.shape[1] * rng.uniform(0.5, 1))
    top = page.shape[0] - text_height + gap
    place = ((page.shape[1] - width) // 2, top, width, text_height - gap)
    _put_text(page, text, font, place)
    return page if rng.random() >= TEXT_ABOVE else np.roll(page, text_height, axis=0)


def _put_add_on(
    rng: np.random.Generator, page: Ink, text_height: int, scale: int, font: str
) -> Ink:
    """The page with five digits more on its right, their bars below them, as on books."""
    digits = draw_characters(rng, string.digits, 5)
    bars = _widen(encode_add_on(digits), scale)
    left = page.shape[1] + 3 * scale
    wide = np.zeros((page.shape[0], left + len(bars)), np.uint8)
    wide[:, : page.shape[1]] = page
    bottom = page.shape[0] - text_height // 2
    wide[text_height:bottom, left:] = (bars == ord("1")) * np.uint8(255)
    _put_text(wide, digits, font, (left, 0, len(bars), text_height - 1))
    return wide


def encode_add_on(digits: str) -> str:
    """The modules of EAN-5; how its digits are written tells a check digit."""
    from barcode.charsets.ean import CODES

    check = sum(int(digit) * (9 if place % 2 else 3) for place, digit in enumerate(digits)) % 10
    letters = ADD_ON_SETS[check]
    symbols = [CODES[letter][int(digit)] for letter, digit in zip(letters, digits, strict=True)]
    return "01011" + "01".join(symbols)


def _fields(modules: int, before: int, groups: int) -> list[tuple[int, int]]:
    """Where the digits of EAN and UPC stand, (left, width) in modules: two halves between the long bars, or beside."""
    half = modules // 2
    fields = [(before + 4, half - 6), (before + half + 3, half - 6)]
    if groups > 2:
        fields.insert(0, (0, 7))
    if groups > 3:
        fields.append((before + modules + 2, 7))
    return fields


def _put_text(page: Ink, text: str, font: str, place: tuple[int, int, int, int]) -> None:
    """In the middle of (left, top, width, height), at its foot."""
    left, top, width, height = place
    ink = _fit_text(text, font, (width, height))
    x, y = left + (width - ink.shape[1]) // 2, top + height - ink.shape[0]
    page[y : y + ink.shape[0], x : x + ink.shape[1]] = ink


def _fit_text(text: str, font: str, room: tuple[int, int]) -> Ink:
    """A line of digits, as large as (width, height) ``room`` allows."""
    width, height = max(room[0], 1), max(room[1], 1)
    line = set_line(text, font, max(4, height * 4 // 3))
    factor = min(height / line.shape[0], width / line.shape[1])
    size = [max(1, int(extent * factor)) for extent in (line.shape[1], line.shape[0])]
    return np.asarray(Image.fromarray(line).resize(size, Image.Resampling.BILINEAR))
