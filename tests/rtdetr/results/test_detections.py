# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
