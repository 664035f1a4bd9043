# SPDX-License-Identifier: Apache-2.0
"""Keywords of transformers' image processors that have one answer here: taken where they ask for it, else refused."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import UsageError

__all__ = ["drop_constants", "takes_constants"]

T = TypeVar("T")

_ANY = None

# By keyword, the values that change nothing here. Images become RGB in any case.
_CONSTANTS: Mapping[str, tuple[Any, ...] | None] = {
    "crop_size": _ANY,
    "data_format": (None, "channels_first"),
    "default_to_square": _ANY,
    "disable_grouping": _ANY,
    "do_center_crop": (None, False),
    "do_convert_rgb": _ANY,
    "image_seq_length": _ANY,
}


def drop_constants(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """``keywords`` without those that ask for what is done anyway.

    Raises:
        UsageError: for one that asks for something else.
    """
    for name in keywords.keys() & _CONSTANTS.keys():
        value = getattr(keywords[name], "value", keywords[name])
        allowed = _CONSTANTS[name]
        if allowed is not _ANY and not any(value is one or _is_word(value, one) for one in allowed):
            expected = " or ".join(map(repr, allowed))
            raise UsageError(f"{name}: expected {expected} for RT-DETR, got {value!r}")
    return {name: value for name, value in keywords.items() if name not in _CONSTANTS}


def _is_word(value: object, word: object) -> bool:
    return isinstance(value, str) and value == word


def takes_constants(cls: type[T]) -> type[T]:
    """Let the constructor of ``cls`` take these keywords too; its signature stays."""
    construct = cls.__init__

    @functools.wraps(construct)
    def init(self: T, *args: Any, **keywords: Any) -> None:
        construct(self, *args, **drop_constants(keywords))

    cls.__init__ = init  # type: ignore[method-assign, assignment]
    return cls
