# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share: the same word means the same everywhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated

import typer

from ..errors import UsageError, did_you_mean

RUNTIME = "Runtime"
OUTPUT = "Output"


def not_empty(text: str | None) -> str | None:
    """Refuse an empty word, such as an unset variable of the shell leaves."""
    if text == "":
        raise typer.BadParameter("expected a word, got an empty one")
    return text


def complete_model(start: str) -> list[str]:
    """Names of published models, for the completion of the shell."""
    from ..config.presets import ALIASES, PRESETS

    return [name for name in (*PRESETS, *ALIASES) if name.startswith(start)]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A published model (see: rtdetr models), a directory, a hub repository, a .safetensors or a .pth file.",
        callback=not_empty,
        autocompletion=complete_model,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        help="A published model (see: rtdetr models), a directory, hub repository or checkpoint.",
        callback=not_empty,
        autocompletion=complete_model,
    ),
]
Imgsz = Annotated[
    str | None,
    typer.Option(help="Run at this size: 640, or height,width.", show_default="the model's"),
]
Batch = Annotated[
    int, typer.Option(min=1, help="Images per run of the model.", rich_help_panel=RUNTIME)
]
Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda, cuda:1, 1 or mps.", rich_help_panel=RUNTIME),
]
Dtype = Annotated[
    str,
    typer.Option(help="auto, float32, float16 or bfloat16.", rich_help_panel=RUNTIME),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, and nothing else, on stdout.", rich_help_panel=OUTPUT),
]


def parse_imgsz(text: str | None) -> int | tuple[int, int] | None:
    """``640``, or ``480,640`` for height and width.

    Raises:
        UsageError: if it is neither.
    """
    if text is None:
        return None
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if len(sides) == 1:
        return sides[0]
    if len(sides) == 2:
        return sides[0], sides[1]
    raise UsageError(f'--imgsz: expected a number such as 640, or height,width, got "{text}"')


def parse_list(option: str, text: str | None) -> list[str] | None:
    """The words of a list with commas; None for none.

    Raises:
        UsageError: if it has no words.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f'{option}: expected words separated by commas, got "{text}"')
    return words


def choose(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    """The words of a list with commas, each one of ``known``.

    Raises:
        UsageError: for another word, with the nearest, or for none.
    """
    words = parse_list(option, text) or []
    for word in words:
        if word not in known:
            hint = did_you_mean(word, known)
            raise UsageError(f'{option}: expected {", ".join(known)}, got "{word}".{hint}')
    return words


@contextmanager
def named_as_typed(
    names: Collection[str], special: Mapping[str, str] = MappingProxyType({})
) -> Iterator[None]:
    """Let the error of one of the options ``names`` call it by its flag: a ``special`` one, or ``--the-name``."""
    try:
        yield
    except UsageError as error:
        name, separator, text = str(error).partition(":")
        if name not in names:
            raise
        flag = special.get(name, f"--{name.replace('_', '-')}")
        raise UsageError(f"{flag}{separator}{text}") from None
