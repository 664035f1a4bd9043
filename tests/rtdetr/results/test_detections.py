# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr.coco import COCO_NAMES
from rtdetr.errors import MissingExtraError, UsageError
from rtdetr.results.detections import Detection, Detections

NAMES = {0: "person", 5: "bus", 16: "dog"}


@pytest.fixture
def found() -> Detections:
    return Detections(
        xyxy=np.asarray([[10, 20, 30, 60], [0.5, 0, 100, 80], [5, 5, 9, 9.25]]),
        scores=np.asarray([0.9, 0.75, 0.5]),
        labels=np.asarray([0, 5, 0]),
        names=NAMES,
        image_size=(80, 120),
        source="street.jpg",
        image=Image.new("RGB", (120, 80), (40, 90, 140)),
    )


def test_arrays_have_the_promised_types(found: Detections) -> None:
    assert (found.xyxy.shape, found.xyxy.dtype) == ((3, 4), np.float32)
    assert (found.scores.shape, found.scores.dtype) == ((3,), np.float32)
    assert (found.labels.shape, found.labels.dtype) == ((3,), np.int64)
    assert found.boxes is found.xyxy


def test_is_a_sequence_of_detections(found: Detections) -> None:
    assert len(found) == 3
    assert [one.name for one in found] == ["person", "bus", "person"]
    assert found[1] == Detection("bus", 5, 0.75, (0.5, 0.0, 100.0, 80.0))
    assert found[-1].box == (5, 5, 9, 9.25)
    with pytest.raises(IndexError):
        _ = found[3]


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        (slice(1, None), [1, 2]),
        (slice(0, 0), []),
        ([2, 0], [2, 0]),
        ([], []),
        (np.asarray([True, False, True]), [0, 2]),
        ([False, False, False], []),
    ],
    ids=str,
)
def test_slices_masks_and_indices(found: Detections, index: object, kept: list[int]) -> None:
    part = found[index]  # type: ignore[call-overload]
    assert isinstance(part, Detections)
    assert np.array_equal(part.xyxy, found.xyxy[kept])
    assert np.array_equal(part.labels, found.labels[kept])
    assert (part.source, part.image_size) == (found.source, found.image_size)


def test_above_is_strict(found: Detections) -> None:
    assert len(found.above(0.5)) == 2
    assert len(found.above(0.9999)) == 0


def test_only(found: Detections) -> None:
    assert found.only("bus").labels.tolist() == [5]
    assert found.only("bus", 0).labels.tolist() == [0, 5, 0]
    assert found.only(["person"]).labels.tolist() == [0, 0]
    assert len(found.only("dog")) == 0
    with pytest.raises(UsageError, match=r"no class 'persn'.*Did you mean \"person\""):
        found.only("persn")
    with pytest.raises(UsageError, match="no class 7"):
        found.only(7)


def test_summary_and_repr(found: Detections) -> None:
    assert found.counts == {"person": 2, "bus": 1}
    assert found.summary == "2 person, 1 bus"
    assert found[[]].summary == "nothing"
    assert repr(found) == "Detections(2 person, 1 bus; street.jpg 120x80)"
    assert repr(found[0]) == "Detection(person 0.90 at [10, 20, 30, 60])"


def test_names_can_be_a_sequence_and_a_label_without_a_name_is_no_crash(found: Detections) -> None:
    assert replace(found, names=("a", "b", "c", "d", "e", "f"))[1].name == "f"
    assert replace(found, names=["a"])[1].name == "class 5"


def test_json(found: Detections) -> None:
    read = json.loads(found.to_json())
    assert read == found.to_dict()
    assert read["source"] == "street.jpg"
    assert (read["height"], read["width"]) == (80, 120)
    first = {"name": "person", "label": 0, "score": 0.9, "box": [10.0, 20.0, 30.0, 60.0]}
    assert read["objects"][0] == first


def test_coco(found: Detections) -> None:
    results = found.to_coco(image_id=42)
    assert results[1] == {
        "image_id": 42,
        "category_id": 5,
        "bbox": [0.5, 0.0, 99.5, 80.0],
        "score": 0.75,
    }
    assert [one["category_id"] for one in found.to_coco(1, {0: 1, 5: 6})] == [1, 6, 1]
    json.dumps(results)


INTEGERS = [int, np.int64, np.int32, np.uint8, np.array, torch.tensor]


@pytest.mark.parametrize("make", INTEGERS, ids=lambda make: make.__name__)
def test_any_integer_is_an_index(found: Detections, make: Callable[[int], Any]) -> None:
    assert found[make(1)] == found[1]
    assert isinstance(found[make(0)], Detection)
    assert found.only(make(5)).labels.tolist() == [5]
    assert found.only(make(5), "person").labels.tolist() == [0, 5, 0]
    assert found.only([make(0), "bus"]).labels.tolist() == [0, 5, 0]
    assert found.name_of(make(5)) == "bus"


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor])
def test_many_classes_in_any_list(found: Detections, make: Callable[[Any], Any]) -> None:
    assert found.only(make([0, 5])).labels.tolist() == [0, 5, 0]
    assert found.only(found.labels[0], make([5])).labels.tolist() == [0, 5, 0]
    assert len(found[make([0, 1])]) == 2
    assert len(found[make([True, False, True])]) == 2


@pytest.mark.parametrize("entry", [True, np.True_, 0.0, None, "7", "x", np.float32(0)], ids=repr)
def test_what_is_no_class(found: Detections, entry: Any) -> None:
    with pytest.raises(UsageError, match="classes: no class"):
        found.only(entry)


def test_an_index_may_be_text_where_no_class_has_that_name(found: Detections) -> None:
    assert found.only("5").labels.tolist() == [5]
    assert replace(found, names={0: "5", 5: "bus"}).only("5").labels.tolist() == [0, 0]


@pytest.mark.parametrize("index", [True, np.True_, 1.0, None, "0"], ids=repr)
def test_what_is_no_index(found: Detections, index: Any) -> None:
    with pytest.raises(UsageError, match="index: expected an integer"):
        _ = found[index]


@pytest.mark.parametrize("make", INTEGERS, ids=lambda make: make.__name__)
def test_json_has_plain_integers(found: Detections, make: Callable[[int], Any]) -> None:
    results = found.to_coco(make(3), {np.int64(0): make(1), 5: make(6)})
    assert [(one["image_id"], one["category_id"]) for one in results] == [(3, 1), (3, 6), (3, 1)]
    assert all(type(one[key]) is int for one in results for key in ("image_id", "category_id"))
    assert json.loads(json.dumps(results)) == results


def test_category_ids(found: Detections) -> None:
    coco = replace(found, names=COCO_NAMES)

    def ids(one: Detections, *arguments: Any) -> list[int]:
        return [entry["category_id"] for entry in one.to_coco(1, *arguments)]

    assert ids(coco) == [1, 6, 1]
    assert ids(replace(coco, labels=[79, 46, 0])) == [90, 52, 1]
    assert ids(coco, "index") == [0, 5, 0]
    assert ids(found) == [0, 5, 0]
    assert ids(replace(found, names=COCO_NAMES[:79])) == [0, 5, 0]
    assert ids(found, range(10, 20)) == [10, 15, 10]
    assert ids(found, np.arange(10, 20)) == [10, 15, 10]
    assert ids(found, {0: 7, 5: 8, 6: None}) == [7, 8, 7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, {0: 1}), r"category_ids: no whole number for the class indices \[5\]"),
        ((1, {0: "a", 5: 2.0}), r"category_ids: no whole number for the class indices \[0, 5\]"),
        ((1, [1, 2]), r"category_ids: no whole number for the class indices \[5\]"),
        ((1, "coco"), r"category_ids: expected a mapping, a sequence or \"index\", got 'coco'"),
        ((1, 3), "category_ids: expected a mapping"),
        ((1.5,), r"image_id: expected an int or a string, got 1\.5"),
        ((True,), "image_id: expected an int or a string, got True"),
        ((None,), "image_id: expected an int or a string, got None"),
    ],
    ids=str,
)
def test_what_is_no_id(found: Detections, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        found.to_coco(*arguments)


def test_numbers_are_finite_and_labels_whole(found: Detections) -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(UsageError, match="xyxy: expected finite numbers"):
            replace(found, xyxy=np.full((3, 4), value))
        with pytest.raises(UsageError, match="scores: expected finite numbers"):
            replace(found, scores=np.full(3, value))
    for labels in ([0.5, 0, 0], [np.nan, 0, 0], [True, False, True]):
        with pytest.raises(UsageError, match="labels: expected integers"):
            replace(found, labels=np.array(labels))
    assert replace(found, labels=[0.0, 5.0, 0.0]).labels.tolist() == [0, 5, 0]


@pytest.mark.parametrize("size", [np.array([80, 120]), torch.tensor([80, 120]).numpy(), [80, 120]])
def test_json_of_any_size_and_source(found: Detections, size: Any) -> None:
    read = json.loads(replace(found, image_size=size, source=Path("a.jpg")).to_json())  # type: ignore[arg-type]
    assert (read["source"], read["height"], read["width"]) == ("a.jpg", 80, 120)


@pytest.mark.parametrize("size", [80, (80.0, 120), (80, 120, 3), "ab", None], ids=repr)
def test_what_is_no_size(found: Detections, size: Any) -> None:
    with pytest.raises(UsageError, match=r"image_size: expected \(height, width\), got"):
        replace(found, image_size=size)


JUNK = [None, "a", b"x", {"a": 1}, {1}, object(), 2**70, 1j, ["a"], 3, np.array(3), [[1, 2], [3]]]


@pytest.mark.parametrize("name", ["xyxy", "scores", "labels", "names", "image_size"])
@pytest.mark.parametrize("value", JUNK, ids=lambda value: type(value).__name__)
def test_fields_of_a_wrong_type_are_named(found: Detections, name: str, value: Any) -> None:
    if name == "names" and value == ["a"]:
        return
    with pytest.raises(UsageError, match=f"^{name}: expected"):
        replace(found, **{name: value})


def test_scores_are_compared_with_numbers(found: Detections) -> None:
    assert len(found.above(np.float32(0.5))) == len(found.above(torch.tensor(0.5))) == 2  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="score: expected a number, got '0'"):
        found.above("0")  # type: ignore[arg-type]


def test_a_change_says_how(found: Detections) -> None:
    with pytest.raises(AttributeError, match=r"Detections\.source .*dataclasses\.replace.*source="):
        found.source = "x"  # type: ignore[misc]


def test_supervision(found: Detections) -> None:
    pytest.importorskip("supervision")
    made = found.to_supervision()
    assert np.array_equal(made.xyxy, found.xyxy)
    assert made.class_id.tolist() == [0, 5, 0]
    assert made.data["class_name"].tolist() == ["person", "bus", "person"]
    assert len(found[[]].to_supervision()) == 0


def test_supervision_missing(found: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match="pip install supervision"):
        found.to_supervision()


def test_plot_leaves_the_image_alone(found: Detections) -> None:
    assert found.image is not None
    before = np.asarray(found.image).copy()
    plotted = found.plot()
    assert np.array_equal(np.asarray(found.image), before)
    assert plotted.size == found.image.size
    assert not np.array_equal(np.asarray(plotted), before)


def test_plot_without_a_image_says_what_to_do(found: Detections) -> None:
    with pytest.raises(UsageError, match=r"no image.*replace"):
        replace(found, image=None).plot()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_save(found: Detections, tmp_path: Path, suffix: str) -> None:
    path = found.save(tmp_path / "new" / f"out{suffix}")
    assert [entry.name for entry in path.parent.iterdir()] == [f"out{suffix}"]
    with Image.open(path) as image:
        assert image.size == (120, 80)
    if suffix == ".png":
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(found.plot()))


def test_failed_save_leaves_the_old_file(
    found: Detections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def broken(self: Image.Image, *_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        found.save(path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_save_needs_a_image_suffix(found: Detections, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.txt has no suffix"):
        found.save(tmp_path / "out.txt")


def test_lengths_are_checked(found: Detections) -> None:
    with pytest.raises(UsageError, match="scores: expected 3 values"):
        replace(found, scores=np.zeros(2))
    with pytest.raises(UsageError, match="labels: expected 3 values"):
        replace(found, labels=np.zeros((3, 1)))


def test_nothing_else_is_imported() -> None:
    unwanted = {"torch", "transformers", "cv2", "matplotlib"}
    program = f"import sys, rtdetr.results.detections; assert not {unwanted} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
