# SPDX-License-Identifier: Apache-2.0
"""Bipartite matching: each object gets the query that finds it best, by the Hungarian method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..boxes import cxcywh_to_xyxy, iou_and_giou
from ..errors import MissingExtraError
from .objects import Objects

if TYPE_CHECKING:
    from ..config import RTDetrV2Config

__all__ = ["Matches", "MatchingCosts", "match"]


class Matches(NamedTuple):
    """Pairs of a query and an object for each of N layers; the same number P = sum of min(Q, objects) in each."""

    image: Tensor  # [N, P]
    query: Tensor  # [N, P], within the image
    target: Tensor  # [N, P], within the batch


@dataclass(frozen=True)
class MatchingCosts:
    """What a pair costs: weights of its three parts, and the focal form of the first.

    Source: RT-DETR (Zhao et al., 2023), sec. 4; DETR (Carion et al., 2020), sec. 3.1.
    """

    classification: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    focal: bool = True

    @classmethod
    def from_config(cls, config: RTDetrV2Config) -> MatchingCosts:
        return cls(
            config.matcher_class_cost,
            config.matcher_bbox_cost,
            config.matcher_giou_cost,
            config.matcher_alpha,
            config.matcher_gamma,
            config.use_focal_loss,
        )

    def of_pairs(self, logits: Tensor, boxes: Tensor, objects: Objects) -> Tensor:
        """The cost of every query for every object of its image.

        Args:
            logits: [N, B, Q, K], float32 or float64.
            boxes: [N, B, Q, 4], (cx, cy, w, h) in 0..1.
            objects: of the B images.

        Returns:
            [N, B, Q, T], T objects of the image that has most; without meaning where an image has fewer. What is not
            finite is as dear as it can be, so that such a query wins nothing that another one can have.
        """
        classes, targets = objects.padded()  # [B, T], [B, T, 4]
        index = classes[None, :, None].expand(*logits.shape[:3], -1)
        _, giou = iou_and_giou(
            cxcywh_to_xyxy(boxes).unsqueeze(3), cxcywh_to_xyxy(targets)[None, :, None]
        )
        cost = (
            self.classification * self._classification(logits).gather(3, index)
            + self.l1
            * torch.cdist(boxes, targets.to(boxes.dtype).expand(len(boxes), -1, -1, -1), p=1.0)
            - self.giou * giou
        )
        dearest = torch.finfo(cost.dtype).max
        return cost.nan_to_num(dearest, dearest, dearest)

    def _classification(self, logits: Tensor) -> Tensor:  # [N, B, Q, K]
        if not self.focal:
            return -logits.softmax(-1)
        p = logits.sigmoid()
        positive = -self.alpha * (1 - p) ** self.gamma * (p + 1e-8).log()
        negative = -(1 - self.alpha) * p**self.gamma * (1 - p + 1e-8).log()
        return positive - negative


@torch.no_grad()
def match(costs: Tensor, objects: Objects) -> Matches:
    """Pairs of the least total cost, for each layer and image.

    Args:
        costs: [N, B, Q, T], see :meth:`MatchingCosts.of_pairs`; copied to the host once.
        objects: of the B images.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    host = costs.cpu().numpy()
    layers = [_match_layer(layer, objects) for layer in host]
    stacked = torch.from_numpy(np.stack(layers, axis=1)).to(costs.device)  # [3, N, P]
    return Matches(*stacked.unbind())


def _match_layer(costs: npt.NDArray[np.floating], objects: Objects) -> npt.NDArray[np.int64]:
    """Image, query and object of each pair, [3, P], of costs [B, Q, T]."""
    assign = _assignment()
    pairs = [np.empty((3, 0), np.int64)]
    for image, (start, count) in enumerate(zip(objects.starts(), objects.counts, strict=True)):
        query, target = assign(costs[image, :, :count])
        pairs.append(np.stack([np.full_like(query, image), query, start + target]))
    return np.concatenate(pairs, axis=1)


def _assignment() -> Callable[..., tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtraError("Training", "scipy", '"rtdetr-ops[train]"') from error
    assign: Callable[..., tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
    assign = linear_sum_assignment
    return assign
