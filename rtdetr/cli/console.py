# SPDX-License-Identifier: Apache-2.0
"""What the commands say, and where: results on stdout, everything else on stderr."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from ..errors import UsageError
from ..files import naming

if TYPE_CHECKING:
    from ..detector import RTDETR

DEBUG = "RTDETR_DEBUG"

T = TypeVar("T")


def say(text: str = "") -> None:
    with naming(Path("standard output")):
        typer.echo(text)


def warn(text: str) -> None:
    typer.echo(text, err=True)


def say_json(value: Any) -> None:
    # On a console that has not all letters they are spelled as JSON does.
    is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    say(json.dumps(value, indent=2, ensure_ascii=not is_utf8, allow_nan=False))


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Rows as lines with aligned columns; those in ``right`` end together, the others begin together."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    to_right = set(right)
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index in to_right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def has_bar() -> bool:
    """Whether somebody looks at a bar on stderr and at lines on stdout, both on one terminal."""
    return sys.stderr.isatty() and sys.stdout.isatty()


def progress(
    items: Iterable[T],
    total: int | None,
    shown: bool = True,
    title: str | None = None,
    unit: str | None = None,
) -> Iterator[T]:
    """Pass ``items`` on; a bar on stderr if that is a terminal and there is more than one.

    Args:
        items: images, or the frames of one video.
        total: how many; None if that is not known.
        shown: False for no bar.
        title: of the video that they are frames of.
        unit: what an item is called; by default "img", or "frame" with a title.
    """
    if not shown or total == 1 or not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    unit = unit or ("img" if title is None else "frame")
    yield from tqdm(items, total=total, unit=unit, desc=title, leave=False, file=sys.stderr)


def say_above_bar(text: str) -> None:
    """A line on stdout that does not run into a bar on stderr."""
    if has_bar():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stdout)
    else:
        say(text)


def attention_backend(detector: RTDETR) -> str:
    """The backend of ``rtdetr_ops`` that runs this detector's attention.

    Raises:
        UsageError: ``RTDETR_OPS_BACKEND`` names none that can.
    """
    import torch

    import rtdetr_ops

    config = detector.model.config
    heads = config.decoder_attention_heads
    value = torch.empty(
        1, 1, heads, config.d_model // heads, device=detector.device, dtype=detector.dtype
    )
    explanation = rtdetr_ops.explain(value)
    if explanation.chosen is None:
        able = [name for name, reason in explanation.reasons.items() if reason is None]
        name = os.environ.get("RTDETR_OPS_BACKEND")
        raise UsageError(f"RTDETR_OPS_BACKEND: expected {' or '.join(able)} here, got {name!r}")
    return explanation.chosen


def describe(detector: RTDETR) -> str:
    """``model rtdetrv2_r18vd  80 classes  640x640  cpu (8 threads) float32  attention: cpu``."""
    return f"{detector.description}  attention: {attention_backend(detector)}"
