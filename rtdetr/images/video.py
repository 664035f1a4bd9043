# SPDX-License-Identifier: Apache-2.0
"""Reading and writing video through PyAV, an optional package."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from PIL import Image

from ..errors import DataError, MissingExtraError, UsageError
from .io import LoadedImage
from .names import is_url

DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself."""

    rate: Fraction  # frames per second
    frames: int | None  # None where the container does not tell


def video_info(source: str | os.PathLike[str]) -> VideoInfo:
    """Frame rate and number of frames.

    Raises:
        DataError: if the file is not a readable video.
        MissingExtraError: if PyAV is not installed.
    """
    with _opened(source) as container:
        stream = container.streams.video[0]
        return VideoInfo(Fraction(stream.average_rate or DEFAULT_RATE), stream.frames or None)


def read_video(
    source: str | os.PathLike[str], *, stride: int = 1, limit: int | None = None
) -> Iterator[LoadedImage]:
    """Frames of a video as RGB images named ``clip.mp4#12``, turned as the container says.

    Args:
        source: a path, or a URL that PyAV can open.
        stride: take every ``stride``-th frame.
        limit: at most so many.

    Raises:
        DataError: if the file is not a readable video, or breaks off.
        MissingExtraError: if PyAV is not installed.
    """
    if stride < 1:
        raise UsageError(f"stride: expected at least 1, got {stride}")
    if limit is not None and limit < 1:
        raise UsageError(f"limit: expected at least 1, got {limit}")
    return islice(_frames(source, stride), limit)


def _frames(source: str | os.PathLike[str], stride: int) -> Iterator[LoadedImage]:
    av = _av()
    with _opened(source) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        index = -1
        try:
            for index, frame in enumerate(container.decode(stream)):
                if index % stride == 0:
                    yield LoadedImage(_turned(frame), f"{source}#{index}")
        except av.error.FFmpegError as error:
            where = f"after frame {index}" if index >= 0 else "before the first frame"
            raise DataError(f"{source}: the video breaks off {where}: {error}") from error


def _turned(frame: Any) -> Image.Image:
    image: Image.Image = frame.to_image()
    # Phones store upright clips lying down, with the angle (counterclockwise) beside them.
    angle = getattr(frame, "rotation", 0) % 360
    return image.rotate(angle, expand=True) if angle else image


class VideoWriter:
    """An H.264 file, written beside its place and moved there when closed; use it in a ``with`` block.

    Args:
        path: where to, usually ``.mp4``.
        rate: frames per second.

    Raises:
        MissingExtraError: if PyAV is not installed.
    """

    def __init__(self, path: str | Path, rate: Fraction | int = DEFAULT_RATE) -> None:
        av = _av()
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rate = Fraction(rate).limit_denominator(1001 * 1000)
        self._folder = tempfile.TemporaryDirectory(
            dir=self.path.parent, prefix=f".{self.path.stem}-"
        )
        self._temporary = Path(self._folder.name) / self.path.name
        self._container = av.open(str(self._temporary), mode="w")
        self._stream: Any = None

    def add(self, image: Image.Image) -> None:
        """Append one RGB image; all have the size of the first."""
        av = _av()
        # 4:2:0 needs even sizes; an odd row or column at the border is cut off.
        width, height = image.width // 2 * 2, image.height // 2 * 2
        if self._stream is None:
            self._stream = self._container.add_stream(_codec(av), rate=self._rate)
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
        if (width, height) != (self._stream.width, self._stream.height):
            raise DataError(
                f"{self.path}: expected frames of {self._stream.width}x{self._stream.height}, got {width}x{height}"
            )
        frame = av.VideoFrame.from_image(image.convert("RGB").crop((0, 0, width, height)))
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None and self._stream is not None:
                self._temporary.replace(self.path)
        finally:
            self._folder.cleanup()


def _codec(av: ModuleType) -> str:
    """H.264, which browsers play, where this FFmpeg can write it."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"


def _opened(source: str | os.PathLike[str]) -> Any:
    av = _av()
    if not is_url(source) and not Path(source).is_file():
        raise DataError(f"{source}: no such file")
    try:
        container = av.open(str(source), timeout=20.0)
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{source}: not a readable video: {error}") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{source}: has no video stream")
    return container


def _av() -> ModuleType:
    try:
        import av
        import av.error
    except ImportError as error:
        raise MissingExtraError("Video", "av", '"rtdetr-ops[video]"') from error
    module: ModuleType = av
    return module
