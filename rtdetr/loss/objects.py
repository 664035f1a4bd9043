# SPDX-License-Identifier: Apache-2.0
"""The annotated objects of a batch, as matching and losses read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["BatchTotals", "Labels", "Objects"]


class Labels(TypedDict):
    """The objects of one image, in transformers' form."""

    class_labels: Tensor  # [n], int64
    boxes: Tensor  # [n, 4], (cx, cy, w, h) in 0..1


class BatchTotals(NamedTuple):
    """What losses and denoising queries of some images depend on beside them: the batch that these are a part of."""

    objects: int  # of all its images
    most: int  # of the image that has most


@dataclass(frozen=True)
class Objects:
    """All objects of a batch, those of image 0 first.

    Args:
        classes: [T], int64.
        boxes: [T, 4], (cx, cy, w, h) in 0..1, float32 or float64.
        counts: objects of each image; they add up to T.
        whole: of the batch that the images are a part of, whose other parts are computed later or by other processes;
            None where they are all of it.
    """

    classes: Tensor
    boxes: Tensor
    counts: tuple[int, ...]
    whole: BatchTotals | None = None

    @classmethod
    def from_labels(
        cls,
        labels: Sequence[Labels] | Objects,
        image_total: int,
        class_total: int,
        device: torch.device,
        whole: BatchTotals | None = None,
    ) -> Objects:
        """The objects of ``labels``, checked; objects are returned as they are.

        Args:
            labels: one for each image.
            image_total: B.
            class_total: K; classes are below it.
            device: where to.
            whole: of the batch that the images are a part of.

        Raises:
            ValueError: there are not B labels, boxes and classes of an image differ in number, a box has no 4 finite
                numbers, or a class is not within 0..K-1.
        """
        if isinstance(labels, Objects):
            return labels
        if len(labels) != image_total:
            raise ValueError(
                f"labels: expected one entry for each of B={image_total} images, got {len(labels)}"
            )
        for index, label in enumerate(labels):
            _check(index, label)
        classes = torch.cat([label["class_labels"] for label in labels]).long()
        boxes = torch.cat([label["boxes"] for label in labels])
        _check_values(classes, boxes, class_total)
        dtype = torch.promote_types(boxes.dtype, torch.float32)
        counts = tuple(len(label["class_labels"]) for label in labels)
        return cls(classes.to(device), boxes.to(device, dtype), counts, whole)

    def __len__(self) -> int:
        """B."""
        return len(self.counts)

    @property
    def most(self) -> int:
        """Objects of the image that has most."""
        return max(self.counts, default=0)

    @property
    def totals(self) -> BatchTotals:
        """Of the batch that the images are a part of, or all of."""
        return self.whole or BatchTotals(sum(self.counts), self.most)

    def padded(self) -> tuple[Tensor, Tensor]:
        """Classes [B, most] and boxes [B, most, 4]; zeros behind the objects of an image."""
        classes, boxes = (
            pad_sequence(list(torch.split(flat, list(self.counts))), batch_first=True)
            for flat in (self.classes, self.boxes)
        )
        return classes, boxes

    def starts(self) -> list[int]:
        """The index of the first object of each image."""
        return [sum(self.counts[:image]) for image in range(len(self.counts))]


def _check(index: int, label: Labels) -> None:
    for name in ("class_labels", "boxes"):
        if name not in label:
            raise ValueError(
                f'labels: expected "class_labels" and "boxes", image {index} has no "{name}"'
            )
    classes, boxes = label["class_labels"], label["boxes"]
    if classes.dim() != 1 or boxes.shape != (len(classes), 4):
        raise ValueError(
            f"labels: expected class_labels [n] and boxes [n, 4], image {index} has {list(classes.shape)} and"
            f" {list(boxes.shape)}"
        )


def _check_values(classes: Tensor, boxes: Tensor, class_total: int) -> None:
    """Before a kernel uses a class as an index; one copy to the host for both."""
    if not len(classes):
        return
    low, high = classes.aminmax()
    lowest, highest, finite = torch.stack([low, high, boxes.isfinite().all().long()]).tolist()
    if lowest < 0 or highest >= class_total:
        raise ValueError(
            f"labels: expected class_labels within 0..{class_total - 1}, got {lowest}..{highest}"
        )
    if not finite:
        raise ValueError("labels: expected finite boxes (cx, cy, w, h), got NaN or infinity")
