# SPDX-License-Identifier: Apache-2.0
"""What a user may decide about reading a data set."""

from __future__ import annotations

from dataclasses import dataclass

from ..checking import check_between, check_int, hints_at_fields
from ..errors import UsageError

__all__ = ["ReadOptions"]


@hints_at_fields
@dataclass(frozen=True)
class ReadOptions:
    """How a data set is read and checked.

    Args:
        ignore_unknown_classes: leave out boxes of classes that are not declared, with a warning.
        skip_missing: leave out images that do not exist or cannot be read, with a warning.
        drop_bad_boxes: leave out boxes without an area, or outside their image, with a warning.
        no_empty: leave images without an object to learn out of train; val keeps them, where they show false alarms.
        val_fraction: share of the images that are held out where a data set has no val split; 0 for none.
        seed: decides which ones.
        queries: objects that the model can find in an image, for a warning where there are more.
        imgsz: side to which images are resized, for a note on boxes too small to see.
        decode: whether to decode every image, not its header alone.

    Raises:
        UsageError: naming the option that has a wrong value.
        TypeError: for an unknown option, with the nearest known one.
    """

    ignore_unknown_classes: bool = False
    skip_missing: bool = False
    drop_bad_boxes: bool = False
    no_empty: bool = False
    val_fraction: float = 0.1
    seed: int = 0
    queries: int = 300
    imgsz: int = 640
    decode: bool = False

    def __post_init__(self) -> None:
        try:
            check_between("val_fraction", self.val_fraction, 0, 0.9)
            check_int("seed", self.seed, 0)
            check_int("queries", self.queries, 1)
            check_int("imgsz", self.imgsz, 1)
        except ValueError as error:
            raise UsageError(str(error)) from None
