# SPDX-License-Identifier: Apache-2.0
"""The forms in which a target size is given, and the (height, width) each means for one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UsageError

SIZE_FORMS = (
    frozenset({"height", "width"}),
    frozenset({"shortest_edge", "longest_edge"}),
    frozenset({"max_height", "max_width"}),
)

SizeLike = int | Sequence[int] | Mapping[str, int]


def size_dict(size: SizeLike, argument: str = "size") -> dict[str, int]:
    """``size`` in one of the three forms: 640 is a square, (480, 640) is (height, width).

    Raises:
        UsageError: for other keys, or a number that is not a whole number of at least 1.
    """
    if isinstance(size, int):
        sides = {"height": size, "width": size}
    elif isinstance(size, Mapping):
        sides = {key: value for key, value in size.items() if value is not None}
    else:
        sides = dict(zip(("height", "width"), size, strict=False)) if len(size) == 2 else {}
    if sides.keys() not in SIZE_FORMS:
        raise UsageError(
            f"{argument}: expected a whole number, (height, width), or a dict with height and width, shortest_edge and "
            f"longest_edge, or max_height and max_width; got {size!r}"
        )
    for key, value in sides.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(
                f"{argument}: expected {key} to be a whole number of at least 1, got {value!r}"
            )
    return sides


def resized_size(old: tuple[int, int], size: Mapping[str, int]) -> tuple[int, int]:
    """(height, width) that ``size`` asks for, given an image of (height, width) ``old``; at least 1 each."""
    if "height" in size:
        return size["height"], size["width"]
    if "max_height" in size:
        scale = min(size["max_height"] / old[0], size["max_width"] / old[1])
        return max(1, int(old[0] * scale)), max(1, int(old[1] * scale))
    return _by_edges(old, size["shortest_edge"], size["longest_edge"])


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
