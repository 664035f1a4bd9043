# SPDX-License-Identifier: Apache-2.0
"""A detector of a quarter million parameters that finds something different in every image."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rtdetr.config import ResNetConfig, RTDetrV2Config
from rtdetr.detector import RTDETR
from rtdetr.model import RTDetrV2ForObjectDetection
from rtdetr.processing.image_processor import RTDetrImageProcessor

NAMES = {0: "person", 1: "bus", 2: "dog"}
SIDE = 96


def tiny_config() -> RTDetrV2Config:
    backbone = ResNetConfig(
        layer_type="basic", depths=(1, 1, 1, 1), hidden_sizes=(8, 16, 24, 32), embedding_size=8
    )
    return RTDetrV2Config(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        encoder_in_channels=backbone.channels,
        encoder_hidden_dim=32,
        encoder_ffn_dim=32,
        encoder_attention_heads=4,
        decoder_in_channels=(32, 32, 32),
        d_model=32,
        decoder_ffn_dim=32,
        decoder_attention_heads=4,
        decoder_layers=2,
        num_queries=20,
        id2label=NAMES,
    )


def tiny_model() -> RTDetrV2ForObjectDetection:
    """Fresh heads point nowhere and doubt everything: these are drawn wide, so that scores spread over 0..1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = RTDetrV2ForObjectDetection(tiny_config()).eval()
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and ("class_embed" in name or "score_head" in name):
                nn.init.normal_(module.weight, std=1.0)
                nn.init.constant_(module.bias, -1.0)
            elif isinstance(module, nn.Linear) and "bbox" in name:
                nn.init.normal_(module.weight, std=0.3)
        return model


def tiny_detector() -> RTDETR:
    """As if loaded: it does not call its weights random."""
    detector = RTDETR("tiny", config=tiny_config(), weights=None, device="cpu")
    detector.model = tiny_model()
    detector.processor = RTDetrImageProcessor(size=SIDE)
    detector.is_random = False
    return detector


def save_tiny(directory: Path) -> Path:
    """The detector as a directory in Hugging Face form."""
    return tiny_detector().save_pretrained(directory)
