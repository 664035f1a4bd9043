# SPDX-License-Identifier: Apache-2.0
"""From the outputs of a network to scores, labels and boxes of each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..boxes import cxcywh_to_xyxy, scale_boxes
from ..checking import as_number
from ..errors import UsageError

__all__ = ["post_process", "rank_pairs"]


def post_process(
    logits: Tensor,  # [B, Q, K]
    pred_boxes: Tensor,  # [B, Q, 4], (cx, cy, w, h) in fractions of the image
    threshold: float,
    target_sizes: Tensor | Sequence[Sequence[float]] | None,  # (height, width) of each image
    use_focal_loss: bool = True,
) -> list[dict[str, Tensor]]:  # scores [N], labels [N], boxes [N, 4], best first
    """See :meth:`rtdetr.RTDetrImageProcessor.post_process_object_detection`."""
    least = as_number(threshold)
    if least is None:
        raise UsageError(f"threshold: expected a number, got {threshold!r}")
    boxes = cxcywh_to_xyxy(pred_boxes)
    if target_sizes is not None:
        height, width = _sizes(target_sizes, boxes).unbind(1)
        boxes = scale_boxes(boxes, height[:, None], width[:, None])
    scores, labels, query = _rank(logits, use_focal_loss)
    boxes = boxes.gather(1, query[:, :, None].expand(-1, -1, 4))
    results = []
    for score, label, box in zip(scores, labels, boxes, strict=True):
        keep = score > least
        results.append({"scores": score[keep], "labels": label[keep], "boxes": box[keep]})
    return results


def _rank(logits: Tensor, use_focal_loss: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and numbers of queries, [B, Q] each, best first."""
    if use_focal_loss:
        return rank_pairs(logits, logits.shape[1])
    best, label_of = logits.softmax(-1)[:, :, :-1].max(-1)
    scores, query = best.sort(dim=1, descending=True)
    return scores, label_of.gather(1, query), query


def rank_pairs(logits: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and numbers of queries, [B, at most ``limit``] each, of the best pairs of query and class."""
    pairs = logits.sigmoid().flatten(1)
    scores, index = pairs.topk(min(limit, pairs.shape[1]), dim=1)
    return scores, index % logits.shape[2], index // logits.shape[2]


def _sizes(target_sizes: Tensor | Sequence[Sequence[float]], boxes: Tensor) -> Tensor:
    sizes = torch.as_tensor(target_sizes).to(boxes.device)
    if sizes.shape != (boxes.shape[0], 2):
        raise UsageError(
            f"target_sizes: expected (height, width) for each of {boxes.shape[0]} images, got shape {list(sizes.shape)}"
        )
    return sizes
