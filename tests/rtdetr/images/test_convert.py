# SPDX-License-Identifier: Apache-2.0
"""Pixels keep their value in every type that can hold them; what no pixel can be is an error, never a wrap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr.errors import DataError, UsageError
from rtdetr.images.convert import array_to_rgb, image_to_rgb, tensor_to_rgb
from rtdetr.images.io import load_image

VALUES = np.array([[0, 1, 100, 255]])


def red(image: Image.Image) -> list[int]:
    return np.asarray(image)[0, :, 0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 100, 255], [0, 1, 100, 255]),
        ([0, 255, 256, 65535], [0, 0, 1, 255]),
        ([0, 255, 256, 32768], [0, 0, 1, 128]),
    ],
    ids=["8 bits", "16 bits", "15 bits"],
)
def test_32_bit_integers_hold_8_or_16_bits(
    tmp_path: Path, values: list[int], expected: list[int]
) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    assert image.mode == "I"
    assert red(image_to_rgb(image)) == expected
    image.save(tmp_path / "deep.tiff")
    assert red(load_image(tmp_path / "deep.tiff").image) == expected


@pytest.mark.parametrize("value", [-1, 65536, 70000, 2**24, 2**31 - 1, -(2**31)])
def test_32_bit_integers_beyond_16_bits_are_an_error(tmp_path: Path, value: int) -> None:
    image = Image.fromarray(np.array([[0, value]], np.int32))
    image.save(tmp_path / "deep.tiff")
    with pytest.raises(DataError, match=r"deep\.tiff: expected integers within 0\.\.255, got"):
        load_image(tmp_path / "deep.tiff")


def test_16_bit_images_are_scaled_whatever_they_hold() -> None:
    for values in ([0, 256, 512, 65535], [0, 1, 100, 255]):
        image = Image.fromarray(np.array([values], np.uint16))
        assert image.mode.startswith("I;16")
        assert red(image_to_rgb(image)) == [value >> 8 for value in values]


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_arrays_of_any_integer(dtype: str) -> None:
    values = VALUES.clip(max=np.iinfo(dtype).max).astype(dtype)
    assert red(array_to_rgb(values, layout="last")) == values[0].tolist()


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64], ids=str)
def test_tensors_of_any_integer(dtype: torch.dtype) -> None:
    assert red(tensor_to_rgb(torch.from_numpy(VALUES).to(dtype))) == VALUES[0].tolist()
    with pytest.raises(DataError, match=r"expected integers within 0\.\.255, got -1\.\.255"):
        tensor_to_rgb(torch.tensor([[-1, 255]], dtype=dtype))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0, 256]], np.uint16), r"integers within 0\.\.255, got 0\.\.256"),
        (np.array([[-1, 3]], np.int64), r"integers within 0\.\.255, got -1\.\.3"),
        (np.array([[2**63]], np.uint64), r"integers within 0\.\.255, got 9223372036854775808"),
        (np.array([[0.5, 300.0]]), r"floats within 0\.\.1 .*got 0\.5\.\.300"),
        (np.array([[0.5, np.nan]]), r"floats within 0\.\.1 .*got nan"),
        (np.array([[1j]]), "dtype uint8 or floating, got complex128"),
        (np.zeros((0, 4), np.uint8), r"an image .* got shape \[0, 4\]"),
        (np.zeros((4, 0, 3), np.uint8), r"an image .* got shape \[4, 0, 3\]"),
    ],
    ids=["uint16", "negative", "uint64", "floats", "NaN", "complex", "empty", "empty RGB"],
)
def test_what_no_pixel_can_be_is_an_error(array: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^images: expected {message}"):
        array_to_rgb(array, layout="last")


@pytest.mark.parametrize("color", ["bgrr", "gbr", "", None, 3], ids=repr)
def test_unknown_orders_of_channels_are_an_error(color: Any) -> None:
    with pytest.raises(UsageError, match='color: expected "rgb" or "bgr"'):
        load_image(np.zeros((4, 4, 3), np.uint8), color=color)


@pytest.mark.parametrize("color", ["BGR", "Bgr"])
def test_upper_case_is_the_same_order(color: Any) -> None:
    pixels = np.zeros((1, 1, 3), np.uint8)
    pixels[0, 0] = 1, 2, 3
    assert load_image(pixels, color=color).image.getpixel((0, 0)) == (3, 2, 1)
