# SPDX-License-Identifier: Apache-2.0
"""Real detectors of transformers, with seeded random weights: nothing is downloaded.

Their detections mean nothing; their shapes, speed and arithmetic are those of the trained ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["MODELS", "make_deformable_detr", "make_rt_detr_v2"]


def make_rt_detr_v2(seed: int = 0, **changes: Any) -> nn.Module:
    """RT-DETRv2 with a ResNet-18 backbone, in evaluation mode; ``changes`` of its configuration."""
    from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

    backbone: dict[str, Any] = {
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [2, 2, 2, 2],
        "layer_type": "basic",
        "out_indices": [2, 3, 4],
    }
    options: dict[str, Any] = {
        "backbone_config": RTDetrResNetConfig(**backbone),
        "encoder_in_channels": [128, 256, 512],
        "hidden_expansion": 0.5,
        "decoder_layers": 3,
        "num_labels": 80,
        **changes,
    }
    return _seeded(RTDetrV2ForObjectDetection, RTDetrV2Config(**options), seed)


def make_deformable_detr(seed: int = 0) -> nn.Module:
    """Deformable DETR with a ResNet-50 backbone, in evaluation mode."""
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    stages: dict[str, Any] = {"out_features": ["stage2", "stage3", "stage4"]}
    options: dict[str, Any] = {"backbone_config": ResNetConfig(**stages), "num_labels": 91}
    return _seeded(DeformableDetrForObjectDetection, DeformableDetrConfig(**options), seed)


def _seeded(model: Callable[[Any], nn.Module], config: Any, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = model(config).eval()
    for layer in network.modules():
        _awaken(layer)
    return network


def _awaken(layer: nn.Module) -> None:
    """Replace initial values under which the outputs hardly depend on what the attention samples.

    Box heads, offsets and attention logits start at zero and ignore their input; convolutions and
    their normalization start so small that the features fade from layer to layer.
    """
    if type(layer).__name__.endswith("BatchNorm2d"):
        nn.init.ones_(layer.weight)  # type: ignore[arg-type]
    elif isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight)
    elif isinstance(layer, nn.Linear) and not layer.weight.any():
        nn.init.normal_(layer.weight, std=0.1)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "RT-DETRv2 R18 640x640": make_rt_detr_v2,
    "Deformable DETR R50 640x640": make_deformable_detr,
}
