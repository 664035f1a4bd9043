# SPDX-License-Identifier: Apache-2.0
"""One file that is all of a detector."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_detector import NAMES, SIDE, tiny_config, tiny_detector

from rtdetr import RTDETR, RTDetrImageProcessor, RTDetrV2Config, RTDetrV2ForObjectDetection
from rtdetr.errors import ModelError, UsageError
from rtdetr.hub import METADATA_KEYS, PREPROCESSOR
from rtdetr.weights import save_checkpoint

IDS = (17, 3, 90)


@pytest.fixture
def detector() -> RTDETR:
    detector = tiny_detector()
    detector.model.config.category_ids = IDS
    return detector


@pytest.fixture
def best(detector: RTDETR, tmp_path: Path) -> Path:
    path = tmp_path / "run" / "best.safetensors"
    save_checkpoint(detector.model, path, detector.processor)
    return path


def noise() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_file_is_all_of_a_detector(best: Path, detector: RTDETR) -> None:
    loaded = RTDETR(best, device="cpu")
    assert loaded.names == NAMES
    assert loaded.imgsz == (SIDE, SIDE)
    assert loaded.processor == detector.processor
    assert loaded.model.config == detector.model.config
    assert loaded.model.load_report is not None
    assert loaded.model.load_report.is_complete
    expected = detector(noise(), threshold=0.3).to_coco(1)
    assert expected
    assert loaded(noise(), threshold=0.3).to_coco(1) == expected
    assert {entry["category_id"] for entry in expected} <= set(IDS)


def test_nothing_beside_the_file_counts(best: Path) -> None:
    tiny_config().replace(id2label={0: "another"}).save_pretrained(best.parent)
    RTDetrImageProcessor(size=320).save_pretrained(best.parent)
    loaded = RTDETR(best, device="cpu")
    assert loaded.names == NAMES
    assert loaded.imgsz == (SIDE, SIDE)
    assert RTDetrV2Config.from_pretrained(best).category_ids == IDS
    assert RTDetrImageProcessor.from_pretrained(best).input_size == (SIDE, SIDE)
    # What save_pretrained writes is a folder: the files in it belong together.
    loaded.save_pretrained(best.parent)
    tiny_config().replace(id2label=dict(enumerate("abc"))).save_pretrained(best.parent)
    assert list(RTDETR(best.parent / "model.safetensors", device="cpu").names.values()) == [*"abc"]


def test_a_checkpoint_without_a_folder_has_its_configuration(
    detector: RTDETR, tmp_path: Path
) -> None:
    detector.save_pretrained(tmp_path / "saved")
    moved = tmp_path / "moved.safetensors"
    (tmp_path / "saved" / "model.safetensors").rename(moved)
    assert RTDetrV2Config.from_pretrained(moved) == detector.model.config
    with pytest.raises(ModelError, match=r"moved\.safetensors: no preprocessor_config\.json there"):
        RTDetrImageProcessor.from_pretrained(moved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(detector: RTDETR, tmp_path: Path, dtype: torch.dtype) -> None:
    name = "model.backbone.model.embedder.embedder.0.normalization.running_var"
    detector.model.state_dict()[name].fill_(1e6)  # beyond float16
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(detector.model, whole, detector.processor)
    save_checkpoint(detector.model, half, detector.processor, dtype=dtype)
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    load = RTDetrV2ForObjectDetection.from_pretrained
    assert load(half).dtype == torch.float32
    assert load(half, dtype="auto").dtype == dtype
    assert torch.equal(load(half).state_dict()[name], detector.model.state_dict()[name])
    for parameter, expected in zip(
        load(half).parameters(), detector.model.parameters(), strict=True
    ):
        torch.testing.assert_close(parameter, expected.to(dtype).float(), rtol=0, atol=0)


def test_transformers_names(best: Path) -> None:
    with safe_open(best, framework="np") as file:
        assert file.metadata()["format"] == "pt"  # transformers asks for it
        assert "model.decoder.class_embed.0.weight" in file.keys()  # noqa: SIM118 - no mapping


def test_the_same_weights_are_the_same_bytes(best: Path, detector: RTDETR) -> None:
    first = best.read_bytes()
    for _ in range(6):  # of an order that is drawn anew
        save_checkpoint(detector.model, best, detector.processor)
        assert best.read_bytes() == first


def test_an_error_leaves_the_older_file(best: Path, detector: RTDETR, monkeypatch: Any) -> None:
    before = best.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rtdetr.weights.save.save_file", full)
    with pytest.raises(OSError, match=r"best\.safetensors"):
        save_checkpoint(detector.model, best, detector.processor)
    assert best.read_bytes() == before
    assert os.listdir(best.parent) == [best.name]  # noqa: PTH208


def test_the_file_is_on_the_disk_before_it_has_its_name(
    best: Path, detector: RTDETR, monkeypatch: Any
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(number: int) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{number}")  # noqa: PTH112
        events.append("folder" if is_folder else "file")
        fsync(number)

    def note_replace(path: Path, target: Path) -> Path:
        events.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    save_checkpoint(detector.model, best, detector.processor)
    assert events == ["file", "name", "folder"]


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("best.pth", None, r"path: expected a name that ends in \.safetensors, got .*best\.pth"),
        ("best.safetensors", torch.int8, r"dtype: expected a floating dtype, got torch\.int8"),
    ],
)
def test_wrong_arguments(
    name: str, dtype: Any, message: str, detector: RTDETR, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        save_checkpoint(detector.model, tmp_path / name, detector.processor, dtype=dtype)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "rtdetr_processor: not JSON"),
        ('{"size": "huge"}', "rtdetr_processor: size: expected"),
    ],
)
def test_damaged_settings(text: str, message: str, best: Path) -> None:
    with safe_open(best, framework="pt") as file:
        metadata = {**file.metadata(), METADATA_KEYS[PREPROCESSOR]: text}
    save_file(load_file(best), best, metadata)
    with pytest.raises(ModelError, match=message):
        RTDetrImageProcessor.from_pretrained(best)


def test_ids_follow_the_classes(best: Path) -> None:
    config = RTDetrV2Config.from_pretrained(best)
    assert config.replace(num_queries=7).category_ids == IDS
    assert config.replace(id2label=dict(enumerate("abc"))).category_ids is None
    renamed = RTDETR(best, names=["a", "b", "c"], device="cpu")
    assert renamed.model.config.category_ids == IDS
    config.num_labels = 2
    assert config.category_ids is None
    with pytest.raises(ValueError, match="category_ids: expected 3 values, one for each class"):
        RTDetrV2Config(id2label=NAMES, category_ids=(1, 2))
    with pytest.raises(ValueError, match="category_ids: expected whole numbers, each once"):
        RTDetrV2Config(id2label=NAMES, category_ids=(1, 2, 2))
