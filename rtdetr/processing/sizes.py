# SPDX-License-Identifier: Apache-2.0
"""The forms in which a target size is given, and the (height, width) each means for one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..checking import as_int
from ..errors import UsageError

SIZE_FORMS = (
    frozenset({"height", "width"}),
    frozenset({"shortest_edge", "longest_edge"}),
    frozenset({"max_height", "max_width"}),
)

MAX_SIDE = 2**16
"""Pixels. Pillow's arithmetic overflows beyond 2**31; an image of this side has filled any memory before."""

SizeLike = int | Sequence[int] | Mapping[str, int]


def size_dict(size: object, argument: str = "size") -> dict[str, int]:
    """``size`` in one of the three forms: 640 is a square, (480, 640) is (height, width).

    Raises:
        UsageError: for other keys, or a number that is not a whole number within 1..65536.
    """
    sides: dict[str, object] = {}
    if as_int(size) is not None:
        sides = {"height": size, "width": size}
    elif isinstance(size, Mapping):
        sides = {key: value for key, value in size.items() if value is not None}
    elif isinstance(size, Sequence | np.ndarray) and len(size) == 2:
        sides = {"height": size[0], "width": size[1]}
    if sides.keys() not in SIZE_FORMS:
        raise UsageError(
            f"{argument}: expected a whole number, (height, width), or a dict with height and width, shortest_edge and "
            f"longest_edge, or max_height and max_width; got {size!r}"
        )
    return {key: _side(value, key, argument) for key, value in sides.items()}


def resized_size(old: tuple[int, int], size: Mapping[str, int]) -> tuple[int, int]:
    """(height, width) that ``size`` asks for, given an image of (height, width) ``old``; at least 1 each."""
    if "height" in size:
        return size["height"], size["width"]
    if "max_height" in size:
        scale = min(size["max_height"] / old[0], size["max_width"] / old[1])
        return max(1, int(old[0] * scale)), max(1, int(old[1] * scale))
    return _by_edges(old, size["shortest_edge"], size["longest_edge"])


def describe_size(size: Mapping[str, int]) -> str:
    """``640x480`` (width x height), ``at most 640x480``, or ``shortest edge 480, longest at most 800``."""
    if "height" in size:
        return f"{size['width']}x{size['height']}"
    if "max_height" in size:
        return f"at most {size['max_width']}x{size['max_height']}"
    return f"shortest edge {size['shortest_edge']}, longest at most {size['longest_edge']}"


def _side(value: object, key: str, argument: str) -> int:
    side = as_int(value)
    if side is None or side < 1:
        raise UsageError(
            f"{argument}: expected {key} to be a whole number of at least 1, got {value!r}"
        )
    # The longest edge is a limit, and whoever means none may write any number.
    if key != "longest_edge" and side > MAX_SIDE:
        raise UsageError(f"{argument}: expected {key} to be at most {MAX_SIDE}, got {side}")
    return side


def _by_edges(old: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """The shorter side becomes ``shortest``, or less where the longer one would pass ``longest``."""
    short, long = min(old), max(old)
    length: float = shortest
    if long / short * shortest > longest:
        length = longest * short / long
    edge = max(1, round(length))
    if edge == short:
        return old
    # The longer side is cut, not rounded, from the exact length: so do the published models.
    other = max(1, int(length * long / short))
    return (edge, other) if old[0] <= old[1] else (other, edge)
