# SPDX-License-Identifier: Apache-2.0
"""What goes wrong outside the program, sorted by whose move it is. Each class carries its exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class RTDetrError(Exception):
    """An error a user can act on: one sentence that says what, where, and the way out."""

    exit_code: ClassVar[int] = 1


class UsageError(RTDetrError, ValueError):
    """What was asked for does not exist or does not fit together."""

    exit_code = 2


class MissingExtraError(RTDetrError, ImportError):
    """An optional package is not installed."""

    exit_code = 2

    def __init__(self, purpose: str, package: str, install: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install {install}")


class DataError(RTDetrError, ValueError):
    """An image, a video or an annotation cannot be read."""

    exit_code = 3


class ModelError(RTDetrError, ValueError):
    """A model or checkpoint cannot be found or does not fit."""

    exit_code = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean "x"?`` with a leading space, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{near[0]}"?' if near else ""
