# SPDX-License-Identifier: Apache-2.0
"""The files that ``rtdetr predict`` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import atomic_write
from ..images.names import stem_of

if TYPE_CHECKING:
    from ..images.video import VideoWriter
    from ..results.detections import Detections

FORMATS = ("image", "json", "coco")


def fresh_folder(out: Path, overwrite: bool) -> Path:
    """``out``, or ``out-2``, ``out-3``, ... where it already has something and that is to stay."""
    folder, number = out, 1
    while not overwrite and folder.exists() and any(folder.iterdir()):
        number += 1
        folder = out.with_name(f"{out.name}-{number}")
    return folder


class Outputs:
    """Images, videos and lists of detections in one folder; two sources never share a file.

    Args:
        folder: where to write; created with the first file.
        formats: which of ``FORMATS``.
    """

    def __init__(self, folder: Path, formats: Sequence[str]) -> None:
        self.folder = folder
        self.formats = formats
        self._names: set[str] = set()
        self._records: list[dict[str, Any]] = []
        self._coco: list[tuple[str, list[dict[str, Any]]]] = []
        self._writer: VideoWriter | None = None

    def image(self, detections: Detections) -> None:
        """Write the annotated copy of one image; its detections are written by ``close``."""
        if "image" in self.formats:
            suffix = Path(detections.source).suffix.lower()
            # Formats that keep what was drawn, and that every viewer opens; everything else becomes JPEG.
            suffix = suffix if suffix in (".jpg", ".jpeg", ".png", ".webp") else ".jpg"
            detections.save(self._path(stem_of(detections.source), suffix))
        self._collect(detections)

    def start_video(self, source: str, stride: int) -> None:
        """The frames that follow go into one video of the same duration."""
        if "image" in self.formats:
            from ..images.video import VideoWriter, video_info

            rate = video_info(source).rate / Fraction(stride)
            self._writer = VideoWriter(self._path(stem_of(source), ".mp4"), rate)
            self._writer.__enter__()

    def frame(self, detections: Detections) -> None:
        if self._writer is not None:
            self._writer.add(detections.plot())
        self._collect(detections)

    def end_video(self) -> None:
        """Finish the video; what was read of a broken one stays."""
        if self._writer is not None:
            self._writer.__exit__(None, None, None)
            self._writer = None

    def close(self) -> list[str]:
        """Write the lists; returns what the folder now has, in words."""
        files = ["annotated copies"] if "image" in self.formats and self._names else []
        if "json" in self.formats:
            files.append(self._write_json("predictions.json", self._records))
        if "coco" in self.formats:
            files.append(self._write_json("predictions_coco.json", coco_results(self._coco)))
        return files

    def _collect(self, detections: Detections) -> None:
        if "json" in self.formats:
            self._records.append(detections.to_dict())
        if "coco" in self.formats:
            self._coco.append((detections.source, detections.to_coco(0)))

    def _path(self, stem: str, suffix: str) -> Path:
        name, number = f"{stem}{suffix}", 1
        # Without regard to case, as some file systems see names.
        while name.lower() in self._names:
            number += 1
            name = f"{stem}-{number}{suffix}"
        self._names.add(name.lower())
        return self.folder / name

    def _write_json(self, name: str, value: Any) -> str:
        with atomic_write(self.folder / name) as path:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
            path.write_text(text, encoding="utf-8")
        return name


def coco_results(results: Sequence[tuple[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """COCO results with image ids: the numbers that the files are named by, else 1, 2, 3, ... in order."""
    stems = [stem_of(source) for source, _ in results]
    named = all(stem.isdigit() for stem in stems) and len({int(s) for s in stems}) == len(stems)
    ids = [int(stem) if named else index + 1 for index, stem in enumerate(stems)]
    return [
        entry | {"image_id": image_id, "file_name": source}
        for image_id, (source, entries) in zip(ids, results, strict=True)
        for entry in entries
    ]
