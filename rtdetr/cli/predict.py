# SPDX-License-Identifier: Apache-2.0
"""``rtdetr predict``: find objects in images and videos."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, UsageError
from ..images.names import one_line, unicode_name
from ..inference.options import PredictKeywords, PredictOptions
from .arguments import (
    OUTPUT,
    RUNTIME,
    AsJson,
    Batch,
    Device,
    Dtype,
    Imgsz,
    ModelOption,
    choose,
    named_as_typed,
    not_empty,
    parse_imgsz,
    parse_list,
)
from .console import DEBUG, describe, has_bar, progress, say, say_above_bar, say_json, warn
from .output_folder import claim_folder
from .predict_outputs import FORMATS, Outputs

if TYPE_CHECKING:
    from ..detector import RTDETR
    from ..images.io import Unreadable
    from ..images.sources import Source, VideoSource
    from ..results.detections import Detections
    from ..results.drawing import Style

NAME = "predict"


def command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Images, videos, folders, globs, URLs, rtsp://, the number of a camera, - for an image on stdin.",
        ),
    ],
    model: ModelOption = "rtdetrv2_r18vd",
    conf: Annotated[
        float, typer.Option("--conf", "--threshold", help="Keep detections with a greater score.")
    ] = 0.5,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Keep only these classes, separated by commas: person,car.", show_default="all"
        ),
    ] = None,
    imgsz: Imgsz = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Look into folders of folders.")
    ] = False,
    vid_stride: Annotated[int, typer.Option(min=1, help="Use every N-th frame of a video.")] = 1,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after this many images and frames.", show_default="none"),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for results; a number is added if it has files.", rich_help_panel=OUTPUT
        ),
    ] = Path("runs/predict"),
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Use --out as it is, and replace files.", rich_help_panel=OUTPUT
        ),
    ] = False,
    formats: Annotated[
        str,
        typer.Option(
            "--format", help=f"What to write: {', '.join(FORMATS)}.", rich_help_panel=OUTPUT
        ),
    ] = "image,json",
    save: Annotated[
        bool,
        typer.Option("--save/--no-save", help="Write results to --out.", rich_help_panel=OUTPUT),
    ] = True,
    font: Annotated[
        Path | None,
        typer.Option(
            help="Write labels in this TrueType file.",
            show_default="one that has their letters",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: AsJson = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch: Batch = 1,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Load other weights: a file, directory or hub repository.",
            show_default="the model's",
            callback=not_empty,
            rich_help_panel=RUNTIME,
        ),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="Try the program without a download; detections mean nothing.",
            rich_help_panel=RUNTIME,
        ),
    ] = False,
) -> None:
    """Find objects in images and videos, and write annotated copies.

    An image that cannot be read is reported and the others go on; the exit code is then 3.
    """
    kinds = choose("--format", formats, FORMATS) if save else []
    options: PredictKeywords = {
        "threshold": conf,
        "batch": batch,
        "classes": parse_list("--classes", classes),
        "imgsz": parse_imgsz(imgsz),
        "recursive": recursive,
        "vid_stride": vid_stride,
    }
    with _named_as_typed():
        PredictOptions(**options)
    if random_weights and weights is not None:
        raise UsageError("--random-weights and --weights exclude each other")
    if "" in sources:
        raise UsageError('SOURCE: expected a path or a URL, got ""')
    style = _style(font)
    run = Run(options, title=model, is_random=random_weights, quiet=as_json)
    # Sources and folder come first: a typo in them costs no download.
    found = run.find(sources)
    with ExitStack() as stack:
        stack.push(run.end)
        if found:
            folder = stack.enter_context(claim_folder(out, overwrite)) if kinds else Path()
            outputs = stack.enter_context(Outputs(folder, kinds, found, style))
            run.detect(found, _load(model, device, dtype, weights, random_weights), outputs, limit)
    if run.failures:
        raise typer.Exit(DataError.exit_code)


def _named_as_typed() -> AbstractContextManager[None]:
    return named_as_typed(PredictKeywords.__annotations__, {"threshold": "--conf"})


def _style(font: Path | None) -> Style:
    from ..results.drawing import Style
    from ..results.fonts import open_font

    open_font(font)
    return Style(font=font)


def _load(model: str, device: str, dtype: str, weights: str | None, random_weights: bool) -> RTDETR:
    from ..detector import RTDETR

    if random_weights:
        return RTDETR.random(model, device=device, dtype=dtype)
    return RTDETR(model, device=device, dtype=dtype, weights=weights or "auto")


@dataclass
class Run:
    """Sources in their order, each result written and printed as it comes; counts results and failures."""

    options: PredictKeywords
    title: str
    is_random: bool
    quiet: bool = False
    images: int = 0
    objects: int = 0
    where: str = ""
    failures: list[dict[str, str]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def find(self, words: list[str]) -> list[Source]:
        """What the words stand for; those that name nothing are reported.

        Raises:
            MissingExtraError: a video is among them, and PyAV is not installed.
        """
        from ..images.io import Unreadable
        from ..images.sources import VideoSource
        from ..images.video import require_av

        sources: list[Source] = []
        for word in words:
            for source in self._expand(word):
                if isinstance(source, Unreadable):
                    self._fail(source)
                else:
                    sources.append(source)
        if any(isinstance(source, VideoSource) for source in sources):
            require_av()
        return sources

    def detect(
        self, sources: list[Source], detector: RTDETR, outputs: Outputs, limit: int | None
    ) -> None:
        """Detect in ``sources``, at most ``limit`` images and frames."""
        from ..images.sources import VideoSource

        self._introduce(detector)
        try:
            for is_video, group in groupby(sources, key=lambda one: isinstance(one, VideoSource)):
                for batch in ([source] for source in group) if is_video else [list(group)]:
                    remaining = None if limit is None else limit - self.images
                    if remaining == 0:
                        return
                    stream = detector.stream(batch, limit=remaining, **self.options)
                    if isinstance(batch[0], VideoSource):
                        self._video(batch[0], stream, outputs, remaining)
                    else:
                        self._images(batch, stream, outputs)
        finally:
            self.where = outputs.summary

    def end(self, kind: type[BaseException] | None, *_: object) -> None:
        """Print the last line, or all of ``--json``; after an error too, if there are results."""
        if kind is not None and not self.images:
            return
        if self.quiet:
            report = {"model": self.title, "random_weights": self.is_random}
            say_json({**report, "results": self.results, "failed": self.failures})
            return
        failed = f", {len(self.failures)} could not be read" if self.failures else ""
        counts = f"{_count(self.images, 'image')}, {_count(self.objects, 'object')}"
        say(f"{counts}{failed}{self.where}")

    def _expand(self, word: str) -> Sequence[Source]:
        from ..images.io import Unreadable
        from ..images.sources import ImageSource, check_source, find_sources

        try:
            if word == "-":
                return [ImageSource(_standard_input(), "stdin")]
            found = find_sources(word, recursive=self.options["recursive"])
            if found.is_single:
                check_source(found.items[0])
        except DataError as error:
            return [Unreadable(word, error)]
        return found.items

    def _introduce(self, detector: RTDETR) -> None:
        from ..results.detections import class_indices

        if self.options["classes"] is not None:
            with _named_as_typed():
                class_indices(self.options["classes"], detector.names)
        self.title, self.is_random = detector.title, detector.is_random
        line = describe(detector)
        if not self.quiet:
            say(line)
        elif detector.is_random:
            warn("random weights: detections mean nothing")

    def _images(
        self, sources: Sequence[Source], stream: Iterator[Detections | Unreadable], outputs: Outputs
    ) -> None:
        width = max(len(one_line(source.name)) for source in sources)
        for detections in progress(self._timed(stream, width), len(sources), not self.quiet):
            outputs.image(detections)

    def _video(
        self,
        source: VideoSource,
        stream: Iterator[Detections | Unreadable],
        outputs: Outputs,
        limit: int | None,
    ) -> None:
        from ..images.io import Unreadable
        from ..images.video import video_info

        stride, name = self.options["vid_stride"], one_line(source.name)
        before = (self.images, self.objects)
        try:
            info = video_info(source.item)
            total = None if info.frames is None else -(-info.frames // stride)
            total = min(filter(None, (total, limit)), default=None)
            # A line for each frame is for files and pipes: an hour of film has 100,000.
            width = None if has_bar() else len(name) + 6
            with outputs.video(source, info, stride):
                frames = progress(self._timed(stream, width), total, not self.quiet, name)
                for detections in frames:
                    outputs.frame(detections)
        except DataError as error:
            self._fail(Unreadable(source.name, error))
        if has_bar() and not self.quiet:
            images, objects = self.images - before[0], self.objects - before[1]
            say(f"{name}  {_count(images, 'frame')}, {_count(objects, 'object')}")

    def _timed(
        self, stream: Iterator[Detections | Unreadable], width: int | None
    ) -> Iterator[Detections]:
        from ..images.io import Unreadable

        start = time.perf_counter()
        for item in stream:
            elapsed = time.perf_counter() - start
            if isinstance(item, Unreadable):
                self._fail(item)
            else:
                self._count(item, elapsed, width)
                yield item
            start = time.perf_counter()

    def _count(self, detections: Detections, elapsed: float, width: int | None) -> None:
        self.images += 1
        self.objects += len(detections)
        if self.quiet:
            self.results.append(detections.to_dict())
            return
        if width is None:
            return
        image_height, image_width = detections.image_size
        size = f"{image_width}x{image_height}"
        duration = f"{elapsed * 1000:7.1f} ms" if self.options["batch"] == 1 else ""
        name, summary = one_line(detections.source), one_line(detections.summary)
        say_above_bar(f"{name:<{width}}  {size:<9}  {summary:<32}{duration}".rstrip())

    def _fail(self, source: Unreadable) -> None:
        text = str(source.error)
        self.failures.append({"source": unicode_name(source.name), "error": unicode_name(text)})
        warn(f"skipped: {one_line(text)}")
        if os.environ.get(DEBUG) == "1":
            traceback.print_exception(source.error)


def _standard_input() -> Any:
    if sys.stdin.isatty():
        raise DataError("-: expected an image on standard input, and that is a terminal")
    return sys.stdin.buffer


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
