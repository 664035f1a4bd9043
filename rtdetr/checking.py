# SPDX-License-Identifier: Apache-2.0
"""What arguments and fields may hold: a message reads "field: expected X, got Y", or names the nearest keyword."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from .errors import did_you_mean

__all__ = [
    "check",
    "check_between",
    "check_choice",
    "check_int",
    "hints_at_fields",
    "hints_at_keywords",
    "int_tuple",
]

P = ParamSpec("P")
T = TypeVar("T")


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

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                raise TypeError(
                    f"{function.__qualname__} has no argument {name!r}.{did_you_mean(name, known)}"
                )
        return function(*args, **kwargs)

    return checked


def hints_at_fields(cls: type[T]) -> type[T]:
    """Let the constructor of ``cls`` answer an unknown keyword with ``TypeError`` and the nearest field."""
    cls.__init__ = hints_at_keywords(cls.__init__)  # type: ignore[method-assign]
    return cls
