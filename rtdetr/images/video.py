# SPDX-License-Identifier: Apache-2.0
"""Reading and writing video through PyAV, an optional package."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeAlias

from PIL import Image

from ..errors import DataError, MissingExtraError, UsageError
from ..files import HIDDEN, home_path, naming
from .io import LoadedImage, regular_file
from .names import CAMERA_DEVICE, is_live, is_url

__all__ = ["Video", "VideoInfo", "VideoWriter", "read_video", "require_av", "video_info"]

DEFAULT_RATE = Fraction(25)
SILENCE_S = 20.0
CLOCK = Fraction(1, 90_000)
"""Seconds that times are counted in, where the video does not say: the clock of MPEG."""
MPEG4_CLOCK = Fraction(1, 60_000)
"""As fine as MPEG-4 Part 2 can count."""

# Of the place that is written to, and not of what is written.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)

# FFmpeg's name for the cameras of a platform, and its name for the first, second, ... of them.
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}

Video: TypeAlias = str | os.PathLike[str] | int
"""A path, a URL that PyAV can open, or the number of a camera."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself.

    Args:
        rate: frames per second, on average.
        frames: how many; None where the container does not tell.
        clock: seconds that the times of its frames are multiples of.
    """

    rate: Fraction = DEFAULT_RATE
    frames: int | None = None
    clock: Fraction = CLOCK


def video_info(source: Video) -> VideoInfo:
    """Frame rate and number of frames; of a camera or stream, which is opened once only, nothing is known.

    Raises:
        DataError: if the file is not a readable video.
        MissingExtraError: if PyAV is not installed.
    """
    if is_live(source):
        return VideoInfo()
    with _open(source) as container:
        stream = container.streams.video[0]
        rate = Fraction(stream.average_rate or DEFAULT_RATE)
        return VideoInfo(rate, stream.frames or None, Fraction(stream.time_base or CLOCK))


def read_video(
    source: Video, *, stride: int = 1, limit: int | None = None
) -> Iterator[LoadedImage]:
    """Frames of a video as RGB images named ``clip.mp4#12``, turned as the container says.

    Args:
        source: a path, a URL that PyAV can open, or the number of a camera.
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


def require_av() -> ModuleType:
    """PyAV.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import av
        import av.error
    except ImportError as error:
        raise MissingExtraError("Video", "av", '"rtdetr-ops[video]"') from error
    module: ModuleType = av
    return module


def _frames(source: Video, stride: int) -> Iterator[LoadedImage]:
    with _open(source) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = Fraction(stream.average_rate or DEFAULT_RATE)
        index, first = -1, Fraction(0)
        try:
            for index, frame in enumerate(container.decode(stream)):
                has_time = frame.pts is not None and frame.time_base
                time = frame.pts * frame.time_base if has_time else index / rate
                first = time if index == 0 else first
                if index % stride == 0:
                    yield LoadedImage(_rotate(frame), f"{source}#{index}", float(time - first))
        except Exception as error:
            where = f"after frame {index}" if index >= 0 else "before the first frame"
            raise DataError(f"{source}: the video breaks off {where}: {_reason(error)}") from error


def _rotate(frame: Any) -> Image.Image:
    image: Image.Image = frame.to_image()
    # Phones store upright clips lying down, with the angle (counterclockwise) beside them.
    angle = getattr(frame, "rotation", 0) % 360
    return image.rotate(angle, expand=True) if angle else image


class VideoWriter:
    """An H.264 file, written beside its place and moved there when closed; use it in a ``with`` block.

    Args:
        path: where to, usually ``.mp4``.
        rate: frames per second, of those that come without a time.
        clock: seconds that times are counted in.

    Raises:
        MissingExtraError: if PyAV is not installed.
        OSError: if nothing can be written there.
    """

    def __init__(
        self, path: str | Path, rate: Fraction | int = DEFAULT_RATE, clock: Fraction = CLOCK
    ) -> None:
        self._av = require_av()
        self.path = home_path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rate = Fraction(rate).limit_denominator(1001 * 1000)
        self._clock = clock
        self._count, self._pts = 0, -1
        self._stream: Any = None
        self._is_broken = False
        with naming(self.path):
            self._folder = tempfile.TemporaryDirectory(dir=self.path.parent, prefix=HIDDEN)
            self._temporary = Path(self._folder.name) / f"video{self.path.suffix}"
            self._container = self._av.open(str(self._temporary), mode="w")

    def add(self, image: Image.Image, time: float | None = None) -> None:
        """Append one RGB image; all have the size of the first.

        Args:
            image: the frame.
            time: seconds after the first frame; by default as the rate says.

        Raises:
            DataError: if it has another size than the first, or one that the codec does not write.
            OSError: if the disk is full.
        """
        # 4:2:0 needs even sizes; an odd row or column at the border is cut off, and a single one is doubled.
        width, height = (max(2, side // 2 * 2) for side in image.size)
        if self._stream is None:
            self._stream = self._add_stream(width, height)
        if (width, height) != (self._stream.width, self._stream.height):
            raise DataError(
                f"{self.path}: expected frames of {self._stream.width}x{self._stream.height}, got {width}x{height}"
            )
        image = image.convert("RGB")
        is_whole = min(image.size) >= 2
        image = image.crop((0, 0, width, height)) if is_whole else image.resize((width, height))
        frame = self._av.VideoFrame.from_image(image)
        self._pts = max(self._pts + 1, self._ticks(time))
        self._count += 1
        frame.pts, frame.time_base = self._pts, self._clock
        self._encode(frame)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        is_whole = kind is None and self._stream is not None and not self._is_broken
        try:
            if not is_whole:
                with suppress(Exception):  # FFmpeg would finish the file, which goes anyway
                    self._container.close()
                return
            with naming(self.path):
                self._container.mux(self._stream.encode())
                self._container.close()
                self._temporary.replace(self.path)
        finally:
            self._folder.cleanup()

    def _encode(self, frame: Any) -> None:
        try:
            with naming(self.path):
                self._container.mux(self._stream.encode(frame))
        except Exception as error:
            self._is_broken = True
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            raise DataError(
                f"{self.path}: cannot write frames of {frame.width}x{frame.height}: {_reason(error)}"
            ) from error

    def _add_stream(self, width: int, height: int) -> Any:
        # H.264, which browsers play, where this FFmpeg can write it.
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        if codec == "mpeg4":
            self._clock = max(self._clock, MPEG4_CLOCK)
        stream = self._container.add_stream(codec, rate=self._rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = self._clock
        return stream

    def _ticks(self, time: float | None) -> int:
        seconds = self._count / self._rate if time is None else Fraction(time)
        return round(seconds / self._clock)


def _open(source: Video) -> Any:
    av = require_av()
    try:
        name, format_name = _arguments(source)
        container = av.open(name, format=format_name, timeout=SILENCE_S)
    except DataError:
        raise
    except Exception as error:
        # PyAV raises FFmpegError, and what Python's conversions of a name raise.
        raise DataError(f"{source}: not a readable video: {_reason(error)}") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{source}: has no video stream")
    return container


def _arguments(source: Video) -> tuple[str, str | None]:
    """What FFmpeg calls the source, and its format where it cannot find that out."""
    camera = str(source)
    if isinstance(source, int) or (is_live(source) and camera.isdecimal()):
        if sys.platform not in CAMERAS:
            raise DataError(f"camera {source}: cameras are not supported on {sys.platform}")
        format_name, device = CAMERAS[sys.platform]
        return device.format(camera), format_name
    if CAMERA_DEVICE.fullmatch(camera):
        return camera, "v4l2"
    if is_url(source) or is_live(source):
        return camera, None
    return str(regular_file(source)), None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
