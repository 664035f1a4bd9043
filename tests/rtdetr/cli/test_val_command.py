# SPDX-License-Identifier: Apache-2.0
"""``rtdetr val``: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Command
from found_objects import wide_detector, write_data_set
from PIL import Image

from rtdetr import RTDETR, ModelError
from rtdetr.data import load_data
from rtdetr.errors import DataError
from rtdetr.evaluation import validate

SIZE = (96, 96)
FILES = [
    *("confusion.png", "labels.jpg", "metrics.json", "pr.png", "predictions.json"),
    "val_samples.jpg",
]


@pytest.fixture(scope="module")
def detector() -> RTDETR:
    return wide_detector()


@pytest.fixture(scope="module")
def saved(detector: RTDETR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector.save_pretrained(tmp_path_factory.mktemp("wide") / "model")


@pytest.fixture(scope="module")
def data(detector: RTDETR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(detector, tmp_path_factory.mktemp("data"), SIZE)


def test_one_screen_and_every_file(rtdetr: Command, saved: Path, data: Path) -> None:
    result = rtdetr("val", data, "--model", saved)

    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].startswith("model ")
    assert lines[1] == f"{data} (COCO): val, 5 images"
    assert [line.split()[0] for line in lines[3:8]] == ["class", "all", "person", "bus", "dog"]
    assert any(line.startswith("best F1 ") for line in lines)
    assert lines[-1] == f"-> runs/val: {', '.join(FILES)}"
    assert len(lines) <= 24
    assert "\x1b" not in result.out
    for name in FILES:
        path = Path("runs/val", name)
        if path.suffix != ".json":
            with Image.open(path) as image:
                image.load()


def test_the_number_is_that_of_an_epoch(
    rtdetr: Command, detector: RTDETR, saved: Path, data: Path
) -> None:
    """What training measures with ``validate`` is what the command says of the saved model."""
    split = load_data(data).val
    assert split is not None
    expected, table = validate(detector.model, split, imgsz=SIZE, batch=3)

    result = rtdetr("val", data, "--model", saved, "--json", "--no-plots")

    assert (result.code, result.err) == (0, "")
    assert expected.ap is not None
    assert 0 < expected.ap < 1
    assert result.json["ap"] == pytest.approx(expected.ap, abs=1e-6)
    assert result.json["out"] == "runs/val"
    metrics = json.loads(Path("runs/val/metrics.json").read_text())
    assert metrics == {name: value for name, value in result.json.items() if name != "out"}
    predictions = json.loads(Path("runs/val/predictions.json").read_text())
    assert len(predictions) == len(table)
    assert {one["image_id"] for one in predictions} == {90, 89, 88, 87, 86}
    assert {one["category_id"] for one in predictions} <= {10, 11, 12}


def test_only_numbers(rtdetr: Command, saved: Path, data: Path) -> None:
    rtdetr("val", data, "--model", saved, "--no-plots", "--no-save-json", "--out", "there")
    result = rtdetr("val", data, "--model", saved, "--no-plots", "--no-save-json", "--out", "there")

    assert result.out.splitlines()[-1] == "-> there-2: metrics.json"
    assert [path.name for path in Path("there-2").iterdir()] == ["metrics.json"]


def test_split_and_size(rtdetr: Command, saved: Path, data: Path) -> None:
    words = ("--model", saved, "--no-plots", "--json", "--split", "train", "--imgsz", "64,128")

    result = rtdetr("val", data, *words)

    assert result.json["split"] == "train"
    assert result.json["imgsz"] == [64, 128]


def test_options_of_reading_data(rtdetr: Command, saved: Path, data: Path, tmp_path: Path) -> None:
    document = json.loads((data / "annotations" / "instances_val.json").read_text())
    document["images"].append({"id": 5, "file_name": "gone.jpg", "width": 10, "height": 10})
    broken = tmp_path / "broken"
    (broken / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (broken / split).symlink_to(data / split)
    (broken / "annotations" / "instances_val.json").write_text(json.dumps(document))
    train = (data / "annotations" / "instances_train.json").read_text()
    (broken / "annotations" / "instances_train.json").write_text(train)

    refused = rtdetr("val", broken, "--model", saved, "--no-plots")
    result = rtdetr("val", broken, "--model", saved, "--no-plots", "--skip-missing", "--json")

    assert refused.code == DataError.exit_code
    assert "(--skip-missing)" in refused.err
    assert result.json["images"] == 5
    assert result.err.startswith("warning: ")
    assert "gone.jpg" in result.err


def test_shared_classes_alone_are_measured(rtdetr: Command, saved: Path, data: Path) -> None:
    other = RTDETR(saved, names=["person", "kite", "dog"], device="cpu").save_pretrained("other")

    result = rtdetr("val", data, "--model", other, "--no-plots")

    assert "not measured, since the model has no such class: bus" in result.out


def test_no_class_in_common(rtdetr: Command, saved: Path, data: Path) -> None:
    other = RTDETR(saved, names=["cup", "kite", "fork"], device="cpu").save_pretrained("other")

    result = rtdetr("val", data, "--model", other, "--no-plots")

    assert result.code == ModelError.exit_code
    assert "the model knows cup, kite, fork, the data have person, bus, dog" in result.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("nowhere",), 3, "nowhere: no such file or folder"),
        (("DATA", "--split", "test"), 2, '--split: expected val, train, got "test"'),
        (("DATA", "--imgsz", "100"), 2, "--imgsz: expected multiples of 32, got 100. Try 96."),
        (("DATA", "--model", "nosuch"), 4, "nosuch"),
        (("DATA", "--val-fraction", "3"), 2, "--val-fraction: expected a number in 0..0.9, got 3"),
    ],
    ids=["no data", "split", "size", "model", "fraction"],
)
def test_what_cannot_be_is_one_sentence(
    rtdetr: Command, saved: Path, data: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    typed = [data if word == "DATA" else word for word in words]
    model = () if "--model" in words else ("--model", saved)

    result = rtdetr("val", *typed, *model)

    assert result.code == code
    assert message in result.err
    assert result.out == ""
    assert not Path("runs").exists()


def test_a_missing_extra_is_named_before_anything_runs(
    rtdetr: Command, saved: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)

    result = rtdetr("val", data, "--model", saved)

    assert result.code == 2
    assert 'pip install "rtdetr-ops[train]"' in result.err


def test_every_option_of_reading_has_a_flag_with_its_default() -> None:
    from dataclasses import fields

    from rtdetr.cli.reading import READ_OPTIONS
    from rtdetr.data import ReadOptions

    flags = {option.name: option.default for option in READ_OPTIONS}
    assert flags == {field.name: field.default for field in fields(ReadOptions)}
