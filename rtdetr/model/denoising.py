# SPDX-License-Identifier: Apache-2.0
"""Denoising queries: objects with noise on class and box, which the decoder learns to restore, in training alone.

B images, M objects of the image that has most, G groups, D = 2*G*M queries; C width of the decoder. M and G are those
of the whole batch, of which the images may be a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ..config import RTDetrV2Config
from ..loss import Matches, Objects
from .layers import inverse_sigmoid

__all__ = ["MOST_OBJECTS", "DenoisingQueries", "make_denoising"]

MOST_OBJECTS = 100
"""Objects of an image that get denoising queries; of more, so many are drawn: self-attention is quadratic in them."""

NOTHING = (0.5, 0.5, 0.1, 0.1)
"""The box of the queries that a batch without objects gets, so that all parameters are used in every step."""


class DenoisingQueries(NamedTuple):
    """What is put before the queries of the image.

    In each group come the M positive queries of an image, near their objects, then the M negative ones, farther away.
    """

    content: Tensor  # [B, D, C]
    boxes: Tensor  # [B, D, 4], logits
    mask: Tensor  # [D + Q, D + Q], True = may look
    matches: Matches  # [1, P], the positive queries and their objects
    groups: int  # G

    def describe(self, queries: int) -> dict[str, Any]:
        """What an output with Q ``queries`` of the image says of them: transformers' entries, and the pairs."""
        image, query, _ = (part[0] for part in self.matches)
        batch, total = self.boxes.shape[:2]
        return {
            "dn_positive_idx": [query[image == index] for index in range(batch)],
            "dn_num_group": self.groups,
            "dn_num_split": [total, queries],
            "dn_matches": self.matches,
        }


@dataclass(frozen=True)
class _Slots:
    """The objects of each image in M places."""

    classes: Tensor  # [B, M], K where there is none
    boxes: Tensor  # [B, M, 4]
    filled: Tensor  # [B, M]
    targets: list[
        Tensor
    ]  # for each image, the objects in its first places, by their index in the batch


def make_denoising(
    objects: Objects,
    embedding: nn.Embedding,
    config: RTDetrV2Config,
    queries: int,
    generators: Sequence[torch.Generator | None] | None = None,
) -> DenoisingQueries:
    """Draw the denoising queries of a batch.

    What is drawn for an image depends on its own generator, its objects, and G.

    Args:
        objects: of the batch.
        embedding: [K + 1, C]; row K is of no class.
        config: the number of queries, and the noise.
        queries: Q, those of the image.
        generators: one for each image, on the CPU; None takes torch's own.

    Source: DN-DETR (Li et al., 2022), sec. 4; DINO (Zhang et al., 2022), sec. 3.3.
    """
    randoms = generators or [None] * len(objects.counts)
    slots = _fill(objects, config.num_labels, randoms)
    most = slots.classes.shape[1]
    groups = max(1, config.num_denoising // most) if objects.totals.most else 1
    noise = _draw_noise(slots, groups, config, randoms)
    classes = torch.where(noise.replaced, noise.classes, slots.classes[:, None, None])
    corners = cxcywh_to_xyxy(slots.boxes)[:, None, None]
    half = slots.boxes[..., 2:].repeat(1, 1, 2)[:, None, None] / 2
    noisy = (corners + config.box_noise_scale * noise.shift * half).clamp(0, 1)
    return DenoisingQueries(
        content=embedding(classes.flatten(1)),
        boxes=inverse_sigmoid(xyxy_to_cxcywh(noisy)).flatten(1, 3),
        mask=_mask(groups, 2 * most, queries, objects.boxes.device),
        matches=_match(slots.targets, groups, most, objects.boxes.device),
        groups=groups,
    )


def _fill(objects: Objects, classes: int, randoms: Sequence[torch.Generator | None]) -> _Slots:
    device = objects.boxes.device
    targets = [
        start + _choose(count, random)
        for start, count, random in zip(objects.starts(), objects.counts, randoms, strict=True)
    ]
    most = max(1, min(objects.totals.most, MOST_OBJECTS))
    batch = len(targets)
    slots = _Slots(
        torch.full((batch, most), classes, device=device),
        objects.boxes.new_zeros(batch, most, 4),
        torch.zeros(batch, most, dtype=torch.bool),
        targets,
    )
    for image, target in enumerate(targets):
        slots.filled[image, : len(target)] = True
        index = target.to(device)
        slots.classes[image, : len(target)] = objects.classes[index]
        slots.boxes[image, : len(target)] = objects.boxes[index]
    if not objects.totals.most:
        slots.boxes[:] = slots.boxes.new_tensor(NOTHING)
    return slots


def _choose(count: int, random: torch.Generator | None) -> Tensor:
    if count <= MOST_OBJECTS:
        return torch.arange(count)
    return torch.randperm(count, generator=random)[:MOST_OBJECTS].sort().values


@dataclass(frozen=True)
class _Noise:
    replaced: Tensor  # [B, G, 2, M], whether the class is another one
    classes: Tensor  # [B, G, 2, M], that one
    shift: Tensor  # [B, G, 2, M, 4], of the corners, in half sides: below 1 for positives, 1 to 2 for negatives


def _draw_noise(
    slots: _Slots, groups: int, config: RTDetrV2Config, randoms: Sequence[torch.Generator | None]
) -> _Noise:
    """Drawn on the host, image by image, and copied to the device at once."""
    batch, most = slots.filled.shape
    replaced = torch.zeros(batch, groups, 2, most, dtype=torch.bool)
    classes = torch.zeros(batch, groups, 2, most, dtype=torch.int64)
    shift = torch.zeros(batch, groups, 2, most, 4)
    farther = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    for image, (target, random) in enumerate(zip(slots.targets, randoms, strict=True)):
        places = (groups, 2, len(target))
        part = (image, ..., slice(len(target)))
        # Half of the drawn classes are kept away: the published ratio counts them as noise, its code does not.
        replaced[part] = torch.rand(places, generator=random) < 0.5 * config.label_noise_ratio
        classes[part] = torch.randint(config.num_labels, places, generator=random)
        sign = 2.0 * torch.randint(2, (*places, 4), generator=random) - 1
        distance = torch.rand((*places, 4), generator=random) + farther
        shift[image, :, :, : len(target)] = sign * distance
    device = slots.boxes.device
    return _Noise(replaced.to(device), classes.to(device), shift.to(device, slots.boxes.dtype))


def _mask(groups: int, size: int, queries: int, device: torch.device) -> Tensor:
    """A group sees itself and the queries of the image, which see each other alone."""
    group = torch.arange(groups, device=device).repeat_interleave(size)
    owner = torch.cat([group, torch.full((queries,), -1, device=device)])
    return (owner[:, None] == owner) | (owner == -1)


def _match(targets: list[Tensor], groups: int, most: int, device: torch.device) -> Matches:
    """Of each image, group by group, the positive queries and their objects."""
    first = 2 * most * torch.arange(groups)[:, None]  # [G, 1], where a group begins
    pairs = [
        torch.stack(
            [
                torch.full((groups, len(target)), image),
                first + torch.arange(len(target)),
                target.expand(groups, -1),
            ]
        ).flatten(1)
        for image, target in enumerate(targets)
    ]
    stacked = torch.cat(pairs, 1) if pairs else torch.empty(3, 0, dtype=torch.int64)
    return Matches(*stacked.to(device)[:, None])
