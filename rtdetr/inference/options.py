# SPDX-License-Identifier: Apache-2.0
"""The options of a prediction, declared once and checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ..checking import hints_at_fields
from ..errors import UsageError

if TYPE_CHECKING:
    from ..images.convert import Color

__all__ = ["ImageSize", "PredictKeywords", "PredictOptions", "check_imgsz"]

STRIDE = 32
"""Of the coarsest feature map; the maps of a model fit together for multiples of it only."""

ImageSize = int | tuple[int, int]
"""The side of a square, or (height, width)."""


class PredictKeywords(TypedDict, total=False):
    """The fields of :class:`PredictOptions` as keyword arguments."""

    threshold: float
    batch: int
    classes: Sequence[str | int] | None
    imgsz: ImageSize | None
    color: Color
    recursive: bool
    vid_stride: int


@hints_at_fields
@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How to look at images.

    Args:
        threshold: detections with a greater score are kept, 0..1.
        batch: images per run of the model.
        classes: names or indices of the classes to keep; None for all.
        imgsz: run at this size, a multiple of 32: one number, or (height, width); None for the processor's.
        color: "bgr" for arrays and tensors in OpenCV's order.
        recursive: look into the folders of a folder.
        vid_stride: use every ``vid_stride``-th frame of a video.

    Raises:
        UsageError: naming the option that has a wrong value.
        TypeError: for an unknown option, with the nearest known one.
    """

    threshold: float = 0.5
    batch: int = 1
    classes: Sequence[str | int] | None = None
    imgsz: ImageSize | None = None
    color: Color = "rgb"
    recursive: bool = False
    vid_stride: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold: expected a score within 0..1, got {self.threshold}")
        for name in ("batch", "vid_stride"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if isinstance(self.classes, str):
            raise UsageError(f"classes: expected a list of names or indices, got {self.classes!r}")
        if self.imgsz is not None:
            check_imgsz(self.imgsz)


def check_imgsz(imgsz: ImageSize) -> tuple[int, int]:
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
