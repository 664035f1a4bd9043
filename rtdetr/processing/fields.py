# SPDX-License-Identifier: Apache-2.0
"""What the fields of an image processor may hold, and the plain value that each word for it means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
from PIL import Image

from ..checking import as_bool, as_int, as_number
from ..errors import UsageError
from .sizes import size_dict

__all__ = ["CHECKS", "TensorKind", "check_tensor_kind"]

TensorKind = Literal["pt", "np"]


def check_tensor_kind(name: str, value: object) -> TensorKind | None:
    """Either kind, or None."""
    word = getattr(value, "value", value)
    if word is None or (isinstance(word, str) and word in get_args(TensorKind)):
        return cast("TensorKind | None", word)
    raise UsageError(f'{name}: expected "pt", "np" or None, got {value!r}')


def _flag(name: str, value: object) -> bool:
    flag = as_bool(value)
    if flag is None:
        raise UsageError(f"{name}: expected true or false, got {value!r}")
    return flag


def _factor(name: str, value: object) -> float:
    factor = as_number(value)
    if factor is None or not math.isfinite(factor):
        raise UsageError(f"{name}: expected a number, got {value!r}")
    return factor


def _per_channel(name: str, value: Any) -> tuple[float, ...]:
    """One number for each of three or four channels; a single one is for three."""
    number = as_number(value)
    is_list = isinstance(value, Sequence | np.ndarray) and getattr(value, "ndim", 1) == 1
    given = [number] * 3 if number is not None else map(as_number, value if is_list else ())
    numbers = tuple(one for one in given if one is not None and math.isfinite(one))
    if len(numbers) not in (3, 4) or (is_list and len(numbers) != len(value)):
        raise UsageError(
            f"{name}: expected three numbers, or four for four channels, got {value!r}"
        )
    return numbers


def _divisors(name: str, value: object) -> tuple[float, ...]:
    numbers = _per_channel(name, value)
    if 0 in numbers:
        raise UsageError(f"{name}: expected no zero, pixels are divided by it, got {value!r}")
    return numbers


def _resample(name: str, value: object) -> int:
    number = as_int(value)
    if number is None or number not in list(Image.Resampling):
        raise UsageError(f"{name}: expected a filter of PIL.Image.Resampling, got {value!r}")
    return number


def _size(name: str, value: object) -> dict[str, int]:
    return size_dict(value, name)


def _pad_size(name: str, value: object) -> dict[str, int] | None:
    sides = None if value is None else size_dict(value, name)
    if sides is not None and "height" not in sides:
        raise UsageError(f"{name}: expected height and width, got {sorted(sides)}")
    return sides


def _format(name: str, value: object) -> str:
    # Other libraries pass a str-like enum; the file and the comparison want the plain word.
    word = str(getattr(value, "value", value))
    if word != "coco_detection":
        raise UsageError(f'{name}: only "coco_detection" is supported, got {value!r}')
    return word


CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "do_resize": _flag,
    "size": _size,
    "resample": _resample,
    "do_rescale": _flag,
    "rescale_factor": _factor,
    "do_normalize": _flag,
    "image_mean": _per_channel,
    "image_std": _divisors,
    "do_pad": _flag,
    "pad_size": _pad_size,
    "do_convert_annotations": _flag,
    "format": _format,
    "return_tensors": check_tensor_kind,
}
"""By field, what makes the plain value of a word, or raises ``UsageError``."""
