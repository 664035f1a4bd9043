# SPDX-License-Identifier: Apache-2.0
"""What a user decides about an evaluation: declared once, for Python and the command."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from ..checking import hints_at_fields
from ..data import ReadOptions
from ..errors import UsageError, did_you_mean
from ..inference.options import ImageSize, check_imgsz, check_whole

__all__ = ["SPLITS", "ValOptions", "ValWords", "split_words"]

SPLITS = ("val", "train")

HINTS: Mapping[str, str] = {
    "batch_size": 'Did you mean "batch"?',
    "conf": "All scores count: AP is a mean over them. The best one is the result's threshold.",
    "device": "It is an argument of RTDETR, and of RTDETR.to.",
    "dtype": "It is an argument of RTDETR, and of RTDETR.to.",
    "half": 'Pass dtype="float16" to RTDETR.',
    "iou": "AP is a mean over IoUs of 0.5, 0.55 ... 0.95.",
    "num_workers": 'Did you mean "workers"?',
    "size": 'Did you mean "imgsz"?',
}
"""What to answer to words of other programs that no option here is near."""

NOT_READ = frozenset({"queries", "imgsz"})
"""Of the options of reading data, what the model says."""


class ValWords(TypedDict, total=False):
    """The fields of :class:`ValOptions`, and of :class:`~rtdetr.data.ReadOptions`, as keyword arguments."""

    split: str
    imgsz: ImageSize | None
    batch: int
    workers: int | None
    ignore_unknown_classes: bool
    skip_missing: bool
    drop_bad_boxes: bool
    no_empty: bool
    val_fraction: float
    seed: int
    decode: bool


@hints_at_fields
@dataclass(frozen=True, kw_only=True)
class ValOptions:
    """How to evaluate.

    Args:
        split: "val" or "train".
        imgsz: side of the square input, or (height, width); multiples of 32; None for the processor's.
        batch: images at once.
        workers: processes that read images; None for none beside a CPU that runs the model, else one for each free
            core, at most 8.

    Raises:
        UsageError: naming the option that has a wrong value.
        TypeError: for an unknown option, with the nearest known one.
    """

    split: str = "val"
    imgsz: ImageSize | None = None
    batch: int = 16
    workers: int | None = None

    def __post_init__(self) -> None:
        for name, checked in _CHECKS.items():
            object.__setattr__(self, name, checked(name, getattr(self, name)))


def split_words(words: Mapping[str, Any]) -> tuple[ValOptions, dict[str, Any]]:
    """The options of an evaluation, and the words among ``words`` that :class:`~rtdetr.data.ReadOptions` takes.

    Raises:
        UsageError: for a wrong value.
        TypeError: for an unknown word, with the nearest known one.
    """
    own = {field.name for field in dataclasses.fields(ValOptions)}
    reading = {field.name for field in dataclasses.fields(ReadOptions)} - NOT_READ
    for word in words:
        if word not in own | reading:
            hint = f" {HINTS[word]}" if word in HINTS else did_you_mean(word, own | reading)
            raise TypeError(f"val has no option {word!r}.{hint}")
    options = ValOptions(**{name: value for name, value in words.items() if name in own})
    return options, {name: value for name, value in words.items() if name in reading}


def _split(name: str, value: object) -> str:
    if value not in SPLITS:
        hint = did_you_mean(value, SPLITS) if isinstance(value, str) else ""
        raise UsageError(f"{name}: expected {' or '.join(SPLITS)}, got {value!r}.{hint}")
    return str(value)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "split": _split,
    "imgsz": lambda name, value: None if value is None else check_imgsz(value, name),
    "batch": check_whole,
    "workers": lambda name, value: None if value is None else check_whole(name, value, 0),
}
