# SPDX-License-Identifier: Apache-2.0
"""The augmentation of RT-DETR's recipe, and when it stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images.io import load_image
from .geometry import crop, draw_crop, draw_zoom, flip, resize, sanitize, zoom_out
from .photometric import distort, draw_distortion
from .sample import Sample

__all__ = [
    "Augmentation",
    "Transforms",
    "apply_user_transforms",
    "augment",
    "strong_epochs",
]

Transforms = Callable[[Image.Image, dict[str, Any]], tuple[Any, Mapping[str, Any]]]
"""A user's augmentation: RGB image and {"boxes": float64 [n, 4] xyxy in pixels, "class_labels": int64 [n],
"image_id": int, "seed": int} to the same; any size. Resizing to what the network takes comes after it.

The generators of Python, NumPy and torch begin at "seed", a function of the run's seed, the epoch and the image: what
is drawn from them is the same for any number of workers, and after a restart."""

FORM = 'expected (image, {"boxes": [n, 4] xyxy in pixels, "class_labels": [n]})'


@dataclass(frozen=True)
class Augmentation:
    """How likely each part is.

    Args:
        photometric: of each of the changes of light and color.
        zoom: of a larger canvas.
        crop: of a smaller window, of which one in seven leaves the image as it is.
        flip: of left and right changing places.
    """

    photometric: float = 0.5
    zoom: float = 0.5
    crop: float = 0.8
    flip: float = 0.5

    def weak(self) -> Augmentation:
        """Without what the last epochs leave out: light and color, canvas and window."""
        return Augmentation(0, 0, 0, self.flip)


def augment(sample: Sample, rng: np.random.Generator, augmentation: Augmentation) -> Sample:
    """The sample, changed at random; as large as it comes out."""
    if augmentation.photometric:
        image = distort(sample.image, draw_distortion(rng, augmentation.photometric))
        sample = Sample(image, sample.boxes, sample.classes)
    if rng.random() < augmentation.zoom:
        sample = zoom_out(sample, draw_zoom(rng, sample.size))
    if rng.random() < augmentation.crop:
        window = draw_crop(rng, sample.size, sample.boxes)
        sample = sample if window is None else crop(sample, window)
    sample = sanitize(sample)
    return flip(sample) if rng.random() < augmentation.flip else sample


def fit(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample at the (height, width) of the network."""
    return sanitize(resize(sample, size))


def apply_user_transforms(
    sample: Sample, transforms: Transforms, extra: Mapping[str, Any], name: str
) -> Sample:
    """What a user's callable makes of a sample, checked; boxes are cut at the border of the new image.

    Raises:
        DataError: if it returns anything else than an image and a target of that form.
    """
    target = {"boxes": sample.boxes, "class_labels": sample.classes, **extra}
    returned = transforms(sample.image, target)
    is_pair = (
        isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping)
    )
    if not is_pair or not {"boxes", "class_labels"} <= set(returned[1]):
        raise DataError(f"transforms: returned {_describe(returned)} for {name}; {FORM}")
    image = load_image(returned[0], name="transforms: the image").image
    boxes = np.asarray(returned[1]["boxes"], dtype=np.float64)
    classes = np.asarray(returned[1]["class_labels"], dtype=np.int64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or classes.shape != boxes.shape[:1]:
        raise DataError(
            f"transforms: returned boxes {list(boxes.shape)} and class_labels {list(classes.shape)} for {name}; {FORM}"
        )
    if not np.isfinite(boxes).all():
        raise DataError(f"transforms: returned a box with NaN or infinity for {name}; {FORM}")
    border = np.asarray([image.width, image.height] * 2)
    return sanitize(Sample(image, boxes.clip(0, border), classes))


def strong_epochs(epochs: int, published: float) -> int:
    """How many epochs, from the first on, strong augmentation and changing sizes are for.

    Args:
        epochs: of the run.
        published: the share of the published run that had them: 117/120 for r18vd.

    Returns:
        All but the last ones, of which there is one at least; but all of a run of one epoch.
    """
    if epochs <= 1:
        return epochs
    return epochs - max(1, round(epochs * (1 - published)))


def _describe(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping):
        return f"a target with {sorted(map(str, value[1]))}"
    return type(value).__name__
