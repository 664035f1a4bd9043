# SPDX-License-Identifier: Apache-2.0
"""Boxes mean the same in NumPy and torch, and each form comes back from the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rtdetr import boxes

XYXY = np.asarray([[10, 20, 30, 60], [-5, 0, 700, 480.5]], dtype=np.float32)
CXCYWH = np.asarray([[20, 40, 20, 40], [347.5, 240.25, 705, 480.5]], dtype=np.float32)
XYWH = np.asarray([[10, 20, 20, 40], [-5, 0, 705, 480.5]], dtype=np.float32)


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    ("convert", "given", "expected"),
    [
        (boxes.cxcywh_to_xyxy, CXCYWH, XYXY),
        (boxes.xyxy_to_cxcywh, XYXY, CXCYWH),
        (boxes.xywh_to_xyxy, XYWH, XYXY),
        (boxes.xyxy_to_xywh, XYXY, XYWH),
    ],
)
def test_forms(
    convert: Callable[[Any], Any], given: Any, expected: Any, array: Callable[[Any], Any]
) -> None:
    result = convert(array(given)[None])
    assert type(result) is type(array(given))
    assert result.dtype == array(given).dtype
    assert np.array_equal(np.asarray(result), expected[None])
    assert tuple(convert(array(given)[:0]).shape) == (0, 4)


@pytest.mark.parametrize(
    "convert", [boxes.cxcywh_to_xyxy, boxes.xyxy_to_cxcywh, boxes.xywh_to_xyxy]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_floats_keep_their_dtype(convert: Callable[[Any], Any], dtype: torch.dtype) -> None:
    whole = torch.tensor([[10, 20, 30, 60]])
    result = convert(whole.to(dtype))
    assert result.dtype == dtype
    assert result.tolist() == convert(whole).tolist() == convert(whole.numpy()).tolist()
    assert convert(whole).dtype == torch.float32
    assert convert(whole.numpy()).dtype == np.float32


@pytest.mark.parametrize("scale", [(0.5, 0.25), (1281, 1283)], ids=["down", "up"])
def test_scaling_rounds_once(scale: tuple[float, float]) -> None:
    """Neither to whole numbers, nor to a size that 8 bits of mantissa can hold."""
    height, width = scale
    exact = [3 * width, 5 * height, 1 * width, 1 * height]
    whole = np.array([3, 5, 1, 1])
    assert boxes.scale_boxes(whole, height, width).tolist() == exact
    assert boxes.scale_boxes(torch.from_numpy(whole), height, width).tolist() == exact
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        result = boxes.scale_boxes(torch.from_numpy(whole).to(dtype), height, width)
        assert result.dtype == dtype
        assert torch.equal(result, torch.tensor(exact).to(dtype))
    half = boxes.scale_boxes(whole.astype(np.float16), height, width)
    assert half.tolist() == np.array(exact, np.float16).tolist()


def test_integers_are_clipped_and_divided_as_floats() -> None:
    whole = np.array([[-5, 0, 700, 480]])
    assert boxes.clip_to_image(whole, (50, 640)).tolist() == [[0, 0, 640, 50]]
    assert boxes.to_fractions(whole, (960, 1400))[0, 2:].tolist() == [0.5, 0.5]
    assert boxes.to_fractions(whole, (960, 1400)).dtype == np.float32


def test_clip_to_image() -> None:
    clipped = boxes.clip_to_image(XYXY, (50, 640))
    assert clipped.tolist() == [[10, 20, 30, 50], [0, 0, 640, 50]]
    assert clipped.dtype == np.float32


def test_scale_boxes_by_numbers_and_by_image() -> None:
    assert boxes.scale_boxes(XYXY[:1], 0.5, 2.0).tolist() == [[20, 10, 60, 30]]
    batch = torch.ones(2, 3, 4)
    height, width = torch.tensor([[10], [20]]), torch.tensor([[1], [2]])
    scaled = boxes.scale_boxes(batch, height, width)
    assert scaled.dtype == torch.float32
    assert scaled[0, 2].tolist() == [1, 10, 1, 10]
    assert scaled[1, 0].tolist() == [2, 20, 2, 20]


def test_to_fractions() -> None:
    assert boxes.to_fractions(XYXY[:1], (40, 20)).tolist() == [[0.5, 0.5, 1.5, 1.5]]
