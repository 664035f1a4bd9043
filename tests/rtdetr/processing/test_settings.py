# SPDX-License-Identifier: Apache-2.0
"""What an image processor is told: by its constructor, a call, a file, and programs written for transformers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photos import drawn, photo
from PIL import Image

from rtdetr.errors import DataError, ModelError, UsageError
from rtdetr.hub import PREPROCESSOR
from rtdetr.processing.image_processor import RTDetrImageProcessor

NAN = float("nan")


@pytest.mark.parametrize("make", [np.int64, np.array, torch.tensor])
def test_any_integer_is_a_size(make: Any) -> None:
    for size in (make(64), (make(64), 64), {"height": make(64), "width": 64}, np.array([64, 64])):
        processor = RTDetrImageProcessor(size=size, pad_size=size, resample=make(2))
        assert processor == RTDetrImageProcessor(size=64, pad_size=64)
        json.dumps(processor.to_dict())


WRONG: dict[str, tuple[Any, str]] = {
    "do_resize": ("yes", "expected true or false, got 'yes'"),
    "do_rescale": (1, "expected true or false, got 1"),
    "do_normalize": ([], r"expected true or false, got \[\]"),
    "do_pad": ("false", "expected true or false, got 'false'"),
    "do_convert_annotations": (0.0, r"expected true or false, got 0\.0"),
    "size": (3.5, r"expected a whole number, \(height, width\), .* got 3\.5"),
    "size ": ({"height": NAN, "width": 640}, "expected height to be a whole number .* got nan"),
    "size  ": ({"height": 2**70, "width": 640}, "expected height to be at most 65536"),
    "size   ": ("ab", "expected height to be a whole number"),
    "size    ": (True, "expected a whole number, .* got True"),
    "pad_size": ({"height": NAN, "width": 1}, "expected height to be a whole number"),
    "pad_size ": ([], "expected a whole number"),
    "resample": ("bilinear", r"expected a filter of PIL\.Image\.Resampling, got 'bilinear'"),
    "resample ": (True, r"expected a filter of PIL\.Image\.Resampling, got True"),
    "rescale_factor": ("x", "expected a number, got 'x'"),
    "rescale_factor ": (NAN, "expected a number, got nan"),
    "image_mean": ("abc", "expected three numbers, .* got 'abc'"),
    "image_mean ": ([0.5, None, 0.5], "expected three numbers"),
    "image_mean  ": ([0.5] * 5, "expected three numbers"),
    "image_std": ([1, 0, 1], r"expected no zero, .* got \[1, 0, 1\]"),
    "image_std ": ([1] * 4, "expected 3 numbers, as image_mean has"),
    "format": (3, 'only "coco_detection" is supported, got 3'),
    "return_tensors": ("tf", 'expected "pt", "np" or None, got \'tf\''),
    "return_tensors ": (["pt"], 'expected "pt", "np" or None'),
    "do_center_crop ": ([0, 0], "expected None or False for RT-DETR"),
    "do_center_crop": (True, "expected None or False for RT-DETR, got True"),
    "data_format": ("channels_last", "expected None or 'channels_first' for RT-DETR"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_names_the_field(tmp_path: Path, case: str) -> None:
    name, (value, message) = case.strip(), WRONG[case]
    with pytest.raises(UsageError, match=f"^{name}: {message}"):
        RTDetrImageProcessor()(drawn(32, 32), **{name: value})
    path = tmp_path / PREPROCESSOR
    path.write_text(json.dumps({name: value}))
    with pytest.raises(ModelError, match=f"^{path}: {name}: "):
        RTDetrImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"^{PREPROCESSOR}: {name}: "):
        RTDetrImageProcessor.from_dict({name: value})
    path.write_text("{}")
    with pytest.raises(UsageError, match=f"^{name}: {message}"):
        RTDetrImageProcessor.from_pretrained(tmp_path, **{name: value})


@pytest.mark.parametrize("text", ["null", "[]", '"a"', "3", "{", "[" * 100_000, "\x00"])
def test_a_file_that_holds_no_fields(tmp_path: Path, text: str) -> None:
    (tmp_path / PREPROCESSOR).write_text(text)
    with pytest.raises(
        ModelError, match=rf"^{tmp_path / PREPROCESSOR}: (not JSON|expected a JSON object)"
    ):
        RTDetrImageProcessor.from_pretrained(tmp_path)


def test_null_is_the_default(tmp_path: Path) -> None:
    names = RTDetrImageProcessor().to_dict().keys() | {"pad_size", "return_tensors"}
    (tmp_path / PREPROCESSOR).write_text(json.dumps(dict.fromkeys(names)))
    assert RTDetrImageProcessor.from_pretrained(tmp_path) == RTDetrImageProcessor()
    assert RTDetrImageProcessor(size=None, image_mean=None) == RTDetrImageProcessor()  # type: ignore[arg-type]
    processor = RTDetrImageProcessor(size=64, pad_size=96)
    assert processor.replaced(size=None) == processor
    assert processor.replaced(pad_size=None).pad_size is None


def test_a_change_says_how() -> None:
    processor = RTDetrImageProcessor()
    for name, value in (("size", 64), ("do_resize", False)):
        with pytest.raises(
            AttributeError, match=rf"processor = processor\.replaced\({name}=\.\.\.\)"
        ):
            setattr(processor, name, value)
    with pytest.raises(AttributeError, match="replaced"):
        del processor.size
    assert processor == RTDetrImageProcessor()
    assert processor.replaced(size=64).size == {"height": 64, "width": 64}


@pytest.fixture(scope="module")
def theirs() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.RTDetrImageProcessorPil


ACCEPTED: dict[str, list[Any]] = {
    "crop_size": [None, {"height": 9, "width": 9}],
    "data_format": [None, "channels_first"],
    "default_to_square": [None, True],
    "device": [None, "cpu", torch.device("cpu")],
    "disable_grouping": [None, True, False],
    "do_center_crop": [None, False],
    "do_convert_rgb": [None, True, False],
    "do_resize": [True, False],
    "image_mean": [None, 0.5, [0.5, 0.5, 0.5]],
    "input_data_format": [None],
    "size": [{"height": 64, "width": 96}],
    "return_tensors": ["pt"],
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_keywords_of_transformers_programs(theirs: Any, name: str) -> None:
    for value in ACCEPTED[name]:
        options = {"return_tensors": "pt", name: value}
        expected = theirs()(photo(), **options)
        got = RTDetrImageProcessor()(photo(), **options)
        assert torch.equal(got.pixel_values, expected.pixel_values), value


def test_every_keyword_that_transformers_documents_is_answered(theirs: Any) -> None:
    """Taken as a field, a parameter or a constant; no plain refusal of a word that their class documents."""
    documented = theirs.valid_kwargs.__annotations__
    assert {"do_convert_annotations", "do_convert_rgb"} <= documented.keys()
    for name in documented:
        RTDetrImageProcessor()(drawn(32, 32), **{name: None})


def test_the_constructor_takes_them_too() -> None:
    expected = RTDetrImageProcessor(size=64)
    assert RTDetrImageProcessor(size=64, do_convert_rgb=True, do_center_crop=False) == expected  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="do_center_crop: expected None or False"):
        RTDetrImageProcessor(do_center_crop=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'do_resise'\. Did you mean \"do_resize\""):
        RTDetrImageProcessor(do_resise=True)  # type: ignore[call-arg]
    assert "size" in inspect.signature(RTDetrImageProcessor).parameters


def test_enums_of_transformers(theirs: Any) -> None:
    from transformers.image_utils import ChannelDimension
    from transformers.utils import TensorType

    batch = RTDetrImageProcessor()(
        np.asarray(photo()),
        return_tensors=TensorType.PYTORCH,
        data_format=ChannelDimension.FIRST,
        input_data_format=ChannelDimension.LAST,
    )
    assert batch.pixel_values.shape == (1, 3, 640, 640)


def test_return_tensors_of_the_constructor(tmp_path: Path) -> None:
    processor = RTDetrImageProcessor(size=32, return_tensors="pt")
    assert isinstance(processor(photo()).pixel_values, torch.Tensor)
    assert isinstance(processor(photo(), return_tensors="np").pixel_values, np.ndarray)
    assert isinstance(processor(photo(), return_tensors=None).pixel_values, torch.Tensor)
    assert isinstance(RTDetrImageProcessor(size=32)(photo()).pixel_values, list)
    processor.save_pretrained(tmp_path)
    assert RTDetrImageProcessor.from_pretrained(tmp_path, use_fast=True) == processor


def test_device_needs_tensors() -> None:
    processor = RTDetrImageProcessor(size=32)
    assert processor(photo(), return_tensors="pt", device="cpu").pixel_values.device.type == "cpu"
    with pytest.raises(UsageError, match=r'device: expected return_tensors="pt" with it, got None'):
        processor(photo(), device="cpu")
    with pytest.raises(UsageError, match='device: expected "auto"'):
        processor(photo(), device="gpu", return_tensors="pt")


@pytest.mark.parametrize("resize", [True, False], ids=["resized", "as it is"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32], ids=["uint8", "floats"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_four_channels(resize: bool, kind: Any, layout: str) -> None:
    """The fourth is a channel like the others: it is neither dropped nor does it weigh them, as transparency would."""
    options = {"do_resize": resize, "size": 48, "do_normalize": True, "return_tensors": "pt"}
    pixels = np.concatenate([np.asarray(drawn(64, 96, seed)) for seed in (0, 1)], axis=2)[..., :4]
    values = pixels / 255 if kind is np.float32 else pixels
    four = values.transpose(2, 0, 1) if layout == "channels_first" else values
    mean, std = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]
    processor = RTDetrImageProcessor(image_mean=mean, image_std=std, **options)
    got = processor(four, input_data_format=layout).pixel_values
    assert got.shape == ((1, 4, 48, 48) if resize else (1, 4, 64, 96))
    for channel in range(4):
        gray = Image.fromarray(pixels[:, :, channel])
        one = RTDetrImageProcessor(image_mean=mean[channel], image_std=std[channel], **options)
        assert torch.allclose(got[0, channel], one(gray).pixel_values[0, 0], rtol=0, atol=1e-6)


def test_four_channels_come_from_four() -> None:
    processor = RTDetrImageProcessor(image_mean=[0.5] * 4, image_std=[0.5] * 4, size=32)
    assert processor(photo().convert("RGBA")).pixel_values[0].shape == (4, 32, 32)
    for image in (photo(), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(DataError, match="images: expected four channels"):
            processor(image)
    with pytest.raises(DataError, match=r"images: four channels .* come from an array"):
        processor("a.png")


def test_to_json(theirs: Any, tmp_path: Path) -> None:
    processor = RTDetrImageProcessor(size=64, do_normalize=True)
    assert json.loads(processor.to_json_string()) == processor.to_dict()
    processor.to_json_file(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == processor.to_json_string()
    assert RTDetrImageProcessor.from_json_file(str(tmp_path / "a.json")) == processor
    assert processor.save_pretrained(tmp_path / "new") == [str(tmp_path / "new" / PREPROCESSOR)]
    written = theirs(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "theirs")
    assert processor.save_pretrained(tmp_path / "theirs") == written


@pytest.mark.parametrize("factor", [1 / 255, 1 / 127.5, 1.0])
@pytest.mark.parametrize("side", [96, 64], ids=["as it is", "resized"])
def test_floats_are_scaled_as_pixels_are(factor: float, side: int) -> None:
    image = drawn(96, 96)
    processor = RTDetrImageProcessor(size=side, rescale_factor=factor, return_tensors="pt")
    floats = np.asarray(image) / 255
    expected = processor(image).pixel_values
    torch.testing.assert_close(processor(floats).pixel_values, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "int64"])
def test_integers_are_those_of_transformers(theirs: Any, dtype: str) -> None:
    pixels = np.asarray(photo()).astype(dtype)
    expected = RTDetrImageProcessor()(photo(), return_tensors="pt").pixel_values
    assert torch.equal(RTDetrImageProcessor()(pixels, return_tensors="pt").pixel_values, expected)
    reference = theirs()(pixels, return_tensors="pt").pixel_values
    assert torch.equal(reference, expected)


def test_normalized_floats_are_taken_as_they_are(theirs: Any) -> None:
    values = np.random.default_rng(0).normal(size=(3, 40, 50)).astype(np.float32)
    options = {"do_resize": False, "do_rescale": False, "return_tensors": "pt"}
    got = RTDetrImageProcessor(**options)(values).pixel_values
    assert np.array_equal(got[0].numpy(), values)
    assert torch.equal(got, theirs()(values, **options).pixel_values)
    with pytest.raises(DataError, match=r"images: expected floats within 0\.\.1"):
        RTDetrImageProcessor(do_resize=False)(values)
    with pytest.raises(DataError, match=r"images: expected floats within 0\.\.1"):
        RTDetrImageProcessor(do_rescale=False)(values)
    values[0, 0, 0] = NAN
    with pytest.raises(DataError, match=r"images: expected floats .*nan"):
        RTDetrImageProcessor(**options)(values)


def test_loading_and_saving_take_the_words_of_transformers(tmp_path: Path) -> None:
    (path,) = RTDetrImageProcessor(size=96).save_pretrained(save_directory=tmp_path)
    loaded = RTDetrImageProcessor.from_pretrained(
        pretrained_model_name_or_path=tmp_path, use_fast=True, trust_remote_code=False
    )
    assert Path(path).parent == tmp_path
    assert loaded.size == {"height": 96, "width": 96}
    with pytest.raises(TypeError, match="does not take 'proxies': set the environment variable"):
        RTDetrImageProcessor.from_pretrained(tmp_path, proxies={"https": "x"})
