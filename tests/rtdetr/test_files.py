# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from photos import drawn
from PIL import Image
from tiny_detector import tiny_detector

from rtdetr import save_original
from rtdetr.files import JsonListWriter, atomic_write
from rtdetr.results.detections import Detections


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def detections() -> Detections:
    return Detections(
        xyxy=np.asarray([[1.0, 2.0, 20.0, 30.0]]),
        scores=np.asarray([0.5]),
        labels=np.asarray([0]),
        names=["bus"],
        image_size=(40, 50),
        image=drawn(40, 50),
    )


def write_video(path: Path) -> None:
    pytest.importorskip("av")
    from rtdetr.images.video import VideoWriter

    with VideoWriter(path) as writer:
        writer.add(drawn(48, 64))


def write_list(path: Path) -> None:
    with JsonListWriter(path) as writer:
        writer.append({"a": 1})


WRITERS: dict[str, Callable[[Path], object]] = {
    "image": lambda folder: detections().save(folder / "a.png"),
    "model": lambda folder: tiny_detector().save_pretrained(folder),
    "pth": lambda folder: save_original(tiny_detector().model, folder / "a.pth"),
    "video": lambda folder: write_video(folder / "a.mp4"),
    "list": lambda folder: write_list(folder / "a.json"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_umask_decides_who_may_read(tmp_path: Path, umask: int, kind: str) -> None:
    WRITERS[kind](tmp_path / "new")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
    assert modes
    assert set(modes.values()) == {0o666 & ~umask}, modes


@pytest.mark.parametrize("kind", WRITERS)
def test_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    if kind != "list":  # its path comes from a folder that is expanded already
        WRITERS[kind](Path("~/new"))
        assert list((tmp_path / "home" / "new").iterdir())
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_full_disk_is_told_with_the_path_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    # A limit on the size of files stands in for a full disk: the same calls fail.
    program = (
        "import resource, sys; from pathlib import Path; from test_files import WRITERS; "
        "import rtdetr.images.video, torch; torch.set_num_threads(1); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8)); "
        f"WRITERS[{kind!r}](Path(sys.argv[1]))"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "new")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("OSError: [Errno 27] File too large: "), done.stderr
    assert str(tmp_path / "new") in last
    left = [path.name for path in (tmp_path / "new").iterdir()]
    assert left == (["a.json"] if kind == "list" else [])
    if kind == "list":
        assert json.loads((tmp_path / "new" / "a.json").read_text()) == []


def test_long_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".txt")
    with atomic_write(path) as temporary:
        temporary.write_text("a")
    assert path.read_text() == "a"


def test_error_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a.txt", "old")]


def test_list_is_whole_after_each_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("of an older run")
    entries = [{"name": "人\n", "n": index, "long": "x" * 5000 * (index % 2)} for index in range(6)]
    with JsonListWriter(path) as writer:
        assert json.loads(path.read_text(encoding="utf-8")) == []
        for count, entry in enumerate(entries, start=1):
            writer.append(entry)
            assert json.loads(path.read_text(encoding="utf-8")) == entries[:count]
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(entries) + 2


def test_entry_that_does_not_fit_leaves_the_list_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with JsonListWriter(path) as writer:
        writer.append("first")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(OSError, match=r"too large.*a\.json"):
                writer.append("x" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert json.loads(path.read_text()) == ["first"]
        writer.append("last")
    assert json.loads(path.read_text()) == ["first", "last"]


def test_saved_image_keeps_its_pixels(tmp_path: Path) -> None:
    path = detections().save(tmp_path / "a.png")
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), np.asarray(detections().plot()))
