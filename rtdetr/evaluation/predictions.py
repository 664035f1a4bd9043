# SPDX-License-Identifier: Apache-2.0
"""What a network finds in the images of a split, as a few arrays.

P predictions, N images, B images of a batch, Q queries, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..boxes import cxcywh_to_xyxy, scale_boxes, xyxy_to_xywh
from ..data import Annotations, Batch
from ..errors import UsageError
from ..inference.predictor import RawOutputs, check_finite
from ..processing.postprocess import rank_pairs

__all__ = ["PredictionTable", "collect_predictions", "merge_predictions"]

DECIMALS = 3
"""Of a pixel: what a box in COCO's form is rounded to, in the file and where it is measured."""

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PredictionTable:
    """Predictions, ordered by image, and within an image best first.

    Args:
        images: [P] indices of images in their split.
        boxes: [P, 4] xyxy in pixels of the upright image, inside it.
        scores: [P] 0..1.
        classes: [P] class indices.

    Raises:
        UsageError: if the arrays do not have these shapes.
    """

    images: IntArray
    boxes: FloatArray
    scores: FloatArray
    classes: IntArray

    def __post_init__(self) -> None:
        count = len(self.images)
        for field in fields(self):
            shape = getattr(self, field.name).shape
            expected = (count, 4) if field.name == "boxes" else (count,)
            if shape != expected:
                raise UsageError(
                    f"{field.name}: expected shape {list(expected)}, got {list(shape)}"
                )

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def empty(cls) -> PredictionTable:
        """The table without predictions."""
        floats = np.zeros((0, 4), np.float32)
        return cls(np.zeros(0, np.int64), floats, floats[:, 0], np.zeros(0, np.int64))

    def select(self, rows: npt.NDArray[Any]) -> PredictionTable:
        """The rows of a mask [P] or of indices."""
        return PredictionTable(
            self.images[rows], self.boxes[rows], self.scores[rows], self.classes[rows]
        )

    def with_classes(self, new: Sequence[int | None]) -> PredictionTable:
        """Class c as ``new[c]``; what is None is left out."""
        numbers = np.asarray([-1 if index is None else index for index in new], dtype=np.int64)
        classes = numbers[self.classes]
        renamed = PredictionTable(self.images, self.boxes, self.scores, classes)
        return renamed.select(classes >= 0)

    def coco_boxes(self) -> npt.NDArray[np.float64]:
        """[P, 4] xywh in pixels, as files in COCO's form have them."""
        return np.round(xyxy_to_xywh(self.boxes.astype(np.float64)), DECIMALS)

    def to_coco(self, annotations: Annotations) -> list[dict[str, Any]]:
        """One COCO result for each row, with the image ids and category ids of the user's files."""
        category_ids = np.asarray(annotations.categories.ids, dtype=np.int64)
        columns = (
            annotations.image_ids[self.images],
            category_ids[self.classes],
            self.coco_boxes(),
            self.scores.astype(np.float64),
        )
        keys = ("image_id", "category_id", "bbox", "score")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [dict(zip(keys, row, strict=True)) for row in rows]


def collect_predictions(
    network: Callable[[Tensor], RawOutputs],
    batches: Iterable[tuple[Sequence[int], Batch]],
    *,
    limit: int | None = None,
) -> PredictionTable:
    """The best pairs of query and class in each image, as post-processing ranks them.

    Args:
        network: answers uint8 pixels [B, 3, H, W] with logits and boxes; see
            :func:`rtdetr.evaluation.validation.network_of`.
        batches: the indices of B images in their split, and their batch:
            ``zip(shards, make_loader(dataset, shards), strict=True)``.
        limit: predictions of an image; by default the number of queries.

    Raises:
        ModelError: if the network answers with a NaN or an infinity.
    """
    tables = []
    for images, batch in batches:
        outputs = network(batch["pixel_values"])
        check_finite(outputs)
        sizes = torch.stack([label["orig_size"] for label in batch["labels"]])
        tables.append(_read(outputs, sizes, images, limit))
    return merge_predictions(tables)


def merge_predictions(tables: Iterable[PredictionTable]) -> PredictionTable:
    """The tables of several ranks or batches as one, in the order of images.

    An image that is in several tables, since ranks were filled up, counts once: as the first of them has it.
    """
    parts = list(tables)
    if not parts:
        return PredictionTable.empty()
    columns = (
        np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(PredictionTable)
    )
    merged = PredictionTable(*columns)
    owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.lexsort((owners, merged.images))
    merged, owners = merged.select(order), owners[order]
    _, first, image = np.unique(merged.images, return_index=True, return_inverse=True)
    return merged.select(owners == owners[first][image])


def _read(
    outputs: RawOutputs, sizes: Tensor, images: Sequence[int], limit: int | None
) -> PredictionTable:
    scores, classes, query = rank_pairs(outputs.logits, limit or outputs.logits.shape[1])
    height, width = sizes.to(outputs.pred_boxes.device).unbind(1)
    boxes = scale_boxes(cxcywh_to_xyxy(outputs.pred_boxes), height[:, None], width[:, None])
    boxes = boxes.gather(1, query[:, :, None].expand(-1, -1, 4))
    # The model may point a little beyond the border.
    border = torch.stack([width, height, width, height], dim=1)[:, None].to(boxes.dtype)
    boxes = boxes.clamp(min=torch.zeros_like(border), max=border)
    return PredictionTable(
        np.repeat(np.asarray(images, dtype=np.int64), scores.shape[1]),
        boxes.flatten(0, 1).cpu().numpy(),
        scores.flatten().cpu().numpy(),
        classes.flatten().cpu().numpy(),
    )
