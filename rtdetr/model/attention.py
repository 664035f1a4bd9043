# SPDX-License-Identifier: Apache-2.0
"""The two kinds of attention: of all tokens among each other, and of queries to sampled points of the features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdetr_ops import ms_deform_attn_fused

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
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
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


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """What scaled_dot_product_attention keeps to itself, [B, heads, N, N]."""
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1)


class DeformableAttention(nn.Module):
    """Each query looks at a few points of each level, around its box; the points' places and weights come from it.

    Source: Deformable DETR (Zhu et al., 2021), sec. 4.1; RT-DETRv2 (Lv et al., 2024), sec. 3, for one count of points
    per level and for discrete sampling, which has no gradient to the offsets: they are frozen.
    """

    n_points_scale: Tensor

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__()
        width, taps = config.d_model, sum(config.points_per_level)
        self.heads = config.decoder_attention_heads
        self.points = config.points_per_level
        self.mode = MODES[config.decoder_method]
        self.offset_scale = config.decoder_offset_scale
        # The operator does not need it; it is part of every checkpoint.
        scale = [1 / count for count in self.points for _ in range(count)]
        self.register_buffer("n_points_scale", torch.tensor(scale))
        self.sampling_offsets = nn.Linear(width, self.heads * taps * 2)
        self.attention_weights = nn.Linear(width, self.heads * taps)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.reset_parameters()
        self.sampling_offsets.requires_grad_(self.mode != "discrete")

    def reset_parameters(self) -> None:
        """Uniform attention over a star of points: head m looks along angle 2*pi*m/M, point p lies p + 1 steps out."""
        angle = torch.arange(self.heads, dtype=torch.float32) * (2.0 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)  # [M, 2]
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1.0, count + 1) for count in self.points])  # [T]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((direction[:, None] * steps[:, None]).flatten())
        for zero in (self.sampling_offsets.weight, *self.attention_weights.parameters()):
            nn.init.zeros_(zero)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,  # [B, Q, C]
        boxes: Tensor,  # [B, Q, 4], (cx, cy, w, h) in 0..1
        memory: Tensor,  # [B, S, C]
        levels: Levels,
        *,
        with_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # [B, Q, C], [B, Q, M, T]
        offsets, logits = self.project(query)
        taps = (*query.shape[:2], self.heads, sum(self.points))
        logits = logits.reshape(taps)
        attended = ms_deform_attn_fused(
            self.value_proj(memory).unflatten(-1, (self.heads, -1)),  # [B, S, M, D]
            levels,
            boxes.unsqueeze(2),
            offsets.reshape(*taps, 2),  # [B, Q, M, T, 2]
            logits,  # [B, Q, M, T]
            points=self.points,
            mode=self.mode,
            offset_scale=self.offset_scale,
        )
        output: Tensor = self.output_proj(attended)
        return output, logits.softmax(-1) if with_weights else None

    def project(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets [B, Q, M*T*2] in units of the box, and logits [B, Q, M*T]."""
        return self.sampling_offsets(query), self.attention_weights(query)
