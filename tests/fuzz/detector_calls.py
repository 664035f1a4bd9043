# SPDX-License-Identifier: Apache-2.0
"""Calls of a detector with odd images and options: answered, or refused in a sentence before work is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiny_detector import tiny_detector

import rtdetr
from rtdetr.errors import RTDetrError

from .forked import Case
from .outcomes import Outcome, attempt


def prepare(folder: Path) -> Case:
    """A detector of random weights, called."""
    detector = tiny_detector()

    def run(seed: int) -> Outcome:
        torch.set_num_threads(1)
        random = Random(seed)
        source = random.choice(_SOURCES)(random)
        options = {
            name: _draw_option(name, random)
            for name in random.sample(list(_OPTIONS), random.randint(0, 3))
        }
        return attempt(lambda: _check(detector(source, **options)), (RTDetrError, TypeError))

    return run


def _check(results: rtdetr.Detections | rtdetr.Unreadable | Iterable[Any]) -> None:
    # A number is a camera, whose frames come one by one.
    one = isinstance(results, rtdetr.Detections | rtdetr.Unreadable)
    for result in [results] if one else list(results):
        if isinstance(result, rtdetr.Unreadable):
            continue
        width, height = result.image.size
        boxes = result.boxes
        assert np.isfinite(boxes).all(), "boxes are not finite"
        assert (boxes >= 0).all(), "a box leaves its image"
        assert (boxes <= [width, height] * 2).all(), "a box leaves its image"
        json.loads(result.to_json(), parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def _draw_option(name: str, random: Random) -> Any:
    return random.choice(_OPTIONS[name] if random.random() < 0.5 else _JUNK)


def _image(random: Random) -> Image.Image:
    mode = random.choice(
        ("RGB", "L", "RGBA", "P", "1", "CMYK", "LA", "F", "I", "HSV", "YCbCr", "LAB", "I;16")
    )
    size = (random.choice((1, 2, 31, 96)), random.choice((1, 3, 40, 200)))
    return Image.new(mode, size)


def _array(random: Random) -> np.ndarray[Any, Any]:
    shape = random.choice(
        (
            (9, 7),
            (9, 7, 3),
            (9, 7, 4),
            (9, 7, 1),
            (3, 9, 7),
            (0, 7, 3),
            (7,),
            (2, 9, 7, 3),
            (9, 7, 2),
        )
    )
    dtype = random.choice(
        (
            np.uint8,
            np.float32,
            np.float64,
            np.int64,
            np.uint16,
            np.bool_,
            np.float16,
            np.complex64,
            object,
        )
    )
    scale = random.choice((1, 1, 255, -1, 1e9, math.nan))
    with np.errstate(all="ignore"):
        return (np.random.default_rng(random.randrange(99)).random(shape) * scale).astype(dtype)


def _tensor(random: Random) -> torch.Tensor:
    shape = random.choice(
        ((3, 9, 7), (1, 9, 7), (9, 7), (4, 9, 7), (3, 0, 7), (2, 3, 9, 7), (9, 7, 3), ())
    )
    dtype = random.choice(
        (torch.uint8, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool)
    )
    return (torch.rand(shape) * random.choice((1, 1, 200, -1))).to(dtype)


_JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 10**9, 2**70, 0.5, 1.5, -0.5, math.nan, math.inf),
    *(
        "",
        "x",
        "0.5",
        "rgb",
        "person",
        b"x",
        [],
        (),
        {},
        [0],
        [None],
        ["x"],
        [[0]],
        {"height": 96},
        object(),
    ),
    *(
        np.int64(1),
        np.float32(0.5),
        np.array([0, 1]),
        torch.tensor(1),
        torch.tensor([0.5]),
        Path("x"),
    ),
)

_SOURCES: tuple[Callable[[Random], Any], ...] = (
    _image,
    _image,
    _array,
    _array,
    _tensor,
    lambda random: [_image(random) for _ in range(random.randint(0, 4))],
    lambda random: [_array(random), _image(random)],
    lambda random: random.choice([junk for junk in _JUNK if not isinstance(junk, str | Path)]),
    lambda random: ["no-such-file.png", _image(random)],
)

_OPTIONS: dict[str, tuple[Any, ...]] = {
    "threshold": (0.0, 0.3, 1.0, np.float64(0.2), 0),
    "imgsz": (32, 64, 96, (64, 32), np.int64(64), [32, 96]),
    "classes": ([0], ["person", "dog"], [2, "bus"], np.array([1]), "dog"),
    "batch": (1, 2, np.int64(3)),
    "color": ("rgb", "bgr", "RGB"),
    "max_detections": (1, 5),
    "treshold": (0.3,),
}
