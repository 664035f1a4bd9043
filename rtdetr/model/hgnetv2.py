# SPDX-License-Identifier: Apache-2.0
"""PP-HGNetV2, the backbone of RT-DETRv2's L, X and H models without ResNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config.backbones import HGNetV2Config
from .stages import ConvLayer, StagedNetwork

__all__ = ["HGNetV2"]


class LearnableAffine(nn.Module):
    """One learned factor and one learned summand for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class AffineConvLayer(ConvLayer):
    """A convolution layer that starts by Kaiming's rule; where the affine step is used, it follows the activation.

    An even kernel gets no padding: the stem pads at the right and bottom itself.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        frozen: bool,
        activation: str | None = "relu",
        groups: int = 1,
        affine: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            frozen=frozen,
            activation=activation,
            groups=groups,
        )
        nn.init.kaiming_normal_(self.convolution.weight)
        self.lab = LearnableAffine() if affine and activation is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.lab(super().forward(x))
        return output


class LightConvLayer(nn.Module):
    """A 1x1 convolution, then one of ``kernel_size`` in each channel by itself."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, frozen: bool, affine: bool
    ) -> None:
        super().__init__()
        self.conv1 = AffineConvLayer(in_channels, out_channels, 1, frozen=frozen, activation=None)
        self.conv2 = AffineConvLayer(
            out_channels,
            out_channels,
            kernel_size,
            frozen=frozen,
            groups=out_channels,
            affine=affine,
        )

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv2(self.conv1(x))
        return output


class Embedder(nn.Module):
    """The stem: a quarter of the resolution, by way of a pooling and a convolution side by side."""

    stem1: AffineConvLayer
    stem2a: AffineConvLayer
    stem2b: AffineConvLayer
    stem3: AffineConvLayer
    stem4: AffineConvLayer

    def __init__(self, config: HGNetV2Config, *, frozen: bool) -> None:
        super().__init__()
        channels, mid, out = config.stem_channels
        shape = {
            "stem1": (channels, mid, 3),
            "stem2a": (mid, mid // 2, 2),
            "stem2b": (mid // 2, mid, 2),
            "stem3": (mid * 2, mid, 3),
            "stem4": (mid, out, 1),
        }
        for (name, sizes), stride in zip(shape.items(), config.stem_strides, strict=True):
            layer = AffineConvLayer(
                *sizes,
                stride,
                frozen=frozen,
                activation=config.hidden_act,
                affine=config.use_learnable_affine_block,
            )
            self.add_module(name, layer)

    def forward(self, pixels: Tensor) -> Tensor:
        x = functional.pad(self.stem1(pixels), (0, 1, 0, 1))
        pooled = functional.max_pool2d(x, 2, stride=1, ceil_mode=True)
        convolved = self.stem2b(functional.pad(self.stem2a(x), (0, 1, 0, 1)))
        output: Tensor = self.stem4(self.stem3(torch.cat([pooled, convolved], 1)))
        return output


class Block(nn.Module):
    """Layers in a row; the input and the outputs of all of them are concatenated and squeezed to the output."""

    def __init__(
        self, config: HGNetV2Config, stage: int, in_channels: int, *, frozen: bool, residual: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        mid, out = config.stage_mid_channels[stage], config.stage_out_channels[stage]
        kernel, count = config.stage_kernel_size[stage], config.stage_numb_of_layers[stage]
        make = LightConvLayer if config.stage_light_block[stage] else AffineConvLayer
        affine = config.use_learnable_affine_block
        self.layers = nn.ModuleList(
            make(mid if index else in_channels, mid, kernel, frozen=frozen, affine=affine)
            for index in range(count)
        )
        self.aggregation = nn.Sequential(
            AffineConvLayer(in_channels + count * mid, out // 2, 1, frozen=frozen, affine=affine),
            AffineConvLayer(out // 2, out, 1, frozen=frozen, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        aggregated: Tensor = self.aggregation(torch.cat(outputs, 1))
        return aggregated + x if self.residual else aggregated


class Stage(nn.Module):
    """A strided convolution in each channel, where the stage has one, and blocks."""

    def __init__(self, config: HGNetV2Config, stage: int, *, frozen: bool) -> None:
        super().__init__()
        channels = config.stage_in_channels[stage]
        self.downsample: nn.Module = nn.Identity()
        if config.stage_downsample[stage]:
            stride = config.stage_downsample_strides[stage]
            self.downsample = AffineConvLayer(
                channels, channels, 3, stride, frozen=frozen, activation=None, groups=channels
            )
        self.blocks = nn.ModuleList(
            Block(
                config,
                stage,
                config.stage_out_channels[stage] if index else channels,
                frozen=frozen,
                residual=index > 0,
            )
            for index in range(config.stage_num_blocks[stage])
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class HGNetV2(StagedNetwork):
    """PP-HGNetV2, by default to maps of strides 8, 16 and 32.

    Source: PaddleDetection, ppdet/modeling/backbones/hgnet_v2.py.
    """

    def __init__(self, config: HGNetV2Config, *, frozen: bool) -> None:
        embedder = Embedder(config, frozen=frozen)
        count = len(config.stage_in_channels)
        stages = (Stage(config, index, frozen=frozen) for index in range(count))
        super().__init__(embedder, stages, config.out_indices)
