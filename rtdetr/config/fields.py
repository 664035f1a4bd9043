# SPDX-License-Identifier: Apache-2.0
"""Fields of configurations: the check of each stands beside its default and holds whenever the field is set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from ..checking import as_bool, as_int, as_number, check
from ..errors import did_you_mean

__all__ = [
    "Check",
    "CheckedFields",
    "bools",
    "checked",
    "flag",
    "image_size",
    "ints",
    "label_ids",
    "names_by_id",
    "number",
    "one_of",
    "optional",
    "whole",
    "whole_or_ints",
]

T = TypeVar("T")

Check = Callable[[str, Any], Any]
"""Takes the name and the value of a field; returns the value that the field keeps, or raises ``ValueError``."""


def checked(default: T, check: Check) -> T:
    """A field with a default and the check of every value that it is given."""
    return dataclasses.field(default=default, metadata={"check": check})


class CheckedFields:
    """What configurations share: no field takes a wrong value, and no other attribute can be set."""

    aliases: ClassVar[Mapping[str, str]] = {}
    """Further names that a field can be set by."""

    def __setattr__(self, name: str, value: Any) -> None:
        name = self.aliases.get(name, name)
        fields: dict[str, dataclasses.Field[Any]] = type(self).__dataclass_fields__  # type: ignore[attr-defined]
        if name not in fields:
            title = type(self).__name__
            raise AttributeError(f"{title} has no field {name!r}.{did_you_mean(name, fields)}")
        object.__setattr__(self, name, fields[name].metadata["check"](name, value))


def whole(low: int, high: int) -> Check:
    def check_value(name: str, value: Any) -> int:
        integer = as_int(value)
        is_within = integer is not None and low <= integer <= high
        check(is_within, name, f"an int in {low}..{high}", value)
        assert integer is not None
        return integer

    return check_value


def number(low: float, high: float) -> Check:
    def check_value(name: str, value: Any) -> float:
        real = as_number(value)
        is_within = real is not None and math.isfinite(real) and low <= real <= high
        check(is_within, name, f"a number in {low:g}..{high:g}", value)
        assert real is not None
        return real

    return check_value


def flag(name: str, value: Any) -> bool:
    truth = as_bool(value)
    check(truth is not None, name, "True or False", value)
    return bool(truth)


def one_of(*choices: object) -> Check:
    def check_value(name: str, value: Any) -> Any:
        # By type too: 0 equals False.
        holds = any(type(value) is type(choice) and value == choice for choice in choices)
        check(holds, name, " or ".join(map(repr, choices)), value)
        return value

    return check_value


def optional(check_value: Check) -> Check:
    """None stays None."""
    return lambda name, value: None if value is None else check_value(name, value)


def ints(low: int, high: int, *, length: int | None = None) -> Check:
    """A list of ints, kept as a tuple; ``length`` None takes up to ``MOST_ENTRIES`` of them."""
    one = whole(low, high)

    def check_value(name: str, value: Any) -> tuple[int, ...]:
        check(isinstance(value, (list, tuple)), name, "a list of ints", value)
        values = tuple(one(name, item) for item in value[:MOST_ENTRIES])
        if length is not None:
            check(len(value) == length, name, f"{length} values", tuple(value))
        check(len(value) <= MOST_ENTRIES, name, f"at most {MOST_ENTRIES} values", len(value))
        return values

    return check_value


MOST_ENTRIES = 64
"""Of a list: levels of a pyramid, or stages of a backbone."""


def distinct_ints(name: str, value: Any) -> tuple[int, ...]:
    """A list of different whole numbers, kept as a tuple."""
    check(isinstance(value, (list, tuple)), name, "a list of ints", value)
    numbers = tuple(map(as_int, value))
    is_distinct = len(numbers) == len(set(numbers) - {None}) > 0
    check(is_distinct, name, "whole numbers, each once", value)
    return tuple(one for one in numbers if one is not None)


def whole_or_ints(low: int, high: int) -> Check:
    """An int, or a list of ints, which is kept as a tuple."""
    one, many = whole(low, high), ints(low, high)
    return lambda name, value: (many if isinstance(value, (list, tuple)) else one)(name, value)


def bools(name: str, value: Any) -> tuple[bool, ...]:
    """A list of truth values, kept as a tuple."""
    check(isinstance(value, (list, tuple)), name, "a list of bools", value)
    return tuple(flag(name, item) for item in value[:MOST_ENTRIES])


def image_size(name: str, value: Any) -> tuple[int, int]:
    """(height, width) in pixels; an int is the side of a square."""
    sides = value if isinstance(value, (list, tuple)) else [value, value]
    height, width = ints(1, 2**16, length=2)(name, sides)
    return height, width


def names_by_id(name: str, value: Any) -> dict[int, str]:
    """Names of the classes by their ids, which JSON writes as text."""
    check(isinstance(value, Mapping), name, "names by id", value)
    check(len(value) > 0, name, "at least one name", value)
    names = {_label_id(name, key): _label_name(name, word) for key, word in value.items()}
    return dict(sorted(names.items()))


def label_ids(name: str, value: Any) -> dict[str, int]:
    """Ids of the classes by their names."""
    check(isinstance(value, Mapping), name, "ids by name", value)
    return {_label_name(name, word): _label_id(name, key) for word, key in value.items()}


def _label_id(name: str, value: Any) -> int:
    index = int(value) if isinstance(value, str) and value.isdecimal() else as_int(value)
    check(index is not None and 0 <= index <= MOST_ID, name, f"ids in 0..{MOST_ID}", value)
    assert index is not None
    return index


MOST_ID = 10**9


def _label_name(name: str, value: Any) -> str:
    check(isinstance(value, (str, int, float)), name, "names that are text", value)
    return str(value)
