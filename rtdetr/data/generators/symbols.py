# SPDX-License-Identifier: Apache-2.0
"""QR codes, barcodes and lines of print, black on white, upright, without a margin."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ...errors import MissingExtraError
from .fonts import load_size
from .prints import draw_characters, draw_words

__all__ = ["LEAST_INK", "Ink", "draw_barcode", "draw_line", "draw_qr_code", "require_encoders"]

Ink = npt.NDArray[np.uint8]
"""[h, w], 255 where it is dark."""

QR_BYTES = (17, 32, 53, 78, 106, 134, 154, 192, 230, 271)
"""What versions 1 to 10 hold at the lowest level of correction."""
LEAST_MODULE = 0.7
"""Least pixels of a module in the image; a QR code with smaller ones is a grey patch."""
LEAST_INK = 96
"""Of 255, from which on a pixel belongs to a letter."""
LINE_TO_EM = 0.95
"""Height of a line from its ascenders to its descenders, of the size of its font."""
MOST_LETTERS = 48
DOTS, ROUND, LOGO = 0.08, 0.08, 0.1
LETTERS = string.ascii_letters + string.digits + "/:.-"
ALPHANUMERIC = string.ascii_uppercase + string.digits + " -."


def require_encoders() -> None:
    """Raises MissingExtraError if a package that encodes is not installed."""
    try:
        import barcode  # noqa: F401
        import segno  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "Making codes", "segno and python-barcode", '"rtdetr-ops[demo]"'
        ) from error


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
    low, high = np.log(HEIGHTS)
    height = max(4, int(len(modules) * scale * np.exp(rng.uniform(low, high))))
    blank = ("0" * before, "0" * after)
    bars = np.repeat(np.frombuffer(modules.join(blank).encode(), np.uint8), scale)
    body = np.broadcast_to((bars != ord("0")) * np.uint8(255), (height, len(bars)))
    if not has_text:
        return np.array(body, np.uint8)
    # Of its width, but no higher than the bars themselves.
    text_height = max(3, min(int(len(bars) * rng.uniform(0.08, 0.12)), height))
    page = np.zeros((height + text_height, len(bars)), np.uint8)
    page[:height] = body
    if len(groups) == 1:
        gap = int(rng.integers(1, 2 + text_height // 4))
        room = (int(len(bars) * rng.uniform(0.5, 1)), text_height - gap)
        _put_text(page, groups[0], font, ((len(bars) - room[0]) // 2, height + gap, *room))
        return page if rng.random() >= TEXT_ABOVE else np.roll(page, text_height, axis=0)
    page[height : height + text_height // 2] = (bars == ord("G")) * np.uint8(255)
    gap = max(1, scale // 2)
    for text, (left, width) in zip(groups, _fields(len(modules), before, len(groups)), strict=True):
        place = (left * scale, height + gap, width * scale, text_height - gap)
        _put_text(page, text, font, place)
    if sum(symbology.margins) and rng.random() < ADD_ON:
        return _put_add_on(rng, page, height, text_height, scale, font)
    return page


def _put_add_on(
    rng: np.random.Generator, page: Ink, height: int, text_height: int, scale: int, font: str
) -> Ink:
    """The page with five digits more on its right, their bars below them, as on books."""
    digits = draw_characters(rng, string.digits, 5)
    bars = np.repeat(np.frombuffer(encode_add_on(digits).encode(), np.uint8), scale)
    gap = 3 * scale
    wide = np.zeros((page.shape[0], page.shape[1] + gap + len(bars)), np.uint8)
    wide[:, : page.shape[1]] = page
    wide[text_height : height + text_height // 2, page.shape[1] + gap :] = (
        bars == ord("1")
    ) * np.uint8(255)
    _put_text(wide, digits, font, (page.shape[1] + gap, 0, len(bars), text_height - 1))
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
    loaded = load_size(font, max(4, height * 4 // 3))
    line = _cut(_set_text(text, font, loaded.size))
    factor = min(height / line.shape[0], width / line.shape[1])
    size = [max(1, int(extent * factor)) for extent in (line.shape[1], line.shape[0])]
    return np.asarray(Image.fromarray(line).resize(size, Image.Resampling.BILINEAR))


def draw_line(rng: np.random.Generator, height: float, widest: float, font: str) -> Ink:
    """A line of print, ``height`` pixels from its ascenders to its descenders, of at most ``widest`` pixels or so."""
    size = max(5, round(height / LINE_TO_EM))
    most = min(max(3, int(widest / (0.5 * size))), MOST_LETTERS)
    length = int(np.exp(rng.uniform(np.log(3), np.log(most + 1))))
    return _cut(_set_text(draw_words(rng, length), font, size))


def _set_text(text: str, font: str, size: float) -> Ink:
    loaded = load_size(font, int(size))
    left, top, right, bottom = loaded.getbbox(text)
    extent = (max(1, int(right - left)) + 4, max(1, int(bottom - top)) + 4)
    page = Image.new("L", extent)
    ImageDraw.Draw(page).text((2 - left, 2 - top), text, 255, font=loaded)
    return np.asarray(page)


def _cut(page: Ink) -> Ink:
    """To where its ink is."""
    rows, columns = (np.flatnonzero((page >= LEAST_INK).any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.full((4, 4), 255, np.uint8)
    return page[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
