# SPDX-License-Identifier: Apache-2.0
"""Transforms move a box as they move what it is around, and draw as the recipe says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr.data.augmentation import (
    Augmentation,
    apply_user_transforms,
    augment,
    fit,
    strong_epochs,
)
from rtdetr.data.geometry import (
    Window,
    centers_inside,
    crop,
    draw_crop,
    draw_zoom,
    flip,
    resize,
    sanitize,
    zoom_out,
)
from rtdetr.data.multi_scale import PUBLISHED_SIDES, resize_batch, side_of_step, sides_for
from rtdetr.data.photometric import Distortion, distort, draw_distortion
from rtdetr.data.random_streams import (
    image_stream,
    noise_seed,
    order_stream,
    repeat_stream,
    size_stream,
)
from rtdetr.data.sample import Sample
from rtdetr.errors import DataError

HEIGHT, WIDTH = 96, 128


def marked(box: tuple[int, int, int, int], size: tuple[int, int] = (HEIGHT, WIDTH)) -> Sample:
    """A gray image with a red rectangle, and the box around it."""
    image = Image.new("RGB", size[::-1], (90, 90, 90))
    x1, y1, x2, y2 = box
    image.paste((255, 0, 0), box)
    return Sample(image, np.asarray([[x1, y1, x2, y2]], dtype=np.float64), np.asarray([3]))


def red_box(image: Image.Image) -> list[int]:
    pixels = np.asarray(image).astype(int)
    rows, columns = np.nonzero((pixels[:, :, 0] > 170) & (pixels[:, :, 1] < 50))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def random_box(rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int, int, int]:
    x1, x2 = sorted(rng.choice(size[1] + 1, 2, replace=False).tolist())
    y1, y2 = sorted(rng.choice(size[0] + 1, 2, replace=False).tolist())
    return x1, y1, x2, y2


MOVES: dict[str, Callable[[Sample, np.random.Generator], Sample]] = {
    "flip": lambda sample, rng: flip(sample),
    "zoom": lambda sample, rng: zoom_out(sample, draw_zoom(rng, sample.size)),
    "crop": lambda sample, rng: crop(sample, draw_crop(rng, sample.size, sample.boxes) or Window(0, 0, WIDTH, HEIGHT)),
    "all": lambda sample, rng: augment(sample, rng, Augmentation(0, 0.5, 1, 0.5)),
}  # fmt: skip


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_box_stays_around_its_object(move: Callable[..., Sample]) -> None:
    """To the pixel: nothing here resamples."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        moved = move(marked(random_box(rng, (HEIGHT, WIDTH))), rng)
        if len(moved.boxes):
            assert moved.boxes[0].tolist() == red_box(moved.image), seed
            assert moved.classes.tolist() == [3]


@pytest.mark.parametrize("size", [(64, 64), (192, 96), (96, 512)], ids=str)
def test_resize(size: tuple[int, int]) -> None:
    sample = resize(marked((32, 24, 96, 72)), size)
    assert sample.size == size
    expected = np.asarray([0.25 * size[1], 0.25 * size[0], 0.75 * size[1], 0.75 * size[0]])
    np.testing.assert_allclose(sample.boxes[0], expected)
    assert np.abs(red_box(sample.image) - expected).max() <= 1


def test_zoom_fills_with_black() -> None:
    sample = zoom_out(marked((1, 2, 3, 4)), Window(10, 20, 300, 200))
    pixels = np.asarray(sample.image)
    assert sample.size == (200, 300)
    assert pixels[:20].sum() + pixels[:, :10].sum() + pixels[20 + HEIGHT :].sum() == 0
    assert pixels[20, 10].tolist() == [90, 90, 90]


def test_zoom_draws() -> None:
    windows = [draw_zoom(np.random.default_rng(seed), (HEIGHT, WIDTH)) for seed in range(2000)]
    sides = np.asarray([window.width / WIDTH for window in windows])
    assert 1 <= sides.min() < 1.05
    assert 3.95 < sides.max() <= 4
    assert sides.mean() == pytest.approx(2.5, abs=0.1)
    for window in windows:
        assert 0 <= window.left <= window.width - WIDTH
        assert 0 <= window.top <= window.height - HEIGHT


def test_crop_draws() -> None:
    """A center inside, the aspect within its bounds, the scale within its, and 1 in 7 as it is."""
    boxes = np.asarray([[10, 10, 60, 50], [70, 20, 120, 90.0]])
    kept = 0
    for seed in range(1000):
        window = draw_crop(np.random.default_rng(seed), (HEIGHT, WIDTH), boxes)
        if window is None:
            kept += 1
            continue
        assert centers_inside(boxes, window).any()
        assert 0.5 <= window.width / window.height <= 2
        assert 0.3 * WIDTH - 1 <= window.width <= WIDTH
        assert 0.3 * HEIGHT - 1 <= window.height <= HEIGHT
        assert 0 <= window.left <= WIDTH - window.width
        assert 0 <= window.top <= HEIGHT - window.height
    assert kept >= 100


def test_crop_of_an_image_without_boxes_is_none() -> None:
    assert draw_crop(np.random.default_rng(0), (HEIGHT, WIDTH), np.zeros((0, 4))) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)], ids=str)
def test_smallest_images(size: tuple[int, int]) -> None:
    height, width = size
    sample = Sample(
        Image.new("RGB", (width, height)),
        np.asarray([[0, 0, width, height]], float),
        np.zeros(1, int),
    )
    for seed in range(50):
        moved = fit(augment(sample, np.random.default_rng(seed), Augmentation()), (64, 64))
        assert moved.size == (64, 64)
        assert ((moved.boxes >= 0) & (moved.boxes <= 64)).all()


def test_sanitize_drops_what_is_below_a_pixel() -> None:
    boxes = np.asarray([[0, 0, 1, 1], [0, 0, 0.99, 5], [2, 2, 9, 2.5], [3, 3, 8, 8]])
    sample = sanitize(Sample(Image.new("RGB", (9, 9)), boxes, np.arange(4)))
    assert sample.classes.tolist() == [0, 3]


def test_distortion_draws() -> None:
    draws = [draw_distortion(np.random.default_rng(seed)) for seed in range(4000)]
    bounds = {"brightness": (0.875, 1.125), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5)}
    for name, (low, high) in (bounds | {"hue": (-0.05, 0.05)}).items():
        factors = [getattr(draw, name) for draw in draws if getattr(draw, name) is not None]
        assert len(factors) / len(draws) == pytest.approx(0.5, abs=0.03)
        assert low <= min(factors) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < max(factors) <= high
    assert np.mean([draw.contrast_first for draw in draws]) == pytest.approx(0.5, abs=0.03)
    orders = [draw.channels for draw in draws if draw.channels]
    assert len(orders) / len(draws) == pytest.approx(0.5, abs=0.03)
    assert len(set(orders)) == 6


def test_distortion_of_nothing_is_the_image() -> None:
    image = marked((1, 2, 30, 40)).image
    assert distort(image, Distortion()) is image


def test_distortion_changes_the_order_of_channels() -> None:
    image = Image.new("RGB", (2, 2), (10, 20, 30))
    assert distort(image, Distortion(channels=(2, 0, 1))).getpixel((0, 0)) == (30, 10, 20)


def test_augmentation_is_a_function_of_its_stream() -> None:
    sample = marked((10, 10, 70, 60))
    for epoch, index in ((0, 0), (3, 7)):
        first, second = (
            augment(sample, image_stream(5, epoch, index), Augmentation()) for _ in range(2)
        )
        assert first.image.tobytes() == second.image.tobytes()
        assert first.boxes.tolist() == second.boxes.tolist()


def test_streams_differ() -> None:
    streams = [
        image_stream(0, 0, 0), image_stream(1, 0, 0), image_stream(0, 1, 0), image_stream(0, 0, 1),
        image_stream(0, 0, 0, 1), order_stream(0, 0), size_stream(0, 0), repeat_stream(0, 0),
    ]  # fmt: skip
    numbers = {int(stream.integers(2**63)) for stream in streams}
    seeds = [
        noise_seed(0, 0, 0), noise_seed(1, 0, 0), noise_seed(0, 1, 0), noise_seed(0, 0, 1),
        noise_seed(0, 0, 0, 1),
    ]  # fmt: skip
    assert noise_seed(0, 0, 0) == seeds[0]
    assert len(numbers | set(seeds)) == len(streams) + len(seeds)


def test_weak_augmentation_flips_alone() -> None:
    sample = marked((10, 10, 70, 60))
    results = {
        augment(sample, image_stream(0, 0, index), Augmentation().weak()).image.tobytes()
        for index in range(50)
    }
    assert results == {sample.image.tobytes(), flip(sample).image.tobytes()}


@pytest.mark.parametrize(
    ("epochs", "published", "strong"),
    [(120, 117 / 120, 117), (72, 71 / 72, 71), (50, 117 / 120, 49), (2, 0.9, 1), (1, 0.9, 1), (10, 0.7, 7)],
)  # fmt: skip
def test_strong_epochs(epochs: int, published: float, strong: int) -> None:
    assert strong_epochs(epochs, published) == strong


def test_sides_of_steps() -> None:
    sides = [side_of_step(0, step) for step in range(2600)]
    assert sides == [side_of_step(0, step) for step in range(2600)]
    assert set(sides) == set(PUBLISHED_SIDES)
    assert sides.count(640) == pytest.approx(600, abs=80)
    assert sides.count(480) == pytest.approx(200, abs=50)
    assert sides != [side_of_step(1, step) for step in range(2600)]


def test_sides_for_another_size() -> None:
    assert sides_for(640) == PUBLISHED_SIDES
    assert sides_for(1280)[:3] == (960, 1024, 1088)
    assert sides_for(320) == (256, 256, 256, 288, 320, 320, 320, 320, 320, 352, 384, 384, 384)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_batch_is_resized_by_the_nearest(dtype: torch.dtype) -> None:
    pixels = torch.arange(2 * 3 * 4 * 4, dtype=dtype).reshape(2, 3, 4, 4)
    assert torch.equal(resize_batch(pixels, 2), pixels[:, :, ::2, ::2])
    assert torch.equal(
        resize_batch(pixels, 8), pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)
    )
    assert resize_batch(pixels, 4) is pixels


def keep(image: Image.Image, target: dict[str, Any]) -> tuple[Any, Any]:
    return image, target


USER: dict[str, tuple[Callable[..., Any], list[list[float]]]] = {
    "as it is": (keep, [[10, 10, 70, 60]]),
    "an array": (lambda image, target: (np.asarray(image)[:, :50], target), [[10, 10, 50, 60]]),
    "no objects": (lambda image, target: (image, {"boxes": [], "class_labels": []}), []),
    "too small": (lambda image, target: (image, target | {"boxes": target["boxes"] * 0}), []),
}


@pytest.mark.parametrize(("transforms", "boxes"), USER.values(), ids=USER)
def test_user_transforms(transforms: Any, boxes: list[list[float]]) -> None:
    sample = apply_user_transforms(marked((10, 10, 70, 60)), transforms, {"image_id": 4}, "1.png")
    assert sample.boxes.tolist() == boxes


BAD_USER: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing": (lambda image, target: None, "returned NoneType for 1.png"),
    "image alone": (lambda image, target: image, "returned Image"),
    "no classes": (lambda image, target: (image, {"boxes": []}), "a target with ['boxes']"),
    "no image": (lambda image, target: (3, target), "transforms: the image"),
    "other number": (lambda image, target: (image, target | {"class_labels": []}), "[1, 4] and class_labels [0]"),
    "NaN": (lambda image, target: (image, target | {"boxes": target["boxes"] * np.nan}), "NaN"),
}  # fmt: skip


@pytest.mark.parametrize(("transforms", "words"), BAD_USER.values(), ids=BAD_USER)
def test_bad_user_transforms(transforms: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        apply_user_transforms(marked((10, 10, 70, 60)), transforms, {}, "1.png")
    assert words in str(caught.value)
