# SPDX-License-Identifier: Apache-2.0
"""Which pixels of the encoder's maps become queries, and the boxes they start from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .attention import Levels

__all__ = ["Proposals", "Selection", "make_anchors", "select"]

BASE_SIZE = 0.05
"""Side of an anchor on the finest level; it doubles from level to level."""

MARGIN = 0.01
"""An anchor is used if its center and size lie in (MARGIN, 1 - MARGIN)."""


class Proposals(NamedTuple):
    """One per pixel."""

    content: Tensor  # [B, S, C]
    scores: Tensor  # [B, S, K]
    boxes: Tensor  # [B, S, 4], logits


class Selection(NamedTuple):
    """One per query."""

    content: Tensor  # [B, Q, C]
    scores: Tensor  # [B, Q, K]
    boxes: Tensor  # [B, Q, 4], logits


def make_anchors(levels: Levels, device: torch.device) -> tuple[Tensor, Tensor]:
    """A box around each pixel, as logits, and whether it is used.

    Returns:
        [1, S, 4] float32 logits of (cx, cy, w, h), and [1, S, 1] bool. An anchor that is not used has the largest
        finite number: its sigmoid is 1, and unlike infinity it survives a product with 0.

    Source: RT-DETR (Zhao et al., 2023), sec. 4.3; the original's sizes and margin.
    """
    anchors = []
    for level, (height, width) in enumerate(levels):
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        size = torch.full_like(grid_x, BASE_SIZE * 2**level)
        anchors.append(torch.stack([grid_x, grid_y, size, size], -1).flatten(0, 1))
    boxes = torch.cat(anchors)[None]
    used = ((boxes > MARGIN) & (boxes < 1 - MARGIN)).all(-1, keepdim=True)
    logits = (boxes / (1 - boxes)).log()
    return logits.where(used, torch.finfo(torch.float32).max), used


def select(proposals: Proposals, count: int, method: str) -> Selection:
    """The ``count`` best proposals by ``method``, or all of them where there are fewer.

    ``"default"`` ranks a pixel by its best class; ``"one2many"`` ranks pairs of pixel and class, so a pixel may come
    several times; ``"agnostic"`` ranks by the one class-free score.
    """
    scores = proposals.scores
    if method == "one2many":
        ranked = scores.flatten(1)
        index = _largest(ranked, count) // scores.shape[-1]
    else:
        index = _largest(scores.amax(-1), count)
    return Selection(*(_gather(tensor, index) for tensor in proposals))


def _largest(ranked: Tensor, count: int) -> Tensor:
    """Where the ``count`` largest of each row of ``ranked`` [B, N] are, or of all where there are fewer."""
    number = min(count, ranked.shape[1])
    if isinstance(number, Tensor):
        # torch.jit.trace, at an image with fewer pixels than queries: larger images have no more than ``count``.
        number = number.clamp(max=count)
    return ranked.topk(number, dim=1).indices


def _gather(tensor: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` [B, Q] of ``tensor`` [B, S, X]."""
    return tensor.gather(1, index.unsqueeze(-1).expand(-1, -1, tensor.shape[-1]))
