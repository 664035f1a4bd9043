# SPDX-License-Identifier: Apache-2.0
"""The detector for transformers' Trainer, which saves with a configuration what is a ``PreTrainedModel`` alone.

A program changes its import line to ``from rtdetr.transformers import RTDetrV2ForObjectDetection, ...``. This is the
only module that imports transformers.
"""

from __future__ import annotations

from .config import RTDetrV2Config
from .errors import MissingExtraError
from .model import RTDetrV2ForObjectDetection as Detector
from .processing.image_processor import RTDetrImageProcessor

try:
    from transformers import PreTrainedModel
except ImportError as error:
    raise MissingExtraError("rtdetr.transformers", "transformers", "transformers") from error

__all__ = ["RTDetrImageProcessor", "RTDetrV2Config", "RTDetrV2ForObjectDetection"]


class RTDetrV2ForObjectDetection(Detector, PreTrainedModel):  # type: ignore[misc, no-untyped-call]
    """:class:`rtdetr.RTDetrV2ForObjectDetection`, and a ``PreTrainedModel`` to those who ask.

    Args:
        config: its shape; see :class:`~rtdetr.config.RTDetrV2Config`.
    """

    config_class = RTDetrV2Config  # type: ignore[assignment]
