# SPDX-License-Identifier: Apache-2.0
"""The decoder: queries look at each other and at the features, and each layer moves their boxes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import RTDetrV2Config
from .attention import DeformableAttention, Levels, SelfAttention
from .layers import FeedForward, MLPHead, inverse_sigmoid
from .outputs import Recorder

__all__ = ["Decoded", "Decoder"]


class Decoded(NamedTuple):
    """The outputs of the N layers that were run."""

    states: Tensor  # [B, N, Q, C]
    logits: Tensor | tuple[()]  # [B, N, Q, K]; empty without heads
    boxes: Tensor  # [B, N, Q, 4]


class DecoderLayer(nn.Module):
    """Self-attention, deformable attention to the features, feed-forward; each with a residual, then normalized."""

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__()
        width, eps = config.d_model, config.layer_norm_eps
        self.dropout = config.dropout
        self.self_attn = SelfAttention(
            width, config.decoder_attention_heads, config.attention_dropout
        )
        self.self_attn_layer_norm = nn.LayerNorm(width, eps)
        self.encoder_attn = DeformableAttention(config)
        self.encoder_attn_layer_norm = nn.LayerNorm(width, eps)
        self.mlp = FeedForward(
            width,
            config.decoder_ffn_dim,
            config.decoder_activation_function,
            config.dropout,
            config.activation_dropout,
        )
        self.final_layer_norm = nn.LayerNorm(width, eps)
        for linear in (self.mlp.fc1, self.mlp.fc2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        positions: Tensor,  # [B, Q, C]
        boxes: Tensor,  # [B, Q, 4]
        memory: Tensor,  # [B, S, C]
        levels: Levels,
        mask: Tensor | None,
        record: Recorder,
    ) -> Tensor:
        attended, weights = self.self_attn(queries, positions, mask, with_weights=record.attentions)
        record.attention(weights)
        queries = self.self_attn_layer_norm(queries + self._drop(attended))
        placed = queries + positions
        attended = self.encoder_attn(placed, boxes.unsqueeze(2), memory, levels)
        if record.attentions:
            record.cross_attention(self.encoder_attn.weights(placed))
        queries = self.encoder_attn_layer_norm(queries + self._drop(attended))
        output: Tensor = self.final_layer_norm(queries + self.mlp(queries))
        return output

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class Decoder(nn.Module):
    """Layers that refine boxes one after the other.

    ``class_embed`` and ``bbox_embed``, a head of each kind per layer, belong to the detector, which puts them here;
    without them the boxes stay where they are.

    Source: RT-DETR (Zhao et al., 2023), sec. 4.1; DINO (Zhang et al., 2022), sec. 3.4, for looking forward twice.
    """

    class_embed: nn.ModuleList | None
    bbox_embed: nn.ModuleList | None

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__()
        width = config.d_model
        self.last_layer = config.last_layer
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.query_pos_head = MLPHead(4, 2 * width, width, layers=2)
        for linear in self.query_pos_head.layers:
            nn.init.xavier_uniform_(linear.get_parameter("weight"))
        self.class_embed = None
        self.bbox_embed = None

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        boxes: Tensor,  # [B, Q, 4], logits
        memory: Tensor,  # [B, S, C]
        levels: Levels,
        mask: Tensor | None,
        record: Recorder,
    ) -> Decoded:
        reference = boxes.sigmoid()
        previous = reference
        states, logits, outputs = [], [], []
        record.state(queries)
        for index, layer in enumerate(self._layers_to_run()):
            positions = self.query_pos_head(reference.to(queries.dtype))
            queries = layer(queries, positions, reference, memory, levels, mask, record)
            record.state(queries)
            states.append(queries)
            if self.class_embed is not None:
                logits.append(self.class_embed[index](queries))
            if self.bbox_embed is not None:
                change = self.bbox_embed[index](queries)
                moved = (change + inverse_sigmoid(reference)).sigmoid()
                outputs.append(self._look_twice(change, moved, previous, index))
                previous, reference = moved, moved.detach()
            else:
                outputs.append(reference)
        return Decoded(
            torch.stack(states, 1),
            torch.stack(logits, 1) if logits else (),
            torch.stack(outputs, 1),
        )

    def _layers_to_run(self) -> nn.ModuleList:
        return self.layers if self.training else self.layers[: self.last_layer + 1]

    def _look_twice(self, change: Tensor, moved: Tensor, previous: Tensor, index: int) -> Tensor:
        """In training a layer's box also teaches the layer before it: the same numbers, one more gradient."""
        if not self.training or index == 0:
            return moved
        return (change + inverse_sigmoid(previous)).sigmoid()
