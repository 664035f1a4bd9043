# SPDX-License-Identifier: Apache-2.0
"""From images to detections, batch by batch, through anything that answers pixels with logits and boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from ..boxes import clip_to_image
from ..images.io import LoadedImage, Unreadable
from ..processing.image_processor import RTDetrImageProcessor
from ..results.detections import Detections, class_indices
from .options import ImageSize, PredictOptions, check_imgsz

__all__ = ["Predictor", "RawOutputs"]

T = TypeVar("T")


@dataclass(frozen=True)
class RawOutputs:
    """What a network answers, before it is read as detections.

    Args:
        logits: float32 [B,Q,K], before the sigmoid.
        pred_boxes: float32 [B,Q,4], (cx, cy, w, h) in fractions of the input.
    """

    logits: torch.Tensor
    pred_boxes: torch.Tensor


@dataclass(frozen=True)
class Predictor:
    """A network, what prepares its input and what reads its output.

    Args:
        network: takes float32 [B,3,H,W] on the CPU, answers with ``RawOutputs`` on any device.
        processor: how images are prepared and outputs read.
        names: class names by index.
    """

    network: Callable[[torch.Tensor], RawOutputs]
    processor: RTDetrImageProcessor
    names: Mapping[int, str]

    def run(
        self, images: Iterable[LoadedImage | Unreadable], options: PredictOptions
    ) -> Iterator[Detections | Unreadable]:
        """One result for each image, in order; what could not be read is passed on in its place."""
        for group in _batches(images, options.batch):
            readable = [item for item in group if isinstance(item, LoadedImage)]
            detections = iter(self.detect(readable, options))
            for item in group:
                yield next(detections) if isinstance(item, LoadedImage) else item

    def detect(self, images: Sequence[LoadedImage], options: PredictOptions) -> list[Detections]:
        """The objects in each image of one batch.

        Raises:
            UsageError: if ``options.classes`` names a class that the model does not have.
        """
        if not images:
            return []
        classes = None if options.classes is None else class_indices(options.classes, self.names)
        sizes = [(item.image.height, item.image.width) for item in images]
        outputs = self.network(self.prepare([item.image for item in images], options.imgsz))
        results = self.processor.post_process_object_detection(outputs, options.threshold, sizes)
        return [
            self._detections(item, result, classes)
            for item, result in zip(images, results, strict=True)
        ]

    def prepare(
        self, images: Sequence[Image.Image], imgsz: ImageSize | None = None
    ) -> torch.Tensor:
        """Images as the network's input, float32 [B,3,H,W] on the CPU."""
        overrides = {} if imgsz is None else {"size": check_imgsz(imgsz)}
        batch = self.processor(list(images), return_tensors="pt", **overrides)
        pixels: torch.Tensor = batch.pixel_values
        return pixels

    def _detections(
        self, item: LoadedImage, result: Mapping[str, torch.Tensor], classes: list[int] | None
    ) -> Detections:
        arrays = {name: value.cpu().numpy() for name, value in result.items()}
        keep = slice(None) if classes is None else np.isin(arrays["labels"], classes)
        size = (item.image.height, item.image.width)
        return Detections(
            # The model may point a little beyond the border.
            xyxy=clip_to_image(arrays["boxes"][keep], size),
            scores=arrays["scores"][keep],
            labels=arrays["labels"][keep],
            names=dict(self.names),
            image_size=size,
            source=item.name,
            image=item.image,
        )


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
