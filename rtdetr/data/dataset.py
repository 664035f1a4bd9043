# SPDX-License-Identifier: Apache-2.0
"""Annotated images as the network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from .random_streams import image_stream, noise_seed, seeded
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
    skipped: Tensor  # [1], int64, how many images were passed over that could not be read; this one is the next


class Item(TypedDict):
    """One image."""

    pixel_values: Tensor  # [3, H, W], uint8
    labels: ObjectLabels


@dataclass(frozen=True)
class Loaded:
    """An image that could be read."""

    index: int
    image: Image.Image
    skipped: int  # how many before it could not

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.height, self.image.width


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
        skip_broken: whether the next image comes in the place of one that cannot be read; "skipped" counts them.
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
        skip_broken: bool = False,
    ) -> None:
        self.split = split
        self.size = (size, size) if isinstance(size, int) else size
        self.augmentation = augmentation
        self.transforms = transforms
        self.strong_epochs = strong_epochs
        self.seed = seed
        self.skip_broken = skip_broken

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Key | int) -> Item:
        """The image of a key; a number is that image in epoch 0.

        Raises:
            DataError: if the image cannot be read (with ``skip_broken``, if none can), or has another size than when
                it was checked.
        """
        key = key if isinstance(key, tuple) else Key(0, range(len(self))[key])
        loaded = self._load(key.image)
        sample = self._annotate(loaded)
        if self.transforms is not None:
            extra = self._extra(key, loaded.index)
            name = self.split.annotations.names[loaded.index]
            with seeded(extra["seed"]):
                sample = apply_user_transforms(sample, self.transforms, extra, name)
        elif self.augmentation is not None:
            stream = image_stream(self.seed, *key)
            sample = augment(sample, stream, self._augmentation_of(key.epoch))
        return self._item(fit(sample, self.size), key, loaded)

    def _augmentation_of(self, epoch: int) -> Augmentation:
        assert self.augmentation is not None
        is_weak = self.strong_epochs is not None and epoch >= self.strong_epochs
        return self.augmentation.weak() if is_weak else self.augmentation

    def _extra(self, key: Key, index: int) -> dict[str, int]:
        """What a user's transforms are told beside the objects."""
        seed = int(image_stream(self.seed, *key).integers(2**32))
        return {"image_id": int(self.split.annotations.image_ids[index]), "seed": seed}

    def _load(self, index: int) -> Loaded:
        first = None
        for skipped in range(len(self)):
            place = (index + skipped) % len(self)
            try:
                image = load_image(self.split.image(place), name=self._name(place)).image
                return Loaded(place, image, skipped)
            except DataError as error:
                if not self.skip_broken:
                    raise
                first = first or error
        raise DataError(f"none of the {len(self):,} images can be read (first: {first})")

    def _name(self, index: int) -> str:
        annotations = self.split.annotations
        return annotations.names[index] if self.split.load else annotations.path(index)

    def _annotate(self, loaded: Loaded) -> Sample:
        annotations = self.split.annotations
        height, width = annotations.sizes[loaded.index].tolist()
        if loaded.size != (height, width):
            own = f"{loaded.image.width}x{loaded.image.height}"
            raise DataError(
                f"{self._name(loaded.index)}: has become {own} since it was checked, it was {width}x{height}"
            )
        own_boxes = annotations.of(loaded.index)
        learnt = ~annotations.crowds[own_boxes]
        boxes = annotations.boxes[own_boxes][learnt].astype(np.float64)
        return Sample(loaded.image, boxes, annotations.classes[own_boxes][learnt])

    def _item(self, sample: Sample, key: Key, loaded: Loaded) -> Item:
        ids = self.split.annotations.image_ids
        boxes = to_fractions(xyxy_to_cxcywh(sample.boxes), sample.size).astype(np.float32)
        labels: ObjectLabels = {
            "class_labels": torch.from_numpy(sample.classes.astype(np.int64)),
            "boxes": torch.from_numpy(boxes),
            "image_id": torch.from_numpy(ids[loaded.index : loaded.index + 1].copy()),
            "orig_size": torch.tensor(loaded.size),
            "size": torch.tensor(sample.size),
            "noise_seed": torch.tensor([noise_seed(self.seed, *key)]),
            "skipped": torch.tensor([loaded.skipped]),
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
