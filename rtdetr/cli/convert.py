# SPDX-License-Identifier: Apache-2.0
"""``rtdetr convert``: between original checkpoints and Hugging Face directories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..files import home_path, is_same_file
from .arguments import complete_model, not_empty
from .console import say

NAME = "convert"

ORIGINAL_SUFFIXES = frozenset({".pth", ".pt"})


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A checkpoint, directory, hub repository or published model.",
            callback=not_empty,
            autocompletion=complete_model,
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new directory, or a file that ends in .pth.")
    ],
    config: Annotated[
        str | None,
        typer.Option(
            help="What a .pth was built as: a published model, or a directory with config.json.",
            show_default="inferred",
            callback=not_empty,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at OUT.")] = False,
) -> None:
    """Write a model in another form: OUT decides.

    A directory gets config.json, model.safetensors and preprocessor_config.json, as transformers and rtdetr read them;
    a .pth file gets the names of the original implementation.
    """
    out = home_path(out)
    original = out.suffix.lower() in ORIGINAL_SUFFIXES
    if not original and out.suffix:
        raise UsageError(f"OUT: expected a directory or a .pth file, got {out}")
    if is_same_file(source, out):
        raise UsageError(f"OUT: {out} is IN, which would be lost; choose another place")
    if not overwrite and out.exists() and (out.is_file() or any(out.iterdir())):
        raise UsageError(f"OUT: {out} exists. Pass --overwrite to replace it.")
    from ..detector import RTDETR

    detector = RTDETR(source, config=config, device="cpu", dtype="float32")
    if original:
        from ..weights import save_original

        save_original(detector.model, out)
        say(f"wrote {out}  (original names)")
    else:
        detector.save_pretrained(out)
        files = ", ".join(sorted(path.name for path in out.iterdir() if path.is_file()))
        say(f"wrote {out}/  ({files})")
    if detector.model.load_report is not None:
        say(str(detector.model.load_report))
