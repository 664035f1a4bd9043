# SPDX-License-Identifier: Apache-2.0
"""A mistyped keyword of a function is answered with the nearest one it has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .errors import did_you_mean

P = ParamSpec("P")
T = TypeVar("T")


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
