# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from photos import photo
from PIL import Image

from rtdetr.errors import DataError, MissingExtraError, UsageError
from rtdetr.images.video import VideoWriter, read_video, video_info

FRAMES = 10


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A clip whose frames brighten by 20 each."""
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, rate=12) as writer:
        for index in range(FRAMES):
            writer.add(Image.new("RGB", (64, 48), (20 * index,) * 3))
    return path


def levels(path: Path, **options: int) -> list[int]:
    return [round(float(np.asarray(one.image).mean()) / 20) for one in read_video(path, **options)]


def test_round_trip(clip: Path) -> None:
    frames = list(read_video(clip))
    assert [frame.name for frame in frames] == [f"{clip}#{index}" for index in range(FRAMES)]
    assert {frame.image.size for frame in frames} == {(64, 48)}
    assert {frame.image.mode for frame in frames} == {"RGB"}
    assert levels(clip) == list(range(FRAMES))
    info = video_info(clip)
    assert (info.rate, info.frames) == (Fraction(12), FRAMES)
    assert list(clip.parent.iterdir()) == [clip]


def test_stride_and_limit(clip: Path) -> None:
    assert levels(clip, stride=3) == [0, 3, 6, 9]
    assert levels(clip, stride=3, limit=2) == [0, 3]
    for option in ("stride", "limit"):
        with pytest.raises(UsageError, match=f"{option}: expected at least 1, got 0"):
            read_video(clip, **{option: 0})


def test_frame_looks_like_its_image(tmp_path: Path) -> None:
    pytest.importorskip("av")
    image = photo().resize((320, 240))
    with VideoWriter(tmp_path / "one.mp4") as writer:
        writer.add(image)
    (frame,) = read_video(tmp_path / "one.mp4")
    difference = np.abs(np.asarray(frame.image, np.int64) - np.asarray(image, np.int64))
    assert difference.mean() < 12
    assert difference.mean() > 0  # it is a lossy copy, not the same object


def test_odd_sizes_lose_one_row_and_column(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with VideoWriter(tmp_path / "odd.mp4") as writer:
        writer.add(Image.new("RGB", (65, 49)))
    (frame,) = read_video(tmp_path / "odd.mp4")
    assert frame.image.size == (64, 48)


def write(path: Path, *sizes: tuple[int, int]) -> None:
    with VideoWriter(path) as writer:
        for size in sizes:
            writer.add(Image.new("RGB", size))


def test_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with pytest.raises(DataError, match="expected frames of 64x48, got 48x64"):
        write(tmp_path / "a.mp4", (64, 48), (48, 64))
    assert list(tmp_path.iterdir()) == []


def test_nothing_written_is_no_file(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "bad.mp4").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(DataError, match=r"bad\.mp4: not a readable video"):
        list(read_video(tmp_path / "bad.mp4"))
    with pytest.raises(DataError, match=r"none\.mp4: no such file"):
        list(read_video(tmp_path / "none.mp4"))


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(MissingExtraError, match=r'pip install "rtdetr-ops\[video\]"'):
        list(read_video(tmp_path / "a.mp4"))
    with pytest.raises(MissingExtraError, match="Video needs the package av"):
        VideoWriter(tmp_path / "b.mp4")
