# SPDX-License-Identifier: Apache-2.0
"""ResNet-vd, the backbone of most RT-DETRv2 models."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from ..config.backbones import ResNetConfig
from .layers import ACTIVATIONS
from .stages import ConvLayer, StagedNetwork

__all__ = ["ResNet"]


class Block(nn.Module):
    """Two or three convolutions beside a shortcut, which projects in the first block of a stage.

    Where the block halves the map, the shortcut averages first: a 1x1 convolution of stride 2 sees a quarter of it.
    """

    def __init__(
        self,
        config: ResNetConfig,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        frozen: bool,
    ) -> None:
        super().__init__()
        self.activation = config.hidden_act
        act = config.hidden_act
        if config.layer_type == "basic":
            shape: tuple[tuple[int, int, int, str | None], ...]
            shape = ((3, out_channels, stride, act), (3, out_channels, 1, None))
        else:
            inner = out_channels // 4
            first, second = (stride, 1) if config.downsample_in_bottleneck else (1, stride)
            shape = ((1, inner, first, act), (3, inner, second, act), (1, out_channels, 1, None))
        layers = []
        channels = in_channels
        for kernel, width, step, activation in shape:
            layers.append(
                ConvLayer(channels, width, kernel, step, frozen=frozen, activation=activation)
            )
            channels = width
        self.layer = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()

    def project(self, in_channels: int, out_channels: int, stride: int, *, frozen: bool) -> None:
        """Give the shortcut a projection."""
        convolution = ConvLayer(in_channels, out_channels, 1, frozen=frozen)
        if stride == 1:
            self.shortcut = convolution
        else:
            pool = nn.AvgPool2d(stride, stride, ceil_mode=True)
            self.shortcut = nn.Sequential(pool, convolution)

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.layer(x) + self.shortcut(x))


class Stage(nn.Module):
    """Blocks of one resolution; the first one changes it."""

    def __init__(
        self,
        config: ResNetConfig,
        channels: tuple[int, int],  # in, out
        depth: int,
        stride: int,
        *,
        frozen: bool,
    ) -> None:
        super().__init__()
        first = Block(config, *channels, stride, frozen=frozen)
        first.project(*channels, stride, frozen=frozen)
        rest = (Block(config, channels[1], channels[1], 1, frozen=frozen) for _ in range(depth - 1))
        self.layers = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output


class Embedder(nn.Module):
    """The stem: three convolutions and a pooling, to a quarter of the resolution."""

    def __init__(self, config: ResNetConfig, *, frozen: bool) -> None:
        super().__init__()
        width = config.embedding_size
        act = config.hidden_act
        self.embedder = nn.Sequential(
            ConvLayer(config.num_channels, width // 2, 3, 2, frozen=frozen, activation=act),
            ConvLayer(width // 2, width // 2, 3, frozen=frozen, activation=act),
            ConvLayer(width // 2, width, 3, frozen=frozen, activation=act),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return functional.max_pool2d(self.embedder(pixels), 3, stride=2, padding=1)


class ResNet(StagedNetwork):
    """ResNet-vd, by default to maps of strides 8, 16 and 32.

    Source: Bag of Tricks for Image Classification (He et al., 2018), sec. 4, ResNet-D.
    """

    def __init__(self, config: ResNetConfig, *, frozen: bool) -> None:
        widths = (config.embedding_size, *config.hidden_sizes)
        first = 2 if config.downsample_in_first_stage else 1
        embedder = Embedder(config, frozen=frozen)
        stages = (
            Stage(config, channels, depth, 2 if index else first, frozen=frozen)
            for index, (channels, depth) in enumerate(
                zip(pairwise(widths), config.depths, strict=True)
            )
        )
        super().__init__(embedder, stages, config.out_indices)
