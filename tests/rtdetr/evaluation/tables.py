# SPDX-License-Identifier: Apache-2.0
"""Annotations and predictions at random, and what pycocotools says about them."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetr.data import Annotations, Categories
from rtdetr.data.annotations import FileNames
from rtdetr.evaluation import PredictionTable

SIDE = 200


@dataclass(frozen=True)
class Scene:
    """How to draw.

    Args:
        images, classes: how many.
        boxes, predictions: at most so many in an image.
        crowds: share of the boxes.
        ties: whether scores and boxes are coarse.
        near: share of the predictions that lie near a box.
    """

    images: int = 12
    classes: int = 3
    boxes: int = 6
    predictions: int = 20
    crowds: float = 0.0
    ties: bool = False
    near: float = 0.6

    def draw(self, seed: int) -> tuple[Annotations, PredictionTable]:
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, self.boxes + 1, self.images)
        total = int(counts.sum())
        boxes = self._boxes(rng, total)
        classes = rng.integers(0, self.classes, total)
        truth = annotations(counts, boxes, classes, rng.random(total) < self.crowds, self.classes)
        found = rng.integers(0, self.predictions + 1, self.images)
        images = np.repeat(np.arange(self.images), found)
        predicted, labels = (
            self._boxes(rng, len(images)),
            rng.integers(0, self.classes, len(images)),
        )
        for row, image in enumerate(images.tolist()):
            own = truth.of(image)
            if rng.random() < self.near and own.stop > own.start:
                box = int(rng.integers(own.start, own.stop))
                shift = rng.integers(-8, 9, 4) if self.ties else rng.normal(0, 4, 4)
                predicted[row] = truth.boxes[box] + shift
                labels[row] = truth.classes[box] if rng.random() < 0.8 else labels[row]
        low, high = predicted[:, :2].clip(0, SIDE - 1), predicted[:, 2:].clip(1, SIDE)
        predicted = np.concatenate([low, np.maximum(high, low + 1)], axis=1)
        scores = rng.random(len(images))
        scores = scores.round(1) if self.ties else scores
        return truth, PredictionTable(
            images, predicted.astype(np.float32), scores.astype(np.float32), labels
        )

    def _boxes(self, rng: np.random.Generator, total: int) -> npt.NDArray[np.float64]:
        low = rng.uniform(0, SIDE * 0.7, (total, 2))
        sides = np.exp(rng.uniform(np.log(8), np.log(SIDE), (total, 2)))
        boxes = np.concatenate([low, np.minimum(low + sides, SIDE)], axis=1)
        return boxes.round() if self.ties else boxes


def annotations(
    counts: Any, boxes: Any, classes: Any, crowds: Any = None, total: int = 1
) -> Annotations:
    """Images of one size whose ids go down, and categories whose ids have gaps."""
    images = len(counts)
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    return Annotations(
        root="",
        names=FileNames([f"{index}.png" for index in range(images)]),
        image_ids=np.arange(images)[::-1] * 7 + 3,
        sizes=np.full((images, 2), SIDE),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        classes=np.asarray(classes, dtype=np.int64),
        crowds=np.zeros(len(boxes), bool) if crowds is None else np.asarray(crowds, bool),
        categories=Categories(
            tuple(5 * index + 2 for index in range(total)),
            tuple(f"class {index}" for index in range(total)),
        ),
    )


def coco_document(truth: Annotations) -> dict[str, Any]:
    """The file behind annotations."""
    entries = []
    for image in range(len(truth)):
        own = truth.of(image)
        for row in range(own.start, own.stop):
            left, top, right, bottom = truth.boxes[row].astype(np.float64).tolist()
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": int(truth.image_ids[image]),
                    "category_id": truth.categories.ids[truth.classes[row]],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": int(truth.crowds[row]),
                }
            )
    names = zip(truth.categories.ids, truth.categories.names, strict=True)
    return {
        "images": [
            {"id": int(number), "width": SIDE, "height": SIDE} for number in truth.image_ids
        ],
        "annotations": entries,
        "categories": [{"id": number, "name": name} for number, name in names],
    }


def oracle(
    document: dict[str, Any], results: list[dict[str, Any]], max_detections: int
) -> npt.NDArray[np.float64]:
    """The precision [10, 101, K, 4] of pycocotools; -1 where there is nothing to find."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = document
        coco.createIndex()
        found = COCO()
        found.dataset = {**document, "annotations": []}
        found.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results) if results else found, "bbox")
        evaluator.params.maxDets = [max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
    precision: npt.NDArray[np.float64] = evaluator.eval["precision"][..., 0]
    return precision


def mean(precision: npt.NDArray[np.float64]) -> float | None:
    """Of what could be measured."""
    measured = precision[precision > -1]
    return float(measured.mean()) if measured.size else None
