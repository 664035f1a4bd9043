# SPDX-License-Identifier: Apache-2.0
"""How to look at pictures, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError

STRIDE = (
    32  # of the coarsest feature map; the maps of a model fit together for multiples of it only
)

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Options:
    """The options of a call; see ``RTDETR.__call__``.

    Raises:
        UsageError: naming the option that has a wrong value.
    """

    threshold: float = 0.5
    batch: int = 1
    classes: Sequence[str | int] | None = None
    imgsz: Size | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold: expected a score within 0..1, got {self.threshold}")
        if self.batch < 1:
            raise UsageError(f"batch: expected at least 1, got {self.batch}")
        if isinstance(self.classes, str):
            raise UsageError(f"classes: expected a list of names or indices, got {self.classes!r}")
        if self.imgsz is not None:
            check_imgsz(self.imgsz)


def check_imgsz(imgsz: Size) -> tuple[int, int]:
    """(height, width) of one number or two.

    Raises:
        UsageError: for anything but multiples of 32, with the nearest.
    """
    sides = (imgsz, imgsz) if isinstance(imgsz, int) else tuple(imgsz)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise UsageError(f"imgsz: expected a whole number or (height, width), got {imgsz!r}")
    nearest = [max(STRIDE, round(side / STRIDE) * STRIDE) for side in sides]
    if list(sides) != nearest:
        hint = nearest[0] if isinstance(imgsz, int) else tuple(nearest)
        raise UsageError(f"imgsz: expected multiples of {STRIDE}, got {imgsz}. Try {hint}.")
    return sides[0], sides[1]
