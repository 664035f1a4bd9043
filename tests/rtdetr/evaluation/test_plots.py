# SPDX-License-Identifier: Apache-2.0
"""Each plot is an image that holds what it is to show, for data sets of any shape and any names."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tables import SIDE, Scene, annotations

from rtdetr.data import Annotations, Batch, DetectionDataset, Split, collate
from rtdetr.errors import MissingExtraError
from rtdetr.evaluation import PredictionTable, evaluate
from rtdetr.evaluation.plots import (
    plot_confusion,
    plot_history,
    plot_labels,
    plot_precision_recall,
)
from rtdetr.evaluation.samples import draw_batch, draw_samples

SCENES = {
    "crowds": Scene(crowds=0.5),
    "one class, one image": Scene(images=1, classes=1),
    "many classes": Scene(classes=90),
    "nothing": Scene(boxes=0, predictions=0),
}
ROW = {
    "epoch": 0,
    "loss": 20.0,
    "loss_vfl": 0.5,
    "ap": 0.1,
    "ap50": 0.2,
    "ap_small": None,
    "precision": 0.5,
    "lr": 1e-4,
    "seconds": 7.0,
}
HISTORIES: dict[str, Sequence[Mapping[str, float | None]]] = {
    "no epoch": [],
    "one epoch": [ROW],
    "many epochs": [{**ROW, "epoch": epoch, "ap": epoch / 50} for epoch in range(40)],
    "gaps": [ROW, {**ROW, "epoch": 1, "ap": None, "loss": float("nan")}, {"epoch": 2}],
    "nothing measured": [{"epoch": 0, "ap": None, "loss": None}],
}


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def colors_of(path: Path) -> int:
    with Image.open(path) as image:
        return len(image.convert("RGB").getcolors(1 << 24) or ())


@pytest.mark.parametrize("name", SCENES)
def test_plots_of_any_evaluation(name: str, tmp_path: Path) -> None:
    truth, table = SCENES[name].draw(seed=3)
    evaluation = evaluate(table, truth, max_detections=300)

    plot_precision_recall(evaluation, tmp_path / "pr.png")
    plot_confusion(evaluation.confusion, tmp_path / "confusion.png")
    plot_labels(truth, tmp_path / "labels.jpg")

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "confusion.png",
        "labels.jpg",
        "pr.png",
    ]
    assert min(colors_of(path) for path in tmp_path.iterdir()) > 20


@pytest.mark.parametrize("name", HISTORIES)
def test_plots_of_any_history(name: str, tmp_path: Path) -> None:
    plot_history(HISTORIES[name], tmp_path / "curves.png")

    assert colors_of(tmp_path / "curves.png") > 20


def test_names_are_no_formulas(tmp_path: Path) -> None:
    truth = annotations([3], [(0, 0, 50, 50)] * 3, [0, 1, 2], total=3)
    names = ("$x_{", "_hidden", "two\nlines \x1b[31m")
    categories = type(truth.categories)(truth.categories.ids, names)
    odd = Annotations(**{**vars(truth), "categories": categories})
    evaluation = evaluate(PredictionTable.empty(), odd, max_detections=10)

    plot_precision_recall(evaluation, tmp_path / "pr.png")
    plot_confusion(evaluation.confusion, tmp_path / "confusion.png")
    plot_labels(odd, tmp_path / "labels.png")
    plot_history([{"epoch": 0, "loss_$a": 1.0}], tmp_path / "curves.png")

    assert len(list(tmp_path.iterdir())) == 4


def test_no_state_of_pyplot_is_touched(tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules

    plot_history(HISTORIES["one epoch"], tmp_path / "curves.png")

    assert ("matplotlib.pyplot" in sys.modules) == before


def test_without_matplotlib_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(MissingExtraError, match=r'pip install "rtdetr-ops\[train\]"'):
        plot_history([], tmp_path / "curves.png")


def in_memory(truth: Annotations) -> Split:
    return Split(truth, Images())


class Images:
    """A gray image for each index."""

    def __call__(self, index: int) -> Image.Image:
        return Image.new("RGB", (SIDE, SIDE), (120, 120, 120))


@pytest.mark.parametrize("name", SCENES)
def test_a_sheet_of_samples(name: str, tmp_path: Path) -> None:
    truth, table = SCENES[name].draw(seed=3)

    draw_samples(in_memory(truth), table, tmp_path / "val_samples.jpg", threshold=0.3)

    with Image.open(tmp_path / "val_samples.jpg") as sheet:
        pairs = min(8, len(truth))
        assert sheet.width == (4 if pairs > 2 else 2) * 408 + 8
        assert sheet.height == -(-pairs * 2 // (4 if pairs > 2 else 2)) * 430 + 8


def test_truth_is_left_of_prediction(tmp_path: Path) -> None:
    truth = annotations([1], [(50, 50, 150, 150)], [0])
    table = PredictionTable(
        np.asarray([0, 0]),
        np.float32([[20, 100, 60, 180], [100, 20, 180, 60]]),
        np.float32([0.9, 0.1]),
        np.asarray([0, 0]),
    )

    draw_samples(in_memory(truth), table, tmp_path / "sheet.png", threshold=0.5)

    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    # Twice the size; a caption of 22 pixels and gaps of 8.
    left, right = pixels[30:430, 8:408], pixels[30:430, 416:816]
    orange, gray = (230, 159, 0), (120, 120, 120)
    assert tuple(left[100, 200]) == orange
    assert tuple(right[100, 200]) == gray
    assert tuple(right[200, 80]) == orange
    assert tuple(right[80, 200]) == gray  # its score is too low


@pytest.mark.parametrize(("images", "columns"), [(1, 1), (3, 2), (20, 4)])
def test_a_sheet_of_a_batch(images: int, columns: int, tmp_path: Path) -> None:
    truth = annotations([1] * images, [(20, 20, 180, 180)] * images, [0] * images)
    dataset = DetectionDataset(in_memory(truth), (32, 64))
    batch: Batch = collate([dataset[index] for index in range(images)])

    draw_batch(batch, {0: "box"}, tmp_path / "train_batch.jpg")

    with Image.open(tmp_path / "train_batch.jpg") as sheet:
        rows = -(-min(16, images) // columns)
        assert sheet.size == (columns * 408 + 8, rows * 208 + 8)
    assert colors_of(tmp_path / "train_batch.jpg") > 20


def test_a_batch_without_boxes(tmp_path: Path) -> None:
    dataset = DetectionDataset(in_memory(annotations([0], [], [])), 64)

    draw_batch(collate([dataset[0]]), ["box"], tmp_path / "train_batch.png")

    assert colors_of(tmp_path / "train_batch.png") == 2
