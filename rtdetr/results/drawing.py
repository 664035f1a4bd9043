# SPDX-License-Identifier: Apache-2.0
"""Boxes and labels on an image, readable on any background and at any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .fonts import FontFile, load_font, open_font, plain_text, split_by_font

RGB = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

# Told apart under the three common kinds of color blindness: the eight of Okabe and Ito without black, then tones of
# Paul Tol's "muted" and "bright" schemes that stay clear of them. Neighboring class indices differ in brightness too.
PALETTE: tuple[RGB, ...] = (
    (230, 159, 0),
    (0, 114, 178),
    (86, 180, 233),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (136, 34, 85),
    (153, 221, 255),
    (51, 34, 136),
    (170, 170, 0),
    (238, 102, 119),
)

# A label that would hide more of the image is left out.
LABEL_MAX_SHARE = 1 / 3

# Drawn at four times the size and reduced: Pillow's own lines and corners are not antialiased.
OVERSAMPLING = 4


@dataclass(frozen=True)
class Style:
    """How boxes look.

    Args:
        scale: multiplies line width and font size, which otherwise follow the size of the image.
        palette: colors; class ``i`` gets entry ``i % len``.
        font: a TrueType file; letters that it lacks, or Pillow's own without it, come from fonts of this machine.
        labels: whether to write names and scores.
    """

    scale: float = 1.0
    palette: Sequence[RGB] = PALETTE
    font: str | Path | None = None
    labels: bool = True


def draw(
    image: Image.Image,
    xyxy: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    texts: Sequence[str],
    style: Style | None = None,
) -> Image.Image:
    """A copy of ``image`` in RGB with boxes drawn on it; the first box lies on top.

    Args:
        image: the image.
        xyxy: [N,4] in pixels; clipped to the image, and left out where it is outside. One thinner than a pixel shows.
        labels: [N] class indices, which choose the colors.
        texts: [N], one label each, in any script; left out where it would cover more than a third of the image.
        style: how it looks.

    Raises:
        UsageError: if the font of the style cannot be read.
    """
    style = style or Style()
    font = open_font(style.font)
    canvas = image.convert("RGB") if image.mode != "RGB" else image.copy()
    side = min(canvas.size)
    width = max(2, round(side / 190 * style.scale))
    boxes = [_clipped(box, canvas.size, width) for box in xyxy]
    colors = [style.palette[int(label) % len(style.palette)] for label in labels]
    shown = [
        (box, color, text) for box, color, text in zip(boxes, colors, texts, strict=True) if box
    ]
    for box, color, _ in reversed(shown):
        _frame(canvas, box, color, width)
    if style.labels:
        size = max(11, round(side / 36 * style.scale))
        chips = [(box, _chip(plain_text(text), color, size, font)) for box, color, text in shown]
        _paste_labels(canvas, [one for one in chips if _is_small(one[1], canvas)], width)
    return canvas


def text_color(background: RGB) -> RGB:
    """Near-black or white, whichever contrasts more with ``background`` by WCAG's relative luminance."""
    linear = [
        (v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in background
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Where (L + .05) / .05 equals 1.05 / (L + .05).
    return (16, 16, 16) if luminance > 0.179 else (255, 255, 255)


def _clipped(
    box: npt.NDArray[np.float32], size: tuple[int, int], width: int
) -> tuple[int, int, int, int] | None:
    """The box in whole pixels inside the image, or None where nothing of it is visible."""
    if not np.isfinite(box).all():
        return None
    across = _visible_span(float(box[0]), float(box[2]), size[0])
    down = _visible_span(float(box[1]), float(box[3]), size[1])
    if across is None or down is None:
        return None
    # Thinner than its own frame, an object would be a blot that hides it.
    left, right = _at_least(*across, 2 * width, size[0])
    top, bottom = _at_least(*down, 2 * width, size[1])
    return left, top, right, bottom


def _visible_span(low: float, high: float, limit: int) -> tuple[int, int] | None:
    """The whole pixels of ``low`` to ``high`` within 0..``limit``, at least one; None outside of it."""
    if high < low or high <= 0 or low >= limit:
        return None
    start, end = max(0, round(low)), min(limit, round(high))
    if start < end:
        return start, end
    start = min(limit - 1, int(max(0, low)))
    return start, start + 1


def _at_least(low: int, high: int, length: int, limit: int) -> tuple[int, int]:
    missing = length - (high - low)
    if missing <= 0:
        return low, high
    low = max(0, low - missing // 2)
    return low, min(limit, low + length)


def _frame(canvas: Image.Image, box: Rectangle, color: RGB, width: int) -> None:
    """A rounded outline in ``color`` between two thin dark lines, which part it from a like background."""
    halo = max(1, round(width / 3))
    left, top, right, bottom = (int(value) for value in box)
    origin = (max(0, left - halo), max(0, top - halo))
    end = (min(canvas.width, right + halo), min(canvas.height, bottom + halo))
    radius = min(2.5 * width, (right - left) / 4, (bottom - top) / 4)
    inner = (left - origin[0], top - origin[1], right - origin[0], bottom - origin[1])
    for grow, line, fill, opacity in (
        (halo, width + 2 * halo, (16, 16, 16), 130),
        (0, width, color, 255),
    ):
        outline = tuple(
            value + sign * grow for value, sign in zip(inner, (-1, -1, 1, 1), strict=True)
        )
        for strip in _strips(
            inner, line + int(radius) + 1, (end[0] - origin[0], end[1] - origin[1])
        ):
            mask = _outline_mask(outline, strip, radius + grow, line, opacity)
            canvas.paste(fill, (origin[0] + strip[0], origin[1] + strip[1]), mask)


def _strips(
    box: Sequence[int], depth: int, size: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """The four borders of a box as rectangles that do not overlap: a large frame costs its length, not its area."""
    width, height = size
    top, bottom = min(height, box[1] + depth), max(0, box[3] - depth)
    if bottom <= top or box[2] - box[0] <= 2 * depth:
        return [(0, 0, width, height)]
    left, right = box[0] + depth, box[2] - depth
    return [
        (0, 0, width, top),
        (0, bottom, width, height),
        (0, top, left, bottom),
        (right, top, width, bottom),
    ]


def _outline_mask(
    box: Sequence[float], strip: tuple[int, int, int, int], radius: float, line: int, opacity: int
) -> Image.Image:
    """How much of each pixel of ``strip`` the outline of ``box`` covers, 0..``opacity``."""
    n = OVERSAMPLING
    size = (strip[2] - strip[0], strip[3] - strip[1])
    mask = Image.new("L", (size[0] * n, size[1] * n))
    left, top = box[0] - strip[0], box[1] - strip[1]
    right, bottom = box[2] - strip[0], box[3] - strip[1]
    corners = (left * n, top * n, right * n - 1, bottom * n - 1)
    ImageDraw.Draw(mask).rounded_rectangle(corners, radius * n, outline=opacity, width=line * n)
    return mask.reduce(n)


def _chip(text: str, color: RGB, size: int, own: FontFile) -> Image.Image:
    """A label: text on a rounded patch of the color of its box, RGBA."""
    n = OVERSAMPLING
    runs = [(part, load_font(file, size)) for part, file in split_by_font(text, own)]
    # Of a line, and not of this text, unless it is taller: labels with and without descenders are equally tall.
    lines = [load_font(own, size).getbbox("Ag", anchor="ls")]
    lines += [font.getbbox(part, anchor="ls") for part, font in runs]
    top, bottom = int(min(line[1] for line in lines)), int(max(line[3] for line in lines))
    starts = list(accumulate((font.getlength(part) for part, font in runs), initial=0.0))
    left, right = lines[1][0], starts[-2] + lines[-1][2]
    pad_x, pad_y = max(3, round(size * 0.35)), max(2, round(size * 0.2))
    width, height = int(right - left) + 2 * pad_x, bottom - top + 2 * pad_y
    patch = Image.new("L", (width * n, height * n))
    ImageDraw.Draw(patch).rounded_rectangle(
        (0, 0, width * n - 1, height * n - 1), size * 0.25 * n, fill=235
    )
    chip = Image.new("RGBA", (width, height), (*color, 255))
    chip.putalpha(patch.reduce(n))
    ink = Image.new("L", (width, height))
    for (part, font), start in zip(runs, starts, strict=False):
        place = (pad_x - left + start, pad_y - top)
        ImageDraw.Draw(ink).text(place, part, fill=255, font=font, anchor="ls")
    chip.paste((*text_color(color), 255), (0, 0), ink)
    return chip


def _is_small(chip: Image.Image, canvas: Image.Image) -> bool:
    area = min(chip.width, canvas.width) * min(chip.height, canvas.height)
    return area <= LABEL_MAX_SHARE * canvas.width * canvas.height


def _paste_labels(
    canvas: Image.Image, labels: Sequence[tuple[Rectangle, Image.Image]], width: int
) -> None:
    """Labels at their boxes; the first lies on top."""
    chips = [chip for _, chip in labels]
    places = _places([box for box, _ in labels], chips, canvas.size, width)
    for chip, place in reversed(list(zip(chips, places, strict=True))):
        canvas.paste(chip, place, chip)


def _places(
    boxes: Sequence[Rectangle], chips: Sequence[Image.Image], size: tuple[int, int], line: int
) -> list[tuple[int, int]]:
    """Top-left corner of each label: inside the image, at its box, and free of better objects' labels if possible."""
    taken: list[Rectangle] = []
    places = []
    for box, chip in zip(boxes, chips, strict=True):
        candidates = [_inside(corner, chip.size, size) for corner in _corners(box, chip.size, line)]
        areas = [
            (*corner, corner[0] + chip.width, corner[1] + chip.height) for corner in candidates
        ]
        overlaps = [sum(_overlap(area, other) for other in taken) for area in areas]
        # The first of equals: candidates come in order of preference.
        best = int(np.argmin(overlaps))
        taken.append(areas[best])
        places.append(candidates[best])
    return places


def _corners(box: Rectangle, chip: tuple[int, int], line: int) -> list[tuple[int, int]]:
    left, top, right, bottom = (int(value) for value in box)
    inner = line + 2
    above = [(left, top - chip[1]), (right - chip[0], top - chip[1])] if top >= chip[1] else []
    below = [(left, bottom), (right - chip[0], bottom)]
    within = [
        (left + inner, top + inner),
        (right - chip[0] - inner, top + inner),
        (left + inner, bottom - chip[1] - inner),
    ]
    # A label inside of a small box would hide the object.
    small = bottom - top < 3 * chip[1] or right - left < chip[0]
    return (
        [*above, *below, *within]
        if small
        else [*above[:1], *within[:1], *above[1:], *below, *within[1:]]
    )


def _inside(
    corner: tuple[int, int], chip: tuple[int, int], size: tuple[int, int]
) -> tuple[int, int]:
    x, y = (
        max(0, min(position, whole - part))
        for position, part, whole in zip(corner, chip, size, strict=True)
    )
    return x, y


def _overlap(one: Rectangle, other: Rectangle) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
