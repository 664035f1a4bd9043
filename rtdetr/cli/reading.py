# SPDX-License-Identifier: Apache-2.0
"""The options of reading a data set, declared once for all commands that read one."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from ..errors import DataError
from .arguments import named_as_typed
from .console import warn

if TYPE_CHECKING:
    from ..data import DataSplits, ReadOptions

READING = "Reading"

F = TypeVar("F", bound=Callable[..., Any])

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder in COCO's, YOLO's, Roboflow's or Pascal VOC's layout, a data.yaml, or a COCO json.",
    ),
]


def _option(name: str, kind: type, default: object, text: str) -> Parameter:
    # One name, and no second one that turns it off.
    flag = f"--{name.replace('_', '-')}"
    option = typer.Option(flag, help=text, rich_help_panel=READING)
    return Parameter(
        name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _unset(option: Parameter) -> Parameter:
    kind, typed = get_args(option.annotation)
    shown = copy.copy(typed)
    shown.show_default = False if option.default is False else str(option.default)
    return option.replace(default=None, annotation=Annotated[kind | None, shown])


READ_OPTIONS = (
    _option("decode", bool, False, "Decode every image, not its header alone."),
    _option("ignore_unknown_classes", bool, False, "Leave out boxes of undeclared classes."),
    _option("skip_missing", bool, False, "Leave out images that cannot be read."),
    _option("drop_bad_boxes", bool, False, "Leave out boxes without an area in the image."),
    _option("no_empty", bool, False, "Leave images without objects out of train."),
    _option("val_fraction", float, 0.1, "Share to hold out where there is no val split."),
    _option("seed", int, 0, "Decides which images are held out."),
    _option("queries", int, 300, "Objects that the model can find in an image."),
    _option("imgsz", int, 640, "Side to which images are resized."),
)
"""One for each field of :class:`~rtdetr.data.ReadOptions`."""


def takes_read_options(*without: str, unset: bool = False) -> Callable[[F], F]:
    """Give a command the options of reading data; it gets the values as the dict ``reading``.

    Args:
        *without: names of options that it does not take, or has of its own.
        unset: whether the value is None of an option that was not typed.
    """
    shared = [option for option in READ_OPTIONS if option.name not in without]
    if unset:
        shared = [_unset(option) for option in shared]

    def give(command: F) -> F:
        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.name != "reading"]

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            reading = {option.name: values.pop(option.name) for option in shared}
            return command(**values, reading=reading)

        parameters = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in own] + shared
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run  # type: ignore[return-value]

    return give


def read_options(**values: Any) -> ReadOptions:
    """The options behind the flags.

    Raises:
        UsageError: naming the flag that has a wrong value.
    """
    from ..data import ReadOptions

    with named_as_typed(values):
        return ReadOptions(**values)


def read_data(data: str, options: ReadOptions) -> DataSplits:
    """The data set, with its warnings on stderr.

    Raises:
        DataError: if anything is wrong with it, in the words of the command.
    """
    from ..data import check_data

    report = (splits := check_data(data, options)).report
    failures = report.failures()
    if failures:
        raise DataError("\n".join(with_flags(finding.sentence) for finding in failures))
    for finding in report.of("warning"):
        warn(f"warning: {with_flags(finding.sentence)}")
    return splits


def with_flags(sentence: str) -> str:
    """A sentence with flags where it names, in parentheses, options by their names in Python."""
    from ..data import ReadOptions

    for name in (*(field.name for field in fields(ReadOptions)), "resume_anyway"):
        if "_" in name:
            sentence = sentence.replace(f"({name}", f"(--{name.replace('_', '-')}")
    return sentence
