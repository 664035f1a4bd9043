# SPDX-License-Identifier: Apache-2.0
"""The efficient hybrid encoder: attention within the coarsest map, convolutions across maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import RTDetrV2Config
from .attention import SelfAttention
from .layers import ACTIVATIONS, ConvNorm, FeedForward, to_tokens
from .outputs import Recorder
from .positions import position_embedding
from .size_cache import SizeCache

__all__ = ["HybridEncoder"]


class EncoderLayer(nn.Module):
    """A transformer layer that normalizes after each of its two steps."""

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__()
        width = config.encoder_hidden_dim
        self.dropout = config.dropout
        self.self_attn = SelfAttention(width, config.encoder_attention_heads, config.dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.mlp = FeedForward(
            width,
            config.encoder_ffn_dim,
            config.encoder_activation_function,
            config.dropout,
            config.activation_dropout,
        )
        self.final_layer_norm = nn.LayerNorm(width, config.layer_norm_eps)

    def forward(self, tokens: Tensor, positions: Tensor, record: Recorder) -> Tensor:
        attended, weights = self.self_attn(tokens, positions, with_weights=record.attentions)
        record.attention(weights)
        attended = functional.dropout(attended, self.dropout, self.training)
        tokens = self.self_attn_layer_norm(tokens + attended)
        output: Tensor = self.final_layer_norm(tokens + self.mlp(tokens))
        return output


class AIFI(nn.Module):
    """Attention-based intra-scale feature interaction: a transformer over the pixels of one map [B, C, H, W]."""

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__()
        self.temperature = config.positional_encoding_temperature
        self.legacy = config.legacy_position_embedding
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.positions = SizeCache(position_embedding)

    def forward(self, x: Tensor, record: Recorder) -> Tensor:
        channels, height, width = x.shape[1:]
        (positions,) = self.positions(
            height, width, channels, self.temperature, self.legacy, device=x.device
        )
        tokens = to_tokens(x)
        positions = positions.to(tokens.dtype)
        for layer in self.layers:
            tokens = layer(tokens, positions, record)
        return tokens.transpose(1, 2).reshape(x.shape)


class RepVggBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, which can be merged into one.

    Source: RepVGG (Ding et al., 2021), sec. 3.
    """

    def __init__(self, channels: int, activation: str, eps: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3, eps=eps)
        self.conv2 = ConvNorm(channels, channels, 1, eps=eps)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.conv1(x) + self.conv2(x))


class FusionBlock(nn.Module):
    """Two maps, concatenated to 2C channels, become one of C: half of the way through three RepVGG blocks."""

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__()
        width = config.encoder_hidden_dim
        hidden = int(width * config.hidden_expansion)
        act, eps = config.activation_function, config.batch_norm_eps
        self.conv1 = ConvNorm(2 * width, hidden, 1, activation=act, eps=eps)
        self.conv2 = ConvNorm(2 * width, hidden, 1, activation=act, eps=eps)
        self.bottlenecks = nn.Sequential(*(RepVggBlock(hidden, act, eps) for _ in range(3)))
        self.conv3: nn.Module = nn.Identity()
        if hidden != width:
            self.conv3 = ConvNorm(hidden, width, 1, activation=act, eps=eps)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        x = torch.cat([first, second], 1)
        output: Tensor = self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))
        return output


class HybridEncoder(nn.Module):
    """AIFI on the chosen maps, then fusion from coarse to fine and from fine to coarse.

    Takes and returns one map [B, C, H_l, W_l] per level, finest first, each twice as large as the next.

    Source: RT-DETR (Zhao et al., 2023), sec. 4.2 and fig. 4.
    """

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__()
        width, steps = config.encoder_hidden_dim, len(config.encoder_in_channels) - 1
        act, eps = config.activation_function, config.batch_norm_eps
        self.where = config.encode_proj_layers
        self.aifi = nn.ModuleList(AIFI(config) for _ in self.where)
        self.lateral_convs = nn.ModuleList(
            ConvNorm(width, width, 1, activation=act, eps=eps) for _ in range(steps)
        )
        self.fpn_blocks = nn.ModuleList(FusionBlock(config) for _ in range(steps))
        self.downsample_convs = nn.ModuleList(
            ConvNorm(width, width, 3, 2, activation=act, eps=eps) for _ in range(steps)
        )
        self.pan_blocks = nn.ModuleList(FusionBlock(config) for _ in range(steps))

    def forward(self, maps: list[Tensor], record: Recorder) -> list[Tensor]:
        maps = list(maps)
        for index in self.where[:1]:
            record.state(maps[index])  # as the decoder's: the first state is what comes in
        for index, aifi in zip(self.where, self.aifi, strict=True):
            maps[index] = aifi(maps[index], record)
            record.state(maps[index])
        return self.up(self.down(maps))

    def down(self, maps: list[Tensor]) -> list[Tensor]:
        """From coarse to fine; what was laid over the finer map takes the place of the coarser one."""
        top, fused = maps[-1], []
        steps = zip(self.lateral_convs, self.fpn_blocks, reversed(maps[:-1]), strict=True)
        for lateral, block, finer in steps:
            top = lateral(top)
            fused.append(top)
            top = block(functional.interpolate(top, scale_factor=2.0, mode="nearest"), finer)
        return [top, *reversed(fused)]

    def up(self, maps: list[Tensor]) -> list[Tensor]:
        """From fine to coarse."""
        outputs = [maps[0]]
        steps = zip(self.downsample_convs, self.pan_blocks, maps[1:], strict=True)
        for shrink, block, coarser in steps:
            outputs.append(block(shrink(outputs[-1]), coarser))
        return outputs
