# SPDX-License-Identifier: Apache-2.0
"""``rtdetr predict``: find objects in images and videos."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, UsageError
from ..inference.options import PredictKeywords, PredictOptions
from .arguments import OUTPUT, RUNTIME, AsJson, Device, Dtype, choose, parse_imgsz, parse_list
from .console import describe, progress, say, say_above_bar, say_json, warn
from .predict_outputs import FORMATS, Outputs, fresh_folder

if TYPE_CHECKING:
    from ..detector import RTDETR
    from ..images.io import Unreadable
    from ..images.sources import Source
    from ..results.detections import Detections

NAME = "predict"


def command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Images, folders, globs, URLs, videos."),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A published model (see: rtdetr models), a directory, hub repository or checkpoint."
        ),
    ] = "rtdetrv2_r18vd",
    conf: Annotated[float, typer.Option(help="Keep detections with a greater score.")] = 0.5,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Keep only these classes, separated by commas: person,car.", show_default="all"
        ),
    ] = None,
    imgsz: Annotated[
        str | None,
        typer.Option(help="Run at this size: 640, or height,width.", show_default="the model's"),
    ] = None,
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
    as_json: AsJson = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch: Annotated[
        int, typer.Option(min=1, help="Images per run of the model.", rich_help_panel=RUNTIME)
    ] = 1,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Load other weights: a file, directory or hub repository.",
            show_default="the model's",
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
        "classes": parse_list(classes),
        "imgsz": parse_imgsz(imgsz),
        "recursive": recursive,
        "vid_stride": vid_stride,
    }
    PredictOptions(**options)
    if random_weights and weights is not None:
        raise UsageError("--random-weights and --weights exclude each other")
    detector = _load(model, device, dtype, weights, random_weights)
    if options["classes"] is not None:
        from ..results.detections import class_indices

        class_indices(options["classes"], detector.names)
    if not as_json:
        say(describe(detector))
    elif detector.is_random:
        warn("random weights: detections mean nothing")
    run = Run(detector, options, Outputs(fresh_folder(out, overwrite), kinds), quiet=as_json)
    run.all(sources, limit)
    files = run.outputs.close()
    if as_json:
        say_json(run.report())
    else:
        say(run.summary(files))
    if run.failures:
        raise typer.Exit(DataError.exit_code)


def _load(model: str, device: str, dtype: str, weights: str | None, random_weights: bool) -> RTDETR:
    from ..detector import RTDETR

    if random_weights:
        return RTDETR.random(model, device=device, dtype=dtype)
    return RTDETR(model, device=device, dtype=dtype, weights=weights or "auto")


@dataclass
class Run:
    """Sources in their order, each result written and printed as it comes; counts results and failures."""

    detector: RTDETR
    options: PredictKeywords
    outputs: Outputs
    quiet: bool = False
    images: int = 0
    objects: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def all(self, words: list[str], limit: int | None) -> None:
        """Detect in everything that ``words`` stand for, at most ``limit`` images and frames."""
        from ..images.sources import VideoSource

        for is_video, group in groupby(
            self._find(words), key=lambda source: isinstance(source, VideoSource)
        ):
            for batch in ([source] for source in group) if is_video else [list(group)]:
                remaining = None if limit is None else limit - self.images
                if remaining == 0:
                    return
                (self._video if is_video else self._images)(batch, remaining)

    def summary(self, files: list[str]) -> str:
        where = f" -> {self.outputs.folder}/  ({', '.join(files)})" if files else ""
        failed = f", {len(self.failures)} could not be read" if self.failures else ""
        return f"{_count(self.images, 'image')}, {_count(self.objects, 'object')}{failed}{where}"

    def report(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "model": self.detector.title,
            "random_weights": self.detector.is_random,
            "results": self.results,
            "failed": self.failures,
        }

    def _find(self, words: list[str]) -> list[Source]:
        from ..images.sources import find_sources

        sources: list[Source] = []
        for word in words:
            try:
                sources += find_sources(word, recursive=self.options["recursive"]).items
            except DataError as error:
                self._fail(word, error)
        return sources

    def _images(self, sources: Sequence[Source], limit: int | None) -> None:
        sources = sources[:limit]
        width = max(len(source.name) for source in sources)
        stream = self.detector.stream(list(sources), **self.options)
        for detections in progress(self._timed(stream, width), len(sources), not self.quiet):
            self.outputs.image(detections)

    def _video(self, sources: Sequence[Source], limit: int | None) -> None:
        from ..images.video import video_info

        name, stride = sources[0].name, self.options["vid_stride"]
        try:
            frames = video_info(name).frames
            total = None if frames is None else -(-frames // stride)
            self.outputs.start_video(name, stride)
            stream = self.detector.stream(list(sources), limit=limit, **self.options)
            for detections in progress(self._timed(stream, len(name) + 6), total, not self.quiet):
                self.outputs.frame(detections)
        except DataError as error:
            self._fail(name, error)
        finally:
            self.outputs.end_video()

    def _timed(self, stream: Iterator[Detections | Unreadable], width: int) -> Iterator[Detections]:
        from ..images.io import Unreadable

        start = time.perf_counter()
        for item in stream:
            elapsed = time.perf_counter() - start
            if isinstance(item, Unreadable):
                self._fail(item.name, item.error)
            else:
                self._count(item, elapsed, width)
                yield item
            start = time.perf_counter()

    def _count(self, detections: Detections, elapsed: float, width: int) -> None:
        self.images += 1
        self.objects += len(detections)
        if self.quiet:
            self.results.append(detections.to_dict())
            return
        image_height, image_width = detections.image_size
        size = f"{image_width}x{image_height}"
        duration = f"{elapsed * 1000:7.1f} ms" if self.options["batch"] == 1 else ""
        line = f"{detections.source:<{width}}  {size:<9}  {detections.summary:<32}{duration}"
        say_above_bar(line.rstrip())

    def _fail(self, source: str, error: DataError) -> None:
        self.failures.append({"source": source, "error": str(error)})
        warn(f"skipped: {error}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
