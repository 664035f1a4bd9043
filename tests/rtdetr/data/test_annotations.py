# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np
import pytest

from rtdetr.data import Annotations, Categories
from rtdetr.data.annotations import FileNames

NAMES = ("a.png", "odd\udcff name.png", "ünï/코드 1.png", "", "b")


def three_images() -> Annotations:
    """Two boxes, none, one crowd."""
    return Annotations(
        root="/data",
        names=FileNames(["1.png", "2.png", "3.png"]),
        image_ids=np.array([7, 8, 9]),
        sizes=np.array([[10, 20], [30, 40], [50, 60]]),
        starts=np.array([0, 2, 2, 3]),
        boxes=np.arange(12, dtype=np.float32).reshape(3, 4),
        classes=np.array([0, 1, 1]),
        crowds=np.array([False, False, True]),
        categories=Categories((5, 9), ("cat", "dog")),
    )


def test_file_names_come_back() -> None:
    names = FileNames(NAMES)
    assert list(names) == list(NAMES)
    assert names[-1] == "b"
    assert list(pickle.loads(pickle.dumps(names))) == list(NAMES)
    with pytest.raises(IndexError):
        names[5]


def test_file_names_are_two_arrays() -> None:
    assert all(isinstance(value, np.ndarray) for value in vars(FileNames(NAMES)).values())


def test_boxes_of_an_image() -> None:
    split = three_images()
    assert [split.of(index) for index in range(3)] == [slice(0, 2), slice(2, 2), slice(2, 3)]
    assert split.counts().tolist() == [2, 0, 1]
    assert split.class_counts().tolist() == [1, 1]
    assert split.path(1) == "/data/2.png"


@pytest.mark.parametrize("images", [[2, 0], [1], [], [0, 1, 2], [2, 2]])
def test_subset(images: list[int]) -> None:
    split = three_images()
    part = split.subset(np.array(images, dtype=np.int64))
    assert len(part) == len(images)
    for place, image in enumerate(images):
        assert part.names[place] == split.names[image]
        assert part.image_ids[place] == split.image_ids[image]
        np.testing.assert_array_equal(part.boxes[part.of(place)], split.boxes[split.of(image)])
        np.testing.assert_array_equal(part.classes[part.of(place)], split.classes[split.of(image)])
        np.testing.assert_array_equal(part.crowds[part.of(place)], split.crowds[split.of(image)])


def test_classes_and_ids() -> None:
    assert three_images().categories.class_of() == {5: 0, 9: 1}
