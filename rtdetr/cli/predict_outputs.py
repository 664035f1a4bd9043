# SPDX-License-Identifier: Apache-2.0
"""The files that ``rtdetr predict`` writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..files import HIDDEN, JsonListWriter, home_path, is_same_file
from ..images.names import one_line, stem_of, unicode_name

if TYPE_CHECKING:
    from ..images.sources import Source
    from ..images.video import VideoInfo, VideoWriter
    from ..results.detections import Detections
    from ..results.drawing import Style

FORMATS = ("image", "json", "coco")
LISTS = {"json": "predictions.json", "coco": "predictions_coco.json"}

# Formats that keep what was drawn, and that every viewer opens; a copy of any other becomes JPEG.
KEPT_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
JPEG_MAX_SIDE = 65_500


def _suffix_of_copy(detections: Detections) -> str:
    suffix = Path(detections.source).suffix.lower()
    if suffix in KEPT_SUFFIXES:
        return suffix
    return ".jpg" if max(detections.image_size) <= JPEG_MAX_SIDE else ".png"


class Outputs:
    """Images, videos and lists of detections in one folder; two sources never share a file, and none is replaced.

    Use it in a ``with`` block. The lists grow with each result, so that they hold what was found however a run ends.

    Args:
        folder: where to write.
        formats: which of ``FORMATS``.
        sources: everything that will be read.
        style: how boxes look.
    """

    def __init__(
        self,
        folder: Path,
        formats: Sequence[str],
        sources: Sequence[Source],
        style: Style | None = None,
    ) -> None:
        self.folder = folder
        self.formats = formats
        self._style = style
        self._names = set(_names_of_sources_in(folder, sources) if formats else ())
        self._coco_ids = CocoImageIds.of(sources)
        self._copies = 0
        self._lists: dict[str, JsonListWriter] = {}
        self._stack = ExitStack()
        self._writer: VideoWriter | None = None

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def summary(self) -> str:
        """Where it is and what it has, `` -> runs/predict/  (annotated copies)``; empty if nothing was written."""
        files = ["annotated copies"] if self._copies else []
        files += [LISTS[name] for name in LISTS if name in self._lists]
        return f" -> {one_line(str(self.folder))}/  ({', '.join(files)})" if files else ""

    def image(self, detections: Detections) -> None:
        """Write the annotated copy of one image, and its detections into the lists."""
        if "image" in self.formats:
            suffix = _suffix_of_copy(detections)
            detections.save(self._path(stem_of(detections.source), suffix), self._style)
            self._copies += 1
        self._list(detections)

    @contextmanager
    def video(self, source: Source, info: VideoInfo, stride: int) -> Iterator[None]:
        """The frames of the block go into one video, each at its time; what was read of a broken one stays."""
        if "image" not in self.formats:
            yield
            return
        from ..images.video import VideoWriter

        path = self._path(stem_of(source.name), ".mp4")
        self._writer = VideoWriter(path, info.rate / stride, info.clock)
        try:
            yield
        finally:
            writer, self._writer = self._writer, None
            writer.__exit__(None, None, None)
            self._copies += path.exists()

    def frame(self, detections: Detections) -> None:
        """Append one annotated frame to the video, and its detections to the lists."""
        if self._writer is not None:
            self._writer.add(detections.plot(self._style), detections.time)
        self._list(detections)

    def _list(self, detections: Detections) -> None:
        if "json" in self.formats:
            self._append("json", detections.to_dict())
        if "coco" in self.formats:
            image_id = self._coco_ids.next(detections.source)
            self._append("coco")
            for entry in detections.to_coco(image_id):
                self._append("coco", entry | {"file_name": unicode_name(detections.source)})

    def _append(self, name: str, *entries: Any) -> None:
        if name not in self._lists:
            writer = JsonListWriter(self.folder / LISTS[name])
            self._lists[name] = self._stack.enter_context(writer)
        for entry in entries:
            self._lists[name].append(entry)

    def _path(self, stem: str, suffix: str) -> Path:
        name, number = f"{stem}{suffix}", 1
        # Without regard to case, as some file systems see names.
        while name.lower() in self._names:
            number += 1
            name = f"{stem}-{number}{suffix}"
        self._names.add(name.lower())
        return self.folder / name


@dataclass
class CocoImageIds:
    """Image ids of COCO: the numbers that the files are named by, else 1, 2, 3, ... in order.

    Args:
        are_names: whether each file is named by a number of its own.
    """

    are_names: bool
    _count: int = field(default=0, init=False)

    @classmethod
    def of(cls, sources: Sequence[Source]) -> CocoImageIds:
        from ..images.sources import ImageSource

        images = [source for source in sources if isinstance(source, ImageSource)]
        stems = [stem_of(source.name) for source in images]
        are_numbers = len(images) == len(sources) and all(map(_is_number, stems))
        return cls(are_numbers and len({int(stem) for stem in stems}) == len(stems))

    def next(self, source: str) -> int:
        """The id of the next image."""
        self._count += 1
        return int(stem_of(source)) if self.are_names else self._count


def _is_number(stem: str) -> bool:
    return stem.isascii() and stem.isdigit()


def _names_of_sources_in(folder: Path, sources: Iterable[Source]) -> Iterator[str]:
    """The names of those files in ``folder`` that are read: an output may not take the place of one."""
    from ..images.sources import ImageSource, VideoSource

    if all(path.name.startswith(HIDDEN) for path in folder.iterdir()):
        return  # a new folder: no source is there, however many there are
    for source in sources:
        item = source.item if isinstance(source, ImageSource | VideoSource) else None
        if isinstance(item, str | os.PathLike):
            literal = home_path(item)
            for path in {literal, Path(os.path.realpath(literal))}:
                if is_same_file(path.parent, folder):
                    yield path.name.lower()
