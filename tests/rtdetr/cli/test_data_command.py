# SPDX-License-Identifier: Apache-2.0
"""``rtdetr data``: the report, its exit code, and data sets made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from rtdetr.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``rtdetr data`` in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["rtdetr", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        code = end.value.code
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images, the ids of the classes 3 and 8; the second class is in one image alone."""
    root = tmp_path / "helmets"
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for category_id, name in ((3, "helmet"), (8, "head")):
        document["categories"].append({"id": category_id, "name": name})
    for index in range(12):
        name = f"{index}.png"
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (index, 0, 0)).save(root / "images" / name)
        document["images"].append({"id": index, "file_name": name, "width": 64, "height": 48})
        document["annotations"].append(
            {
                "id": index,
                "image_id": index,
                "category_id": 3 if index else 8,
                "bbox": [4, 4, 20, 9],
            }
        )
    write(root, document)
    return root


def write(root: Path, document: dict[str, Any]) -> None:
    (root / "annotations.json").write_text(json.dumps(document))


def spoil(root: Path) -> None:
    """A box of no declared class."""
    document = json.loads((root / "annotations.json").read_text())
    document["annotations"][5]["category_id"] = 7
    write(root, document)


def test_report(command: Command, data: Path) -> None:
    result = command("check", data, "--val-fraction", 0)
    assert result.code == 0
    assert result.out.splitlines() == [
        f"{data} (COCO)",
        "train  12 images, 12 boxes",
        "",
        "class  id  name    train",
        "    0   3  helmet     11",
        "    1   8  head        1",
        "",
        "nothing to remark",
        "",
        "ready to train",
    ]
    assert result.err == ""


def test_error(command: Command, data: Path) -> None:
    spoil(data)
    result = command("check", data)
    assert result.code == 3
    assert "error    " in result.out
    assert "category_id 7 (1 box, first: image 5.png)" in result.out
    assert "(--ignore-unknown-classes)" in result.out
    assert "not ready to train: 1 to correct" in result.out
    assert command("check", data, "--ignore-unknown-classes").code == 0


def test_strict_takes_warnings_for_errors(command: Command, data: Path) -> None:
    """One class has no box in val."""
    result = command("check", data)
    assert (result.code, "warning  1 class without a box" in result.out) == (0, True)
    assert command("check", data, "--strict").code == 3


def test_json(command: Command, data: Path) -> None:
    spoil(data)
    result = command("check", data, "--json")
    assert result.code == 3
    report = json.loads(result.out)
    assert report["ready"] is False
    assert [split["split"] for split in report["splits"]] == ["train", "val"]
    assert [row["id"] for row in report["classes"]] == [3, 8]
    assert "unknown-category" in {finding["kind"] for finding in report["findings"]}


def test_images_without_objects_may_be_left_out(command: Command, data: Path) -> None:
    document = json.loads((data / "annotations.json").read_text())
    del document["annotations"][5]
    write(data, document)
    assert "train  12 images" in command("check", data, "--val-fraction", 0).out
    result = command("check", data, "--val-fraction", 0, "--no-empty")
    assert "train  11 images" in result.out
    assert "note     train: 1 image without an object to learn (first: 5.png)" in result.out


@pytest.mark.parametrize(("name", "code"), [("nowhere", 3), ("empty", 3)])
def test_no_data_set(name: str, code: int, command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = command("check", tmp_path / name)
    assert result.code == code
    assert name in result.err


@pytest.mark.parametrize("arguments", [("--val-fraction", 2), ("--imgsz", 0)], ids=str)
def test_bad_options(arguments: tuple[object, ...], command: Command, data: Path) -> None:
    result = command("check", data, *arguments)
    assert result.code == 2
    assert result.err.startswith(f"rtdetr: {arguments[0]}: expected ")


def test_make(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    result = command("make", "digits", tmp_path / "digits", "--images", 10, "--seed", 1)
    assert result.code == 0
    assert result.out.startswith("10 images, ")
    assert command("check", tmp_path / "digits").code == 0


def test_make_codes(command: Command, tmp_path: Path) -> None:
    mpl = pytest.importorskip("matplotlib")
    pytest.importorskip("segno")
    pytest.importorskip("barcode")
    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    words = ("make", "codes", tmp_path / "codes", "--images", 10, "--fonts", fonts)
    result = command(*words)
    assert result.code == 0
    assert " objects, 3 classes -> " in result.out
    assert "fonts: " in result.err
    assert command("check", tmp_path / "codes").code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("digits", "--backgrounds", "."),
            "backgrounds: expected with another kind of data set, got with digits",
        ),
        (("digits", "--workers", -1), "--workers"),
        (("codes", "--fonts", "nowhere"), "fonts: expected "),
    ],
    ids=str,
)
def test_make_with_bad_options(
    words: tuple[object, ...], sentence: str, command: Command, tmp_path: Path
) -> None:
    for package in ("sklearn", "segno", "barcode"):
        pytest.importorskip(package)
    kind, *options = words
    result = command("make", kind, tmp_path / "x", *options)
    assert result.code == 2
    assert sentence in result.err


def test_make_something_unknown(command: Command, tmp_path: Path) -> None:
    result = command("make", "digit", tmp_path / "x")
    assert result.code == 2
    assert 'Did you mean "digits"?' in result.err
