# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFont

from rtdetr.results.drawing import PALETTE, Style, draw, text_color

GRAY = (128, 128, 128)


def drawn(
    boxes: list[list[float]],
    size: tuple[int, int] = (300, 200),
    labels: list[int] | None = None,
    texts: list[str] | None = None,
    style: Style | None = None,
) -> npt.NDArray[np.int64]:
    """[H,W,3] of boxes on gray."""
    image = Image.new("RGB", size, GRAY)
    made = draw(
        image,
        np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        np.asarray(labels if labels is not None else [0] * len(boxes)),
        texts if texts is not None else ["thing 0.99"] * len(boxes),
        style,
    )
    return np.asarray(made).astype(np.int64)


def changed(pixels: npt.NDArray[np.int64]) -> tuple[int, int, int, int]:
    """left, top, right, bottom of what differs from gray."""
    rows, columns = np.nonzero((pixels != GRAY).any(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_frame_is_where_the_box_is() -> None:
    pixels = drawn([[50, 60, 150, 120]], style=Style(labels=False))
    left, top, right, bottom = changed(pixels)
    for got, wanted in zip((left, top, right, bottom), (50, 60, 150, 120), strict=True):
        assert abs(got - wanted) <= 1  # the halo
    assert (pixels[90, 100] == GRAY).all()
    for row, column in ((61, 100), (118, 100), (90, 51), (90, 148)):
        assert tuple(pixels[row, column]) == PALETTE[0]


@pytest.mark.parametrize("label", [0, 3, len(PALETTE) + 3])
def test_a_class_keeps_its_color(label: int) -> None:
    pixels = drawn([[50, 60, 150, 120]], labels=[label])
    assert tuple(pixels[90, 51]) == PALETTE[label % len(PALETTE)]


def test_colors_of_the_palette_differ() -> None:
    assert len(set(PALETTE)) == len(PALETTE) >= 10
    for one, other in pairwise(PALETTE):
        assert np.abs(np.subtract(one, other)).sum() > 60


def test_width_follows_the_image() -> None:
    def line(scale: int, style_scale: float = 1.0) -> int:
        style = Style(labels=False, scale=style_scale)
        boxes = [[50.0 * scale, 60.0 * scale, 150.0 * scale, 120.0 * scale]]
        pixels = drawn(boxes, (300 * scale, 200 * scale), style=style)
        row = pixels[90 * scale, : 100 * scale]
        return int((row == PALETTE[0]).all(-1).sum())

    assert line(1) == 2
    assert line(8) >= 6
    assert line(1, style_scale=3.0) > line(1)


EDGES = {
    "top left": [0, 0, 40, 30],
    "top right": [270, 0, 300, 30],
    "bottom right": [285, 190, 300, 200],
    "whole image": [0, 0, 300, 200],
    "out on all sides": [-50, -50, 400, 300],
    "a point": [150, 100, 150.2, 100.2],
    "a line": [10, 100, 290, 100.6],
}


@pytest.mark.parametrize("box", EDGES.values(), ids=EDGES)
def test_label_is_whole_and_inside(box: list[float]) -> None:
    wide = [box[0] + 300, box[1] + 200, box[2] + 300, box[3] + 200]
    inside = drawn([wide], (900, 600))
    alone = drawn([box], (300, 200), style=Style(scale=600 / 200))
    text = (inside == text_color(PALETTE[0])).all(-1).sum()
    # The same label in the middle of an image has as many fully inked pixels: nothing of it is cut off.
    assert abs(int((alone == text_color(PALETTE[0])).all(-1).sum()) - int(text)) <= 0.02 * text + 1


@pytest.mark.parametrize("box", [[310, 10, 400, 50], [-50, 10, 0, 40], [30, 30, 20, 20]], ids=str)
def test_nothing_to_see_is_nothing_drawn(box: list[float]) -> None:
    assert (drawn([box]) == GRAY).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_box_that_is_no_number_is_left_out(value: float) -> None:
    assert (drawn([[10, 10, value, 20]]) == GRAY).all()


THIN = {
    "a line that stands": ([50, 60, 50.3, 150], (50, 60, 51, 150)),
    "a line that lies": ([200, 20, 280, 20.2], (200, 20, 280, 21)),
    "a point": ([100, 100, 100, 100], (100, 100, 101, 101)),
    "at the border": ([299.9, 150, 300, 190], (299, 150, 300, 190)),
}


@pytest.mark.parametrize("case", THIN)
def test_box_thinner_than_a_pixel_is_drawn(case: str) -> None:
    box, (left, top, right, bottom) = THIN[case]
    pixels = drawn([[float(value) for value in box]], style=Style(labels=False))
    assert (pixels == PALETTE[0]).all(-1)[top:bottom, left:right].any()
    for got, wanted in zip(changed(pixels), (left, top, right, bottom), strict=True):
        assert abs(got - wanted) <= 4  # a frame of its own width, and the halo


@pytest.mark.parametrize("size", [(48, 32), (16, 200), (5, 5)], ids=str)
def test_label_does_not_hide_a_third_of_the_image(size: tuple[int, int]) -> None:
    boxes = [[2.0, 2.0, size[0] - 4.0, size[1] - 4.0], [1.0, 1.0, 4.0, 4.0]]
    bare = drawn(boxes, size, style=Style(labels=False))
    assert (drawn(boxes, size, texts=["wheelbarrow 0.99"] * 2) == bare).all() == (size[0] != 16)
    assert (drawn(boxes, (size[0] * 8, size[1] * 8)) != GRAY).any()


def test_label_is_one_line() -> None:
    boxes = [[50.0, 60.0, 150.0, 120.0]]
    assert (
        drawn(boxes, texts=["two\n lines\x1b 0.9"]) == drawn(boxes, texts=["two lines 0.9"])
    ).all()


def test_tiny_image() -> None:
    assert drawn([[0, 0, 3, 2]], (3, 2)).shape == (2, 3, 3)


def test_no_boxes() -> None:
    assert (drawn([]) == GRAY).all()


def test_first_box_lies_on_top() -> None:
    pixels = drawn(
        [[50, 60, 150, 120], [50, 60, 150, 120]], labels=[2, 1], style=Style(labels=False)
    )
    assert tuple(pixels[90, 51]) == PALETTE[2]


def test_labels_of_near_boxes_do_not_cover_each_other() -> None:
    boxes = [[50.0, 60.0, 150.0, 150.0], [52.0, 61.0, 152.0, 151.0]]
    pixels = drawn(boxes, labels=[0, 1], texts=["aaaaaaa", "aaaaaaa"])
    ink = [int((pixels == text_color(PALETTE[label])).all(-1).sum()) for label in (0, 1)]
    alone = [
        int((drawn([box], labels=[i], texts=["aaaaaaa"]) == text_color(PALETTE[i])).all(-1).sum())
        for i, box in enumerate(boxes)
    ]
    assert ink == alone


def test_text_contrasts_with_its_patch() -> None:
    def luminance(color: tuple[int, int, int]) -> float:
        linear = [v / 3294.6 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for color in PALETTE:
        low, high = sorted((luminance(color), luminance(text_color(color))))
        assert (high + 0.05) / (low + 0.05) >= 4.5, color  # WCAG AA


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), *PALETTE[:2]], ids=str)
def test_frame_shows_on_any_background(background: tuple[int, int, int]) -> None:
    image = Image.new("RGB", (300, 200), background)
    made = draw(image, np.asarray([[50, 60, 150, 120]], np.float32), np.asarray([0]), [""])
    row = np.asarray(made).astype(np.int64)[90, 40:60]
    assert np.abs(row - background).sum(-1).max() > 60


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_modes(mode: str) -> None:
    image = Image.new("RGB", (300, 200), GRAY).convert(mode)
    made = draw(image, np.asarray([[50, 60, 150, 120]], np.float32), np.asarray([0]), ["thing"])
    assert made.mode == "RGB"


def test_own_font_and_palette() -> None:
    pixels = drawn([[50, 60, 150, 120]], style=Style(palette=[(1, 2, 3)]))
    assert tuple(pixels[90, 51]) == (1, 2, 3)


def test_built_in_font_has_any_size() -> None:
    # Without FreeType, Pillow has one bitmap font of 11 pixels, and labels would not scale.
    assert isinstance(ImageFont.load_default(20), ImageFont.FreeTypeFont)
