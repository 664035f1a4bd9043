# SPDX-License-Identifier: Apache-2.0
"""What decides the shape of a model, as data: configurations, and the presets of the published models."""

from .backbones import HGNetV2Config, ResNetConfig, RTDetrResNetConfig
from .rtdetrv2 import RTDetrV2Config

__all__ = ["HGNetV2Config", "RTDetrResNetConfig", "RTDetrV2Config", "ResNetConfig"]
