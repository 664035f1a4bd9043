# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from photos import drawn, photo
from PIL import Image

from rtdetr.errors import DataError, ModelError, UsageError
from rtdetr.processing.batch_feature import BatchFeature
from rtdetr.processing.image_processor import RTDetrImageProcessor

SIZES = {
    "squash": {"height": 640, "width": 640},
    "rectangle": {"height": 320, "width": 512},
    "edges": {"shortest_edge": 300, "longest_edge": 500},
    "edges, short side decides": {"shortest_edge": 300, "longest_edge": 5000},
    "at most": {"max_height": 333, "max_width": 444},
}


@pytest.fixture(scope="module")
def theirs() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.RTDetrImageProcessorPil


def annotation(image_id: int = 7, **extra: Any) -> dict[str, Any]:
    boxes = [
        ([10.5, 20.25, 100.0, 50.0], 3, {}),
        ([-5.0, -8.0, 60.0, 70.0], 0, {"iscrowd": 0}),
        ([600.0, 400.0, 500.0, 500.0], 79, {}),
        ([50.0, 60.0, 0.0, 10.0], 4, {}),  # no area
        ([5000.0, 60.0, 5.0, 10.0], 4, {}),  # outside
        ([20.0, 30.0, 40.0, 50.0], 5, {"iscrowd": 1}),
    ]
    objects = [
        {"bbox": bbox, "category_id": label, "area": bbox[2] * bbox[3] * 0.7} | more | extra
        for bbox, label, more in boxes
    ]
    return {"image_id": image_id, "annotations": objects}


def assert_same(ours: Any, reference: Any) -> None:
    assert ours.keys() == reference.keys()
    for name, value in ours.items():
        if name == "labels":
            for one, other in zip(value, reference[name], strict=True):
                assert_same(one, other)
        else:
            assert value.dtype == reference[name].dtype, name
            torch.testing.assert_close(value, reference[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_pixels_are_those_of_transformers(theirs: Any, size: dict[str, int]) -> None:
    ours = RTDetrImageProcessor()(photo(), size=size, return_tensors="pt")
    assert_same(ours, theirs()(photo(), size=size, return_tensors="pt"))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("convert", [True, False], ids=["fractions", "pixels"])
@pytest.mark.parametrize("pad", [None, {"height": 700, "width": 900}, "batch"], ids=str)
def test_annotations_are_those_of_transformers(
    theirs: Any, size: dict[str, int], convert: bool, pad: Any
) -> None:
    images = [photo(), drawn(400, 300)] if pad else [photo()]
    options: dict[str, Any] = {"size": size, "do_convert_annotations": convert}
    if pad:
        options |= {"do_pad": True} | ({"pad_size": pad} if pad != "batch" else {})
    arguments = [annotation(index) for index in range(len(images))]
    ours = RTDetrImageProcessor()(images, arguments, return_tensors="pt", **options)
    assert_same(ours, theirs()(images, arguments, return_tensors="pt", **options))
    assert len(ours.labels[0].boxes) == 3


def test_normalize_and_resample_are_those_of_transformers(theirs: Any) -> None:
    options = {
        "do_normalize": True,
        "resample": Image.Resampling.BICUBIC,
        "rescale_factor": 1 / 127,
    }
    ours = RTDetrImageProcessor(**options)(photo(), return_tensors="pt")
    assert_same(ours, theirs(**options)(photo(), return_tensors="pt"))


def test_keypoints_are_those_of_transformers(theirs: Any) -> None:
    given = annotation(keypoints=[1.0, 2.0, 2.0, 3.0, 4.0, 1.0])
    ours = RTDetrImageProcessor()(photo(), given, return_tensors="pt")
    assert_same(ours, theirs()(photo(), given, return_tensors="pt"))


def test_image_without_objects(theirs: Any) -> None:
    given = {"image_id": 1, "annotations": []}
    ours = RTDetrImageProcessor()(photo(), given, return_tensors="pt")
    assert_same(ours, theirs()(photo(), given, return_tensors="pt"))
    assert ours.labels[0].boxes.shape == (0, 4)
    assert ours.labels[0].class_labels.dtype == torch.int64


def test_defaults() -> None:
    batch = RTDetrImageProcessor()(photo(), return_tensors="pt")
    assert list(batch) == ["pixel_values"]
    assert batch.pixel_values.shape == (1, 3, 640, 640)
    assert batch.pixel_values.dtype == torch.float32
    assert 0 <= batch.pixel_values.min() < batch.pixel_values.max() <= 1


def forms() -> dict[str, Any]:
    pixels = np.asarray(photo())
    first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    scaled = first.astype(np.float32) / 255
    alpha = photo().copy()
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    return {
        "array, channels last": pixels,
        "array, channels first": first,
        "array, floats": scaled.transpose(1, 2, 0),
        "array, doubles": first / 255.0,
        "array, whole floats": pixels.astype(np.float32),
        "tensor": torch.from_numpy(first),
        "tensor, floats": torch.from_numpy(scaled),
        "batch of one": first[None],
        "RGBA": alpha,
        "RGBA array": np.asarray(alpha),
        "list": [photo()],
    }


@pytest.mark.parametrize("form", forms())
def test_forms_of_one_image_agree(form: str) -> None:
    processor = RTDetrImageProcessor(size=96)
    wanted = processor(photo(), return_tensors="pt").pixel_values
    got = processor(forms()[form], return_tensors="pt").pixel_values
    assert torch.equal(got, wanted)


def test_gray_becomes_rgb() -> None:
    gray = photo().convert("L")
    processor = RTDetrImageProcessor(size=96)
    wanted = processor(gray.convert("RGB"), return_tensors="pt").pixel_values
    for form in (
        gray,
        np.asarray(gray),
        np.asarray(gray)[None],
        torch.from_numpy(np.asarray(gray).copy()),
    ):
        assert torch.equal(processor(form, return_tensors="pt").pixel_values, wanted)


def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path: Path) -> None:
    wide = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    got = RTDetrImageProcessor(do_resize=False)(tmp_path / "wide.png", return_tensors="np")
    assert np.array_equal(np.rint(got.pixel_values[0, 1] * 255), wide >> 8)


def test_floats_stay_exact_when_nothing_is_resized() -> None:
    values = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    got = RTDetrImageProcessor(do_resize=False)(values, return_tensors="pt").pixel_values[0]
    assert torch.equal(got, values)


def test_floats_are_scaled_once_or_never() -> None:
    values = np.asarray(photo()).astype(np.float32) / 255
    processor = RTDetrImageProcessor(size=64, do_rescale=False)
    assert processor(values, return_tensors="pt").pixel_values.max() <= 1
    assert processor(photo(), return_tensors="pt").pixel_values.max() > 1


def test_ambiguous_layout_can_be_said() -> None:
    pixels = np.zeros((3, 5, 3), dtype=np.uint8)
    pixels[0] = 255
    processor = RTDetrImageProcessor(do_resize=False)
    last = processor(pixels, input_data_format="channels_last", return_tensors="np")
    assert last.pixel_values.shape == (1, 3, 3, 5)
    assert processor(pixels, return_tensors="np").pixel_values.shape == (1, 3, 5, 3)


def test_exif_of_a_path_is_honored_and_a_pil_image_is_unchanged(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    path = tmp_path / "turned.png"
    photo().save(path, exif=exif)
    processor = RTDetrImageProcessor(do_resize=False)
    width, height = photo().size
    assert processor(path, return_tensors="pt").pixel_values.shape[2:] == (width, height)
    with Image.open(path) as opened:
        assert processor(opened, return_tensors="pt").pixel_values.shape[2:] == (height, width)


def test_lists_without_tensors_may_differ_in_size() -> None:
    batch = RTDetrImageProcessor(do_resize=False)(
        [drawn(20, 30), drawn(40, 10)], [annotation()] * 2
    )
    assert [pixels.shape for pixels in batch.pixel_values] == [(3, 20, 30), (3, 40, 10)]
    assert isinstance(batch.labels[1].boxes, np.ndarray)


def test_missing_area_is_the_box() -> None:
    given = {"image_id": 1, "annotations": [{"bbox": [1, 2, 30, 40], "category_id": 0}]}
    label = RTDetrImageProcessor(do_resize=False)(photo(), given, return_tensors="pt").labels[0]
    assert label.area.tolist() == [1200.0]


def test_annotations_given_are_not_changed() -> None:
    given = annotation()
    RTDetrImageProcessor()(photo(), given, return_tensors="pt")
    assert given == annotation()


ERRORS: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "unknown option": (
        None,
        {"do_resise": True},
        TypeError,
        r"do_resise.*Did you mean \"do_resize\"",
    ),
    "size": (None, {"size": {"height": 3}}, UsageError, r"size: expected.*height"),
    "size of zero": (None, {"size": 0}, UsageError, r"size: expected height .* at least 1, got 0"),
    "pad_size": (
        None,
        {"pad_size": {"max_height": 9, "max_width": 9}},
        UsageError,
        "pad_size: exp",
    ),
    "small pad_size": (
        None,
        {"do_pad": True, "pad_size": 9},
        UsageError,
        "pad_size: .* is smaller",
    ),
    "resample": (None, {"resample": 99}, UsageError, "resample"),
    "mean": (None, {"image_mean": [1, 2]}, UsageError, "image_mean: expected three"),
    "format": (None, {"format": "coco_panoptic"}, UsageError, "format.*coco_panoptic"),
    "tensors": (None, {"return_tensors": "tf"}, UsageError, 'return_tensors.*"pt"'),
    "masks": (None, {"return_segmentation_masks": True}, UsageError, "return_segmentation_masks"),
    "channels": (
        np.zeros((5, 5, 2), np.uint8),
        {},
        DataError,
        r"images: expected an image .*\[5, 5, 2\]",
    ),
    "dtype": (np.zeros((5, 5, 3), complex), {}, DataError, "images: expected dtype uint8.*complex"),
    "range": (
        np.full((5, 5, 3), -0.5),
        {},
        DataError,
        r"images: expected floats within 0..1.*-0\.5",
    ),
    "nothing": ([], {}, DataError, "images: expected at least one"),
    "kind": (3.5, {}, DataError, "expected a path, URL.*float"),
    "sizes": (
        [drawn(9, 9), drawn(8, 9)],
        {"do_resize": False, "return_tensors": "pt"},
        DataError,
        "do_pad",
    ),
    "annotation count": (None, {"annotations": []}, DataError, "annotations: .* got 0 for 1"),
    "annotation": (None, {"annotations": {"boxes": 1}}, DataError, "annotations: .*image_id"),
    "bbox": (
        None,
        {"annotations": {"image_id": 1, "annotations": [{"bbox": [1, 2], "category_id": 1}]}},
        DataError,
        r"annotations: object 0.*\[1, 2\]",
    ),
    "category": (
        None,
        {"annotations": {"image_id": 4, "annotations": [{"bbox": [1, 2, 3, 4]}]}},
        DataError,
        "annotations: object 0 of image 4 has no 'category_id'",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_argument(case: str) -> None:
    images, options, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        RTDetrImageProcessor()(drawn(20, 20) if images is None else images, **options)


WRONG_OBJECTS: dict[str, tuple[dict[str, Any], str]] = {
    "bbox of five": ({"bbox": [1, 2, 3, 4, None]}, "object 0: expected bbox"),
    "bbox of words": ({"bbox": "1234"}, "object 0: expected bbox"),
    "bbox of one": ({"bbox": 3}, "object 0: expected bbox"),
    "bbox of NaN": ({"bbox": [1, 2, 3, float("nan")]}, "object 0: expected bbox"),
    "category_id": ({"category_id": 1.5}, r"category_id: expected a whole number, got 1\.5"),
    "category_id, text": ({"category_id": "1"}, "category_id: expected a whole number, got '1'"),
    "category_id, bool": ({"category_id": True}, "category_id: expected a whole number, got True"),
    "area": ({"area": "big"}, "area: expected a number, got 'big'"),
}


@pytest.mark.parametrize("case", WRONG_OBJECTS)
def test_wrong_objects_name_the_key(case: str) -> None:
    change, message = WRONG_OBJECTS[case]
    entry = {"bbox": [1, 2, 3, 4], "category_id": 1} | change
    with pytest.raises(DataError, match=f"annotations: {message}"):
        RTDetrImageProcessor()(photo(), {"image_id": 1, "annotations": [entry]})


@pytest.mark.parametrize("annotations", [3, "a", {1}, object()], ids=lambda a: type(a).__name__)
def test_annotations_are_a_list(annotations: Any) -> None:
    with pytest.raises(DataError, match="annotations: expected"):
        RTDetrImageProcessor()(photo(), annotations)


@pytest.mark.parametrize("entries", [None, {}, [3], "ab"], ids=repr)
def test_wrong_lists_of_objects(entries: Any) -> None:
    with pytest.raises(DataError, match="annotations: expected a list of objects"):
        RTDetrImageProcessor()(photo(), {"image_id": 1, "annotations": entries})


@pytest.mark.parametrize("make", [int, float, np.int64, torch.tensor], ids=lambda m: m.__name__)
def test_any_whole_number_is_an_id(make: Any) -> None:
    entry = {"bbox": [make(1), 2, 30, 40], "category_id": make(7), "area": None}
    (label,) = RTDetrImageProcessor()(photo(), {"image_id": make(5), "annotations": [entry]}).labels
    assert (label.image_id.tolist(), label.class_labels.tolist()) == ([5], [7])
    assert np.isfinite(label.area).all()


def outputs(seed: int = 0, batch: int = 2) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 30, 7, generator=generator) * 2
    return SimpleNamespace(logits=logits, pred_boxes=torch.rand(batch, 30, 4, generator=generator))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(
    "sizes", [None, [(480, 640), (100, 50)], "tensor"], ids=["none", "list", "tensor"]
)
def test_post_processing_is_that_of_transformers(theirs: Any, threshold: float, sizes: Any) -> None:
    if sizes == "tensor":
        sizes = torch.tensor([[480, 640], [100, 50]])
    arguments = (outputs(), threshold, sizes)
    reference = theirs().post_process_object_detection(*arguments)
    for got, wanted in zip(
        RTDetrImageProcessor().post_process_object_detection(*arguments), reference, strict=True
    ):
        assert got.keys() == wanted.keys()
        for name, value in got.items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-5)


def test_softmax_drops_the_last_class() -> None:
    # Not compared with transformers, whose softmax runs over the batch.
    chance = torch.tensor([[[0.2, 0.7, 0.1], [0.05, 0.05, 0.9], [0.85, 0.1, 0.05]]])
    made = SimpleNamespace(logits=chance.log(), pred_boxes=torch.eye(3, 4)[None])
    found = RTDetrImageProcessor().post_process_object_detection(made, 0.5, use_focal_loss=False)[0]
    torch.testing.assert_close(found["scores"], torch.tensor([0.85, 0.7]))
    assert found["labels"].tolist() == [0, 1]
    assert found["boxes"][:, 2].tolist() == [0.5, 1.0]


def test_one_query_can_name_two_classes_and_the_threshold_is_strict() -> None:
    logits = torch.full((1, 2, 3), -9.0)
    logits[0, 1, 0], logits[0, 1, 2] = 2.0, 0.0
    boxes = torch.tensor([[[0.5, 0.5, 1, 1], [0.5, 0.25, 0.5, 0.25]]])
    made = SimpleNamespace(logits=logits, pred_boxes=boxes)
    found = RTDetrImageProcessor().post_process_object_detection(made, 0.4, [(40, 80)])[0]
    assert found["labels"].tolist() == [0, 2]
    assert found["boxes"].tolist() == [[20, 5, 60, 15]] * 2
    strict = RTDetrImageProcessor().post_process_object_detection(made, 0.5, [(40, 80)])[0]
    assert strict["labels"].tolist() == [0]


def test_post_processing_checks_the_batch() -> None:
    with pytest.raises(UsageError, match=r"target_sizes: .*2 images"):
        RTDetrImageProcessor().post_process_object_detection(outputs(), target_sizes=[(1, 2)])


@pytest.mark.parametrize("threshold", [None, "0.5", True, [0.5]], ids=repr)
def test_post_processing_checks_the_threshold(threshold: Any) -> None:
    with pytest.raises(UsageError, match="threshold: expected a number, got"):
        RTDetrImageProcessor().post_process_object_detection(outputs(), threshold)


def test_round_trip_through_a_directory(tmp_path: Path) -> None:
    made = RTDetrImageProcessor(size=(320, 512), do_normalize=True, image_mean=[0.1, 0.2, 0.3])
    made.save_pretrained(tmp_path / "new")
    assert RTDetrImageProcessor.from_pretrained(tmp_path / "new") == made
    assert RTDetrImageProcessor.from_pretrained(tmp_path / "new", size=64).size == {
        "height": 64,
        "width": 64,
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["preprocessor_config.json"]


def test_transformers_reads_our_file_and_we_theirs(theirs: Any, tmp_path: Path) -> None:
    options = {"size": {"height": 320, "width": 512}, "do_pad": True}
    theirs(**options).save_pretrained(tmp_path / "theirs")
    ours = RTDetrImageProcessor.from_pretrained(tmp_path / "theirs")
    assert ours == RTDetrImageProcessor(**options)
    ours.save_pretrained(tmp_path / "ours")
    back = theirs.from_pretrained(tmp_path / "ours")
    assert back.to_dict() == theirs(**options).to_dict()


def test_file_with_a_step_we_lack(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_center_crop": True}))
    with pytest.raises(ModelError, match="do_center_crop"):
        RTDetrImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: not JSON"):
        RTDetrImageProcessor.from_pretrained(tmp_path)


def test_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json there"):
        RTDetrImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no such file or folder"):
        RTDetrImageProcessor.from_pretrained(tmp_path / "nothing" / "here" / "at all")


def test_batch_feature_moves_tensors_and_keeps_integers() -> None:
    batch = RTDetrImageProcessor(size=32)(photo(), annotation(), return_tensors="pt")
    assert isinstance(batch, dict)
    moved = batch.to("cpu", torch.float16)
    assert moved is batch
    assert batch["pixel_values"].dtype == batch.labels[0].boxes.dtype == torch.float16
    assert batch.labels[0].class_labels.dtype == torch.int64
    assert batch.to(torch.float64).pixel_values.dtype == torch.float64
    with pytest.raises(AttributeError, match="pixel_values"):
        _ = BatchFeature(pixel_values=1).pixels
