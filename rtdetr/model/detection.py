# SPDX-License-Identifier: Apache-2.0
"""The detector: the network with a class head and a box head for each decoder layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import RTDetrV2Config
from .model import RTDetrV2Model, box_head, score_head
from .optimize import optimize
from .outputs import RTDetrV2ObjectDetectionOutput
from .pretrained import Pretrained

__all__ = ["RTDetrV2ForObjectDetection"]


class RTDetrV2ForObjectDetection(Pretrained):
    """The detector: RT-DETRv2 with a class head and a box head for each decoder layer.

    Args:
        config: its shape; see :class:`~rtdetr.config.RTDetrV2Config`.

    ``from_pretrained`` and ``save_pretrained`` read and write weights; see :mod:`rtdetr.weights`.
    """

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__(config)
        layers = range(config.decoder_layers)
        self.model = RTDetrV2Model(config)
        self.class_embed = nn.ModuleList(score_head(config, config.num_labels) for _ in layers)
        self.bbox_embed = nn.ModuleList(box_head(config.d_model) for _ in layers)
        self.model.decoder.class_embed = self.class_embed
        self.model.decoder.bbox_embed = self.bbox_embed

    def forward(
        self,
        pixel_values: Tensor | None,
        pixel_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: list[Tensor] | None = None,
        labels: list[dict[str, Tensor]] | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Detect. Arguments and errors are those of :meth:`RTDetrV2Model.forward`.

        Returns:
            :class:`~rtdetr.model.RTDetrV2ObjectDetectionOutput`: ``logits`` [B, Q, K] and ``pred_boxes`` [B, Q, 4], and
            what the model returned.
        """
        outputs = self.model(
            pixel_values,
            pixel_mask,
            encoder_outputs,
            inputs_embeds,
            labels,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        detected = RTDetrV2ObjectDetectionOutput(
            logits=outputs.intermediate_logits[:, -1],
            pred_boxes=outputs.intermediate_reference_points[:, -1],
            **outputs,
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return detected if as_dict else detected.to_tuple()

    def optimize(
        self, *, dtype: torch.dtype | None = None, channels_last: bool = True, check: bool = True
    ) -> RTDetrV2ForObjectDetection:
        """A copy for inference alone, several times as fast; see :func:`rtdetr.optimize`."""
        return optimize(self, dtype=dtype, channels_last=channels_last, check=check)

    def freeze_backbone(self) -> None:
        """Train nothing of the backbone."""
        self.model.freeze_backbone()

    def unfreeze_backbone(self) -> None:
        """Train the backbone, but for what ``freeze_at`` keeps."""
        self.model.unfreeze_backbone()
