# SPDX-License-Identifier: Apache-2.0
"""A mistyped keyword is answered with the nearest one that exists."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

from .errors import did_you_mean

T = TypeVar("T")


def suggests_keywords(cls: type[T]) -> type[T]:
    """Let the constructor of ``cls`` answer an unknown keyword with ``TypeError`` and a suggestion."""
    plain = cls.__init__
    known = [name for name in inspect.signature(plain).parameters if name != "self"]

    @functools.wraps(plain)
    def init(self: T, *args: Any, **keywords: Any) -> None:
        for name in keywords:
            if name not in known:
                raise TypeError(
                    f'{cls.__name__}: unknown keyword "{name}".{did_you_mean(name, known)}'
                )
        plain(self, *args, **keywords)

    cls.__init__ = init  # type: ignore[method-assign]
    return cls
