# SPDX-License-Identifier: Apache-2.0
"""The order of the color channels of an array or tensor."""

from __future__ import annotations

from typing import Literal, cast, get_args

from ..errors import UsageError, did_you_mean

__all__ = ["Color", "find_color"]

Color = Literal["rgb", "bgr"]
"""RGB, or OpenCV's order."""


def find_color(color: object, argument: str = "color") -> Color:
    """The order meant, in upper or lower case.

    Raises:
        UsageError: for any other word; silently taken for RGB it would swap red and blue.
    """
    known = get_args(Color)
    word = color.lower() if isinstance(color, str) else color
    if not isinstance(word, str) or word not in known:
        hint = did_you_mean(word, known) if isinstance(word, str) else ""
        raise UsageError(f'{argument}: expected "rgb" or "bgr", got {color!r}.{hint}')
    return cast("Color", word)
