# SPDX-License-Identifier: Apache-2.0
"""The loss: varifocal, L1 and GIoU, of every decoder layer, the encoder's pixels and the denoising queries.

N layers, B images, Q queries, K classes, P pairs of a query and an object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..boxes import cxcywh_to_xyxy, iou_and_giou
from .matching import Matches, MatchingCosts, match
from .objects import Objects

if TYPE_CHECKING:
    from ..config import RTDetrV2Config

__all__ = ["DenoisingPredictions", "Predictions", "compute_losses"]


@dataclass(frozen=True)
class DenoisingPredictions:
    """What the decoder made of the denoising queries, whose objects are known.

    Args:
        logits: [N, B, D, K].
        boxes: [N, B, D, 4], (cx, cy, w, h) in 0..1.
        matches: [1, P], the query and the object that it was made from.
        groups: G, how often each object occurs.
    """

    logits: Tensor
    boxes: Tensor
    matches: Matches
    groups: int


@dataclass(frozen=True)
class Predictions:
    """All that is compared with the objects of a batch.

    Args:
        logits: [N, B, Q, K], of each decoder layer, the last one last.
        boxes: [N, B, Q, 4], (cx, cy, w, h) in 0..1.
        encoder_logits: [B, Q, K] of the selected pixels; K is 1 where they are scored without regard to class.
        encoder_boxes: [B, Q, 4] of the selected pixels.
        denoising: None where there are no denoising queries.
    """

    logits: Tensor
    boxes: Tensor
    encoder_logits: Tensor
    encoder_boxes: Tensor
    denoising: DenoisingPredictions | None = None


def compute_losses(
    predictions: Predictions, objects: Objects, config: RTDetrV2Config
) -> dict[str, Tensor]:
    """The weighted terms; their sum is the loss.

    All of it is computed in float32, or in float64 where predictions are: in 16 bits the costs of sure queries are
    infinite. A term is divided by the number of objects, at least 1; a denoising term by as many times the groups.
    These are the objects of the whole batch, so that the losses of its parts add up to its own.

    Args:
        predictions: of the network.
        objects: of the same images.
        config: the weights of the terms, and the form of the classification loss and of matching.

    Returns:
        Scalars by transformers' names: ``loss_vfl``, ``loss_bbox`` and ``loss_giou`` of the last layer, then with
        ``_aux_0`` and so on those of the layers before it, of which the last is the encoder's, then with ``_dn_0`` and
        so on those of the denoising queries of each layer.

    Source: RT-DETR (Zhao et al., 2023), sec. 4; VarifocalNet (Zhang et al., 2021), eq. 2.
    """
    with torch.autocast(objects.boxes.device.type, enabled=False):
        heads = [
            _Head(predictions.logits, predictions.boxes, objects),
            _Head(
                predictions.encoder_logits[None],
                predictions.encoder_boxes[None],
                _as_scored(objects, predictions.encoder_logits.shape[-1], config.num_labels),
            ),
        ]
        matches = _match_all(heads, MatchingCosts.from_config(config))
        total = max(1, objects.totals.objects)
        terms = [
            head.losses(pairs, total, config) for head, pairs in zip(heads, matches, strict=True)
        ]
        losses = _name(terms, config)
        if predictions.denoising is not None:
            losses |= _denoising_losses(predictions.denoising, objects, config)
        return losses


@dataclass(frozen=True)
class _Head:
    """N layers that are compared with the same objects."""

    logits: Tensor  # [N, B, Q, K]
    boxes: Tensor  # [N, B, Q, 4]
    objects: Objects

    def __post_init__(self) -> None:
        for name in ("logits", "boxes"):
            tensor = getattr(self, name)
            wide = torch.promote_types(tensor.dtype, torch.float32)
            object.__setattr__(self, name, tensor.to(wide))

    def costs(self, costs: MatchingCosts) -> Tensor:  # [N, B, Q, T]
        return costs.of_pairs(self.logits.detach(), self.boxes.detach(), self.objects)

    def losses(self, matches: Matches, total: float, config: RTDetrV2Config) -> Tensor:
        """[3, N]: classes, L1 and GIoU of each layer, weighted."""
        layer = torch.arange(len(self.logits), device=self.logits.device)[:, None]  # [N, 1]
        place = (layer, matches.image, matches.query)
        boxes, targets = self.boxes[place], self.objects.boxes[matches.target]  # [N, P, 4]
        iou, giou = iou_and_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets))
        classes = self.objects.classes[matches.target]
        terms = (
            config.weight_loss_vfl * self._varifocal((*place, classes), iou.detach(), config),
            config.weight_loss_bbox * (boxes - targets).abs().sum((1, 2)),
            config.weight_loss_giou * (1 - giou).sum(1),
        )
        return torch.stack(terms) / total

    def _varifocal(
        self,
        place: tuple[Tensor, ...],  # layer, image, query and class of each pair
        iou: Tensor,  # [N, P]
        config: RTDetrV2Config,
    ) -> Tensor:  # [N]
        """Pairs learn their IoU as their score, weighted by it; all else learns 0, weighted by how wrong it is."""
        score = torch.zeros_like(self.logits)
        score[place] = iou.to(score.dtype)
        weight = config.focal_loss_alpha * self.logits.detach().sigmoid() ** config.focal_loss_gamma
        weight[place] = iou.to(weight.dtype)
        return functional.binary_cross_entropy_with_logits(
            self.logits, score, weight, reduction="none"
        ).sum((1, 2, 3))


def _as_scored(objects: Objects, scores: int, classes: int) -> Objects:
    """The objects as the encoder's head knows them: of one class where it has one score for all."""
    if scores == classes:
        return objects
    return replace(objects, classes=torch.zeros_like(objects.classes))


def _match_all(heads: list[_Head], costs: MatchingCosts) -> list[Matches]:
    """The pairs of each head, with one copy to the host for all."""
    objects = heads[0].objects
    layers = [len(head.logits) for head in heads]
    stacked = match(torch.cat([head.costs(costs) for head in heads]), objects)
    split = zip(*(torch.split(part, layers) for part in stacked), strict=True)
    return [Matches(*parts) for parts in split]


def _denoising_losses(
    denoising: DenoisingPredictions, objects: Objects, config: RTDetrV2Config
) -> dict[str, Tensor]:
    head = _Head(denoising.logits, denoising.boxes, objects)
    layers = len(head.logits)
    matches = Matches(*(part.expand(layers, -1) for part in denoising.matches))
    total = objects.totals.objects * denoising.groups
    terms = head.losses(matches, max(1, total), config)
    if total == 0:
        # Queries made from nothing teach nothing, but every parameter keeps its place in the graph.
        terms = terms * 0
    return _named(terms, [f"_dn_{layer}" for layer in range(layers)])


def _name(terms: list[Tensor], config: RTDetrV2Config) -> dict[str, Tensor]:
    """Decoder terms [3, N] and encoder terms [3, 1] by name, the last layer first."""
    decoder, encoder = terms
    last = _named(decoder[:, -1:], [""])
    if not config.auxiliary_loss:
        return last
    others = torch.cat([decoder[:, :-1], encoder], 1)
    return last | _named(others, [f"_aux_{index}" for index in range(others.shape[1])])


def _named(terms: Tensor, suffixes: list[str]) -> dict[str, Tensor]:
    return {
        f"loss_{kind}{suffix}": term
        for suffix, column in zip(suffixes, terms.unbind(1), strict=True)
        for kind, term in zip(("vfl", "bbox", "giou"), column, strict=True)
    }
