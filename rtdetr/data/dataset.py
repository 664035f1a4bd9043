# SPDX-License-Identifier: Apache-2.0
"""Annotated images as the network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..boxes import to_fractions, xyxy_to_cxcywh
from ..errors import DataError
from ..images.io import load_image
from .augmentation import Augmentation, Transforms, apply_user_transforms, augment, fit
from .load import Split
from .random_streams import image_stream, noise_seed
from .sample import Sample

__all__ = ["Batch", "DetectionDataset", "Item", "Key", "ObjectLabels", "collate"]


class Key(NamedTuple):
    """Which image, and all that its augmentation depends on beside the seed.

    It carries the epoch to workers that live for the whole run, and have no other way to know it.
    """

    epoch: int
    image: int
    repeat: int = 0  # how often the image came before in this epoch


class ObjectLabels(TypedDict):
    """The objects of one image, as ``RTDetrV2ForObjectDetection`` takes them; crowds are left out."""

    class_labels: Tensor  # [n], int64
    boxes: Tensor  # [n, 4], float32, (cx, cy, w, h) in 0..1
    image_id: Tensor  # [1], int64, as in the user's files
    orig_size: Tensor  # [2], int64, (height, width) of the upright image
    size: Tensor  # [2], int64, (height, width) of the pixels
    noise_seed: Tensor  # [1], int64, of the noise of the image's denoising queries


class Item(TypedDict):
    """One image."""

    pixel_values: Tensor  # [3, H, W], uint8
    labels: ObjectLabels


class Batch(TypedDict):
    """Images of one size."""

    pixel_values: Tensor  # [B, 3, H, W], uint8
    labels: list[ObjectLabels]


class DetectionDataset(Dataset[Item]):
    """A split, image by image.

    Args:
        split: N images.
        size: side, or (height, width), of the pixels.
        augmentation: how images are changed at random; None for validation.
        transforms: a user's augmentation instead; see :data:`~rtdetr.data.augmentation.Transforms`.
        strong_epochs: after so many epochs ``augmentation`` goes on with its weak part alone; None for never.
        seed: of every random number.
    """

    def __init__(
        self,
        split: Split,
        size: int | tuple[int, int] = 640,
        *,
        augmentation: Augmentation | None = None,
        transforms: Transforms | None = None,
        strong_epochs: int | None = None,
        seed: int = 0,
    ) -> None:
        self.split = split
        self.size = (size, size) if isinstance(size, int) else size
        self.augmentation = augmentation
        self.transforms = transforms
        self.strong_epochs = strong_epochs
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Key | int) -> Item:
        """The image of a key; a number is that image in epoch 0.

        Raises:
            DataError: if the image cannot be read, or has changed since it was checked.
        """
        key = key if isinstance(key, tuple) else Key(0, range(len(self))[key])
        sample = self._read(key.image)
        size = sample.size
        if self.transforms is not None:
            name, extra = self.split.annotations.names[key.image], self._extra(key.image)
            sample = apply_user_transforms(sample, self.transforms, extra, name)
        elif self.augmentation is not None:
            stream = image_stream(self.seed, *key)
            sample = augment(sample, stream, self._augmentation_of(key.epoch))
        return self._item(fit(sample, self.size), key, size)

    def _augmentation_of(self, epoch: int) -> Augmentation:
        assert self.augmentation is not None
        is_weak = self.strong_epochs is not None and epoch >= self.strong_epochs
        return self.augmentation.weak() if is_weak else self.augmentation

    def _extra(self, index: int) -> dict[str, int]:
        return {"image_id": int(self.split.annotations.image_ids[index])}

    def _read(self, index: int) -> Sample:
        annotations = self.split.annotations
        name = annotations.names[index] if self.split.load else annotations.path(index)
        image = load_image(self.split.image(index), name=name).image
        size = tuple(annotations.sizes[index].tolist())
        if (image.height, image.width) != size:
            raise DataError(
                f"{name}: has become {image.width}x{image.height} since it was checked, it was {size[1]}x{size[0]}"
            )
        own = annotations.of(index)
        learnt = ~annotations.crowds[own]
        boxes = annotations.boxes[own][learnt].astype(np.float64)
        return Sample(image, boxes, annotations.classes[own][learnt])

    def _item(self, sample: Sample, key: Key, size: tuple[int, int]) -> Item:
        index = key.image
        boxes = to_fractions(xyxy_to_cxcywh(sample.boxes), sample.size).astype(np.float32)
        labels: ObjectLabels = {
            "class_labels": torch.from_numpy(sample.classes.astype(np.int64)),
            "boxes": torch.from_numpy(boxes),
            "image_id": torch.from_numpy(
                self.split.annotations.image_ids[index : index + 1].copy()
            ),
            "orig_size": torch.tensor(size),
            "size": torch.tensor(sample.size),
            "noise_seed": torch.tensor([noise_seed(self.seed, *key)]),
        }
        return {"pixel_values": _pixels(sample.image), "labels": labels}


def collate(items: Sequence[Item]) -> Batch:
    """Items of one size as a batch."""
    return {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]),
        "labels": [item["labels"] for item in items],
    }


def _pixels(image: Image.Image) -> Tensor:
    array = np.asarray(image)
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
