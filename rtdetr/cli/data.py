# SPDX-License-Identifier: Apache-2.0
"""``rtdetr data``: look at a data set before training on it, or make one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError
from .arguments import OUTPUT, RUNTIME, AsJson
from .console import progress, say, say_json, table
from .reading import Data, read_options, takes_read_options, with_flags

if TYPE_CHECKING:
    from ..data import DataSplits

NAME = "data"
CODES = "Codes"
MOST_CLASSES = 40
"""Rows of the table of classes."""

app = typer.Typer(help="Check data sets, or make one.", no_args_is_help=True)


@app.command("check")
@takes_read_options()
def check(
    data: Data,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
    as_json: AsJson = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Say what is wrong with a data set. Exit code 3 if training would refuse it."""
    from ..data import check_data

    splits = check_data(data, read_options(**reading))
    failures = splits.report.failures(strict)
    if as_json:
        say_json(_as_json(splits, not failures))
    else:
        _print(data, splits, len(failures))
    if failures:
        raise typer.Exit(DataError.exit_code)


def _folder(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=CODES, show_default=False)


@app.command("make")
def make(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What to make: codes or digits.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    images: Annotated[int, typer.Option(help="Images; a fifth of them for validation.")] = 1000,
    smallest: Annotated[
        int | None,
        typer.Option(help="Height of the smallest digits, in pixels.", show_default="20 of 320"),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Processes that draw; 0: this one.", rich_help_panel=RUNTIME),
    ] = 0,
    seed: Annotated[
        int, typer.Option(min=0, help="Same seed, same bytes.", rich_help_panel=OUTPUT)
    ] = 0,
    backgrounds: Annotated[Path | None, _folder("Photos without print or codes.")] = None,
    distractors: Annotated[Path | None, _folder("Cut-outs: images with an alpha channel.")] = None,
    fonts: Annotated[Path | None, _folder("Fonts, instead of those of the system.")] = None,
) -> None:
    """Make a data set in COCO's layout, offline.

    codes: QR codes, barcodes and lines of print on photos (3 classes). digits: handwritten digits on photos (10
    classes).
    """
    from ..data.generators import GENERATORS, make_generator, write_data_set
    from .arguments import choose

    (name,) = choose("KIND", kind, tuple(GENERATORS))
    options: dict[str, Path | int | None] = {
        "backgrounds": backgrounds,
        "distractors": distractors,
        "fonts": fonts,
        "smallest": smallest,
    }
    maker = make_generator(name, {key: word for key, word in options.items() if word is not None})
    boxes = write_data_set(
        folder,
        maker,
        images,
        seed,
        workers=workers,
        progress=lambda written: progress(written, images),
    )
    total = sum(boxes.values())
    say(f"{images:,} images, {total:,} objects, {len(maker.names)} classes -> {folder}")


def _counts(splits: DataSplits) -> list[dict[str, Any]]:
    both = {"train": splits.train, "val": splits.val}
    return [
        {
            "split": name,
            "images": len(split),
            "boxes": len(split.annotations.boxes),
            "crowds": int(split.annotations.crowds.sum()),
        }
        for name, split in both.items()
        if split is not None
    ]


def _classes(splits: DataSplits) -> list[dict[str, Any]]:
    if splits.train is None:
        return []
    categories = splits.train.annotations.categories
    both = {"train": splits.train, "val": splits.val}
    counts = {name: split.annotations.class_counts() for name, split in both.items() if split}
    return [
        {"class": index, "id": category_id, "name": name}
        | {split: int(count[index]) for split, count in counts.items()}
        for index, (category_id, name) in enumerate(
            zip(categories.ids, categories.names, strict=True)
        )
    ]


def _as_json(splits: DataSplits, is_ready: bool) -> dict[str, Any]:
    return {
        "ready": is_ready,
        "layout": splits.layout,
        "splits": _counts(splits),
        "classes": _classes(splits),
        "findings": splits.report.as_dicts(),
    }


def _print(data: str, splits: DataSplits, failures: int) -> None:
    say(f"{data} ({splits.layout})")
    for row in _counts(splits):
        crowds = f", {row['crowds']:,} of them crowds" if row["crowds"] else ""
        say(f"{row['split']:5}  {row['images']:,} images, {row['boxes']:,} boxes{crowds}")
    classes = _classes(splits)
    if classes:
        say()
        rows = [[str(value) for value in row.values()] for row in classes[:MOST_CLASSES]]
        for line in table([list(classes[0]), *rows], right=(0, 1, 3, 4)):
            say(line)
        if len(classes) > MOST_CLASSES:
            say(f"... and {len(classes) - MOST_CLASSES:,} more classes (--json lists all)")
    lines = [with_flags(line) for line in splits.report.lines()]
    say("\n".join(["", *lines]) if lines else "\nnothing to remark")
    say(f"\nnot ready to train: {failures} to correct" if failures else "\nready to train")
