# SPDX-License-Identifier: Apache-2.0
"""From images to detections, batch by batch, through anything that answers pixels with logits and boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from ..boxes import clip_to_image
from ..errors import ModelError, RTDetrError
from ..images.io import LoadedImage, Unreadable
from ..processing.image_processor import RTDetrImageProcessor
from ..results.detections import Detections, class_indices
from .options import STRIDE, ImageSize, PredictOptions, check_imgsz

__all__ = ["Predictor", "RawOutputs", "check_finite", "run_network"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RawOutputs:
    """What a network answers, before it is read as detections.

    Args:
        logits: float32 [B,Q,K], before the sigmoid.
        pred_boxes: float32 [B,Q,4], (cx, cy, w, h) in fractions of the input.
    """

    logits: torch.Tensor
    pred_boxes: torch.Tensor


def run_network(network: Callable[..., Any], pixels: torch.Tensor) -> RawOutputs:
    """What a model answers its input [B,3,H,W], which is in its dtype and on its device.

    Raises:
        RTDetrError: if the device's memory does not suffice.
    """
    try:
        outputs = network(pixels, return_dict=True)
    except torch.OutOfMemoryError as error:
        batch, _, height, width = pixels.shape
        raise RTDetrError(
            f"{pixels.device}: out of memory at {width}x{height}, batch {batch}. Try a smaller batch or imgsz."
        ) from error
    return RawOutputs(outputs.logits.float(), outputs.pred_boxes.float())


@dataclass(frozen=True)
class Predictor:
    """A network, what prepares its input and what reads its output.

    Args:
        network: takes float32 [B,3,H,W] on the CPU, answers with ``RawOutputs`` on any device.
        processor: how images are prepared and outputs read.
        names: class names by index.
        category_ids: of each class in the files of its data set, if they are known.
    """

    network: Callable[[torch.Tensor], RawOutputs]
    processor: RTDetrImageProcessor
    names: Mapping[int, str]
    category_ids: Sequence[int] | None = None

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
            ModelError: if the network answers with a NaN or an infinity.
        """
        if not images:
            return []
        classes = None if options.classes is None else class_indices(options.classes, self.names)
        processor = self._processor(options.imgsz)
        pixels = _to_batch(processor, [item.image for item in images])
        outputs = self.network(pixels)
        check_finite(outputs)
        sizes = [_covered_size(item.image, processor, pixels) for item in images]
        results = processor.post_process_object_detection(outputs, options.threshold, sizes)
        return [
            self._detections(item, result, classes)
            for item, result in zip(images, results, strict=True)
        ]

    def prepare(
        self, images: Sequence[Image.Image], imgsz: ImageSize | None = None
    ) -> torch.Tensor:
        """Images as the network's input, float32 [B,3,H,W] on the CPU.

        Images that differ in size after preprocessing are padded with zeros at the bottom and right to the largest, and
        all of them to a multiple of 32. The network sees the padding; a mask would have no effect on it.
        """
        return _to_batch(self._processor(imgsz), images)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of the network's input; None where it depends on the image."""
        size = self.processor.input_size
        return None if size is None else (_next_multiple(size[0]), _next_multiple(size[1]))

    def _processor(self, imgsz: ImageSize | None) -> RTDetrImageProcessor:
        if imgsz is None:
            return self.processor
        return self.processor.with_input_size(*check_imgsz(imgsz))

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
            time=item.time,
            category_ids=self.category_ids,
        )


def _to_batch(processor: RTDetrImageProcessor, images: Sequence[Image.Image]) -> torch.Tensor:
    arrays = replace(processor, return_tensors=None)(list(images)).pixel_values
    channels = arrays[0].shape[0]
    height, width = (_next_multiple(max(one.shape[axis] for one in arrays)) for axis in (1, 2))
    batch = np.zeros((len(arrays), channels, height, width), dtype=np.float32)
    for padded, pixels in zip(batch, arrays, strict=True):
        padded[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return torch.from_numpy(batch)


def _next_multiple(side: int) -> int:
    return -(-side // STRIDE) * STRIDE


def _covered_size(
    image: Image.Image, processor: RTDetrImageProcessor, pixels: torch.Tensor
) -> tuple[float, float]:
    """(height, width) of what the input covers, in pixels of ``image``: itself, and the padding beside it.

    Boxes are fractions of the whole input, so it is this size that they are fractions of in the image.
    """
    height, width = processor.content_size((image.height, image.width))
    return image.height * pixels.shape[2] / height, image.width * pixels.shape[3] / width


def check_finite(outputs: RawOutputs) -> None:
    """Refuse outputs that mean nothing.

    Raises:
        ModelError: if there is a NaN or an infinity among them.
    """
    # One wait for the device, not two.
    if not (torch.isfinite(outputs.logits).all() & torch.isfinite(outputs.pred_boxes).all()):
        raise ModelError(
            "The model's outputs are not finite (NaN or infinity): its weights are damaged, or its dtype is too narrow "
            "for them. Try dtype float32."
        )


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
