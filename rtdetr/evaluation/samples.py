# SPDX-License-Identifier: Apache-2.0
"""Sheets of images with boxes: what the model sees, and truth beside prediction."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ..boxes import cxcywh_to_xyxy, scale_boxes
from ..data import Batch, Split
from ..images.io import load_image
from ..images.names import unicode_name
from ..results.detections import save_image
from ..results.drawing import Style, draw
from ..results.fonts import FontFile, load_font, plain_text, split_by_font
from .predictions import PredictionTable

__all__ = ["draw_batch", "draw_samples"]

CELL = 400
"""Largest side of an image on a sheet, pixels."""
GAP = 8
CAPTION = 22
BACKGROUND = (250, 250, 250)
INK = (34, 34, 34)
STYLE = Style(scale=1.1)
OWN_FONT = FontFile()


def draw_batch(
    batch: Batch,
    names: Sequence[str] | Mapping[int, str],
    path: str | os.PathLike[str],
    *,
    most: int = 16,
) -> None:
    """Images as the model sees them, with the boxes that it is to learn.

    Args:
        batch: images and labels.
        names: of the classes.
        path: of the sheet; its suffix names the format.
        most: images on the sheet.
    """
    cells = []
    for pixels, labels in zip(batch["pixel_values"][:most], batch["labels"], strict=False):
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
        fractions = cxcywh_to_xyxy(labels["boxes"].cpu().numpy())
        classes = labels["class_labels"].cpu().numpy()
        texts = [names[label] for label in classes.tolist()]
        cells.append(_cell(image, fractions, classes, texts))
    _save_sheet(cells, math.ceil(math.sqrt(max(1, len(cells)))), path)


def draw_samples(
    split: Split,
    table: PredictionTable,
    path: str | os.PathLike[str],
    threshold: float,
    *,
    most: int = 8,
) -> None:
    """Images with their annotated boxes and, beside each, with what was predicted.

    Args:
        split: N images.
        table: predictions, with the classes of ``split``.
        path: of the sheet; its suffix names the format.
        threshold: predictions with a greater score are shown.
        most: images on the sheet, evenly taken from the split.

    Raises:
        DataError: if an image cannot be read.
    """
    count = min(most, len(split))
    images = np.linspace(0, len(split) - 1, count).round().astype(int).tolist()
    cells = [cell for index in images for cell in _pair(split, table, index, threshold)]
    _save_sheet(cells, 4 if count > 2 else 2, path)


def _pair(
    split: Split, table: PredictionTable, index: int, threshold: float
) -> tuple[Image.Image, Image.Image]:
    """Truth and prediction of an image."""
    annotations = split.annotations
    name, categories = annotations.names[index], annotations.categories.names
    image = load_image(split.image(index), name=name).image
    size = np.asarray([image.width, image.height] * 2, dtype=np.float32)
    own = annotations.of(index)
    labels = annotations.classes[own]
    crowds = annotations.crowds[own].tolist()
    texts = [
        f"{categories[label]} (crowd)" if crowd else categories[label]
        for label, crowd in zip(labels.tolist(), crowds, strict=True)
    ]
    truth = _cell(image, annotations.boxes[own] / size, labels, texts, f"{name}: annotated")
    start, end = np.searchsorted(table.images, [index, index + 1])
    rows = start + np.flatnonzero(table.scores[start:end] > threshold)
    found = table.classes[rows]
    scores = table.scores[rows].tolist()
    texts = [
        f"{categories[label]} {score:.2f}"
        for label, score in zip(found.tolist(), scores, strict=True)
    ]
    caption = f"predicted, score above {threshold:.2f}"
    return truth, _cell(image, table.boxes[rows] / size, found, texts, caption)


def _cell(
    image: Image.Image,
    fractions: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    texts: Sequence[str],
    caption: str = "",
) -> Image.Image:
    """An image with boxes [n, 4], xyxy in fractions of it, at the size that it has on a sheet."""
    scale = CELL / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    small = image.convert("RGB").resize((size[0], size[1]), Image.Resampling.BICUBIC)
    boxes = scale_boxes(fractions.astype(np.float32), small.height, small.width)
    drawn = draw(small, boxes, labels, texts, STYLE)
    top = CAPTION if caption else 0
    cell = Image.new("RGB", (CELL, drawn.height + top), BACKGROUND)
    cell.paste(drawn, ((CELL - drawn.width) // 2, top))
    if caption:
        _write(cell, caption)
    return cell


def _write(cell: Image.Image, text: str) -> None:
    """A line at the top, cut at the border; the end of a path says more than its beginning."""
    pen, x = ImageDraw.Draw(cell), 2.0
    for part, font in split_by_font(_fitting(plain_text(unicode_name(text))), OWN_FONT):
        loaded = load_font(font, 13)
        pen.text((x, CAPTION - 6), part, fill=INK, font=loaded, anchor="ls")
        x += loaded.getlength(part)


def _fitting(text: str) -> str:
    most = CELL // 7
    return text if len(text) <= most else f"...{text[-most:]}"


def _save_sheet(cells: Iterable[Image.Image], columns: int, path: str | os.PathLike[str]) -> None:
    images = list(cells)
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    heights = [max(image.height for image in row) + GAP for row in rows]
    size = (columns * (CELL + GAP) + GAP, sum(heights, start=GAP))
    sheet = Image.new("RGB", size, BACKGROUND)
    for row, top in zip(rows, accumulate(heights, initial=GAP), strict=False):
        for column, image in enumerate(row):
            sheet.paste(image, (GAP + column * (CELL + GAP), top))
    save_image(sheet, Path(path))
