# SPDX-License-Identifier: Apache-2.0
"""A word for a model is turned into a value once; hub files are fetched in one place, with one set of options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors
from tiny_detector import tiny_config

from rtdetr import RTDETR, RTDetrImageProcessor, RTDetrV2Config, RTDetrV2ForObjectDetection
from rtdetr.errors import ModelError
from rtdetr.hub import Checkpoint, Folder, HubOptions, Repository, model_files

OPTIONS: dict[str, Any] = {
    "revision": "v1",
    "cache_dir": "cache",
    "token": "t",
    "local_files_only": True,
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What the hub serves: a tiny detector whose images are 96x96."""
    folder = tmp_path / "repository"
    model = RTDetrV2ForObjectDetection(tiny_config())
    model.save_pretrained(folder, processor=RTDetrImageProcessor(size=96))
    return folder


def serve(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, unreachable: str = ""
) -> list[tuple[str, dict[str, Any]]]:
    """Let the hub serve ``folder``; returns the downloads, file and options of each."""
    downloads = []

    def download(_: str, name: str, **options: Any) -> str:
        downloads.append((name, options))
        if name == unreachable:
            raise errors.LocalEntryNotFoundError("offline")
        if not (folder / name).is_file():
            raise errors.EntryNotFoundError("absent")
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return downloads


def test_a_word_becomes_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "best.pth").touch()
    options = HubOptions(revision="v1")
    assert model_files("owner/name") == Folder(Path("owner/name"))
    assert model_files("~/owner") == Folder(tmp_path / "owner")
    assert model_files("best.pth") == Checkpoint(Path("best.pth"))
    assert model_files("someone/detector", options) == Repository("someone/detector", options)
    assert model_files("rtdetrv2_r18vd") is None


@pytest.mark.parametrize(
    "source",
    [
        *("./runs/train", "../model", "~/x", "runs/train/exp", "/nothing", "runs/"),
        *("a/best.safetensors", "best.pth", Path("a/b")),
    ],
    ids=str,
)
def test_a_path_without_a_file_is_no_hub_name(
    source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    for load in (
        RTDETR,
        RTDetrV2Config.from_pretrained,
        RTDetrV2ForObjectDetection.from_pretrained,
        RTDetrImageProcessor.from_pretrained,
    ):
        with pytest.raises(ModelError, match=rf"^{source}: no such file or folder$"):
            load(source)


def test_every_door_takes_the_same_options(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for load in (
        RTDETR,
        RTDetrV2Config.from_pretrained,
        RTDetrV2ForObjectDetection.from_pretrained,
        RTDetrImageProcessor.from_pretrained,
    ):
        downloads = serve(monkeypatch, repository)
        load("someone/detector", **OPTIONS)
        assert downloads
        assert all(options == OPTIONS for _, options in downloads)


def test_a_revision_is_of_the_source_alone(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = serve(monkeypatch, repository)
    RTDETR("someone/detector", config="someone/else", **OPTIONS)
    revisions = [options.get("revision") for name, options in downloads if name == "config.json"]
    assert sorted(map(str, revisions)) == ["None", "v1"]


def test_absent_preprocessing_is_the_default_and_unreachable_an_error(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, repository)
    assert RTDETR("someone/detector").imgsz == (96, 96)
    serve(monkeypatch, repository, unreachable="preprocessor_config.json")
    with pytest.raises(ModelError, match=r"^Could not download someone/detector \(no network\)"):
        RTDETR("someone/detector")
    (repository / "preprocessor_config.json").unlink()
    serve(monkeypatch, repository)
    assert RTDETR("someone/detector").imgsz == (640, 640)


def test_settings_that_are_named_themselves(repository: Path) -> None:
    config = repository / "other.json"
    config.write_text((repository / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    assert RTDetrV2Config.from_pretrained(config) == tiny_config()
    assert RTDetrV2Config.from_pretrained(repository / "model.safetensors") == tiny_config()
    settings = repository / "mine.json"
    settings.write_text(json.dumps({"size": {"height": 32, "width": 64}}), encoding="utf-8")
    assert RTDetrImageProcessor.from_pretrained(settings).size == {"height": 32, "width": 64}


def test_own_processing_spares_the_hub(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, repository, unreachable="preprocessor_config.json")
    processor = RTDetrImageProcessor(size=64)
    assert RTDETR("someone/detector", processor=processor).processor is processor
