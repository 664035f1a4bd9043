# SPDX-License-Identifier: Apache-2.0
"""The numbers equal those of pycocotools, and say what they leave out."""

from __future__ import annotations

import json

import pytest
from tables import Scene, coco_document, mean, oracle

from rtdetr.evaluation import evaluate

SCENES = {
    "plain": (Scene(), 300),
    "crowds": (Scene(crowds=0.3), 300),
    "ties": (Scene(ties=True), 300),
    "crowds and ties": (Scene(crowds=0.3, ties=True), 300),
    "one class": (Scene(classes=1), 300),
    "more than 100 predictions of a class": (Scene(images=3, classes=1, predictions=250), 300),
    "more predictions than count": (Scene(classes=2, predictions=40), 7),
    "ties at the limit": (Scene(classes=1, predictions=40, ties=True, crowds=0.1), 5),
    "only crowds": (Scene(crowds=1.0), 300),
    "no boxes": (Scene(boxes=0), 300),
    "no predictions": (Scene(predictions=0), 300),
    "classes without boxes": (Scene(images=2, boxes=2, classes=20), 300),
    "one image": (Scene(images=1), 300),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("seed", range(4))
def test_precision_equals_that_of_pycocotools(name: str, seed: int) -> None:
    scene, limit = SCENES[name]
    truth, table = scene.draw(seed)
    results = json.loads(json.dumps(table.to_coco(truth)))

    evaluation = evaluate(table, truth, max_detections=limit)

    # By IoU, recall, class and area.
    expected = oracle(coco_document(truth), results, limit)
    assert evaluation.ap == pytest.approx(mean(expected[..., 0]), abs=1e-6)
    assert evaluation.ap50 == pytest.approx(mean(expected[0, ..., 0]), abs=1e-6)
    assert evaluation.ap75 == pytest.approx(mean(expected[5, ..., 0]), abs=1e-6)
    assert evaluation.ap_small == pytest.approx(mean(expected[..., 1]), abs=1e-6)
    assert evaluation.ap_medium == pytest.approx(mean(expected[..., 2]), abs=1e-6)
    assert evaluation.ap_large == pytest.approx(mean(expected[..., 3]), abs=1e-6)
    for index, one in enumerate(evaluation.classes):
        assert one.ap == pytest.approx(mean(expected[:, :, index, 0]), abs=1e-6)
        assert one.ap50 == pytest.approx(mean(expected[0, :, index, 0]), abs=1e-6)
