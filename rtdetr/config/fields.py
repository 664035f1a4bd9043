# SPDX-License-Identifier: Apache-2.0
"""Dataclass fields whose check stands beside their default."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..checking import check, check_between, check_choice, check_int, int_tuple

__all__ = [
    "Check",
    "at_least",
    "between",
    "bools",
    "checked",
    "image_size",
    "instance_of",
    "int_or_ints",
    "ints",
    "one_of",
    "run_checks",
    "set_field",
]

T = TypeVar("T")

Check = Callable[[str, Any], Any]
"""Takes the name and the value of a field; returns the value that the field keeps, or raises ``ValueError``."""


def checked(default: T, check: Check) -> T:
    """A field with a default and the check of every value that it is given."""
    return dataclasses.field(default=default, metadata={"check": check})


def run_checks(config: Any) -> None:
    """Check each :func:`checked` field of ``config``, a dataclass under construction, in the order of the fields.

    Raises:
        ValueError: a field is out of range, "field: expected X, got Y".
    """
    for field in dataclasses.fields(config):
        if "check" in field.metadata:
            value = field.metadata["check"](field.name, getattr(config, field.name))
            set_field(config, field.name, value)


def set_field(config: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass that is still under construction."""
    object.__setattr__(config, name, value)


def at_least(minimum: int) -> Check:
    return _keep(check_int, minimum)


def between(low: float, high: float) -> Check:
    return _keep(check_between, low, high)


def one_of(choices: Iterable[object]) -> Check:
    return _keep(check_choice, tuple(choices))


def instance_of(*types: type) -> Check:
    expected = " or ".join(kind.__name__ for kind in types)

    def check_value(name: str, value: Any) -> Any:
        check(isinstance(value, types), name, expected, value)
        return value

    return check_value


def ints(minimum: int = 1, *, length: int | None = None) -> Check:
    """A list of ints, kept as a tuple; ``length`` None takes any number of them."""

    def check_value(name: str, value: Any) -> tuple[int, ...]:
        values = int_tuple(name, value, minimum)
        check(length in (None, len(values)), name, f"{length} values", values)
        return values

    return check_value


def int_or_ints(minimum: int) -> Check:
    """An int, or a list of ints, which is kept as a tuple."""
    one, many = at_least(minimum), ints(minimum)
    return lambda name, value: (many if isinstance(value, (list, tuple)) else one)(name, value)


def bools(name: str, value: Any) -> tuple[bool, ...]:
    """A list of truth values, kept as a tuple."""
    check(isinstance(value, (list, tuple)), name, "a list of bools", value)
    return tuple(map(bool, value))


def image_size(name: str, value: Any) -> tuple[int, int] | None:
    """(height, width) in pixels; an int is the side of a square, None stays None."""
    if value is None:
        return None
    height, width = ints(length=2)(name, [value, value] if isinstance(value, int) else value)
    return height, width


def _keep(check_value: Callable[..., None], *limits: object) -> Check:
    """A check that keeps the value as it is."""

    def kept(name: str, value: Any) -> Any:
        check_value(name, value, *limits)
        return value

    return kept
