# SPDX-License-Identifier: Apache-2.0
"""A model on a split: the one function behind ``rtdetr val`` and the evaluation of an epoch.

Images are resized to one size, and nothing else is done to them: what :class:`~rtdetr.data.DetectionDataset` does
without augmentation, and ``RTDETR`` with the processor of published models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from ..data import Batch, DetectionDataset, Split, end_workers, make_loader, shard_batches
from ..errors import ModelError, did_you_mean
from ..inference.predictor import RawOutputs, run_network
from ..model import RTDetrV2ForObjectDetection
from .evaluator import evaluate
from .metrics import Evaluation
from .predictions import PredictionTable, collect_predictions

__all__ = ["ClassMap", "ValidationBatches", "network_of", "predict_split", "validate"]

IndexedBatch: TypeAlias = "tuple[Sequence[int], Batch]"
"""The indices of images in their split, and their batch."""

Progress: TypeAlias = Callable[[Iterable[IndexedBatch]], Iterable[IndexedBatch]]
"""Passes batches on, and shows how far it is."""


@dataclass(frozen=True)
class ValidationBatches:
    """The images of a split, each once and in order; those of one rank.

    Worker processes live as long as this object, and serve every pass over it.

    Args:
        split: N images.
        imgsz: side, or (height, width), of the pixels; multiples of 32.
        batch: images at once.
        workers: processes; 0 reads in this one.
        pin_memory: see :func:`~rtdetr.data.make_loader`.
        rank, ranks: which process of how many.
    """

    split: Split
    imgsz: int | tuple[int, int] = 640
    batch: int = 16
    workers: int = 0
    pin_memory: bool = False
    rank: int = 0
    ranks: int = 1
    _shards: list[list[int]] = field(init=False, repr=False)
    _loader: Iterable[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shards = shard_batches(len(self.split), self.batch, self.rank, self.ranks)
        loader = make_loader(
            DetectionDataset(self.split, self.imgsz),
            shards,
            workers=self.workers,
            pin_memory=self.pin_memory,
        )
        object.__setattr__(self, "_shards", shards)
        object.__setattr__(self, "_loader", loader)

    def __len__(self) -> int:
        return len(self._shards)

    def close(self) -> None:
        """End the worker processes."""
        end_workers(self._loader)

    def __iter__(self) -> Iterator[IndexedBatch]:
        return zip(self._shards, cast("Iterable[Batch]", self._loader), strict=True)


@dataclass(frozen=True)
class ClassMap:
    """The classes of a model among those of a data set, by their names.

    Args:
        new: the data set's class for each class of the model; None where it has none of that name.
        missing: classes of the data set that the model does not have.
    """

    new: tuple[int | None, ...]
    missing: tuple[int, ...]

    @classmethod
    def of(cls, model_names: Mapping[int, str], data_names: Sequence[str]) -> ClassMap:
        """Match names.

        Raises:
            ModelError: if there is none in common.
        """
        index_of = {name: index for index, name in enumerate(data_names)}
        new = tuple(index_of.get(model_names[label]) for label in range(len(model_names)))
        missing = tuple(sorted(set(index_of.values()) - set(new)))
        if len(missing) == len(data_names):
            known = list(model_names.values())
            hint = did_you_mean(data_names[0], known) if data_names else ""
            raise ModelError(
                f"the model and the data have no class in common: the model knows {_some(known)}, the data have "
                f"{_some(data_names)}; classes are matched by their names.{hint}"
            )
        return cls(new, missing)


def validate(
    model: RTDetrV2ForObjectDetection,
    split: Split,
    *,
    imgsz: int | tuple[int, int] = 640,
    batch: int = 16,
    workers: int = 0,
    dtype: torch.dtype | None = None,
    max_detections: int | None = None,
    progress: Progress | None = None,
) -> tuple[Evaluation, PredictionTable]:
    """How well a model finds the objects of a split.

    Args:
        model: on its device and in its dtype; put into evaluation mode meanwhile.
        split: N images. Classes are matched by their names.
        imgsz: side, or (height, width), of the pixels; multiples of 32.
        batch: images at once.
        workers: processes that read images.
        dtype: of matrix products and convolutions under autocast; None computes in the model's own.
        max_detections: of an image; by default the number of queries.
        progress: wraps the batches, for a bar.

    Returns:
        The numbers, and the predictions, whose classes are those of the split.

    Raises:
        ModelError: if the model has no class of the data, or answers with a NaN or an infinity.
        DataError: if an image cannot be read.
        RTDetrError: if the device's memory does not suffice.
        MissingExtraError: if faster-coco-eval is not installed.
    """
    annotations = split.annotations
    classes = ClassMap.of(model.config.id2label, annotations.categories.names)
    limit = max_detections or model.config.num_queries
    batches = ValidationBatches(
        split, imgsz, batch, workers, pin_memory=model.device.type == "cuda"
    )
    wrap = progress or iter
    try:
        table = predict_split(model, wrap(batches), dtype=dtype, limit=limit)
    finally:
        batches.close()
    table = table.with_classes(classes.new)
    return evaluate(table, annotations, max_detections=limit, missing=classes.missing), table


def predict_split(
    model: RTDetrV2ForObjectDetection,
    batches: Iterable[IndexedBatch],
    *,
    dtype: torch.dtype | None = None,
    limit: int | None = None,
) -> PredictionTable:
    """What a model finds in the images of ``batches``; classes are those of the model. See :func:`validate`."""
    with in_evaluation_mode(model):
        return collect_predictions(network_of(model, dtype), batches, limit=limit)


def network_of(
    model: RTDetrV2ForObjectDetection, dtype: torch.dtype | None = None
) -> Callable[[Tensor], RawOutputs]:
    """What answers uint8 pixels [B, 3, H, W] as ``model`` does, without gradients."""

    @torch.inference_mode()
    def network(pixel_values: Tensor) -> RawOutputs:
        device = model.device
        pixels = (pixel_values.to(device, non_blocking=True).float() / 255).to(model.dtype)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return run_network(model, pixels)

    return network


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards each of its modules is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" ... ({len(names):,} classes)" if len(names) > 5 else "")
