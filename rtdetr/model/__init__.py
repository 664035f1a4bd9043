# SPDX-License-Identifier: Apache-2.0
"""RT-DETRv2's network. Modules and parameters are named as in transformers 5, so state dicts interchange."""

from .detection import RTDetrV2ForObjectDetection
from .model import RTDetrV2Model
from .outputs import RTDetrV2ModelOutput, RTDetrV2ObjectDetectionOutput

__all__ = [
    "RTDetrV2ForObjectDetection",
    "RTDetrV2Model",
    "RTDetrV2ModelOutput",
    "RTDetrV2ObjectDetectionOutput",
]
