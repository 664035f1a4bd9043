# SPDX-License-Identifier: Apache-2.0
"""``rtdetr predict``: find objects in pictures and videos."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, UsageError
from ..images.names import is_video
from ..inference.options import Options
from .arguments import OUTPUT, RUNTIME, AsJson, Device, Dtype, choose, parse_imgsz, parse_list
from .console import describe, progress, say, say_above_bar, say_json, warn
from .predict_outputs import FORMATS, Outputs, fresh_folder

if TYPE_CHECKING:
    from ..detector import RTDETR
    from ..images.sources import Unreadable
    from ..results.detections import Detections

NAME = "predict"

DATA_ERROR = 3


def command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Pictures, folders, globs, URLs, videos."),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A published model (see: rtdetr models), a directory, hub repository or checkpoint."
        ),
    ] = "rtdetrv2_r18vd",
    conf: Annotated[float, typer.Option(help="Keep detections with a greater score.")] = 0.5,
    classes: Annotated[
        str | None, typer.Option(help="Only these, with commas: person,car.", show_default="all")
    ] = None,
    imgsz: Annotated[
        str | None,
        typer.Option(help="Run at this size: 640, or height,width.", show_default="the model's"),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Look into folders of folders.")
    ] = False,
    vid_stride: Annotated[int, typer.Option(min=1, help="Every how many frames of a video.")] = 1,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many pictures or frames.", show_default="none"),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for results; numbered anew if it has files.", rich_help_panel=OUTPUT
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
        int, typer.Option(min=1, help="Pictures per run of the model.", rich_help_panel=RUNTIME)
    ] = 1,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Weights from there: a file, directory or hub repository.",
            show_default="the model's",
            rich_help_panel=RUNTIME,
        ),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="Do not load weights: to try the program out; detections mean nothing.",
            rich_help_panel=RUNTIME,
        ),
    ] = False,
) -> None:
    """Find objects in pictures and videos, and write annotated copies.

    A picture that cannot be read is reported and the others go on; the exit code is then 3.
    """
    written = choose("--format", formats, FORMATS) if save else []
    checked = Options(conf, batch, parse_list(classes), parse_imgsz(imgsz))
    if random_weights and weights is not None:
        raise UsageError("--random-weights and --weights exclude each other")
    detector = _load(model, device, dtype, weights, random_weights)
    if checked.classes is not None:
        from ..results.detections import class_indices

        class_indices(checked.classes, detector.names)
    options = {**vars(checked), "recursive": recursive, "vid_stride": vid_stride}
    if not as_json:
        say(describe(detector))
    elif detector.is_random:
        warn("random weights: detections mean nothing")
    run = Run(detector, options, Outputs(fresh_folder(out, overwrite), written), quiet=as_json)
    run.all(sources, limit)
    made = run.outputs.close()
    if as_json:
        say_json(run.report())
    else:
        say(run.summary(made))
    if run.failed:
        raise typer.Exit(DATA_ERROR)


def _load(model: str, device: str, dtype: str, weights: str | None, random_weights: bool) -> RTDETR:
    from ..detector import RTDETR

    if random_weights:
        return RTDETR.random(model, device=device, dtype=dtype)
    return RTDETR(model, device=device, dtype=dtype, weights=weights or "auto")


@dataclass
class Run:
    """Sources in their order, each result written and told as it comes; counts what was found and what failed."""

    detector: RTDETR
    options: dict[str, Any]
    outputs: Outputs
    quiet: bool = False
    pictures: int = 0
    objects: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def all(self, sources: list[str], limit: int | None) -> None:
        stills = self._stills([source for source in sources if not is_video(source)])[:limit]
        if stills:
            width = max(len(str(still)) for still in stills)
            stream = self.detector.stream(stills, **self.options)
            for found in progress(self._timed(stream, width), len(stills), not self.quiet):
                self.outputs.picture(found)
        for source in sources:
            if is_video(source) and (limit is None or self.pictures < limit):
                self._video(source, None if limit is None else limit - self.pictures)

    def summary(self, made: list[str]) -> str:
        where = f" -> {self.outputs.folder}/  ({', '.join(made)})" if made else ""
        failed = f", {len(self.failed)} could not be read" if self.failed else ""
        return f"{_count(self.pictures, 'image')}, {_count(self.objects, 'object')}{failed}{where}"

    def report(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "model": self.detector.title,
            "random_weights": self.detector.is_random,
            "results": self.results,
            "failed": self.failed,
        }

    def _stills(self, sources: list[str]) -> list[Any]:
        from ..images.sources import expand

        found: list[Any] = []
        for source in sources:
            try:
                found += expand(source, recursive=self.options["recursive"])
            except DataError as error:
                self._fail(source, error)
        return found

    def _video(self, source: str, limit: int | None) -> None:
        from ..images.video import video_info

        stride = self.options["vid_stride"]
        try:
            frames = video_info(source).frames
            total = None if frames is None else -(-frames // stride)
            self.outputs.start_video(source, stride)
            stream = self.detector.stream(source, limit=limit, **self.options)
            for found in progress(self._timed(stream, len(source) + 6), total, not self.quiet):
                self.outputs.frame(found)
        except DataError as error:
            self._fail(source, error)
        finally:
            self.outputs.end_video()

    def _timed(self, stream: Iterator[Detections | Unreadable], width: int) -> Iterator[Detections]:
        from ..images.sources import Unreadable

        start = time.perf_counter()
        for found in stream:
            elapsed = time.perf_counter() - start
            if isinstance(found, Unreadable):
                self._fail(found.name, found.error)
            else:
                self._count(found, elapsed, width)
                yield found
            start = time.perf_counter()

    def _count(self, found: Detections, elapsed: float, width: int) -> None:
        self.pictures += 1
        self.objects += len(found)
        if self.quiet:
            self.results.append(found.to_dict())
            return
        height, across = found.image_size
        size = f"{across}x{height}"
        time_taken = f"{elapsed * 1000:7.1f} ms" if self.options["batch"] == 1 else ""
        say_above_bar(
            f"{found.source:<{width}}  {size:<9}  {found.summary:<32}{time_taken}".rstrip()
        )

    def _fail(self, source: str, error: DataError) -> None:
        self.failed.append({"source": source, "error": str(error)})
        warn(f"skipped: {error}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
