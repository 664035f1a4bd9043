# SPDX-License-Identifier: Apache-2.0
"""The command ``rtdetr``. Torch is imported by the commands that need it, when they run: help is quick."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from ..errors import RTDetrError
from ..images.names import one_line
from ..memory import keep_freed_memory
from . import benchmark, checks, convert, data, info, models, predict, train, val
from .console import DEBUG, warn

__all__ = ["app", "main"]

app = typer.Typer(
    help="RT-DETRv2: find objects in images and videos.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 could not run, 2 wrong usage, 3 unreadable data, 4 no such model or unfit "
    f"checkpoint. {DEBUG}=1 shows where an error came from.",
)
for module in (predict, train, val, models, info, convert, benchmark, checks):
    app.command(module.NAME)(module.command)
app.add_typer(data.app, name=data.NAME)


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
    # Its retries are not ours to show: an error says in one sentence what could not be fetched.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A letter that the terminal does not have is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ending_in_order(), _plain_warnings():
            app(prog_name="rtdetr")
    except Exception as error:
        if os.environ.get(DEBUG) == "1":
            raise
        warn(f"rtdetr: {_sentence(error)}")
        sys.exit(error.exit_code if isinstance(error, RTDetrError) else 1)


def _sentence(error: Exception) -> str:
    if isinstance(error, RTDetrError):
        return "\n".join(map(one_line, str(error).splitlines()))
    if isinstance(error, OSError) and error.filename and error.strerror:
        reason = error.strerror[0].lower() + error.strerror[1:]
        return one_line(f"{os.fsdecode(error.filename)}: {reason}")
    text = one_line(f"{type(error).__name__}: {error}")
    return f"unexpected {text} ({DEBUG}=1 shows where)"


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the program as Ctrl-C does: what is begun is closed, temporary files go."""

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
    # One that is ignored already stays so: nohup.
    before = {n: signal.signal(n, end) for n in numbers if signal.getsignal(n) == signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings of this package as a line on stderr, without the place in the code that they came from."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        warn(f"warning: {one_line(str(message))}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
