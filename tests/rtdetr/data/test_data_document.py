# SPDX-License-Identifier: Apache-2.0
"""docs/data.md: its programs run, its trees are those of the program, its table has every finding."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_sets import TRAIN, coco, coco_folder
from test_bad_input import CASES
from torchvision_names import torchvision_importable

import rtdetr.data
from rtdetr.data import DetectionDataset, Key, ReadOptions
from rtdetr.data.layouts import LAYOUTS

DOCUMENT = Path(__file__).parents[3] / "docs" / "data.md"
SOURCES = Path(rtdetr.data.__file__).parent

pytestmark = pytest.mark.skipif(not DOCUMENT.is_file(), reason="docs are not beside these tests")

TEXT = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.is_file() else ""
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LIBRARIES = ("torchvision", "albumentations")
KIND = re.compile(r"[a-z]+(-[a-z]+)+|clipped|polygons|turned")


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    with torchvision_importable(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network
        yield


def run_block(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of a program that ran beside a data set called helmets; the third image has no objects."""
    document = coco(TRAIN)
    del document["annotations"][2]
    coco_folder(folder / "helmets", document)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "document"}
    exec(compile(block, str(DOCUMENT), "exec"), names)
    return names


def needs(block: str) -> None:
    for library in LIBRARIES:
        if re.search(rf"^(import|from) {library}\b", block, re.MULTILINE):
            pytest.importorskip(library, reason=f"{library} is not installed: make transforms")


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_program(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(block)
    run_block(block, tmp_path, monkeypatch)


@pytest.mark.parametrize("library", LIBRARIES)
def test_transforms(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images with objects and without; the same whenever it is asked again, other ones in other epochs."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: make transforms")
    (block,) = (
        block for block in BLOCKS if f"import {library}" in block or f"from {library}" in block
    )
    dataset: DetectionDataset = run_block(block, tmp_path, monkeypatch)["dataset"]
    dataset.size = (32, 48)
    counts, pixels = [0, 0, 0], set()
    for epoch in range(30):
        for image in range(3):
            item, again = (dataset[Key(epoch, image)] for _ in range(2))
            assert item["pixel_values"].equal(again["pixel_values"])
            assert item["labels"]["boxes"].equal(again["labels"]["boxes"])
            assert set(item["labels"]["class_labels"].tolist()) <= {image}
            counts[image] += len(item["labels"]["boxes"])
            pixels.add(item["pixel_values"].numpy().tobytes())
    assert min(counts[:2]) > 15
    assert counts[2] == 0
    assert len(pixels) > 40


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_trees_of_layouts(layout: Any) -> None:
    tree = "\n".join(f"  {line}" for line in layout.tree.splitlines())
    assert f"\n{layout.name}" in TEXT
    assert f"\n{tree}\n" in TEXT


def table() -> dict[str, tuple[str, str]]:
    """Kind -> (severity, option)."""
    rows = [line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| `")]
    cells = [[*row, ""][:4] for row in rows]
    return {
        kind: (severity, option.strip("`| "))
        for kinds, severity, _, option in cells
        for kind in re.findall(r"`([a-z-]+)`", kinds)
    }


def test_table_has_every_kind_of_finding() -> None:
    nodes = (
        node for path in SOURCES.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))
    )
    texts = {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert sorted(table()) == sorted(text for text in texts if KIND.fullmatch(text))


def test_table_has_severity_and_option_of_every_case() -> None:
    entries = table()
    for case in CASES.values():
        severity, option = entries[case.kind]
        assert severity == case.severity or case.words == ("do not fit",)
        assert not case.option or option == f"--{case.option.replace('_', '-')}"


def test_options_in_the_text_exist() -> None:
    flags = {flag.replace("-", "_") for flag in re.findall(r"`--([a-z-]+)`", TEXT)}
    assert flags - {"json", "strict"} <= set(ReadOptions.__dataclass_fields__)
