# SPDX-License-Identifier: Apache-2.0
"""``rtdetr val``: how well a model finds the objects of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import atomic_write
from ..images.names import one_line, unicode_name
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
    parse_imgsz,
)
from .console import describe, progress, say, say_json
from .output_folder import claim_folder
from .reading import Data, read_data, read_options, takes_read_options

if TYPE_CHECKING:
    from ..data import Split
    from ..detector import RTDETR
    from ..evaluation.options import ValOptions
    from ..evaluation.run import ValRun
    from ..evaluation.validation import IndexedBatch

NAME = "val"
SPLITS = ("val", "train")
METRICS = "metrics.json"
PREDICTIONS = "predictions.json"


@takes_read_options("queries", "imgsz")
def command(
    data: Data,
    model: ModelOption = "rtdetrv2_r18vd",
    split: Annotated[str, typer.Option(help=f"{' or '.join(SPLITS)}.")] = "val",
    imgsz: Imgsz = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for results; a number is added if it has files.", rich_help_panel=OUTPUT
        ),
    ] = Path("runs/val"),
    plots: Annotated[
        bool, typer.Option("--plots/--no-plots", help="Draw plots.", rich_help_panel=OUTPUT)
    ] = True,
    save_json: Annotated[
        bool,
        typer.Option(
            "--save-json/--no-save-json",
            help=f"Write {PREDICTIONS}, in COCO's form.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    as_json: AsJson = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
    batch: Batch = 16,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that read images.",
            show_default="one for each core beside a GPU",
            rich_help_panel=RUNTIME,
        ),
    ] = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Measure how well a model finds the objects of a data set: AP by COCO's rules, precision and recall."""
    from ..detector import RTDETR
    from ..evaluation.options import ValOptions
    from ..evaluation.plots import require_matplotlib
    from ..evaluation.run import choose_split

    (name,) = choose("--split", split, SPLITS)
    options = ValOptions(split=name, imgsz=_size(imgsz), batch=batch, workers=workers)
    if plots:
        require_matplotlib()
    # Data and folder come first: a typo in them costs no download.
    splits = read_data(data, read_options(**reading, imgsz=min(_size(imgsz) or (640,))))
    images = choose_split(splits, name, data)
    with claim_folder(out, overwrite=False) as folder:
        detector = RTDETR(model, device=device, dtype=dtype)
        if not as_json:
            say(describe(detector))
            say(f"{one_line(data)} ({splits.layout}): {name}, {len(images):,} images\n")
        run = _evaluate(detector, images, options, as_json)
        about = {"model": detector.title, "data": unicode_name(data), "split": name}
        metrics = {**about, "imgsz": list(run.imgsz), **run.evaluation.as_dict()}
        predictions = run.predictions.to_coco(images.annotations) if save_json else None
        _write(folder, {METRICS: metrics, PREDICTIONS: predictions})
        if plots:
            _draw(run, folder)
    if as_json:
        say_json({**metrics, "out": unicode_name(str(folder))})
    else:
        _print(run, folder)


def _size(text: str | None) -> tuple[int, int] | None:
    from ..inference.options import check_imgsz

    size = parse_imgsz(text)
    return None if size is None else check_imgsz(size, "--imgsz")


def _evaluate(detector: RTDETR, split: Split, options: ValOptions, quiet: bool) -> ValRun:
    from ..evaluation.run import run_validation

    total = -(-len(split) // options.batch)

    def bar(batches: Iterable[IndexedBatch]) -> Iterator[IndexedBatch]:
        return progress(batches, total, not quiet, unit="batch")

    return run_validation(detector.model, detector.processor, split, options, bar)


def _write(folder: Path, documents: dict[str, Any]) -> None:
    """Those that are not None."""
    for name, document in documents.items():
        if document is None:
            continue
        with atomic_write(folder / name) as temporary:
            temporary.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")


def _draw(run: ValRun, folder: Path) -> None:
    from ..evaluation import plots, samples

    evaluation = run.evaluation
    plots.plot_precision_recall(evaluation, folder / "pr.png")
    plots.plot_confusion(evaluation.confusion, folder / "confusion.png")
    plots.plot_labels(run.split.annotations, folder / "labels.jpg")
    threshold = 0.5 if evaluation.threshold is None else evaluation.threshold
    samples.draw_samples(run.split, run.predictions, folder / "val_samples.jpg", threshold)


def _print(run: ValRun, folder: Path) -> None:
    for line in run.evaluation.lines():
        say(one_line(line))
    names = sorted(path.name for path in folder.iterdir())
    say(f"\n-> {folder}: {', '.join(names)}")
