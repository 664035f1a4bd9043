# SPDX-License-Identifier: Apache-2.0
"""The command ``rtdetr``. Torch is imported by the commands that need it, when they run: help is quick."""

from __future__ import annotations

import os
import sys

import typer

from ..errors import RTDetrError
from ..memory import keep_freed_memory
from . import benchmark, checks, convert, info, models, predict

__all__ = ["app", "main"]

DEBUG = "RTDETR_DEBUG"

app = typer.Typer(
    help="RT-DETRv2: find objects in images and videos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 could not run, 2 wrong usage, 3 unreadable data, 4 no such model or unfit "
    f"checkpoint. {DEBUG}=1 shows where an error came from.",
)
for module in (predict, models, info, convert, benchmark, checks):
    app.command(module.NAME)(module.command)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"rtdetr {version('rtdetr-ops')}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command; an error becomes one sentence on stderr and an exit code."""
    keep_freed_memory()
    try:
        app(prog_name="rtdetr")
    except Exception as error:
        if os.environ.get(DEBUG) == "1":
            raise
        known = isinstance(error, RTDetrError)
        text = (
            str(error)
            if known
            else f"unexpected {type(error).__name__}: {error} ({DEBUG}=1 shows where)"
        )
        typer.echo(f"rtdetr: {text}", err=True)
        sys.exit(error.exit_code if isinstance(error, RTDetrError) else 1)
