# SPDX-License-Identifier: Apache-2.0
"""The two kinds of attention: of all tokens among each other, and of queries to sampled points of the features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdetr_ops import MSDeformAttn

from ..config import RTDetrV2Config

__all__ = ["DeformableAttention", "Levels", "SelfAttention"]

Levels = tuple[tuple[int, int], ...]
"""L pairs (H, W)."""

MODES = {"default": "bilinear", "discrete": "discrete"}


class SelfAttention(nn.Module):
    """Multi-head attention among tokens; the positions are added to queries and keys, not to values.

    Source: Attention Is All You Need (Vaswani et al., 2017), sec. 3.2; positions as in DETR (Carion et al., 2020).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As the original, which draws the three projections as one matrix [3C, C] by Xavier's rule."""
        width = self.q_proj.in_features
        bound = math.sqrt(6 / (4 * width))
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.uniform_(projection.weight, -bound, bound)
            nn.init.zeros_(projection.bias)
        nn.init.zeros_(self.o_proj.bias)

    def forward(
        self,
        tokens: Tensor,  # [B, N, C]
        positions: Tensor,  # [B or 1, N, C]
        mask: Tensor | None = None,  # [N, N], True = may look, or a number that is added
        *,
        with_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # [B, N, C], [B, heads, N, N]
        placed = tokens + positions
        query, key, value = (
            self._split_heads(projection(x)).transpose(1, 2)
            for projection, x in (
                (self.q_proj, placed),
                (self.k_proj, placed),
                (self.v_proj, tokens),
            )
        )
        weights = attention_weights(query, key, mask) if with_weights else None
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, mask, dropout)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return output, weights

    def _split_heads(self, x: Tensor) -> Tensor:
        """[B, N, C] to [B, N, heads, C/heads].

        Not ``unflatten``: torch's TorchScript exporter takes the shape of what that returns for a constant.
        """
        return x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """What scaled_dot_product_attention keeps to itself, [B, heads, N, N]."""
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1)


class DeformableAttention(MSDeformAttn):
    """Each query looks at a few points of each level, around its box; the points' places and weights come from it.

    The layer of :mod:`rtdetr_ops`, called as ``layer(query, boxes.unsqueeze(2), memory, levels)``.

    Source: Deformable DETR (Zhu et al., 2021), sec. 4.1; RT-DETRv2 (Lv et al., 2024), sec. 3, for one count of points
    per level and for discrete sampling.
    """

    n_points_scale: Tensor

    def __init__(self, config: RTDetrV2Config) -> None:
        points = config.points_per_level
        super().__init__(
            config.d_model,
            len(points),
            config.decoder_attention_heads,
            points,
            mode=MODES[config.decoder_method],
            offset_scale=config.decoder_offset_scale,
        )
        # The operator does not need it; it is part of every checkpoint.
        scale = [1 / count for count in points for _ in range(count)]
        self.register_buffer("n_points_scale", torch.tensor(scale))

    def weights(self, query: Tensor) -> Tensor:
        """The weight of each point, [B, Q, M, T], for a query [B, Q, C]."""
        _, logits = self.project(query)
        return logits.reshape(
            *query.shape[:2], self.n_heads, logits.shape[-1] // self.n_heads
        ).softmax(-1)
