# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("size", [(1, 48), (64, 1), (1, 1), (2, 2), (63, 47)], ids=str)
def test_small_and_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("av")
    write(tmp_path / "a.mp4", size, size)
    first, _ = read_video(tmp_path / "a.mp4")
    assert first.image.size == tuple(max(2, side // 2 * 2) for side in size)


def write_frames(path: Path, times: list[int], clock: Fraction) -> None:
    """A video whose frames begin at these multiples of ``clock``."""
    av = pytest.importorskip("av")
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4")
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = clock
        for time in times:
            frame = av.VideoFrame.from_image(photo().resize((64, 48)))
            frame.pts, frame.time_base = time, clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def times_of(path: Path) -> list[float | None]:
    return [frame.time for frame in read_video(path)]


VARIABLE = [0, 40, 80, 1000, 1040, 1500, 5000, 5040, 8300]  # ms
CLOCKS = {
    "matroska": ("a.mkv", VARIABLE, Fraction(1, 1000)),
    "mp4": ("a.mp4", VARIABLE, Fraction(1, 1000)),
    "a fine clock": ("a.mp4", [0, 512, 1024, 7777, 99_999], Fraction(1, 12_800)),
    "television": ("a.mp4", [0, 1001, 2002, 3003, 9009], Fraction(1, 30_000)),
    "from another time on": ("a.mkv", [700, 740, 2000], Fraction(1, 1000)),
}


@pytest.mark.parametrize("case", CLOCKS)
def test_a_copy_has_the_times_of_its_source(tmp_path: Path, case: str) -> None:
    name, times, clock = CLOCKS[case]
    write_frames(tmp_path / name, times, clock)
    info = video_info(tmp_path / name)
    with VideoWriter(tmp_path / "copy.mp4", info.rate, info.clock) as writer:
        for frame in read_video(tmp_path / name):
            writer.add(frame.image, frame.time)
    wanted = [float((time - times[0]) * clock) for time in times]
    assert times_of(tmp_path / name) == pytest.approx(wanted, abs=1e-9)
    assert times_of(tmp_path / "copy.mp4") == pytest.approx(wanted, abs=1e-9)


def test_times_without_any_follow_the_rate(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with VideoWriter(tmp_path / "a.mp4", Fraction(30_000, 1001), Fraction(1, 1000)) as writer:
        for _ in range(40):
            writer.add(Image.new("RGB", (64, 48)))
    wanted = [index * 1001 / 30_000 for index in range(40)]
    assert times_of(tmp_path / "a.mp4") == pytest.approx(wanted, abs=0.001)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / os.fsdecode(b"d\xe9") / os.fsdecode(b"2\xe9\n%d.mp4")
    write(path, (64, 48))
    assert len(list(read_video(path))) == 1


@pytest.mark.parametrize("source", [3, "3", "/dev/video3"])
@pytest.mark.skipif(sys.platform != "linux", reason="names of Linux")
def test_cameras(monkeypatch: pytest.MonkeyPatch, source: int | str) -> None:
    av = pytest.importorskip("av")
    opened = []
    real = av.open

    def fake(file: str, mode: str | None = None, format: str | None = None, **options: Any) -> Any:  # noqa: A002 -- PyAV's names
        assert mode is None
        opened.append((file, format))
        return real("testsrc=size=64x48:rate=10", format="lavfi", **options)

    monkeypatch.setattr(av, "open", fake)
    frames = list(read_video(source, limit=3))
    assert opened == [("/dev/video3", "v4l2")]
    assert [frame.name for frame in frames] == [f"{source}#{index}" for index in range(3)]
    assert [frame.time for frame in frames] == [0, 0.1, 0.2]
    assert video_info(source).frames is None
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (97, "No such file or directory"),
        ("rtsp://127.0.0.1:1/live", "Connection refused"),
        ("http://127.0.0.1:1/a.mp4", "Connection refused"),
    ],
)
def test_cameras_and_streams_that_are_not_there(source: int | str, reason: str) -> None:
    pytest.importorskip("av")
    with pytest.raises(DataError, match=rf"^{source}: not a readable video: .*{reason}"):
        list(read_video(source))


def write(path: Path, *sizes: tuple[int, int]) -> None:
    with VideoWriter(path) as writer:
        for size in sizes:
            writer.add(Image.new("RGB", size))


def test_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with pytest.raises(DataError, match="expected frames of 64x48, got 48x64"):
        write(tmp_path / "a.mp4", (64, 48), (48, 64))
    assert list(tmp_path.iterdir()) == []


def test_size_that_the_codec_does_not_write(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    if "libx264" not in av.codecs_available:
        pytest.skip("this FFmpeg does not write H.264")
    with pytest.raises(DataError, match=r"a\.mp4: cannot write frames of 20000x2: "):
        write(tmp_path / "a.mp4", (20_000, 2))
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
