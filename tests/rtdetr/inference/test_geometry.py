# SPDX-License-Identifier: Apache-2.0
"""Whatever preprocessing does to an image is undone in the boxes: a known object is where it is, for every setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tiny_detector import tiny_config

from rtdetr.detector import RTDETR
from rtdetr.errors import ModelError
from rtdetr.inference.predictor import RawOutputs
from rtdetr.processing.image_processor import RTDetrImageProcessor
from rtdetr.results.detections import Detections

LANDSCAPE, PORTRAIT, SQUARE = (1280, 720), (720, 1280), (640, 640)
AT_MOST = {"size": {"max_height": 640, "max_width": 640}}
EDGES = {"size": {"shortest_edge": 360, "longest_edge": 640}}
PAD = {"do_pad": True, "pad_size": {"height": 640, "width": 640}}


def scene(size: tuple[int, int]) -> Image.Image:
    """One white object on black."""
    width, height = size
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), (width // 2, height // 2, width * 3 // 4, height * 3 // 4))
    return image


def corners(white: npt.NDArray[np.bool_]) -> list[int]:
    """Left, top, right and bottom of what is white, [H,W]."""
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


class Finder:
    """A network that finds the white object of each image, and remembers the size of its input."""

    size: tuple[int, ...]

    def __call__(self, pixels: torch.Tensor) -> RawOutputs:
        self.size = tuple(pixels.shape[2:])
        height, width = self.size
        boxes = []
        for image in pixels.numpy():
            left, top, right, bottom = corners(image.mean(axis=0) > 0.5)
            center = [(left + right) / 2 / width, (top + bottom) / 2 / height]
            boxes.append([[*center, (right - left) / width, (bottom - top) / height]])
        return RawOutputs(torch.full((len(pixels), 1, 3), 5.0), torch.tensor(boxes))


@dataclass(frozen=True)
class Case:
    settings: dict[str, Any]
    input_size: tuple[int, int]
    images: list[tuple[int, int]] = field(default_factory=lambda: [LANDSCAPE])
    imgsz: Any = None


CASES = {
    "squash": Case({}, (640, 640)),
    "squash, no multiple of 32": Case({"size": 600}, (608, 608)),
    "squash, normalize": Case({"do_normalize": True}, (640, 640)),
    "squash, pad": Case({"do_pad": True}, (640, 640)),
    "squash, pad to more": Case({"do_pad": True, "pad_size": 960}, (960, 960)),
    "pad to no multiple of 32": Case({"do_pad": True, "pad_size": (650, 700)}, (672, 704)),
    "at most": Case(AT_MOST, (384, 640)),
    "at most, portrait": Case(AT_MOST, (640, 384), [PORTRAIT]),
    "at most, pad": Case(AT_MOST | {"do_pad": True}, (384, 640)),
    "at most, pad to a size": Case(AT_MOST | PAD, (640, 640)),
    "at most, pad to a size, portrait": Case(AT_MOST | PAD, (640, 640), [PORTRAIT]),
    "edges": Case(EDGES, (384, 640)),
    "edges, pad to a size": Case(EDGES | PAD, (640, 640)),
    "no resize": Case({"do_resize": False}, (736, 1280)),
    "no resize, pad to a size": Case(
        {"do_resize": False, "do_pad": True, "pad_size": (800, 1300)}, (800, 1312)
    ),
    "imgsz": Case({}, (352, 640), imgsz=(352, 640)),
    "imgsz, pad": Case({"do_pad": True, "pad_size": 960}, (320, 320), imgsz=320),
    "imgsz, at most": Case(AT_MOST, (320, 320), imgsz=320),
    "imgsz, at most, pad to less": Case(AT_MOST | PAD, (1280, 1280), imgsz=1280),
    "imgsz, at most, pad to more": Case(AT_MOST | PAD, (320, 320), imgsz=320),
    "imgsz, edges": Case(EDGES, (640, 320), imgsz=(640, 320)),
    "imgsz, no resize": Case({"do_resize": False}, (640, 640), imgsz=640),
    "batch, squash": Case({}, (640, 640), [LANDSCAPE, PORTRAIT, SQUARE]),
    "batch, at most": Case(AT_MOST, (640, 640), [LANDSCAPE, PORTRAIT, SQUARE]),
    "batch, at most, pad": Case(AT_MOST | {"do_pad": True}, (640, 640), [LANDSCAPE, PORTRAIT]),
    "batch, edges": Case(EDGES, (640, 640), [LANDSCAPE, SQUARE, PORTRAIT]),
    "batch, no resize": Case({"do_resize": False}, (1280, 1280), [LANDSCAPE, PORTRAIT, SQUARE]),
    "batch, no resize, imgsz": Case(
        {"do_resize": False}, (1280, 1280), [LANDSCAPE, PORTRAIT], imgsz=1280
    ),
}


def detector(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> tuple[RTDETR, Finder]:
    # The nearest pixel keeps the object's edges sharp, so that boxes can be compared exactly.
    processor = RTDetrImageProcessor(resample=Image.Resampling.NEAREST, **settings)
    made = RTDETR("tiny", config=tiny_config(), weights=None, device="cpu", processor=processor)
    finder = Finder()
    monkeypatch.setattr(made, "forward", finder)
    return made, finder


def assert_on_object(detections: Detections) -> None:
    assert detections.image is not None
    expected = corners(np.asarray(detections.image)[:, :, 0] > 127)
    np.testing.assert_allclose(detections[0].box, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_boxes_are_on_the_object(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    made, finder = detector(monkeypatch, case.settings)
    images = [scene(size) for size in case.images]
    results = made(images, imgsz=case.imgsz, batch=len(images))
    assert finder.size == case.input_size
    assert made.prepare(images, case.imgsz).shape[2:] == case.input_size
    for result in results:
        assert_on_object(result)


@pytest.mark.parametrize("settings", [{}, AT_MOST | PAD, EDGES], ids=["squash", "pad", "edges"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_on_the_object_of_a_turned_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, Any], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene(LANDSCAPE).save(tmp_path / "turned.png", exif=exif)
    made, _ = detector(monkeypatch, settings)
    result = made(tmp_path / "turned.png")
    assert result.image_size == ((720, 1280) if orientation < 5 else (1280, 720))
    assert_on_object(result)


def test_boxes_of_the_processor_itself_are_those_of_transformers() -> None:
    """Sizes are multiplied by what the caller passes: whoever pads undoes it, as with transformers."""
    outputs = RawOutputs(torch.full((1, 1, 3), 5.0), torch.tensor([[[0.5, 0.5, 0.5, 0.5]]]))
    processor = RTDetrImageProcessor(**AT_MOST, **PAD)
    (result,) = processor.post_process_object_detection(outputs, 0.5, [(720, 1280)])
    assert result["boxes"].tolist() == [[320, 180, 960, 540]]


SIZES: dict[str, tuple[dict[str, Any], tuple[int, int] | None, str]] = {
    "square": ({}, (640, 640), "640x640"),
    "rectangle": ({"size": (320, 512)}, (320, 512), "512x320"),
    "no multiple of 32": ({"size": 600}, (608, 608), "608x608"),
    "pad to a size": (AT_MOST | PAD, (640, 640), "640x640"),
    "pad to the largest": (AT_MOST | {"do_pad": True}, None, "at most 640x640"),
    "at most": ({"size": {"max_height": 480, "max_width": 800}}, None, "at most 800x480"),
    "edges": (EDGES, None, "shortest edge 360, longest at most 640"),
    "no resize": ({"do_resize": False}, None, "size of the image"),
}


@pytest.mark.parametrize("case", SIZES)
def test_imgsz_and_description_say_the_size_of_the_input(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    settings, imgsz, text = SIZES[case]
    made, finder = detector(monkeypatch, settings)
    assert made.imgsz == imgsz
    assert f"  {text}  " in made.description
    if imgsz is not None:
        made(scene(LANDSCAPE))
        assert finder.size == imgsz


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("name", ["logits", "pred_boxes"])
def test_numbers_that_are_not_finite_are_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    def broken(pixels: torch.Tensor) -> RawOutputs:
        outputs = Finder()(pixels)
        getattr(outputs, name)[0, 0, 1] = value
        return outputs

    made, _ = detector(monkeypatch, {})
    monkeypatch.setattr(made, "forward", broken)
    for call in (made, lambda image: next(made.stream([image]))):
        with pytest.raises(ModelError, match="model's outputs are not finite"):
            call(scene(SQUARE))


def test_raw_outputs_can_be_compared() -> None:
    first, second = (RawOutputs(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)) for _ in range(2))
    assert first == first
    assert first != second


@pytest.mark.parametrize("settings", [AT_MOST, AT_MOST | PAD, EDGES, {"do_resize": False}], ids=str)
def test_imgsz_does_not_squash_what_the_processor_does_not(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    made, _ = detector(monkeypatch, settings)
    white = Image.new("RGB", LANDSCAPE, (255, 255, 255))
    (pixels,) = made.prepare([white], 320)
    assert pixels.shape == (3, 320, 320)
    assert (pixels[:, :180] == 1).all()
    assert (pixels[:, 180:] == 0).all()
