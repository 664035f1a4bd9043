# SPDX-License-Identifier: Apache-2.0
"""Options: what each word may hold, that an error names the word that was typed, and comes before any work."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_detector import tiny_detector

import rtdetr
from rtdetr.detector import RTDETR
from rtdetr.errors import UsageError
from rtdetr.inference.options import SYNONYMS, PredictKeywords, PredictOptions, PredictWords

# Each stands for three, or 64 where a side of an image is meant.
INTEGERS: dict[str, Callable[[int], Any]] = {
    "int": int,
    "int64": np.int64,
    "uint8": np.uint8,
    "array": np.array,
    "tensor": torch.tensor,
}


@pytest.mark.parametrize("kind", INTEGERS)
def test_any_integer_is_an_int(kind: str) -> None:
    make = INTEGERS[kind]
    options = PredictOptions(
        batch=make(3), vid_stride=make(3), classes=[make(3), "bus"], imgsz=make(64)
    )
    assert (options.batch, options.vid_stride, options.classes) == (3, 3, (3, "bus"))
    assert options.imgsz == (64, 64)
    assert PredictOptions(imgsz=(make(64), make(96))).imgsz == (64, 96)
    for value in (options.batch, options.vid_stride):
        assert type(value) is int


@pytest.mark.parametrize(
    "classes",
    [[0, 2], (0, 2), np.array([0, 2]), torch.tensor([0, 2]), range(0, 3, 2), iter([0, 2])],
    ids=lambda classes: type(classes).__name__,
)
def test_classes_are_any_list(classes: Any) -> None:
    assert PredictOptions(classes=classes).classes == (0, 2)


@pytest.mark.parametrize("make", [float, np.float32, np.array, torch.tensor, int], ids=str)
def test_any_number_is_a_threshold(make: Callable[[float], Any]) -> None:
    assert PredictOptions(threshold=make(1)).threshold == 1.0


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "threshold, text": ({"threshold": "0.5"}, r"^threshold: expected a score within 0\.\.1, got"),
    "threshold, None": ({"threshold": None}, "^threshold: expected a score .* got None"),
    "threshold, bool": ({"threshold": True}, "^threshold: expected a score .* got True"),
    "threshold, NaN": ({"threshold": float("nan")}, "^threshold: expected a score .* got nan"),
    "threshold, many": ({"threshold": [0.5]}, "^threshold: expected a score"),
    "conf": ({"conf": 50}, r"^conf: expected a score within 0\.\.1, got 50"),
    "conf, threshold": ({"conf": 0.5, "threshold": 0.5}, "^conf, threshold: two words"),
    "batch, None": ({"batch": None}, "^batch: expected a whole number, got None"),
    "batch, float": ({"batch": 2.0}, r"^batch: expected a whole number, got 2\.0"),
    "batch, bool": ({"batch": True}, "^batch: expected a whole number, got True"),
    "batch, zero": ({"batch": np.int64(0)}, "^batch: expected at least 1, got 0"),
    "vid_stride": ({"vid_stride": "2"}, "^vid_stride: expected a whole number, got '2'"),
    "classes, int": ({"classes": 0}, "^classes: expected a list of names or indices, got 0"),
    "classes, text": ({"classes": "bus"}, "^classes: expected a list .* got 'bus'"),
    "classes, float": ({"classes": [0.0]}, r"^classes: expected a list .* got \[0\.0\]"),
    "classes, bool": ({"classes": [True]}, r"^classes: expected a list .* got \[True\]"),
    "classes, matrix": ({"classes": np.zeros((1, 1), int)}, "^classes: expected a list"),
    "imgsz, float": ({"imgsz": 640.0}, r"^imgsz: expected a whole number or .* got 640\.0"),
    "imgsz, bool": ({"imgsz": True}, "^imgsz: expected a whole number or"),
    "imgsz, text": ({"imgsz": "640"}, "^imgsz: expected a whole number or"),
    "imgsz, three": ({"imgsz": (64, 64, 3)}, "^imgsz: expected a whole number or"),
    "imgsz, floats": ({"imgsz": (64.0, 64)}, "^imgsz: expected a whole number or"),
    "imgsz, large": ({"imgsz": 65536}, r"^imgsz: expected at most 8192 pixels a side, got 65536$"),
    "imgsz, huge": (
        {"imgsz": (64, 10**12)},
        r"^imgsz: expected at most 8192 pixels a side, got \(64, 1",
    ),
    "imgsz, number": ({"imgsz": np.int64(100)}, r"^imgsz: expected multiples of 32, got 100\. Try"),
    "color": ({"color": "bgrr"}, r'^color: expected "rgb" or "bgr", got \'bgrr\'\. Did you mean'),
    "color, None": ({"color": None}, '^color: expected "rgb" or "bgr", got None'),
    "recursive": ({"recursive": "yes"}, "^recursive: expected True or False, got 'yes'"),
}


@pytest.fixture(scope="module")
def detector() -> RTDETR:
    return tiny_detector()


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_usage_errors_before_any_work(
    detector: RTDETR, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    def work(*_: Any, **__: Any) -> None:
        pytest.fail("looked at a source before the options")

    monkeypatch.setattr("rtdetr.detector.find_sources", work)
    options, message = WRONG[case]
    for call in (detector, detector.stream):
        with pytest.raises(UsageError, match=message):
            call("no such file.jpg", **options)


@pytest.mark.parametrize("limit", ["2", 2.0, -1, True], ids=repr)
def test_limit_is_a_whole_number(detector: RTDETR, limit: Any) -> None:
    with pytest.raises(UsageError, match=r"^limit: expected"):
        detector.stream([], limit=limit)


@pytest.mark.parametrize("seed", ["0", 0.0, -1], ids=repr)
def test_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(UsageError, match=r"^seed: expected"):
        RTDETR.random(seed=seed)


def test_color_in_any_case(detector: RTDETR) -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[:, :, 0] = 200
    for color, first in (("rgb", 200), ("RGB", 200), ("bgr", 0), ("BGR", 0)):
        image = detector(red, color=color, threshold=0).image  # type: ignore[arg-type]
        assert image is not None
        assert image.getpixel((0, 0)) == (first, 0, 200 - first)


def test_conf_is_threshold(detector: RTDETR) -> None:
    image = Image.radial_gradient("L")
    wanted = detector(image, threshold=0.3)
    assert 0 < len(wanted) < len(detector(image, threshold=0))
    assert np.array_equal(detector(image, conf=0.3).xyxy, wanted.xyxy)
    (streamed,) = detector.stream([image], conf=0.3)
    assert np.array_equal(streamed.xyxy, wanted.xyxy)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("tresh", 'Did you mean "threshold"'),
        ("conf_thres", 'Did you mean "conf"'),
        ("batch_size", 'Did you mean "batch"'),
        ("iou", "needs no suppression"),
        ("size", 'Did you mean "imgsz"'),
        ("stream", r"detector\.stream"),
        ("half", "float16"),
    ],
)
def test_words_of_other_programs_are_answered(detector: RTDETR, word: str, answer: str) -> None:
    with pytest.raises(TypeError, match=rf"has no argument '{word}'\. .*{answer}"):
        detector("a.jpg", **{word: 1})  # type: ignore[call-overload]


def test_synonyms_are_typed_and_mean_an_option() -> None:
    fields = PredictOptions.__dataclass_fields__.keys()
    assert set(SYNONYMS.values()) <= fields
    assert PredictKeywords.__annotations__.keys() == fields
    assert PredictWords.__annotations__.keys() == fields | SYNONYMS.keys()


@pytest.mark.parametrize("name", sorted(rtdetr.__all__))
def test_type_hints_can_be_read_at_run_time(name: str) -> None:
    public = getattr(rtdetr, name)
    if not callable(public):
        return
    members = vars(public).values() if isinstance(public, type) else [public]
    for member in members:
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if callable(function) and function.__module__.startswith("rtdetr"):
            typing.get_type_hints(function)


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "source": ({"source": b"rtdetrv2_r18vd"}, "^source: expected a name or a path, got bytes"),
    "config": ({"config": {}}, "^config: expected an RTDetrV2Config"),
    "weights": ({"weights": 3}, "^weights: expected a path"),
    "processor": ({"processor": "640"}, "^processor: expected an RTDetrImageProcessor, got str"),
    "device": ({"device": True}, "^device: expected .* got True"),
    "device, float": ({"device": 1.0}, "^device: expected"),
    "device, meta": ({"device": "meta"}, "^device: meta computes nothing"),
    "dtype": ({"dtype": None}, "^dtype: expected"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_of_a_wrong_type_are_usage_errors(case: str) -> None:
    arguments, message = ARGUMENTS[case]
    with pytest.raises(UsageError, match=message):
        RTDETR(**arguments)
