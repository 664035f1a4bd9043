# SPDX-License-Identifier: Apache-2.0
"""What both backbones share: stages in a row behind a stem, and the layer that they are built from."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from .layers import ConvNorm

__all__ = ["ConvLayer", "StagedNetwork"]


class ConvLayer(ConvNorm):
    """The same layer, whose parts are called as in transformers' backbones."""

    names = ("convolution", "normalization")

    convolution: nn.Conv2d
    normalization: nn.Module


class Stages(nn.Module):
    """All stages; named so that parameters are called as in transformers."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)


class StagedNetwork(nn.Module):
    """[B, 3, H, W] to the maps [B, C_l, H_l, W_l] of the stages in ``out_indices``, counted from 1."""

    def __init__(
        self, embedder: nn.Module, stages: Iterable[nn.Module], out_indices: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.out_indices = out_indices
        self.embedder = embedder
        self.encoder = Stages(stages)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = self.embedder(pixels)
        maps = []
        for index, stage in enumerate(self.encoder.stages, start=1):
            x = stage(x)
            if index in self.out_indices:
                maps.append(x)
        return maps
