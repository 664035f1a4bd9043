# SPDX-License-Identifier: Apache-2.0
"""The backbone of a configuration, and which of its parts are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ..config import HGNetV2Config, ResNetConfig, RTDetrV2Config
from .hgnetv2 import HGNetV2
from .resnet import ResNet

__all__ = ["Backbone"]

BUILDERS: Mapping[type, Callable[..., Any]] = {ResNetConfig: ResNet, HGNetV2Config: HGNetV2}


class Backbone(nn.Module):
    """Holds the network as ``model``: [B, 3, H, W] to maps [B, C_l, H_l, W_l]."""

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__()
        build = BUILDERS[type(config.backbone_config)]
        frozen = config.freeze_backbone_batch_norms
        self.model: ResNet | HGNetV2 = build(config.backbone_config, frozen=frozen)
        self.freeze_at = config.freeze_at
        self.unfreeze()

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model(pixels)
        return maps

    def freeze(self) -> None:
        """Train nothing of it."""
        self.requires_grad_(False)

    def unfreeze(self) -> None:
        """Train all of it but what ``freeze_at`` keeps: the stem from 0 on, and the first ``freeze_at`` stages."""
        self.requires_grad_(True)
        if self.freeze_at >= 0:
            self.model.embedder.requires_grad_(False)
            for stage in self.model.encoder.stages[: self.freeze_at]:
                stage.requires_grad_(False)
