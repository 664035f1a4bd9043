# SPDX-License-Identifier: Apache-2.0
"""What arguments and fields may hold: a message reads "field: expected X, got Y", or names the nearest keyword."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import FrozenInstanceError
from inspect import Parameter
from typing import Any, ParamSpec, SupportsFloat, SupportsIndex, TypeVar, cast

from .errors import did_you_mean

__all__ = [
    "as_bool",
    "as_int",
    "as_number",
    "check",
    "check_between",
    "check_choice",
    "check_int",
    "explains_frozen",
    "hints_at_fields",
    "hints_at_keywords",
    "shows_options",
]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def as_int(value: object) -> int | None:
    """The int that ``value`` stands for, a scalar of NumPy or torch too; None for a bool and all else."""
    if _is_bool(value) or not isinstance(value, SupportsIndex) or _axes(value):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_number(value: object) -> float | None:
    """The float that a number stands for, a scalar of NumPy or torch too; None for a bool, a text and anything else."""
    whole = as_int(value)
    if whole is not None:
        is_small = abs(whole) <= sys.float_info.max
        return float(whole) if is_small else math.inf if whole > 0 else -math.inf
    if _is_bool(value) or not isinstance(value, SupportsFloat) or _axes(value):
        return None
    return float(value)


def as_bool(value: object) -> bool | None:
    """The bool that ``value`` is, of Python, NumPy or torch; None for anything else."""
    return bool(value) if _is_bool(value) and not _axes(value) else None


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


def hints_at_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """``TypeError`` with a suggestion for a keyword that ``function`` does not take; its signature stays."""
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    return _checks_keywords(function, known)


def hints_at_fields(cls: type[T]) -> type[T]:
    """Let the constructor of ``cls`` answer an unknown keyword with ``TypeError`` and the nearest field."""
    cls.__init__ = hints_at_keywords(cls.__init__)  # type: ignore[method-assign]
    return cls


def explains_frozen(way_out: str) -> Callable[[type[T]], type[T]]:
    """Let a frozen dataclass say how to change it: ``way_out`` with the field in place of ``{field}``."""

    def explain(cls: type[T]) -> type[T]:
        def refuse(self: object, name: str, value: object = None) -> None:
            raise FrozenInstanceError(
                f"{cls.__name__}.{name} cannot be changed. Make a copy: {way_out.format(field=name)}"
            )

        cls.__setattr__ = cls.__delattr__ = refuse  # type: ignore[method-assign]
        return cls

    return explain


def shows_options(
    options: type[Any], synonyms: Iterable[str] = (), hints: Mapping[str, str] | None = None
) -> Callable[[F], F]:
    """Let ``help`` show the fields of ``options`` in place of the ``**options`` of a function.

    A keyword that is none of them, and no parameter either, is answered with ``TypeError`` and the nearest one.

    Args:
        options: a dataclass.
        synonyms: further words that the function takes.
        hints: what to answer to a word that it does not take, instead of the nearest one.
    """
    fields = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(options).parameters.values()
    ]

    def show(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        known = [parameter.name for parameter in (*own, *fields) if parameter.name != "self"]
        shown = _checks_keywords(function, [*known, *synonyms], hints)
        shown.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
        return cast("F", shown)

    return show


def _checks_keywords(
    function: Callable[P, T], known: Sequence[str], hints: Mapping[str, str] | None = None
) -> Callable[P, T]:
    title = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                hint = f" {hints[name]}" if hints and name in hints else did_you_mean(name, known)
                raise TypeError(f"{title} has no argument {name!r}.{hint}")
        return function(*args, **kwargs)

    return checked


def _is_bool(value: object) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def _axes(value: object) -> int:
    axes: int = getattr(value, "ndim", 0)
    return axes
