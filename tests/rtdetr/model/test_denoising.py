# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtdetr.boxes import cxcywh_to_xyxy
from rtdetr.config import RTDetrV2Config
from rtdetr.loss import BatchTotals, Objects
from rtdetr.model.denoising import MOST_OBJECTS, DenoisingQueries, make_denoising
from rtdetr.model.layers import inverse_sigmoid

CLASSES, WIDTH, QUERIES = 5, 8, 30


def draw_objects(*counts: int, seed: int = 0) -> Objects:
    random = torch.Generator().manual_seed(seed)
    size = 0.05 + 0.2 * torch.rand(sum(counts), 2, generator=random)
    center = 0.3 + 0.4 * torch.rand(sum(counts), 2, generator=random)
    classes = torch.randint(CLASSES, (sum(counts),), generator=random)
    return Objects(classes, torch.cat([center, size], 1), counts)


def one_hot_embedding() -> nn.Embedding:
    """The class can be read from the content; K gives zeros."""
    weight = torch.cat([torch.eye(CLASSES, WIDTH), torch.zeros(1, WIDTH)])
    return nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=CLASSES)


def make(objects: Objects, seeds: list[int] | None = None, **settings: Any) -> DenoisingQueries:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds] if seeds else None
    config = RTDetrV2Config(num_labels=CLASSES, **settings)
    return make_denoising(objects, one_hot_embedding(), config, QUERIES, generators)


def classes_of(made: DenoisingQueries) -> Tensor:  # [B, D]
    known = made.content[..., :CLASSES]
    return torch.where(known.sum(-1) > 0, known.argmax(-1), CLASSES)


def test_layout_mask_and_pairs_are_those_of_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.rt_detr_v2.modeling_rt_detr_v2")
    objects = draw_objects(4, 0, 7)
    labels = [
        {"class_labels": classes, "boxes": boxes}
        for classes, boxes in zip(
            objects.classes.split(objects.counts), objects.boxes.split(objects.counts), strict=True
        )
    ]
    made = make(objects)
    content, boxes, mask, meta = modeling.get_contrastive_denoising_training_group(
        labels, CLASSES, QUERIES, one_hot_embedding(), 100, 0.5, 1.0
    )
    assert made.content.shape == content.shape
    assert made.boxes.shape == boxes.shape
    assert torch.equal(made.mask, mask == 0)
    assert made.groups == meta["dn_num_group"] == 14
    image, query, target = (part[0] for part in made.matches)
    for index, right in enumerate(meta["dn_positive_idx"]):
        assert query[image == index].tolist() == right.tolist()
        start, count = objects.starts()[index], objects.counts[index]
        assert target[image == index].tolist() == list(range(start, start + count)) * made.groups
    # Empty places are those of no class and no size.
    assert torch.equal(classes_of(made) == CLASSES, content.abs().sum(-1) == 0)
    assert torch.allclose(made.boxes[1], boxes[1])


def test_without_noise_queries_are_the_objects() -> None:
    objects = draw_objects(3, 2)
    made = make(objects, label_noise_ratio=0.0, box_noise_scale=0.0)
    image, query, target = (part[0] for part in made.matches)
    torch.testing.assert_close(made.boxes[image, query], inverse_sigmoid(objects.boxes[target]))
    assert torch.equal(classes_of(made)[image, query], objects.classes[target])


def test_boxes_move_by_up_to_half_a_side_and_negatives_by_up_to_a_whole_one() -> None:
    objects = draw_objects(*[1] * 64)
    boxes = make(objects).boxes.sigmoid().view(64, 100, 2, 4)  # [B, G, 2, 4]
    true = objects.boxes[:, None, None]
    shift = (cxcywh_to_xyxy(boxes) - cxcywh_to_xyxy(true)) / (true[..., 2:].repeat(1, 1, 1, 2) / 2)
    # Where opposite sides changed places, no side is left to measure.
    proper = (boxes[..., 2:] > 1e-4).all(-1)
    for negative, (low, high) in enumerate([(0.0, 1.0), (1.0, 2.0)]):
        moved = shift[:, :, negative][proper[:, :, negative]]
        assert moved.abs().min() >= low - 2e-3
        assert moved.abs().max() <= high + 2e-3
        assert moved.abs().max() > high - 0.05
    positive = shift[:, :, 0]
    assert abs(float(positive.abs().mean()) - 0.5) < 0.01
    assert abs(float((positive > 0).float().mean()) - 0.5) < 0.02


def test_a_quarter_of_the_classes_is_drawn_anew_from_all() -> None:
    objects = draw_objects(*[1] * 64)
    classes = classes_of(make(objects))
    kept = float((classes == objects.classes[:, None]).float().mean())
    assert abs(kept - (0.75 + 0.25 / CLASSES)) < 0.02
    assert set(classes[0].tolist()) == set(range(CLASSES))


def test_an_image_gets_the_same_queries_in_any_batch() -> None:
    joint = make(draw_objects(4, 4), [7, 9])
    objects = draw_objects(4, 4)
    second = Objects(objects.classes[4:], objects.boxes[4:], (4,))
    alone = make(second, [9])
    assert torch.equal(joint.boxes[1:], alone.boxes)
    assert torch.equal(joint.content[1:], alone.content)
    assert not torch.equal(make(second, [8]).boxes, alone.boxes)


@pytest.mark.parametrize("counts", [(4, 1), (0, 0)])
def test_a_part_gets_the_queries_of_the_whole_batch(counts: tuple[int, int]) -> None:
    objects = draw_objects(*counts, 7)
    joint = make(objects, [7, 8, 9])
    few = sum(counts)
    whole = BatchTotals(few + 7, 7)
    part = make(Objects(objects.classes[:few], objects.boxes[:few], counts, whole), [7, 8])
    assert part.groups == joint.groups == 14
    assert torch.equal(part.boxes, joint.boxes[:2])
    assert torch.equal(part.content, joint.content[:2])
    assert torch.equal(part.mask, joint.mask)


def test_images_of_many_objects_use_a_random_hundred() -> None:
    made = make(draw_objects(250, 3), [1, 2])
    image, _, target = (part[0] for part in made.matches)
    assert made.groups == 1
    assert made.boxes.shape[1] == 2 * MOST_OBJECTS
    chosen = target[image == 0]
    assert len(set(chosen.tolist())) == MOST_OBJECTS
    assert chosen.max() >= MOST_OBJECTS  # not the first hundred
    other = make(draw_objects(250, 3), [3, 2]).matches.target[0]
    assert set(other.tolist()) != set(target.tolist())


def test_a_batch_without_objects_gets_queries_that_use_every_parameter() -> None:
    made = make(draw_objects(0, 0))
    assert made.boxes.shape == (2, 2, 4)
    assert made.matches.query.numel() == 0
    assert made.content.requires_grad
    assert made.boxes.isfinite().all()


def test_groups_look_at_themselves_and_at_the_image_alone() -> None:
    made = make(draw_objects(30))
    size = 60
    assert made.groups == 3
    assert made.mask[:size, :size].all()
    assert not made.mask[:size, size : 3 * size].any()
    assert made.mask[:, 3 * size :].all()
    assert not made.mask[3 * size :, : 3 * size].any()
