# SPDX-License-Identifier: Apache-2.0
"""From a data set on disk to batches: the same for any number of workers, in memory that does not grow."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_sets import TRAIN, coco, coco_folder, draw
from PIL import Image
from tiny_detector import tiny_model
from worker_memory import ROLLUP

from rtdetr.data import (
    Augmentation,
    DetectionDataset,
    Key,
    ReadOptions,
    Split,
    TrainingBatches,
    load_data,
    make_loader,
    shard_batches,
)
from rtdetr.errors import DataError, UsageError
from rtdetr.images.io import load_image


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Twelve images; the second has a crowd beside its box, the third has none."""
    document = coco(TRAIN, ids=(3, 9))
    document["annotations"].append(
        {"image_id": 11, "category_id": 3, "bbox": [1, 1, 9, 9], "iscrowd": 1}
    )
    del document["annotations"][2]
    folder = coco_folder(tmp_path_factory.mktemp("data"), document, coco(("val_0.png",), (3, 9)))
    split = load_data(folder).train
    assert split is not None
    return split


def digest(batches: Iterable[Any]) -> str:
    """Of all values of all batches."""
    total = hashlib.sha256()
    for batch in batches:
        total.update(batch["pixel_values"].numpy().tobytes())
        for labels in batch["labels"]:
            for name in sorted(labels):
                total.update(labels[name].numpy().tobytes())
    return total.hexdigest()


def epochs_of(split: Split, workers: int, start_method: str | None = None) -> list[str]:
    dataset = DetectionDataset(split, 64, augmentation=Augmentation(), seed=3, strong_epochs=2)
    batches = TrainingBatches(len(split), 4, seed=3)
    loader = make_loader(dataset, batches, workers=workers, start_method=start_method)
    digests = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        digests.append(digest(loader))
    return digests


def test_item(train: Split) -> None:
    item = DetectionDataset(train, (32, 96))[1]
    pixels, labels = item["pixel_values"], item["labels"]
    assert (pixels.dtype, list(pixels.shape)) == (torch.uint8, [3, 32, 96])
    assert labels["class_labels"].tolist() == [1]
    assert labels["class_labels"].dtype == labels["image_id"].dtype == torch.int64
    assert labels["boxes"].dtype == torch.float32
    torch.testing.assert_close(labels["boxes"], torch.tensor([[0.25, 0.25, 0.25, 0.25]]))
    assert labels["image_id"].tolist() == [11]
    assert (labels["orig_size"].tolist(), labels["size"].tolist()) == ([48, 64], [32, 96])
    with Image.open(train.image(1)) as image:
        resized = image.convert("RGB").resize((96, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels.numpy(), np.asarray(resized).transpose(2, 0, 1))


def test_noise_depends_on_seed_and_key(train: Split) -> None:
    keys = [Key(0, 0), Key(1, 0), Key(0, 1), Key(0, 0, 1)]
    seeds = [
        DetectionDataset(train, 64, seed=seed)[key]["labels"]["noise_seed"]
        for seed in (0, 1)
        for key in keys
    ]
    assert all(seed.dtype == torch.int64 and list(seed.shape) == [1] for seed in seeds)
    assert len({int(seed) for seed in seeds}) == len(seeds)
    again = DetectionDataset(train, 64)[Key(0, 0)]["labels"]["noise_seed"]
    assert torch.equal(again, seeds[0])


def test_item_without_objects(train: Split) -> None:
    labels = DetectionDataset(train, 64, augmentation=Augmentation())[2]["labels"]
    assert list(labels["boxes"].shape) == [0, 4]
    assert list(labels["class_labels"].shape) == [0]


def test_boxes_are_fractions_after_any_augmentation(train: Split) -> None:
    dataset = DetectionDataset(train, 64, augmentation=Augmentation())
    for epoch in range(40):
        labels = dataset[Key(epoch, 0)]["labels"]
        center, size = labels["boxes"][:, :2], labels["boxes"][:, 2:]
        assert (center - size / 2 >= -1e-6).all()
        assert (center + size / 2 <= 1 + 1e-6).all()


def test_detector_learns_from_a_batch(train: Split) -> None:
    model = tiny_model().train()
    loader = make_loader(DetectionDataset(train, 64), shard_batches(4, 4))
    batch: Any = next(iter(loader))
    loss = model(batch["pixel_values"] / 255, labels=batch["labels"]).loss
    loss.backward()
    assert loss.isfinite()
    assert loss > 0


@pytest.mark.parametrize(("workers", "method"), [(1, "fork"), (2, "fork"), (1, "spawn")], ids=str)
def test_workers_change_nothing(train: Split, workers: int, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    epochs = epochs_of(train, 0)
    assert epochs_of(train, workers, method) == epochs
    assert len(set(epochs)) == 3


def test_strong_augmentation_ends(train: Split) -> None:
    """In the last epochs an image is as it is, or flipped."""
    strong = DetectionDataset(train, 64, augmentation=Augmentation(), strong_epochs=5)
    plain = DetectionDataset(train, 64)[0]["pixel_values"]
    both = {plain.numpy().tobytes(), plain.flip(2).numpy().tobytes()}
    late = {strong[Key(epoch, 0)]["pixel_values"].numpy().tobytes() for epoch in range(5, 30)}
    assert len(late - both) == 0
    assert {strong[Key(epoch, 0)]["pixel_values"].numpy().tobytes() for epoch in range(5)} - both


def test_user_transforms_replace_the_augmentation(train: Split) -> None:
    seen = []

    def transforms(image: Image.Image, target: dict[str, Any]) -> tuple[Any, Any]:
        seen.append(target["image_id"])
        return image.crop((0, 0, 32, 24)), target

    dataset = DetectionDataset(train, 64, augmentation=Augmentation(), transforms=transforms)
    boxes = dataset[0]["labels"]["boxes"]
    torch.testing.assert_close(boxes, torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    assert seen == [10]


def draw_from_everywhere(image: Image.Image, target: dict[str, Any]) -> tuple[Any, Any]:
    """A gray image of three numbers that are drawn, and a fourth that is the seed."""
    numbers = [random.random(), np.random.random(), torch.rand(()).item(), target["seed"] / 2**32]  # noqa: NPY002
    grays = (np.array(numbers) * 255).astype(np.uint8)
    return np.repeat(np.repeat(grays[None, :, None], 4, 0), 3, 2), target | {
        "boxes": [],
        "class_labels": [],
    }


def test_what_user_transforms_draw_depends_on_the_image_alone(train: Split) -> None:
    """Any number of workers, and any order; another epoch and another repeat draw other numbers."""
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index] # noqa: NPY002
    dataset = DetectionDataset(train, 4, transforms=draw_from_everywhere, seed=3)
    batches = TrainingBatches(len(train), 4, seed=3)
    none, two = (digest(make_loader(dataset, batches, workers=count)) for count in (0, 2))
    assert none == two
    keys = [Key(0, 1), Key(0, 2), Key(1, 1), Key(0, 1, 1), Key(0, 1)]
    *drawn, again = (tuple(dataset[key]["pixel_values"][0, 0].tolist()) for key in keys)
    assert len(set(drawn)) == 4
    assert again == drawn[0]
    assert len(set(drawn[0])) > 1
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index] # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_image_that_changed_since_the_check(tmp_path: Path) -> None:
    split = load_data(coco_folder(tmp_path)).train
    assert split is not None
    draw(tmp_path / "train" / TRAIN[0], size=(20, 10))
    with pytest.raises(DataError, match="has become 20x10 since it was checked, it was 64x48"):
        DetectionDataset(split)[0]


def broken_folder(folder: Path, *broken: int) -> Split:
    """The images of these numbers are cut off where only decoding them tells."""
    split = load_data(coco_folder(folder)).train
    assert split is not None
    for index in broken:
        file = folder / "train" / TRAIN[index]
        file.write_bytes(file.read_bytes()[:-400])
    return split


def test_a_broken_image_is_named_when_it_comes(tmp_path: Path) -> None:
    dataset = DetectionDataset(broken_folder(tmp_path, 4), 32)
    assert dataset[3]["labels"]["skipped"].tolist() == [0]
    with pytest.raises(DataError, match=rf"{TRAIN[4]}: not a readable image"):
        dataset[4]
    with pytest.raises(DataError, match=TRAIN[4]):
        list(make_loader(dataset, shard_batches(12, 4), workers=1))


def test_a_broken_image_is_replaced_by_the_next(tmp_path: Path) -> None:
    """Of the image 4 the next one that can be read is 6, of the last one it is the first."""
    split = broken_folder(tmp_path, 4, 5, 11)
    (tmp_path / "train" / TRAIN[5]).unlink()
    dataset = DetectionDataset(split, 32, skip_broken=True)
    images = {4: (6, 2), 5: (6, 1), 6: (6, 0), 11: (0, 1)}
    for index, (other, skipped) in images.items():
        item = dataset[index]
        assert item["labels"]["image_id"].tolist() == [10 + other]
        assert item["labels"]["class_labels"].tolist() == [other % 2]
        assert item["labels"]["skipped"].tolist() == [skipped]
        assert torch.equal(item["pixel_values"], dataset[other]["pixel_values"])


def test_workers_replace_alike(tmp_path: Path) -> None:
    split = broken_folder(tmp_path, 4, 5, 11)
    dataset = DetectionDataset(split, 32, augmentation=Augmentation(), skip_broken=True)
    digests = [
        digest(make_loader(dataset, TrainingBatches(12, 4), workers=workers)) for workers in (0, 2)
    ]
    assert digests[0] == digests[1]


def test_no_image_can_be_read(tmp_path: Path) -> None:
    dataset = DetectionDataset(broken_folder(tmp_path, *range(12)), 32, skip_broken=True)
    with pytest.raises(DataError, match=rf"none of the 12 images .*first: .*{TRAIN[7]}"):
        dataset[7]


def test_an_image_of_another_size_is_not_passed_over(tmp_path: Path) -> None:
    split = load_data(coco_folder(tmp_path)).train
    assert split is not None
    draw(tmp_path / "train" / TRAIN[0], size=(20, 10))
    with pytest.raises(DataError, match="has become 20x10"):
        DetectionDataset(split, skip_broken=True)[0]


KINDS: dict[str, Callable[[Image.Image, Path], None]] = {
    "grey": lambda image, path: image.convert("L").save(path),
    "one bit": lambda image, path: image.convert("1").save(path),
    "grey with alpha": lambda image, path: image.convert("LA").save(path),
    "alpha": lambda image, path: image.convert("RGBA").save(path),
    "palette": lambda image, path: image.convert("P").save(path),
    "16 bit": lambda image, path: Image.fromarray(
        np.asarray(image.convert("L")).astype(np.uint16) * 257
    ).save(path),
    "CMYK": lambda image, path: image.convert("CMYK").save(path, "jpeg"),
    "animated": lambda image, path: image.save(
        path, "gif", save_all=True, append_images=[image.rotate(180)]
    ),
}


@pytest.mark.parametrize("save", KINDS.values(), ids=KINDS)
def test_any_kind_of_image_is_read_as_for_prediction(
    save: Callable[[Image.Image, Path], None], tmp_path: Path
) -> None:
    coco_folder(tmp_path)
    file = tmp_path / "train" / TRAIN[0]
    image = Image.open(file).convert("RGB")
    save(image, file)
    splits = load_data(tmp_path, ReadOptions(decode=True))
    assert splits.train is not None
    pixels = DetectionDataset(splits.train, (48, 64))[0]["pixel_values"]
    as_predicted = np.asarray(load_image(file).image)
    np.testing.assert_array_equal(pixels.numpy().transpose(1, 2, 0), as_predicted)
    difference = as_predicted.mean(2) - np.asarray(image.convert("L"), float)
    assert abs(difference.mean()) < 12


def test_one_image_of_one_class_fills_a_batch(tmp_path: Path) -> None:
    document = coco(TRAIN[:1])
    document["categories"] = document["categories"][:1]
    file = coco_folder(tmp_path, document) / "annotations" / "instances_train.json"
    split = load_data(file, ReadOptions(val_fraction=0)).train
    assert split is not None
    dataset = DetectionDataset(split, 32, augmentation=Augmentation())
    (batch,) = make_loader(dataset, TrainingBatches(1, 4))
    assert list(batch["pixel_values"].shape) == [4, 3, 32, 32]  # type: ignore[call-overload]
    repeats = {labels["noise_seed"].item() for labels in batch["labels"]}  # type: ignore[call-overload]
    assert len(repeats) == 4


def test_loader_leaves_the_generator_alone(train: Split) -> None:
    state = torch.get_rng_state()
    epochs_of(train, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_from_memory_reach_spawned_workers() -> None:
    items = [
        (np.full((48, 64, 3), index, np.uint8), {"boxes": [[1, 2, 30, 40]], "labels": [0]})
        for index in range(12)
    ]
    splits = load_data(items, ReadOptions(val_fraction=0.25))
    assert splits.val is not None
    loader = make_loader(
        DetectionDataset(splits.val, 32), shard_batches(3, 3), workers=1, start_method="spawn"
    )
    batch: Any = next(iter(loader))
    numbers = [int(name.split()[1]) for name in splits.val.annotations.names]
    assert batch["pixel_values"].amax((1, 2, 3)).tolist() == numbers


@pytest.mark.skipif(not ROLLUP.exists(), reason=f"needs {ROLLUP}")
def test_what_cannot_be_sent_to_a_worker_is_said(tmp_path: Path) -> None:
    split = load_data(coco_folder(tmp_path)).val
    assert split is not None
    dataset = DetectionDataset(split, 32, transforms=lambda image, target: (image, target))
    with pytest.raises(UsageError, match=r"^workers: expected 0, or .* top of a module"):
        make_loader(dataset, shard_batches(2, 2), workers=1, start_method="spawn")
    assert len(list(make_loader(dataset, shard_batches(2, 2), workers=1, start_method="fork"))) == 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_memory_of_a_worker_does_not_grow(method: str, tmp_path: Path) -> None:
    """After epoch 10 within 5 % of epoch 2, in a process that has nothing else to share with its worker."""
    script = Path(__file__).with_name("worker_memory.py")
    command = [sys.executable, str(script), method, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    usual = json.loads(done.stdout)
    assert all(late <= 1.05 * early for early, late in zip(usual[2], usual[10], strict=True)), usual
