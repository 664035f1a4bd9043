# SPDX-License-Identifier: Apache-2.0
"""The same drawn numbers give torchvision's boxes and pixels. ``make transforms`` installs it and runs this."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision_names import torchvision_importable

from rtdetr.data.geometry import (
    centers_inside,
    crop,
    draw_crop,
    draw_zoom,
    flip,
    resize,
    sanitize,
    zoom_out,
)
from rtdetr.data.photometric import distort, draw_distortion
from rtdetr.data.sample import Sample

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None,
    reason="torchvision is not installed: make transforms",
)

DRAWS = 500
TOLERANCE = 1e-4  # pixels


@pytest.fixture(scope="module")
def functional() -> Iterator[Any]:
    with torchvision_importable():
        from torchvision.transforms.v2 import functional

        yield functional


def draw_sample(rng: np.random.Generator) -> Sample:
    """An image of 20 to 700 px and one to eight boxes, with coordinates between pixels."""
    height, width = rng.integers(20, 700, 2).tolist()
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    ends = np.sort(rng.random((rng.integers(1, 9), 2, 2)), axis=1) * [width, height]
    return Sample(small.resize((width, height)), ends.reshape(-1, 4), rng.integers(0, 9, len(ends)))


def as_boxes(sample: Sample) -> Any:
    from torchvision.tv_tensors import BoundingBoxes

    return BoundingBoxes(torch.from_numpy(sample.boxes), format="XYXY", canvas_size=sample.size)


def zoom_both(sample: Sample, rng: np.random.Generator, functional: Any) -> tuple[Sample, Any, Any]:
    window = draw_zoom(rng, sample.size)
    right = window.width - window.left - sample.image.width
    bottom = window.height - window.top - sample.image.height
    padding = [window.left, window.top, right, bottom]
    pad = functional.pad
    expected = pad(sample.image, padding, fill=0), pad(as_boxes(sample), padding)
    return zoom_out(sample, window), *expected


def crop_both(sample: Sample, rng: np.random.Generator, functional: Any) -> tuple[Sample, Any, Any]:
    window = draw_crop(rng, sample.size, sample.boxes)
    if window is None:
        return sample, sample.image, as_boxes(sample)
    place = (window.top, window.left, window.height, window.width)
    boxes = functional.crop(as_boxes(sample), *place)
    inside = torch.from_numpy(centers_inside(sample.boxes, window))
    return crop(sample, window), functional.crop(sample.image, *place), boxes[inside]


def flip_both(sample: Sample, rng: np.random.Generator, functional: Any) -> tuple[Sample, Any, Any]:
    flipped = functional.horizontal_flip
    return flip(sample), flipped(sample.image), flipped(as_boxes(sample))


def resize_both(
    sample: Sample, rng: np.random.Generator, functional: Any
) -> tuple[Sample, Any, Any]:
    size = rng.integers(32, 800, 2).tolist()
    image = functional.resize(sample.image, size)
    return resize(sample, tuple(size)), image, functional.resize(as_boxes(sample), size)


def sanitize_both(
    sample: Sample, rng: np.random.Generator, functional: Any
) -> tuple[Sample, Any, Any]:
    small = Sample(sample.image, sample.boxes * rng.choice([1, 0.01, 0.003]), sample.classes)
    boxes, _ = functional.sanitize_bounding_boxes(as_boxes(small), min_size=1, min_area=1)
    return sanitize(small), small.image, boxes


def distort_both(
    sample: Sample, rng: np.random.Generator, functional: Any
) -> tuple[Sample, Any, Any]:
    drawn = draw_distortion(rng)
    steps: list[tuple[Callable[..., Any], Any]] = [(functional.adjust_brightness, drawn.brightness)]
    contrast = (functional.adjust_contrast, drawn.contrast)
    steps += [contrast] if drawn.contrast_first else []
    steps += [(functional.adjust_saturation, drawn.saturation), (functional.adjust_hue, drawn.hue)]
    steps += [] if drawn.contrast_first else [contrast]
    image = sample.image
    for step, factor in (*steps, (functional.permute_channels, drawn.channels)):
        if factor is not None:
            image = step(image, list(factor) if isinstance(factor, tuple) else factor)
    changed = Sample(distort(sample.image, drawn), sample.boxes, sample.classes)
    return changed, image, as_boxes(sample)


BOTH = {
    "zoom": zoom_both,
    "crop": crop_both,
    "flip": flip_both,
    "resize": resize_both,
    "sanitize": sanitize_both,
    "distort": distort_both,
}


@pytest.mark.parametrize("both", BOTH.values(), ids=BOTH)
def test_as_torchvision(both: Callable[..., tuple[Sample, Any, Any]], functional: Any) -> None:
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        sample, image, boxes = both(draw_sample(rng), rng, functional)
        assert len(sample.boxes) == len(boxes), seed
        np.testing.assert_allclose(sample.boxes, boxes.numpy(), atol=TOLERANCE, rtol=0)
        np.testing.assert_array_equal(np.asarray(sample.image), np.asarray(image))
