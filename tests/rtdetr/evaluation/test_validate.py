# SPDX-License-Identifier: Apache-2.0
"""A model on a split: one number, whoever asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from found_objects import SIDES, wide_detector, write_data_set
from photos import drawn
from PIL import Image
from tables import mean, oracle

from rtdetr import RTDETR, DataError, ModelError, RTDetrImageProcessor, UsageError
from rtdetr.data import Split, load_data
from rtdetr.evaluation import evaluate, merge_predictions, validate
from rtdetr.evaluation.options import ValOptions
from rtdetr.evaluation.run import input_size, run_validation
from rtdetr.evaluation.validation import ClassMap, ValidationBatches, predict_split

SIZE = (96, 128)


@pytest.fixture(scope="module")
def detector() -> RTDETR:
    return wide_detector()


@pytest.fixture(scope="module")
def folder(detector: RTDETR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(detector, tmp_path_factory.mktemp("found"), SIZE)


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    val = load_data(folder).val
    assert val is not None
    return val


def test_a_saved_detector_has_the_number_of_the_model(
    detector: RTDETR, folder: Path, split: Split, tmp_path: Path
) -> None:
    evaluation, _ = validate(detector.model, split, imgsz=SIZE, batch=2)

    loaded = RTDETR(detector.save_pretrained(tmp_path / "saved"), device="cpu")
    again = loaded.val(folder, imgsz=SIZE)

    assert evaluation.ap is not None
    assert 0.05 < evaluation.ap < 0.95
    assert again.numbers() == pytest.approx(evaluation.numbers(), abs=1e-6)


def test_the_number_is_that_of_pycocotools_on_the_users_file(
    detector: RTDETR, folder: Path, split: Split
) -> None:
    document = json.loads((folder / "annotations" / "instances_val.json").read_text())

    run = run_validation(detector.model, detector.processor, split, ValOptions(imgsz=SIZE))

    results = json.loads(json.dumps(run.predictions.to_coco(split.annotations)))
    expected = oracle(document, results, max_detections=20)
    assert run.evaluation.ap == pytest.approx(mean(expected[..., 0]), abs=1e-6)
    assert run.evaluation.ap_small == pytest.approx(mean(expected[..., 1]), abs=1e-6)


def test_the_network_sees_the_pixels_that_a_call_gives_it(detector: RTDETR, split: Split) -> None:
    for indices, batch in ValidationBatches(split, SIZE, batch=1):
        image = Image.open(split.annotations.path(indices[0])).convert("RGB")
        prepared = detector.prepare([image], imgsz=SIZE)
        assert torch.equal(batch["pixel_values"].float() / 255, prepared)


def test_predictions_are_what_a_call_finds(detector: RTDETR, split: Split) -> None:
    _, table = validate(detector.model, split, imgsz=SIZE, batch=3)

    for image in range(len(split)):
        found = detector(split.annotations.path(image), threshold=0, imgsz=SIZE)
        own = table.select(table.images == image)
        np.testing.assert_allclose(own.scores, found.scores, atol=1e-5)
        np.testing.assert_allclose(own.boxes, found.xyxy, atol=1e-2)
        np.testing.assert_array_equal(own.classes, found.labels)


@pytest.mark.parametrize(
    "options", [{"batch": 1}, {"batch": 64}, {"workers": 2, "batch": 2}], ids=str
)
def test_batches_and_workers_change_nothing(
    detector: RTDETR, split: Split, options: dict[str, int]
) -> None:
    expected, _ = validate(detector.model, split, imgsz=SIZE, batch=2)

    evaluation, _ = validate(detector.model, split, imgsz=SIZE, **options)

    assert evaluation.numbers() == pytest.approx(expected.numbers(), abs=1e-6)


def test_ranks_share_the_images_out(detector: RTDETR, split: Split) -> None:
    expected, whole = validate(detector.model, split, imgsz=SIZE, batch=2)

    tables = [
        predict_split(detector.model, ValidationBatches(split, SIZE, 2, rank=rank, ranks=2))
        for rank in range(2)
    ]

    merged = merge_predictions(tables)
    assert merged.images.tolist() == whole.images.tolist()
    evaluation = evaluate(merged, split.annotations, max_detections=20)
    assert evaluation.numbers() == pytest.approx(expected.numbers(), abs=1e-6)


def test_batches_can_be_passed_over_again(detector: RTDETR, split: Split) -> None:
    batches = ValidationBatches(split, SIZE, batch=2)

    first, second = (predict_split(detector.model, batches) for _ in range(2))

    assert len(batches) == 3
    np.testing.assert_array_equal(first.scores, second.scores)


def test_each_module_is_in_its_mode_again(detector: RTDETR, split: Split) -> None:
    model = wide_detector().model.train()
    model.model.backbone.eval()
    before = [module.training for module in model.modules()]

    validate(model, split, imgsz=SIZE)

    assert [module.training for module in model.modules()] == before
    expected, _ = validate(detector.model, split, imgsz=SIZE)
    assert validate(model, split, imgsz=SIZE)[0].numbers() == expected.numbers()


def test_predictions_are_as_many_as_are_asked_for(detector: RTDETR, split: Split) -> None:
    evaluation, table = validate(detector.model, split, imgsz=SIZE, max_detections=3)

    assert np.bincount(table.images).tolist() == [3] * len(split)
    assert evaluation.max_detections == 3


def test_progress_sees_every_batch(detector: RTDETR, split: Split) -> None:
    seen: list[int] = []

    def watch(batches: Any) -> Any:
        for indices, batch in batches:
            seen.extend(indices)
            yield indices, batch

    validate(detector.model, split, imgsz=SIZE, batch=2, progress=watch)

    assert seen == list(range(len(split)))


def test_classes_are_matched_by_name(detector: RTDETR, split: Split) -> None:
    """As a model of COCO on a data set of persons: in another order, more than there are, and one that is missing."""
    expected, _ = validate(detector.model, split, imgsz=SIZE)
    other = wide_detector()
    other.model.config.id2label = {0: "person", 1: "kite", 2: "dog"}

    evaluation, table = validate(other.model, split, imgsz=SIZE)

    assert evaluation.missing == ("bus",)
    assert [one.name for one in evaluation.classes] == ["person", "dog"]
    shared = [one for one in expected.classes if one.name != "bus"]
    assert [one.ap for one in evaluation.classes] == [one.ap for one in shared]
    assert set(table.classes.tolist()) <= {0, 2}


def test_no_class_in_common_names_both() -> None:
    message = r"the model knows kite, dog, the data have person; classes are matched by their names"
    with pytest.raises(ModelError, match=message):
        ClassMap.of({0: "kite", 1: "dog"}, ["person"])


def test_classes_that_look_alike_are_pointed_out() -> None:
    with pytest.raises(ModelError, match=r'Did you mean "person"\?'):
        ClassMap.of({0: "person"}, ["Person"])


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        (RTDetrImageProcessor(do_normalize=True), "it normalizes colors"),
        (RTDetrImageProcessor(do_resize=False), r"it does not resize$"),
        (
            RTDetrImageProcessor(size={"max_height": 640, "max_width": 640}),
            "it keeps the aspect of images",
        ),
        (RTDetrImageProcessor(do_pad=True, pad_size=960), "it pads images"),
        (RTDetrImageProcessor(resample=3), "it does not resize bilinearly"),
        (RTDetrImageProcessor(do_rescale=False), "it does not scale colors to 0..1"),
    ],
    ids=["normalizes", "does not resize", "keeps aspect", "pads", "bicubic", "does not rescale"],
)
def test_a_processor_that_training_does_not_have_is_refused(
    processor: RTDetrImageProcessor, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        input_size(processor, ValOptions())


def test_the_size_is_that_of_the_processor_or_what_is_asked_for() -> None:
    processor = RTDetrImageProcessor(size={"height": 64, "width": 96})

    assert input_size(processor, ValOptions()) == (64, 96)
    assert input_size(processor, ValOptions(imgsz=(96, 128))) == (96, 128)
    assert input_size(processor, ValOptions(imgsz=160)) == (160, 160)


def test_pairs_from_memory(detector: RTDETR) -> None:
    """Their classes are numbers: those of the model."""
    pairs = []
    for index, (width, height) in enumerate(SIDES[:3]):
        image = drawn(height, width, seed=index)
        found = detector(image, threshold=0, imgsz=SIZE)[:4]
        keep = (found.xyxy[:, 2:] - found.xyxy[:, :2]).min(1) > 1
        target = {"boxes": found.xyxy[keep], "class_labels": found.labels[keep]}
        pairs.append((image, target))

    evaluation = detector.val({"train": pairs, "val": pairs}, imgsz=SIZE)

    assert evaluation.images == 3
    assert evaluation.ap is not None
    assert evaluation.ap > 0.9


def test_one_class_and_images_without_boxes(detector: RTDETR) -> None:
    nothing = {"boxes": np.zeros((0, 4)), "class_labels": np.zeros(0)}
    pairs = [(drawn(50, 40, seed=1), nothing)] * 2
    one = {"boxes": np.float32([[1, 1, 20, 20]]), "class_labels": np.zeros(1)}

    evaluation = detector.val({"train": [(drawn(50, 40, seed=2), one)], "val": pairs}, imgsz=SIZE)

    assert evaluation.numbers() == dict.fromkeys(evaluation.numbers())
    assert "nothing to measure: no image has a box" in evaluation.lines()


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"bach": 2}, TypeError, "val has no option 'bach'. Did you mean \"batch\"?"),
        ({"batch_size": 2}, TypeError, 'Did you mean "batch"?'),
        ({"iou": 0.5}, TypeError, "AP is a mean over IoUs"),
        ({"split": "test"}, UsageError, "split: expected val or train, got 'test'"),
        ({"imgsz": 100}, UsageError, "imgsz: expected multiples of 32, got 100. Try 96."),
        ({"batch": 0}, UsageError, "batch: expected at least 1, got 0"),
        ({"workers": -1}, UsageError, "workers: expected at least 0, got -1"),
        ({"val_fraction": 2}, UsageError, "val_fraction: expected a number in 0..0.9, got 2"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_word_is_an_error_that_helps(
    detector: RTDETR, folder: Path, words: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        detector.val(folder, **words)
    assert message in str(raised.value)


def test_a_split_that_is_not_there_is_named(detector: RTDETR, folder: Path) -> None:
    with pytest.raises(DataError, match=r'instances_train\.json: has no split "val"'):
        detector.val(folder / "annotations" / "instances_train.json", val_fraction=0)


def test_the_train_split(detector: RTDETR, folder: Path, split: Split) -> None:
    train = load_data(folder).train
    assert train is not None

    evaluation = detector.val(folder, split="train", imgsz=SIZE)

    expected, _ = validate(detector.model, train, imgsz=SIZE)
    assert evaluation.numbers() == pytest.approx(expected.numbers(), abs=1e-6)
