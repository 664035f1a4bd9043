# SPDX-License-Identifier: Apache-2.0
"""The options of a prediction, declared once and checked once, and the words for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypedDict, TypeGuard

from ..checking import as_bool, as_int, as_number, hints_at_fields
from ..errors import UsageError
from ..images.color import Color, find_color

__all__ = [
    "HINTS",
    "STRIDE",
    "SYNONYMS",
    "ImageSize",
    "PredictKeywords",
    "PredictOptions",
    "PredictWords",
    "check_flag",
    "check_imgsz",
    "check_whole",
]

STRIDE = 32
"""Of the coarsest feature map; the maps of a model fit together for multiples of it only."""

LARGEST_SIDE = 8192
"""Pixels: an input of 8192x8192 has 805 MB, and the maps made of it are several times as large."""

ImageSize = int | tuple[int, int]
"""The side of a square, or (height, width)."""

SYNONYMS = MappingProxyType({"conf": "threshold"})
"""Second names of options. Both work, in Python and in the command, and an error names the one that was typed."""

HINTS = MappingProxyType(
    {
        "confidence": 'Did you mean "threshold"?',
        "device": "It is an argument of RTDETR, and of RTDETR.to.",
        "dtype": "It is an argument of RTDETR, and of RTDETR.to.",
        "half": 'Pass dtype="float16" to RTDETR.',
        "iou": "RT-DETR finds each object once and needs no suppression of boxes.",
        "max_det": "Detections are sorted, best first: detections[:100].",
        "model": "It is the first argument of RTDETR.",
        "save": "Call detections.save(path).",
        "show": "Call detections.plot().show().",
        "size": 'Did you mean "imgsz"?',
        "stream": "Call detector.stream(source).",
        "verbose": "A detector prints nothing.",
    }
)
"""What to answer to words of other detectors' programs that no option here is near."""


class PredictKeywords(TypedDict, total=False):
    """The fields of :class:`PredictOptions` as keyword arguments."""

    threshold: float
    batch: int
    classes: Iterable[str | int] | None
    imgsz: ImageSize | None
    color: Color
    recursive: bool
    vid_stride: int


class PredictWords(PredictKeywords, total=False):
    """What a user may type: the options and their synonyms."""

    conf: float


@hints_at_fields
@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How to look at images.

    Any integer of NumPy or torch will do for an int.

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
    classes: Iterable[str | int] | None = None
    imgsz: ImageSize | None = None
    color: Color = "rgb"
    recursive: bool = False
    vid_stride: int = 1

    def __post_init__(self) -> None:
        for name, checked in _CHECKS.items():
            object.__setattr__(self, name, checked(name, getattr(self, name)))

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> PredictOptions:
        """The options behind words as they were typed, synonyms too.

        Raises:
            UsageError: for a wrong value, or two words for one option; it names the words.
            TypeError: for an unknown word, with the nearest known one.
        """
        typed: dict[str, str] = {}
        values: dict[str, Any] = {}
        for word, value in words.items():
            name = SYNONYMS.get(word, word)
            if name in typed:
                raise UsageError(f"{typed[name]}, {word}: two words for one option; pass one")
            typed[name] = word
            values[name] = _CHECKS[name](word, value) if name in _CHECKS else value
        return cls(**values)


def check_imgsz(imgsz: object, argument: str = "imgsz") -> tuple[int, int]:
    """(height, width) of one number or two.

    Raises:
        UsageError: for anything but multiples of 32, with the nearest.
    """
    side = as_int(imgsz)
    sides = [side, side]
    if side is None and _is_list(imgsz):
        sides = [as_int(one) for one in imgsz]
    whole = [one for one in sides if one is not None and one >= 1]
    if len(sides) != 2 or len(whole) != 2:
        raise UsageError(f"{argument}: expected a whole number or (height, width), got {imgsz!r}")
    if max(whole) > LARGEST_SIDE:
        raise UsageError(
            f"{argument}: expected at most {LARGEST_SIDE} pixels a side, got {imgsz!r}"
        )
    nearest = [max(STRIDE, round(one / STRIDE) * STRIDE) for one in whole]
    if whole != nearest:
        hint = nearest[0] if side is not None else tuple(nearest)
        got = side if side is not None else tuple(whole)
        raise UsageError(f"{argument}: expected multiples of {STRIDE}, got {got}. Try {hint}.")
    return whole[0], whole[1]


def check_whole(argument: str, value: object, minimum: int = 1) -> int:
    """``value`` as an int.

    Raises:
        UsageError: if it is none, less than ``minimum``, or more than anything can be counted to.
    """
    number = as_int(value)
    if number is None or number > sys.maxsize:
        raise UsageError(f"{argument}: expected a whole number, got {value!r}")
    if number < minimum:
        raise UsageError(f"{argument}: expected at least {minimum}, got {number}")
    return number


def _is_list(value: object) -> TypeGuard[Iterable[Any]]:
    is_text = isinstance(value, str | bytes)
    return isinstance(value, Iterable) and not is_text and getattr(value, "ndim", 1) == 1


def _score(argument: str, value: object) -> float:
    number = as_number(value)
    if number is None or not 0 <= number <= 1:
        raise UsageError(f"{argument}: expected a score within 0..1, got {value!r}")
    return number


def _classes(argument: str, value: Any) -> tuple[str | int, ...] | None:
    if value is None:
        return None
    entries = list(value) if _is_list(value) else [None]
    whole = [entry if isinstance(entry, str) else as_int(entry) for entry in entries]
    classes = tuple(entry for entry in whole if entry is not None)
    if len(classes) != len(entries):
        raise UsageError(f"{argument}: expected a list of names or indices, got {value!r}")
    return classes


def _imgsz(argument: str, value: object) -> tuple[int, int] | None:
    return None if value is None else check_imgsz(value, argument)


def check_flag(argument: str, value: object) -> bool:
    """``value`` as a bool.

    Raises:
        UsageError: if it is none.
    """
    flag = as_bool(value)
    if flag is None:
        raise UsageError(f"{argument}: expected True or False, got {value!r}")
    return flag


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "threshold": _score,
    "batch": check_whole,
    "classes": _classes,
    "imgsz": _imgsz,
    "color": lambda argument, value: find_color(value, argument),
    "recursive": check_flag,
    "vid_stride": check_whole,
}
