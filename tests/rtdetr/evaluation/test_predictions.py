# SPDX-License-Identifier: Apache-2.0
"""From the outputs of a network to a table of predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tables import annotations

from rtdetr.data import Batch
from rtdetr.errors import ModelError, UsageError
from rtdetr.evaluation import PredictionTable, collect_predictions, merge_predictions
from rtdetr.inference.predictor import RawOutputs
from rtdetr.processing.image_processor import RTDetrImageProcessor

QUERIES, CLASSES = 7, 3
SIZES = [(60, 40), (200, 100), (33, 500), (10, 10), (64, 64)]


def batches(size: int = 2) -> list[tuple[list[int], Batch]]:
    """Images whose first pixel says which one they are."""
    indices = [list(range(len(SIZES)))[i : i + size] for i in range(0, len(SIZES), size)]
    return [(group, batch_of(group)) for group in indices]


def batch_of(group: list[int]) -> Batch:
    pixels = torch.zeros(len(group), 3, 32, 32, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.tensor(group)
    # A table goes by the place in the split: the ids are all the same here.
    labels = [
        {"orig_size": torch.tensor(SIZES[image]), "image_id": torch.tensor([5])} for image in group
    ]
    return {"pixel_values": pixels, "labels": labels}  # type: ignore[typeddict-item]


def outputs_of(image: int, queries: int = QUERIES, classes: int = CLASSES) -> RawOutputs:
    generator = torch.Generator().manual_seed(image)
    logits = torch.randn(1, queries, classes, generator=generator)
    return RawOutputs(logits, torch.rand(1, queries, 4, generator=generator))


def network(pixels: torch.Tensor, **shape: int) -> RawOutputs:
    each = [outputs_of(int(image), **shape) for image in pixels[:, 0, 0, 0]]
    return RawOutputs(
        torch.cat([one.logits for one in each]), torch.cat([one.pred_boxes for one in each])
    )


def test_a_table_holds_what_post_processing_finds() -> None:
    table = collect_predictions(network, batches())

    for image, (height, width) in enumerate(SIZES):
        (expected,) = RTDetrImageProcessor().post_process_object_detection(
            outputs_of(image), -1.0, [(height, width)]
        )
        own = table.select(table.images == image)
        boxes = expected["boxes"].numpy().clip(0, [width, height, width, height])
        np.testing.assert_allclose(own.boxes, boxes, rtol=1e-6)
        np.testing.assert_array_equal(own.scores, expected["scores"].numpy())
        np.testing.assert_array_equal(own.classes, expected["labels"].numpy())


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_table_does_not_depend_on_the_size_of_batches(size: int) -> None:
    assert_equal(
        collect_predictions(network, batches(size)), collect_predictions(network, batches())
    )


def test_tables_of_ranks_make_one_and_each_image_counts_once() -> None:
    whole = collect_predictions(network, batches())
    ranks = [[0, 2, 4], [1, 3, 0]]  # the second was filled up with an image of the first

    tables = [collect_predictions(network, [(own, batch_of(own))]) for own in ranks]

    assert_equal(merge_predictions(tables), whole)
    assert_equal(merge_predictions(reversed(tables)), whole)
    assert len(merge_predictions([])) == 0
    assert_equal(merge_predictions([PredictionTable.empty(), whole]), whole)


@pytest.mark.parametrize(
    ("limit", "count"), [(None, QUERIES), (2, 2), (10, 10), (1000, QUERIES * CLASSES)]
)
def test_an_image_has_as_many_predictions_as_are_asked_for(limit: int | None, count: int) -> None:
    table = collect_predictions(network, batches(), limit=limit)

    assert np.bincount(table.images).tolist() == [count] * len(SIZES)
    best = collect_predictions(network, batches(), limit=1000)
    for image in range(len(SIZES)):
        scores = table.scores[table.images == image]
        np.testing.assert_array_equal(scores, best.scores[best.images == image][:count])


def test_one_query_and_one_class() -> None:
    table = collect_predictions(lambda pixels: network(pixels, queries=1, classes=1), batches())

    assert table.images.tolist() == list(range(len(SIZES)))
    assert table.classes.tolist() == [0] * len(SIZES)


def test_no_batches_make_an_empty_table() -> None:
    table = collect_predictions(network, [])

    assert len(table) == 0
    assert table.to_coco(annotations([0], [], [])) == []


def test_outputs_that_are_not_finite_are_an_error() -> None:
    def broken(pixels: torch.Tensor) -> RawOutputs:
        return RawOutputs(network(pixels).logits * float("nan"), network(pixels).pred_boxes)

    with pytest.raises(ModelError, match="not finite"):
        collect_predictions(broken, batches())


def test_classes_are_renamed_and_those_without_a_name_left_out() -> None:
    table = collect_predictions(network, batches())

    renamed = table.with_classes((4, None, 0))

    kept = table.select(table.classes != 1)
    assert renamed.classes.tolist() == [{0: 4, 2: 0}[label] for label in kept.classes.tolist()]
    np.testing.assert_array_equal(renamed.boxes, kept.boxes)


def test_results_have_the_ids_of_the_users_files() -> None:
    truth = annotations([0, 0], [], [], total=2)
    table = PredictionTable(
        np.asarray([0, 1]),
        np.float32([[1, 2, 4, 8], [0.12345, 0, 1, 1]]),
        np.float32([0.5, 0.25]),
        np.asarray([1, 0]),
    )

    assert table.to_coco(truth) == [
        {"image_id": 10, "category_id": 7, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.5},
        {"image_id": 3, "category_id": 2, "bbox": [0.123, 0.0, 0.877, 1.0], "score": 0.25},
    ]


def test_arrays_of_other_shapes_are_refused() -> None:
    numbers = np.zeros(2, np.int64)
    with pytest.raises(UsageError, match=r"boxes: expected shape \[2, 4\], got \[2, 3\]"):
        PredictionTable(numbers, np.zeros((2, 3), np.float32), np.zeros(2, np.float32), numbers)


def assert_equal(one: PredictionTable, other: PredictionTable) -> None:
    for name in ("images", "boxes", "scores", "classes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
