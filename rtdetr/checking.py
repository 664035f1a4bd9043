# SPDX-License-Identifier: Apache-2.0
"""What arguments and fields may hold: a message reads "field: expected X, got Y", or names the nearest keyword."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter
from typing import Any, ParamSpec, TypeVar, cast

from .errors import did_you_mean

__all__ = [
    "check",
    "check_between",
    "check_choice",
    "check_int",
    "hints_at_fields",
    "hints_at_keywords",
    "int_tuple",
    "shows_options",
]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def check(holds: bool, field: str, expected: str, got: object) -> None:
    """Raise ``ValueError`` unless ``holds``."""
    if not holds:
        raise ValueError(f"{field}: expected {expected}, got {got!r}")


def check_int(field: str, value: object, minimum: int) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    check(is_int and value >= minimum, field, f"an int >= {minimum}", value)  # type: ignore[operator]


def check_between(field: str, value: Any, low: float, high: float) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    check(is_number and low <= value <= high, field, f"a number in {low:g}..{high:g}", value)


def check_choice(field: str, value: object, choices: Iterable[object]) -> None:
    choices = tuple(choices)
    check(value in choices, field, " or ".join(map(repr, choices)), value)


def int_tuple(field: str, value: Any, minimum: int = 1) -> tuple[int, ...]:
    """``value``, a list or tuple of ints, as a tuple."""
    check(isinstance(value, (list, tuple)), field, "a list of ints", value)
    for item in value:
        check_int(field, item, minimum)
    return tuple(value)


def hints_at_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """``TypeError`` with a suggestion for a keyword that ``function`` does not take; its signature stays."""
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    return _checks_keywords(function, known)


def hints_at_fields(cls: type[T]) -> type[T]:
    """Let the constructor of ``cls`` answer an unknown keyword with ``TypeError`` and the nearest field."""
    cls.__init__ = hints_at_keywords(cls.__init__)  # type: ignore[method-assign]
    return cls


def shows_options(options: type[Any]) -> Callable[[F], F]:
    """Let ``help`` show the fields of ``options`` in place of the ``**options`` of a function.

    A keyword that is none of them, and no parameter either, is answered with ``TypeError`` and the nearest one.
    """
    fields = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(options).parameters.values()
    ]

    def show(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        known = [parameter.name for parameter in (*own, *fields) if parameter.name != "self"]
        shown = _checks_keywords(function, known)
        shown.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
        return cast("F", shown)

    return show


def _checks_keywords(function: Callable[P, T], known: Sequence[str]) -> Callable[P, T]:
    title = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{title} has no argument {name!r}.{did_you_mean(name, known)}")
        return function(*args, **kwargs)

    return checked
