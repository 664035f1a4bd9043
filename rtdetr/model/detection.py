# SPDX-License-Identifier: Apache-2.0
"""The detector: the network with a class head and a box head for each decoder layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config import RTDetrV2Config
from ..loss import DenoisingPredictions, Labels, Objects, Predictions, compute_losses
from ..weights.names import to_module_names
from .model import RTDetrV2Model, box_head, score_head
from .optimize import optimize
from .outputs import RTDetrV2ModelOutput, RTDetrV2ObjectDetectionOutput
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
        decoder = self.model.decoder
        decoder.class_embed = nn.ModuleList(score_head(config, config.num_labels) for _ in layers)
        decoder.bbox_embed = nn.ModuleList(box_head(config.d_model) for _ in layers)
        self.register_load_state_dict_pre_hook(_take_other_names)  # type: ignore[no-untyped-call]

    # A module has each tensor once: those who save a state dict refuse one under two names.

    @property
    def class_embed(self) -> nn.ModuleList:
        """The class heads, one for each decoder layer."""
        heads = self.model.decoder.class_embed
        assert heads is not None
        return heads

    @property
    def bbox_embed(self) -> nn.ModuleList:
        """The box heads, one for each decoder layer."""
        heads = self.model.decoder.bbox_embed
        assert heads is not None
        return heads

    def forward(
        self,
        pixel_values: Tensor | None,
        pixel_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: list[Tensor] | None = None,
        labels: Sequence[Labels] | Objects | None = None,
        *,
        generators: Sequence[torch.Generator] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Detect. Arguments and errors are those of :meth:`RTDetrV2Model.forward`.

        Returns:
            :class:`~rtdetr.model.RTDetrV2ObjectDetectionOutput`: ``logits`` [B, Q, K] and ``pred_boxes`` [B, Q, 4], and
            what the model returned; with ``labels`` the ``loss`` too, in evaluation mode without denoising.
        """
        objects = None
        if labels is not None:
            batch = len(labels) if pixel_values is None else len(pixel_values)
            classes = self.config.num_labels
            objects = Objects.from_labels(labels, batch, classes, self.device)
        outputs = self.model(
            pixel_values,
            pixel_mask,
            encoder_outputs,
            inputs_embeds,
            objects,
            generators=generators,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        learned = {} if objects is None else self._learn(outputs, objects)
        detected = RTDetrV2ObjectDetectionOutput(
            **learned,
            logits=outputs.intermediate_logits[:, -1],
            pred_boxes=outputs.intermediate_reference_points[:, -1],
            **outputs,
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return detected if as_dict else detected.to_tuple()

    def _learn(self, outputs: RTDetrV2ModelOutput, objects: Objects) -> dict[str, Any]:
        """``loss``, ``loss_dict`` and ``auxiliary_outputs`` of the model's outputs."""
        predictions = split_predictions(outputs)
        losses = compute_losses(predictions, objects, self.config)
        auxiliary = [
            *zip(predictions.logits[:-1], predictions.boxes[:-1], strict=True),
            (predictions.encoder_logits, predictions.encoder_boxes),
        ]
        return {
            "loss": torch.stack(list(losses.values())).sum(),
            "loss_dict": losses,
            "auxiliary_outputs": [{"logits": x, "pred_boxes": y} for x, y in auxiliary]
            if self.config.auxiliary_loss
            else None,
        }

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


def _take_other_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Let a state dict have the names of any file: a Trainer of transformers loads what ``save_pretrained`` wrote."""
    part = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
    tensors = {name.removeprefix(prefix): tensor for name, tensor in part.items()}
    renamed, unknown = to_module_names(tensors)
    state.update({prefix + name: tensor for name, tensor in renamed.items()})
    state.update({prefix + name: tensors[name] for name in unknown})


def split_predictions(outputs: RTDetrV2ModelOutput) -> Predictions:
    """What the loss looks at, the denoising queries apart from those of the image."""
    logits, boxes = outputs.intermediate_logits, outputs.intermediate_reference_points
    scores, places = outputs.enc_topk_logits, outputs.enc_topk_bboxes
    assert isinstance(logits, Tensor)
    assert boxes is not None
    assert scores is not None
    assert places is not None
    logits, boxes = logits.transpose(0, 1), boxes.transpose(0, 1)  # [N, B, D + Q, ...]
    meta = outputs.denoising_meta_values
    if meta is None:
        return Predictions(logits, boxes, scores, places)
    split = meta["dn_num_split"]
    noisy, logits = torch.split(logits, split, 2)
    noisy_boxes, boxes = torch.split(boxes, split, 2)
    denoising = DenoisingPredictions(noisy, noisy_boxes, meta["dn_matches"], meta["dn_num_group"])
    return Predictions(logits, boxes, scores, places, denoising)
