# SPDX-License-Identifier: Apache-2.0
"""The numbers equal those of pycocotools, and say what they leave out."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from tables import Scene, annotations, coco_document, mean, oracle

from rtdetr.errors import MissingExtraError, UsageError
from rtdetr.evaluation import PredictionTable, evaluate
from rtdetr.evaluation.curves import ScoreCurves, confuse
from rtdetr.evaluation.matching import match_boxes

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


@pytest.mark.parametrize("name", [name for name in SCENES if "limit" not in name])
def test_own_matches_are_those_behind_ap50(name: str) -> None:
    """Precision, recall and confusion come from matches of our own; the area under their curve is AP50."""
    scene = replace(SCENES[name][0], ties=False)
    truth, table = scene.draw(seed=11)

    matches = match_boxes(table, truth)

    evaluation = evaluate(table, truth, max_detections=300)
    for index, one in enumerate(evaluation.classes):
        rows = (table.classes == index) & ~matches.ignored
        curves = ScoreCurves.of(table.scores[rows], matches.boxes[rows] >= 0, one.boxes)
        assert one.ap50 is None or area_of(curves) == pytest.approx(one.ap50, abs=1e-9)


def area_of(curves: ScoreCurves) -> float:
    """As COCO interpolates it: at each recall the best precision from there on."""
    counts = np.arange(1, len(curves.right))
    precision = curves.right[1:] / counts
    recall = curves.right[1:] / curves.boxes
    return float(np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]))


def table_of(*rows: tuple[int, tuple[float, float, float, float], float, int]) -> PredictionTable:
    """Of (image, box, score, class)."""
    images, boxes, scores, classes = zip(*rows, strict=True)
    return PredictionTable(
        np.asarray(images), np.float32(boxes), np.float32(scores), np.asarray(classes)
    )


A, B, C = (0, 0, 40, 40), (100, 100, 160, 160), (150, 20, 180, 60)


def test_the_best_threshold_counts_the_predictions_above_it() -> None:
    truth = annotations([2, 1], [A, B, A], [0, 1, 0], total=2)
    table = table_of(
        (0, A, 0.9, 0),
        (0, B, 0.8, 1),
        (0, C, 0.7, 0),
        (1, A, 0.6, 0),
        (1, C, 0.2, 1),
        (1, B, 0.1, 1),
    )

    evaluation = evaluate(table, truth, max_detections=300)

    assert evaluation.threshold == pytest.approx(0.4)
    assert (evaluation.precision, evaluation.recall) == (3 / 4, 1.0)
    assert evaluation.f1 == pytest.approx(6 / 7)
    zero, one = evaluation.classes
    assert (zero.images, zero.boxes, zero.precision, zero.recall) == (2, 2, 2 / 3, 1.0)
    assert (one.images, one.boxes, one.precision, one.recall, one.f1) == (1, 1, 1.0, 1.0, 1.0)


def test_equal_scores_are_on_one_side_of_the_threshold() -> None:
    truth = annotations([1], [A], [0])
    table = table_of((0, A, 0.5, 0), (0, B, 0.5, 0), (0, C, 0.4, 0))

    evaluation = evaluate(table, truth, max_detections=300)

    assert evaluation.threshold == pytest.approx(0.45)
    assert evaluation.precision == 1 / 2


def test_confusion_sorts_out_every_box_and_every_prediction() -> None:
    truth = annotations(
        [4], [A, B, C, (0, 150, 40, 190)], [0, 1, 1, 0], [False, False, False, True], total=2
    )
    table = table_of(
        (0, A, 0.9, 0),
        (0, (1, 1, 41, 41), 0.8, 1),  # a second look at A, which is taken
        (0, B, 0.7, 0),  # the wrong class
        (0, (0, 150, 20, 170), 0.6, 0),  # inside the crowd
        (0, C, 0.01, 1),  # too low
    )

    evaluation = evaluate(table.select(np.arange(4)), truth, max_detections=300)

    low = evaluate(table, truth, max_detections=300)
    assert evaluation.threshold == pytest.approx(0.85)
    assert evaluation.confusion.as_list() == [
        {"truth": "class 0", "predicted": "class 0", "count": 1},
        {"truth": "class 1", "predicted": None, "count": 2},
    ]
    confusion = confuse(table, match_boxes(table, truth), truth, 0.05)
    assert confusion.as_list() == [
        {"truth": "class 0", "predicted": "class 0", "count": 1},
        {"truth": "class 1", "predicted": "class 0", "count": 1},
        {"truth": "class 1", "predicted": None, "count": 1},
        {"truth": None, "predicted": "class 1", "count": 1},
    ]
    assert low.boxes == 3


@pytest.mark.parametrize("name", SCENES)
def test_numbers_are_json_and_lines_fit_a_screen(name: str) -> None:
    scene, limit = SCENES[name]
    truth, table = scene.draw(seed=5)

    evaluation = evaluate(table, truth, max_detections=limit)

    document = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
    assert document["ap"] == evaluation.ap
    assert len(document["classes"]) == scene.classes
    lines = evaluation.lines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


def test_a_class_without_boxes_is_in_no_mean_and_named() -> None:
    truth = annotations([1], [A], [0], total=2)
    table = table_of((0, A, 0.9, 0), (0, B, 0.8, 1))

    evaluation = evaluate(table, truth, max_detections=300)

    assert (evaluation.ap, evaluation.precision, evaluation.recall) == (1.0, 1.0, 1.0)
    assert evaluation.classes[1].ap is None
    assert evaluation.without_boxes == ("class 1",)
    assert "in no mean, since no image has one: class 1" in evaluation.lines()


def test_a_class_that_the_model_lacks_is_not_measured_and_named() -> None:
    truth = annotations([2], [A, B], [0, 1], total=2)

    evaluation = evaluate(table_of((0, A, 0.9, 0)), truth, max_detections=300, missing={1})

    assert (evaluation.ap, evaluation.boxes, evaluation.recall) == (1.0, 1, 1.0)
    assert [one.name for one in evaluation.classes] == ["class 0"]
    assert any("the model has no such class: class 1" in line for line in evaluation.lines())


def test_of_many_classes_the_weakest_are_shown() -> None:
    total = 60
    counts = np.full(total, 1)
    truth = annotations(counts, [A] * total, range(total), total=total)
    table = table_of(*((index, A, 0.9, index) for index in range(0, total, 2)))

    lines = evaluate(table, truth, max_detections=300).lines(most_classes=10)

    shown = [line.split("  ")[0] for line in lines[2:12]]
    assert shown == [f"class {index}" for index in range(1, 20, 2)]
    assert "the 10 weakest of 60 classes" in lines


@pytest.mark.parametrize(
    ("table", "limit", "message"),
    [
        (table_of((2, A, 0.5, 0)), 300, "images: expected numbers within 0..1, got 2"),
        (table_of((0, A, 0.5, 3)), 300, "classes: expected numbers within 0..0, got 3"),
        (table_of((0, A, 0.5, -1)), 300, "classes: expected numbers within 0..0, got -1"),
        (table_of((0, A, 0.5, 0)), 0, "max_detections: expected at least 1, got 0"),
    ],
    ids=["image", "class", "negative class", "limit"],
)
def test_what_cannot_be_measured_is_an_error(
    table: PredictionTable, limit: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(table, annotations([1, 0], [A], [0]), max_detections=limit)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    truth, table = Scene().draw(seed=0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(table, truth, max_detections=300)

    assert capfd.readouterr() == ("", "")


def test_without_faster_coco_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    truth, table = Scene().draw(seed=0)

    with pytest.raises(MissingExtraError, match=r'pip install "rtdetr-ops\[train\]"'):
        evaluate(table, truth, max_detections=300)
